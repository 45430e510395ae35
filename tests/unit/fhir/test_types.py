"""The derived types and fhir.resources say the same of every served type, but where a listed difference says who is right."""

from random import Random
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.codec import Codec
from gateway.fhir.registry import Registry
from gateway.fhir.types import NOT_IN_R4, Types
from gateway.problem import Problem
from tests.unit.fhir.breaking import BREAKINGS, Breaking, break_one, places
from tests.unit.fhir.differences import DIFFERENCES, Difference
from tests.unit.fhir.generate import Json, Maker, dump

SEEDS = st.integers(0, 2**32 - 1)
LISTED = {difference.kind for difference in DIFFERENCES}


def ours(codec: Codec, name: str, data: bytes) -> Problem | None:
    """What the gateway says of a resource, by the way a request takes."""
    try:
        codec.decode(name, data, calm=codec.check_body(data))
    except Problem as problem:
        return problem
    return None


def theirs(registry: Registry, name: str, data: bytes) -> str | None:
    """What fhir.resources says of it."""
    try:
        registry.types.model(name).model_validate_json(data)
    except (pydantic.ValidationError, TypeError) as error:  # (the library itself stumbles over objects where it wants text)
        return str(error)
    return None


class Voices:
    """Both voices (and nothing that Hypothesis would print at length)."""

    def __init__(self, codec: Codec, registry: Registry) -> None:
        self.codec, self.registry = codec, registry

    def made(self, random: Random) -> tuple[str, Json]:
        """A valid resource of any served type."""
        name = random.choice(sorted(self.registry.resource_types))
        return name, Maker(self.registry.types, random).resource(name)


@pytest.fixture(scope="session")
def voices(codec: Codec, registry: Registry) -> Voices:
    return Voices(codec, registry)


def expressions(problem: Problem) -> list[str]:
    return [(issue.expression or "").replace("._", ".") for issue in problem.issues]


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS)
def test_both_take_what_is_valid(voices: Voices, seed: int) -> None:
    name, resource = voices.made(Random(seed))
    data = dump(resource)
    found = ours(voices.codec, name, data)
    assert found is None, (found.issues, data)
    if '"_value' not in data.decode():  # (see "required choice by its twin")
        assert theirs(voices.registry, name, data) is None, data


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(seed=SEEDS)
def test_both_take_what_is_valid_at_length(voices: Voices, seed: int) -> None:
    name, resource = voices.made(Random(seed))
    assert ours(voices.codec, name, dump(resource)) is None, resource


@pytest.mark.parametrize("breaking", BREAKINGS, ids=lambda b: b.kind)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
@pytest.mark.requirement("CORE-16")
def test_what_is_broken_is_refused_by_both(voices: Voices, breaking: Breaking, seed: int) -> None:
    random, path = Random(seed), None
    while path is None:
        name, resource = voices.made(random)
        path = break_one(voices.registry.types, random, resource, breaking)
    data = dump(resource)
    found = ours(voices.codec, name, data)
    assert found is not None, data
    assert found.status in (400, 422)
    if not found.issues[0].text.startswith("not JSON"):
        assert is_named(path.replace("._", "."), found), (path, found.issues)
    assert found.issues == refusal(voices.codec, name, data).issues, "calm or not, the answer is the same"
    if theirs(voices.registry, name, data) is None:
        assert breaking.kind in LISTED, data


def refusal(codec: Codec, name: str, data: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        codec.decode(name, data)
    return caught.value


def is_named(path: str, problem: Problem) -> bool:
    """Whether an issue names the element, what holds it (a rule about more than one), or what is inside."""
    for issue, expression in zip(problem.issues, expressions(problem), strict=True):
        around = path.startswith(expression) and ("." in expression or issue.code == "invariant" or path.count(".") == 0)
        if around or expression.startswith(path):
            return True
    return False


def test_every_served_type_can_be_broken_in_every_way(registry: Registry) -> None:
    """No mistake is so rare that the comparison would never make it."""
    for kind in sorted(name for name, one in registry.resource_types.items() if not one.is_raw):  # (it has four elements)
        left = list(BREAKINGS)
        for seed in range(400):
            resource = Maker(registry.types, Random(seed)).resource(kind)
            found = [*places(registry.types, kind, resource, kind)]
            left = [breaking for breaking in left if not any(breaking.where(place) for place in found)]
        assert not left, kind


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda d: d.kind)
def test_each_listed_difference_is_one(codec: Codec, registry: Registry, row: Difference) -> None:
    name, data = row.example.split('"')[3], row.example.encode()
    assert (ours(codec, name, data) is None, theirs(registry, name, data) is None) == (row.ours, row.theirs)
    assert row.ours != row.theirs
    assert row.why


def test_a_difference_is_listed_once() -> None:
    assert len(LISTED) == len(DIFFERENCES)


@pytest.mark.parametrize("name", sorted(NOT_IN_R4))
def test_what_r4b_adds_is_no_type(registry: Registry, name: str) -> None:
    assert not registry.types.has_resource(name)
    with pytest.raises(KeyError):
        registry.types.struct(name)


@pytest.mark.parametrize(
    "name", ["Resource", "DomainResource", "patient", "__init__", "fhirtypes", "PatientContacts", "", "a.b", "é"]
)
def test_what_is_no_type_of_r4_has_no_struct(registry: Registry, name: str) -> None:
    with pytest.raises(KeyError):
        registry.types.struct(name)


@pytest.mark.parametrize("name", ["HumanName", "Extension", "PatientContact", "Element", "FHIRPrimitiveExtension"])
def test_a_datatype_is_no_resource(registry: Registry, name: str) -> None:
    registry.types.struct("Patient")
    assert not registry.types.has_resource(name)


@pytest.mark.parametrize("name", ["Observation", "DiagnosticReport"])
def test_a_subject_is_what_r4_says(registry: Registry, name: str) -> None:
    """R4B lets a subject be an Organization, Procedure, Practitioner, Medication or Substance; R4 does not."""
    subject = next(e for e in registry.types.elements(name) if e.name == "subject")
    assert subject.targets == ("Patient", "Group", "Device", "Location")


def test_no_string_is_longer_than_allowed() -> None:
    types = Types({}, string_length=10)
    codec = Codec(types, depth=8, explain_bytes=1_000)
    assert ours(codec, "Patient", b'{"resourceType":"Patient","name":[{"text":"0123456789"}]}') is None
    found = ours(codec, "Patient", b'{"resourceType":"Patient","name":[{"text":"0123456789a"}]}')
    assert found is not None
    assert expressions(found) == ["Patient.name[0].text"]


def required_elements(types: Types, name: str) -> list[Any]:
    return [e for e in types.elements(name) if e.required]


def test_all_that_is_required_is_said_at_once(codec: Codec, registry: Registry) -> None:
    found = refusal(codec, "ServiceRequest", b'{"resourceType":"ServiceRequest"}')
    assert {f"ServiceRequest.{e.name}" for e in required_elements(registry.types, "ServiceRequest")} <= set(expressions(found))
    assert {issue.code for issue in found.issues} == {"required"}
