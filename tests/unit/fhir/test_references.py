"""Every place that points somewhere is found and rewritten, and nothing that only identifies is touched."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings

from gateway.fhir.codec import Codec
from gateway.fhir.references import References
from gateway.fhir.registry import Registry
from tests.unit.fhir.generate import dump
from tests.unit.fhir.test_types import SEEDS, Voices, voices

__all__ = ["voices"]

OLD = "urn:uuid:0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0"
NEW = "Patient/new"
DIV = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{OLD}">a</a><img src=\'{OLD}\'/> {OLD}</div>'
MORE = {"url": "http://example.org/x", "valueReference": {"reference": OLD}}


@pytest.fixture(scope="session")
def references(registry: Registry, codec: Codec) -> References:
    return References(registry.types, codec)


def rewritten(references: References, codec: Codec, resource: dict[str, Any]) -> dict[str, Any]:
    decoded = codec.decode(resource["resourceType"], json.dumps(resource).encode())
    references.rewrite(decoded, *[lambda text: NEW if text == OLD else text] * 2)
    found: dict[str, Any] = json.loads(codec.encode(decoded))
    codec.decode(resource["resourceType"], codec.encode(decoded))
    return found


OBSERVATION: dict[str, Any] = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
DOCUMENT: dict[str, Any] = {"resourceType": "DocumentReference", "status": "current"}


@pytest.mark.requirement("BUN-03")
@pytest.mark.parametrize(
    "resource",
    [
        {**OBSERVATION, "subject": {"reference": OLD}},
        {**OBSERVATION, "performer": [{"reference": OLD}, {"display": "a"}]},
        {**OBSERVATION, "subject": {"identifier": {"value": "a", "assigner": {"reference": OLD}}}},
        {**OBSERVATION, "note": [{"text": "a", "authorReference": {"reference": OLD}}]},
        {**OBSERVATION, "extension": [MORE]},
        {**OBSERVATION, "extension": [{"url": "http://a", "extension": [MORE]}]},
        {**OBSERVATION, "extension": [{"url": "http://a", "valueUri": OLD}]},
        {**OBSERVATION, "extension": [{"url": "http://a", "valueUrl": OLD}]},
        {**OBSERVATION, "modifierExtension": [MORE]},
        {**OBSERVATION, "_status": {"extension": [MORE]}},
        {**OBSERVATION, "code": {"coding": [{"code": "a", "_code": {"extension": [MORE]}}]}},
        {**OBSERVATION, "extension": [{"url": "http://a", "_valueString": {"extension": [MORE]}}]},
        {"resourceType": "Patient", "name": [{"given": ["a", "b"], "_given": [None, {"extension": [MORE]}]}]},
        {"resourceType": "Patient", "photo": [{"url": OLD}]},
        {**DOCUMENT, "content": [{"attachment": {"url": OLD}}]},
        {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": {"display": "a"},
         "instantiatesUri": [OLD]},
        {**OBSERVATION, "contained": [{"resourceType": "Device", "id": "a", "patient": {"reference": OLD}}]},
        {**OBSERVATION, "contained": [{"resourceType": "Device", "id": "a", "extension": [MORE]}]},
        {**OBSERVATION, "contained": [{"resourceType": "Patient", "id": "a", "photo": [{"url": OLD}]}]},
    ],
)  # fmt: skip
def test_is_rewritten(references: References, codec: Codec, resource: dict[str, Any]) -> None:
    before = json.dumps(resource)
    assert OLD in before
    assert json.dumps(rewritten(references, codec, resource)).count(NEW) == before.count(OLD)


@pytest.mark.requirement("BUN-03")
@pytest.mark.parametrize("within", [{}, {"contained": True}])
def test_links_of_the_narrative_are_rewritten_and_its_text_is_not(references: References, codec: Codec, within: Any) -> None:
    patient: dict[str, Any] = {"resourceType": "Patient", "text": {"status": "generated", "div": DIV}}
    if within:
        found = rewritten(references, codec, {**OBSERVATION, "contained": [{**patient, "id": "a"}]})["contained"][0]
    else:
        found = rewritten(references, codec, patient)
    assert found["text"]["div"] == DIV.replace(f'"{OLD}"', f'"{NEW}"').replace(f"'{OLD}'", f"'{NEW}'")
    assert f"> {OLD}<" in found["text"]["div"]


@pytest.mark.requirement("BUN-03")
@pytest.mark.parametrize(
    "resource",
    [
        {**OBSERVATION, "identifier": [{"system": OLD, "value": OLD}]},
        {**OBSERVATION, "code": {"coding": [{"system": OLD, "code": "a", "display": OLD}], "text": OLD}},
        {**OBSERVATION, "valueQuantity": {"value": 1, "system": OLD, "code": "a"}},
        {**OBSERVATION, "extension": [{"url": OLD, "valueString": OLD}]},
        # https://hl7.org/fhir/R4/http.html#trules: canonicals are not replaced; a uuid could not hold anything else
        {**OBSERVATION, "extension": [{"url": "http://a", "valueCanonical": OLD}]},
        {**OBSERVATION, "extension": [{"url": "http://a", "valueUuid": OLD}]},
        {**OBSERVATION, "meta": {"profile": [OLD]}, "implicitRules": OLD},
        {**OBSERVATION, "note": [{"text": OLD}], "subject": {"display": OLD}},
    ],
)
def test_what_identifies_is_left_alone(references: References, codec: Codec, resource: dict[str, Any]) -> None:
    assert rewritten(references, codec, resource) == resource


def test_what_points_and_what_may_point_are_told_apart(references: References, codec: Codec) -> None:
    resource = {
        **DOCUMENT, "subject": {"reference": OLD}, "content": [{"attachment": {"url": OLD}}],
        "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{OLD}">a</a></div>'},
        "extension": [{"url": "http://a", "valueUri": OLD}, {"url": "http://a", "valueUrl": OLD}],
    }  # fmt: skip
    decoded = codec.decode("DocumentReference", json.dumps(resource).encode())
    references.rewrite(decoded, lambda _: "link", lambda _: "uri")
    found = json.loads(codec.encode(decoded))
    assert (found["subject"]["reference"], found["content"][0]["attachment"]["url"]) == ("link", "link")
    assert 'href="link"' in found["text"]["div"]
    assert found["extension"] == [{"url": "http://a", "valueUri": "uri"}, {"url": "http://a", "valueUrl": "uri"}]


def test_places_are_named_from_the_resource(references: References, codec: Codec) -> None:
    resource = {
        **OBSERVATION, "subject": {"reference": "Patient/1"},
        "performer": [{"reference": "Patient/2"}, {"reference": "Patient/3"}],
        "extension": [{"url": "http://a", "valueReference": {"reference": "Patient/4"}}],
        "_status": {"extension": [{"url": "http://a", "valueReference": {"reference": "Patient/5"}}]},
        "contained": [{"resourceType": "Device", "id": "a", "patient": {"reference": "Patient/6"}}],
    }  # fmt: skip
    decoded = codec.decode("Observation", json.dumps(resource).encode())
    found = {place.expression: (place.reference.reference, place.targets) for place in references.find(decoded)}
    assert {expression: reference for expression, (reference, _) in found.items()} == {
        "Observation.subject": "Patient/1", "Observation.performer[0]": "Patient/2", "Observation.performer[1]": "Patient/3",
        "Observation.extension[0].valueReference": "Patient/4", "Observation._status.extension[0].valueReference": "Patient/5",
        "Observation.contained[0].patient": "Patient/6",
    }  # fmt: skip
    assert found["Observation.subject"][1] == ("Patient", "Group", "Device", "Location")
    assert found["Observation.contained[0].patient"][1] == ("Patient",)
    plain = {place.expression for place in references.find(decoded, with_extensions=False)}
    assert plain == {e for e in found if "xtension" not in e}


def strings(it: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every `reference` in JSON, at any depth."""
    if isinstance(it, dict):
        for key, value in it.items():
            yield from strings(value, key)
    elif isinstance(it, list):
        for value in it:
            yield from strings(value, name)
    elif isinstance(it, str):
        yield name, it


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS)
def test_no_reference_is_missed(voices: Voices, seed: int) -> None:
    references = References(voices.registry.types, voices.codec)
    name, resource = voices.made(Random(seed))
    sent = json.loads(dump(resource))
    decoded = voices.codec.decode(name, dump(resource))
    wanted = sorted(text for key, text in strings(sent) if key == "reference" and text)
    literal = [p.reference.reference for p in references.find(decoded)]
    assert set(wanted) >= {text for text in literal if text is not None}
    references.rewrite(decoded, str, str)
    assert json.loads(voices.codec.encode(decoded)) == sent
