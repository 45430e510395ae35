"""The outermost layer: what holds for every request before anybody looks at what it asks.

Knows: request ids, size and time limits, headers of every answer, the access log. Must not know: interactions, who is
calling.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.respond import respond_problem
from gateway.metrics import Metrics
from gateway.problem import Problem, as_problem
from gateway.settings import Limits
from gateway.telemetry import log

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


class Edge:
    """ASGI middleware around everything. Puts `request_id` into the request's state.

    Finds `refusals` there, issue type and status, where parts of a request were refused and the rest was answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        route_of: Callable[[Scope], str],
        is_transfer: Callable[[Scope], bool],
    ) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._route_of = route_of
        self._is_transfer = is_transfer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, within the limits; answer what is refused or fails, and log that it was."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _read_request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        seen: dict[str, Any] = {"status": None, "reason": None}

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                headers_of_all = _HEADERS if scope["path"].startswith("/fhir") else _missing(message["headers"])
                message["headers"] = [*message["headers"], *headers_of_all, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            is_transfer = self._is_transfer(scope)
            most = self._limits.content_bytes if is_transfer else self._limits.body_bytes
            self._check(scope, headers, most)
            async with asyncio.timeout(self._limits.transfer_seconds if is_transfer else self._limits.request_seconds):
                await self._app(scope, self._counted(receive, most), send_on)
        except Exception as error:  # noqa: BLE001 (the last place where anything can still be answered)
            problem = _problem_of(error, request_id)
            seen["reason"] = problem.code
            self._metrics.refused(problem.code, problem.status)
            if problem.status >= 500:
                log("request.failed", level=logging.ERROR, error=error, request_id=request_id)
            if seen["status"] is None:
                await respond_problem(problem)(scope, receive, send_on)
        else:
            for code, status in scope["state"].get("refusals", ()):
                self._metrics.refused(code, status)
        route, seconds = self._route_of(scope), time.perf_counter() - started
        self._metrics.answered(scope["method"], route, seen["status"], seconds)
        log(
            "request",
            request_id=request_id,
            method=scope["method"],
            route=route,
            **seen,
            milliseconds=round(seconds * 1000, 1),
        )

    def _check(self, scope: Scope, headers: dict[bytes, bytes], most: int) -> None:
        length = headers.get(b"content-length", b"0")
        if sum([len(name) + len(value) for name, value in scope["headers"]]) > self._limits.header_bytes:
            raise Problem("too-long", f"the headers have at most {self._limits.header_bytes} bytes here", status=431)
        if not length.isdigit():
            raise Problem("invalid", "the Content-Length is not a number")
        if len(length) > 18 or int(length) > most:
            raise _too_long(most)
        if len(scope["raw_path"]) + len(scope["query_string"]) > self._limits.url_bytes:
            raise Problem("too-long", f"a URL has at most {self._limits.url_bytes} bytes here", status=414)
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Problem("not-supported", "a body is sent without Content-Encoding", status=415)

    def _counted(self, receive: Receive, most: int) -> Receive:
        """`receive` that stops a body which turns out larger than allowed, without keeping it."""
        taken = 0

        async def receive_on() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise _too_long(most)
            return message

        return receive_on


def _missing(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of every answer that a page does not set itself: it says what a browser may load for it."""
    own = {name for name, _ in headers}
    return [header for header in _HEADERS if header[0] not in own]


def _read_request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.match(given) else secrets.token_hex(12)


def _too_long(most: int) -> Problem:
    return Problem("too-long", f"a body has at most {most} bytes here")


def _problem_of(error: Exception, request_id: str) -> Problem:
    if isinstance(error, ClientDisconnect):
        return Problem("incomplete", "the client went away before all was sent")
    if isinstance(error, TimeoutError):
        text = "the request took too long; whether a write was carried out is unknown"
        return Problem("timeout", text, headers={"Retry-After": "2"})
    return as_problem(error, request_id)
