"""Whose record each written resource belongs to, and which id it has or gets.

Knows: how a patient is named (literally, by an entry of the same Bundle, by identifier, by the token's context), when a
resource is already there (by condition, by business key), in which bucket a new one goes.
Must not know: HTTP, MongoDB.
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from gateway.access.access import Access, Record, unknown_reference
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.search import read_criteria
from gateway.exchange.standing import extend_to
from gateway.fhir.clause import Clause
from gateway.fhir.identity import IDENTIFIER_BYTES, business_key, identifier_key, references_of
from gateway.fhir.registry import ResourceType
from gateway.fhir.values import token_values
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.commit import Condition
from gateway.store.ids import bucket_of
from gateway.store.standing import About

_PREVIEW_BYTES = 65_536  # a stranger's body is not worth more work than looking up the token


def preview(gateway: Gateway, kind: ResourceType, body: bytes) -> About:
    """What the body of a create says about whose it is, whether it is known and what it refers to.

    Looked at before anybody is known to ask, so that all of it can be looked up together with the token. Nothing where that
    is not plain to see.
    """
    identity = gateway.identities.read(kind, body) if len(body) <= _PREVIEW_BYTES else None
    if identity is None:
        return About()
    owners = [reference.reference or "" for branch in kind.patient for reference in branch.read(identity)]
    patient = owners[0].removeprefix("Patient/") if owners and owners[0].startswith("Patient/") else None
    literal = (text.split("/") for text in references_of(identity) if text.count("/") == 1)
    first = identifier_key(kind, identity, patient)
    bucket = patient[:3] if patient else gateway.ids.bucket(first or b"")
    return About(
        patient=patient,
        keys=((kind.name, bucket, first),) if first and (patient or not kind.patient) else (),
        targets=tuple(
            (type_name, identifier)
            for type_name, identifier in literal
            if type_name != "Patient" and gateway.registry.find(type_name) and bucket_of(identifier)
        ),
    )


@dataclass(slots=True)
class Draft:
    """A plan in the making. `urls`: what each fullUrl of the Bundle stands for, as `Type/id`."""

    access: Access
    entries: list[Entry]
    urls: dict[str, str] = field(default_factory=dict)
    conditions: list[Condition] = field(default_factory=list)


async def settle_ids(gateway: Gateway, draft: Draft) -> None:
    """Give every entry its patient and id, find what is already there, and widen the access to all records concerned."""
    creates = [entry for entry in draft.entries if entry.is_create]
    await _settle(gateway, draft, [entry for entry in creates if not entry.kind.patient])
    owned = [entry for entry in creates if entry.kind.patient]
    tokens: dict[str, str | None] = {}
    for entry in owned:
        entry.patient = await _find_patient(gateway, draft, entry, tokens)
    if any(scope.level != "patient" for scope in draft.access.caller.scopes):
        named = {entry.patient for entry in owned if entry.patient}
        draft.access = await extend_to(gateway, draft.access, named)
    await _settle(gateway, draft, owned)


async def _settle(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    for entry in entries:
        entry.key = business_key(entry.kind, entry.identity, entry.patient, draft.access.caller.source)
    await _find_by_condition(gateway, draft, entries)
    await _find_by_key(gateway, draft, [e for e in entries if e.key and e.existing is None and e.twin is None])
    first_with_key: dict[bytes, Entry] = {}
    for entry in entries:
        if entry.key and entry.twin is None and first_with_key.setdefault(entry.key, entry) is not entry:
            entry.twin = first_with_key[entry.key]
        if entry.twin is not None:
            entry.id, entry.existing = entry.twin.id, entry.twin.existing
        elif entry.id is None:
            entry.id = gateway.ids.new(_bucket(gateway, entry))
        if entry.full_url:
            draft.urls[entry.full_url] = f"{entry.kind.name}/{entry.id}"
        if entry.kind.is_patient:
            entry.patient = entry.id
    created = [entry.id for entry in entries if entry.kind.is_patient and entry.id and entry.existing is None]
    draft.access = draft.access.over(Record(patient) for patient in created)


def _bucket(gateway: Gateway, entry: Entry) -> str:
    if entry.patient is not None:
        return entry.patient[:3]
    return gateway.ids.bucket(entry.key[:IDENTIFIER_BYTES] if entry.key else gateway.ids.unique().encode())


async def _find_by_condition(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    asked: dict[Clause, Entry] = {}
    for entry in entries:
        if entry.call.if_none_exist is None:
            continue
        clause = await _condition(gateway, draft.access, entry)
        first = asked.setdefault(clause, entry)
        if first is not entry:  # the same condition twice in one Bundle: one resource answers both
            entry.twin, entry.matched = first, True
            continue
        seconds = gateway.limits.search_seconds
        found = await store.find_matches(draft.access, gateway.mongo, entry.kind, clause, seconds=seconds)
        if len(found) > 1:
            expression = entry.call.place and f"{entry.call.place.removesuffix('.resource')}.request.ifNoneExist"
            raise Problem("multiple-matches", "the condition matches several resources", expression)
        if found:
            entry.id, entry.existing, entry.matched = found[0]["_id"], found[0], True
        else:
            draft.conditions.append(Condition(entry.kind, clause))


async def _condition(gateway: Gateway, access: Access, entry: Entry) -> Clause:
    access.require(entry.kind, "search-type")
    pairs = parse_pairs(entry.call.if_none_exist or "")
    return await read_criteria(gateway, access, entry.kind, pairs)


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """The decoded parameters of a query string."""
    return parse_qsl(text.removeprefix("?"), keep_blank_values=True)


async def _find_by_key(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    by_kind: dict[str, dict[str, list[bytes]]] = {}
    for entry in entries:
        by_kind.setdefault(entry.kind.name, {}).setdefault(_bucket(gateway, entry), []).append(entry.key or b"")
    known: dict[bytes, Any] = {}
    for name, keys_of in by_kind.items():
        known |= await gateway.lookups.find_known(draft.access, gateway.registry[name], keys_of)
    for entry in entries:
        entry.existing = known.get(entry.key or b"")
        if entry.existing is not None:
            entry.id = entry.existing["_id"]


async def _find_patient(gateway: Gateway, draft: Draft, entry: Entry, tokens: dict[str, str | None]) -> str | None:
    """The id of the patient whose resource this is, None where it is nobody's."""
    kind = entry.kind
    expression = f"{entry.expression()}.{kind.patient_path}"
    found: set[str] = set()
    for reference in (r for branch in kind.patient for r in branch.read(entry.identity)):
        found.add(await _resolve_patient(gateway, draft, reference, expression, tokens))
    if len(found) > 1:
        raise Problem("business-rule", "a resource belongs to one patient", expression)
    if found:
        return found.pop()
    if kind.patient_required:
        raise Problem("required", "it must say whose data it is", expression)
    return draft.access.caller.patient


async def _resolve_patient(
    gateway: Gateway, draft: Draft, reference: Any, expression: str, tokens: dict[str, str | None]
) -> str:
    text = reference.reference
    if text is not None:
        text = draft.urls.get(text, text).removeprefix(f"{gateway.settings.base_url}/")
        target, _, identifier = text.partition("/")
        if target != "Patient" or not identifier or "/" in identifier:
            raise unknown_reference(f"{expression}.reference")
        return str(identifier)
    values = token_values(reference.identifier.system, reference.identifier.value) if reference.identifier else []
    if not values or reference.identifier.system is None:
        raise Problem("required", "it must say whose data it is", expression)
    if values[0] not in tokens:
        tokens[values[0]] = await store.find_patient(gateway.mongo, values[0])
    patient = tokens[values[0]]
    if patient is None:
        raise unknown_reference(expression)
    return patient
