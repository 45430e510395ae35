"""The proxy that an examined client speaks to in place of the sandbox.

Knows: how a request is passed on, and how it can go wrong. Must not know: what is judged.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.conformance.exam.credentials import Credentials
from gateway.conformance.exam.exam import Exam
from gateway.conformance.exam.reading import PAGE, Resource, as_correction, as_second, correct, mix
from gateway.conformance.exam.scenes import Attempt, Event
from gateway.conformance.exam.sent import Sent, read_sent

HELD = "/exam/held"
_FHIR = "application/fhir+json"
_HOPS = {
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "accept-encoding",
    "keep-alive",
    "upgrade",
    "content-encoding",
}
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Lost(Response):
    """No answer: it begins and is never finished, so that the server closes the connection."""

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Begin."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000000")]})


@dataclass
class _Proxy:
    """What stands between. `site`: address of the sandbox, `here`: of the proxy, both without a path."""

    exam: Exam
    site: str
    here: str
    http: httpx.AsyncClient
    credentials: Credentials | None

    async def pass_on(self, request: Request) -> Response:
        """Everything that the client sends."""
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        sent = read_sent(self.exam.clock(), request.method, target, _headers(request), await request.body())
        if request.url.path == HELD:
            return self._hold(sent)
        if request.url.path.endswith("/oauth/token"):
            self.exam.asked_for_token()
            renewed = self.credentials.renew(sent) if self.credentials else None
            if renewed is not None:
                return JSONResponse(renewed[1], renewed[0], headers={"cache-control": "no-store"})
        if not self.exam.role.is_work(sent):
            return await self._forward(sent)
        page = self.exam.page(parse_qs(request.url.query).get(PAGE, [""])[0])
        if page is not None:
            return self._give(sent, Response(json.dumps(page), 200, media_type=_FHIR), page)
        attempt, event = self.exam.meet(sent)
        answer = await self._play(sent, attempt, event)
        attempt.ended = self.exam.clock()
        return answer

    async def _play(self, sent: Sent, attempt: Attempt, event: Event) -> Response:
        if event.way in ("refuse", "expire"):
            attempt.status = event.status
            return Response(event.body, event.status, event.told_headers(datetime.now(UTC)))
        if event.way == "twice":
            attempt.created += _created(await self._forward(sent))
        answer = await self._forward(sent)
        attempt.created += _created(answer)
        if event.way == "lose":
            return Lost()
        if event.way == "corrects":
            answer = _as_correction(answer)
        await asyncio.sleep(event.seconds)
        attempt.status = answer.status_code
        return self._shown(sent, attempt, event, answer)

    def _shown(self, sent: Sent, attempt: Attempt, event: Event, answer: Response) -> Response:
        """An answer as the client is to see it, where it reads."""
        told = _json(answer) if sent.method == "GET" and answer.status_code == 200 else None
        if told is None:
            if event.way in ("mix", "amend"):
                self.exam.give_back(attempt)
            return self._give(sent, answer, None)
        correction = self.exam.correction()
        if correction is not None:
            correction.show(told, sent.target)
        if event.way == "mix":
            mixed = mix(told, self._page_address(sent))
            if mixed is None:
                self.exam.give_back(attempt)
            else:
                told, pages = mixed
                self.exam.mixed(attempt, pages)
        if event.way == "amend":
            corrected = correct(told, self.exam.clock())
            if corrected is None:
                self.exam.give_back(attempt)
            else:
                self.exam.corrected(attempt, corrected)
        changed = correction is not None or event.way == "mix"
        body = json.dumps(told).encode() if changed else answer.body
        return self._give(sent, Response(body, 200, _without_length(answer)), told)

    def _page_address(self, sent: Sent) -> Callable[[str], str]:
        path = urlsplit(sent.target).path
        return lambda name: f"{self.here}{path}?{PAGE}={name}"

    def _give(self, sent: Sent, answer: Response, told: Resource | None) -> Response:
        if answer.status_code == 200:
            self.exam.gave(sent, told)
        return answer

    async def _forward(self, sent: Sent) -> Response:
        headers = self.credentials.upstream_headers(sent.headers) if self.credentials else sent.headers
        passed = {name: value for name, value in headers.items() if name not in _HOPS}
        body = sent.body.replace(self.here.encode(), self.site.encode())
        address = self.site + sent.target.replace(self.here, self.site)
        answer = await self.http.request(sent.method, address, content=body, headers=passed)
        told = {name: value.replace(self.site, self.here) for name, value in answer.headers.items() if name not in _HOPS}
        return Response(answer.content.replace(self.site.encode(), self.here.encode()), answer.status_code, told)

    def _hold(self, sent: Sent) -> Response:
        """The client says what it holds."""
        try:
            told = json.loads(sent.body)
        except ValueError:
            told = None
        if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
            return JSONResponse({"expected": [{"reference": "Observation/…", "value": 104}]}, 400)
        self.exam.held = told
        return Response(status_code=204)


def create_proxy(
    exam: Exam, site: str, here: str, http: httpx.AsyncClient, credentials: Credentials | None = None
) -> Starlette:
    """The application. `site`: address of the sandbox, `here`: of the proxy, both without a path."""
    proxy = _Proxy(exam, site, here, http, credentials)
    return Starlette(routes=[Route("/{path:path}", proxy.pass_on, methods=_METHODS)])


def _headers(request: Request) -> Mapping[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _without_length(answer: Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in ("content-length", "etag")}


def _json(answer: Response) -> Resource | None:
    try:
        told = json.loads(bytes(answer.body))
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _as_correction(answer: Response) -> Response:
    told = _json(answer)
    if told is None or not answer.status_code < 300:
        return answer
    headers = _without_length(answer)
    if "location" in headers:
        headers |= {"location": as_second(headers["location"]), "etag": 'W/"2"'}
    return Response(json.dumps(as_correction(told)), 200, headers)


def _created(answer: Response) -> int:
    """How many resources an answer says were created."""
    if answer.status_code == 201:
        return 1
    told = _json(answer)
    entries = told.get("entry", []) if told is not None else []
    return sum(str(one.get("response", {}).get("status", "")).startswith("201") for one in entries if isinstance(one, dict))
