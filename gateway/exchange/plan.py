"""Planning a write: from entries to the changes of one transaction.

Knows: the order of checks. Nothing is written here; what a plan rests on is asked again when it is committed.
Must not know: HTTP, MongoDB.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from gateway.access.access import Access, unknown_reference
from gateway.exchange.attachments import check_attachments, read_deposit
from gateway.exchange.audit import existing
from gateway.exchange.care import check_care_team, limit_relations
from gateway.exchange.consents import check_consent, limit_consents
from gateway.exchange.consequences import label_sets_again
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry, decode_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.inline import move_out, move_patched
from gateway.exchange.known import check_keys, compare_known, duplicate, says_the_same
from gateway.exchange.labels import check_labels, limit_ends
from gateway.exchange.lifecycle import check_lifecycle, left_of, supersede
from gateway.exchange.links import check_references, resolve_references
from gateway.exchange.merging import check_merges
from gateway.exchange.owners import check_described, settle_ids
from gateway.exchange.recipients import check_recipients
from gateway.exchange.rules import rule_issues
from gateway.exchange.sought import check_sought, resolve_sought
from gateway.exchange.submission import is_publication, label_sets, make_sets, warnings_of
from gateway.exchange.versions import change_of, deletion_of
from gateway.exchange.withheld import put_back
from gateway.fhir.dates import read_span
from gateway.pace import paced
from gateway.problem import Problem
from gateway.store.change import Change, Plan, require, require_write
from gateway.store.conditions import Sole

# Checks that only one type needs and that depend on who writes, by type.
Check = Callable[[Gateway, Access, Entry], None]

_NONE: Mapping[str, str] = {}
_A_DAY = timedelta(days=1)  # more than zones differ


async def make_plan(
    gateway: Gateway, access: Access, entries: list[Entry], urls: Mapping[str, str] = _NONE, *, apart: bool = False
) -> tuple[Access, Plan]:
    """The plan of these entries, and the access over all records they touch. Raises Problem where one cannot be done.

    `urls`: what links of theirs stand for, as `Type/id`, besides the entries themselves. `apart`: each entry stands for
    itself; raises Refused where any of them says why it cannot be done.
    """
    for entry in entries:
        if entry.kind.is_raw and entry.is_create:
            read_deposit(gateway, entry)
        entry.publishes = is_publication(gateway, entry)
    entries += move_out(gateway, entries)
    draft = Draft(access, entries, f"{gateway.settings.base_url}/", apart, dict(urls))
    try:
        plan = await _make(gateway, draft)
    except Problem as problem:
        raise problem.about(existing(draft.access, draft.access.records)) from None
    return draft.access, plan


async def _make(gateway: Gateway, draft: Draft) -> Plan:
    await resolve_sought(gateway, draft)
    await settle_ids(gateway, draft)
    check_sought(draft)
    _refuse_overlap(draft.entries)
    fresh = await _to_be_written(gateway, draft)
    fresh += move_patched(gateway, draft, fresh)
    fresh += make_sets(gateway, draft, fresh)
    label_sets(gateway, draft, fresh)
    targets = await resolve_references(gateway, draft, fresh)
    for entry in fresh:
        if entry.withheld and entry.former is not None:
            put_back(gateway, entry.kind, entry.resource, bytes(entry.former["body"]), entry.withheld)
    fresh += await supersede(gateway, draft, fresh)
    async for entry in paced(fresh):
        if entry.refusal is None:
            try:
                _check(gateway, draft, entry)
            except Problem as problem:
                draft.refuse(entry, problem)
    fresh += await label_sets_again(gateway, draft, fresh)
    await limit_consents(gateway, draft, fresh)
    limit_relations(gateway, draft, fresh)
    limit_ends(gateway, draft, fresh)
    await check_recipients(gateway, draft, fresh)
    await check_references(gateway, draft, targets)
    await check_attachments(gateway, draft, fresh)
    await check_described(gateway, draft, fresh)
    draft.settle()
    await check_keys(gateway, draft, fresh)
    await compare_known(gateway, draft, [entry for entry in fresh if entry.existing is not None])
    draft.settle()
    check_merges(gateway, draft)
    written = [entry for entry in draft.entries if entry.change is not None]
    conditions = [*draft.conditions, *(e.condition for e in written if e.condition)]
    return Plan([e.change for e in written if e.change], conditions, [*_soles(draft, written)])


def _soles(draft: Draft, written: list[Entry]) -> Iterator[Sole]:
    """The new documents that have a name: nothing that their writer may see is to have the same when they are committed."""
    for entry in written:
        record = draft.access.records.get(entry.patient or "")
        if entry.change is None or entry.change.former is not None or entry.kind.lifecycle is None or entry.key is None:
            continue
        if record is None or record.moment is None or entry.change.key is None:
            continue
        # (Of another record than that in the token's context, what is known was looked up before its last commit was.)
        is_certain = draft.access.caller.patient in (None, entry.patient)
        yield Sole(entry.kind, record.patient, entry.change.key, record.moment[0] if is_certain else 0)


async def _to_be_written(gateway: Gateway, draft: Draft) -> list[Entry]:
    fresh: list[Entry] = []
    async for entry in paced(draft.entries):
        try:
            if entry.refusal is None and _is_to_be_written(gateway, draft.access, entry):
                fresh.append(entry)
        except Problem as problem:
            draft.refuse(entry, problem)
    return fresh


def _check(gateway: Gateway, draft: Draft, entry: Entry) -> None:
    """What one entry says, and whether its writer may say that there."""
    try:
        _check_content(gateway, draft.access, entry)
    except Problem as problem:
        raise entry.locate(problem) from None
    change = change_of(gateway, draft.access, entry)
    entry.change = change if check_lifecycle(gateway, draft.access, entry, change) else None
    entry.warnings = tuple(warnings_of(gateway, entry)) if entry.kind.attachments or entry.call.submitted else ()
    _check_record(gateway, draft, entry, change)
    check_labels(gateway, draft.access, entry, set(change.values.get("labels", ())))
    if draft.apart:
        require(draft.access, change)  # what writes together asks all at the same time, behind this


def _is_to_be_written(gateway: Gateway, access: Access, entry: Entry) -> bool:
    """Whether the entry brings content that is not stored yet, as far as its bytes tell; decodes it if so."""
    if entry.call.interaction == "delete":
        if entry.former is not None and not entry.former.get("deleted"):
            entry.change = deletion_of(gateway, access, entry)
        return False
    if entry.existing is not None and entry.existing.get("withdrawn"):
        text = "this was withdrawn because it was of somebody else, and is not taken for this patient again"
        raise Problem("business-rule", text, entry.expression())
    if entry.existing is not None and (entry.is_resent or entry.matched):
        require_write(access, entry.kind, "create", entry.existing, entry.call.place)
    if entry.is_resent:
        return False
    if entry.resource is None:
        decode_entry(gateway, entry)
    if entry.twin is not None and not entry.matched and not says_the_same(gateway, entry, entry.twin):
        raise duplicate(entry)
    return not entry.matched and entry.twin is None


def _refuse_overlap(entries: list[Entry]) -> None:
    """BUN-06: one transaction touches a resource once, and changes nothing that answers a create."""
    changed: set[str] = set()
    for entry in entries:
        if not entry.is_create and entry.id is not None:
            reference = f"{entry.kind.name}/{entry.id}"
            if reference in changed:
                raise _touched_twice(entry.call.place)
            changed.add(reference)
    for entry in entries if changed else ():
        if entry.is_create and f"{entry.kind.name}/{entry.id}" in changed:
            raise _touched_twice(entry.condition_expression if entry.matched else entry.call.place)


def _touched_twice(expression: str | None) -> Problem:
    return Problem("invalid", "the same resource is touched twice in one transaction", expression)


def _check_content(gateway: Gateway, access: Access, entry: Entry) -> None:
    """Profiles and the rules of single types. Raises Problem with every issue found."""
    issues = left_of(entry, rule_issues(gateway, entry.kind.name, entry.resource, entry.call.profiles))
    if issues:
        raise Problem.of(issues, status=422)  # well-formed, whatever it is that cannot be honoured
    check = _OWN_CHECKS.get(entry.kind.name)
    if check is not None:
        check(gateway, access, entry)


_OWN_CHECKS: Mapping[str, Check] = {"Consent": check_consent, "CareTeam": check_care_team}


def _check_record(gateway: Gateway, draft: Draft, entry: Entry, change: Change) -> None:
    """Refuse what belongs to a patient who does not exist as it would be refused for one who may not be written to.

    To who may, it is told that a record takes nothing new.
    """
    if entry.patient is None or entry.patient in draft.born or not entry.is_create or entry.existing is not None:
        return
    record, caller = draft.access.records.get(entry.patient), draft.access.caller
    is_closed = record is not None and record.closed and caller.kind in gateway.policy.closed_to
    born = record.born if record is not None else None
    if born is not None and _is_before(gateway, entry, born):
        require(draft.access, change)
        text = "it is of a time before its patient was born"
        raise entry.locate(Problem("business-rule", text, "Observation.effective", status=422))
    if record is None or record.moment is None or record.is_replaced or is_closed:
        require(draft.access, change)
        expression = f"{entry.kind.name}.{entry.kind.patient_path or 'id'}"
        if record is None or record.moment is None:
            raise entry.locate(unknown_reference(expression))
        why = "another Patient has taken its place" if record.is_replaced else "its Patient is not active"
        raise entry.locate(Problem("business-rule", f"this record is closed, and takes nothing new: {why}", expression))


def _is_before(gateway: Gateway, entry: Entry, born: str) -> bool:
    """Whether it is a reading that ends before this date begins anywhere."""
    if entry.kind.name != "Observation" or not gateway.plausible.is_reading(entry.resource):
        return False
    text = entry.resource.effectiveDateTime
    return text is not None and read_span(born).low - read_span(text).high >= _A_DAY
