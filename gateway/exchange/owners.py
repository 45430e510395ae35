"""Whose record each written resource belongs to, and which id it has or gets.

Knows: how a patient is named (literally, by an entry of the same Bundle, by identifier, by the token's context), when a
resource is already there (by condition, by business key), in which bucket a new one goes.
Must not know: HTTP, MongoDB.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

from gateway.access.access import Record, unknown_reference
from gateway.exchange.addressed import find_addressed
from gateway.exchange.attachments import names_content
from gateway.exchange.criteria import find_by_condition, find_by_criteria
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry, decode_entry
from gateway.exchange.formers import find_formers
from gateway.exchange.gateway import Gateway
from gateway.exchange.standing import extend_to, whole
from gateway.fhir.identity import IDENTIFIER_BYTES, business_key, content_key, identifier_key, references_of
from gateway.fhir.registry import ResourceType
from gateway.fhir.values import token_values
from gateway.pace import paced
from gateway.problem import Issue, Problem
from gateway.store.change import require
from gateway.store.ids import bucket_of
from gateway.store.owners import find_identifiers
from gateway.store.standing import About

# A stranger's body is not worth more work than looking up the token.
_PREVIEW_BYTES, _PREVIEW_TARGETS = 65_536, 8


def preview(gateway: Gateway, kind: ResourceType, body: bytes) -> tuple[About, Any]:
    """What the body of a create says about whose it is, whether it is known and what it refers to; and its identity as read.

    Looked at before anybody is known to ask, so that all of it can be looked up together with the token. Nothing where that
    is not plain to see.
    """
    identity = gateway.identities.read(kind, body) if len(body) <= _PREVIEW_BYTES else None
    if identity is None:
        return About(), None
    owners = [reference.reference or "" for branch in kind.patient for reference in branch.read(identity)]
    patient = owners[0].removeprefix("Patient/") if owners and owners[0].startswith("Patient/") else None
    literal = (text.split("/") for text in references_of(identity) if text.count("/") == 1)
    targets = tuple(
        (type_name, identifier)
        for type_name, identifier in literal
        if type_name != "Patient" and gateway.registry.find(type_name) and bucket_of(identifier)
    )
    first = identifier_key(kind, identity, patient)
    bucket = patient[:3] if patient else gateway.ids.bucket(first or b"")
    about = About(
        patient=patient,
        keys=((kind.name, bucket, first),) if first and (patient or not kind.patient) else (),
        targets=targets if len(targets) <= _PREVIEW_TARGETS else (),
    )
    return about, identity


async def settle_ids(gateway: Gateway, draft: Draft) -> None:
    """Give every entry its patient and id, find what is already there, and widen the access to all records concerned.

    Directories and Patients first: what others refer to is known then.
    """
    # What attaches content says whose that is.
    owned = sorted((entry for entry in draft.entries if entry.kind.patient), key=lambda entry: entry.kind.is_raw)
    await _settle_all(gateway, draft, [entry for entry in draft.entries if not entry.kind.patient])
    async for entry in paced(owned):
        if entry.is_create or entry.replaces_by_criteria:
            try:
                entry.patient = await _find_patient(gateway, draft, entry)
            except Problem as problem:
                draft.refuse(entry, problem)
    draft.settle()
    draft.access = await extend_to(gateway, draft.access, {entry.patient for entry in owned if entry.patient})
    draft.access = await whole(gateway, draft.access)
    await _settle_all(gateway, draft, owned)
    draft.settle()
    for entry in owned:
        if entry.call.interaction in ("update", "patch"):
            await _check_owner(gateway, draft, entry)


async def _settle_all(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    if not entries:
        return
    await find_by_criteria(gateway, draft, [entry for entry in entries if entry.call.criteria is not None])
    changing = [entry for entry in entries if not entry.is_create and entry.id is not None]
    await find_formers(gateway, draft, changing)
    for entry in changing:
        if entry.full_url:
            draft.urls[entry.full_url] = f"{entry.kind.name}/{entry.id}"
    # What is known by what it refers to comes behind that.
    await _settle(gateway, draft, [entry for entry in entries if entry.is_create and not entry.kind.natural])
    await _settle(gateway, draft, [entry for entry in entries if entry.is_create and entry.kind.natural])


async def _settle(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    if not entries:
        return
    async for entry in paced(entries):
        if entry.deposit is not None:
            seed = f"{entry.patient}\0{entry.deposit.media}\0".encode() + entry.deposit.sha256
            caller = draft.access.caller
            entry.key = content_key(gateway.ids.digest(seed), caller.depositor or caller.source)
        else:
            localize = partial(draft.localize, there=draft.server_of(entry)) if entry.kind.natural else None
            entry.key = business_key(entry.kind, entry.identity, entry.patient, draft.access.caller.source, localize)
    await find_by_condition(gateway, draft, entries)
    await _find_by_key(gateway, draft, [e for e in entries if e.key and e.existing is None and e.twin is None])
    first_with_key: dict[bytes, Entry] = {}
    async for entry in paced(entries):
        if entry.key and entry.twin is None and not entry.matched:
            first = first_with_key.setdefault(entry.key, entry)
            entry.twin = first if first is not entry else None
        if entry.twin is not None:
            entry.id, entry.existing = entry.twin.id, entry.twin.existing
        elif entry.id is None:
            entry.id = gateway.ids.new(_bucket(gateway, entry))
        if entry.full_url:
            draft.urls[entry.full_url] = f"{entry.kind.name}/{entry.id}"
        if entry.kind.is_patient:
            entry.patient = entry.id
    draft.born |= {entry.id for entry in entries if entry.kind.is_patient and entry.id and entry.existing is None}
    draft.access = draft.access.over(Record(patient) for patient in draft.born) if draft.born else draft.access


def _bucket(gateway: Gateway, entry: Entry) -> str:
    if entry.patient is not None:
        return entry.patient[:3]
    return gateway.ids.bucket(entry.key[:IDENTIFIER_BYTES] if entry.key else gateway.ids.unique().encode())


async def _find_by_key(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    by_kind: dict[str, dict[str, list[bytes]]] = {}
    for entry in entries:
        by_kind.setdefault(entry.kind.name, {}).setdefault(_bucket(gateway, entry), []).append(entry.key or b"")
    asked = [gateway.lookups.find_known(draft.access, gateway.registry[name], keys) for name, keys in by_kind.items()]
    known: dict[bytes, Any] = {}
    for found in await asyncio.gather(*asked) if len(asked) > 1 else [await one for one in asked]:
        known |= found
    for entry in entries:
        entry.existing = known.get(entry.key or b"")
        if entry.existing is not None:
            entry.id = entry.existing["_id"]


def owner_issue(kind: ResourceType, resource: Any) -> Issue | None:
    """What is wrong with how a resource says whose it is, as far as the resource itself tells."""
    if kind.is_raw:  # what attaches it may say so
        return None
    references = [reference for branch in kind.patient for reference in branch.read(resource)]
    if any(map(_says_nothing, references)) or (kind.patient_required and not references):
        return Issue("required", "it must say whose data it is", f"{kind.name}.{kind.patient_path}")
    return None


async def _find_patient(gateway: Gateway, draft: Draft, entry: Entry) -> str | None:
    """The id of the patient whose resource is to be created, None where it is nobody's."""
    kind = entry.kind
    if kind.is_raw:
        return await _find_patient_of_content(gateway, draft, entry)
    expression = f"{entry.expression()}.{kind.patient_path}"
    found: set[str] = set()
    for reference in _owners(entry, entry.identity or entry.resource):
        if _says_nothing(reference):
            raise Problem("required", "it must say whose data it is", expression)
        named = await _named_patient(gateway, draft, entry, reference)
        if named is None:
            raise unknown_reference(f"{expression}.reference")
        found.add(named)
    if len(found) > 1:
        raise Problem("business-rule", "a resource belongs to one patient", expression)
    if found:
        return found.pop()
    if kind.patient_required:
        raise Problem("required", "it must say whose data it is", expression)
    return draft.access.caller.patient


