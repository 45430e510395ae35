"""The proxy that an examined client speaks to in place of the sandbox.

Knows: how a request is passed on, and how it can go wrong. Must not know: what is judged.
"""

import asyncio
import json
from collections.abc import Mapping

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.conformance.exam.exam import Exam
from gateway.conformance.exam.scenes import Attempt, Event
from gateway.conformance.exam.sent import Sent, read_sent

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


def create_proxy(exam: Exam, site: str, here: str, http: httpx.AsyncClient) -> Starlette:
    """The application. `site`: address of the sandbox, `here`: of the proxy, both without a path."""

    async def forward(sent: Sent) -> Response:
        headers = {name: value for name, value in sent.headers.items() if name not in _HOPS}
        body = sent.body.replace(here.encode(), site.encode())
        answer = await http.request(sent.method, site + sent.target.replace(here, site), content=body, headers=headers)
        told = {name: value.replace(site, here) for name, value in answer.headers.items() if name not in _HOPS}
        return Response(answer.content.replace(site.encode(), here.encode()), answer.status_code, told)

    async def play(sent: Sent, attempt: Attempt, event: Event) -> Response:
        if event.way == "refuse":
            attempt.status = event.status
            return Response(event.body, event.status, {**dict(event.headers), "content-type": "application/fhir+json"})
        if event.way == "twice":
            attempt.created += _created(await forward(sent))
        answer = await forward(sent)
        attempt.created += _created(answer)
        if event.way == "lose":
            return Lost()
        await asyncio.sleep(event.seconds)
        attempt.status = answer.status_code
        return answer

    async def pass_on(request: Request) -> Response:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        sent = read_sent(exam.clock(), request.method, target, _headers(request), await request.body())
        if target.endswith("/oauth/token"):
            exam.asked_for_token()
        if not exam.role.is_work(sent):
            return await forward(sent)
        attempt, event = exam.meet(sent)
        answer = await play(sent, attempt, event)
        attempt.ended = exam.clock()
        return answer

    return Starlette(routes=[Route("/{path:path}", pass_on, methods=_METHODS)])


def _headers(request: Request) -> Mapping[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _created(answer: Response) -> int:
    """How many resources an answer says were created."""
    if answer.status_code == 201:
        return 1
    try:
        told = json.loads(bytes(answer.body))
    except ValueError:
        return 0
    entries = told.get("entry", []) if isinstance(told, dict) else []
    return sum(str(one.get("response", {}).get("status", "")).startswith("201") for one in entries if isinstance(one, dict))
