"""Writing resources: a plan becomes durable as a whole, with its audit, or not at all.

Knows: the order of a transaction (heads first), versions, history, tombstones, business keys.
Must not know: how a plan was made, HTTP.

The head document of a record is the first thing each transaction touches. That puts the commits of one record in an order:
`commit` counts them, and `updated` never goes back, whatever the clocks of several processes say. A condition that held
when the plan was made is asked again behind that lock, so two equal conditional creates cannot both find nothing.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from gateway.access.access import Access
from gateway.fhir.balp import Event
from gateway.fhir.clause import matches, parameters_of
from gateway.fhir.dates import EARLIEST
from gateway.pace import paced
from gateway.problem import Problem
from gateway.store.audit import AuditWriter
from gateway.store.change import Change, Encode, Plan, require, steps_of
from gateway.store.conditions import is_any_met, is_any_taken
from gateway.store.gather import Gather
from gateway.store.mongo import Document, Mongo, Session, Stale, Step, Unmatched
from gateway.store.receipts import receipt_steps
from gateway.store.schema import HEADS

Moment = tuple[int, datetime]  # number and time of a commit

_NOTHING_HELD = nullcontext()
_NEVER: Moment = (0, EARLIEST)
_MILLISECOND = timedelta(milliseconds=1)
_MOST_REMEMBERED = 10_000
_ANY_NUMBER = 1_000_000
_WEIGHT_OF_CONDITION = 30
_PATIENCE = 0.02  # seconds
_MOST_IN_GROUP = 1_000  # resources; a larger transaction holds its records for too long
_MOST_SHARED = 100  # resources of one plan; who writes more keeps nobody waiting but themselves


@dataclass(frozen=True, slots=True)
class Work:
    """A plan with what belongs to it.

    `events`: what to audit, given the commit number of each record. `reads`: what is to be read in the same transaction
    behind the writes; it returns what to audit of that. `held`: the records whose turn the writer has already. `receipts`:
    of what is to be done once.
    """

    access: Access
    plan: Plan
    events: Callable[[Mapping[str, int]], Iterable[Event]]
    reads: Callable[[Session], Awaitable[list[Event]]] | None = None
    held: frozenset[str] = frozenset()
    receipts: Sequence[Document] = ()

    def asks_behind_heads(self, known: Mapping[str, Moment]) -> bool:
        """Whether something is to be asked when nobody else can write to its records any more. `known`: their last commits."""
        has_moved = any(known[one.head][0] != one.planned for one in self.plan.soles)
        return bool(self.plan.conditions) or self.reads is not None or has_moved

    @property
    def goes_with_others(self) -> bool:
        """Whether it may share a transaction: it only adds, and what it rests on is easily compared with the others."""
        if self.held:
            return False  # the group would wait for what this writer holds
        only_adds = all(change.former is None and not change.kind.is_patient for change in self.plan.changes)
        is_simple = not self.plan.conditions or len(self.plan.changes) == 1
        is_short = len(self.plan.changes) <= _MOST_SHARED
        return only_adds and is_simple and is_short and self.reads is None

    def is_met_by(self, other: "Work") -> bool:
        """Whether what another one adds meets a condition of this one, or has a name that this one gives."""
        if any(one.is_named_by(name) for one in self.plan.soles for name in other.plan.soles):
            return True
        for condition in self.plan.conditions:
            if "_lastUpdated" in parameters_of(condition.clause):
                return True  # nobody knows yet when that will have been
            alike = (change.new_values() for change in other.plan.changes if change.kind is condition.kind)
            if any(values is not None and matches(condition.clause, values) for values in alike):
                return True
        return False


class Committer:
    """Commits plans. Those that only add and wait at the same time share a transaction, each with its own outcome.

    `facts`: what the head of a record keeps of its Patient. `seconds`: how long a transaction may take. `clock`: what has been
    long in coming gets the time of its commit, not that of its request.
    """

    def __init__(
        self,
        mongo: Mongo,
        audit: AuditWriter,
        encode: Encode,
        facts: Callable[[Any], Document],
        seconds: float,
        clock: Callable[[], datetime],
    ) -> None:
        self._clock = clock
        self._mongo = mongo
        self._audit = audit
        self._encode = encode
        self._facts_of = facts
        self._seconds = seconds
        self._gather: Gather[Work, list[Document]] = Gather(
            self._commit_group, most=_MOST_IN_GROUP, weigh=_weigh, patience=_PATIENCE
        )
        # The others go each in a transaction of its own, which also ends well if whoever asked for it goes away.
        self._single: Gather[Work, list[Document]] = Gather(self._commit_group, lanes=_ANY_NUMBER, most=1)
        self._moments: dict[str, Moment] = {}
        # Writers of one process queue here for a record instead of failing against each other in the database.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def commit(self, work: Work) -> list[Document]:
        """Make the plan durable. Returns the stored document of each change, in their order.

        Raises Stale where what the plan was made on has changed, Problem where the caller may not do it.
        """
        async for change in paced(work.plan.changes):
            require(work.access, change)
        return await (self._gather if work.goes_with_others else self._single).ask(work)

    def turn(self, heads: Collection[str]) -> AbstractAsyncContextManager[None]:
        """Wait until no other writer of this process is at these records, and keep them away meanwhile."""
        return self._turn(heads) if heads else _NOTHING_HELD

    @asynccontextmanager
    async def _turn(self, heads: Collection[str]) -> AsyncIterator[None]:
        async with AsyncExitStack() as held:
            for head in sorted(heads):
                await held.enter_async_context(self._locks.setdefault(head, asyncio.Lock()))
            yield

    async def _commit_group(self, group: list[Work]) -> list[list[Document] | Exception]:
        try:
            return list(await self._commit(group))
        except (Stale, Problem) as error:
            if len(group) == 1 or (isinstance(error, Problem) and error.code != "too-long"):
                raise
        # One of them cannot be done as planned, which is no reason to fail the others: each for itself, then.
        outcomes = await asyncio.gather(*(self._commit([work]) for work in group), return_exceptions=True)
        return [_only(outcome) for outcome in outcomes]

    async def _commit(self, group: list[Work]) -> list[list[Document]]:
        """All of these in one transaction."""
        heads = sorted(set[str]().union(*(work.plan.heads for work in group)))
        held = set[str]().union(*(work.held for work in group))
        wanted = [head for head in heads if head not in held]
        if held and any(head in self._locks and self._locks[head].locked() for head in wanted):
            raise Stale  # two writers who hold one record and wait for the other's would wait for ever
        async with self.turn(wanted):
            hints = self._hints(group, heads)
            try:
                written, audited = await self._transact(group, heads, hints)
            except Unmatched as unmatched:
                if unmatched.collection != HEADS:
                    raise
                # Another process has written to one of these records.
                written, audited = await self._transact(group, heads, {})
        self._audit.committed(audited)
        return written

    async def _transact(
        self, group: list[Work], heads: list[str], hints: Mapping[str, Moment]
    ) -> tuple[list[list[Document]], list[Document]]:
        meeting = [work for work in group if work.plan.conditions or work.plan.soles]
        if any(work.is_met_by(other) for work in meeting for other in group if other is not work):
            raise Stale
        if hints and not any(work.asks_behind_heads(hints) for work in group):
            draft = await self._draft(group, heads, hints)
            audited = self._events(group, draft)
            steps = [*draft.receipts, draft.counting, *draft.steps, self._audit.step(audited)]
            await self._mongo.write_all(steps, seconds=self._seconds)
        else:
            draft, audited = await self._mongo.transaction(
                partial(self._ask_and_write, group, heads, hints), seconds=self._seconds
            )
        for head, moment in draft.moments.items():
            self._remember(head, moment)
        return draft.documents, audited

    async def _ask_and_write(
        self, group: list[Work], heads: list[str], hints: Mapping[str, Moment], session: Session
    ) -> tuple["_Draft", list[Document]]:
        """Write; ask in between what is to be asked only when nobody else can write to these records."""
        draft = await self._draft(group, heads, hints or await self._find_moments(heads, session))
        for step in (*draft.receipts, draft.counting):
            await self._mongo.write(step, session)
        asked = [(work, condition) for work in group for condition in work.plan.conditions]
        for work in (work for work in group if work.plan.soles):
            if await is_any_taken(self._mongo, work.access, work.plan.soles, session=session):
                raise Stale
        if await is_any_met(self._mongo, ((work.access, one) for work, one in asked), seconds=2, session=session):
            raise Stale
        for step in draft.steps:
            await self._mongo.write(step, session)
        seen = [await work.reads(session) if work.reads is not None else [] for work in group]
        audited = self._events(group, draft, seen)
        await self._mongo.write(self._audit.step(audited), session)
        return draft, audited

    def _events(self, group: list[Work], draft: "_Draft", seen: Sequence[list[Event]] = ()) -> list[Document]:
        """What to audit of each; `seen`: what they read."""
        commits = {head: commit for head, (commit, _) in draft.moments.items()}
        audited: list[Document] = []
        for n, work in enumerate(group):
            audited += self._audit.documents([*work.events(commits), *(seen[n] if seen else ())], work.access.now)
        return audited

    def _hints(self, group: list[Work], heads: list[str]) -> dict[str, Moment]:
        """What is known of the heads without asking: enough to try. Empty where that is not all of them."""
        read = {p: r.moment for work in group for p, r in work.access.records.items() if r.moment is not None}
        hints = {head: max(self._moments.get(head, _NEVER), read.get(head, _NEVER)) for head in heads}
        return {} if _NEVER in hints.values() else hints

    def _remember(self, head: str, moment: Moment) -> None:
        self._moments[head] = moment
        if len(self._moments) > _MOST_REMEMBERED:
            del self._moments[next(iter(self._moments))]

    async def _find_moments(self, heads: list[str], session: Session) -> dict[str, Moment]:
        found = await self._mongo.find(HEADS, {"_id": {"$in": heads}}, session=session)
        return {head["_id"]: (int(head["commit"]), head["updated"]) for head in found}

    async def _draft(self, group: list[Work], heads: list[str], known: Mapping[str, Moment]) -> "_Draft":
        """What is to be written. `known`: the last commit of each record that is there, as far as anybody knows here."""
        changes = [change for work in group for change in work.plan.changes]
        moments, counting = self._count(group, changes, heads, known)
        documents = [
            [change.document(*moments[change.head], self._encode) async for change in paced(work.plan.changes)]
            for work in group
        ]
        receipts = receipt_steps([receipt for work in group for receipt in work.receipts])
        steps = steps_of(changes, [one for found in documents for one in found])
        return _Draft(moments, receipts, counting, steps, documents)

    def _count(
        self, group: list[Work], changes: list[Change], heads: list[str], known: Mapping[str, Moment]
    ) -> tuple[dict[str, Moment], Step]:
        """Count a commit of each record and give it a time later than the last one's."""
        new = {change.head for change in changes if change.makes_head}.union(*(w.plan.guards for w in group)) - known.keys()
        if len(known) + len(new) < len(heads):
            raise Stale  # a record that is not there (any more): planning again finds that out
        now = max(self._clock(), *(work.access.now for work in group))
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        moments: dict[str, Moment] = dict.fromkeys(new, (1, now))
        updates: list[tuple[Document, Document]] = []
        by_head: dict[str, list[Change]] = {}
        for change in changes:
            by_head.setdefault(change.head, []).append(change)
        for head, (commit, updated) in known.items():
            moments[head] = (commit + 1, max(now, updated + _MILLISECOND))
            facts = self._facts(by_head.get(head, ()))
            update: Document = {"$set": {"commit": commit + 1, "updated": moments[head][1], **facts.once}}
            updates.append(({"_id": head, "commit": commit}, update | facts.added | facts.gone))
        begun = {head: self._facts(by_head.get(head, ())).whole for head in sorted(new)}
        inserts = [{"_id": head, "commit": 1, "updated": now, **facts} for head, facts in begun.items()]
        return moments, Step(HEADS, inserts, updates)

    def _facts(self, mine: Sequence[Change]) -> "_Facts":
        """What the head keeps of a record besides its last commit. `mine`: the changes of that record."""
        patient = next((c.resource for c in mine if c.kind.is_patient and c.resource is not None), None)
        once = self._facts_of(patient) if patient is not None else {}
        kept = {name: value for change in mine for name, value in change.kept.items()}
        once |= {name: value for name, value in kept.items() if value is not None}
        lost = sorted(name for name, value in kept.items() if value is None)
        return _Facts(once, sorted({change.kind.name for change in mine if change.is_wide}), lost)


