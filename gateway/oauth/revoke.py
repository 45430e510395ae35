"""POST /oauth/revoke (RFC 7009): a client gives a token back. Whatever it was, it is of no use afterwards."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.exchange.redemption import end_pairing
from gateway.oauth.authenticate import authenticate
from gateway.oauth.respond import OAuthError, respond_json
from gateway.oauth.spend import spend
from gateway.oauth.visit import Server, read_form
from gateway.store.issuing import Issue
from gateway.store.standing import delete_token_of


async def revoke(request: Request, server: Server) -> Response:
    """200 whether the token was known or not (§2.2); one of another client stays as it is, which its bearer is not told."""
    form = await read_form(request)
    asker = await authenticate(server, request, form)
    if "token" not in form:
        raise OAuthError("invalid_request", "there is no token to revoke")
    await spend(server, Issue(None, asker.used))
    await end_pairing(server.gateway, asker.entry.client.client, form["token"])
    await delete_token_of(server.gateway.mongo, form["token"], asker.entry.client.client)
    return respond_json({})
