"""Paging cursors: where the next page begins and what was asked, sealed.

Knows: how to seal and open them. A cursor carries no right: the next page is searched with the rights of whoever asks then.
It is sealed because the search in it may name a patient, and URLs end up in logs.
Must not know: what the search means.
"""

import base64
import secrets
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.exchange.parameters import Pairs
from gateway.problem import Problem

_NONCE = 12


class Cursor(msgspec.Struct, array_like=True):
    """The search (`pairs`) and the last resource of the page before: its sort keys (None: it has none) and id."""

    pairs: Pairs
    keys: tuple[datetime | None, ...]
    id: str


class Cursors:
    """Seals and opens cursors with a key derived from `secret`, which all processes share."""

    def __init__(self, secret: str) -> None:
        self._cipher = AESGCM(blake2b(secret.encode(), digest_size=32, person=b"gateway-cursor").digest())
        self._decoder = msgspec.json.Decoder(Cursor)

    def seal(self, type_name: str, cursor: Cursor) -> str:
        """The cursor as it stands in a URL."""
        nonce = secrets.token_bytes(_NONCE)
        sealed = self._cipher.encrypt(nonce, msgspec.json.encode(cursor), type_name.encode())
        return base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()

    def open(self, type_name: str, text: str) -> Cursor:
        """The cursor behind the text. Raises Problem where it was not made here for a search of this type."""
        try:
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            plain: Any = self._cipher.decrypt(data[:_NONCE], data[_NONCE:], type_name.encode())
            return self._decoder.decode(plain)
        except (ValueError, InvalidTag, msgspec.DecodeError):
            raise Problem("invalid", "the value of '_cursor' is not one this service made", "_cursor") from None
