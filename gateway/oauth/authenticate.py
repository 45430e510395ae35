"""Who asks: clients of the catalogue, by a signed assertion, by their secret or, where they keep none, by name alone.

Knows: RFC 6749 §2.3, RFC 7523 §3; that a client which is not referenced is told the same as one that is not there.
Must not know: what is asked for.
"""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from joserfc.jwk import Key
from starlette.requests import Request

from gateway.exchange.catalogue import Entry, find_entry, still_stands
from gateway.exchange.client import Client
from gateway.oauth.assertion import TYPE, Unverified, read_assertion, refused, verify
from gateway.oauth.metadata import TOKEN
from gateway.oauth.respond import OAuthError
from gateway.oauth.visit import Server
from gateway.outbound import Unreachable
from gateway.store.issuing import Used

_LONGEST_SECRET = 512
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="oauth"'}


@dataclass(frozen=True, slots=True)
class Asker:
    """A client that has shown that it is one. `used`: the assertion by which it did, to be written down before any answer;
    `certificate`: what its tokens are to be bound to; `extensions`: what else it signed with that assertion.
    """

    entry: Entry
    method: str
    used: Used | None = None
    certificate: str | None = None
    extensions: Any = None


async def authenticate(server: Server, request: Request, form: Mapping[str, str]) -> Asker:
    """The client that sends this form. Raises OAuthError where it does not show that it is one, or shows it twice."""
    basic = _basic(request)
    asserted = "client_assertion" in form or "client_assertion_type" in form
    if basic is not None and asserted:
        raise OAuthError("invalid_request", "a client authenticates in one way at a time")
    if "client_secret" in form:
        raise OAuthError("invalid_client", "a secret is sent in the header Authorization")
    if asserted:
        asker = await _by_assertion(server, request, form)
    elif basic is not None:
        asker = await _by_secret(server, *basic)
    else:
        asker = await _by_name(server, form.get("client_id"))
    if form.get("client_id", asker.entry.client.client) != asker.entry.client.client:
        raise OAuthError("invalid_client", "client_id names another client")
    return asker


async def _by_assertion(server: Server, request: Request, form: Mapping[str, str]) -> Asker:
    if form.get("client_assertion_type") != TYPE or "client_assertion" not in form:
        raise refused(f"client_assertion_type is {TYPE}")
    assertion = read_assertion(form["client_assertion"])
    entry = await _find(server, assertion.client, "private_key_jwt")
    key = await _key(server, entry, assertion) if entry is not None else None
    if entry is None or key is None:
        raise refused("the assertion is signed by no key of a client that is known here")
    site = server.gateway.settings.site
    audiences = (site, site + TOKEN, site + request.scope["path"])
    used = verify(assertion, key, audiences, server.gateway.clock())
    return Asker(entry, "private_key_jwt", used, extensions=assertion.claims.get("extensions"))


async def _key(server: Server, entry: Entry, assertion: Unverified) -> Key | None:
    """The registered key that an assertion names; what it says of an address of keys is not followed."""
    client = entry.client
    if assertion.jku is not None and assertion.jku != client.jwks_uri:
        raise refused("the assertion names another address of keys than the one registered (jku)")
    try:
        return await server.client_keys.find(client, assertion.key_id, assertion.key_type)
    except Unreachable as error:
        raise refused(str(error)) from None


async def _by_secret(server: Server, client: str, secret: str) -> Asker:
    entry = await _find(server, client, "client_secret_basic")
    if entry is None or not entry.has_secret(secret, server.gateway.clock()):
        raise _unknown()
    return Asker(entry, "client_secret_basic")


async def _by_name(server: Server, client: str | None) -> Asker:
    entry = await _find(server, client, "none") if client is not None else None
    if entry is None:
        raise _unknown()
    return Asker(entry, "none")


async def _find(server: Server, client: str, method: str) -> Entry | None:
    """The entry of a client that authenticates in this way, and may."""
    entry = await find_entry(server.gateway, client)
    return entry if entry is not None and entry.is_referenced and entry.client.authentication == method else None


def require_certificate(request: Request, client: Client) -> str | None:
    """The certificate that the tokens of this client are bound to, None where they are to none. Raises OAuthError."""
    if not client.certificate_bound:
        return None
    shown: str | None = request.scope["state"].get("certificate")
    if shown is None:
        raise OAuthError("invalid_client", "this client shows a certificate (RFC 8705)", status=401)
    return shown


async def require_standing(server: Server, entry: Entry) -> None:
    """Refuse whoever is not referenced any more, or as something else, since it was looked up."""
    if not await still_stands(server.gateway, entry):
        raise OAuthError("invalid_client", "the client is not known here, or may not do this")


def _unknown() -> OAuthError:
    return OAuthError("invalid_client", "the client does not show that it is known here", status=401, headers=_CHALLENGE)


def _basic(request: Request) -> tuple[str, str] | None:
    """Client id and secret in the header Authorization, each percent-encoded (RFC 6749 §2.3.1); None without Basic."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client, colon, secret = b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _unknown() from None
    if not colon or len(client) + len(secret) > _LONGEST_SECRET:
        raise _unknown()
    return unquote_plus(client), unquote_plus(secret)
