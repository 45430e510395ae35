"""What a paired app sends: a Bundle of one Observation, with the Device that measured it if one did (IHE PCH-01).

Knows: the shape of that Bundle and the texts that say what is wrong with it (API Mesures 1.5.2 §2.2); what it becomes here: two
creates of one transaction. Must not know: HTTP, MongoDB.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from http import HTTPStatus
from typing import Any

from gateway.exchange.audit import refused
from gateway.exchange.call import Answer, Call, Origin
from gateway.exchange.gateway import Gateway
from gateway.exchange.write import write
from gateway.fhir.bundle import build_bundle, read_bundle
from gateway.fhir.codec import Codec
from gateway.fhir.dates import read_span
from gateway.fhir.values import token_values
from gateway.mesures.measures import Measures
from gateway.mesures.pairing import NO_CONSENT, OTHER_PATIENT, Pairing
from gateway.problem import Issue, Problem
from gateway.store.receipts import Once

NO_BUNDLE = "No bundle provided."
NOT_LINKED = "Observation and device not linked by id (Observation.device.reference <-> Device.id)"
IF_NONE_EXIST = "Device request must have a valid IfNoneExist attribute : identifier=urn:oid:<OID>|<DEVICE ID>"
ONE_OBSERVATION = "Bundle must contains one observation creation (POST)"

# What a measure without a device and an identifier of its sender is known by when it comes again.
MEASURES = "urn:fhir-document-gateway:measure"
_DEVICE = "urn:uuid:00000000-0000-4000-8000-000000000001"  # what the Observation calls the Device of its Bundle

_CONDITION = re.compile(r"identifier=(urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+)(?:\||%7[Cc])([^|&,\s]+)")


@dataclass(slots=True)
class _Entry:
    """An entry of the Bundle: its position, resource and condition."""

    position: int
    resource: Any
    condition: str | None

    @property
    def place(self) -> str:
        return f"Bundle.entry[{self.position}].resource"


async def push(
    gateway: Gateway, measures: Measures, pairing: Pairing, body: bytes, origin: Origin, once: Once | None
) -> tuple[bytes, bool]:
    """The transaction-response, entries in the order they were sent in, and whether it is that of an earlier request.

    Raises Problem with the texts of the API; nothing is stored then.
    """
    access = pairing.access
    try:
        pairing.require_consent(gateway.registry["Observation"], "create")
        entries = _read(gateway, measures, pairing, body)
        calls = [_call(gateway, pairing, entry, origin) for entry in entries]
        answers, events = await write(gateway, access, calls, once=once)
    except Problem as problem:
        told = problem
        if problem.code == "forbidden" and problem.issues[0].text != OTHER_PATIENT:
            told = Problem("forbidden", NO_CONSENT, problem.issues[0].expression)
        await gateway.audit.record(refused(access, Call("transaction", "Bundle", origin), told), access.now)
        raise told from None
    await gateway.audit.record(events, access.now)
    return build_bundle("transaction-response", list(map(_response, answers))), any(answer.replayed for answer in answers)


def _response(answer: Answer) -> dict[str, Any]:
    status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
    return {"response": {"status": status, "location": f"{answer.type}/{answer.id}"}}


_SUBJECT = "Observation.subject"


def _read(gateway: Gateway, measures: Measures, pairing: Pairing, body: bytes) -> list[_Entry]:
    """The entries, checked and as they are stored here. Raises Problem."""
    if not body.strip() or gateway.codec.peek_type(body) != "Bundle":
        raise Problem("invalid", NO_BUNDLE, "Bundle")
    calm = gateway.codec.check_body(body)
    bundle = read_bundle(gateway.codec, body, calm=calm, most_entries=gateway.limits.bundle_entries)
    if bundle.type != "transaction":
        raise Problem("invalid", "the Bundle is of type transaction", "Bundle.type", status=422)
    entries = _entries(gateway.codec, bundle.entry or [])
    devices = [entry for entry in entries if entry.resource.__class__.__name__ == "Device"]
    (observation,) = (entry for entry in entries if entry not in devices)
    _check_device(observation.resource, devices)
    _require_subject(pairing, observation.resource)
    issues = [*measures.issues(observation.resource), *_source_issues(pairing, observation.resource)]
    if issues:
        raise Problem.of(issues, status=422)
    measures.modernize(observation.resource)
    _localize(gateway, pairing, observation.resource, bool(devices))
    return entries


def _entries(codec: Codec, entries: list[Any]) -> list[_Entry]:
    """The resources of the Bundle. Raises Problem where they are not one Observation, and one Device at most, to be created."""
    for n, entry in enumerate(entries):
        name = codec.peek_type(entry.resource) if entry.resource is not None else entry.request.url.partition("/")[0]
        method, place = entry.request.method, f"Bundle.entry[{n}].request"
        if name not in ("Observation", "Device") or method != "POST":
            name = name if name.isalpha() and len(name) < 64 else "?"
            text = f"Resource of type <{name}> is not acceptable with method <{method}>."
            raise Problem("not-supported", text, f"{place}.method", status=422)
        if entry.resource is None or entry.request.url.strip("/") != name:
            raise Problem("invalid", "the request of an entry names the type of its resource", f"{place}.url", status=422)
    names = [codec.peek_type(entry.resource) for entry in entries]
    if names.count("Observation") != 1:
        raise Problem("invalid", ONE_OBSERVATION, "Bundle.entry", status=422)
    if names.count("Device") > 1:
        raise Problem("invalid", "Bundle must contain one device creation (POST) at most", "Bundle.entry", status=422)
    found: list[_Entry] = []
    for n, (name, entry) in enumerate(zip(names, entries, strict=True)):
        try:
            found.append(_Entry(n, codec.decode(name, entry.resource), entry.request.ifNoneExist))
        except Problem as problem:
            raise problem.within(f"Bundle.entry[{n}].resource") from None
    return found


def _check_device(observation: Any, devices: list[_Entry]) -> None:
    reference = observation.device.reference if observation.device is not None else None
    for device in devices:
        found = _CONDITION.fullmatch(device.condition or "")
        named = [(one.system, one.value) for one in device.resource.identifier or ()]
        if found is None or (found[1], found[2]) not in named:
            raise Problem("invalid", IF_NONE_EXIST, f"Bundle.entry[{device.position}].request.ifNoneExist", status=422)
        device.condition = f"identifier={found[1]}|{found[2]}"
        if not (device.resource.meta and device.resource.meta.profile):
            raise Problem("invalid", "Device must provide meta.profile value.", "Device.meta.profile", status=422)
        if reference is None:
            raise Problem("invalid", "Observation.device.reference is mandatory.", "Observation.device.reference", status=422)
    if reference is not None and reference not in [f"Device/{device.resource.id}" for device in devices]:
        raise Problem("invalid", NOT_LINKED, "Observation.device.reference", status=422)


def _require_subject(pairing: Pairing, observation: Any) -> None:
    identifier = observation.subject.identifier if observation.subject is not None else None
    if identifier is None or not identifier.system or not identifier.value:
        text = "Observation.subject.identifier is mandatory."
        raise Problem("invalid", text, f"{_SUBJECT}.identifier", status=422)
    pairing.require_patient(identifier.system, identifier.value, f"{_SUBJECT}.identifier")


def _source_issues(pairing: Pairing, observation: Any) -> Iterator[Issue]:
    source = observation.meta.source if observation.meta is not None else None
    if source is not None and not f"{source.removeprefix('urn:oid:')}.".startswith(f"{pairing.oid}."):
        text = f"Solution oid contains in Observation.meta.source don't belong to root editor oid ({pairing.oid})."
        yield Issue("value", text, "Observation.meta.source")


def _localize(gateway: Gateway, pairing: Pairing, observation: Any, has_device: bool) -> None:
    """Say it as it is said here: by our id of the patient (the app's own number of them is for the app alone)."""
    reference = gateway.registry.types.struct("Reference")
    observation.id = None
    observation.subject = reference(reference=f"Patient/{pairing.patient}")
    observation.meta.source = observation.meta.source or f"urn:oid:{pairing.oid}"
    if has_device:
        observation.device.reference = _DEVICE
    elif not observation.identifier:
        value = _measure_key(observation)
        observation.identifier = [gateway.registry.types.struct("Identifier")(system=MEASURES, value=value)]


def _measure_key(observation: Any) -> str:
    """What was measured, and when: two of that by one app are one, or the second corrects the first."""
    codes = (token_values(coding.system, coding.code)[0] for coding in observation.code.coding if coding.code)
    instant = read_span(observation.effectiveDateTime)
    concepts = [extension.valueCodeableConcept for extension in observation.extension or ()]
    others = sorted(coding.code or "" for concept in concepts if concept for coding in concept.coding or ())
    told = "\0".join((*codes, instant.low.isoformat(), instant.high.isoformat(), *others))
    return blake2b(told.encode(), digest_size=16).hexdigest()


def _call(gateway: Gateway, pairing: Pairing, entry: _Entry, origin: Origin) -> tuple[Call, str | None]:
    name = entry.resource.__class__.__name__
    is_device = name == "Device"
    if is_device:
        entry.resource.id = None
        entry.resource.patient = gateway.registry.types.struct("Reference")(reference=f"Patient/{pairing.patient}")
    call = Call(
        "create",
        name,
        origin,
        body=gateway.codec.encode(entry.resource),
        renews=True,
        if_none_exist=entry.condition if is_device else None,
        place=entry.place,
    )
    return call, _DEVICE if is_device else None
