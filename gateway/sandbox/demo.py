"""`gateway demo`: one command from nothing to a running sandbox.

Knows: what is started in which order, where things are kept. Must not know: how any of it works.
"""

import asyncio
import json
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from gateway.api.wire import server_options
from gateway.app import build_gateway, create_app, read_schemas, running
from gateway.sandbox.judged import DESCRIPTION, description_page
from gateway.sandbox.mongod import drop_database, running_mongod
from gateway.sandbox.pages import CALLBACK, app_page
from gateway.sandbox.paired import pair_app
from gateway.sandbox.people import DAYS, SECRET, NamedIds, People, bring_people, issue_tokens, open_pages
from gateway.sandbox.rows import village_digest
from gateway.sandbox.start import START, start_page
from gateway.sandbox.tour import write_tour
from gateway.schemas import find_schemas
from gateway.settings import Settings

_DATABASE = "sandbox"
_KEPT = "people.json"


class DemoError(Exception):
    """The sandbox cannot run: the message says why."""


def run_demo(listener: socket.socket, data: Path | None) -> None:
    """Start MongoDB and gateway, bring the people, print the tour; stop everything on Ctrl-C or SIGTERM.

    `listener`: a socket on the port to serve. `data`: a folder to keep the data in, for the next time. Raises MongodError
    where there is no mongod to start.
    """
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _run(listener, data)
    except KeyboardInterrupt:  # how this ends when all is well: uvicorn raises the signal again when it has stopped
        _say("stopped.")


def _run(listener: socket.socket, data: Path | None) -> None:
    port = listener.getsockname()[1]
    _say("starting MongoDB …")
    with running_mongod(data) as url:
        settings = Settings(
            mongo_url=url,
            mongo_database=_DATABASE,
            mongo_driver="motor",
            base_url=f"http://127.0.0.1:{port}/fhir",
            secret=SECRET,
            trusted_proxies="",
            log_level="warning",
            schemas=find_schemas(),
        )
        kept = _read_people(data)
        if kept is None and data is not None and (data / _KEPT).exists():
            _say("the village has changed since this folder was kept: it is brought anew")
        if kept is None:
            drop_database(url, _DATABASE)  # what an interrupted first start left
        _say("renewing the tokens …" if kept else f"bringing the people of a village, and {DAYS} days of readings …")
        people = asyncio.run(_bring(settings, kept))
        _keep_people(data, people)
        tour = write_tour(settings, people, datetime.now(UTC), kept=kept is not None)
        server = _Server(settings, tour, people)
        server.run([listener])
        if not server.started:
            raise DemoError("the gateway did not start")


class _Server(uvicorn.Server):
    """uvicorn, which prints the tour once it listens."""

    def __init__(self, settings: Settings, tour: str, people: People) -> None:
        app = create_app(settings)
        app.add_route(CALLBACK, app_page)
        app.add_route(DESCRIPTION, description_page(people))
        app.add_route(START, start_page(settings, people))
        super().__init__(uvicorn.Config(app, **server_options()))
        self._tour = tour

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started:
            _say(self._tour)


async def _bring(settings: Settings, kept: People | None) -> People:
    ids = NamedIds(SECRET)
    async with running(build_gateway(settings, read_schemas(settings.schemas), ids)) as gateway:
        if kept is None:
            return await pair_app(gateway, await bring_people(gateway, ids))
        await open_pages(gateway, kept.ids)
        return await pair_app(gateway, People(kept.ids, await issue_tokens(gateway, kept.ids)))


def _read_people(data: Path | None) -> People | None:
    """The people that this folder's data already holds."""
    if data is None or not (data / _KEPT).exists():
        return None
    kept = json.loads((data / _KEPT).read_text("utf-8"))
    return People(kept["ids"], kept["tokens"]) if kept.get("village") == village_digest() else None


def _keep_people(data: Path | None, people: People) -> None:
    if data is not None:
        kept = {"ids": dict(people.ids), "tokens": dict(people.tokens), "village": village_digest()}
        (data / _KEPT).write_text(json.dumps(kept, indent=2), "utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stdout, flush=True)  # noqa: T201 (for the person at the terminal)
