"""Every mistake is told at once, and nothing that is right is called one."""

import json
from random import Random

import pytest
from hypothesis import given, settings

from gateway.fhir.explain import mistakes
from gateway.problem import Problem
from tests.unit.fhir.generate import dump
from tests.unit.fhir.test_codec import read
from tests.unit.fhir.test_types import SEEDS, Voices, voices

__all__ = ["voices"]

WRONG = """{"resourceType": "Observation", "status": "done", "kitten": 1, "issued": "yesterday", "category": [], "focus": null,
 "subject": "Patient/1", "valueQuantity": {"value": "104", "unit": 5}, "interpretation": {"text": "x"}, "method": {"coding":
 [{"userSelected": "true"}, {"_code": {"kitten": 1}}]}, "note": [{}],
 "contained": [{"resourceType": "Patient", "gender": "x"}]}"""

TOLD = {
    "Observation.status": "the code is not in the required value set",
    "Observation.kitten": "R4 has no such element here",
    "Observation.code": "this element is required",
    "Observation.issued": "not a valid value of this element",
    "Observation.category": "an array has one item at least",
    "Observation.focus": "expected array, got null",
    "Observation.subject": "expected object, got str",
    "Observation.valueQuantity.value": "a number is sent as a JSON number, and nothing else is",
    "Observation.valueQuantity.unit": "expected str, got int",
    "Observation.interpretation": "expected array, got object",
    "Observation.method.coding[0].userSelected": "expected bool, got str",
    "Observation.method.coding[1]._code.kitten": "R4 has no such element here",
    "Observation.note[0].text": "this element is required",
    "Observation.contained[0].gender": "the code is not in the required value set",
}


def test_every_mistake_is_told_at_once(voices: Voices) -> None:
    with pytest.raises(Problem) as caught:
        read(voices.codec, WRONG.encode())
    told = {issue.expression: issue.text for issue in caught.value.issues}
    assert {place: told.get(place) for place in TOLD} == TOLD
    assert all(issue.text not in ("104", "yesterday", "Patient/1") for issue in caught.value.issues)


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS)
def test_what_is_right_is_no_mistake(voices: Voices, seed: int) -> None:
    name, resource = voices.made(Random(seed))
    assert list(mistakes(voices.registry.types, name, json.loads(dump(resource)), name)) == []
