"""Writing resources: a plan becomes durable as a whole, with its audit, or not at all.

Knows: the order of a transaction (heads first), versions, history, tombstones, business keys.
Must not know: how a plan was made, HTTP.

The head document of a record is the first thing each transaction touches. That puts the commits of one record in an order:
`commit` counts them, and `updated` never goes back, whatever the clocks of several processes say. A condition that held
when the plan was made is asked again behind that lock, so two equal conditional creates cannot both find nothing.
"""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gateway.access.access import Access, unknown_reference
from gateway.fhir.balp import Event
from gateway.fhir.clause import Clause, Values
from gateway.fhir.dates import write_instant
from gateway.fhir.registry import ResourceType
from gateway.store.audit import AuditWriter
from gateway.store.mongo import Binary, Document, Mongo, Session, Stale
from gateway.store.resources import find_matches
from gateway.store.schema import HEADS, history_of

Encode = Callable[[Any], bytes]


@dataclass(slots=True)
class Change:
    """One resource to be written.

    `resource` is the typed resource with its new id and meta, None for a deletion; `values` its index values as stored
    (`search`, `labels`); `former` the document it replaces; `head` the record it belongs to (its type, for directories);
    `place`: where it stands in a Bundle.
    """

    kind: ResourceType
    interaction: str
    id: str
    head: str
    patient: str | None
    source: str
    resource: Any
    values: Document
    key: bytes | None = None
    digest: int | None = None
    former: Document | None = None
    place: str | None = None

    @property
    def version(self) -> int:
        """The version this change makes."""
        return 1 if self.former is None else int(self.former["version"]) + 1

    def new_values(self) -> Document | None:
        """The index values of the new version, None for a deletion."""
        if self.resource is None:
            return None
        return {**self.values, "_id": self.id, "source": self.source, "patient": self.patient}

    def document(self, updated: datetime, commit: int, encode: Encode) -> Document:
        """The resource as it will be stored."""
        document: Document = {
            "_id": self.id,
            "bucket": self.id[:3],
            "version": self.version,
            "updated": updated,
            "source": self.source,
            "commit": commit,
        }
        if self.patient is not None:
            document["patient"] = self.patient
        if self.key is not None:
            document["key"] = Binary(self.key)
        if self.digest is not None:
            document["digest"] = self.digest
        document.update(self.values)
        if self.resource is None:
            document["deleted"] = True
        else:
            self.resource.meta.lastUpdated = write_instant(updated)
            document["body"] = encode(self.resource)
        return document


@dataclass(frozen=True, slots=True)
class Condition:
    """A search that found nothing when the plan was made and must still find nothing."""

    kind: ResourceType
    clause: Clause


@dataclass(slots=True)
class Plan:
    """Everything one transaction does."""

    changes: list[Change] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)


def require(access: Access, change: Change) -> None:
    """The door of writing: both the old and the new version must be the caller's to write. Raises Problem at its place."""
    for values in (change.former, change.new_values()):
        if values is not None:
            require_write(access, change.kind, change.interaction, values, change.place)


def require_write(access: Access, kind: ResourceType, interaction: str, values: Values, place: str | None) -> None:
    """Refuse a write of a resource with these index values that the caller may not make."""
    if not access.admits(kind, interaction, values):
        problem = access.refusal(kind, interaction, values, f"{kind.name}.{kind.patient_path or 'id'}")
        raise problem.within(place) if place else problem


