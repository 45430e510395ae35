"""Composite parameters: both parts hold for the same value; and the modifiers that compare texts, URIs and levels of codes."""

from typing import Any

import pytest

from tests.conftest import packaged
from tests.world import LOINC, UCUM, Actor, World, concept, document, expression, issues, observation, patient, unique

REGISTRY = packaged().registry
SYSTOLIC, DIASTOLIC = concept(LOINC, "8480-6"), concept(LOINC, "8462-4")


def mmhg(value: float) -> dict[str, Any]:
    return {"value": value, "unit": "mmHg", "system": UCUM, "code": "mm[Hg]"}


def reading(owner: str, **elements: Any) -> dict[str, Any]:
    found = observation(owner, **elements)
    if any(name.startswith("value") or name == "component" for name in elements):
        del found["valueQuantity"]
    return found | ({"valueQuantity": elements["valueQuantity"]} if "valueQuantity" in elements else {})


PRESSURE = {
    "code": concept(LOINC, "85354-9"),
    "component": [
        {"code": SYSTOLIC, "valueQuantity": mmhg(120)},
        {"code": DIASTOLIC, "valueQuantity": mmhg(80)},
        {"code": concept("urn:c", "position"), "valueCodeableConcept": concept("urn:p", "sitting")},
    ],
}
STORED: dict[str, dict[str, Any]] = {
    "glucose": {},
    "pressure": PRESSURE,
    "group": {"code": concept(LOINC, "882-1"), "valueCodeableConcept": concept("urn:g", "A")},
    "day": {"code": concept(LOINC, "8665-2"), "valueDateTime": "2026-11-20"},
    "words": {"code": concept(LOINC, "48767-8"), "valueString": "After Breakfast, tired"},
}
# A composite parameter, what is asked of it, what is found.
ASKED = [
    ("code-value-quantity", f"{LOINC}|99504-3$104", ["glucose"]),
    ("code-value-quantity", f"99504-3$gt100|{UCUM}|mg/dL", ["glucose"]),
    ("code-value-quantity", "99504-3$gt104", []),
    ("code-value-quantity", "8480-6$120", []),  # not of the resource itself
    ("code-value-quantity", "x$104,99504-3$104", ["glucose"]),
    ("code-value-quantity", "x$104,y$104", []),
    ("code-value-concept", f"{LOINC}|882-1$urn:g|A", ["group"]),
    ("code-value-concept", "882-1$B", []),
    ("code-value-date", "8665-2$ge2026-11", ["day"]),
    ("code-value-date", "8665-2$lt2026-11", []),
    ("code-value-string", "48767-8$after", ["words"]),
    ("code-value-string", r"48767-8$after breakfast\, tired", ["words"]),
    ("code-value-string", "48767-8$tired", []),
    ("component-code-value-quantity", f"{LOINC}|8480-6$ge120", ["pressure"]),
    ("component-code-value-quantity", f"8462-4$80|{UCUM}|mm[Hg]", ["pressure"]),
    ("component-code-value-quantity", "8462-4$120", []),  # both are there, but not together
    ("component-code-value-quantity", f"8480-6$120|{UCUM}|kPa", []),
    ("component-code-value-concept", "urn:c|position$urn:p|sitting", ["pressure"]),
    ("component-code-value-concept", "8480-6$sitting", []),
    ("combo-code-value-quantity", "99504-3$104,8480-6$120", ["glucose", "pressure"]),
    ("combo-code-value-quantity", "8480-6$80", []),
    ("combo-code-value-concept", "882-1$A,position$sitting", ["group", "pressure"]),
    ("code-value-quantity:missing", "false", ["glucose"]),
    ("code-value-quantity:missing", "true", ["day", "group", "pressure", "words"]),
    ("component-code-value-quantity:missing", "false", ["pressure"]),
    ("combo-code-value-quantity:missing", "true", ["day", "group", "words"]),
    # and what else compares texts
    ("value-string:contains", "BREAK", ["words"]),
    ("value-string:contains", "tired", ["words"]),
    ("value-string:contains", "fast  tir", []),
    ("value-string:contains", "a.t", []),
    ("status:below", "amended", []),
    ("status:above", "final", ["day", "glucose", "group", "pressure", "words"]),
]


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


@pytest.fixture(scope="module")
async def names(camille: Actor) -> dict[str, str]:
    """What is stored, by id."""
    found = {}
    for name, elements in STORED.items():
        found[(await camille.create(reading(camille.patient, **elements)))["id"]] = name
    return found


@pytest.mark.requirement("CORE-02")
@pytest.mark.parametrize(("parameter", "asked", "expected"), ASKED)
async def test_both_parts_hold_for_one_value(
    camille: Actor, names: dict[str, str], parameter: str, asked: str, expected: list[str]
) -> None:
    for within in (f"patient={camille.patient}&", ""):
        found = await camille.search(f"Observation?{within}{parameter}={asked.replace('&', '%26')}")
        assert sorted(names[resource["id"]] for resource in found) == expected


def test_every_composite_of_observation_is_asked() -> None:
    declared = {name for name, p in REGISTRY["Observation"].search.items() if p.type == "composite"}
    assert {name for name, _, _ in ASKED} >= declared


