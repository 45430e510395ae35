"""Answers to OAuth clients.

Knows: the one error of this package and how RFC 6749 §5.2 tells it; what may be kept and what never. Must not know: endpoints.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from gateway.problem import Problem

JSON = "application/json"
_NOT_TOLD = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")  # RFC 6749 §5.2
_ERRORS: Mapping[int, str] = {
    401: "invalid_token",
    429: "temporarily_unavailable",
    500: "server_error",
    503: "temporarily_unavailable",
    504: "temporarily_unavailable",
}
_NEVER_KEPT = {"cache-control": "no-store", "pragma": "no-cache"}  # RFC 6749 §5.1


class OAuthError(Problem):
    """A request of an OAuth client that is refused: `error` is one of the codes of RFC 6749 §5.2 and its kin."""

    def __init__(self, error: str, text: str, *, status: int = 400, headers: Mapping[str, str] | None = None) -> None:
        super().__init__("invalid", text, status=status, headers=headers)
        self.error = error


def respond_json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that nobody keeps."""
    return Response(msgspec.json.encode(body), status, {**_NEVER_KEPT, **(headers or {})}, JSON)


def respond_public(body: Mapping[str, Any], seconds: int) -> Response:
    """An answer that is the same for everybody and may be kept for some time."""
    return Response(msgspec.json.encode(body), 200, {"cache-control": f"public, max-age={seconds}"}, JSON)


def respond_error(problem: Problem) -> Response:
    """The error that a problem is to an OAuth client."""
    error = problem.error if isinstance(problem, OAuthError) else _ERRORS.get(problem.status, "invalid_request")
    text = _NOT_TOLD.sub("?", problem.issues[0].text)
    body = {"error": error, "error_description": text}
    return respond_json(body, problem.status, problem.headers)
