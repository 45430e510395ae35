"""What somebody brought last into a record, as its commits tell.

Knows: that the commits of a record have an order, and an index; that what is looked at passes the door of writing, for its
asker may have no right to read. Must not know: HTTP, what the answer is for.
"""

from datetime import datetime

from gateway.access.access import Access
from gateway.fhir.clause import Clause, Test, every, matches, parameters_of
from gateway.fhir.registry import ResourceType
from gateway.store.filter import LIVE, stored_field
from gateway.store.mongo import Document, Mongo, Session
from gateway.store.schema import index_name

_INDEX = index_name(("patient", "-_lastUpdated"))
_LOOKED_AT = (1_000, 5_000)  # of what the record took last: a Bundle; and more where others brought much meanwhile


async def find_last_deposited(
    access: Access, mongo: Mongo, kind: ResourceType, clause: Clause, patient: str, *, seconds: float, session: Session = None
) -> datetime | None:
    """The latest `date` in the last commit of this record by which the caller brought something that satisfies the clause.

    Only what the caller could bring now counts. None where there is nothing of theirs among what came last.
    """
    asked = every(clause, access.clause(kind, "create"), Test("_source", "is", access.caller.source))
    where: Document = {"bucket": patient[:3], "patient": patient, **LIVE}
    fields = {"updated": 1, "search.date": 1, **{stored_field(name): 1 for name in parameters_of(asked)}}
    sort = [("updated", -1), ("_id", 1)]
    for most in _LOOKED_AT:
        found = await mongo.find(kind.name, where, fields, sort=sort, limit=most, hint=_INDEX, seconds=seconds, session=session)
        mine = [document for document in found if matches(asked, document)]
        last = max((document["updated"] for document in mine), default=None)
        if len(found) < most or (last is not None and found[-1]["updated"] < last):
            break
    dates: list[datetime] = [document["search"]["date"]["low"] for document in mine if document["updated"] == last]
    return max(dates, default=None)
