"""What is kept beside a resource: the values of each parameter once, one span of all dates, labels with unknown ones marked."""

import json
from typing import Any

import pytest

from gateway.fhir.codec import Codec
from gateway.fhir.dates import read_span
from gateway.fhir.index import UNKNOWN_LABEL, Index
from gateway.fhir.registry import Registry
from tests.examples import TYPES, read_example

KNOWN = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"


@pytest.fixture(scope="module")
def index(registry: Registry, codec: Codec) -> Index:
    return Index(registry, frozenset({KNOWN}), codec)


def values_of(registry: Registry, codec: Codec, index: Index, resource: dict[str, Any]) -> dict[str, Any]:
    name = resource["resourceType"]
    return index.search_values(registry[name], codec.decode(name, json.dumps(resource).encode()))


def test_the_values_of_a_reading(registry: Registry, codec: Codec, index: Index) -> None:
    resource = {
        "resourceType": "Observation",
        "identifier": [{"system": "urn:i", "value": "1"}],
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "99504-3"}]},
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": "2026-11-20T08:00:00Z",
        "device": {"reference": "Device/d"},
        "performer": [{"identifier": {"system": "urn:rpps", "value": "7"}}],
        "valueQuantity": {"value": 104.50, "unit": "mg/dL"},
    }
    low, high = read_span("2026-11-20T08:00:00Z")
    assert values_of(registry, codec, index, resource) == {
        "identifier": ["urn:i|1", "1"],
        "status": ["final"],
        "code": ["http://loinc.org|99504-3", "99504-3"],
        "date": {"low": low, "high": high},
        "device": ["Device/d"],
        "performer:identifier": ["urn:rpps|7", "7"],
        "value-quantity": [{"v": 104.5, "u": ["mg/dL"]}],
    }


def test_a_value_stands_once_and_an_absent_one_not_at_all(registry: Registry, codec: Codec, index: Index) -> None:
    concept = {"coding": [{"system": "urn:c", "code": "a"}, {"system": "urn:c", "code": "a"}]}
    resource = {
        "resourceType": "Observation",
        "status": "final",
        "code": concept,
        "category": [concept, concept, {"text": "only words"}],
        "method": {"text": "only words"},
        "performer": [{"display": "somebody"}],
    }
    values = values_of(registry, codec, index, resource)
    assert values["category"] == ["urn:c|a", "a"]
    assert set(values) == {"status", "code", "category", "method:text"}


def test_what_a_code_is_called_is_folded_and_stands_once(registry: Registry, codec: Codec, index: Index) -> None:
    codings = [{"system": "urn:c", "code": "a", "display": "Glycémie"}, {"system": "urn:d", "code": "b", "display": "GLYCEMIE"}]
    resource = {"resourceType": "Observation", "status": "final", "code": {"coding": codings, "text": "Glycémie  à jeun"}}
    assert values_of(registry, codec, index, resource)["code:text"] == ["glycemie a jeun", "glycemie"]


def test_an_identifier_has_its_types(registry: Registry, codec: Codec, index: Index) -> None:
    types = [{"system": "urn:t", "code": "INS|NIR"}, {"code": "no system"}, {"system": "urn:t", "code": "MR"}]
    identifier = [{"type": {"coding": types}, "system": "urn:s", "value": "1"}, {"value": "2"}, {"type": {"text": "x"}}]
    values = values_of(registry, codec, index, {"resourceType": "Patient", "identifier": identifier})
    assert values["identifier:of-type"] == ["urn:t|INS\\|NIR|1", "urn:t|MR|1"]


def test_a_pair_needs_both_parts_of_one_component(registry: Registry, codec: Codec, index: Index) -> None:
    components = [
        {"code": {"coding": [{"code": "a"}]}, "valueQuantity": {"value": 1, "unit": "x"}},
        {"code": {"coding": [{"code": "b"}]}, "valueString": "2"},
        {"code": {"text": "c"}, "valueQuantity": {"value": 3}},
    ]
    resource = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "component": components}
    values = values_of(registry, codec, index, resource)
    pair = {"component-code": ["|a", "a"], "component-value-quantity": [{"v": 1.0, "u": ["x"]}]}
    assert values["component-code-value-quantity"] == [pair]
    assert "component-code-value-concept" not in values
    assert "code-value-quantity" not in values  # of the resource itself: its parts are stored already


def test_several_dates_are_one_span(registry: Registry, codec: Codec, index: Index) -> None:
    request = read_example("ServiceRequest")
    del request["occurrencePeriod"]
    request["occurrenceTiming"] = {"event": ["2026-12-03", "2026-12-01T10:00:00Z"]}
    low, high = read_span("2026-12-01T10:00:00Z").low, read_span("2026-12-03").high
    assert values_of(registry, codec, index, request)["occurrence"] == {"low": low, "high": high, "wide": True}


def test_a_cursor_gets_the_beginning_of_one_parameter(registry: Registry, codec: Codec, index: Index) -> None:
    kind = registry["DocumentReference"]
    resource = codec.decode(kind.name, json.dumps(read_example(kind.name)).encode())
    values = index.search_values(kind, resource)
    assert [index.sort_key(kind, resource, name) for name in ("date", "period")] == [
        values[n]["low"] for n in ("date", "period")
    ]
    resource.context.period = None
    assert index.sort_key(kind, resource, "period") is None


def test_several_paths_are_one_list(registry: Registry, codec: Codec, index: Index) -> None:
    document = read_example("DocumentReference")
    values = values_of(registry, codec, index, document)["identifier"]
    assert values == [
        "urn:ietf:rfc:3986|urn:oid:1.2.250.1.999.42.1",
        "urn:oid:1.2.250.1.999.42.1",
        "https://clinic.example/documents|letter",
        "letter",
    ]


@pytest.mark.requirement("CORE-02")
@pytest.mark.parametrize("name", TYPES)
def test_whose_it_is_stands_beside_and_not_among_the_values(registry: Registry, codec: Codec, index: Index, name: str) -> None:
    kind, values = registry[name], values_of(registry, codec, index, read_example(name))
    assert not any(parameter.field and parameter.name in values for parameter in kind.search.values())
    assert not any(parameter.any_of and parameter.name in values for parameter in kind.search.values())
    assert all(values.values())
    assert not any("." in parameter or "$" in parameter for parameter in values)


@pytest.mark.parametrize(
    ("elements", "labels"),
    [
        ({}, []),
        ({"meta": {"security": [{"system": KNOWN, "code": "R"}]}}, [f"{KNOWN}|R", "R"]),
        ({"securityLabel": [{"coding": [{"system": KNOWN, "code": "R"}]}]}, [f"{KNOWN}|R", "R"]),
        ({"meta": {"security": [{"system": "urn:x", "code": "R"}]}}, ["urn:x|R", "R", UNKNOWN_LABEL]),
        ({"meta": {"security": [{"code": "R"}]}}, ["|R", "R", UNKNOWN_LABEL]),
        ({"securityLabel": [{"text": "secret"}]}, [UNKNOWN_LABEL]),
        ({"meta": {"security": [{"display": "secret"}]}}, [UNKNOWN_LABEL]),
    ],
)
def test_labels(registry: Registry, codec: Codec, index: Index, elements: dict[str, Any], labels: list[str]) -> None:
    resource = {k: v for k, v in read_example("DocumentReference").items() if k != "securityLabel"} | elements
    typed = codec.decode("DocumentReference", json.dumps(resource).encode())
    assert index.labels(registry["DocumentReference"], typed) == labels
