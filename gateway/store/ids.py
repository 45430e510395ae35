"""Logical ids that carry the shard.

Knows: how an id is made. Its first three hexadecimal digits are the bucket of the patient it belongs to (for a Patient or a
directory entry, of itself), so that reading by id goes to one shard like searching by patient.
Must not know: resources, MongoDB.
"""

import hmac
import re
import secrets
import time
from hashlib import blake2b

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, without the letters that look like digits
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_ID = re.compile(r"[0-9a-f]{3}-[A-Za-z0-9\-.]{1,60}\Z")
_EPOCH = 1_577_836_800_000  # 2020-01-01 in milliseconds
_RANDOM_BITS = 38


class Ids:
    """Makes ids. `secret`: keeps the bucket of an identifier from telling anything about the identifier."""

    def __init__(self, secret: str) -> None:
        self._key = blake2b(secret.encode(), digest_size=32, person=b"gateway-bucket").digest()

    def bucket(self, seed: bytes) -> str:
        """The bucket that this seed (a business key) always falls into."""
        return hmac.digest(self._key, seed, "sha256").hex()[:3]

    def digest(self, seed: bytes) -> bytes:
        """A keyed hash: it tells whether two seeds are equal, and to who has not the key nothing else."""
        return hmac.digest(self._key, b"digest\0" + seed, "sha256")

    def new(self, bucket: str) -> str:
        """A new id in a bucket. Ids grow with time, so that what arrives together is stored together."""
        return f"{bucket}-{self.unique()}"

    def unique(self) -> str:
        """The part of a new id behind its bucket: 42 bits of milliseconds since 2020, 38 random bits; 16 characters."""
        number = (time.time_ns() // 1_000_000 - _EPOCH << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(70, -1, -10)])


def bucket_of(identifier: str) -> str | None:
    """The bucket an id carries, None where it is no id of ours (and so the id of nothing)."""
    return identifier[:3] if _ID.match(identifier) else None
