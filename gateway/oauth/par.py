"""POST /oauth/par (RFC 9126): a client sends its request for authorization itself, and gets a name for it.

So the person's browser carries nothing that could be read or changed on its way; the client has shown that it is one.
"""

from starlette.requests import Request
from starlette.responses import Response

from gateway.exchange.authorization import Refusal
from gateway.exchange.pushed import LASTS, push
from gateway.oauth.authenticate import authenticate
from gateway.oauth.respond import OAuthError, respond_json
from gateway.oauth.spend import spend
from gateway.oauth.visit import Server, read_form
from gateway.store.issuing import Issue

_OF_AUTHENTICATION = ("client_assertion", "client_assertion_type")


async def par(request: Request, server: Server) -> Response:
    """The name of a request that is sound, or the reason why it is none."""
    form = await read_form(request)
    asker = await authenticate(server, request, form)
    await spend(server, Issue(None, asker.used))
    if "request_uri" in form:
        raise OAuthError("invalid_request", "a pushed request names no other one (request_uri)")
    try:
        pairs = [(name, value) for name, value in form.items() if name not in _OF_AUTHENTICATION]
        request_uri = await push(server.gateway, asker.entry, pairs)
    except Refusal as refusal:
        raise OAuthError(refusal.error, refusal.text) from None
    return respond_json({"request_uri": request_uri, "expires_in": int(LASTS.total_seconds())}, 201)
