"""Hash chains over the audit: how a seal is made, who seals for processes that died, and whether every link holds.

Knows: the shape of a seal. Must not know: what an event says, who may read it.

A chain inside the transactions would be one lock for everybody. So each process counts its events (`writer`, `n`) and seals
them afterwards: a seal is numbered without gaps and lists, for each event in turn, its `n` and a link, the SHA-256 over the
link before and the event. Changing, deleting, adding or reordering anything breaks a link. That a chain's end, or a whole
chain, was cut off shows against the hashes that the log has of every seal.

Nothing here holds more in memory than one seal's events and one bit for each event of one process.
"""

import struct
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime, timedelta
from hashlib import sha256

import msgspec

from gateway.store.mongo import Document, Mongo, Stale
from gateway.store.schema import SEALS, WRITERS

Sealed = tuple[str, int, str]  # writer, number and hash of a seal

START = bytes(32)
MOST_IN_SEAL = 4_096
_LINK = 8  # bytes of each link that a seal keeps; the last one is kept whole
_DEAD = timedelta(seconds=60)  # since a process last said that it lives
_LATE = timedelta(seconds=150)  # an event that is not sealed by then has been forgotten
_AT_ONCE = 256  # events read in one go

_canonical = msgspec.json.Encoder(order="sorted").encode


