"""Profiles: each rule that is broken is named by its element; a file that says nothing, or too much, stops the start."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.fhir.codec import Codec
from gateway.fhir.profiles import Profile, read_profiles
from gateway.fhir.registry import Registry
from gateway.schemas import SchemaError, find_schemas

UCUM = "http://unitsofmeasure.org"
CODES = {"mass": ("99504-3", "mg/dL", 104, 1000), "moles": ("105272-9", "mmol/L", 5.8, 56)}
URL = "http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-sensor-reading-{}-per-volume"

SUBJECT, EFFECTIVE, VALUE = (
    "Observation.subject",
    "Observation.effective.ofType(dateTime)",
    "Observation.value.ofType(Quantity)",
)


def reading(kind: str, **changes: Any) -> dict[str, Any]:
    """A valid reading; `changes` add or (None) take away elements."""
    code, unit, value, _ = CODES[kind]
    found = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2026-11-20T08:00:00Z",
        "valueQuantity": {"value": value, "unit": unit, "system": UCUM, "code": unit},
    }
    return {name: element for name, element in (found | changes).items() if element is not None}


def broken(profile: Profile, codec: Codec, resource: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Code and expression of every issue."""
    issues = profile.check(codec.decode(profile.type, json.dumps(resource).encode()))
    return [(issue.code, issue.expression) for issue in issues]


@pytest.mark.requirement("CGM-05")
@pytest.mark.parametrize("kind", CODES)
def test_each_rule_broken_is_named(registry: Registry, codec: Codec, kind: str) -> None:
    profile = registry.profiles[URL.format(kind)]
    _, unit, _, most = CODES[kind]
    other = CODES["moles" if kind == "mass" else "mass"]

    def quantity(**changes: Any) -> dict[str, Any]:
        return reading(kind, valueQuantity={"value": 5, "system": UCUM, "code": unit} | changes)

    reason = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "error"}]}
    wrong_code = {"coding": [{"system": "http://loinc.org", "code": other[0]}]}
    coded = reading(kind)["code"]["coding"]
    table = [
        (reading(kind), []),
        (reading(kind, valueQuantity=None, dataAbsentReason=reason), []),
        (reading(kind, code={"coding": [{"system": "urn:own", "code": "glucose"}, *coded]}), []),
        (quantity(value=0), []),
        (quantity(value=most), []),
        (reading(kind, code=wrong_code), [("code-invalid", "Observation.code")]),
        (reading(kind, code={"text": "glucose"}), [("code-invalid", "Observation.code")]),
        (reading(kind, code={"coding": [{"code": CODES[kind][0]}]}), [("code-invalid", "Observation.code")]),
        (reading(kind, subject=None), [("required", SUBJECT)]),
        (reading(kind, effectiveDateTime=None), [("required", EFFECTIVE)]),
        (reading(kind, effectiveDateTime=None, effectivePeriod={"start": "2026-11-20"}), [("required", EFFECTIVE)]),
        (reading(kind, valueQuantity=None), [("required", "Observation")]),
        (reading(kind, valueQuantity=None, valueString="high"), [("required", "Observation")]),
        (quantity(code=other[1]), [("code-invalid", VALUE)]),
        (quantity(system="urn:units"), [("code-invalid", VALUE)]),
        (reading(kind, valueQuantity={"value": 5, "unit": unit}), [("code-invalid", VALUE)]),
        (quantity(value=-0.1), [("value", VALUE)]),
        (quantity(value=most + 0.1), [("value", VALUE)]),
        (
            reading(kind, code=wrong_code, subject=None, effectiveDateTime=None, valueQuantity=None),
            [("code-invalid", "Observation.code"), ("required", SUBJECT), ("required", EFFECTIVE), ("required", "Observation")],
        ),
    ]
    for resource, expected in table:
        assert broken(profile, codec, resource) == expected, resource


def test_a_text_says_what_is_allowed_and_never_what_was_sent(registry: Registry, codec: Codec) -> None:
    sent = reading("mass", valueQuantity={"value": 4321.5, "system": UCUM, "code": "mg/dL"})
    (issue,) = registry.profiles[URL.format("mass")].check(codec.decode("Observation", json.dumps(sent).encode()))
    assert issue.text == "the profile allows values from 0 to 1000"


HEAD = 'url = "urn:test"\ntype = "Observation"\nsource = "test"\n'