class Committer:
    """Commits plans. `care_team`: the references that a Patient names as treating."""

    def __init__(self, mongo: Mongo, audit: AuditWriter, encode: Encode, care_team: Callable[[Any], list[str]]) -> None:
        self._mongo = mongo
        self._audit = audit
        self._encode = encode
        self._care_team = care_team
        # Writers of one process queue here for a record instead of failing against each other in the database.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def commit(
        self,
        access: Access,
        plan: Plan,
        events: Callable[[dict[str, int]], Iterable[Event]],
        now: datetime,
        *,
        reads: Callable[[Session], Awaitable[list[Event]]] | None = None,
        seconds: float,
    ) -> list[Document]:
        """Make the plan durable. Returns the stored document of each change, in their order.

        `events`: what to audit, given the commit number of each record. `reads`: what is to be read in the same transaction
        after the writes; it returns what to audit of that. Raises Stale where what the plan was made on has
        changed, Problem where the caller may not do it.
        """
        for change in plan.changes:
            require(access, change)
        heads = sorted({change.head for change in plan.changes})
        async with AsyncExitStack() as held:
            for head in heads:
                await held.enter_async_context(self._lock(head))

            async def work(session: Session) -> tuple[list[Document], list[Document]]:
                return await self._write(access, plan, heads, events, reads, now, session)

            documents, audited = await self._mongo.transaction(work, seconds=seconds)
        self._audit.committed(audited)
        return documents

    def _lock(self, head: str) -> asyncio.Lock:
        return self._locks.setdefault(head, asyncio.Lock())

    async def _write(
        self,
        access: Access,
        plan: Plan,
        heads: list[str],
        events: Callable[[dict[str, int]], Iterable[Event]],
        reads: Callable[[Session], Awaitable[list[Event]]] | None,
        now: datetime,
        session: Session,
    ) -> tuple[list[Document], list[Document]]:
        new_patients = {c.id: c for c in plan.changes if c.kind.is_patient}
        moments: dict[str, tuple[int, datetime]] = {}
        for head in heads:
            moments[head] = await self._touch(head, new_patients.get(head), now, session)
        for condition in plan.conditions:
            if await find_matches(access, self._mongo, condition.kind, condition.clause, seconds=2, session=session):
                raise Stale
        documents: list[Document] = []
        for change in plan.changes:
            commit, updated = moments[change.head]
            documents.append(change.document(updated, commit, self._encode))
        await self._store(plan.changes, documents, session)
        happened = [*events({head: commit for head, (commit, _) in moments.items()})]
        if reads is not None:
            happened += await reads(session)
        audited = self._audit.documents(happened, now)
        await self._audit.write(audited, session)
        return documents, audited

    async def _touch(self, head: str, patient: Change | None, now: datetime, session: Session) -> tuple[int, datetime]:
        """Count a commit of this record and give it a time later than the last one's."""
        moment = now.replace(microsecond=now.microsecond // 1000 * 1000)
        later = {"$max": [moment, {"$add": ["$updated", 1]}]}  # adding to nothing gives nothing, which $max passes over
        fields: Document = {"commit": {"$add": [{"$ifNull": ["$commit", 0]}, 1]}, "updated": later}
        if patient is not None and patient.resource is not None:
            fields["care_team"] = {"$literal": self._care_team(patient.resource)}
        is_new = (patient is not None and patient.former is None) or head[:1].isupper()
        found = await self._mongo.change(HEADS, {"_id": head}, [{"$set": fields}], upsert=is_new, session=session)
        if found is None:
            raise unknown_reference("Patient")
        return int(found["commit"]), found["updated"]

    async def _store(self, changes: list[Change], documents: list[Document], session: Session) -> None:
        inserts: dict[str, list[Document]] = {}
        for change, document in zip(changes, documents, strict=True):
            if change.former is None:
                inserts.setdefault(change.kind.name, []).append(document)
                continue
            former = {**change.former, "id": change.id, "_id": f"{change.id}/{change.former['version']}"}
            former.pop("key", None)
            former.pop("digest", None)
            inserts.setdefault(history_of(change.kind.name), []).append(former)
            where = {"_id": change.id, "bucket": change.id[:3], "version": change.former["version"]}
            await self._mongo.replace(change.kind.name, where, document, session)
        for collection, found in inserts.items():
            await self._mongo.insert(collection, found, session)
