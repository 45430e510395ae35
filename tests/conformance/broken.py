"""A sandbox with a broken twin for each fault: `/broken/NAME/fhir` is the gateway at `/fhir` with that fault.

Started as a process: `python -m tests.conformance.broken PORT`.
"""

import asyncio
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api.wire import server_options
from gateway.app import build_gateway, create_app, read_schemas, running
from gateway.sandbox.judged import DESCRIPTION, description_page
from gateway.sandbox.paired import pair_app
from gateway.sandbox.people import NamedIds, People, bring_people
from gateway.sandbox.rows import TOUR, read_village
from gateway.settings import Settings, read_settings
from tests.conformance.faults import Asked, Told
from tests.conformance.seeded import FAULTS


class Broken:
    """Every address below `/broken/NAME` is that of the gateway, seen through a fault."""

    def __init__(self, app: ASGIApp, site: str) -> None:
        self._app, self._site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = re.match(r"/broken/([a-z-]+)(/.*)", scope.get("path", ""))
        if found is None:
            await self._app(scope, receive, send)
            return
        twin = f"{self._site}/broken/{found[1]}"
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        body = (await _body(receive)).replace(twin.encode(), self._site.encode())
        query = scope["query_string"].decode().replace(twin, self._site)
        asked = Asked(scope["method"], found[2], query, headers, body)

        async def ask(asked: Asked) -> Told:
            told = await self._ask(scope, asked)
            told.body = told.body.replace(self._site.encode(), twin.encode())
            told.headers = {name: value.replace(self._site, twin) for name, value in told.headers.items()}
            return told

        told = await FAULTS[found[1]][0](asked, ask)
        told.headers.pop("content-length", None)
        if told.status not in (204, 304):
            told.headers["content-length"] = str(len(told.body))
        listed = [(name.encode(), value.encode("latin-1")) for name, value in told.headers.items()]
        await send({"type": "http.response.start", "status": told.status, "headers": listed})
        await send({"type": "http.response.body", "body": told.body})

    async def _ask(self, scope: Scope, asked: Asked) -> Told:
        headers = {**asked.headers, **({"content-length": str(len(asked.body))} if asked.body else {})}
        inner = {
            **scope,
            "method": asked.method,
            "path": asked.path,
            "raw_path": asked.path.encode(),
            "query_string": asked.query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
        told, parts, sent = Told(500, {}, b""), [], [asked.body]

        async def receive() -> MutableMapping[str, Any]:
            if not sent:
                await asyncio.Event().wait()  # the client stays
            return {"type": "http.request", "body": sent.pop(), "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                told.status = message["status"]
                told.headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
            else:
                parts.append(message.get("body", b""))

        await self._app(inner, receive, send)
        told.body = b"".join(parts)
        return told


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _bring(settings: Settings) -> People:
    ids = NamedIds(settings.secret)
    async with running(build_gateway(settings, read_schemas(settings.schemas), ids)) as gateway:
        return await pair_app(gateway, await bring_people(gateway, ids, read_village(TOUR)))


if __name__ == "__main__":
    settings = read_settings()
    people = asyncio.run(_bring(settings))
    app = create_app(settings)
    app.add_route(DESCRIPTION, description_page(people))
    broken = Broken(app, settings.base_url.removesuffix("/fhir"))
    uvicorn.run(broken, host="127.0.0.1", port=int(sys.argv[1]), **server_options())
