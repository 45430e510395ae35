"""The public keys by which clients show that they are who they say.

Knows: which members of a JSON Web Key Set (RFC 7517) can be used for RS384 and ES384, and how the one key of a signature is
found. Must not know: what was signed.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, RSAKey

from gateway.schemas import SchemaError

_MOST_KEYS = 20
_RSA_BITS = range(2_048, 8_193)
_CURVE = "P-384"
_SECRETS = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


def usable_keys(members: Iterable[Any]) -> list[Key]:
    """Those of these members of a set that a signature can be checked with; the others are passed over."""
    found = [key for member in members if (key := _import(member)) is not None]
    return found[:_MOST_KEYS]


def find_key(keys: Iterable[Key], identifier: str, key_type: str) -> Key | None:
    """The one key of this name and type; None where there is none, or more than one."""
    found = [key for key in keys if key.kid == identifier and key.key_type == key_type]
    return found[0] if len(found) == 1 else None


def require_keys(file: Path, members: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a client's file with a key that cannot be used, or that is no public one."""
    names = []
    for number, member in enumerate(members):
        key = _import(member)
        if any(name in member for name in _SECRETS):
            raise SchemaError(file, f"keys[{number}]", "is a private key: nobody else may have it")
        if key is None:
            raise SchemaError(file, f"keys[{number}]", f"is not an RSA key of 2048 bits or an EC key on {_CURVE}, with a kid")
        names.append(key.kid)
    if len(names) != len(set(names)):
        raise SchemaError(file, "keys", "two keys have the same kid")
    if len(names) > _MOST_KEYS:
        raise SchemaError(file, "keys", f"are more than {_MOST_KEYS}")


def _import(member: Any) -> Key | None:
    if not isinstance(member, Mapping) or not isinstance(member.get("kid"), str) or not member["kid"]:
        return None
    if member.get("use", "sig") != "sig" or any(name in member for name in _SECRETS):
        return None
    try:
        match member.get("kty"):
            case "RSA":
                rsa = RSAKey.import_key(dict(member))
                return rsa if rsa.public_key.key_size in _RSA_BITS else None
            case "EC" if member.get("crv") == _CURVE:
                return ECKey.import_key(dict(member))
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None
