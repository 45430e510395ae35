"""`gateway demo`: one command from nothing to a running sandbox.

Knows: what is started in which order, where things are kept. Must not know: how any of it works.
"""

import asyncio
import json
import sys
from contextlib import ExitStack
from pathlib import Path

import uvicorn

from gateway.app import build_gateway, create_app, read_schemas, running
from gateway.sandbox.mongod import running_mongod
from gateway.sandbox.people import SECRET, NamedIds, People, bring_people
from gateway.sandbox.tour import write_tour
from gateway.schemas import find_schemas
from gateway.settings import Settings
from gateway.store.mongo import Mongo

_DATABASE = "sandbox"


def run_demo(port: int, data: Path | None) -> None:
    """Start MongoDB and gateway, bring the people, print the tour; stop everything on Ctrl-C.

    `data`: a folder to keep the data in, for the next time. Raises MongodError where there is no mongod to start.
    """
    _say("starting MongoDB …")
    with ExitStack() as stack:
        url = stack.enter_context(running_mongod(data))
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
        people = _read_people(data)
        if people is None:
            _say("bringing sample people and fourteen days of readings …")
            people = asyncio.run(_bring(settings))
            _keep_people(data, people)
        server = _Server(settings, port, write_tour(settings.base_url, people))
        server.run()
    _say("stopped.")


class _Server(uvicorn.Server):
    """uvicorn, which prints the tour once it listens."""

    def __init__(self, settings: Settings, port: int, tour: str) -> None:
        config = uvicorn.Config(
            create_app(settings),
            host="127.0.0.1",
            port=port,
            access_log=False,
            log_level="error",
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)
        self._tour = tour

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, then say so."""
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            _say(self._tour)


async def _bring(settings: Settings) -> People:
    ids = NamedIds(SECRET)
    mongo = Mongo(settings.mongo_url, settings.mongo_database, settings.mongo_driver)
    async with running(build_gateway(settings, read_schemas(settings), mongo, ids)) as gateway:
        return await bring_people(gateway, ids)


def _read_people(data: Path | None) -> People | None:
    """The people that this folder's data already holds."""
    if data is None or not (data / "people.json").exists():
        return None
    kept = json.loads((data / "people.json").read_text("utf-8"))
    return People(kept["ids"], kept["tokens"])


def _keep_people(data: Path | None, people: People) -> None:
    if data is not None:
        kept = {"ids": dict(people.ids), "tokens": dict(people.tokens)}
        (data / "people.json").write_text(json.dumps(kept, indent=2), "utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stdout, flush=True)  # noqa: T201 (for the person at the terminal)
