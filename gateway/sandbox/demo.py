"""`gateway demo`: one command from nothing to a running sandbox.

Knows: what is started in which order, where things are kept. Must not know: how any of it works.
"""

import asyncio
import http.client
import json
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from gateway.api.wire import server_options
from gateway.app import Schemas, build_gateway, create_app, read_schemas, running
from gateway.sandbox.collection import COLLECTION, collection_page
from gateway.sandbox.judged import DESCRIPTION, description_page
from gateway.sandbox.mongod import bring_back_copy, drop_database, keep_copy, running_mongod
from gateway.sandbox.pages import CALLBACK, app_page
from gateway.sandbox.paired import pair_app
from gateway.sandbox.people import DAYS, SECRET, NamedIds, People, bring_people, issue_tokens, open_pages
from gateway.sandbox.resetting import reset_page
from gateway.sandbox.rows import Village, read_village, village_digest
from gateway.sandbox.stage import RESET, Stage
from gateway.sandbox.start import START, start_page
from gateway.sandbox.streams import Streams
from gateway.sandbox.tour import write_tour
from gateway.schemas import find_schemas
from gateway.settings import Settings

_DATABASE = "sandbox"
_KEPT = "people.json"


class DemoError(Exception):
    """The sandbox cannot run: the message says why."""


def run_demo(listener: socket.socket, data: Path | None, speed: float | None = None) -> None:
    """Start MongoDB and gateway, bring the people, print the tour; stop everything on Ctrl-C or SIGTERM.

    `listener`: a socket on the port to serve. `data`: a folder to keep the data in, for the next time. `speed`: how fast time
    passes for the sensors of the village; without it they are silent. Raises MongodError where there is no mongod to start.
    """
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _run(listener, data, speed)
    except KeyboardInterrupt:  # how this ends when all is well: uvicorn raises the signal again when it has stopped
        _say("stopped.")


def _run(listener: socket.socket, data: Path | None, speed: float | None) -> None:
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
        schemas, village = read_schemas(settings.schemas), read_village()
        people = asyncio.run(_bring(settings, schemas, village, kept, speed))
        if kept is None:
            keep_copy(url, _DATABASE)
        _keep_people(data, people)
        streams = None if speed is None else Streams(settings.base_url, village, people, speed)
        tour = write_tour(settings, people, datetime.now(UTC), kept=kept is not None, speed=speed)
        server = _Server(create_app(settings, schemas=schemas), partial(bring_back_copy, url, _DATABASE), streams, tour)
        server.add_pages(settings, schemas, village, people)
        server.run([listener])
        if not server.started:
            raise DemoError("the gateway did not start")


class _Server(uvicorn.Server):
    """uvicorn, which prints the tour once it listens. `restore`: brings the database back to how it began."""

    def __init__(self, app: FastAPI, restore: Callable[[], None], streams: Streams | None, tour: str) -> None:
        self._app, self._streams, self._tour = app, streams, tour
        self._stage = Stage(app, restore, nullcontext if streams is None else streams.running)
        super().__init__(uvicorn.Config(self._stage, **server_options()))

    def add_pages(self, settings: Settings, schemas: Schemas, village: Village, people: People) -> None:
        """What the sandbox shows and does besides the gateway."""
        self._app.add_route(CALLBACK, app_page)
        self._app.add_route(DESCRIPTION, description_page(people))
        self._app.add_route(START, start_page(settings, village, people, self._streams))
        self._app.add_route(COLLECTION, collection_page(schemas.registry, settings, village, people))
        self._app.add_route(RESET, reset_page(settings, self._stage), methods=["POST"])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started:
            _say(self._tour)
            if self._streams is not None:
                self._streams.listening.set()


async def _bring(settings: Settings, schemas: Schemas, village: Village, kept: People | None, speed: float | None) -> People:
    ids = NamedIds(SECRET)
    async with running(build_gateway(settings, schemas, ids)) as gateway:
        if kept is None:
            return await pair_app(gateway, await bring_people(gateway, ids, village, speed or 1))
        await open_pages(gateway, kept.ids, village)
        return await pair_app(gateway, People(kept.ids, await issue_tokens(gateway, kept.ids, village)))


def ask_for_reset(port: int) -> str:
    """Bring the demo on this port back to how it began; returns what it said. Raises DemoError where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", RESET, headers={"Accept": "text/plain", "Content-Length": "0"})
        answer = connection.getresponse()
        said = answer.read().decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        raise DemoError(f"no demo answers on port {port}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise DemoError(f"what answers on port {port} is no demo that could be reset (it says {answer.status})")
    return said


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
