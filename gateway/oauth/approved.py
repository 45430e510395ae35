"""The grants that rest on what a person approved: authorization_code and refresh_token (RFC 6749 §4.1.3 and §6).

Knows: what each takes and answers, with what SMART adds. Must not know: when a code or token is still good.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.exchange.redemption import InvalidGrant, InvalidScope, Issued, redeem_code, refresh
from gateway.exchange.tokens import revoke_token
from gateway.oauth.authenticate import Asker, require_standing
from gateway.oauth.core import Asked
from gateway.oauth.respond import OAuthError
from gateway.oauth.visit import Server

Form = Mapping[str, str]


async def redeem(server: Server, asker: Asker, form: Form) -> dict[str, Any]:
    """The answer to who brings a code. Raises OAuthError."""
    if "code" not in form:
        raise OAuthError("invalid_request", "the code is missing")

    def is_answer(code: Mapping[str, Any]) -> bool:
        asked = Asked(form, asker.entry, asker.method, "", server.gateway.clock(), code=code)
        return server.core.is_answer(asked)

    issued = await redeem_code(server.gateway, asker.entry, form["code"], is_answer, asker.certificate)
    answer = _answer(issued)
    if "openid" in issued.approval["plain"]:
        key = await server.keys.signing()
        answer["id_token"] = server.id_tokens.make(key, issued.approval, server.gateway.clock(), asker.entry.client.oid)
    return answer


async def renew(server: Server, asker: Asker, form: Form) -> dict[str, Any]:
    """The answer to who brings a refresh token. Raises OAuthError."""
    if "refresh_token" not in form:
        raise OAuthError("invalid_request", "the refresh_token is missing")
    return _answer(await refresh(server.gateway, asker.entry, form["refresh_token"], form.get("scope"), asker.certificate))


GRANTS: Mapping[str, Callable[[Server, Asker, Form], Awaitable[dict[str, Any]]]] = {
    "authorization_code": redeem,
    "refresh_token": renew,
}


async def grant(server: Server, asker: Asker, form: Form) -> dict[str, Any]:
    """The answer of one of these grants. Raises OAuthError, for whatever is not good (any more) the same."""
    if form["grant_type"] not in asker.entry.client.grants:
        raise OAuthError("unauthorized_client", "the client is not registered for this grant")
    try:
        answer = await GRANTS[form["grant_type"]](server, asker, form)
    except InvalidGrant:
        raise OAuthError("invalid_grant", "this is not good for anything, or not any more") from None
    except InvalidScope:
        raise OAuthError("invalid_scope", "this is more than was approved") from None
    try:
        # Who suspends a client says so first and then takes its tokens: either this one was among them, or it is seen here.
        await require_standing(server, asker.entry)
    except OAuthError:
        await revoke_token(server.gateway, answer["access_token"])
        raise
    return answer


def _answer(issued: Issued) -> dict[str, Any]:
    """The answer with what SMART calls the launch context."""
    approval = issued.approval
    answer: dict[str, Any] = {
        "access_token": issued.access_token,
        "token_type": "Bearer",
        "expires_in": issued.seconds,
        "scope": issued.scope,
    }
    if approval["patient"] is not None:
        answer["patient"] = approval["patient"]
        answer["need_patient_banner"] = "launch" not in approval["plain"]  # who launches it shows whose record it is
    if approval["context"] is not None:
        answer["fhirContext"] = approval["context"]
    if issued.refresh_token is not None:
        answer["refresh_token"] = issued.refresh_token
    return answer
