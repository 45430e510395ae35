"""Parts of a resource: what `_summary` and `_elements` keep, against fhir.resources and the text of the standard."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.codec import Codec
from gateway.fhir.registry import Registry
from gateway.fhir.subset import Subset, Subsets
from gateway.problem import Problem
from tests.conftest import packaged
from tests.examples import TYPES, read_example
from tests.unit.fhir.generate import Maker, dump

REGISTRY = packaged().registry
SUBSETS = Subsets(REGISTRY.types)
TAG = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
ALWAYS = {"resourceType", "id", "meta", "implicitRules", "modifierExtension"}

pytestmark = pytest.mark.requirement("SRCH-09")


def roots(name: str) -> list[str]:
    return [e.name for e in REGISTRY.types.elements(name) if e.name[0] != "_"]


PARTS: dict[str, Callable[[str], Subset]] = {
    "true": lambda name: SUBSETS.summary(name, "true"),
    "text": lambda name: SUBSETS.summary(name, "text"),
    "data": lambda name: SUBSETS.summary(name, "data"),
    "nothing named": lambda name: SUBSETS.elements(name, ()),
    "every third": lambda name: SUBSETS.elements(name, roots(name)[::3]),
}


def mandatory(name: str) -> set[str]:
    elements = REGISTRY.types.elements(name)
    return {e.name for e in elements if e.required or e.choice_required}


def wrong(codec: Codec, name: str, body: bytes) -> set[str]:
    """What the gateway finds wrong with a resource."""
    try:
        codec.decode(name, body, calm=codec.check_body(body))
    except Problem as problem:
        return {issue.code for issue in problem.issues}
    return set()


def is_part(part: Any, whole: Any) -> bool:
    """Whether nothing in `part` is other than in `whole`."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and is_part(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        rest = iter(whole)
        return all(any(is_part(item, other) for other in rest) for item in part)
    return bool(part == whole)


def untagged(part: dict[str, Any]) -> dict[str, Any]:
    meta = {**part["meta"], "tag": [tag for tag in part["meta"]["tag"] if tag != TAG]}
    meta = {name: value for name, value in meta.items() if value}
    return {name: value for name, value in part.items() if name != "meta"} | ({"meta": meta} if meta else {})


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_part_is_a_valid_resource_and_nothing_but_the_whole_says(codec: Codec, name: str, part: str, seed: int) -> None:
    whole = Maker(REGISTRY.types, Random(seed)).resource(name)
    cut = PARTS[part](name)(dump(whole))
    # (an Organization has a name or an identifier: a part of it need not)
    assert wrong(codec, name, cut) <= {"invariant"}
    found = json.loads(cut)
    assert found["meta"]["tag"][-1] == TAG
    assert is_part(untagged(found), json.loads(dump(whole)))
    kept = (mandatory(name) | ALWAYS) & whole.keys()
    assert kept <= found.keys()
    assert PARTS[part](name)(cut) == cut  # and so is the tag there once


@pytest.mark.parametrize("name", TYPES)
def test_the_summary_is_what_fhir_resources_says_it_is(name: str) -> None:
    model = REGISTRY.types.model(name)
    whole = read_example(name)
    found = json.loads(SUBSETS.summary(name, "true")(json.dumps(whole).encode()))
    assert set(found) == {n for n in whole if n in {*model.summary_elements_sequence(), *mandatory(name), *ALWAYS}} | {"meta"}


def cut(part: Subset, **elements: Any) -> dict[str, Any]:
    found = json.loads(part(json.dumps({"resourceType": "X", "id": "a-1", **elements}).encode()))
    del found["meta"]
    return dict(found)


def test_the_summary_of_a_document_has_not_its_bytes() -> None:
    attachment = {"contentType": "text/plain", "data": "SGVsbG8=", "_title": {"extension": [{"url": "urn:x"}]}}
    context = {"event": [{"text": "x"}], "facilityType": {"text": "y"}}
    sent = {"status": "current", "content": [{"attachment": attachment}], "context": context, "text": {"status": "empty"}}
    found = cut(SUBSETS.summary("DocumentReference", "true"), **sent)
    del attachment["data"]
    # (and what would be left empty is not there at all)
    assert found == {"resourceType": "X", "id": "a-1", "status": "current", "content": [{"attachment": attachment}]}


def test_a_part_keeps_every_digit() -> None:
    sent = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":5.10}}'
    for part in (SUBSETS.summary("Observation", "true"), SUBSETS.elements("Observation", ["value"])):
        assert b'"value":5.10}' in part(sent)


@pytest.mark.parametrize("asked", ["value", "value[x]", "valueQuantity"])
def test_a_choice_is_named_in_any_way(asked: str) -> None:
    sent = {"status": "final", "code": {"text": "x"}, "valueQuantity": {"value": 5}, "note": [{"text": "n"}]}
    found = cut(SUBSETS.elements("Observation", [asked]), **sent)
    assert found == {"resourceType": "X", "id": "a-1", "status": "final", "code": {"text": "x"}, "valueQuantity": {"value": 5}}


def test_what_says_more_of_a_primitive_stays_with_it() -> None:
    unknown = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}
    found = cut(SUBSETS.elements("Patient", ["birthDate"]), _birthDate=unknown, _gender=unknown, gender="other")
    assert found == {"resourceType": "X", "id": "a-1", "_birthDate": unknown}


@pytest.mark.parametrize("name", ["foo", "", "code.coding", "_code", "Value", " code", "Observation.code"])
def test_an_element_that_is_not_there_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(Problem) as caught:
        Subsets(registry.types).elements("Observation", ["code", name])
    assert (caught.value.status, caught.value.issues[0].expression) == (400, "_elements")
