"""The keys that contents are sealed with: one for each patient, wrapped by a key that is not in the database.

Knows: how a key is made, wrapped, found and destroyed; what has to be asked of whoever keeps the wrapping key.
Must not know: what is sealed with it.
"""

import secrets
from typing import Protocol

from gateway.exchange.sealer import Sealer
from gateway.problem import Problem
from gateway.store.contents import add_key, replace_key, walk_keys
from gateway.store.mongo import Document, Mongo

KEY_BYTES = 32
_PURPOSE = b"gateway-content"
_MOST_REMEMBERED = 4_096


class KeyProvider(Protocol):
    """Who keeps the wrapping key: this process, or a KMS, to which each of these is a call."""

    async def wrap(self, key: bytes, owner: str) -> bytes:
        """Wrap the key of this owner."""

    async def unwrap(self, wrapped: bytes, owner: str) -> bytes:
        """The key. Raises Problem where it was not wrapped here for this owner."""


class MasterKey:
    """Wraps with a key from the settings. `former`: the one before it, which still unwraps what it wrapped."""

    def __init__(self, secret: str, former: str = "") -> None:
        self._sealer = Sealer(secret, _PURPOSE)
        self._former = Sealer(former, _PURPOSE) if former else None

    async def wrap(self, key: bytes, owner: str) -> bytes:
        """Wrap the key of this owner."""
        return self._sealer.seal(key, owner)

    async def unwrap(self, wrapped: bytes, owner: str) -> bytes:
        """The key. Raises Problem where it was not wrapped here for this owner."""
        if self._former is None:
            return self._sealer.open(wrapped, owner)
        try:
            return self._sealer.open(wrapped, owner)
        except Problem:
            return self._former.open(wrapped, owner)

    def is_current(self, wrapped: bytes, owner: str) -> bool:
        """Whether this was wrapped with the present key."""
        try:
            return bool(self._sealer.open(wrapped, owner))
        except Problem:
            return False


async def rewrap(mongo: Mongo, provider: MasterKey) -> int:
    """Wrap with the present key whatever was wrapped with the former one. Returns how many keys that were.

    One that breaks off is begun again. Raises Problem for a key that neither opens: nothing is done to it.
    """
    count = 0
    async for stored in walk_keys(mongo):
        patient, wrapped = stored["_id"], bytes(stored["wrapped"])
        if not provider.is_current(wrapped, patient):
            anew = await provider.wrap(await provider.unwrap(wrapped, patient), patient)
            count += await replace_key(mongo, patient, wrapped, anew)
    return count


class PatientKeys:
    """Makes and opens the keys of patients.

    What a wrapped key becomes is remembered; which one a record has, if any, is looked up with the content each time.
    """

    def __init__(self, mongo: Mongo, provider: KeyProvider) -> None:
        self._mongo = mongo
        self._provider = provider
        self._unwrapped: dict[tuple[str, bytes], bytes] = {}

    async def of(self, patient: str, stored: Document | None) -> bytes:
        """The key of a record, made if it has none. `stored`: what the database has. Raises Problem where it was destroyed."""
        if stored is None:
            wrapped = await self._provider.wrap(secrets.token_bytes(KEY_BYTES), patient)
            stored = await add_key(self._mongo, patient, wrapped)
        if stored.get("wrapped") is None:
            raise Problem("business-rule", "the contents of this record were erased, and it takes no others")
        return await self.unwrap(patient, bytes(stored["wrapped"]))

    async def unwrap(self, patient: str, wrapped: bytes) -> bytes:
        """The key that was wrapped."""
        found = self._unwrapped.get((patient, wrapped))
        if found is None:
            found = self._unwrapped[patient, wrapped] = await self._provider.unwrap(wrapped, patient)
            if len(self._unwrapped) > _MOST_REMEMBERED:
                del self._unwrapped[next(iter(self._unwrapped))]
        return found