class _Numbers:
    """A set of the numbers of one process's events: a bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, n: int) -> None:
        """Put a number in."""
        if n >> 3 >= len(self._bits):
            self._bits.extend(bytes((n >> 3) + 1024 - len(self._bits)))
        self._bits[n >> 3] |= 1 << (n & 7)

    def __contains__(self, n: object) -> bool:
        return isinstance(n, int) and 0 <= n >> 3 < len(self._bits) and bool(self._bits[n >> 3] >> (n & 7) & 1)


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


async def seal_for_the_dead(mongo: Mongo, now: datetime) -> list[Sealed]:
    """Seal what processes left unsealed that ended without saying so. Returns the seals made."""
    made: list[Sealed] = []
    for writer in await mongo.find(WRITERS, {"ended": {"$exists": False}, "alive": {"$lt": now - _DEAD}}):
        try:
            made += await _seal_for(mongo, writer, now)
        except Stale:
            continue  # another process is sealing for this one
    return made


async def _seal_for(mongo: Mongo, writer: Document, now: datetime) -> list[Sealed]:
    sealed, number, previous = _Numbers(), 0, START
    made: list[Sealed] = []
    async for seal in mongo.walk(SEALS, {"writer": writer["_id"]}, sort="number", batch=50):
        number, previous = seal["number"], bytes(seal["hash"])
        for n, _ in read_seal(seal):
            sealed.add(n)
    left: list[int] = []

    async def seal_left() -> None:
        nonlocal number, previous
        where = {"writer": writer["_id"], "n": {"$in": left}}
        seal = make_seal(writer["_id"], number + 1, previous, await mongo.find("AuditEvent", where, sort=[("n", 1)]))
        await mongo.insert(SEALS, [seal])
        number, previous = seal["number"], bytes(seal["hash"])
        made.append((writer["_id"], number, previous.hex()))
        left.clear()

    async for event in mongo.walk("AuditEvent", {"writer": writer["_id"]}, {"_id": 0, "n": 1}, sort="n"):
        if event["n"] not in sealed:
            left.append(event["n"])
        if len(left) == MOST_IN_SEAL:
            await seal_left()
    if left:
        await seal_left()
    # One that was only stopped, and lives again, says so and goes on by itself.
    where = {"_id": writer["_id"], "alive": writer["alive"]}
    await mongo.change(WRITERS, where, {"$set": {"ended": now, "seals": number}})
    return made


async def find_broken_link(mongo: Mongo, now: datetime, logged: Iterable[Sealed] = ()) -> tuple[int, str | None]:
    """Walk every chain. Returns how many events are sound and, for the first link that is not, which one and why.

    `logged`: seals whose hashes were kept outside the database.
    """
    sound = 0
    kept = {(writer, number): digest for writer, number, digest in logged}
    async for writer in _writers(mongo):
        if not isinstance(writer, str):
            return sound, "there is an event of no writer"
        count, broken = await _walk_chain(mongo, writer, now, kept)
        sound += count
        if broken is not None:
            return sound, f"writer {writer}{broken}"
    for writer, number in sorted(kept):
        return sound, f"writer {writer}, seal {number}: is missing"
    return sound, None


async def _walk_chain(mongo: Mongo, writer: str, now: datetime, logged: dict[tuple[str, int], str]) -> tuple[int, str | None]:
    """The sound events of one chain, and its first broken link. Takes what it has compared out of `logged`."""
    entry = await mongo.find_one(WRITERS, {"_id": writer})
    if entry is None:
        return 0, ": is no process of the gateway"
    sealed, previous, number, sound = _Numbers(), START, 0, 0
    async for seal in mongo.walk(SEALS, {"writer": writer}, sort="number", batch=10):
        number += 1
        if seal["number"] != number:
            return sound, f", seal {number}: is missing"
        count, previous, broken = await _check_seal(mongo, seal, previous)
        sound += count
        if broken is None and logged.pop((writer, number), previous.hex()) != previous.hex():
            broken = "is not the one that was logged"
        if broken is not None:
            return sound, f", seal {number}: {broken}"
        for n, _ in read_seal(seal):
            sealed.add(n)
    if number < entry.get("seals", 0):
        return sound, f", seal {number + 1}: is missing"
    return sound, await _find_unsealed(mongo, entry, sealed, now)


async def _check_seal(mongo: Mongo, seal: Document, previous: bytes) -> tuple[int, bytes, str | None]:
    """How many of its events are sound, the link of the last of these, and what is broken behind it."""
    listed, sound = list(read_seal(seal)), 0
    for start in range(0, len(listed), _AT_ONCE):
        part = listed[start : start + _AT_ONCE]
        where = {"writer": seal["writer"], "n": {"$in": [n for n, _ in part]}}
        events = {document["n"]: document for document in await mongo.find("AuditEvent", where)}
        for n, beginning in part:
            if n not in events:
                return sound, previous, f"event {n} is missing"
            following = link(previous, events[n])
            if following[:_LINK] != beginning:
                return sound, previous, f"event {n} ({events[n]['_id']}) is not what was sealed"
            sound, previous = sound + 1, following
    changed = previous != bytes(seal["hash"]) or len(bytes(seal["links"])) != _LINK * len(listed)
    return sound, previous, "the seal itself was changed" if changed else None


async def _find_unsealed(mongo: Mongo, writer: Document, sealed: _Numbers, now: datetime) -> str | None:
    """An event that no seal covers although there has been time enough, None where there is none."""
    has_ended = "ended" in writer
    is_dead = not has_ended and writer["alive"] < now - _DEAD
    async for event in mongo.walk("AuditEvent", {"writer": writer["_id"]}, {"_id": 0, "n": 1}, sort="n"):
        if event["n"] not in sealed:
            where = {"writer": writer["_id"], "n": event["n"]}
            found = await mongo.find_one("AuditEvent", where, {"updated": 1})
            if found is not None and (is_dead or has_ended or found["updated"] < now - _LATE):
                why = "is not sealed yet: its process died, and no other has sealed for it" if is_dead else "was never sealed"
                return f": event {event['n']} ({found['_id']}) {why}"
    return None


async def _writers(mongo: Mongo) -> AsyncIterator[object]:
    """Every writer that has events or seals or is known: by one look into an index for each."""
    known: set[object] = {row["_id"] for row in await mongo.find(WRITERS, {}, {"_id": 1})}
    for collection in ("AuditEvent", SEALS):
        # What is no text sorts before or behind all texts.
        known |= {await _writer_at(mongo, collection, {}, direction) for direction in (1, -1)} - {None}
        found = await _writer_at(mongo, collection, {"writer": {"$gt": ""}}, 1)
        while found is not None:
            known.add(found)
            found = await _writer_at(mongo, collection, {"writer": {"$gt": found}}, 1)
    for writer in sorted(known, key=str):
        yield writer


async def _writer_at(mongo: Mongo, collection: str, where: Document, direction: int) -> object | None:
    """The first or last writer, None where nothing is found; 0 for an event that has none."""
    found = await mongo.find(collection, where, {"writer": 1}, sort=[("writer", direction)], limit=1)
    return (found[0].get("writer") or 0) if found else None
