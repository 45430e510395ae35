"""Carrying out writes: plan, commit, answer; again from the beginning where the record has changed in between.

Knows: what a write answers, and that what is to be done once is not done twice. Must not know: HTTP, MongoDB.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import existing, written
from gateway.exchange.call import Answer, Call
from gateway.exchange.deposits import keep_contents
from gateway.exchange.entries import Entry, read_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.plan import make_plan
from gateway.exchange.read import body_of
from gateway.exchange.replay import replay
from gateway.exchange.withheld import find_withheld
from gateway.fhir.balp import Event
from gateway.pace import paced
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.change import Plan
from gateway.store.commit import Work
from gateway.store.mongo import Document, Session, Stale
from gateway.store.receipts import Done, Once

Reads = Callable[[Access, Session], Awaitable[list[Event]]]

ATTEMPTS = 50
_ALL = slice(None)
_NONE: Mapping[str, str] = {}


async def write(
    gateway: Gateway,
    access: Access,
    calls: Iterable[tuple[Call, str | None]],
    reads: Reads | None = None,
    *,
    urls: Mapping[str, str] = _NONE,
    once: Once | None = None,
) -> tuple[list[Answer], list[Event]]:
    """Carry out these writes as one: all or none. `calls`: each with its fullUrl, None outside a Bundle.

    Returns the answers in order and what is still to be audited (a write audits itself in its own transaction). `reads`:
    what is to be read behind the writes, in the same transaction; `urls`: what links stand for that none of the writes is.
    `once`: where it was done before, it is answered again.
    """
    asked = list(calls)
    once = once if asked else None
    held: frozenset[str] = frozenset()
    for _ in range(ATTEMPTS):
        done = await gateway.receipts.find(access, once) if once is not None else None
        if done is not None:
            answers, events, access = await replay(gateway, access, [call for call, _ in asked], done)
            return answers, [*events, *(await reads(access, None) if reads is not None else [])]
        async with gateway.committer.turn(held):
            entries = [read_entry(gateway, access, call, full_url) for call, full_url in asked]
            widened, plan = access, Plan()
            try:
                widened, plan = await make_plan(gateway, access, entries, urls)
                return await commit(gateway, widened, entries, plan, reads, held, [] if once is None else [(once, _ALL)])
            except Stale:
                access = access.afresh()
                held = frozenset(plan.heads)  # next time it plans only when it is its turn
            except Problem as problem:
                # Where it is refused because it is done already, by another request with the same key, that one answers.
                if once is None or await gateway.receipts.find(access, once) is None:
                    raise problem.about(existing(widened, widened.records)) from None
    raise too_often()


def too_often() -> Problem:
    """What is told who tried again and again, and always somebody else was first."""
    return Problem("transient", "the record is being written to too often", headers={"Retry-After": "1"})


async def commit(
    gateway: Gateway,
    access: Access,
    entries: list[Entry],
    plan: Plan,
    reads: Reads | None,
    held: frozenset[str],
    once: Sequence[tuple[Once, slice]] = (),
) -> tuple[list[Answer], list[Event]]:
    """Make the plan durable, and its receipts; the events are those of a plan that writes nothing.

    `once`: what is to be done once, each with the entries it is for.
    """
    await keep_contents(gateway, access, entries)
    changes = {change.id: change.version for change in plan.changes}
    asked = [entry for entry in entries if not entry.came_along]
    done = [_done(entry, changes) async for entry in paced(asked)]
    receipts = [gateway.receipts.document(access, one, done[part]) for one, part in once]
    read_behind = None if reads is None else partial(reads, _behind(access, plan))
    documents: list[Document] = []
    events: list[Event] = []
    if plan.changes:
        work = Work(access, plan, partial(written, access, entries), read_behind, held, receipts)
        documents = await gateway.committer.commit(work)
    else:
        if receipts:
            await gateway.receipts.keep(receipts)
        seen = await read_behind(None) if read_behind is not None else []
        events = [*written(access, entries, {}), *seen]
    gateway.throttle.charge(access.caller, access.now, written=len(documents), known=len(entries) - len(documents))
    stored = {document["_id"]: document for document in documents}
    pairs = zip(asked, done, strict=True)
    answers = [await _answer(gateway, access, entry, one, stored) async for entry, one in paced(pairs)]
    return answers, events


def _behind(access: Access, plan: Plan) -> Access:
    """The access once the plan is carried out, when its records may hold wide dates they did not hold before."""
    wide: dict[str, set[str]] = {}
    for change in plan.changes:
        if change.is_wide and change.patient is not None and change.patient in access.records:
            wide.setdefault(change.patient, set()).add(change.kind.name)
    if not wide:
        return access
    records = access.records
    return access.over(replace(records[patient], wide=records[patient].wide | names) for patient, names in wide.items())


def _done(entry: Entry, changes: Mapping[str, int]) -> Done:
    """What becomes of an entry. `changes`: the versions that the plan makes, by id."""
    present = entry.former or entry.existing or {}
    version = changes.get(entry.id or "", present.get("version"))
    created = entry.is_create and entry.change is not None
    status = 204 if entry.call.interaction == "delete" else 201 if created else 200
    return Done(entry.call.interaction, status, entry.kind.name, entry.id, version)


def answer_of(entry: Entry, done: Done) -> Answer:
    """What is answered in any case; `receipt` where a create may have turned out to be something else."""
    renews = entry.call.renews
    located, receipt = entry.is_create or renews, done.receipt if renews else None
    return Answer(done.status, type=done.type, id=done.id, version=done.version, located=located, receipt=receipt)


async def _answer(gateway: Gateway, access: Access, entry: Entry, done: Done, stored: Mapping[str, Document]) -> Answer:
    answer = answer_of(entry, done)
    if done.interaction == "delete":
        return answer
    # (a patch that changes nothing writes nothing, and shows what is there)
    document = stored.get(done.id or "") or (entry.former if entry.patch is not None else None)
    body = None
    if document is not None:
        is_plain = not entry.kind.attachments and not entry.kind.withheld
        body = bytes(document["body"]) if is_plain else body_of(gateway, entry.kind, document, entry.withheld)
    elif entry.call.prefer == "representation":
        found = await store.read(access, gateway.mongo, entry.kind, done.id or "")
        if found is not None and "body" in found:
            withheld = await find_withheld(gateway, access, [(entry.kind, found)])
            body = body_of(gateway, entry.kind, found, withheld)
    updated = (document or entry.existing or {}).get("updated")
    return msgspec.structs.replace(answer, body=body, updated=updated, warnings=entry.warnings)
