"""Going through all that is stored of a type, to renew the index values that lie beside it.

Knows: that what is written to meanwhile has new values already; how far an earlier run came.
Must not know: how values are read.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.store.mongo import Document, Mongo, Step, Unmatched
from gateway.store.schema import HEADS, META, history_of

Values = Callable[[Document], Document]  # of a stored document with its body

_FIELDS = {"search": 1, "body": 1, "version": 1, "bucket": 1, "patient": 1}


@dataclass(frozen=True, slots=True)
class Place:
    """How far a run came: the collection, and the last `_id` that was looked at there."""

    collection: str
    after: str


def collections_of(type_name: str) -> tuple[str, str]:
    """What is gone through: the present versions, then the former ones, which are read by the same values."""
    return type_name, history_of(type_name)


async def find_place(mongo: Mongo, type_name: str, fingerprint: bytes) -> Place | None:
    """Where a run with this fingerprint broke off, None where there is none."""
    found = await mongo.find_one(META, {"_id": _run(type_name)})
    if found is None or bytes(found["fingerprint"]) != fingerprint:
        return None
    return Place(found["collection"], found["after"])


async def keep_place(mongo: Mongo, type_name: str, fingerprint: bytes, place: Place) -> None:
    """Remember how far a run came."""
    known = {"fingerprint": fingerprint, "collection": place.collection, "after": place.after}
    await mongo.change(META, {"_id": _run(type_name)}, {"$set": known}, upsert=True)


async def forget_place(mongo: Mongo, type_name: str) -> None:
    """There is nothing to go on with."""
    await mongo.delete(META, {"_id": _run(type_name)})


async def renew_batch(mongo: Mongo, type_name: str, place: Place, values: Values, most: int) -> tuple[int, int, Place | None]:
    """Renew the values of what comes next. How many were looked at and how many differed, and where it ended.

    None for the place where nothing came. What has no body (what was deleted, withdrawn or erased) keeps what it has.
    """
    where: Document = {"_id": {"$gt": place.after}}
    found = await mongo.find(place.collection, where, _FIELDS, sort=[("_id", 1)], limit=most)
    if not found:
        return 0, 0, None
    new = [(document, values(document)) for document in found if "body" in document]
    changed = [(document, search) for document, search in new if not _is_alike(document.get("search", {}), search)]
    await _widen(mongo, type_name, changed)
    if changed:
        # (What was written to since has another version, and values of its own.)
        updates: list[tuple[Document, Document]] = [
            ({name: one[name] for name in ("_id", "bucket", "version") if name in one}, {"$set": {"search": search}})
            for one, search in changed
        ]
        with suppress(Unmatched):
            await mongo.write(Step(place.collection, updates=updates), None)
    return len(found), len(changed), Place(place.collection, found[-1]["_id"])


async def _widen(mongo: Mongo, type_name: str, changed: Iterable[tuple[Document, Document]]) -> None:
    """Say first in the heads of records which of them will hold long spans: searches there are exact then, and miss none."""
    wide = {one["patient"] for one, search in changed if one.get("patient") and any(map(_is_wide, search.values()))}
    updates: list[tuple[Document, Document]] = [
        ({"_id": patient}, {"$addToSet": {"wide": type_name}}) for patient in sorted(wide)
    ]
    if updates:
        with suppress(Unmatched):  # (a record without a head has been erased)
            await mongo.write(Step(HEADS, updates=updates), None)


def _is_wide(value: Any) -> bool:
    return isinstance(value, dict) and "wide" in value


def _is_alike(stored: Any, made: Any) -> bool:
    """Whether values are the same once they are stored."""
    if isinstance(made, dict):
        return isinstance(stored, dict) and stored.keys() == made.keys() and all(_is_alike(stored[k], made[k]) for k in made)
    if isinstance(made, list | tuple):
        pairs = zip(stored, made, strict=False) if isinstance(stored, list) else ()
        return isinstance(stored, list) and len(stored) == len(made) and all(_is_alike(s, m) for s, m in pairs)
    return bool(stored == made)


def _run(type_name: str) -> str:
    return f"reindex {type_name}"
