"""Collections and indexes: what the registry asks for, and whether the database has it.

Knows: which collections and indexes there must be. Must not know: resources' content, who is asking.
"""

import asyncio
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from gateway.fhir.clause import FIELDS
from gateway.fhir.registry import COMMON_PARAMETERS, Registry, ResourceType
from gateway.store.mongo import Document, Mongo, Stale

HEADS = "heads"  # one document per patient, and one per type that belongs to nobody: orders the commits
TOKENS = "tokens"
ACCOUNTS = "accounts"  # of people who log in here
SESSIONS = "sessions"  # of people in their browsers
LOGINS = "logins"  # of people who are away at another provider to log in
SIGNING_KEYS = "signing_keys"  # of the authorization server
ASSERTIONS = "assertions"  # of clients, that were used; kept as long as they could be used again
CATALOGUE = "catalogue"  # the clients that may ask for tokens
AUTHORIZATIONS = "authorizations"  # requests that somebody is about to decide on
LAUNCHES = "launches"  # contexts in which professionals' software starts an app
CODES = "codes"  # that stand for an approval for a minute
APPROVALS = "approvals"  # what people approved for clients: tokens come from them
CONTENTS = "contents"  # of documents, sealed; short ones lie in them
CHUNKS = "content_chunks"  # of longer ones
WITHDRAWN = "withdrawn"  # what was deposited for the wrong patient: sealed, and read by nobody who asks over HTTP
PATIENT_KEYS = "patient_keys"  # wrapped: what the contents of a record are sealed with
RECEIPTS = "receipts"  # of what came with an Idempotency-Key
SEALS = "seals"
WRITERS = "writers"
META = "meta"
_AT_ONCE = 8  # collections of a new database that are made: each waits for the disk more than once
NEWEST = "-_lastUpdated"  # the index of a history over a whole type


def history_of(type_name: str) -> str:
    """The collection of a type's former versions."""
    return f"{type_name}_history"


# Seconds beyond their end: a code that comes again is to be known as one that was used.
_SHORT_LIVED = {AUTHORIZATIONS: 0, LAUNCHES: 0, CODES: 86_400}
_OF_PEOPLE = (ACCOUNTS, SESSIONS, LOGINS, *_SHORT_LIVED, APPROVALS)
_OTHERS = (
    HEADS,
    TOKENS,
    ASSERTIONS,
    SIGNING_KEYS,
    CATALOGUE,
    *_OF_PEOPLE,
    CONTENTS,
    CHUNKS,
    WITHDRAWN,
    PATIENT_KEYS,
    RECEIPTS,
    SEALS,
    WRITERS,
    META,
)
_RECEIPT_SECONDS = 48 * 3_600  # a client that was cut off on a Friday evening has sent everything again by then

# Options that change what an index holds or whether it is used.
_TELLING = ("partialFilterExpression", "expireAfterSeconds", "sparse", "hidden", "collation")


_DIFFERS = "is not the one required"
_BUILD = "gateway check --create-indexes"


class StoreError(Exception):
    """The database is not as it must be: the message names collection and index, and what puts it right."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index that must be there."""

    collection: str
    name: str
    keys: tuple[tuple[str, int], ...]
    options: Document = field(default_factory=dict)

    def differs_from(self, found: Document) -> bool:
        """Whether the index of this name that the server has is another one."""
        return (
            tuple(tuple(part) for part in found["key"]) != self.keys
            or bool(found.get("unique")) != bool(self.options.get("unique"))
            or any(found.get(option) != self.options.get(option) for option in _TELLING)
        )


