"""What has changed in a record, in the order in which it was committed, through the caller's door.

Knows: that the commits of one record have an order and their times with them (`store/commit.py`), so that a place in that order
has nothing behind it that will still come. Must not know: how limits came about, HTTP.
"""

from datetime import datetime

from gateway.access.access import Access
from gateway.fhir.clause import Clause, every
from gateway.fhir.registry import ResourceType
from gateway.store.mongo import Document, Mongo, Session
from gateway.store.resources import BODY
from gateway.store.schema import index_name
from gateway.store.search_filter import search_filter
from gateway.store.versions import Mark

_INDEX = index_name(("patient", "-_lastUpdated"))


async def find_changes(
    access: Access,
    mongo: Mongo,
    kind: ResourceType,
    clause: Clause,
    patient: str,
    *,
    after: Mark | None,
    until: datetime,
    limit: int,
    seconds: float,
    session: Session = None,
) -> list[Document]:
    """The present versions and tombstones of one record behind a mark, oldest change first, `limit` of them at most.

    `until`: the time of a commit of this record that is known to be done. What is read meanwhile may show a later one and
    not yet the one before it; up to there everything is there.
    """
    asked = every(access.meant(kind, clause), access.clause(kind, "search-type"))
    bounds: list[Document] = [{"bucket": patient[:3], "patient": patient, "updated": {"$lte": until}}]
    if after is not None:
        passed = {"updated": after.updated, "_id": {"$gte": after.id}}
        bounds += [{"updated": {"$gte": after.updated}}, {"$nor": [passed]}]
    where = {"$and": [*bounds, search_filter(access, kind, asked)]}
    sort = [("updated", 1), ("_id", -1)]  # the index, backwards
    return await mongo.find(kind.name, where, BODY, sort=sort, limit=limit, hint=_INDEX, seconds=seconds, session=session)