async def _find_patient_of_content(gateway: Gateway, draft: Draft, entry: Entry) -> str:
    """The patient whom content says it is of, or else what attaches it in the same Bundle, or else the token."""
    found = {await _named_patient(gateway, draft, entry, reference) for reference in _owners(entry, entry.resource)} - {None}
    for other in draft.entries if entry.full_url and not found else ():
        if other.kind.attachments and other.call.interaction in ("create", "update"):
            if other.resource is None:
                decode_entry(gateway, other)
            if names_content(other, entry.full_url or "", draft.server_of(other)):
                owners = list(_owners(other, other.resource))
                found |= {await _named_patient(gateway, draft, other, reference) for reference in owners} - {None}
    if not found and entry.call.submitted:  # nothing attaches it; whose the submission is, the others say
        found |= {other.patient for other in draft.entries if other.call.submitted and not other.kind.is_raw} - {None}
    if len(found) > 1:
        raise Problem("business-rule", "a resource belongs to one patient", f"{entry.expression()}.{entry.kind.patient_path}")
    patient = found.pop() if found else draft.access.caller.patient
    if patient is None:
        raise Problem("required", "it must say whose data it is", f"{entry.expression()}.{entry.kind.patient_path}")
    # It is this service that says through what it is read.
    entry.resource.securityContext = gateway.registry.types.struct("Reference")(reference=f"Patient/{patient}")
    return patient


