"""Reading resources: every function takes the caller's Access and puts its limits into the filter.

Knows: the shape of a stored document, paging, which index serves a search.
Must not know: how limits came about, HTTP.

One document per resource: `{_id, bucket, version, updated, patient, source, commit, key, digest, labels, search, body}`,
`deleted` in place of `body` where it is a tombstone. Former versions lie in `<type>_history` with `id` beside their own `_id`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.access.access import Access
from gateway.fhir.clause import All, Clause, Test, Values, every, matches, parameters_of
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.registry import ResourceType
from gateway.store.filter import to_filter
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Mongo, Session
from gateway.store.schema import history_of, index_name, sort_field

_BODY: Mapping[str, Any] = {"body": 1, "event": 1, "version": 1, "updated": 1, "patient": 1, "deleted": 1}
LIVE: Document = {"deleted": {"$exists": False}}


@dataclass(frozen=True, slots=True)
class Order:
    """How a search is sorted; ties are broken by id."""

    parameter: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Place:
    """The last resource of a page: its sort key (None where it has none) and id. The next page begins behind it."""

    key: Any
    id: str


async def read(access: Access, mongo: Mongo, kind: ResourceType, identifier: str, session: Session = None) -> Document | None:
    """The current version (or tombstone) of a resource, None where there is none that the caller may read."""
    return await _current(access, mongo, kind, identifier, access.clause(kind, "read"), session)


async def read_version(
    access: Access, mongo: Mongo, kind: ResourceType, identifier: str, version: int, session: Session = None
) -> Document | None:
    """One version of a resource. It is visible only if it and the current version are."""
    clause = access.clause(kind, "vread")
    current = await _current(access, mongo, kind, identifier, clause, session)
    if current is None or current["version"] == version:
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
    clause = access.clause(kind, "history-instance")
    current = await _current(access, mongo, kind, identifier, clause, session)
    if current is None:
        return None
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
    session: Session = None,
) -> list[Document]:
    """A page of the resources that satisfy the search and that the caller may see: bodies, owners where they may differ."""
    asked = every(clause, access.clause(kind, "search-type"))
    field = sort_field(order.parameter)
    down = -1 if order.descending else 1
    behind = [] if after is None else [_behind(field, order, after)]
    fields: Document = {"event": 1, "updated": 1, "patient": 1} if kind.name == "AuditEvent" else {"body": 1}
    if kind.in_compartment and "patient" not in _fixed(asked):
        fields["patient"] = 1
    branches = _branches(access, kind, asked)
    if len(branches) > 1:
        fields[field] = 1
    pages = [
        await mongo.find(
            kind.name,
            {"$and": [where, *behind]} if behind else where,
            fields,
            sort=[(field, down)] if field == "_id" else [(field, down), ("_id", -down)],
            limit=limit,
            hint=choose_index(kind, asked, order),
            seconds=seconds,
            session=session,
        )
        for where in branches
    ]
    return pages[0] if len(pages) == 1 else _merge(pages, field, order)[:limit]


async def count(
    access: Access, mongo: Mongo, kind: ResourceType, clause: Clause, *, seconds: float, session: Session = None
) -> int:
    """How many resources satisfy the search among those the caller may see."""
    asked = every(clause, access.clause(kind, "search-type"))
    branches = _branches(access, kind, asked)
    return sum([await mongo.count(kind.name, where, seconds=seconds, session=session) for where in branches])


async def find_for_change(access: Access, mongo: Mongo, kind: ResourceType, ids: Sequence[str]) -> dict[str, Document]:
    """The whole documents (or tombstones) of resources that the caller may see or deposited, to be changed."""
    if len(ids) == 1 and f"{kind.name}/{ids[0]}" in access.prefetched.resources:
        found = access.prefetched.resources[f"{kind.name}/{ids[0]}"]
        return {ids[0]: dict(found)} if found is not None and matches(access.referable(kind), found) else {}
    where = to_filter(every(AnyOf(tuple(Test("_id", "is", identifier) for identifier in ids)), access.referable(kind)))
    return {document["_id"]: document for document in await mongo.find(kind.name, where)}


async def find_owner(mongo: Mongo, type_name: str, identifier: str) -> str | None:
    """Whose record a resource belongs to, so that that record's consents can be looked up. Never told to a caller."""
    if type_name == "Patient" or bucket_of(identifier) is None:
        return identifier if type_name == "Patient" else None
    found = await mongo.find_one(type_name, {"_id": identifier, "bucket": identifier[:3]}, {"patient": 1})
    return found.get("patient") if found else None


async def find_owners(mongo: Mongo, type_name: str, identifiers: Sequence[str]) -> set[str]:
    """Whose records these resources belong to. Never told to a caller."""
    if type_name == "Patient":
        return set(identifiers)
    ids = [identifier for identifier in identifiers if bucket_of(identifier)]
    where: Document = {"_id": {"$in": ids}, "bucket": {"$in": sorted({i[:3] for i in ids})}}
    found = await mongo.find(type_name, where, {"patient": 1}) if ids else []
    # What is missing comes as null where an index alone answers.
    return {document["patient"] for document in found if document.get("patient") is not None}