@dataclass(frozen=True, slots=True)
class _Draft:
    """What a group writes: `receipts`, of what is to be done once; `counting` locks its records, `steps` are the resources
    and their former versions.
    """

    moments: dict[str, Moment]
    receipts: list[Step]
    counting: Step
    steps: list[Step]
    documents: list[list[Document]]


@dataclass(frozen=True, slots=True)
class _Facts:
    once: Document
    wide: list[str]
    lost: list[str]

    @property
    def added(self) -> Document:
        return {"$addToSet": {"wide": {"$each": self.wide}}} if self.wide else {}

    @property
    def gone(self) -> Document:
        return {"$unset": dict.fromkeys(self.lost, 1)} if self.lost else {}

    @property
    def whole(self) -> Document:
        told: Document = {"wide": self.wide} if self.wide else {}
        for name, value in self.once.items():
            part, dot, rest = name.partition(".")
            if value:
                told[part] = {**told.get(part, {}), rest: value} if dot else value
        return told


def _weigh(work: Work) -> int:
    """A condition is compared with all that the others of its group add."""
    return len(work.plan.changes) + _WEIGHT_OF_CONDITION * len(work.plan.conditions)


def _only(outcome: list[list[Document]] | BaseException) -> list[Document] | Exception:
    """The outcome of a group of one."""
    if isinstance(outcome, list):
        return outcome[0]
    if isinstance(outcome, Exception):
        return outcome
    raise outcome