def required_indexes(registry: Registry) -> list[Index]:
    """Every index the gateway relies on, besides `_id`."""
    found = [index for kind in registry.resource_types.values() for index in _type_indexes(kind)]
    found.append(Index(TOKENS, "expires", (("expires", 1),), {"expireAfterSeconds": 86_400}))
    found.append(Index(SESSIONS, "expires", (("expires", 1),), {"expireAfterSeconds": 0}))
    found += [Index(name, "expires", (("expires", 1),), {"expireAfterSeconds": kept}) for name, kept in _SHORT_LIVED.items()]
    found.append(Index(APPROVALS, "patient,-began", (("bucket", 1), ("patient", 1), ("began", -1))))
    found.append(Index(APPROVALS, "user,-began", (("user", 1), ("began", -1))))
    found.append(Index(SESSIONS, "account", (("account", 1),)))
    found.append(Index(SESSIONS, "sid", (("sid", 1),), {"partialFilterExpression": {"sid": {"$exists": True}}}))
    found.append(Index(LOGINS, "expires", (("expires", 1),), {"expireAfterSeconds": 0}))
    found.append(Index(TOKENS, "client", (("client", 1),)))
    found.append(Index(TOKENS, "grant", (("grant", 1),), {"partialFilterExpression": {"grant": {"$exists": True}}}))
    found.append(Index(ASSERTIONS, "ends", (("ends", 1),), {"expireAfterSeconds": 0}))
    found.append(Index(RECEIPTS, "at", (("at", 1),), {"expireAfterSeconds": _RECEIPT_SECONDS}))
    is_addressed = {"partialFilterExpression": {"address": {"$exists": True}}}
    found.append(Index(CONTENTS, "address", (("bucket", 1), ("address", 1)), {"unique": True, **is_addressed}))
    found.append(Index(CONTENTS, "pending", (("pending", 1),), {"partialFilterExpression": {"pending": {"$exists": True}}}))
    found.append(Index(WITHDRAWN, "entities", (("bucket", 1), ("entities", 1))))
    found.append(Index("AuditEvent", "writer,n", (("writer", 1), ("n", 1)), {"unique": True}))
    found.append(Index(SEALS, "writer,number", (("writer", 1), ("number", 1)), {"unique": True}))
    return found


def index_name(keys: tuple[str, ...]) -> str:
    """The name of a declared index: its keys as they are written in the type's file."""
    return ",".join(keys)


def sort_field(parameter: str) -> str:
    """The stored field by which a parameter sorts."""
    if parameter in FIELDS:
        return FIELDS[parameter]
    return f"search.{parameter}.low"


def required_collections(registry: Registry) -> list[str]:
    """Every collection the gateway writes to."""
    types = list(registry.resource_types)
    return [*types, *map(history_of, types), *_OTHERS]


def _type_indexes(kind: ResourceType) -> Iterator[Index]:
    for declared in kind.indexes:
        # The patient decides the bucket; an index that does not begin with the patient serves searches that know neither.
        prefix: tuple[tuple[str, int], ...] = (("bucket", 1),) if declared[0] == "patient" else ()
        keys = tuple(_key(kind, part) for part in declared)
        # Ties are broken by id, so that a page ends at one exact place. (In a record an identifier has none: the id would be
        # more than half of such an index.)
        no_ties = declared[-1].lstrip("-") == "_id" or (bool(prefix) and declared[-1] in kind.unique)
        ending = () if no_ties else (("_id", 1),)
        yield Index(kind.name, index_name(declared), (*prefix, *keys, *ending))
    if kind.patient and not kind.patient_required:
        # What belongs to nobody is in many buckets: a search for it, beside a patient's own, is served by these.
        for name in kind.sort:
            keys = (("patient", 1), (sort_field(name), -1), ("_id", 1))
            yield Index(kind.name, f"unowned,-{name}", keys)
    if kind.attachments:
        has_some = {"partialFilterExpression": {"attached": {"$exists": True}}}
        yield Index(kind.name, "attached", (("bucket", 1), ("attached", 1)), has_some)
    if kind.bears_labels:
        # What a label hides is looked up before a log is told. (What bears none is not in it, which is nearly all.)
        keys = (("bucket", 1), ("patient", 1), ("labels", 1))
        yield Index(kind.name, "labels", keys, {"partialFilterExpression": {"labels": {"$exists": True}}})
    if kind.unique or kind.is_raw:
        keys = (("bucket", 1), ("key", 1))
        yield Index(kind.name, "key", keys, {"unique": True, "partialFilterExpression": {"key": {"$exists": True}}})
    if "history-type" in kind.interactions:
        yield Index(history_of(kind.name), NEWEST, (("updated", -1), ("_id", 1)))
    yield Index(history_of(kind.name), "id,version", (("bucket", 1), ("id", 1), ("version", -1)), {"unique": True})


def _key(kind: ResourceType, part: str) -> tuple[str, int]:
    name = part.lstrip("-")
    is_date = name in kind.search and kind.search[name].type == "date"
    plain = name in COMMON_PARAMETERS or name == "patient"
    return (FIELDS[name] if plain else f"search.{name}.low" if is_date else f"search.{name}"), -1 if part[0] == "-" else 1


