"""Relations of care as they are written: who may declare which, and what the head of the record keeps of them.

Knows: that professionals declare themselves, or where they work, and that what has ended is not taken up again.
Must not know: HTTP, MongoDB, what a relation opens.

The head of a record is read by every request about it; so a relation holds, and ends, at the next one, for no further call.
"""

from collections.abc import Iterable
from datetime import timedelta

from gateway.access.access import Access
from gateway.access.relation import Declared, forgotten, parse_care_team, running, write_relations
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.problem import Problem
from gateway.store.mongo import Document

_SKEW = timedelta(minutes=5)  # between the clocks of a client and of this service


def check_care_team(gateway: Gateway, access: Access, entry: Entry) -> None:
    """Refuse a CareTeam that its writer may not declare. Raises Problem with the element."""
    if access.caller.kind == "professional":
        _check_members(access, entry)
    declared = parse_care_team(entry.resource, gateway.policy.relations)
    if declared is None:
        return
    if len(declared.members) > gateway.policy.most_members:
        text = f"a relation of care has at most {gateway.policy.most_members} participants here"
        raise Problem("too-costly", text, "CareTeam.participant")
    if declared.rule.needs_reason and declared.members != (access.caller.user,):
        text = "this relation of care is declared by a person, of themselves alone"
        raise Problem("forbidden", text, "CareTeam.participant")
    is_of_profession = not declared.rule.professions or declared.rule.professions & access.caller.professions
    if access.caller.kind == "professional" and not is_of_profession:
        raise Problem("forbidden", "this relation of care is of another profession", "CareTeam.category")
    _check_time(access, entry, declared)


def _check_members(access: Access, entry: Entry) -> None:
    """A professional declares themselves, or where they work, and nobody else. A system alone treats nobody."""
    if access.caller.user is None:
        raise Problem("forbidden", "a relation of care is declared by a person", "CareTeam")
    for n, participant in enumerate(entry.resource.participant or ()):
        if participant.member is None or participant.member.reference not in access.caller.actors:
            text = "a professional declares nobody but themselves and where they work"
            raise Problem("forbidden", text, f"CareTeam.participant[{n}].member")


def _check_time(access: Access, entry: Entry, declared: Declared) -> None:
    if any(one.period.low > access.now + _SKEW for one in declared.relations):
        text = "a relation of care has begun when it is declared"
        raise Problem("business-rule", text, "CareTeam.period.start")
    record = access.records.get(entry.patient or "")
    if record is None or not any(one.period.high > access.now for one in declared.relations):
        return
    if entry.former is not None and entry.id not in running(record.declared, access.now):
        text = "it has ended, and is not taken up again: a new one is to be declared"
        raise Problem("business-rule", text, "CareTeam.status")


def limit_relations(gateway: Gateway, draft: Draft, fresh: Iterable[Entry]) -> None:
    """Each request about a record reads its relations of care, so they are not too many."""
    records, most = draft.access.records, gateway.policy.most_relations
    new = (
        entry
        for entry in fresh
        if entry.kind.group == "care" and entry.resource.status == "active" and entry.patient in records
        if entry.id not in records[entry.patient or ""].declared
    )
    draft.limit(
        new,
        lambda patient: len(running(records[patient].declared, draft.access.now)),
        most,
        lambda _: Problem("too-costly", f"a record has at most {most} relations of care in force here", "CareTeam"),
    )


def relations_kept(gateway: Gateway, access: Access, entry: Entry) -> Document:
    """What the head of the record keeps of a CareTeam that is written, by field; None for what it keeps no longer.

    What ended long ago goes with it. (It is not renewed by anybody meanwhile: what has ended is not taken up again.)
    """
    if entry.kind.group != "care":
        return {}
    record = access.records.get(entry.patient or "")
    policy, now = gateway.policy, access.now
    kept_since = now - policy.relations_remembered
    gone = forgotten(record.declared, now, kept_since, policy.most_relations) if record is not None else ()
    declared = None if entry.resource is None else parse_care_team(entry.resource, gateway.policy.relations)
    kept: Document = {f"care.{team}": None for team in gone}
    return {**kept, f"care.{entry.id}": write_relations(declared, access.now) if declared is not None else None}
