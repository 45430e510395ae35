"""The audit: every access leaves an event before its answer leaves the gateway.

Knows: how events are written (in the transaction of a write; for reads, in groups over the requests that wait), and how
a process seals those it wrote into its hash chain (`store/chain.py`).
Must not know: what an event means, who may read it.

Events are only ever added: nothing here changes or deletes one, whatever its age.
"""

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta

from gateway.fhir.balp import Event, audit_values
from gateway.problem import Problem
from gateway.store.chain import MOST_IN_SEAL, START, Sealed, make_seal, read_seal
from gateway.store.gather import Gather
from gateway.store.ids import Ids
from gateway.store.mongo import Document, Mongo, Stale, Step
from gateway.store.schema import SEALS, WRITERS

_MOST_WAITING = 32_768  # events that wait to be sealed; they are kept in memory
_PATIENCE = 0.02  # seconds
_DECIDED = timedelta(seconds=60)  # longer than any request and any call of the driver takes


class AuditWriter:
    """Writes the events of one process; those of requests that wait at the same time in one go."""

    def __init__(self, mongo: Mongo, ids: Ids) -> None:
        self._mongo = mongo
        self._ids = ids
        self._writer = ids.unique()
        self._count = itertools.count(1)
        self._gather: Gather[list[Document], None] = Gather(self._write_group, patience=_PATIENCE)
        self._committed: list[Document] = []
        self._open: dict[int, datetime] = {}  # events of which it is not known that they are durable, and since when
        self._seal_number = 0
        self._last_link = START
        self.is_open = False

    async def open(self, now: datetime, *, by_operator: bool = False) -> None:
        """Say that this process writes events, before it writes any; nothing where it was said.

        `by_operator`: that it writes of what an operator does at the machine.
        """
        if not self.is_open:
            self.is_open = True
            await self._mongo.insert(WRITERS, [{"_id": self._writer, "alive": now, "seals": 0}])
        if by_operator:
            await self._mongo.change(WRITERS, {"_id": self._writer}, {"$set": {"operated": True}})

    async def record(self, events: Sequence[Event], now: datetime) -> None:
        """Return when the events are durable. Raises Problem 503 where they cannot be stored: then nothing is served."""
        if events:
            await self._gather.ask(self.documents(events, now))

    async def write_all(self, steps: Sequence[Step], events: Sequence[Event], now: datetime, *, seconds: float) -> None:
        """Carry out these steps and record these events, in one transaction. Raises as the steps do, and as `record` does."""
        documents = self.documents(events, now)
        await self._mongo.write_all([*steps, *([self.step(documents)] if documents else [])], seconds=seconds)
        self.committed(documents)

    def step(self, documents: list[Document]) -> Step:
        """Writing these events as part of a transaction, which raises Problem 503 where they cannot be stored.

        Call `committed` when it is.
        """
        return Step("AuditEvent", documents, otherwise=_not_recorded)

    def committed(self, documents: list[Document]) -> None:
        """These events are durable now and wait to be sealed."""
        for document in documents:
            self._open.pop(document["n"], None)
        self._committed.extend(documents)

    def documents(self, events: Sequence[Event], now: datetime) -> list[Document]:
        """The events as they are stored, numbered in this process. Raises Problem 503 while too many are not sealed."""
        if len(self._committed) + len(self._open) > _MOST_WAITING:
            raise _not_recorded()
        return [self._document(event, now) for event in events]

    def unsealed(self) -> tuple[int, datetime | None]:
        """How many durable events wait for their seal, and of when the first of them is."""
        return len(self._committed), self._committed[0]["updated"] if self._committed else None

    async def _write_group(self, group: list[list[Document]]) -> list[None]:
        documents = [document for waiting in group for document in waiting]
        try:
            await self._mongo.insert("AuditEvent", documents)
        except (Problem, Stale):
            raise _not_recorded() from None
        self.committed(documents)
        return [None] * len(group)

    async def seal(self, now: datetime) -> list[Sealed]:
        """Seal what was committed; say that this process lives. Returns the seals made."""
        await self._decide(now - _DECIDED)
        made: list[Sealed] = []
        while self._committed:
            documents = self._committed[:MOST_IN_SEAL]
            seal = make_seal(self._writer, self._seal_number + 1, self._last_link, documents)
            try:
                await self._mongo.insert(SEALS, [seal])
            except Stale:
                await self._catch_up()
                continue
            del self._committed[: len(documents)]
            self._seal_number, self._last_link = seal["number"], bytes(seal["hash"])
            made.append((self._writer, self._seal_number, self._last_link.hex()))
        life = {"$set": {"alive": now, "seals": self._seal_number}, "$unset": {"ended": ""}}
        await self._mongo.change(WRITERS, {"_id": self._writer}, life)
        return made

    async def close(self, now: datetime) -> list[Sealed]:
        """Seal the rest and say that this process has ended. Returns the seals made."""
        await self._decide(now + _DECIDED)
        made = await self.seal(now)
        await self._mongo.change(WRITERS, {"_id": self._writer}, {"$set": {"ended": now}})
        return made

    async def _decide(self, before: datetime) -> None:
        """Look up what became of events whose writing broke off: durable ones are to be sealed, the others never were."""
        while numbers := [n for n, since in self._open.items() if since < before][:MOST_IN_SEAL]:
            durable = await self._mongo.find("AuditEvent", {"writer": self._writer, "n": {"$in": numbers}})
            self.committed(durable)
            for n in numbers:
                self._open.pop(n, None)

    async def _catch_up(self) -> None:
        """Take over seals that are there already: one whose insert broke off, or others' who took this process for dead."""
        where = {"writer": self._writer, "number": {"$gt": self._seal_number}}
        for seal in await self._mongo.find(SEALS, where, sort=[("number", 1)]):
            sealed = {n for n, _ in read_seal(seal)}
            self._committed = [document for document in self._committed if document["n"] not in sealed]
            self._seal_number, self._last_link = seal["number"], bytes(seal["hash"])

    def _document(self, event: Event, now: datetime) -> Document:
        n = next(self._count)
        self._open[n] = now
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


def _not_recorded() -> Problem:
    return Problem("transient", "the access cannot be recorded, so it is not given", headers={"Retry-After": "2"})
