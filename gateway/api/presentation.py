"""How an answer is written: as XML where it is asked for, and laid out for people where `_pretty` is.

Knows: https://hl7.org/fhir/R4/http.html#parameters; that every endpoint gives JSON, and no digit of it changes here.
Must not know: interactions, what an answer says. An answer in compact JSON passes untouched.
"""

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.formats import JSON, XML
from gateway.api.negotiate import choose_format
from gateway.fhir.xml_write import XmlWriter


class Presentation:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, writer: XmlWriter) -> None:
        self._app = app
        self._writer = writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and rewrite what comes back if it is to be."""
        if scope["type"] == "http" and _may_ask(scope):
            scope.setdefault("state", {})
            send = _Rewriting(scope, send, self._writer)
        await self._app(scope, receive, send)


class _Rewriting:
    """`send` that keeps back an answer until it is complete, and sends it as it was asked for."""

    def __init__(self, scope: Scope, send: Send, writer: XmlWriter) -> None:
        self._scope, self._send, self._writer = scope, send, writer
        self._start: Message | None = None
        self._body = b""
        self._as_xml = self._pretty = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the answer."""
        if message["type"] == "http.response.start" and self._is_to_change(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                body = self._rewritten()
                changed = {b"content-length": str(len(body)).encode()}
                if self._as_xml:
                    changed[b"content-type"] = f"{XML}; charset=utf-8".encode()
                headers = [(name, changed.get(name, value)) for name, value in self._start["headers"]]
                await self._send({**self._start, "headers": headers})
                await self._send({**message, "body": body})

    def _is_to_change(self, start: Message) -> bool:
        media_type = dict(start["headers"]).get(b"content-type", b"").decode("latin-1")
        state = self._scope["state"]
        self._pretty = bool(state.get("pretty")) and "json" in media_type
        if media_type.startswith(JSON):
            # (what was refused before anybody looked at the format is told in it all the same)
            self._as_xml = (state.get("format") or choose_format(Request(self._scope))) == "xml"
        return self._pretty or self._as_xml

    def _rewritten(self) -> bytes:
        if not self._body:
            return b""
        if self._as_xml:
            return self._writer.write(self._body, pretty=self._pretty)
        return msgspec.json.format(self._body, indent=2)


def _may_ask(scope: Scope) -> bool:
    """Whether a request can ask for anything but compact JSON: in its URL, the form of a search, or two of its headers."""
    query = scope["query_string"]
    if query and (b"_pretty" in query or b"_format" in query):
        return True
    if scope["path"].endswith("/_search"):
        return True
    for name, value in scope["headers"]:
        # (a quality can put what is not named before what is)
        if name == b"accept" and (b"xml" in value.lower() or b"q" in value.lower()):
            return True
        if name == b"content-type" and b"xml" in value.lower():
            return True
    return False
