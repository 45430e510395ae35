"""Carrying out writes: plan, commit, answer; again from the beginning where the record has changed in between.

Knows: what a write answers and what the audit says of it. Must not know: HTTP, MongoDB.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from gateway.access.access import Access
from gateway.exchange.audit import event, existing
from gateway.exchange.call import Answer, Call
from gateway.exchange.entries import Entry, read_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.plan import make_plan
from gateway.fhir.balp import DONE, Event
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.change import Plan
from gateway.store.commit import Work
from gateway.store.mongo import Document, Session, Stale

Written = list[tuple[Entry, Answer]]
Reads = Callable[[Access, Session], Awaitable[list[Event]]]

_ATTEMPTS = 50
_NONE: Mapping[str, str] = {}


async def write(
    gateway: Gateway,
    access: Access,
    calls: Iterable[tuple[Call, str | None]],
    reads: Reads | None = None,
    *,
    urls: Mapping[str, str] = _NONE,
) -> tuple[Written, list[Event]]:
    """Carry out these writes as one: all or none. `calls`: each with its fullUrl, None outside a Bundle.

    Returns the answers in order and what is still to be audited (a write audits itself in its own transaction). `reads`:
    what is to be read behind the writes, in the same transaction; `urls`: what links stand for that none of the writes is.
    """
    asked = list(calls)
    held: frozenset[str] = frozenset()
    for _ in range(_ATTEMPTS):
        async with gateway.committer.turn(held):
            entries = [read_entry(gateway, access, call, full_url) for call, full_url in asked]
            widened, plan = access, Plan()
            try:
                widened, plan = await make_plan(gateway, access, entries, urls)
                documents, events = await _commit(gateway, widened, entries, plan, reads, held)
            except Stale:
                access = access.afresh()
                held = frozenset(plan.heads)  # next time it plans only when it is its turn
                continue
            except Problem as problem:
                raise problem.about(existing(widened, widened.records)) from None
        stored = {document["_id"]: document for document in documents}
        return [(entry, await _answer(gateway, widened, entry, stored)) for entry in entries], events
    raise Problem("transient", "the record is being written to too often", headers={"Retry-After": "1"})


async def _commit(
    gateway: Gateway, access: Access, entries: list[Entry], plan: Plan, reads: Reads | None, held: frozenset[str]
) -> tuple[list[Document], list[Event]]:
    """The stored documents, and the events of a plan that writes nothing."""
    read_behind = None if reads is None else partial(reads, _behind(access, plan))
    if plan.changes:
        work = Work(access, plan, partial(_events, access, entries), read_behind, held)
        return await gateway.committer.commit(work), []
    seen = await read_behind(None) if read_behind is not None else []
    return [], [*_events(access, entries, {}), *seen]


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


def _events(access: Access, entries: list[Entry], commits: Mapping[str, int]) -> list[Event]:
    """One event for each record, type and kind of write; what was already there is told apart from what was written."""
    groups: dict[tuple[str | None, str, str, bool], list[Entry]] = {}
    for entry in entries:
        key = (entry.patient, entry.kind.name, entry.call.interaction, entry.change is not None)
        groups.setdefault(key, []).append(entry)
    events = []
    for (patient, _, _, written), group in groups.items():
        references = [f"{e.kind.name}/{e.id}" for e in group if e.id is not None]
        head = patient or group[0].kind.name
        commit = commits.get(head) if written else None
        events.append(event(access, group[0].call, patient, DONE, references, commit=commit))
    return events


async def _answer(gateway: Gateway, access: Access, entry: Entry, stored: Mapping[str, Document]) -> Answer:
    kind, document = entry.kind, stored.get(entry.id or "")
    if entry.call.interaction == "delete":
        version = document["version"] if document else (entry.former or {}).get("version")
        return Answer(204, type=kind.name, id=entry.id, version=version)
    if document is not None:
        created = entry.is_create and entry.change is not None
        return Answer(
            status=201 if created else 200,
            body=bytes(document["body"]),
            type=kind.name,
            id=entry.id,
            version=document["version"],
            updated=document["updated"],
            located=entry.is_create,
        )
    known = entry.existing or {}
    body = None
    if entry.call.prefer == "representation":
        found = await store.read(access, gateway.mongo, kind, entry.id or "")
        body = bytes(found["body"]) if found is not None and "body" in found else None
    return Answer(200, body, kind.name, entry.id, known.get("version"), known.get("updated"), located=True)
