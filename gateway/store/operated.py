"""What operators did at the machine, as it stands in the audit.

Knows: that the processes of their commands are told apart from those that serve. Must not know: what an event means.
"""

from datetime import datetime

from gateway.store.mongo import Document, Mongo
from gateway.store.schema import WRITERS


async def find_operated(mongo: Mongo, since: datetime) -> list[Document]:
    """The events that operators' commands left since then, the oldest first."""
    writers = await mongo.find(WRITERS, {"operated": True, "alive": {"$gte": since}}, {"_id": 1})
    where: Document = {"writer": {"$in": [writer["_id"] for writer in writers]}, "event.kind": "operator"}
    found = await mongo.find("AuditEvent", where, hint="writer,n") if writers else []
    return sorted(found, key=lambda document: (document["updated"], document["n"]))