async def _check_owner(gateway: Gateway, draft: Draft, entry: Entry) -> None:
    """An update leaves a resource in its record, and says so. Whether another patient exists is no matter."""
    expression = f"{entry.expression()}.{entry.kind.patient_path}"
    references = list(_owners(entry, entry.resource))
    if not references and entry.kind.patient_required:
        raise Problem("required", "it must say whose data it is", expression)
    for reference in references:
        if await _named_patient(gateway, draft, entry, reference) != entry.patient:
            raise Problem("business-rule", "an update cannot move a resource to another patient", expression)


async def check_described(gateway: Gateway, draft: Draft, entries: Iterable[Entry]) -> None:
    """Refuse what describes its patient under another identifier of a system than the one that they have.

    Other identifiers, of the place it comes from, and other traits are kept and are nothing that this service learns.
    """
    known: dict[str, set[str]] = {}
    for entry in entries:
        told = [identifier for branch in entry.kind.described for identifier in branch.read(entry.resource)]
        if not told or entry.change is None or entry.patient is None or entry.existing is not None:
            continue
        require(draft.access, entry.change)
        if entry.patient not in known:
            known[entry.patient] = {*await find_identifiers(gateway.mongo, entry.patient)}
        for identifier in told:
            mine = {token for token in known[entry.patient] if token.startswith(f"{identifier.system}|")}
            if identifier.system and mine and f"{identifier.system}|{identifier.value}" not in mine:
                expression = f"{entry.kind.name}.{entry.kind.described_path}"
                text = "this is another patient than the one whose data it is"
                draft.refuse(entry, entry.locate(Problem("business-rule", text, expression, status=422)))


def _owners(entry: Entry, resource: Any) -> Iterable[Any]:
    return (reference for branch in entry.kind.patient for reference in branch.read(resource))


def _says_nothing(reference: Any) -> bool:
    identifier = reference.identifier
    return reference.reference is None and (identifier is None or not identifier.system or not identifier.value)


async def _named_patient(gateway: Gateway, draft: Draft, entry: Entry, reference: Any) -> str | None:
    """The id of the patient whom a reference names, whether there is such a patient or not; None where it names none."""
    if reference.reference is not None:
        target, _, identifier = draft.localize(reference.reference, draft.server_of(entry)).partition("/")
        return identifier if target == "Patient" and identifier and "/" not in identifier else None
    if _says_nothing(reference):
        return None
    issues = [*gateway.identifiers.issues(reference.identifier, f"{entry.expression()}.{entry.kind.patient_path}.identifier")]
    if issues:
        raise Problem.of(issues, status=422)
    token = token_values(reference.identifier.system, reference.identifier.value)[0]
    if token not in draft.patients:
        draft.patients[token] = await find_addressed(gateway, token)
    return draft.patients[token]
