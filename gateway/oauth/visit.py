"""What every endpoint of the authorization server does first and last.

Knows: the wired parts, which methods an endpoint takes, how a form is read, how whatever goes wrong is told.
Must not know: single endpoints.
"""

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from gateway.exchange.gateway import Gateway
from gateway.oauth.client_keys import ClientKeys
from gateway.oauth.core import Core
from gateway.oauth.id_token import IdTokens
from gateway.oauth.keys import SigningKeys
from gateway.oauth.respond import OAuthError, respond_error
from gateway.problem import Problem, as_problem
from gateway.store.issuing import Issuing
from gateway.telemetry import log

_MOST_BYTES, _MOST_FIELDS = 32_768, 50
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Server:
    """The authorization server, wired. `metadata`: what it says of itself; `client_keys`: those by which clients sign."""

    gateway: Gateway
    metadata: Mapping[str, Any]
    keys: SigningKeys
    client_keys: ClientKeys
    core: Core
    issuing: Issuing
    id_tokens: IdTokens


Endpoint = Callable[[Request, Server], Awaitable[Response]]


def told(method: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint as a route takes it: by one method, with errors as RFC 6749 tells them."""

    @functools.wraps(endpoint)
    async def answer(request: Request) -> Response:
        server: Server = request.app.state.oauth
        try:
            if request.method != method and (request.method, method) != ("HEAD", "GET"):
                raise Problem("not-supported", f"this address takes {method}", headers={"Allow": method})
            if method == "GET":
                return await endpoint(request, server)
            return await _counted(request, server, endpoint)
        except Exception as error:  # noqa: BLE001 (whatever it is, the client gets JSON)
            problem = as_problem(error, request.state.request_id)
            if isinstance(problem, OAuthError) and problem.error == "invalid_client":
                # Whoever guesses secrets, or shows an assertion again, is to be noticed.
                log("client.refused", request_id=request.state.request_id, detail=problem.issues[0].text)
            if problem.status >= 500:
                log("request.failed", level=logging.ERROR, error=error, request_id=request.state.request_id)
            return respond_error(problem)

    return answer


async def _counted(request: Request, server: Server, endpoint: Endpoint) -> Response:
    """The answer, counted by address if whoever asks does not show that it is a client. Raises Problem 429."""
    throttle, address = server.gateway.throttle, request.client.host if request.client else None
    throttle.admit_visitor("clients", address, server.gateway.clock())
    showed_itself = True
    try:
        return await endpoint(request, server)
    except OAuthError as error:
        showed_itself = error.error != "invalid_client"
        raise
    finally:
        if showed_itself:
            throttle.forgive("clients", address, server.gateway.clock())


async def read_form(request: Request) -> dict[str, str]:
    """The parameters of a POST (RFC 6749 §3.2). Raises OAuthError for one that stands twice, or stands in the URL.

    A parameter without a value is one that was left out.
    """
    if request.scope["query_string"]:
        # What is sent here are secrets, and URLs end up in logs.
        raise OAuthError("invalid_request", "parameters are sent in the body")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise OAuthError("invalid_request", f"the parameters are sent as {_FORM}")
    body = await request.body()
    if len(body) > _MOST_BYTES:
        raise OAuthError("invalid_request", f"the parameters have at most {_MOST_BYTES} bytes here", status=413)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise OAuthError("invalid_request", "the parameters are not percent-encoded UTF-8, or too many") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise OAuthError("invalid_request", "a parameter stands twice")
        found[name] = value
    return {name: value for name, value in found.items() if value}
