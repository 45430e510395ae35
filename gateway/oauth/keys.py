"""The keys that id_tokens are signed with (RS256), and the set in which clients find their public halves.

Knows: when a key is published, when it signs and when it goes: a new one is published before it signs, an old one stays as long
as what it signed may be looked at. Private halves lie sealed in the database, so that all processes sign alike.
Must not know: what is signed.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from joserfc.jwk import RSAKey

from gateway.exchange.sealer import Sealer
from gateway.problem import Problem
from gateway.store.mongo import Document, Mongo
from gateway.store.signing_keys import add_signing_key, find_signing_keys

ALGORITHM = "RS256"
BEFORE_USE = timedelta(hours=24)  # published, while clients still hold the former set
AFTER_USE = timedelta(hours=25)  # as long, and the life of an id_token
_BITS = 2_048
_FRESH, _JUST_NOW = timedelta(minutes=1), timedelta(seconds=1)
_SECONDS = 5.0
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key. `signs`: from when on; `ends`: when it is published no more, None while nothing comes after it."""

    number: int
    signs: datetime
    ends: datetime | None
    key: RSAKey

    @property
    def id(self) -> str:
        """Its name: the RFC 7638 thumbprint."""
        return str(self.key.kid)


class SigningKeys:
    """The keys of this authorization server. What the database has is looked at once a minute."""

    def __init__(self, mongo: Mongo, sealer: Sealer, clock: Callable[[], datetime]) -> None:
        self._mongo = mongo
        self._sealer = sealer
        self._clock = clock
        self._known: tuple[datetime, list[SigningKey]] | None = None

    async def signing(self) -> SigningKey:
        """The key to sign with now: the newest whose time has come."""
        now = self._clock()
        return max((key for key in await self._published(now) if key.signs <= now), key=lambda key: key.number)

    async def published(self) -> list[SigningKey]:
        """The keys whose signatures hold now."""
        return await self._published(self._clock())

    async def find(self, name: str) -> SigningKey | None:
        """The key of this name, if its signatures hold now. One that another process has just made is looked for, too."""
        now = self._clock()
        for fresh in (_FRESH, _JUST_NOW):
            found = next((key for key in await self._published(now, fresh) if key.id == name), None)
            if found is not None:
                return found
        return None

    async def public_set(self) -> dict[str, list[Any]]:
        """The JWK Set to publish (RFC 7517 §5)."""
        return {"keys": [_public(key.key) for key in await self._published(self._clock())]}

    async def rotate(self, *, compromised: bool = False) -> str:
        """Make the next key; returns its id. It is published at once, and signs when everybody may have fetched it.

        `compromised`: it signs at once, and no former key is published any longer.
        """
        for _ in range(_ATTEMPTS):
            now, known = self._clock(), await self._load()
            signs = now if compromised or not known else now + BEFORE_USE
            last = now if compromised else signs + AFTER_USE
            ends = {old.number: last for old in known if old.ends is None or old.ends > last}
            made = await self._add(len(known) + 1, signs, ends)
            self._known = None
            if made is not None:
                return made
        raise Problem("conflict", "others are making keys at the same time")

    async def _published(self, now: datetime, fresh: timedelta = _FRESH) -> list[SigningKey]:
        if self._known is None or not timedelta() <= now - self._known[0] < fresh:
            keys = await self._load()
            if not keys:
                await self._add(1, now, {})  # whoever is first makes the first
                keys = await self._load()
            self._known = (now, keys)
        return [key for key in self._known[1] if key.ends is None or key.ends > now]

    async def _load(self) -> list[SigningKey]:
        """All keys that there ever were."""
        return [self._open(document) for document in await find_signing_keys(self._mongo)]

    def _open(self, document: Document) -> SigningKey:
        private = msgspec.json.decode(self._sealer.open(document["sealed"], document["kid"]))
        return SigningKey(document["_id"], document["signs"], document.get("ends"), RSAKey.import_key(private))

    async def _add(self, number: int, signs: datetime, ends: dict[int, datetime]) -> str | None:
        """Make the key of this number; None where another process was faster."""
        key = await asyncio.to_thread(_generate)  # takes a while
        identifier = str(key.kid)
        sealed = self._sealer.seal(msgspec.json.encode(key.as_dict(private=True)), identifier)
        document: Document = {"_id": number, "kid": identifier, "signs": signs, "sealed": sealed}
        return identifier if await add_signing_key(self._mongo, document, ends, _SECONDS) else None


def _generate() -> RSAKey:
    key = RSAKey.generate_key(_BITS, {"use": "sig", "alg": ALGORITHM}, private=True)
    return RSAKey.import_key({**key.as_dict(private=True), "kid": key.thumbprint()})


def _public(key: RSAKey) -> Any:
    return key.as_dict(private=False)