async def find_patient(mongo: Mongo, token: str) -> str | None:
    """The id of the one patient with this identifier (`system|value`), None for none or several.

    This addresses a record; it gives no right to it, and its result is never told as such.
    """
    found = await mongo.find("Patient", {"search.identifier": token, **LIVE}, {"_id": 1}, limit=2)
    return found[0]["_id"] if len(found) == 1 else None


def _branches(access: Access, kind: ResourceType, clause: Clause) -> list[Document]:
    """The filters that together match the search, each of which one index serves.

    Nearly all records hold only moments and days, which are found by where they begin. Where a record also holds longer
    periods, those few are looked for apart.
    """
    patients = {part.value for part in _parts(clause) if isinstance(part, Test) and part.parameter == "patient"}
    record = access.records.get(patients.pop()) if len(patients) == 1 else None
    dates = [p.name for p in kind.search.values() if p.type == "date"]
    compared = [name for name in dates if name in parameters_of(clause)]
    if record is None or not compared:
        return [to_filter(clause) | LIVE]
    bounded = to_filter(clause, common_spans=True) | LIVE
    if kind.name not in record.wide:
        return [bounded]
    wide = [{f"search.{name}.wide": True} for name in compared]
    return [{"$and": [bounded, {"$nor": wide}]}, {"$and": [to_filter(clause) | LIVE, {"$or": wide}]}]


def _merge(pages: list[list[Document]], field: str, order: Order) -> list[Document]:
    """Pages sorted alike as one. What has no key sorts before everything, as in MongoDB."""

    def key(document: Document) -> tuple[bool, Any]:
        value: Any = document
        for name in field.split("."):
            value = value.get(name) if value else None
        return (value is not None, value or 0)

    # Ids run against the keys: sort by them first, and the other way round.
    found = sorted((d for page in pages for d in page), key=lambda d: str(d["_id"]), reverse=not order.descending)
    return sorted(found, key=key, reverse=order.descending)


def as_values(document: Document) -> Values:
    """A stored document as the index values of its resource, also when it is a former version."""
    return {**document, "_id": document["id"]} if "id" in document else document


def choose_index(kind: ResourceType, clause: Clause, order: Order) -> str | None:
    """The declared index that serves a search, None to leave it to the server.

    The longest run of keys that the search fixes wins, if the sort key follows it; else the longest run alone.
    """
    fixed = set(_fixed(clause))
    if "_id" in fixed:
        return None
    best: tuple[int, int] = (0, 0)
    chosen: str | None = None
    for index in kind.indexes:
        run = next((n for n, key in enumerate(index) if key not in fixed), len(index))
        sorts = run < len(index) and index[run].lstrip("-") == order.parameter
        score = (int(run > 0 and sorts), run)
        if run > 0 and score > best:
            best, chosen = score, index_name(index)
    return chosen


def _parts(clause: Clause) -> Sequence[Clause]:
    return clause.of if isinstance(clause, All) else (clause,)


def _fixed(clause: Clause) -> list[str]:
    """The parameters that a clause fixes to one value or a few."""
    found: list[str] = []
    for part in _parts(clause):
        if isinstance(part, Test) and part.op == "is":
            found.append(part.parameter)
        elif isinstance(part, AnyOf) and part.of:
            names = {t.parameter if isinstance(t, Test) and t.op == "is" else "" for t in part.of}
            if len(names) == 1:
                found.append(names.pop())
    return found


async def _current(
    access: Access, mongo: Mongo, kind: ResourceType, identifier: str, clause: Clause, session: Session
) -> Document | None:
    if bucket_of(identifier) is None:
        return None
    reference = f"{kind.name}/{identifier}"
    if session is None and reference in access.prefetched.resources:
        found = access.prefetched.resources[reference]
        return dict(found) if found is not None and matches(clause, found) else None
    where = to_filter(every(Test("_id", "is", identifier), clause))
    return await mongo.find_one(kind.name, where, _BODY, session)


def _versions_of(identifier: str) -> Document:
    return {"bucket": identifier[:3], "id": identifier}


def _behind(field: str, order: Order, place: Place) -> Document:
    """What comes after a place in this order. MongoDB sorts what has no key before everything else."""
    if field == "_id":
        return {"_id": {"$lt" if order.descending else "$gt": place.id}}
    # The index is walked one way for the key and the other way for the id.
    passed = {field: place.key, "_id": {"$lte" if order.descending else "$gte": place.id}}
    if place.key is None:
        return {field: None, "_id": {"$gt": place.id}} if order.descending else {"$nor": [passed]}
    reached = {"$not": {"$gt": place.key}} if order.descending else {"$gte": place.key}
    return {field: reached, "$nor": [passed]}