async def prepare(mongo: Mongo, registry: Registry, secret: str) -> None:
    """Create what a new database lacks, then check everything. Raises StoreError naming what is missing or different.

    A collection is created once, with its indexes; that it was is written down when it is complete, so that several
    processes may do it at the same time. What is missing later is never built in passing: on a large collection that is the
    operator's decision (`gateway check --create-indexes`).
    """
    await mongo.create_collection(META)
    made = await mongo.find_one(META, {"_id": "collections"}) or {"made": []}
    new = [name for name in required_collections(registry) if name not in made["made"]]
    wanted, turns = required_indexes(registry), asyncio.Semaphore(_AT_ONCE)

    async def make(name: str) -> None:
        async with turns:
            await mongo.create_collection(name)
            indexes = [(list(index.keys), index.name, index.options) for index in wanted if index.collection == name]
            if indexes:
                await mongo.create_indexes(name, indexes)

    await asyncio.gather(*map(make, new))
    await _check_secret(mongo, secret)
    problems = await find_problems(mongo, registry)
    if problems:
        raise StoreError("; ".join([*problems, *what_to_do(problems)]))
    if new:
        await mongo.change(META, {"_id": "collections"}, {"$addToSet": {"made": {"$each": new}}}, upsert=True)


async def find_problems(mongo: Mongo, registry: Registry) -> list[str]:
    """What is missing or different, a line each, named by collection and index."""
    problems: list[str] = []
    there = await mongo.collections()
    for name in required_collections(registry):
        if name not in there:
            problems.append(f"collection '{name}' is missing")
    wanted = [index for index in required_indexes(registry) if index.collection in there]
    names = sorted({index.collection for index in wanted})
    built = dict(zip(names, await asyncio.gather(*map(mongo.indexes, names)), strict=True))
    for index in wanted:
        found = built[index.collection].get(index.name)
        if found is None:
            problems.append(f"index '{index.name}' of collection '{index.collection}' is missing")
        elif index.differs_from(found):
            problems.append(f"index '{index.name}' of collection '{index.collection}' {_DIFFERS}")
    return problems


def what_to_do(problems: Sequence[str]) -> list[str]:
    """What an operator does about these, a line or none: a collection that is gone comes back with a backup alone."""
    if not all(problem.startswith("index ") for problem in problems):
        return []
    if any(problem.endswith(_DIFFERS) for problem in problems):
        return [f"drop what {_DIFFERS}, then build what is missing: {_BUILD}"]
    return [f"build what is missing: {_BUILD}"] if problems else []


async def create_missing_indexes(mongo: Mongo, registry: Registry) -> list[str]:
    """Build the indexes that are missing; returns their names. Never drops or changes one.

    Raises StoreError where the documents that are there do not allow one.
    """
    built: list[str] = []
    for index in required_indexes(registry):
        if index.name not in await mongo.indexes(index.collection):
            try:
                await mongo.create_index(index.collection, list(index.keys), index.name, **index.options)
            except Stale:
                place = f"index '{index.name}' of collection '{index.collection}'"
                raise StoreError(f"{place} cannot be built: there are documents with the same key") from None
            if index.name in await mongo.indexes(index.collection):
                built.append(f"{index.collection}.{index.name}")
    return built


async def find_topology_problems(mongo: Mongo) -> list[str]:
    """What makes the server unfit to keep acknowledged writes, a line each."""
    hello: dict[str, Any] = await mongo.command({"hello": 1})
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        return ["the server is a standalone: it has no transactions; run it as a replica set, of one member if need be"]
    problems = []
    build = await mongo.command({"buildInfo": 1})
    if int(str(build["version"]).partition(".")[0]) < 6:
        problems.append(f"the server's version {build['version']} is older than 6.0")
    if hello.get("msg") != "isdbgrid":
        config = (await mongo.command({"replSetGetConfig": 1}))["config"]
        if config.get("writeConcernMajorityJournalDefault") is False:
            problems.append("writeConcernMajorityJournalDefault is off: an acknowledged write could be lost")
    return problems


async def _check_secret(mongo: Mongo, secret: str) -> None:
    """Refuse a database whose buckets were made with another secret: unique keys would no longer be unique."""
    mark = blake2b(secret.encode(), digest_size=16, person=b"gateway-mark").digest()
    found = await mongo.change(META, {"_id": "secret"}, {"$setOnInsert": {"mark": mark}}, upsert=True)
    if found is None or not hmac.compare_digest(bytes(found["mark"]), mark):
        raise StoreError("GATEWAY_SECRET is not the one this database was made with")