@pytest.mark.requirement("CORE-02")
async def test_a_document_is_found_by_what_it_does_to_another(world: World) -> None:
    owner = await world.patient()
    targets = [await owner.create(document(owner.patient)) for _ in range(2)]
    relations = [
        {"code": code, "target": {"reference": f"DocumentReference/{target['id']}"}}
        for code, target in zip(("replaces", "appends"), targets, strict=True)
    ]
    stored = await owner.create(document(owner.patient, relatesTo=relations))
    for first, second, found in (("0", "replaces", True), ("1", "appends", True), ("0", "appends", False)):
        asked = f"DocumentReference/{targets[int(first)]['id']}${second}"
        hits = await owner.search(f"DocumentReference?patient={owner.patient}&relationship={asked}")
        assert [hit["id"] for hit in hits] == ([stored["id"]] if found else [])


async def test_a_resource_is_found_by_what_its_code_is_called(world: World) -> None:
    owner = await world.patient()
    code = {"coding": [{"system": LOINC, "code": "99504-3", "display": "Glucose [Mass/volume]"}], "text": "Glycémie"}
    stored = await owner.create(observation(owner.patient, code=code))
    for text, found in (
        ("glyc", True),
        ("GLYCEMIE", True),
        ("mass", True),
        ("[Mass/", True),
        ("99504-3", False),
        ("g.y", False),
    ):
        hits = await owner.search(f"Observation?patient={owner.patient}&code:text={text}")
        assert [hit["id"] for hit in hits] == ([stored["id"]] if found else []), text


async def test_codes_above_and_below(world: World) -> None:
    owner = await world.patient()
    ids = {}
    for intent in ("plan", "order", "filler-order", "instance-order"):
        request = {"resourceType": "ServiceRequest", "status": "active", "intent": intent, "code": concept(LOINC, "1")}
        ids[(await owner.create(request | {"subject": {"reference": f"Patient/{owner.patient}"}}))["id"]] = intent
    system = "http://hl7.org/fhir/request-intent"
    for asked, expected in (
        ("below=order", ["filler-order", "instance-order", "order"]),
        ("below=filler-order", ["filler-order", "instance-order"]),
        (f"below={system}|filler-order", ["filler-order", "instance-order"]),
        ("below=urn:x|filler-order", []),
        ("above=instance-order", ["filler-order", "instance-order", "order"]),
        ("below=plan,instance-order", ["instance-order", "plan"]),
        ("below=unheard-of", []),
    ):
        found = await owner.search(f"ServiceRequest?patient={owner.patient}&intent:{asked}")
        assert sorted(ids[resource["id"]] for resource in found) == expected, asked


async def test_uris_above_and_below(world: World) -> None:
    owner = await world.patient()
    ids = {}
    for url in ("http://a.example/x", "http://a.example/x/y", "http://a.example/xy", "http://a.example/", "mailto:x@a.example"):
        attachment = {"contentType": "text/plain", "url": url}
        ids[(await owner.create(document(owner.patient, content=[{"attachment": attachment}])))["id"]] = url[16:]
    for asked, expected in (
        ("below=http://a.example/x", ["/x", "/x/y"]),
        ("below=http://a.example/x/", ["/x", "/x/y"]),
        ("below=http://a.example", ["/", "/x", "/x/y", "/xy"]),
        ("below=http://a", []),
        ("above=http://a.example/x/y/z", ["/", "/x", "/x/y"]),
        ("above=http://a.example/xy", ["/", "/xy"]),
    ):
        found = await owner.search(f"DocumentReference?patient={owner.patient}&location:{asked}")
        assert sorted(ids[resource["id"]] for resource in found) == expected, asked


async def test_an_identifier_is_found_by_its_type(world: World) -> None:
    value, kind = unique("number"), {"coding": [{"system": "urn:types", "code": "INS-NIR"}]}
    owner = await world.patient(identifier=[{"system": unique("urn:s"), "type": kind, "value": value}])
    await world.operator.create(patient(identifier=[{"system": unique("urn:s"), "value": value}]))
    for asked, found in (
        (f"urn:types|INS-NIR|{value}", True),
        (f"urn:types|INS|{value}", False),
        ("urn:types|INS-NIR|x", False),
    ):
        hits = await world.operator.search(f"Patient?identifier:of-type={asked}")
        assert [hit["id"] for hit in hits] == ([owner.patient] if found else [])


@pytest.mark.requirement("SRCH-10")
@pytest.mark.parametrize(
    ("query", "code", "name"),
    [
        ("code-value-quantity=99504-3", "invalid", "code-value-quantity"),
        ("code-value-quantity=99504-3$ten", "invalid", "code-value-quantity"),
        ("code-value-quantity:exact=99504-3$1", "not-supported", "code-value-quantity"),
        ("value-string:contains= ", "invalid", "value-string:contains"),
        ("code:below=99504-3", "not-supported", "code"),
        ("code:in=http://x/ValueSet/y", "not-supported", "code"),
    ],
)
async def test_what_is_malformed_is_named(camille: Actor, query: str, code: str, name: str) -> None:
    answer = await camille.get(f"Observation?{query}")
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (400, code, name)
