"""The path language of the data files: what each form leads to, and that any other path stops the start by file and key."""

import json
from typing import Any

import pytest

from gateway.fhir.codec import Codec
from gateway.fhir.path import PathError, compile_path
from gateway.fhir.registry import Registry

URL = "https://example.org/fhir/StructureDefinition"

OBSERVATION = {
    "resourceType": "Observation",
    "contained": [
        {"resourceType": "Device", "id": "d1", "manufacturer": "Example SA", "identifier": [{"system": "urn:s", "value": "1"}]},
        {"resourceType": "Device", "id": "d2", "manufacturer": "Other SA"},
        {"resourceType": "Practitioner", "id": "p1", "gender": "female"},
    ],
    "extension": [
        {"url": f"{URL}/moment", "valueCodeableConcept": {"coding": [{"code": "fasting"}]}},
        {"url": f"{URL}/days", "valueInteger": 14},
        {"url": f"{URL}/nested", "extension": [{"url": "inner", "valueString": "deep"}]},
    ],
    "identifier": [{"use": "official", "system": "urn:a", "value": "1"}, {"use": "old", "system": "urn:b", "value": "2"}],
    "status": "final",
    "code": {"coding": [{"system": "urn:c", "code": "x"}, {"code": "y"}], "text": "both"},
    "effectivePeriod": {"start": "2026-01-01", "end": "2026-01-02"},
    "performer": [{"reference": "#p1"}, {"reference": "Practitioner/7"}],
    "valueQuantity": {"value": 5.10, "unit": "mmol/L"},
    "device": {"reference": "#d1"},
    "component": [{"code": {"text": "one"}, "valueString": "a"}, {"code": {"text": "two"}, "valueInteger": 3}],
}

GOOD = [
    ("status", {"code": ["final"]}),
    ("code.text", {"string": ["both"]}),
    ("code.coding.code", {"code": ["x", "y"]}),
    ("identifier.value", {"string": ["1", "2"]}),
    ("identifier.where(use='old').value", {"string": ["2"]}),
    ("identifier.where(system='urn:nothing').value", {"string": []}),
    ("method.text", {"string": []}),
    ("effective", {"dateTime": [], "Period": [{"start": "2026-01-01", "end": "2026-01-02"}], "Timing": [], "instant": []}),
    ("effective.ofType(Period).start", {"dateTime": ["2026-01-01"]}),
    ("effective.ofType(dateTime)", {"dateTime": []}),
    ("value.ofType(Quantity).unit", {"string": ["mmol/L"]}),
    ("component.value.ofType(string)", {"string": ["a"]}),
    ("component.code.text", {"string": ["one", "two"]}),
    (f"extension.where(url='{URL}/moment').value.ofType(CodeableConcept).coding.code", {"code": ["fasting"]}),
    (f"extension.where(url='{URL}/days').value.ofType(integer)", {"integer": [14]}),
    (f"extension.where(url='{URL}/nested').extension.where(url='inner').value.ofType(string)", {"string": ["deep"]}),
    ("device.resolve().ofType(Device).manufacturer", {"string": ["Example SA"]}),
    ("device.resolve().ofType(Device).identifier.value", {"string": ["1"]}),
    ("performer.resolve().ofType(Practitioner).gender", {"code": ["female"]}),
    ("performer.resolve().ofType(Organization).name", {"string": []}),
]


def plain(value: Any, codec: Codec) -> Any:
    return json.loads(codec.encode(value)) if hasattr(value, "__struct_fields__") else value


@pytest.mark.parametrize(("path", "gives"), GOOD)
def test_a_path_leads_to_values_by_type(registry: Registry, codec: Codec, path: str, gives: dict[str, list[Any]]) -> None:
    resource = codec.decode("Observation", json.dumps(OBSERVATION).encode())
    branches = compile_path(registry.types, "Observation", path)
    assert {b.type: [plain(value, codec) for value in b.read(resource)] for b in branches} == gives


def test_a_reference_is_only_followed_into_its_own_resource(registry: Registry, codec: Codec) -> None:
    resource = codec.decode("Observation", json.dumps(OBSERVATION | {"device": {"reference": "Device/d1"}}).encode())
    (branch,) = compile_path(registry.types, "Observation", "device.resolve().ofType(Device).manufacturer")
    assert branch.read(resource) == []


def test_a_branch_knows_where_it_begins_and_what_it_may_refer_to(registry: Registry) -> None:
    (branch,) = compile_path(registry.types, "DocumentReference", "context.encounter")
    assert (branch.type, branch.first, branch.targets) == ("Reference", "context", ("Encounter", "EpisodeOfCare"))


BAD = [
    ("", "does not begin with an element"),
    ("nothing", "no element 'nothing'"),
    ("code.nothing", "no element 'nothing'"),
    ("status.value", "leads nowhere"),
    ("Observation.status", "not a path|no element"),
    ("code.", "not a path"),
    (".code", "not a path"),
    ("code..text", "not a path"),
    (" code", "not a path"),
    ("code text", "not a path"),
    ("status()", "not a path"),
    ("code.exists()", "not a path"),
    ("code.first()", "not a path"),
    ("code.coding[0]", "not a path"),
    ("code | method", "not a path"),
    ("value as Quantity", "not a path"),
    ("(value)", "not a path"),
    ("$this", "not a path"),
    ("code.coding.where(code='x' and system='y')", "not a path"),
    ("code.coding.where(code=x)", "not a path"),
    ("code.coding.where()", "not a path"),
    ("code.coding.where(nothing='x')", "no element 'nothing'"),
    ("identifier.where(period='x')", "not one text"),
    ("identifier.where(type='x')", "not one text"),
    ("extension.where(value='x')", "not one text"),
    ("value.ofType(quantity)", "leads nowhere"),
    ("value.ofType(Nothing)", "leads nowhere"),
    ("code.ofType(Quantity)", "leads nowhere"),
    ("value.ofType()", "not a path"),
    ("value.ofType", "cannot stand behind"),
    ("ofType(Quantity)", "does not begin with an element"),
    ("where(code='x')", "does not begin with an element"),
    ("resolve()", "does not begin with an element"),
    ("device.resolve()", "cannot stand behind"),
    ("device.resolve", "cannot stand behind"),
    ("device.resolve().manufacturer", "cannot stand behind"),
    ("device.resolve().ofType(Patient).gender", "does not refer to a Patient"),
    ("device.resolve().ofType(Quantity).unit", "does not refer to a Quantity"),
    ("code.resolve().ofType(Device)", "cannot stand behind"),
    ("focus.resolve().ofType(Nothing)", "is not a type"),
    ("value.coding", "no element 'coding'|leads nowhere"),
    ("contained.id", "leads nowhere"),
    ("code.coding.code.where(a='b')", "is not a type|no element"),
]


@pytest.mark.parametrize(("path", "why"), BAD)
def test_any_other_path_is_refused(registry: Registry, path: str, why: str) -> None:
    with pytest.raises(PathError, match=why):
        compile_path(registry.types, "Observation", path)
