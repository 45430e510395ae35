"""`_pretty`: an answer laid out for people (https://hl7.org/fhir/R4/http.html#parameters).

Knows: how JSON is indented, which changes no digit of it. Must not know: interactions, what an answer says.
"""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.exchange.parameters import Pairs
from gateway.problem import Problem


def note_pretty(request: Request, parameters: Pairs) -> None:
    """Remember whether these parameters ask for it. Raises Problem for what is neither true nor false."""
    asked = [value for name, value in parameters if name == "_pretty"]
    if asked:
        if asked not in (["true"], ["false"]):
            raise Problem("invalid", "'_pretty' is true or false, once", "_pretty")
        request.state.pretty = asked == ["true"]


class Pretty:
    """ASGI middleware around everything: indents a JSON answer where `note_pretty` found that it is asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and lay out what comes back."""
        # (what is asked for is in the URL, or in the form of a POSTed search)
        if scope["type"] == "http" and (b"_pretty" in scope["query_string"] or scope["path"].endswith("/_search")):
            scope.setdefault("state", {})
            send = _Layout(scope, send)
        await self._app(scope, receive, send)


class _Layout:
    """`send` that keeps back an answer until it is complete, and sends it laid out."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Take one message of the answer."""
        if message["type"] == "http.response.start" and self._scope["state"].get("pretty") and _is_json(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                body = msgspec.json.format(self._body, indent=2) if self._body else b""
                headers = [pair for pair in self._start["headers"] if pair[0] != b"content-length"]
                length = (b"content-length", str(len(body)).encode())
                await self._send({**self._start, "headers": [*headers, length]})
                await self._send({**message, "body": body})


def _is_json(message: Message) -> bool:
    headers: dict[bytes, Any] = dict(message["headers"])
    return b"json" in headers.get(b"content-type", b"")
