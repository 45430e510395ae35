"""GET /.well-known/… and /oauth/jwks: what this server can do and how its signatures are checked, open to everybody."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.oauth.metadata import openid_configuration, server_metadata, smart_configuration
from gateway.oauth.respond import respond_public
from gateway.oauth.visit import Server

_MINUTES = 60
_KEPT = 10 * _MINUTES  # much less than a new key is published before it signs


async def smart(_: Request, server: Server) -> Response:
    """https://hl7.org/fhir/smart-app-launch/conformance.html: JSON, whatever the client accepts."""
    return respond_public(smart_configuration(server.metadata), _KEPT)


async def oauth(_: Request, server: Server) -> Response:
    """The metadata of RFC 8414."""
    return respond_public(server_metadata(server.metadata), _KEPT)


async def openid(_: Request, server: Server) -> Response:
    """https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata."""
    return respond_public(openid_configuration(server.metadata), _KEPT)


async def jwks(_: Request, server: Server) -> Response:
    """The public keys of the signatures made here (RFC 7517 §5)."""
    return respond_public(await server.keys.public_set(), _KEPT)
