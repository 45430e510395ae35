"""POST /oauth/introspect (RFC 7662, with what SMART adds): what a token says, to its client and to resource servers."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.access.access import Access
from gateway.exchange.standing import authenticate as authenticate_bearer
from gateway.exchange.standing import examine
from gateway.oauth.authenticate import authenticate
from gateway.oauth.respond import OAuthError, respond_json
from gateway.oauth.spend import spend
from gateway.oauth.visit import Server, read_form
from gateway.store.approvals import find_approval
from gateway.store.issuing import Issue
from gateway.store.mongo import Document
from gateway.store.standing import About

_INACTIVE: Mapping[str, Any] = {"active": False}


async def introspect(request: Request, server: Server) -> Response:
    """What a token says; of one that is of no use any more, or not the caller's to ask about, only that."""
    form = await read_form(request)
    client, asks_for_others = await _asker(request, server, form)
    if "token" not in form:
        raise OAuthError("invalid_request", "there is no token to look at")
    found = await examine(server.gateway, form["token"])
    if found is None:
        return respond_json(_INACTIVE)
    token, access = found
    is_to_know = token["client"] == client or asks_for_others
    if not is_to_know or not access.opens_anything():
        return respond_json(_INACTIVE)
    approval = await find_approval(server.gateway.mongo, token["grant"]) if "grant" in token else None
    context = _context(server, approval) if approval is not None else {}
    return respond_json(_told(token, access, server.gateway.settings.site) | context)


async def _asker(request: Request, server: Server, form: Mapping[str, str]) -> tuple[str, bool]:
    """Which client asks, and whether it may ask about the tokens of others. It may show a token of its own, too."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        certificate = request.scope["state"].get("certificate")
        access = await authenticate_bearer(server.gateway, bearer.strip(), About(), certificate)
        return access.caller.client, False
    asker = await authenticate(server, request, form)
    if asker.entry.client.is_public:
        raise OAuthError("invalid_client", "a client that keeps no secret does not ask about tokens", status=401)
    await spend(server, Issue(None, asker.used))
    return asker.entry.client.client, asker.entry.client.introspects


def _told(token: Document, access: Access, site: str) -> dict[str, Any]:
    """The answer about a token that holds. Scopes are told as they were granted: clients compare them word by word."""
    caller = access.caller
    found = {
        "active": True,
        "token_type": "Bearer",
        "client_id": caller.client,
        "scope": token["scope"],
        "exp": int(token["expires"].timestamp()),
        "iat": int(token["issued"].timestamp()),
        "iss": site,
        "patient": caller.patient,
        "cnf": {"x5t#S256": token["certificate"]} if "certificate" in token else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _context(server: Server, approval: Document) -> dict[str, Any]:
    """What SMART adds of the launch context and of who logged in, where the client was told it, too."""
    found: dict[str, Any] = {}
    if "openid" in approval["plain"]:
        found = {"sub": server.id_tokens.subject(approval), **server.id_tokens.about(approval)}
    return found | ({"fhirContext": approval["context"]} if approval["context"] is not None else {})
