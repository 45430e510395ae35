"""An issuer of the tests: its keys, the tokens it signs, and its file.

Knows: how access tokens of others look, sound ones and forged ones. Must not know: how the gateway reads them.
"""

import json
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws, jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, RSAKey

from gateway.access.scope import parse_scopes
from gateway.fhir.registry import Registry
from gateway.fhir.search import Reading
from gateway.issuers.files import Checks, Issuer, read_issuers
from gateway.issuers.issuers import Issuers
from gateway.outbound import Network
from tests.world import BASE

ISSUER = "https://id.example"
KEYS = f"{ISSUER}/jwks"
ADDRESS = "93.184.215.14"  # a public one; what is asked of it never leaves the test
_ALGORITHMS = ["RS256", "RS384", "PS256", "ES256", "ES384", "HS256", "none"]

SIGNED = f"""
issuer = "{ISSUER}"
[jwt]
keys = "{KEYS}"
[scopes]
smart = true
[[caller]]
kind = "professional"
user = {{claim = "fhirUser", type = "Practitioner"}}
"""
INTROSPECTED = f"""
issuer = "{ISSUER}"
[introspection]
endpoint = "{ISSUER}/introspect"
client = "gate way"
secret_file = "secret"
prefix = "op_"
[[caller]]
kind = "professional"
user = {{claim = "sub", type = "Practitioner", system = "https://rpps.esante.gouv.fr"}}
"""


@cache
def rsa(name: str, bits: int = 2_048) -> RSAKey:
    made = generate_private_key(public_exponent=65_537, key_size=bits)
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with warnings.catch_warnings(action="ignore", category=SecurityWarning):  # short ones are made here on purpose
        return RSAKey.import_key(pem, {"kid": name, "use": "sig"})


@cache
def ec(name: str, curve: str = "P-256") -> ECKey:
    return ECKey.generate_key(curve, parameters={"kid": name})


def public(*keys: Key) -> dict[str, Any]:
    """The key set an issuer publishes."""
    return {"keys": [key.as_dict(private=False) for key in keys]}


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a sound access token; a change to None takes one away."""
    now = int(datetime.now(UTC).timestamp())
    sound = {
        "iss": ISSUER,
        "aud": BASE,
        "sub": "u-1",
        "client_id": "medisoft",
        "iat": now,
        "exp": now + 300,
        "jti": "j",
        "scope": "openid user/*.rs",
        "fhirUser": "Practitioner/abc-martin",
    }
    return {name: value for name, value in (sound | changes).items() if value is not None}


def token(key: Key | None = None, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """An access token. `header`: changes to the sound one."""
    key = key or rsa("k1")
    sound = {"alg": "ES256" if isinstance(key, ECKey) else "RS256", "kid": key.kid, "typ": "at+jwt"}
    full = {name: value for name, value in (sound | dict(header or {})).items() if value is not None}
    registry = jws.JWSRegistry(algorithms=_ALGORITHMS, strict_check_header=False)
    return jwt.encode(full, claims(**changes), key, registry=registry, default_type=None)


def unsigned(header: Mapping[str, Any], body: Mapping[str, Any] | bytes, signature: bytes = b"") -> str:
    """A token put together by hand."""
    parts = (json.dumps(header).encode(), body if isinstance(body, bytes) else json.dumps(body).encode(), signature)
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def write_issuers(folder: Path, **texts: str) -> Path:
    """A folder with these files of issuers, and a secret beside them."""
    for name, text in texts.items():
        (folder / f"{name.replace('_', '-')}.toml").write_text(text, "utf-8")
    (folder / "secret").write_text("s:cret\n", "utf-8")
    return folder


def read(registry: Registry, folder: Path, networks: tuple[Network, ...] = ()) -> list[Issuer]:
    """The issuers of a folder, read as at start."""

    def scopes(text: str) -> Any:
        return parse_scopes(registry, text, Reading(now=datetime.now(UTC), or_values=50, patients={}))

    return read_issuers(folder, Checks(registry, scopes, networks, BASE))


def issuers_of(registry: Registry, folder: Path, **texts: str) -> Issuers:
    """The issuers of these files; every name resolves to one public address."""

    async def resolve(host: str, port: int) -> list[str]:
        return [ADDRESS]

    return Issuers(read(registry, write_issuers(folder, **texts)), (), resolve)