def profile_of(folder: Path, registry: Registry, rule: str, head: str = HEAD) -> Profile:
    (folder / "test.toml").write_text(f"{head}{rule}")
    return read_profiles(folder, registry.types)["test"]


@pytest.mark.parametrize(
    ("rule", "resource", "expected"),
    [
        ('path = "status"\nrequired = true', {}, []),
        ('path = "bodySite"\nforbidden = true', {"bodySite": {"text": "arm"}}, [("value", "Observation.bodySite")]),
        ('path = "bodySite"\nforbidden = true', {}, []),
        ('path = "method"\nrequired = true\ncode = ["urn:m|1"]', {},
         [("required", "Observation.method"), ("code-invalid", "Observation.method")]),
        ('path = "method.coding"\ncode = ["urn:m|1"]', {"method": {"coding": [{"system": "urn:m", "code": "1"}]}}, []),
        ('path = "value.ofType(Quantity)"\nunit = ["mg"]\nmaximum = 3',
         {"valueQuantity": {"value": 4, "system": "urn:u", "code": "g"}},
         [("code-invalid", VALUE), ("value", VALUE)]),
        ('path = "value.ofType(Quantity)"\nminimum = 3', {"valueQuantity": {"value": 2.99}}, [("value", VALUE)]),
        ('path = "value.ofType(Quantity)"\nmaximum = 3', {}, []),
        ('path = "value.ofType(Quantity)"\nmaximum = 3', {"valueQuantity": {"unit": "mg"}}, []),
        ('any_of = ["method", "bodySite"]', {"bodySite": {"text": "arm"}}, []),
    ],
)  # fmt: skip
def test_a_rule_sets_every_limit_it_names(
    tmp_path: Path, registry: Registry, codec: Codec, rule: str, resource: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    plain = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    assert broken(profile_of(tmp_path, registry, f"[[rule]]\n{rule}"), codec, plain | resource) == expected


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ('path = "status"', "rule[0]: says nothing"),
        ('path = "status"\nrequired = true\nforbidden = true', "rule[0]: says nothing"),
        ("required = true", "rule[0]: has either any_of alone or a path"),
        ("any_of = []", "rule[0]: has either any_of alone or a path"),
        ('path = "status"\nany_of = ["method"]', "rule[0]: has either any_of alone or a path"),
        ('any_of = ["method"]\nrequired = true', "rule[0]: has either any_of alone or a path"),
        ('path = "stats"\nrequired = true', "rule[0]: Observation has no element 'stats'"),
        ('any_of = ["method", "stats"]', "rule[0]: Observation has no element 'stats'"),
        ('path = "status"\ncode = ["final"]', "rule[0]: such a rule cannot be held against code"),
        ('path = "code"\nunit = ["mg"]', "rule[0]: such a rule cannot be held against CodeableConcept"),
        ('path = "code"\nminimum = 1', "rule[0]: such a rule cannot be held against CodeableConcept"),
        ('path = "value.ofType(Quantity)"\nminimum = 2\nmaximum = 1', "rule[0]: its minimum is above its maximum"),
        ('path = "status"\nrequired = 1', "rule[0].required: Expected `bool`"),
        ('path = "status"\nneeded = true', "rule[0].needed: is not a key here"),
    ],
)
def test_a_rule_that_cannot_be_stops_the_start(tmp_path: Path, registry: Registry, rule: str, key: str) -> None:
    with pytest.raises(SchemaError) as refused:
        profile_of(tmp_path, registry, f"[[rule]]\n{rule}")
    assert str(refused.value).startswith(f"{tmp_path / 'test.toml'}: {key}")


def test_a_profile_of_no_type_and_one_that_is_there_twice(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(SchemaError, match="type: 'Reading' is not an R4 resource type"):
        profile_of(tmp_path, registry, "rule = []", HEAD.replace("Observation", "Reading"))
    (tmp_path / "other.toml").write_text(f"{HEAD}rule = []")
    with pytest.raises(SchemaError, match="url: is the url of another profile"):
        profile_of(tmp_path, registry, "rule = []")


def test_the_packaged_profiles_are_those_of_their_types(registry: Registry) -> None:
    assert {f"{p.url.rpartition('/')[2]}.toml" for p in registry.profiles.values()} == {
        file.name for file in (find_schemas() / "profiles").glob("*.toml")
    }
    for kind in registry.resource_types.values():
        assert all(registry.profiles[url].type == kind.name for url in kind.profiles)
