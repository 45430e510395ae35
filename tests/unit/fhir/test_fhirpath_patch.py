"""FHIRPath Patch: each operation of R4 on each kind of element, and a clear refusal of what is outside its language."""

import json
from typing import Any

import pytest

from gateway.fhir.codec import Codec
from gateway.fhir.fhirpath_patch import apply_fhirpath_patch, read_fhirpath_patch
from gateway.fhir.registry import Registry
from gateway.fhir.tree import read_tree, write_tree
from gateway.problem import Problem

pytestmark = pytest.mark.requirement("CORE-07")

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "extension": [{"url": "urn:a", "valueString": "x"}, {"url": "urn:b", "valueDecimal": 1}],
    "identifier": [{"system": "urn:s", "value": "1"}, {"system": "urn:s", "value": "2"}, {"system": "urn:t", "value": "1"}],
    "active": True,
    "name": [
        {"family": "Durand", "given": ["A", "B", "C"], "_given": [None, {"id": "b"}, None]},
        {"use": "old", "family": "D'Or"},
    ],
    "birthDate": "1980-01-01",
    "_birthDate": {"id": "x"},
    "deceasedBoolean": False,
    "multipleBirthInteger": 2,
}


def operation(kind: str, path: str, value: Any = None, **parts: Any) -> dict[str, Any]:
    """One parameter; `value`: the part as FHIR JSON writes it, without its name."""
    found: list[dict[str, Any]] = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    for name, part in parts.items():
        found.append({"name": name, "valueString" if isinstance(part, str) else "valueInteger": part})
    return {"name": "operation", "part": [*found, *([] if value is None else [{"name": "value"} | value])]}


def patched(registry: Registry, codec: Codec, *operations: dict[str, Any]) -> dict[str, Any]:
    """The patched Patient, which must still be one."""
    sent = json.dumps({"resourceType": "Parameters", "parameter": operations}).encode()
    codec.decode("Parameters", sent)
    tree = read_tree(json.dumps(PATIENT).encode())
    apply_fhirpath_patch(registry.types, read_fhirpath_patch("Patient", read_tree(sent), 5), tree)
    codec.decode("Patient", write_tree(tree))
    return dict(json.loads(write_tree(tree)))


PHONE = {"part": [{"name": "system", "valueCode": "phone"}, {"name": "value", "valueString": "0"}]}
CONTACT = {
    "part": [
        {"name": "relationship", "valueCodeableConcept": {"text": "a"}},
        {"name": "relationship", "valueCodeableConcept": {"text": "b"}},
        {"name": "name", "valueHumanName": {"family": "X"}},
    ]
}

