"""Conditions of creates (`If-None-Exist`): what there is already, asked in one call for all entries of a Bundle.

Knows: how several searches of one type become one filter, and which document then answers which of them.
Must not know: where a condition came from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.access.access import Access
from gateway.fhir.clause import FIELDS, Clause, Test, Values, every, matches, parameters_of, parts_of, some
from gateway.fhir.identity import IDENTIFIER_BYTES, of_any_sender
from gateway.fhir.registry import ResourceType
from gateway.store.cost import is_bounded, require_bounded
from gateway.store.filter import LIVE, stored_field, to_filter
from gateway.store.mongo import Document, Mongo, Session
from gateway.store.order import BY_ID, choose_index
from gateway.store.through import look_through

_FACTS: Mapping[str, Any] = {"version": 1, "patient": 1, "updated": 1, "source": 1}
_MANY = 1_000  # documents; where more meet several conditions, each is asked for itself


@dataclass(frozen=True, slots=True)
class Condition:
    """A search that found nothing when the plan was made and must still find nothing.

    `head`: the type whose head guards it, where it looks beyond the record that is written to.
    """

    kind: ResourceType
    clause: Clause
    head: str | None = None


@dataclass(frozen=True, slots=True)
class Sole:
    """A document whose name (`key`) nobody else had deposited in this record when it was planned, as far as its writer may see.

    `planned`: the number of the last commit of the record as it was known then.
    """

    kind: ResourceType
    head: str
    key: bytes
    planned: int

    def is_named_by(self, other: "Sole") -> bool:
        """Whether another one has the same name, whoever deposits it."""
        return self.kind is other.kind and self.key[:IDENTIFIER_BYTES] == other.key[:IDENTIFIER_BYTES]


def require_findable(access: Access, kind: ResourceType, clause: Clause) -> None:
    """Refuse a condition that no index leads to."""
    if not is_bounded(kind, clause):  # mostly it says itself in whose record it is
        require_bounded(kind, clause, every(clause, access.matchable(kind)))


async def find_matches(
    access: Access, mongo: Mongo, kind: ResourceType, clauses: Sequence[Clause], *, seconds: float
) -> list[list[Document]]:
    """For each condition at most two resources that meet it, among those the caller's conditions may find.

    What the caller deposited itself answers before what it sees through something else.
    """
    found = await _find_matches(access, mongo, kind, clauses, seconds=seconds)
    if all(found) or not await look_through(access, mongo, kind):
        return found
    seen = await _find_matches(access, mongo, kind, clauses, seconds=seconds)
    return [mine or others for mine, others in zip(found, seen, strict=True)]


async def _find_matches(
    access: Access, mongo: Mongo, kind: ResourceType, clauses: Sequence[Clause], *, seconds: float
) -> list[list[Document]]:
    allowed = access.matchable(kind)
    # Whether what is found may answer a create can depend on what it says.
    facts = {**_FACTS, **{stored_field(name): 1 for name in access.parameters_weighed(kind, "create")}}
    if len(clauses) > 1:
        fields = facts | {stored_field(name): 1 for clause in clauses for name in parameters_of(clause)}
        found = await _find(mongo, kind, _either(allowed, clauses), fields, limit=_MANY, seconds=seconds)
        if len(found) < _MANY:
            return _share_out(clauses, found)
    return [await _find(mongo, kind, _either(allowed, [one]), facts, limit=2, seconds=seconds) for one in clauses]


async def is_any_met(mongo: Mongo, asked: Iterable[tuple[Access, Condition]], *, seconds: float, session: Session) -> bool:
    """Whether there is something now that meets one of these, among what its asker's conditions may find."""
    alike: dict[tuple[str, Clause], tuple[ResourceType, list[Clause]]] = {}
    for access, condition in asked:
        kind, allowed = condition.kind, access.matchable(condition.kind)
        alike.setdefault((kind.name, allowed), (kind, []))[1].append(condition.clause)
    for (_, allowed), (kind, clauses) in alike.items():
        if await _find(mongo, kind, _either(allowed, clauses), {"_id": 1}, limit=1, seconds=seconds, session=session):
            return True
    return False


async def is_any_taken(mongo: Mongo, access: Access, asked: Sequence[Sole], *, session: Session) -> bool:
    """Whether somebody else's document has one of these names now, among those that their writer may read."""
    for kind in {one.kind.name: one.kind for one in asked}.values():
        readable = access.clause(kind, "read")
        ranges = [{"bucket": one.head[:3], "key": of_any_sender(one.key)} for one in asked if one.kind is kind]
        fields = {"key": 1, "deleted": 1, **{stored_field(name): 1 for name in parameters_of(readable)}}
        found = await mongo.find(kind.name, {"$or": ranges}, fields, hint="key", session=session)
        if any(not document.get("deleted") and matches(readable, document) for document in found):
            return True
    return False


async def _find(
    mongo: Mongo,
    kind: ResourceType,
    clause: Clause,
    fields: Document,
    *,
    limit: int,
    seconds: float,
    session: Session = None,
) -> list[Document]:
    where, hint = to_filter(clause) | LIVE, choose_index(kind, clause, BY_ID)
    return await mongo.find(kind.name, where, fields, limit=limit, hint=hint, seconds=seconds, session=session)


def _either(allowed: Clause, clauses: Sequence[Clause]) -> Clause:
    """What meets one of these clauses; what they have in common stands in it once, to bound the index."""
    first, *others = map(parts_of, clauses)
    common = [part for part in first if all(part in other for other in others)]
    rests = (every(*(part for part in parts if part not in common)) for parts in (first, *others))
    return every(*common, some(*rests), allowed)


def _share_out(clauses: Sequence[Clause], found: Sequence[Document]) -> list[list[Document]]:
    """Which of the documents meet each clause."""
    by_value: dict[str, Mapping[str, list[Values]]] = {}
    shared = []
    for clause in clauses:
        named = next((p for p in parts_of(clause) if isinstance(p, Test) and p.op == "is" and p.parameter not in FIELDS), None)
        candidates: Sequence[Any] = found
        if named is not None:
            if named.parameter not in by_value:
                by_value[named.parameter] = _by_value(named.parameter, found)
            candidates = by_value[named.parameter].get(named.value, ())
        shared.append([document for document in candidates if matches(clause, document)][:2])
    return shared


def _by_value(parameter: str, found: Sequence[Document]) -> Mapping[str, list[Values]]:
    documents: dict[str, list[Values]] = {}
    for document in found:
        for value in document.get("search", {}).get(parameter, ()):
            documents.setdefault(value, []).append(document)
    return documents
