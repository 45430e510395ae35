"""Answering again what was done before, under the rights of now.

Knows: how the answer of a write is built anew from its receipt, and what has to hold for that: what may no longer be written,
or known, is refused as the same request would be if it came for the first time.
Must not know: HTTP, MongoDB.
"""

from collections.abc import Sequence

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import existing, sought_in, written
from gateway.exchange.call import Answer, Call
from gateway.exchange.entries import Entry, require_kind
from gateway.exchange.formers import missing_former
from gateway.exchange.gateway import Gateway
from gateway.exchange.read import body_of
from gateway.exchange.search import record_named
from gateway.exchange.standing import extend_to, whole
from gateway.exchange.withheld import Withheld, find_withheld
from gateway.fhir.balp import Event
from gateway.problem import Problem
from gateway.store.mongo import Document
from gateway.store.owners import find_owners
from gateway.store.receipts import Done, read_written
from gateway.store.resources import as_values

Repeat = tuple[Entry, Done]


async def replay(
    gateway: Gateway, access: Access, calls: Sequence[Call], done: Sequence[Done]
) -> tuple[list[Answer], list[Event], Access]:
    """The answers that these calls had, what is to be audited of that, and the access over the records concerned.

    Raises Problem where one of them would be refused now.
    """
    repeats = [(_admit(gateway, access, call, one), one) for call, one in zip(calls, done, strict=True)]
    by_kind: dict[str, list[Repeat]] = {}
    for repeat in repeats:
        by_kind.setdefault(repeat[0].kind.name, []).append(repeat)
    left: dict[str, Document] = {}
    for name, alike in by_kind.items():
        ids = [one.id for _, one in alike if one.id is not None]
        named = {patient for entry, _ in alike if (patient := record_named(entry.call.criteria or ()))}
        access = await extend_to(gateway, access, named | await find_owners(gateway.mongo, name, ids))
        access = await whole(gateway, access)
        try:
            left |= await _look_up(gateway, access, alike)
        except Problem as problem:
            raise problem.about(existing(access, access.records)) from None
    found = [(entry.kind, left[one.id]) for entry, one in repeats if one.id in left]
    withheld = await find_withheld(gateway, access, found)
    answers = [_answer(gateway, access, entry, one, left.get(one.id or "", {}), withheld) for entry, one in repeats]
    return answers, written(access, (entry for entry, _ in repeats), {}), access


def _admit(gateway: Gateway, access: Access, call: Call, done: Done) -> Entry:
    call = msgspec.structs.replace(call, interaction=done.interaction)  # a conditional update may have been a create
    entry = Entry(call, require_kind(gateway, call), id=done.id)
    try:
        access.require(entry.kind, call.interaction)
    except Problem as problem:
        raise entry.locate(problem) from None
    return entry


async def _look_up(gateway: Gateway, access: Access, repeats: list[Repeat]) -> dict[str, Document]:
    """The resources of one type as they were left, by id. Says of each entry as what it is found now."""
    kind = repeats[0][0].kind
    found = await read_written(access, gateway.mongo, kind, [(one, entry.call.place) for entry, one in repeats])
    for entry, one in repeats:
        if one.id is None:
            entry.patient = sought_in(access, kind)
        elif one.id in found:
            entry.existing = found[one.id][0]
            entry.patient = entry.existing.get("patient")
        else:
            raise missing_former(entry)
    return {identifier: left for identifier, (_, left) in found.items()}


def _answer(gateway: Gateway, access: Access, entry: Entry, done: Done, left: Document, withheld: Withheld) -> Answer:
    is_located = entry.is_create or entry.call.renews
    receipt = done.receipt if entry.call.renews else None
    answer = Answer(done.status, type=done.type, id=done.id, version=done.version, replayed=True, receipt=receipt)
    if done.interaction == "delete":
        return answer
    # One that was there already is shown as a read would show it, and only to whom prefers that.
    is_new = done.status == 201 or not entry.is_create
    is_shown = is_new or (entry.call.prefer == "representation" and _may_read(access, entry, left))
    body = body_of(gateway, entry.kind, left, withheld) if is_shown and "body" in left else None
    return msgspec.structs.replace(answer, body=body, updated=left["updated"], located=is_located)


def _may_read(access: Access, entry: Entry, left: Document) -> bool:
    documents = (entry.existing or {}, left)
    return all(access.admits(entry.kind, "read", as_values(document)) for document in documents)