DONE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "add a primitive": (operation("add", "Patient", {"valueCode": "female"}, name="gender"), {"gender": "female"}),
    "add to a list": (
        operation("add", "Patient", {"valueIdentifier": {"value": "3"}}, name="identifier"),
        {"identifier": [*PATIENT["identifier"], {"value": "3"}]},
    ),
    "add a first item": (
        operation("add", "Patient", {"valueContactPoint": {"system": "phone", "value": "0"}}, name="telecom"),
        {"telecom": [{"system": "phone", "value": "0"}]},
    ),
    "add part by part": (operation("add", "Patient", PHONE, name="telecom"), {"telecom": [{"system": "phone", "value": "0"}]}),
    "add what has no type of its own": (
        operation("add", "Patient", CONTACT, name="contact"),
        {"contact": [{"relationship": [{"text": "a"}, {"text": "b"}], "name": {"family": "X"}}]},
    ),
    "add below": (
        operation("add", "Patient.name.where(family = 'Durand')", {"valueString": "D"}, name="given"),
        {
            "name": [
                {"family": "Durand", "given": ["A", "B", "C", "D"], "_given": [None, {"id": "b"}, None, None]},
                PATIENT["name"][1],
            ]
        },
    ),
    "add with a twin": (
        operation("add", "Patient", {"valueCode": "male", "_valueCode": {"id": "g"}}, name="gender"),
        {"gender": "male", "_gender": {"id": "g"}},
    ),
    "insert": (
        operation("insert", "Patient.identifier", {"valueIdentifier": {"value": "0"}}, index=0),
        {"identifier": [{"value": "0"}, *PATIENT["identifier"]]},
    ),
    "insert at the end": (
        operation("insert", "Patient.identifier", {"valueIdentifier": {"value": "4"}}, index=3),
        {"identifier": [*PATIENT["identifier"], {"value": "4"}]},
    ),
    "insert among twins": (
        operation("insert", "Patient.name[0].given", {"valueString": "0"}, index=0),
        {
            "name": [
                {"family": "Durand", "given": ["0", "A", "B", "C"], "_given": [None, None, {"id": "b"}, None]},
                PATIENT["name"][1],
            ]
        },
    ),
    "delete a primitive and its twin": (operation("delete", "Patient.birthDate"), {"birthDate": None, "_birthDate": None}),
    "delete a choice": (operation("delete", "Patient.deceased"), {"deceasedBoolean": None}),
    "delete by two criteria": (
        operation("delete", "Patient.identifier.where(system = 'urn:s' and value='2')"),
        {"identifier": [PATIENT["identifier"][0], PATIENT["identifier"][2]]},
    ),
    "delete what is not there": (operation("delete", "Patient.photo"), {}),
    "delete the twin's item": (
        operation("delete", "Patient.name.given[1]"),
        {"name": [{"family": "Durand", "given": ["A", "C"]}, PATIENT["name"][1]]},
    ),
    "delete an extension": (operation("delete", "Patient.extension('urn:a')"), {"extension": [PATIENT["extension"][1]]}),
    "delete by a number": (
        operation("delete", "Patient.extension.where(value = 1)"),
        {"extension": [PATIENT["extension"][0]]},
    ),
    "replace a primitive": (
        operation("replace", "Patient.birthDate", {"valueDate": "1980-02-01"}),
        {"birthDate": "1980-02-01", "_birthDate": None},
    ),
    "replace a choice by another": (
        operation("replace", "Patient.deceased", {"valueDateTime": "2026-01-01"}),
        {"deceasedBoolean": None, "deceasedDateTime": "2026-01-01"},
    ),
    "replace an item": (
        operation("replace", "Patient.identifier.last()", {"valueIdentifier": {"value": "9"}}),
        {"identifier": [*PATIENT["identifier"][:2], {"value": "9"}]},
    ),
    "replace below a quote": (
        operation("replace", r"Patient.name.where(family = 'D\'Or').use", {"valueCode": "maiden"}),
        {"name": [PATIENT["name"][0], {"use": "maiden", "family": "D'Or"}]},
    ),
    "replace an extension's value": (
        operation("replace", "Patient.extension('urn:b').value.ofType(decimal)", {"valueDecimal": 2}),
        {"extension": [PATIENT["extension"][0], {"url": "urn:b", "valueDecimal": 2}]},
    ),
    "replace the first": (
        operation("replace", "Patient.name.given.first()", {"valueString": "Z"}),
        {
            "name": [
                {"family": "Durand", "given": ["Z", "B", "C"], "_given": [None, {"id": "b"}, None]},
                PATIENT["name"][1],
            ]
        },
    ),
    "move": (
        operation("move", "Patient.identifier", source=2, destination=0),
        {"identifier": [PATIENT["identifier"][2], *PATIENT["identifier"][:2]]},
    ),
    "move twins": (
        operation("move", "Patient.name[0].given", source=1, destination=0),
        {
            "name": [
                {"family": "Durand", "given": ["B", "A", "C"], "_given": [{"id": "b"}, None, None]},
                PATIENT["name"][1],
            ]
        },
    ),
}


@pytest.mark.parametrize("name", DONE)
def test_what_each_operation_does(registry: Registry, codec: Codec, name: str) -> None:
    asked, changed = DONE[name]
    expected = {key: value for key, value in (PATIENT | changed).items() if value is not None}
    assert patched(registry, codec, asked) == expected


def test_operations_are_done_in_order(registry: Registry, codec: Codec) -> None:
    add = operation("add", "Patient", {"valueCode": "male"}, name="gender")
    found = patched(registry, codec, add, operation("replace", "Patient.gender", {"valueCode": "other"}))
    assert found["gender"] == "other"


