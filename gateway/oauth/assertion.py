"""Signed assertions by which clients show that they are who they say (RFC 7523 §3, and SMART's rules for them).

Knows: what such a JWT must say, and that nothing in it is believed before its signature is checked: what is read before that
only tells whose key to look for. Must not know: where keys come from, what is asked for.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key

from gateway.oauth.metadata import ASSERTION_ALGORITHMS
from gateway.oauth.respond import OAuthError
from gateway.store.issuing import Used

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LONGEST = 8_192
_LONGEST_JTI = 255
_MOST_SECONDS = 300
_SKEW = 30  # seconds; clients sign for exactly five minutes, by their own clocks
_REMEMBERED = timedelta(minutes=5)  # after its end: the database clears away by a clock of its own
_KEY_TYPES: Mapping[str, str] = {"RS384": "RSA", "ES384": "EC"}
_TYPES = (None, "jwt", "client-authentication+jwt")


class _Registry(jws.JWSRegistry):  # type: ignore[misc, unused-ignore]
    """Headers with room for the address of a key set."""

    max_header_length = 2_048


_REGISTRY = _Registry(algorithms=list(ASSERTION_ALGORITHMS))


@dataclass(frozen=True, slots=True)
class Unverified:
    """What an assertion says before anybody knows whether that is true. `signed`: its parts, for the check."""

    client: str
    key_id: str
    key_type: str
    jku: str | None
    claims: Mapping[str, Any]
    signed: Any


def refused(text: str) -> OAuthError:
    """The refusal of an assertion."""
    return OAuthError("invalid_client", text)


def read_assertion(text: str) -> Unverified:
    """What an assertion says. Raises OAuthError where it is none, or names no key or no client."""
    if len(text) > _LONGEST or not text.isascii():
        raise refused("the assertion is too long, or no JWT")
    try:
        signed = jws.extract_compact(text.encode(), registry=_REGISTRY)
        header = signed.headers()
        claims = msgspec.json.decode(signed.payload)
    except (JoseError, ValueError, KeyError, TypeError, RecursionError):  # (msgspec's errors are ValueErrors)
        raise refused("the assertion is no signed JWT") from None
    algorithm, key_id, jku = header.get("alg"), header.get("kid"), header.get("jku")
    if not isinstance(algorithm, str) or algorithm not in _KEY_TYPES:
        raise refused(f"an assertion is signed by {' or '.join(ASSERTION_ALGORITHMS)}")
    if "crit" in header or not _is_type(header.get("typ")) or not (jku is None or isinstance(jku, str)):
        raise refused("the assertion has a header that is not understood")
    if not isinstance(key_id, str) or not key_id:
        raise refused("the assertion does not name its key (kid)")
    if not isinstance(claims, dict) or not isinstance(claims.get("sub"), str):
        raise refused("the assertion does not name a client (sub)")
    return Unverified(claims["sub"], key_id, _KEY_TYPES[algorithm], jku, claims, signed)


def verify(assertion: Unverified, key: Key, audiences: Collection[str], now: datetime) -> Used:
    """Check signature and claims; returns what keeps it from being used again. Raises OAuthError."""
    try:
        is_signed = jws.validate_compact(assertion.signed, key, list(ASSERTION_ALGORITHMS), _REGISTRY)
    except (JoseError, ValueError):
        is_signed = False
    if not is_signed:
        raise refused("the assertion's signature does not hold")
    claims, seconds = assertion.claims, now.timestamp()
    if claims.get("iss") != assertion.client:
        raise refused("iss and sub of an assertion are both the client's id")
    if not _is_for(claims.get("aud"), audiences):
        raise refused("the assertion is not for this server (aud)")
    ends = _number(claims.get("exp"))
    if ends is None or not seconds < ends <= seconds + _MOST_SECONDS + _SKEW:
        raise refused(f"an assertion ends within {_MOST_SECONDS} seconds (exp)")
    begins = _number(claims.get("nbf", seconds))
    if begins is None or begins > seconds + _SKEW:
        raise refused("the assertion does not hold yet (nbf)")
    identifier = claims.get("jti")
    if not isinstance(identifier, str) or not 1 <= len(identifier) <= _LONGEST_JTI:
        raise refused("the assertion has no name of its own (jti)")
    name = sha256(f"{assertion.client}\x00{identifier}".encode()).digest()
    return Used(name, datetime.fromtimestamp(ends, UTC) + _REMEMBERED)


def _is_type(value: Any) -> bool:
    return (value.lower() if isinstance(value, str) else value) in _TYPES


def _is_for(audience: Any, audiences: Collection[str]) -> bool:
    """Whether this server, alone, is meant: an assertion that others take as well could be theirs to pass on."""
    found = audience if isinstance(audience, list) else [audience]
    return len(found) == 1 and isinstance(found[0], str) and found[0] in audiences


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value < 2**53 else None
