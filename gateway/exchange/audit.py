"""What the audit says of a call.

Knows: how a call and its answer, or its refusal, become events: one per record it touched.
Must not know: how events are stored or shown.

A request without a valid token, or one that is no interaction of FHIR, leaves no event: there is nobody to name in it, and
strangers could fill the audit. It leaves a line in the log, with its status.
"""

import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from gateway.access.access import Access
from gateway.exchange.call import Call, Origin
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.tokens import Grant
from gateway.fhir.balp import BROKEN, DONE, FAILED, PROVIDED, PUBLISHED, REFUSED, Event
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem
from gateway.store.mongo import Document

Showing = tuple[str | None, str]  # whose it is (None: of who is asked about), and its reference

_LISTED = 10  # entities named in one event; the rest are counted, and found by the commit they carry


def happened(access: Access, call: Call, entities: Iterable[tuple[str | None, str]]) -> list[Event]:
    """The events of a call that was answered. `entities`: for each resource, its patient (None: nobody's) and reference."""
    touched: dict[str | None, list[str]] = {}
    for patient, reference in entities:
        touched.setdefault(patient, []).append(reference)
    return [event(access, call, patient, DONE, references) for patient, references in touched.items()]


def written(access: Access, entries: Iterable[Entry], commits: Mapping[str, int]) -> list[Event]:
    """The events of writes: one for each record, type and kind of write. What was written is told apart from what was there.

    `commits`: the number of each record's commit.
    """
    groups: dict[tuple[str | None, str, str, str | None, bool], list[Entry]] = {}
    asked = list(entries)
    published = {entry.call.place: entry.call.part_of or PUBLISHED for entry in asked if entry.publishes}
    for entry in asked:
        part = PROVIDED if entry.call.submitted else published.get(entry.call.place)
        key = (entry.patient, entry.kind.name, entry.call.interaction, part, entry.change is not None)
        groups.setdefault(key, []).append(entry)
    events = []
    for (patient, _, _, part, is_new), group in groups.items():
        references = [f"{e.kind.name}/{e.id}" for e in group if e.id is not None]
        commit = commits.get(patient or group[0].kind.name) if is_new else None
        events.append(event(access, group[0].call, patient, DONE, references, commit=commit, transaction=part))
    return events


def searched(
    access: Access,
    call: Call,
    kinds: Iterable[ResourceType],
    asked: Iterable[str],
    shown: Iterable[str],
    found: Iterable[Showing] | None = None,
) -> list[Event]:
    """The events of a search: one for each record that it asked about, or of which it was shown anything.

    Who had no right to find anything gets an empty result; the patient sees that it was tried. The query of a search over
    several records names their patients to each other: it stands in one more event, which belongs to none of them.
    `found`: what it showed, where that is to be known.
    """
    seen = set(shown)
    about: list[str | None] = [*dict.fromkeys((*asked, *sorted(seen)))] or [None]
    told = None if found is None else [*found]
    if len(about) > 1:
        alone = msgspec.structs.replace(call, raw=None)
        events = [_search(access, alone, kinds, patient, patient in seen, _of(told, patient)) for patient in about]
        return [*events, _search(access, call, kinds, None, bool(seen))]
    return [_search(access, call, kinds, about[0], about[0] in seen, _of(told, None))]


def shown_of(gateway: Gateway, found: Iterable[tuple[ResourceType, Document]]) -> list[Showing]:
    """What of these is to be known as shown: what its depositor can take back, and is told then who saw it."""
    operation = gateway.registry.operations.get("withdraw")
    types = operation.types if operation is not None else ()
    return [(document.get("patient"), f"{kind.name}/{document['_id']}") for kind, document in found if kind.name in types]


def _of(found: Sequence[Showing] | None, patient: str | None) -> tuple[str, ...] | None:
    """What of it is of this patient (None: all is of one)."""
    return None if found is None else tuple(one for owner, one in found if patient is None or owner in (None, patient))


def _search(
    access: Access,
    call: Call,
    kinds: Iterable[ResourceType],
    patient: str | None,
    seen: bool,
    shown: tuple[str, ...] | None = None,
) -> Event:
    if seen or any(access.reaches(kind, "search-type", patient) for kind in kinds):
        return replace(event(access, call, patient, DONE), shown=shown)
    return event(access, call, patient, REFUSED, reason="no right to this data")


def existing(access: Access, patients: Iterable[str]) -> list[str]:
    """Those of these patients whose records were looked up and are there."""
    return [p for p in patients if (record := access.records.get(p)) is not None and record.moment is not None]


def sought_in(access: Access, kind: ResourceType) -> str | None:
    """The record of what was to be deleted and is not there, so that the patient sees that it was tried."""
    asked = existing(access, access.records)
    return asked[0] if len(asked) == 1 and kind.in_compartment else None


def refused(access: Access, call: Call, problem: Problem) -> list[Event]:
    """The events of a call that was not answered: one for each record that was looked up for it."""
    refusal = REFUSED if problem.status in (403, 404, 422) else FAILED
    outcome = BROKEN if problem.status >= 500 else refusal
    entities = [f"{call.type}/{call.id}"] if call.id is not None and call.interaction != "create" else []
    about: list[str | None] = [*(problem.records or existing(access, access.records))] or [None]
    return [event(access, call, patient, outcome, entities, reason=problem.issues[0].text) for patient in about]


def granted(grant: Grant, token: bytes, origin: Origin) -> Event:
    """The event of a token that a system got. `token`: the key it is stored under, by which later events name it."""
    return Event(
        interaction="grant",
        type=None,
        patient=None,
        outcome=DONE,
        client=grant.client,
        kind=grant.kind,
        user=grant.user,
        purpose=grant.purpose,
        token=token.hex()[:16],
        request_id=origin.request_id,
        address=origin.address,
        reason=grant.scope,
        roles=grant.roles,
        organization=grant.organization,
    )


def at_machine(
    operator: str,
    interaction: str,
    *,
    type_name: str | None = None,
    patient: str | None = None,
    entities: Iterable[str] = (),
    reason: str | None = None,
) -> Event:
    """What an operator did at the machine itself, where nobody bears a token."""
    return Event(
        interaction=interaction,
        type=type_name,
        patient=patient,
        outcome=DONE,
        client=operator,
        kind="operator",
        user=None,
        purpose=None,
        token="",
        request_id=secrets.token_hex(12),
        address=None,
        entities=tuple(entities),
        reason=reason,
    )


def event(
    access: Access,
    call: Call,
    patient: str | None,
    outcome: str,
    references: list[str] | None = None,
    *,
    commit: int | None = None,
    reason: str | None = None,
    transaction: str | None = None,
) -> Event:
    """One event about one record."""
    caller = access.caller
    listed = references or []
    record = access.records.get(patient) if patient else None
    actor = access.kind_of_actor(record) if record else caller.kind
    return Event(
        interaction=call.interaction,
        type=call.type or None,
        patient=patient,
        outcome=outcome,
        client=caller.client,
        kind=actor,
        user=caller.user,
        purpose=access.purpose_of(actor),
        token=caller.token,
        subject=caller.subject,
        roles=caller.roles,
        organization=caller.organization,
        request_id=call.origin.request_id,
        address=call.origin.address,
        entities=tuple(listed[:_LISTED]),
        more=max(0, len(listed) - _LISTED),
        commit=commit,
        query=b64encode(call.raw.encode()).decode() if call.raw else None,
        consents=tuple(c.reference for c in record.consents if c.provision is not None) if record else (),
        reason=reason,
        transaction=transaction or (PROVIDED if call.submitted else None),
    )
