"""Searches that writes rest on: `If-None-Exist`, and criteria in place of an id.

Knows: https://hl7.org/fhir/R4/http.html#ccreate, #cond-update and #cdelete: what none, one or several matches mean. A search
finds what the caller may see or has deposited; what it found is asked again when the write is committed.
Must not know: HTTP, MongoDB.
"""

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import sought_in
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry, require_kind
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import read_pairs
from gateway.exchange.search import read_criteria, widen
from gateway.fhir.clause import Clause, Test, every, negate
from gateway.fhir.identity import digest_of
from gateway.problem import Problem
from gateway.store.conditions import Condition, find_matches, require_findable
from gateway.store.mongo import Document

Conditions = dict[str, dict[Clause, Entry]]  # by type


async def find_by_condition(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    """Find what answers these creates in place of something new."""
    asked: Conditions = {}
    for entry in entries:
        if entry.call.if_none_exist is None:
            continue
        try:
            clause = await _condition(gateway, draft.access, entry)
            require_findable(draft.access, entry.kind, clause)
        except Problem as problem:
            draft.refuse(entry, _at_condition(entry, problem))
            continue
        first = asked.setdefault(entry.kind.name, {}).setdefault(clause, entry)
        if first is not entry:  # the same condition twice in one Bundle: one resource answers both
            entry.twin, entry.matched = first, True
    for entry, clause, found in await _matches(gateway, draft, asked):
        if found is not None:
            entry.id, entry.existing, entry.matched = found["_id"], found, True
        else:
            entry.condition = Condition(entry.kind, clause, entry.kind.name if entry.kind.is_patient else None)


async def find_by_criteria(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    """Give those that name their resource by criteria its id. Where there is none, an update becomes a create."""
    asked: Conditions = {}
    for entry in entries:
        try:
            clause = await _criteria(gateway, draft, entry)
            require_findable(draft.access, entry.kind, clause)
        except Problem as problem:
            raise _at_condition(entry, problem) from None
        if asked.setdefault(entry.kind.name, {}).setdefault(clause, entry) is not entry:
            raise Problem("invalid", "the same criteria stand twice in one transaction", entry.condition_expression)
    for entry, clause, found in await _matches(gateway, draft, asked):
        if found is None:
            _settle_unmatched(gateway, draft.access, entry, clause)
            continue
        entry.id = found["_id"]
        if entry.replaces_by_criteria and entry.resource.id not in (None, entry.id):
            raise Problem("invalid", "the id is not that of the resource which meets the criteria", entry.expression(".id"))
        # It must still be the only one when this is committed. Beyond its own record, the head of the type guards that.
        is_alone = not entry.kind.is_patient and [*draft.access.records] == [found.get("patient")]
        others = every(clause, negate(Test("_id", "is", entry.id)))
        entry.condition = Condition(entry.kind, others, None if is_alone else entry.kind.name)


def _settle_unmatched(gateway: Gateway, access: Access, entry: Entry, clause: Clause) -> None:
    """Nothing meets the criteria: an update creates, a deletion has nothing to do."""
    if entry.call.interaction == "delete":
        entry.patient = sought_in(access, entry.kind)
        return
    if entry.call.interaction == "patch":
        raise Problem("not-found", f"there is no such {entry.kind.name} here", entry.call.place)
    if entry.call.if_match is not None:
        raise Problem("conflict", "nothing meets the criteria, so there is no version to match", entry.call.place, status=412)
    if entry.resource.id is not None:
        raise Problem("not-supported", "ids are given by this service: leave it out", entry.expression(".id"))
    entry.call = msgspec.structs.replace(entry.call, interaction="create", criteria=None)
    require_kind(gateway, entry.call)
    try:
        access.require(entry.kind, "create")
    except Problem as problem:
        raise entry.locate(problem) from None
    entry.identity, entry.digest = entry.resource, digest_of(entry.call.body or b"")
    entry.condition = Condition(entry.kind, clause, entry.kind.name if entry.kind.is_patient else None)


async def _matches(gateway: Gateway, draft: Draft, asked: Conditions) -> list[tuple[Entry, Clause, Document | None]]:
    """What meets each condition, None where nothing does. Raises Problem 412 where several do."""
    matched: list[tuple[Entry, Clause, Document | None]] = []
    for name, conditions in asked.items():
        kind, seconds = gateway.registry[name], gateway.limits.search_seconds
        matches = await find_matches(draft.access, gateway.mongo, kind, list(conditions), seconds=seconds)
        for (clause, entry), found in zip(conditions.items(), matches, strict=True):
            if len(found) > 1:
                text = "the condition matches several resources"
                draft.refuse(entry, Problem("multiple-matches", text, entry.condition_expression))
            matched.append((entry, clause, found[0] if found else None))
    return matched


async def _condition(gateway: Gateway, access: Access, entry: Entry) -> Clause:
    """What must not exist yet."""
    access.require(entry.kind, "search-type")
    pairs = read_pairs((entry.call.if_none_exist or "").removeprefix("?").encode())
    return _in_record(entry, await read_criteria(gateway, access, entry.kind, pairs))


async def _criteria(gateway: Gateway, draft: Draft, entry: Entry) -> Clause:
    """What is to be written to. A patch or deletion says itself in whose record it is looked for."""
    draft.access.require(entry.kind, "search-type")
    pairs = entry.call.criteria or ()
    clause = await read_criteria(gateway, draft.access, entry.kind, pairs)
    if entry.replaces_by_criteria:
        return _in_record(entry, clause)
    draft.access = await widen(gateway, draft.access, entry.kind, pairs, clause)
    return clause


def _in_record(entry: Entry, clause: Clause) -> Clause:
    """The condition within the record that the resource is for, whose head then guards it."""
    if not entry.kind.patient:
        return clause
    return every(clause, Test("patient", "is", entry.patient) if entry.patient else Test("patient", "missing", True))


def _at_condition(entry: Entry, problem: Problem) -> Problem:
    where = entry.condition_expression
    return problem if where is None else problem.moved(where)
