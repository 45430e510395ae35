"""What other issuers sign: access tokens by RFC 9068, and those of issuers that leave some of it out.

Knows: which headers and signatures hold (RFC 7515, RFC 8725). Must not know: what claims mean here; HTTP.
"""

import binascii
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from gateway.issuers.claims import Claims, Refused, check_claims, seconds
from gateway.issuers.files import Issuer, Jwt, PublishedKeys, normal_type
from gateway.issuers.keys import Keys
from gateway.outbound import Outbound

Header = Mapping[str, Any]

_MOST_HEADER_BYTES = 2_048
_MOST_KID = 255
_MOST_VERIFIED = 1_000
# Headers by which a token would choose its own key, or change what is signed.
_FORBIDDEN = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"})
_KEY_TYPES = {"R": "RSA", "P": "RSA", "E": "EC"}


class _Registry(JWSRegistry):
    max_header_length = _MOST_HEADER_BYTES
    max_payload_length = 16_384


class Signatures:
    """Verifies what one issuer signs. `types`: what its header may say it is, in small letters ("" for saying nothing)."""

    def __init__(
        self, name: str, rules: PublishedKeys, types: frozenset[str], outbound: Outbound, keys: Keys | None = None
    ) -> None:
        self._rules = rules
        self._types = types
        self._registry = _Registry(algorithms=rules.algorithms, strict_check_header=False)
        self.keys = keys or Keys(name, rules, outbound)

    def also(self, name: str, types: frozenset[str], outbound: Outbound) -> "Signatures":
        """The same for something else that this issuer signs with the same keys."""
        return Signatures(name, self._rules, types, outbound, self.keys)

    async def find_key(self, header: Header, now: datetime) -> Key:
        """The key that must have signed under this header. Raises Refused, and Unreachable where that cannot be known."""
        key = await self.keys.find(self._check_header(header), now.timestamp())
        if key is None:
            raise Refused("kid")
        return key

    def verify(self, token: str, header: Header, key: Key) -> Claims:
        """The claims that this key has signed under this header. Raises Refused."""
        algorithm = header["alg"]
        if key.key_type != _KEY_TYPES[algorithm[0]] or (key.get("alg") or algorithm) != algorithm:
            raise Refused("alg of the key")
        try:
            decoded = jwt.decode(token, key, algorithms=self._rules.algorithms, registry=self._registry)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            raise Refused("signature") from None
        if decoded.header != header:  # two readers of the same bytes: what was checked is what was signed
            raise Refused("header")
        return decoded.claims

    def _check_header(self, header: Header) -> str:
        """Refuse what no key could make good; returns the key's name, which is a name only, never an address."""
        if header.get("alg") not in self._rules.algorithms:
            raise Refused("alg")
        if not _FORBIDDEN.isdisjoint(header):
            raise Refused("header")
        if normal_type(str(header.get("typ", ""))) not in self._types:
            raise Refused("typ")
        kid = header.get("kid")
        if not isinstance(kid, str) or not 0 < len(kid) <= _MOST_KID:
            raise Refused("kid")
        return kid


class SignedTokens:
    """Verifies the signed access tokens of one issuer.

    That a signature holds is remembered, because it is a matter of a text and a key alone, dear to find out, and a token is
    used many times. Whether the key is still published, and what the claims say of time and audience, is asked each time.
    """

    def __init__(self, issuer: Issuer, rules: Jwt, outbound: Outbound) -> None:
        self._issuer = issuer
        self._rules = rules
        self._signatures = Signatures(issuer.name, rules, frozenset(map(normal_type, rules.types)), outbound)
        self._verified: OrderedDict[bytes, tuple[Key, Claims]] = OrderedDict()
        self.keys = self._signatures.keys

    async def claims(self, token: str, now: datetime) -> Claims:
        """The claims of a token that holds now. Raises Refused, and Unreachable where its issuer has to be asked first."""
        header = read_header(token)
        key = await self._signatures.find_key(header, now)
        claims = self._verify_once(token, header, key)
        self._check_rfc9068(claims)
        check_claims(self._issuer, claims, now)
        return claims

    def _verify_once(self, token: str, header: Header, key: Key) -> Claims:
        digest = sha256(token.encode()).digest()
        by, claims = self._verified.get(digest, (None, {}))
        if by is not key:
            claims = self._signatures.verify(token, header, key)
            self._verified[digest] = key, claims
            self._verified.move_to_end(digest)
            if len(self._verified) > _MOST_VERIFIED:
                self._verified.popitem(last=False)
        return claims

    def _check_rfc9068(self, claims: Claims) -> None:
        """What a signed token has to say (RFC 9068 §2.2), and for how long it may hold at all."""
        for name in ("iss", "sub"):
            if not isinstance(claims.get(name), str):
                raise Refused(name)
        if seconds(claims, "exp") - seconds(claims, "iat") > self._rules.lifetime_seconds:
            raise Refused("lifetime")


def read_header(token: str) -> Header:
    """What a JWT says of its own signature, which nobody has verified. Raises Refused where it is no JWT."""
    return _part(token, 0)


def read_unverified_issuer(token: str) -> str | None:
    """Who a token says it is from, to know which keys it is to be verified with; None where it is no JWT."""
    try:
        issuer = _part(token, 1).get("iss")
    except Refused:
        return None
    return issuer if isinstance(issuer, str) else None


def _part(token: str, number: int) -> dict[str, Any]:
    """A part of a JWT that is a JSON object."""
    text = token.split(".")[number]
    try:
        found = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError, RecursionError):
        raise Refused("format") from None
    if not isinstance(found, dict):
        raise Refused("format")
    return found
