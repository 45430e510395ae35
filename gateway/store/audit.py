"""The audit: every access leaves an event before its answer leaves the gateway.

Knows: how events are written (in the transaction of a write; for reads, in groups over the requests that wait), and how
they are sealed afterwards into a hash chain per writing process.
Must not know: what an event means, who may read it.

A chain inside the transactions would be one lock for everybody. So each process counts its events (`writer`, `n`), and a
job seals what was committed: a seal is numbered without gaps and lists, for each event in turn, its `n` and a link, the
SHA-256 over the link before and the event. Changing, deleting, adding or reordering anything breaks a link.
"""

import itertools
import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec

from gateway.fhir.balp import Event, audit_values
from gateway.problem import Problem
from gateway.store.gather import Gather
from gateway.store.ids import Ids
from gateway.store.mongo import Document, Mongo, Session, Stale
from gateway.store.schema import SEALS, WRITERS

_START = bytes(32)
_LINK = 8  # bytes of each link that a seal keeps; the last one is kept whole
_MOST_IN_SEAL = 4_096
_DEAD = timedelta(seconds=60)

_canonical = msgspec.json.Encoder(order="sorted").encode


class AuditWriter:
    """Writes the events of one process; those of requests that wait at the same time in one go."""

    def __init__(self, mongo: Mongo, ids: Ids) -> None:
        self._mongo = mongo
        self._ids = ids
        self._writer = ids.unique()
        self._count = itertools.count(1)
        self._gather: Gather[list[Document], None] = Gather(self._write_group)
        self._committed: list[Document] = []
        self._seal_number = 0
        self._last_link = _START

    async def open(self, now: datetime) -> None:
        """Say that this process writes events, before it writes any."""
        await self._mongo.insert(WRITERS, [{"_id": self._writer, "alive": now}])

    async def record(self, events: Sequence[Event], now: datetime) -> None:
        """Return when the events are durable. Raises Problem 503 where they cannot be stored: then nothing is served."""
        if events:
            await self._gather.ask(self.documents(events, now))

    async def write(self, documents: list[Document], session: Session) -> None:
        """Write events inside a transaction; call `committed` when it is."""
        if documents:
            await self._mongo.insert("AuditEvent", documents, session)

    def committed(self, documents: list[Document]) -> None:
        """These events are durable now and wait to be sealed."""
        self._committed.extend(documents)

    def documents(self, events: Sequence[Event], now: datetime) -> list[Document]:
        """The events as they are stored, numbered in this process."""
        return [self._document(event, now) for event in events]

    async def _write_group(self, group: list[list[Document]]) -> list[None]:
        documents = [document for waiting in group for document in waiting]
        try:
            await self._mongo.insert("AuditEvent", documents)
        except (Problem, Stale):
            text = "the access cannot be recorded, so it is not given"
            raise Problem("transient", text, headers={"Retry-After": "2"}) from None
        self._committed.extend(documents)
        return [None] * len(group)

    async def seal(self, now: datetime) -> list[tuple[str, int, str]]:
        """Seal what was committed; say that this process lives. Returns writer, number and hash of each new seal."""
        made: list[tuple[str, int, str]] = []
        while self._committed:
            documents = self._committed[:_MOST_IN_SEAL]
            seal = make_seal(self._writer, self._seal_number + 1, self._last_link, documents)
            await self._mongo.insert(SEALS, [seal])
            del self._committed[: len(documents)]
            self._seal_number, self._last_link = seal["number"], bytes(seal["hash"])
            made.append((self._writer, self._seal_number, self._last_link.hex()))
        await self._mongo.change(WRITERS, {"_id": self._writer}, {"$set": {"alive": now}})
        return made

    async def close(self, now: datetime) -> None:
        """Seal the rest and say that this process has ended."""
        await self.seal(now)
        await self._mongo.change(WRITERS, {"_id": self._writer}, {"$set": {"ended": now}})

    def _document(self, event: Event, now: datetime) -> Document:
        n = next(self._count)
        document: Document = {
            "_id": self._ids.new(event.patient[:3] if event.patient else self._ids.bucket(n.to_bytes(8))),
            "version": 1,
            "updated": now.replace(microsecond=now.microsecond // 1000 * 1000),
            "source": event.client,
            "writer": self._writer,
            "n": n,
            "search": audit_values(event, now),
            "event": event.compact(),
        }
        document["bucket"] = document["_id"][:3]
        if event.patient:
            document["patient"] = event.patient
        return document


def link(previous: bytes, document: Document) -> bytes:
    """The link of an event behind the link before it."""
    return sha256(previous + _canonical(document)).digest()


def make_seal(writer: str, number: int, previous: bytes, documents: list[Document]) -> Document:
    """A seal over these events of one writer, in this order."""
    links: list[bytes] = []
    for document in documents:
        previous = link(previous, document)
        links.append(previous)
    return {
        "writer": writer,
        "number": number,
        "events": struct.pack(f">{len(documents)}I", *(document["n"] for document in documents)),
        "links": b"".join(one[:_LINK] for one in links),
        "hash": previous,
    }


def read_seal(seal: Document) -> Iterator[tuple[int, bytes]]:
    """The events a seal covers: each one's number and the beginning of its link."""
    numbers = struct.unpack(f">{len(seal['events']) // 4}I", bytes(seal["events"]))
    links = bytes(seal["links"])
    for position, n in enumerate(numbers):
        yield n, links[position * _LINK : (position + 1) * _LINK]


async def seal_for_the_dead(mongo: Mongo, now: datetime) -> int:
    """Seal what processes left unsealed that ended without saying so. Returns how many events that were."""
    count = 0
    for writer in await mongo.find(WRITERS, {"ended": {"$exists": False}, "alive": {"$lt": now - _DEAD}}):
        seals = await mongo.find(SEALS, {"writer": writer["_id"]}, sort=[("number", 1)])
        sealed = {n for seal in seals for n, _ in read_seal(seal)}
        documents = await mongo.find("AuditEvent", {"writer": writer["_id"]}, sort=[("n", 1)])
        left = [document for document in documents if document["n"] not in sealed]
        number = seals[-1]["number"] if seals else 0
        previous = bytes(seals[-1]["hash"]) if seals else _START
        try:
            for start in range(0, len(left), _MOST_IN_SEAL):
                seal = make_seal(writer["_id"], number + 1, previous, left[start : start + _MOST_IN_SEAL])
                await mongo.insert(SEALS, [seal])
                number, previous = seal["number"], bytes(seal["hash"])
                count += len(left[start : start + _MOST_IN_SEAL])
        except Stale:
            continue  # another process is sealing for this one
        await mongo.change(WRITERS, {"_id": writer["_id"]}, {"$set": {"ended": now}})
    return count


async def find_broken_link(mongo: Mongo) -> tuple[int, str | None]:
    """Walk every chain. Returns how many events are sound and, for the first that is not, which one and why."""
    sound = 0
    for writer in sorted(await _writers(mongo)):
        previous, expected = _START, 1
        sealed: set[int] = set()
        for seal in await mongo.find(SEALS, {"writer": writer}, sort=[("number", 1)]):
            place = f"writer {writer}, seal {expected}"
            if seal["number"] != expected:
                return sound, f"{place}: is missing"
            numbers = [n for n, _ in read_seal(seal)]
            documents = await mongo.find("AuditEvent", {"writer": writer, "n": {"$in": numbers}})
            events = {document["n"]: document for document in documents}
            for n, kept in read_seal(seal):
                if n not in events:
                    return sound, f"{place}: event {n} is missing"
                previous = link(previous, events[n])
                if previous[:_LINK] != kept:
                    return sound, f"{place}: event {n} ({events[n]['_id']}) is not what was sealed"
                sound += 1
            if previous != bytes(seal["hash"]):
                return sound, f"{place}: the seal itself was changed"
            sealed.update(numbers)
            expected += 1
        broken = await _unsealed(mongo, writer, sealed)
        if broken:
            return sound, broken
    return sound, None


async def _unsealed(mongo: Mongo, writer: str, sealed: set[int]) -> str | None:
    """An event that no seal covers although its process has sealed all it had, None where there is none."""
    ended = await mongo.find_one(WRITERS, {"_id": writer, "ended": {"$exists": True}})
    old = datetime.now(UTC) - _DEAD
    for event in await mongo.find("AuditEvent", {"writer": writer}, {"n": 1, "updated": 1}):
        if event["n"] not in sealed and (ended is not None or event["updated"] < old):
            return f"writer {writer}: event {event['n']} ({event['_id']}) was never sealed"
    return None


async def _writers(mongo: Mongo) -> set[str]:
    found = await mongo.aggregate("AuditEvent", [{"$group": {"_id": "$writer"}}])
    sealed = await mongo.aggregate(SEALS, [{"$group": {"_id": "$writer"}}])
    return {row["_id"] for row in (*found, *sealed)}
