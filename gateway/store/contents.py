"""The contents of documents as they are stored: sealed, each in one record, apart from the resource that names it.

Knows: `{_id, bucket, patient, address, size, data}` of a content (`data` only of a short one; `pending` since when, as long as
no resource names it) and `{_id: content/number, bucket, data}` of the chunks of a longer one; how the wrapped keys of patients
lie; through what a content may be read.
Must not know: how anything is sealed or opened, HTTP.

Own collections in place of GridFS, see the README ("Contents").
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from gateway.access.access import Access
from gateway.fhir.clause import matches, parameters_of
from gateway.fhir.registry import ResourceType
from gateway.store.filter import among, stored_field
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Mongo, Part, Session, Stale
from gateway.store.resources import find_current
from gateway.store.schema import CHUNKS, CONTENTS, PATIENT_KEYS
from gateway.store.standing import key_parts

_SWEPT_AT_ONCE = 100
_ANNULLED = "entered-in-error"  # what each of the statuses of what attaches content says of a mistake
_FACTS: Mapping[str, Any] = {"patient": 1, "size": 1, "sha1": 1, "media": 1}


@dataclass(frozen=True, slots=True)
class Found:
    """A resource whose content the caller may read, with the stored content and the wrapped key (None: destroyed).

    `is_void`: all that attaches it, and that the caller may read, says that it was a mistake, or is deleted.
    """

    resource: Document
    content: Document
    wrapped: bytes | None
    is_void: bool = False


async def find_key(mongo: Mongo, patient: str) -> Document | None:
    """The key of a record as it is stored; without `wrapped`, where it was destroyed."""
    return await mongo.find_one(PATIENT_KEYS, {"_id": patient, "bucket": patient[:3]})


async def add_key(mongo: Mongo, patient: str, wrapped: bytes) -> Document:
    """Store the key of a record, unless it has one; returns the one that it has."""
    where = {"_id": patient, "bucket": patient[:3]}
    for _ in range(2):
        try:
            found = await mongo.change(PATIENT_KEYS, where, {"$setOnInsert": {"wrapped": wrapped}}, upsert=True)
        except Stale:  # another process was faster
            continue
        return found or {}
    return await find_key(mongo, patient) or {}


async def walk_keys(mongo: Mongo) -> AsyncIterator[Document]:
    """The wrapped keys of all records, one after the other."""
    async for stored in mongo.walk(PATIENT_KEYS, {"wrapped": {"$exists": True}}, sort="_id"):
        yield stored


async def replace_key(mongo: Mongo, patient: str, wrapped: bytes, anew: bytes) -> bool:
    """Keep the same key wrapped anew. Returns whether it still was as it was read: it may have been destroyed meanwhile."""
    where = {"_id": patient, "bucket": patient[:3], "wrapped": wrapped}
    return await mongo.change(PATIENT_KEYS, where, {"$set": {"wrapped": anew}}) is not None


async def destroy_key(mongo: Mongo, patient: str, now: datetime) -> None:
    """Destroy the key of a record: what it sealed can never be opened again, and the record never has another one."""
    where = {"_id": patient, "bucket": patient[:3]}
    await mongo.change(PATIENT_KEYS, where, {"$unset": {"wrapped": 1}, "$set": {"destroyed": now}}, upsert=True)


async def find_with_keys(mongo: Mongo, wanted: Mapping[bytes, str]) -> tuple[dict[bytes, Document], dict[str, Document]]:
    """What lies at these addresses (of these patients) already, by address, and the keys that the records have, by patient."""
    patients = sorted(set(wanted.values()))
    buckets = {"$in": sorted({patient[:3] for patient in patients})}
    found = await mongo.find_all(
        [
            Part(PATIENT_KEYS, {"_id": {"$in": patients}, "bucket": buckets}, "key"),
            Part(CONTENTS, {"bucket": buckets, "address": {"$in": [*wanted]}}, "content", {"address": 1, "pending": 1}),
        ]
    )
    keys = {document["_id"]: document for document in found if document["of"] == "key"}
    return {bytes(d["address"]): d for d in found if d["of"] == "content"}, keys


async def begin_content(mongo: Mongo, content: Document) -> None:
    """Write down that chunks of this content will come, so that they are found if they remain chunks."""
    await mongo.insert(CONTENTS, [content])


async def add_chunk(mongo: Mongo, content: str, number: int, sealed: bytes) -> None:
    """Store one chunk of a content."""
    await mongo.insert(CHUNKS, [{"_id": _chunk_id(content, number), "bucket": content[:3], "data": sealed}])


async def find_chunk(mongo: Mongo, content: str, number: int) -> bytes | None:
    """One chunk of a content, as it was sealed."""
    found = await mongo.find_one(CHUNKS, {"_id": _chunk_id(content, number), "bucket": content[:3]}, {"data": 1})
    return None if found is None else bytes(found["data"])


async def end_content(mongo: Mongo, content: str, facts: Mapping[str, Any], now: datetime) -> str:
    """Say where a content lies whose chunks are all there (`facts`: address and size); returns the id of what lies there.

    That is another one where the record had the same already; then this one is dropped.
    """
    bucket = content[:3]
    for _ in range(3):
        try:
            await mongo.change(CONTENTS, {"_id": content, "bucket": bucket}, {"$set": {**facts, "pending": now}})
            return content
        except Stale:
            # Whatever lies there shall stay until a resource names it.
            where = {"bucket": bucket, "address": facts["address"]}
            there = await mongo.change(CONTENTS, {**where, "pending": {"$exists": True}}, {"$set": {"pending": now}})
            there = there or await mongo.find_one(CONTENTS, where, {"_id": 1})
            if there is not None:
                await drop_content(mongo, content)
                return str(there["_id"])
    raise Stale


async def drop_content(mongo: Mongo, content: str) -> None:
    """Delete a content that no resource names, first its chunks: what is left by a crash in between is swept later."""
    await mongo.delete(CHUNKS, {"_id": {"$gte": f"{content}/", "$lt": f"{content}0"}, "bucket": content[:3]})
    await mongo.delete(CONTENTS, {"_id": content, "bucket": content[:3]})


async def sweep_contents(mongo: Mongo, before: datetime) -> int:
    """Delete what was deposited before this time and never named by a resource; returns how much that was.

    A content loses its address first: a transaction that would name it finds it no more, and plans again.
    """
    waiting = await mongo.find(CONTENTS, {"pending": {"$lt": before}}, {"bucket": 1}, limit=_SWEPT_AT_ONCE)
    swept = 0
    for one in waiting:
        where = {"_id": one["_id"], "bucket": one["bucket"], "pending": {"$lt": before}}
        if await mongo.change(CONTENTS, where, {"$unset": {"address": 1}}) is not None:
            await drop_content(mongo, one["_id"])
            swept += 1
    return swept


async def find_readable(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    holders: Sequence[ResourceType],
    identifier: str,
    session: Session = None,
) -> Found | None:
    """A resource with its content, None where there is none that is attached to anything that the caller may read.

    As many calls, and as much work, whether it is not there or may not be read: its bytes are fetched behind the door only.
    """
    reference = f"{kind.name}/{identifier}"
    if session is None and reference in access.prefetched.contents:
        known: Found | None = access.prefetched.contents[reference]
        return known
    return (await find_readable_all(access, mongo, kind, holders, [identifier], session))[identifier]


async def find_readable_all(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    holders: Sequence[ResourceType],
    identifiers: Sequence[str],
    session: Session = None,
) -> dict[str, Found | None]:
    """The same of several, in as many calls as of one."""
    resources: dict[str, Document] = {}
    for identifier in identifiers:
        resource = await find_current(access, mongo, kind, identifier, access.scopes(kind, "read"), session)
        if resource is not None and "withdrawn" not in resource:
            resources[identifier] = resource
    holding, keys = await _find_around(access, mongo, kind, holders, identifiers, resources.values(), session)
    seen = {
        identifier: _see(access, holders, resource, [one for one in holding if identifier in one["attached"]])
        for identifier, resource in resources.items()
    }
    ids = [resources[identifier]["content"] for identifier, how in seen.items() if how is not None]
    contents = {one["_id"]: one for one in await mongo.find(CONTENTS, among(ids), {"data": 1})} if ids else {}
    shown: dict[str, Found | None] = dict.fromkeys(identifiers)
    for identifier, how in seen.items():
        if how is not None:
            resource = resources[identifier]
            wrapped = keys.get(resource["patient"], {}).get("wrapped")
            content = contents.get(resource["content"], {"_id": resource["content"]})
            shown[identifier] = Found(resource, content, None if wrapped is None else bytes(wrapped), is_void=how == "void")
    return shown


async def _find_around(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    holders: Sequence[ResourceType],
    identifiers: Sequence[str],
    resources: Iterable[Document],
    session: Session,
) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Mapping[str, Any]]]:
    """All that attaches these contents, and the stored keys of their patients."""
    held = access.prefetched.held
    if session is None and held is not None and [f"{kind.name}/{one}" for one in identifiers] == [*access.prefetched.resources]:
        return held.attaching, {held.key["_id"]: held.key} if held.key is not None else {}
    parts = [_holding(access, holder, identifiers) for holder in holders]
    found = await mongo.find_all([*parts, *key_parts(resource["patient"] for resource in resources)])
    return [d for d in found if d["of"] != "key"], {d["_id"]: d for d in found if d["of"] == "key"}


async def find_attachable(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    holders: Sequence[ResourceType],
    identifiers: Iterable[str],
) -> dict[str, Document]:
    """What is known of the content of these resources, those that the caller deposited or may read already.

    As many calls whether any is there or not.
    """
    ids = sorted({identifier for identifier in identifiers if bucket_of(identifier)})
    where = among(ids)
    found = await mongo.find_all(
        [
            Part(
                kind.name,
                where,
                "resource",
                {**_FACTS, "source": 1, "depositor": 1, "bucket": 1, "labels": 1, "hidden_until": 1},
            ),
            *(_holding(access, holder, ids) for holder in holders),
        ]
    )
    deposited = access.referable(kind)
    holding = [document for document in found if document["of"] != "resource"]
    there: dict[str, Document] = {}
    for resource in (document for document in found if document["of"] == "resource"):
        mine = [document for document in holding if resource["_id"] in document["attached"]]
        if matches(deposited, resource) or _see(access, holders, resource, mine) == "open":
            there[resource["_id"]] = resource
    return there


def _holding(access: Access, holder: ResourceType, ids: Sequence[str]) -> Part:
    """What attaches one of these, whoever may read it: all of it counts when it comes to labels. It is shown to nobody."""
    looked_at = parameters_of(access.clause(holder, "read")) | {"status", "patient", "_security", "_hiddenUntil"}
    fields = {"attached": 1, "deleted": 1, **{stored_field(name): 1 for name in looked_at}}
    return Part(holder.name, among(ids, "attached"), holder.name, fields)


def _see(
    access: Access, holders: Sequence[ResourceType], resource: Document, holding: Sequence[Mapping[str, Any]]
) -> Literal["open", "void"] | None:
    """Whether content may be read through what attaches it; `void` where all of that, for the caller, was a mistake or is gone.

    The labels of all that attaches it count together, whoever may read which: the strictest win.
    """
    kinds = {kind.name: kind for kind in holders}
    void = [d for d in holding if d.get("deleted") or _ANNULLED in d["search"].get("status", ())]
    sound = [document for document in holding if document not in void]
    labels = set(resource.get("labels", ())).union(*(document.get("labels", ()) for document in sound))

    ends = [document["hidden_until"] for document in (resource, *sound) if "hidden_until" in document]

    def sees(document: Mapping[str, Any]) -> bool:
        values = {
            **document,
            "labels": sorted(labels.union(document.get("labels", ()))),
            "hidden_until": max(ends, default=None),
        }
        return matches(access.clause(kinds[document["of"]], "read"), values)

    if any(map(sees, sound)):
        return "open"
    return "void" if any(map(sees, void)) else None


def _chunk_id(content: str, number: int) -> str:
    return f"{content}/{number:06}"
