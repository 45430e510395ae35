"""Secrets that must be kept as they are, sealed with a key that is not in the database.

Knows: how to seal and open them. Must not know: what they are.
"""

import secrets
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.problem import Problem

_NONCE = 12


class Sealer:
    """Seals with a key derived from `secret` for one `purpose` (16 bytes at most)."""

    def __init__(self, secret: str, purpose: bytes) -> None:
        self._cipher = AESGCM(blake2b(secret.encode(), digest_size=32, person=purpose).digest())

    def seal(self, plain: bytes, owner: str) -> bytes:
        """Seal what belongs to this owner, and to nobody else."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(nonce, plain, owner.encode())

    def open(self, sealed: bytes, owner: str) -> bytes:
        """What was sealed. Raises Problem where it was not sealed here for this owner."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], owner.encode())
        except InvalidTag:
            raise Problem("exception", "a stored secret cannot be opened") from None
