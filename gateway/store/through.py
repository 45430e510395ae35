"""What is seen only through something else: the device of a measure, through a measure that may be seen; events that name
something else than what is hidden.

Knows: how one call finds which resources are pointed at by any that the caller may see. Both readers of a clause then have
their ids to look at (`Access.see`), so that what is in no visible measure is in no filter and satisfies no clause. Another
finds what labels hide (`Access.hide`): before, no event that names anything satisfies a clause.
Must not know: which types that are, and for whom (`[[through]]` of policy.toml).
"""

from collections.abc import Mapping, Sequence

from gateway.access.access import Access
from gateway.fhir.clause import NOTHING, Clause, Test, every, some
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem
from gateway.store.filter import LIVE, stored_field, to_filter
from gateway.store.mongo import Document, Mongo, Part, Session

SECONDS = 5.0  # for one such call
MOST_HIDDEN = 1_000  # resources whose names are looked for in every event
_NAMES = {"_id": 1, "attached": 1}


async def look_through(
    access: Access, mongo: Mongo, kind: ResourceType, ids: Sequence[str] | None = None, session: Session = None
) -> bool:
    """Find out which of these resources (None: of all) the caller sees; returns whether that is more than was known.

    One call at most, the same whether any of them is there, and none for types and callers whom it does not concern.
    """
    hiding = access.hiding(kind)
    if hiding:
        return await _look_behind_labels(access, mongo, kind, hiding)
    through = access.through(kind)
    if through is None:
        return False
    unseen = access.unseen(kind)
    visible = some(access.clause(through.by, "read"), access.clause(through.by, "search-type"))
    if NOTHING in (unseen, visible):
        return False
    asked = unseen if ids is None else every(AnyOf(tuple(Test("_id", "is", one) for one in ids)), unseen)
    pointing: Document = {
        "from": through.by.name,
        "localField": "reference",
        "foreignField": stored_field(through.parameter),
        "pipeline": [{"$match": to_filter(visible) | LIVE}, {"$limit": 1}, {"$project": {"_id": 1}}],
        "as": "pointing",
    }
    found = await mongo.aggregate(
        kind.name,
        [
            {"$match": to_filter(asked)},
            {"$project": {"reference": {"$concat": [f"{kind.name}/", "$_id"]}}},
            {"$lookup": pointing},
            {"$match": {"pointing": {"$ne": []}}},
            {"$project": {"_id": 1}},
        ],
        seconds=SECONDS,
        session=session,
    )
    return access.see(kind, [document["_id"] for document in found], are_all=ids is None)


async def _look_behind_labels(access: Access, mongo: Mongo, kind: ResourceType, hiding: Mapping[str, Clause]) -> bool:
    """Find out which resources this log does not name to the caller: what was deleted is hidden as it was."""
    parts = [Part(name, to_filter(clause), name, _NAMES) for name, clause in hiding.items()]
    found = await mongo.find_all(parts, seconds=SECONDS, limit=MOST_HIDDEN + 1)
    if len(found) > MOST_HIDDEN:
        raise Problem("too-costly", "this log is too much to be read on the patient's behalf", kind.name)
    access.hide(kind, ({**one, "type": one["of"]} for one in found))
    return True
