"""What a Consent says, element by element: when it holds, of what, for whom not.

Knows: the provisions of FHIR Consent. Must not know: whose server it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway.conformance.checks.confidentiality import consent_of
from gateway.conformance.checks.core import refused
from gateway.conformance.checks.search import found
from gateway.conformance.rule import rule
from gateway.conformance.server import Server, moment, not_applicable, reference_of
from gateway.conformance.wire import Caller

TYPE = "Observation"
_DAY, _YEARS = 1.0, 3650.0
RESOURCE_TYPES = "http://hl7.org/fhir/resource-types"
LIMITS: dict[str, dict[str, Any]] = {
    "it is over": {"period": {"start": moment(_YEARS), "end": moment(_DAY)}},
    "it has not begun": {"period": {"start": moment(-_DAY)}},
    "it is of other types": {"class": [{"system": RESOURCE_TYPES, "code": "Device"}]},
    "it is of older data": {"dataPeriod": {"end": moment(_YEARS)}},
    "it is of other codes": {"code": [{"coding": [{"system": "http://loinc.org", "code": "8302-2"}]}]},
}


@contextmanager
def provided_otherwise(owner: Caller, consent: dict[str, Any], **elements: Any) -> Iterator[None]:
    """For a while, the provision of the Consent says this, too; whatever happens then, it says again what it said."""
    path = f"Consent/{consent['id']}"
    try:
        changed = {**consent, "provision": {**consent.get("provision", {}), **elements}}
        assert owner.ask("PUT", path, changed).status_code == 200, "the person changes what they agree to"
        yield
    finally:
        owner.ask("PUT", path, consent)


def copy_of(consent: dict[str, Any], **elements: Any) -> dict[str, Any]:
    """Another Consent that says the same, but for these elements of its provision."""
    kept = {name: told for name, told in consent.items() if name not in ("id", "meta", "identifier")}
    return {**kept, "provision": {**consent.get("provision", {}), **elements}}


def sees(server: Server, professional: Caller, path: str) -> bool:
    """Whether the professional reads it, and finds it; both alike."""
    read = professional.get(path).status_code
    assert read in (200, 403, 404), f"a read is answered or refused, not {read}"
    searched = professional.get(TYPE, patient=server.patient, identifier=f"{server.system}|")
    is_found = searched.status_code == 200 and path in map(reference_of, found(searched))
    assert is_found == (read == 200), "a search finds it just where a read gives it"
    return read == 200


@rule("EXT-07", "SHALL", "A Consent holds for its time, its types, its codes and its data, and for nothing else.", "house")
@pytest.mark.parametrize("limit", LIMITS)
def check_limits(server: Server, owner: Caller, professional: Caller, limit: str) -> None:
    """One limit that keeps a heart rate of today out, each."""
    server.needs_tokens()
    consent = consent_of(server, owner)
    path = reference_of(server.made_by(owner, server.heart_rate()))
    if not sees(server, professional, path):
        not_applicable("the professional does not read Observations by that Consent")
    with provided_otherwise(owner, consent, **LIMITS[limit]):
        assert not sees(server, professional, path), f"{limit}: the professional does not read"
    assert sees(server, professional, path), "as it was, the professional reads again"


@rule("CON-003", "SHALL", "What is denied is not read, whatever is permitted beside.", "house")
def check_denial(server: Server, owner: Caller, professional: Caller) -> None:
    """A second Consent, which denies the same to the same professional."""
    server.needs_tokens()
    consent = consent_of(server, owner)
    server.needs("Consent", "create")
    path = reference_of(server.made_by(owner, server.heart_rate()))
    assert sees(server, professional, path), "with consent, the professional reads"
    answer = owner.create(copy_of(consent, type="deny"), {"prefer": "return=representation"})
    assert answer.status_code == 201, "a Consent that denies is created"
    try:
        assert not sees(server, professional, path), "denied beside, it is not read"
    finally:
        owner.ask("PUT", reference_of(answer.json()), {**answer.json(), "status": "inactive"})
    assert sees(server, professional, path), "without the denial, the professional reads again"


@rule("CON-017", "SHALL", "A Consent that says what the server cannot keep to is refused, not kept in part.", "house")
def check_not_understood(server: Server, owner: Caller) -> None:
    """An extension that changes the meaning of the provision, and that nobody knows."""
    server.needs_tokens()
    consent = consent_of(server, owner)
    server.needs("Consent", "create")
    unknown = [{"url": "https://kit.example/only-on-sundays", "valueBoolean": True}]
    refused(owner.create(copy_of(consent, modifierExtension=unknown)), 400, 422)
    refused(owner.create({**copy_of(consent), "modifierExtension": unknown}), 400, 422)