TEXT = {"valueString": "x"}
NAMED = {"name": "given"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no operation": ({"name": "patch", "part": []}, ".name"),
    "no type": ({"name": "operation", "part": [{"name": "path", "valueString": "Patient"}]}, ".part"),
    "another type": (operation("upsert", "Patient"), ".part[0]"),
    "another part": (operation("delete", "Patient", pathh="x"), ".part[2]"),
    "a part twice": (operation("replace", "Patient.active", {"name": "path", "valueString": "Patient"}), ".part[2]"),
    "a part of another type": (operation("move", "Patient.name", source="1", destination=0), ".part[2]"),
    "no value": (operation("replace", "Patient.active"), ".part"),
    "no name": (operation("add", "Patient", TEXT), ".part"),
    "no index": (operation("insert", "Patient.name", TEXT), ".part"),
    "an empty value": (operation("add", "Patient", {"part": []} | {"id": "x"}, name="contact"), ".part[3]"),
    "another root": (operation("delete", "Person.name"), ".part[1]"),
    "no root": (operation("delete", "name"), ".part[1]"),
    "a function": (operation("delete", "Patient.name.skip(1)"), ".part[1]"),
    "an operator": (operation("delete", "Patient.name | Patient.contact"), ".part[1]"),
    "a comparison": (operation("delete", "Patient.name.where(use != 'old')"), ".part[1]"),
    "a function in a criterion": (operation("delete", "Patient.name.where(given.exists())"), ".part[1]"),
    "half a path": (operation("delete", "Patient.name."), ".part[1]"),
    "a negative index": (operation("delete", "Patient.name[-1]"), ".part[1]"),
    "an element that is not there": (operation("delete", "Patient.fullName"), ".part[1]"),
    "a criterion of no element": (operation("delete", "Patient.name.where(first = 'x')"), ".part[1]"),
    "a choice by its name in JSON": (operation("delete", "Patient.deceasedBoolean"), ".part[1]"),
    "below a primitive": (operation("delete", "Patient.birthDate.year"), ".part[1]"),
    "several to delete": (operation("delete", "Patient.identifier"), ".part[1]"),
    "several to replace": (operation("replace", "Patient.identifier", {"valueIdentifier": {"value": "1"}}), ".part[1]"),
    "nothing to replace": (operation("replace", "Patient.gender", {"valueCode": "male"}), ".part[1]"),
    "nothing to add to": (operation("add", "Patient.maritalStatus", TEXT, name="text"), ".part[1]"),
    "to add to a primitive": (operation("add", "Patient.birthDate", TEXT, name="value"), ".part[1]"),
    "an element of another name": (operation("add", "Patient", TEXT, name="nickname"), ".part[1]"),
    "what is there": (operation("add", "Patient", {"valueBoolean": False}, name="active"), ".part[3]"),
    "another choice is there": (operation("add", "Patient", {"valueDateTime": "2026"}, name="deceased"), ".part[3]"),
    "a type the choice has not": (operation("replace", "Patient.deceased", TEXT), ".part[2]"),
    "an object for a primitive": (operation("replace", "Patient.birthDate", {"valuePeriod": {"start": "2026"}}), ".part[2]"),
    "a primitive for an object": (operation("add", "Patient", TEXT, name="contact"), ".part[3]"),
    "beyond the list": (operation("insert", "Patient.name", {"valueHumanName": {"text": "x"}}, index=3), ".part[2]"),
    "from beyond the list": (operation("move", "Patient.name", source=2, destination=0), ".part[2]"),
    "to beyond the list": (operation("move", "Patient.name", source=0, destination=2), ".part[3]"),
    "no list": (operation("move", "Patient.birthDate", source=0, destination=0), ".part[1]"),
    "an item as a list": (operation("insert", "Patient.name[0]", TEXT, index=0), ".part[1]"),
    "the resource": (operation("delete", "Patient"), ".part[1]"),
    "the resource by another": (operation("replace", "Patient", TEXT), ".part[1]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_names_the_parameter(registry: Registry, codec: Codec, name: str) -> None:
    asked, place = REFUSED[name]
    harmless = operation("replace", "Patient.active", {"valueBoolean": False})

    def apply() -> None:
        operations = read_fhirpath_patch("Patient", {"parameter": [harmless, asked]}, 5)
        apply_fhirpath_patch(registry.types, operations, read_tree(json.dumps(PATIENT).encode()))

    with pytest.raises(Problem) as caught:
        apply()
    assert caught.value.status == 422
    assert caught.value.issues[0].expression == f"Parameters.parameter[1]{place}"


def test_a_patch_has_an_end(registry: Registry) -> None:
    many = {"parameter": [operation("delete", "Patient.photo")] * 6}
    with pytest.raises(Problem) as caught:
        read_fhirpath_patch("Patient", many, 5)
    assert (caught.value.status, caught.value.code) == (422, "too-costly")
