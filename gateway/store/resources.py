"""Reading resources: every function takes the caller's Access and puts its limits into the filter.

Knows: the shape of a stored document, paging, which index serves a search.
Must not know: how limits came about, HTTP.

One document per resource: `{_id, bucket, version, updated, patient, source, commit, key, digest, touched, labels, search,
body}`, `deleted` in place of `body` where it is a tombstone (and beside it, with `retracted`, where who deposited it took it
back). Former versions lie in `<type>_history` with `id` beside their own `_id`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from gateway.access.access import Access
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.clause import Clause, Test, Values, every, matches, parts_of
from gateway.fhir.registry import ResourceType
from gateway.store.cost import require_bounded
from gateway.store.filter import stored_field, to_filter
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Mongo, Session
from gateway.store.schema import history_of, index_name, sort_field
from gateway.store.search_filter import search_filter

BODY: Mapping[str, Any] = {"body": 1, "event": 1, "version": 1, "updated": 1, "patient": 1, "deleted": 1, "retracted": 1}
LIVE: Document = {"deleted": {"$exists": False}}


class Key(NamedTuple):
    """One parameter that a search is sorted by."""

    parameter: str
    descending: bool

    @property
    def field(self) -> str:
        """Where its values are stored."""
        return sort_field(self.parameter)

    @property
    def direction(self) -> int:
        """The direction as MongoDB writes it."""
        return -1 if self.descending else 1


@dataclass(frozen=True, slots=True)
class Order:
    """How a search is sorted: by the first of these keys, then by the next. Ties are broken by id."""

    keys: tuple[Key, ...]

    @property
    def parameters(self) -> list[str]:
        """What it is sorted by before the id."""
        return [key.parameter for key in self.keys if key.parameter != "_id"]

    def complete(self) -> list[Key]:
        """The keys with the id as the last of them: against the direction of the first, as the indexes have it."""
        if self.keys[-1].parameter == "_id":
            return [*self.keys]
        return [*self.keys, Key("_id", not self.keys[0].descending)]


BY_ID = Order((Key("_id", descending=False),))


@dataclass(frozen=True, slots=True)
class Place:
    """The last resource of a page: its sort keys (None where it has none) and id. The next page begins behind it."""

    keys: tuple[Any, ...]
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
    clause = access.clause(kind, "history-instance")
    current = await _current(access, mongo, kind, identifier, clause, session)
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
    asked = _within_limits(access, kind, clause, order)
    sort = [(key.field, key.direction) for key in order.complete()]
    behind = [] if after is None else [_behind(order, after)]
    fields: Document = {"event": 1, "updated": 1, "patient": 1} if kind.name == "AuditEvent" else {"body": 1}
    if kind.in_compartment and "patient" not in _fixed(asked):
        fields["patient"] = 1
    fields |= {stored_field(name): 1 for name in values}
    if with_updated:
        fields["updated"] = 1
    if with_keys:
        fields |= {key.field: 1 for key in order.keys}
    where = search_filter(access, kind, asked) | LIVE
    return await mongo.find(
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


async def count(
    access: Access, mongo: Mongo, kind: ResourceType, clause: Clause, *, seconds: float, session: Session = None
) -> int:
    """How many resources satisfy the search among those the caller may see."""
    asked = _within_limits(access, kind, clause)
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
    asked = _within_limits(access, kind, clause)
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
    named = AnyOf(tuple(Test("_id", "is", identifier) for identifier in ids))
    where = to_filter(every(named, access.clause(kind, "read"))) | LIVE
    return await mongo.find(kind.name, where, _shown(values), session=session)


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
    asked = _within_limits(access, kind, clause, also="read")
    hint = choose_index(kind, asked, BY_ID)
    where = to_filter(asked) | LIVE
    return await mongo.find(kind.name, where, _shown(values), limit=limit, hint=hint, seconds=seconds, session=session)


def _within_limits(
    access: Access, kind: ResourceType, clause: Clause, order: Order = BY_ID, also: str = "search-type"
) -> Clause:
    """A search within what the caller may find, and do `also`. Raises Problem where no index bounds it."""
    limits = (access.clause(kind, interaction) for interaction in dict.fromkeys(("search-type", also)))
    asked = every(access.meant(kind, clause), *limits)
    require_bounded(kind, clause, asked, tuple(key.parameter for key in order.keys))
    return asked


def _shown(values: Iterable[str]) -> Document:
    return {**BODY, **{stored_field(name): 1 for name in values}}


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


async def find_holders(mongo: Mongo, type_name: str, tokens: Sequence[str], *, limit: int) -> set[str]:
    """In whose records there is a resource with one of these identifiers. Never told to a caller."""
    where: Document = {"search.identifier": {"$in": list(tokens)}, **LIVE}
    found = await mongo.find(type_name, where, {"patient": 1}, limit=limit, hint=index_name(("identifier",)))
    return {document["patient"] for document in found if document.get("patient") is not None}


async def find_patient(mongo: Mongo, token: str) -> str | None:
    """The id of the one patient with this identifier (`system|value`), None for none or several.

    This addresses a record; it gives no right to it, and its result is never told as such.
    """
    found = await find_identified(mongo, "Patient", token, with_body=False)
    return found["_id"] if found is not None else None


async def find_identified(mongo: Mongo, type_name: str, token: str, *, with_body: bool) -> Document | None:
    """The id of the one resource with this identifier (`system|value`), and its body; None for none or several.

    Never told to a caller.
    """
    fields = {"body": 1} if with_body else {"_id": 1}
    found = await mongo.find(type_name, {"search.identifier": token, **LIVE}, fields, limit=2)
    return found[0] if len(found) == 1 else None


def merge_pages(pages: list[list[Document]], order: Order) -> list[Document]:
    """Pages sorted alike as one. What has no key sorts before everything, as in MongoDB."""

    def value(document: Document, field: str) -> tuple[bool, Any]:
        found = value_at(document, field)
        return (found is not None, found or 0)

    found = [document for page in pages for document in page]
    for key in reversed(order.complete()):
        found.sort(key=partial(value, field=key.field), reverse=key.descending)
    return found


def value_at(document: Document, field: str) -> Any:
    """What stands in a stored document at `a.b.c`, None where nothing does."""
    found: Any = document
    for name in field.split("."):
        found = found.get(name) if found else None
    return found


def as_values(document: Document) -> Values:
    """A stored document as the index values of its resource, also when it is a former version."""
    return {**document, "_id": document["id"]} if "id" in document else document


def choose_index(kind: ResourceType, clause: Clause, order: Order) -> str | None:
    """The declared index that serves a search, None to leave it to the server.

    What hardly two resources (of a record, where it says whose) share wins; then the longest run of keys that the search
    fixes, if the sort key follows it; else the longest run alone.
    """
    fixed = set(_fixed(clause))
    if "_id" in fixed:
        return None
    best: tuple[int, int, int] = (0, 0, 0)
    chosen: str | None = None
    for index in kind.indexes:
        run = next((n for n, key in enumerate(index) if key not in fixed), len(index))
        sorts = run < len(index) and index[run].lstrip("-") == order.keys[0].parameter
        is_own = index[0] == "patient" or "patient" not in fixed
        alone = is_own and any(key in kind.unique for key in index[:run])
        score = (int(alone), int(run > 0 and sorts), run)
        if run > 0 and score > best:
            best, chosen = score, index_name(index)
    return chosen


def _fixed(clause: Clause) -> list[str]:
    """The parameters that a clause fixes to one value or a few."""
    found: list[str] = []
    for part in parts_of(clause):
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
    return await mongo.find_one(kind.name, where, BODY, session)


def _versions_of(identifier: str) -> Document:
    return {"bucket": identifier[:3], "id": identifier}


def _behind(order: Order, place: Place) -> Document:
    """What comes after a place in this order: reached by the first key, and not passed already.

    MongoDB sorts what has no key before everything else.
    """
    keys = order.complete()
    at = (*place.keys, place.id)
    if len(keys) == 1:
        return {"_id": {"$lt" if keys[0].descending else "$gt": place.id}}
    passed: list[Document] = []
    for n, key in enumerate(keys[1:], start=1):
        same = {before.field: value for before, value in zip(keys[:n], at, strict=False)}
        if key.parameter == "_id":
            passed.append(same | {"_id": {"$gte" if key.descending else "$lte": place.id}})
        elif key.descending:
            passed.append(same | {key.field: {"$ne": None} if at[n] is None else {"$gt": at[n]}})
        elif at[n] is not None:
            passed.append(same | {key.field: {"$not": {"$gte": at[n]}}})
    first, value = keys[0], at[0]
    if value is None:
        return {"$nor": passed} | ({first.field: None} if first.descending else {})
    return {first.field: {"$not": {"$gt": value}} if first.descending else {"$gte": value}, "$nor": passed}
