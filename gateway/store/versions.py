"""The versions of all resources of a type, newest first, through the caller's door.

Knows: where present and former versions lie, and that one may become the other while they are looked for.
Must not know: how limits came about, HTTP.
"""

from datetime import datetime
from typing import NamedTuple

from gateway.access.access import Access
from gateway.fhir.clause import EVERYTHING, Clause, Test, every, matches, parameters_of
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.registry import ResourceType
from gateway.store.filter import stored_field, to_filter
from gateway.store.mongo import Document, Mongo, Session
from gateway.store.resources import BODY, as_values
from gateway.store.schema import NEWEST, history_of


class Mark(NamedTuple):
    """Where a version stands: when it was made, and the id of its resource, of which there is one at any time."""

    updated: datetime
    id: str


class Version(NamedTuple):
    """A version that was looked at; `document` None where the caller may not see it."""

    mark: Mark
    document: Document | None


async def find_versions(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    *,
    since: datetime | None,
    after: Mark | None,
    limit: int,
    seconds: float,
    session: Session = None,
) -> list[Version]:
    """The versions made since an instant and behind a mark, newest first, tombstones too: `limit` of them at most.

    One is visible only if the present version of its resource is as well.
    """
    clause = access.clause(kind, "history-type")
    fields = {**BODY, "id": 1, **{stored_field(name): 1 for name in parameters_of(clause)}}
    found: dict[Mark, Document] = {}
    # Present versions first: what is replaced in between is then found twice, and never not at all.
    for collection, behind in ((kind.name, ""), (history_of(kind.name), "/~")):
        where: Document = {"$and": [to_filter(clause), *_bounds(since, after, behind)]}
        sort = [("updated", -1), ("_id", 1)]
        documents = await mongo.find(
            collection, where, fields, sort=sort, limit=limit, hint=NEWEST, seconds=seconds, session=session
        )
        for document in documents:
            found.setdefault(Mark(document["updated"], document.get("id") or document["_id"]), document)
    marks = sorted(found, key=lambda mark: mark.id)
    marks.sort(key=lambda mark: mark.updated, reverse=True)
    former = {mark.id for mark in marks[:limit] if "id" in found[mark]}
    hidden = await _hidden(mongo, kind, clause, former, session)
    visible = (mark.id not in hidden and matches(clause, as_values(found[mark])) for mark in marks[:limit])
    return [Version(mark, found[mark] if seen else None) for mark, seen in zip(marks[:limit], visible, strict=True)]


def _bounds(since: datetime | None, after: Mark | None, behind: str) -> list[Document]:
    """What lies between an instant and a mark. `behind`: what no former version's own id has after its resource's."""
    bounds: list[Document] = [] if since is None else [{"updated": {"$gte": since}}]
    if after is not None:
        passed = {"updated": after.updated, "_id": {"$lte": after.id + behind}}
        bounds += [{"updated": {"$lte": after.updated}}, {"$nor": [passed]}]
    return bounds


async def _hidden(mongo: Mongo, kind: ResourceType, clause: Clause, ids: set[str], session: Session) -> set[str]:
    """Those of these resources whose present version the caller may not see."""
    if clause == EVERYTHING or not ids:
        return set()
    named = AnyOf(tuple(Test("_id", "is", identifier) for identifier in sorted(ids)))
    seen = await mongo.find(kind.name, to_filter(every(named, clause)), {"_id": 1}, session=session)
    return ids - {document["_id"] for document in seen}
