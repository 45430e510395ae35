"""Reading resources: every function takes the caller's Access and puts its limits into the filter.

Knows: the shape of a stored document, what of it is shown. (What is looked up without an Access is in `owners.py`.)
Must not know: how limits came about, HTTP.

One document per resource: `{_id, bucket, version, updated, patient, source, commit, key, digest, touched, labels, search,
body}`, `deleted` in place of `body` where it is a tombstone (and beside it, with `retracted`, where who deposited it took it
back). Former versions lie in `<type>_history` with `id` beside their own `_id`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.access.access import Access
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.clause import Clause, Test, Values, every, matches
from gateway.fhir.registry import ResourceType
from gateway.store.cost import require_bounded
from gateway.store.filter import LIVE, stored_field, to_filter
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Mongo, Part, Session
from gateway.store.order import BY_ID, Order, Place, behind_place, choose_index, fixed_parameters
from gateway.store.schema import history_of
from gateway.store.search_filter import search_filter
from gateway.store.through import look_through

BODY: Mapping[str, Any] = {"body": 1, "event": 1, "version": 1, "updated": 1, "patient": 1, "deleted": 1, "retracted": 1}


async def read(access: Access, mongo: Mongo, kind: ResourceType, identifier: str, session: Session = None) -> Document | None:
    """The current version (or tombstone) of a resource, None where there is none that the caller may read."""
    await look_through(access, mongo, kind, [identifier], session)
    return await find_current(access, mongo, kind, identifier, access.clause(kind, "read"), session, BODY)


async def read_version(
    access: Access, mongo: Mongo, kind: ResourceType, identifier: str, version: int, session: Session = None
) -> Document | None:
    """One version of a resource. It is visible only if it and the current version are."""
    await look_through(access, mongo, kind, [identifier], session)
    clause = access.clause(kind, "vread")
    current = await find_current(access, mongo, kind, identifier, clause, session, BODY)
    if current is None or current["version"] == version or current.get("retracted"):
        return current
    where = {**_versions_of(identifier), "version": version}
    found = await mongo.find_one(history_of(kind.name), where, session=session)
    return found if found is not None and matches(clause, as_values(found)) else None


async def read_history(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    identifier: str,
    *,
    before: int | None,
    limit: int,
    session: Session = None,
) -> tuple[list[Document], int | None] | None:
    """The visible versions of a resource older than version `before` (None: all), newest first.

    Looks at `limit` versions at most. Returns the visible ones and the version to go on before, None at the end; None in
    place of both where the resource itself is not visible.
    """
    await look_through(access, mongo, kind, [identifier], session)
    clause = access.clause(kind, "history-instance")
    current = await find_current(access, mongo, kind, identifier, clause, session, BODY)
    if current is None:
        return None
    if current.get("retracted"):
        return [current], None
    newest = [current] if before is None or current["version"] < before else []
    where = _versions_of(identifier) | ({"version": {"$lt": before}} if before is not None else {})
    former = await mongo.find(
        history_of(kind.name), where, sort=[("version", -1)], limit=limit + 1 - len(newest), session=session
    )
    more = len(newest) + len(former) > limit
    looked_at = former[: limit - len(newest)]
    visible = [document for document in looked_at if matches(clause, as_values(document))]
    return [*newest, *visible], [*newest, *looked_at][-1]["version"] if more else None


async def find(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    clause: Clause,
    order: Order,
    *,
    after: Place | None,
    limit: int,
    seconds: float,
    values: Iterable[str] = (),
    with_keys: bool = False,
    skip: int = 0,
    with_updated: bool = False,
    session: Session = None,
) -> list[Document]:
    """A page of the resources that satisfy the search and that the caller may see: bodies, owners where they may differ.

    `values`: the parameters whose index values are wanted as well; `with_keys`: and what it is sorted by; `with_updated`: and
    when each was last written; `skip`: how many are passed over.
    """
    asked = await _within_limits(access, mongo, kind, clause, order, session=session)
    sort = [(key.field, key.direction) for key in order.complete()]
    behind = [] if after is None else [behind_place(order, after)]
    fields: Document = {"event": 1, "updated": 1, "patient": 1} if kind.name == "AuditEvent" else {"body": 1}
    if kind.in_compartment and "patient" not in fixed_parameters(asked):
        fields["patient"] = 1
    fields |= {stored_field(name): 1 for name in values}
    if with_updated:
        fields["updated"] = 1
    if with_keys:
        fields |= {key.field: 1 for key in order.keys}
    where = search_filter(access, kind, asked) | LIVE
    found = await mongo.find(
        kind.name,
        {"$and": [where, *behind]} if behind else where,
        fields,
        sort=sort,
        limit=limit,
        skip=skip,
        hint=choose_index(kind, asked, order),
        seconds=seconds,
        session=session,
    )
    return [dict(access.told(one)) for one in found] if kind.name == "AuditEvent" else found


async def count(
    access: Access, mongo: Mongo, kind: ResourceType, clause: Clause, *, seconds: float, session: Session = None
) -> int:
    """How many resources satisfy the search among those the caller may see."""
    asked = await _within_limits(access, mongo, kind, clause, session=session)
    return await mongo.count(kind.name, search_filter(access, kind, asked) | LIVE, seconds=seconds, session=session)


async def find_ids(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    clause: Clause,
    *,
    limit: int,
    seconds: float,
    session: Session = None,
) -> list[str]:
    """The ids of resources that satisfy the clause and that the caller may find, in no order."""
    asked = await _within_limits(access, mongo, kind, clause, session=session)
    hint = choose_index(kind, asked, BY_ID)
    where = to_filter(asked) | LIVE
    found = await mongo.find(kind.name, where, {"_id": 1}, limit=limit, hint=hint, seconds=seconds, session=session)
    return [document["_id"] for document in found]


async def find_referred(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    ids: Sequence[str],
    *,
    values: Iterable[str],
    session: Session = None,
) -> list[Document]:
    """The resources with these ids that the caller may read, with the index values of these parameters."""
    await look_through(access, mongo, kind, ids, session)
    named = AnyOf(tuple(Test("_id", "is", identifier) for identifier in ids))
    where = to_filter(every(named, access.clause(kind, "read"))) | LIVE
    return await mongo.find(kind.name, where, _shown(values), session=session)


async def find_referable(
    access: Access, mongo: Mongo, wanted: Sequence[tuple[ResourceType, Sequence[str]]], session: Session = None
) -> set[str]:
    """Which of these resources, as `Type/id`, the caller may point at, deleted ones too: one call, whatever their types."""
    parts: list[Part] = []
    for kind, ids in wanted:
        named = AnyOf(tuple(Test("_id", "is", identifier) for identifier in ids))
        parts.append(Part(kind.name, to_filter(every(named, access.referable(kind))), kind.name, {"_id": 1}))
    if session is None:
        return {f"{document['of']}/{document['_id']}" for document in await mongo.find_all(parts)}
    found: set[str] = set()  # (no transaction reads several collections in one call)
    for part in parts:
        documents = await mongo.find(part.collection, part.where, {"_id": 1}, session=session)
        found |= {f"{part.of}/{document['_id']}" for document in documents}
    return found


async def find_referring(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    clause: Clause,
    *,
    values: Iterable[str],
    limit: int,
    seconds: float,
    session: Session = None,
) -> list[Document]:
    """The resources that satisfy the clause and that the caller may find and read, in no order."""
    asked = await _within_limits(access, mongo, kind, clause, also="read", session=session)
    hint = choose_index(kind, asked, BY_ID)
    where = to_filter(asked) | LIVE
    return await mongo.find(kind.name, where, _shown(values), limit=limit, hint=hint, seconds=seconds, session=session)


async def _within_limits(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    clause: Clause,
    order: Order = BY_ID,
    also: str = "search-type",
    session: Session = None,
) -> Clause:
    """A search within what the caller may find, and do `also`. Raises Problem where no index bounds it."""
    await look_through(access, mongo, kind, session=session)
    limits = (access.clause(kind, interaction) for interaction in dict.fromkeys(("search-type", also)))
    asked = every(access.meant(kind, clause), *limits)
    require_bounded(kind, clause, asked, tuple(key.parameter for key in order.keys))
    return asked


def _shown(values: Iterable[str]) -> Document:
    return {**BODY, **{stored_field(name): 1 for name in values}}


async def find_for_change(access: Access, mongo: Mongo, kind: ResourceType, ids: Sequence[str]) -> dict[str, Document]:
    """The whole documents (or tombstones) of resources that the caller may see or deposited, to be changed."""
    found = await _find_for_change(access, mongo, kind, ids)
    missing = [identifier for identifier in ids if identifier not in found]
    # (What one deposited itself is found whether or not it is seen through anything: that costs no call.)
    if missing and await look_through(access, mongo, kind, missing):
        found |= await _find_for_change(access, mongo, kind, missing)
    return found


async def _find_for_change(access: Access, mongo: Mongo, kind: ResourceType, ids: Sequence[str]) -> dict[str, Document]:
    if len(ids) == 1 and f"{kind.name}/{ids[0]}" in access.prefetched.resources:
        found = access.prefetched.resources[f"{kind.name}/{ids[0]}"]
        return {ids[0]: dict(found)} if found is not None and matches(access.referable(kind), found) else {}
    where = to_filter(every(AnyOf(tuple(Test("_id", "is", identifier) for identifier in ids)), access.referable(kind)))
    return {document["_id"]: document for document in await mongo.find(kind.name, where)}


def as_values(document: Document) -> Values:
    """A stored document as the index values of its resource, also when it is a former version."""
    return {**document, "_id": document["id"]} if "id" in document else document


async def find_current(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    identifier: str,
    clause: Clause,
    session: Session,
    fields: Mapping[str, Any] | None = None,
) -> Document | None:
    """The current version (or tombstone) of a resource that satisfies this clause, read beforehand or now."""
    if bucket_of(identifier) is None:
        return None
    reference = f"{kind.name}/{identifier}"
    if session is None and reference in access.prefetched.resources:
        known = access.prefetched.resources[reference]
        found = dict(known) if known is not None and matches(clause, known) else None
    else:
        where = to_filter(every(Test("_id", "is", identifier), clause))
        found = await mongo.find_one(kind.name, where, fields, session)
    return dict(access.told(found)) if found is not None and kind.name == "AuditEvent" else found


def _versions_of(identifier: str) -> Document:
    return {"bucket": identifier[:3], "id": identifier}
