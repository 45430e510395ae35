"""The few identifying elements, read alone, say what the whole resource says."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings

from gateway.fhir.codec import Codec
from gateway.fhir.identity import Identities, business_key, digest_of, identifier_key, references_of
from gateway.fhir.registry import Registry
from tests.unit.fhir.generate import dump
from tests.unit.fhir.test_types import SEEDS, Voices, ours, voices

__all__ = ["voices"]


@pytest.fixture(scope="session")
def identities(registry: Registry) -> Identities:
    return Identities(registry)


def patient_of(kind: Any, it: Any) -> list[Any]:
    return [reference.reference for branch in kind.patient for reference in branch.read(it)]


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS)
def test_what_decodes_has_the_same_identity(voices: Voices, identities: Identities, seed: int) -> None:
    name, resource = voices.made(Random(seed))
    kind, data = voices.registry[name], dump(resource)
    identity, decoded = identities.read(kind, data), voices.codec.decode(name, data)
    assert identity is not None
    assert business_key(kind, identity, "p", "s") == business_key(kind, decoded, "p", "s")
    assert patient_of(kind, identity) == patient_of(kind, decoded)
    assert sorted(references_of(identity)) == sorted(references_of(decoded))


BODY: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "x"},
    "subject": {"reference": "Patient/a"},
}


def key(registry: Registry, identities: Identities, patient: str = "a", source: str = "s", **elements: Any) -> bytes | None:
    kind = registry[elements.get("resourceType", "Observation")]
    return business_key(kind, identities.read(kind, json.dumps({**BODY, **elements}).encode()), patient, source)


def named(system: str | None = "urn:s", value: str | None = "1", **more: Any) -> list[dict[str, Any]]:
    given = {"system": system, "value": value, **more}
    return [{name: text for name, text in given.items() if text is not None}]


def test_a_key_stands_for_patient_system_value_and_source(registry: Registry, identities: Identities) -> None:
    keys = [
        key(registry, identities, identifier=named()), key(registry, identities, identifier=named(value="2")),
        key(registry, identities, identifier=named(system="urn:t")), key(registry, identities, "b", identifier=named()),
        key(registry, identities, source="t", identifier=named()), key(registry, identities, identifier=named("urn:s|1", "1")),
        key(registry, identities, identifier=named("urn:s", "1|1")),
        key(registry, identities, identifier=named("urn:s\\", "|1")),
    ]  # fmt: skip
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_the_same_is_the_same_however_it_is_written(registry: Registry, identities: Identities) -> None:
    plain = key(registry, identities, identifier=named())
    assert plain == key(registry, identities, identifier=named(use="official"), note=[{"text": "more"}])
    assert plain == key(registry, identities, identifier=named(value=None) + named() + named(value="2"))


@pytest.mark.parametrize("identifier", [None, named(system=None), named(value=None), named("urn:s", None, use="official")])
def test_without_system_and_value_there_is_no_key(registry: Registry, identities: Identities, identifier: Any) -> None:
    elements = {"identifier": identifier} if identifier else {}
    assert key(registry, identities, **elements) is None


def test_a_patient_is_one_for_all_sources(registry: Registry, identities: Identities) -> None:
    data = json.dumps({"resourceType": "Patient", "identifier": named()}).encode()
    kind = registry["Patient"]
    identity = identities.read(kind, data)
    assert business_key(kind, identity, None, "s") == business_key(kind, identity, None, "t")
    assert identifier_key(kind, identity, "a") == identifier_key(kind, identity, None)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{", b"\xff", b'{"resourceType":"Patient"}', b'{"status":"final"}', b'{"resourceType":null}',
     b"[" * 10_000, b'{"resourceType":"Observation","subject":1}',
     b'{"resourceType":"Observation","identifier":[{"nonsense":1}]}',
     b'{"resourceType":"Observation","identifier":[{"system":"a b"}]}'],
)  # fmt: skip
def test_what_is_not_valid_has_no_identity(registry: Registry, identities: Identities, data: bytes) -> None:
    assert identities.read(registry["Observation"], data) is None


def test_what_has_no_identity_does_not_decode(registry: Registry, identities: Identities, codec: Codec) -> None:
    data = json.dumps({**BODY, "identifier": [{"value": 1}]}).encode()
    assert identities.read(registry["Observation"], data) is None
    assert ours(codec, "Observation", data) is not None


def test_a_digest_tells_bytes_apart_and_fits_a_bson_integer() -> None:
    digests = {digest_of(b"a" * n) for n in range(1_000)}
    assert len(digests) == 1_000
    assert all(-(2**63) <= digest < 2**63 for digest in digests)
