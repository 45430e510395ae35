"""Renewing the index values of all that is stored of a type, from what its file says now.

Knows: that values are read from the bytes as they would be on a write; that a run which broke off goes on, unless the file has
changed since. Must not know: the command line, MongoDB.
"""

import asyncio
import time
from collections.abc import Callable
from hashlib import blake2b

from gateway.exchange.gateway import Gateway
from gateway.exchange.merging import values_shown
from gateway.exchange.operated import operated
from gateway.problem import Problem
from gateway.store.mongo import Document
from gateway.store.reindexing import Place, collections_of, find_place, forget_place, keep_place, renew_batch

_AT_ONCE = 200

Tell = Callable[[int, int], None]  # how many were looked at so far, and how many had other values


async def reindex(gateway: Gateway, type_name: str, operator: str, tell: Tell, *, share: float = 0.5) -> tuple[int, int]:
    """Go through all resources of a type, former versions too. Returns how many were looked at, and how many renewed.

    `share`: of the time how much it may work, so that those who are served meanwhile hardly notice. Raises Problem where
    there is no such type, or none that has index values.
    """
    kind = gateway.registry.find(type_name)
    if kind is None or kind.name == "AuditEvent":
        raise Problem("not-supported", "this type is not served, or has no index values of its own")
    fingerprint = _fingerprint(gateway, type_name)

    def values(document: Document) -> Document:
        resource = gateway.codec.load(type_name, document["body"])
        found = gateway.index.search_values(kind, resource)
        return values_shown(resource, found) if kind.is_patient else found

    looked_at = renewed = 0
    async with operated(gateway, operator, "$reindex", f"index values of {type_name}"):
        begin = await find_place(gateway.mongo, type_name, fingerprint) or Place(type_name, "")
        names = collections_of(type_name)
        for name in names[names.index(begin.collection) :]:
            place: Place | None = begin if name == begin.collection else Place(name, "")
            while place is not None:
                began = time.monotonic()
                count, changed, place = await renew_batch(gateway.mongo, type_name, place, values, _AT_ONCE)
                looked_at, renewed = looked_at + count, renewed + changed
                if place is not None:
                    await keep_place(gateway.mongo, type_name, fingerprint, place)
                tell(looked_at, renewed)
                await asyncio.sleep((time.monotonic() - began) * (1 / share - 1))
        await forget_place(gateway.mongo, type_name)
    return looked_at, renewed


def _fingerprint(gateway: Gateway, type_name: str) -> bytes:
    """What tells whether the values would be the same: the files that say how they are read."""
    folder = gateway.settings.schemas
    files = (folder / "resources" / f"{type_name}.toml", folder / "hierarchies.toml", folder / "policy.toml")
    return blake2b(b"\0".join(file.read_bytes() for file in files if file.exists()), digest_size=16).digest()
