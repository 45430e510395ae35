"""Every address of the authorization server.

Knows: which path and method is which endpoint, and what follows from that for the server's description of itself.
Must not know: what the endpoints do.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import Scope

from gateway.exchange.authorization import PLAIN_SCOPES
from gateway.exchange.gateway import Gateway
from gateway.fhir.registry import Registry
from gateway.oauth.client_keys import ClientKeys
from gateway.oauth.core import Core
from gateway.oauth.discovery import jwks, oauth, openid, smart
from gateway.oauth.id_token import IdTokens
from gateway.oauth.introspect import introspect
from gateway.oauth.keys import SigningKeys
from gateway.oauth.launch import launch
from gateway.oauth.metadata import AUTHORIZE, INTROSPECT, JWKS, LAUNCH, PAR, REVOKE, TOKEN, Offer, build_metadata
from gateway.oauth.par import par
from gateway.oauth.revoke import revoke
from gateway.oauth.token import token
from gateway.oauth.visit import Endpoint, Server, told
from gateway.outbound import Outbound
from gateway.settings import Settings, read_networks
from gateway.store.issuing import Issuing

_SMART = "/fhir/.well-known/smart-configuration"
_OAUTH = "/.well-known/oauth-authorization-server"
_OPENID = "/.well-known/openid-configuration"

ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("GET", _SMART, smart),
    ("GET", _OAUTH, oauth),
    ("GET", JWKS, jwks),
    ("POST", TOKEN, token),
    ("POST", INTROSPECT, introspect),
    ("POST", REVOKE, revoke),
)
# What the token endpoint grants, and at which levels its scopes are.
_GRANTS = ("client_credentials",)
_LEVELS = ("system",)
_CAPABILITIES = ("client-confidential-symmetric", "client-confidential-asymmetric", "permission-v1", "permission-v2")
# What is offered only where people log in, and what that adds.
_WITH_PEOPLE: tuple[tuple[str, str, Endpoint], ...] = (
    ("GET", _OPENID, openid),
    ("POST", LAUNCH, launch),
    ("POST", PAR, par),
)
_GRANTS_OF_PEOPLE = ("authorization_code", "refresh_token")
_LEVELS_OF_PEOPLE = ("patient", "user")
# https://hl7.org/fhir/smart-app-launch/conformance.html#smart-on-fhir-oauth-authorization-capabilities
_CAPABILITIES_OF_PEOPLE = (
    "launch-standalone",
    "launch-ehr",
    "authorize-post",
    "client-public",
    "sso-openid-connect",
    "context-standalone-patient",
    "context-ehr-patient",
    "context-banner",
    "permission-offline",
    "permission-online",
    "permission-patient",
    "permission-user",
)
_PATHS = frozenset(path for _, path, _ in ROUTES + _WITH_PEOPLE)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # what is not taken is refused as OAuth errors are told
# Whoever's page calls: what is said there is for everybody.
OPEN = frozenset({_SMART, _OAUTH, _OPENID, JWKS, "/fhir/metadata"})


def offered_routes(*, people: bool) -> tuple[tuple[str, str, Endpoint], ...]:
    """The routes there are. `people`: whether anybody logs in here."""
    return ROUTES + (_WITH_PEOPLE if people else ())


def offered(registry: Registry, settings: Settings) -> Mapping[str, Any]:
    """What this server says of itself."""
    binds = bool(settings.certificate_header)
    paths = {path for _, path, _ in offered_routes(people=settings.has_people)}
    if not settings.has_people:
        systems = Offer(paths, _GRANTS, _LEVELS, capabilities=_CAPABILITIES, binds_certificates=binds)
        return build_metadata(systems, registry, settings.site)
    offer = Offer(
        paths={*paths, AUTHORIZE},  # a page
        grants=(*_GRANTS_OF_PEOPLE, *_GRANTS),
        levels=(*_LEVELS_OF_PEOPLE, *_LEVELS),
        others=sorted(PLAIN_SCOPES),
        capabilities=(*_CAPABILITIES_OF_PEOPLE, *_CAPABILITIES),
        binds_certificates=binds,
    )
    return build_metadata(offer, registry, settings.site)


def add_oauth(app: FastAPI, settings: Settings) -> None:
    """Give the application the addresses of the authorization server.

    They come last, so that requests of FHIR are not compared with each; but for the one below its base, which takes any name
    for a type.
    """
    for method, path, endpoint in offered_routes(people=settings.has_people):
        app.add_route(path, told(method, endpoint), methods=list(_METHODS))
        if path == _SMART:
            app.router.routes.insert(0, app.router.routes.pop())


@asynccontextmanager
async def serving_oauth(app: FastAPI, gateway: Gateway, metadata: Mapping[str, Any]) -> AsyncIterator[None]:
    """The authorization server wired, now that there is a database; what it opened is closed at the end."""
    client_keys = ClientKeys(Outbound((), read_networks(gateway.settings.outbound_networks)), gateway.clock)
    keys = SigningKeys(gateway.mongo, gateway.sealer, gateway.clock)
    app.state.oauth = Server(
        gateway,
        metadata,
        keys,
        client_keys,
        Core(gateway.scopes),
        Issuing(gateway.audit, gateway.clock),
        IdTokens(gateway.settings),
    )
    try:
        yield
    finally:
        await client_keys.close()


def oauth_pattern(scope: Scope) -> str | None:
    """The address of a request as it may be logged, None where it is none of these."""
    path = scope.get("path")
    return path if path in _PATHS else None
