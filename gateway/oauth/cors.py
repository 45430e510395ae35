"""Pages of other origins that call this service from a browser.

Knows: https://fetch.spec.whatwg.org/#http-cors-protocol; which addresses are for every page, and which for those of referenced
clients. No cookie counts anywhere here, so none is allowed. Must not know: what is asked.
"""

import time
from collections.abc import Awaitable, Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problem import Problem

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_HEADERS = (
    b"Accept, Authorization, Content-Type, If-Match, If-Modified-Since, If-None-Exist, If-None-Match, Prefer, X-Request-Id"
)
_EXPOSED = (
    b"Content-Location, ETag, Last-Modified, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-Id"
)
_KEPT = b"600"  # seconds
_FRESH = 10.0  # seconds

Headers = list[tuple[bytes, bytes]]


class Cors:
    """ASGI middleware around everything.

    `everybody`: the paths for every page; `shared`: the beginnings of those for pages of the origins that `find` gives, looked
    up at most every ten seconds and for requests of pages only. (An origin is no right: whoever calls still needs a token.)
    """

    def __init__(
        self,
        app: ASGIApp,
        everybody: Collection[str],
        shared: tuple[str, ...],
        find: Callable[[Scope], Awaitable[Collection[str]]],
    ) -> None:
        self._app = app
        self._everybody = everybody
        self._shared = shared
        self._find = find
        self._origins: Collection[str] = ()
        self._looked = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and say which page may see the answer; answer what a browser asks beforehand."""
        origin = next((value for name, value in scope.get("headers", ()) if name == b"origin"), None)
        if scope["type"] != "http" or origin is None:
            await self._app(scope, receive, send)
            return
        allowed = await self._allowed(scope, origin)
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in dict(scope["headers"]):
            await _answer_beforehand(send, allowed)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                exposed = [(b"access-control-expose-headers", _EXPOSED)] if allowed else []
                message["headers"] = [*message["headers"], *allowed, *exposed, (b"vary", b"Origin")]
            await send(message)

        await self._app(scope, receive, send_on)

    async def _allowed(self, scope: Scope, origin: bytes) -> Headers:
        if scope["path"] in self._everybody:
            return [(b"access-control-allow-origin", b"*")]
        if not scope["path"].startswith(self._shared):
            return []
        now = time.monotonic()
        if now - self._looked >= _FRESH:
            self._looked = now
            try:
                self._origins = await self._find(scope)
            except Problem:  # the store is away: those that were known will get to hear it from their request
                self._looked = float("-inf")
        return [(b"access-control-allow-origin", origin)] if origin.decode("latin-1") in self._origins else []


async def _answer_beforehand(send: Send, allowed: Headers) -> None:
    """The answer to a preflight request: what may be sent, or nothing."""
    said: Headers = [(b"vary", b"Origin"), (b"cache-control", b"no-store"), (b"content-length", b"0")]
    if allowed:
        said += [
            *allowed,
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _HEADERS),
            (b"access-control-max-age", _KEPT),
        ]
    await send({"type": "http.response.start", "status": 204, "headers": said})
    await send({"type": "http.response.body", "body": b""})
