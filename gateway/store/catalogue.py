"""The service catalogue as it is stored: every client that may ask for tokens, with its state.

Knows: how entries and their states are kept, and in which order what a client holds is taken away. Several requests that wait
at the same moment share one look-up. Must not know: what an entry must say, what a client may do.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from gateway.fhir.balp import Event
from gateway.store.audit import AuditWriter
from gateway.store.gather import Gather
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Mongo, Part, Stale, Step
from gateway.store.schema import CATALOGUE, TOKENS

_SECONDS = 5.0


class Clients:
    """Looks up entries by client id."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._gather: Gather[str, Document | None] = Gather(self._find)

    async def find(self, client: str) -> Document | None:
        """The entry of this client, as it is at this moment; None where there is none."""
        return await self._gather.ask(client)

    async def _find(self, clients: list[str]) -> list[Document | None]:
        found = await self._mongo.find(CATALOGUE, {"_id": {"$in": sorted(set(clients))}})
        by_id = {document["_id"]: document for document in found}
        return [by_id.get(client) for client in clients]


async def find_entries(mongo: Mongo, states: Iterable[str] = ()) -> list[Document]:
    """All entries, or those in these states, by client id."""
    wanted = list(states)
    return await mongo.find(CATALOGUE, {"state": {"$in": wanted}} if wanted else {}, sort=[("_id", 1)])


@dataclass(frozen=True, slots=True)
class Audited:
    """What the audit says of a change, and by what: both are durable, or neither."""

    audit: AuditWriter
    event: Event
    now: datetime


async def add_entry(entry: Document, audited: Audited) -> bool:
    """Store a new entry. Returns whether there was none of that client id."""
    return await _write(Step(CATALOGUE, [entry]), audited)


async def change_entry(client: str, known: int, fields: Document, audited: Audited) -> bool:
    """Set these fields of an entry. Returns whether it was still as `known` (its `revision`), which is counted on."""
    update = {"$set": fields, "$inc": {"revision": 1}}
    return await _write(Step(CATALOGUE, updates=[({"_id": client, "revision": known}, update)]), audited)


async def _write(step: Step, audited: Audited) -> bool:
    await audited.audit.open(audited.now, by_operator=True)
    try:
        await audited.audit.write_all([step], [audited.event], audited.now, seconds=_SECONDS)
    except Stale:
        return False
    return True


async def take_tokens(mongo: Mongo, client: str) -> int:
    """Take away every token of a client: its next request is refused. Returns how many that were.

    Called when the entry already says that the client gets none. Who issues one at this moment looks at the entry once more
    after that, so none is left over.
    """
    return await mongo.delete(TOKENS, {"client": client})


async def find_origins(mongo: Mongo, state: str) -> frozenset[str]:
    """The origins from which pages of clients in this state may call."""
    found = await mongo.find(CATALOGUE, {"state": state, "origins": {"$ne": []}}, {"origins": 1})
    return frozenset(origin for document in found for origin in document["origins"])


async def find_closed(mongo: Mongo, references: Iterable[str], types: Iterable[str], categories: Iterable[str]) -> set[str]:
    """Those of these Organizations (references) that are of such a type, or stand in the catalogue in such a category."""
    ids = sorted(reference.partition("/")[2] for reference in references)
    typed: Document = {
        "_id": {"$in": ids},
        "bucket": {"$in": sorted({one[:3] for one in ids})},
        "search.type": {"$in": [*types]},
    }
    known: Document = {"file.actor": {"$in": sorted(references)}, "file.category": {"$in": [*categories]}}
    parts = [Part("Organization", typed, "organization", {"_id": 1}), Part(CATALOGUE, known, "client", {"file.actor": 1})]
    found = await mongo.find_all(parts)
    return {f"Organization/{one['_id']}" if one["of"] == "organization" else one["file"]["actor"] for one in found}


async def is_in_directory(mongo: Mongo, reference: str) -> bool:
    """Whether there is such a resource that belongs to no patient."""
    type_name, _, identifier = reference.partition("/")
    if bucket_of(identifier) is None:
        return False
    where: Document = {"_id": identifier, "bucket": identifier[:3], "patient": None, "deleted": {"$ne": True}}
    return await mongo.find_one(type_name, where, {"_id": 1}) is not None
