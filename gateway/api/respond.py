"""Answers and Problems as HTTP responses.

Knows: status, headers and bodies of https://hl7.org/fhir/R4/http.html. Must not know: how an answer came about.
"""

from email.utils import format_datetime

import msgspec
from starlette.responses import Response

from gateway.api.formats import JSON
from gateway.exchange.call import Answer, Return
from gateway.problem import Problem

MEDIA_TYPE = f"{JSON}; charset=utf-8"


def respond(base_url: str, answer: Answer, prefer: Return | None = None) -> Response:
    """The response of an answered interaction. `prefer`: what the client of a write wants in the body."""
    headers: dict[str, str] = {}
    if answer.etag is not None:
        headers["etag"] = answer.etag
    if answer.updated is not None:
        headers["last-modified"] = format_datetime(answer.updated, usegmt=True)
    if answer.location is not None:
        headers["location"] = f"{base_url}/{answer.location}"
    if answer.replayed:
        headers["idempotency-replayed"] = "true"
    if answer.status == 304:
        return Response(status_code=304, headers=headers)
    if prefer == "OperationOutcome":
        status = 200 if answer.status == 204 else answer.status  # a 204 has no body
        return Response(msgspec.json.encode(answer.outcome()), status, headers, MEDIA_TYPE)
    if answer.body is None or prefer == "minimal":
        return Response(status_code=answer.status, headers=headers)
    return Response(answer.body, answer.status, headers, MEDIA_TYPE)


def respond_body(body: bytes) -> Response:
    """A body that is a whole resource, with 200."""
    return Response(body, 200, media_type=MEDIA_TYPE)


def respond_problem(problem: Problem) -> Response:
    """The OperationOutcome of a problem."""
    return Response(msgspec.json.encode(problem.outcome()), problem.status, problem.headers, MEDIA_TYPE)
