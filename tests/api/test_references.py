"""References of what is written: never to another's, to the missing or to the hidden, and all three are answered alike."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.world import (
    BASE,
    Actor,
    World,
    bundle,
    device,
    document,
    entry,
    expression,
    issues,
    observation,
    patient,
    practitioner,
)

Resource = dict[str, Any]
Place = Callable[[str, str], Resource]  # (owner, reference) → a resource that refers to it


def _ref(reference: str) -> Resource:
    return {"reference": reference}


def _contained(owner: str, reference: str) -> Resource:
    inner = {"resourceType": "Observation", "id": "in", "status": "final", "code": {"text": "x"}, "device": _ref(reference)}
    return observation(owner, contained=[inner])


def _extension(owner: str, reference: str) -> Resource:
    return observation(owner, extension=[{"url": "https://app.example/e", "valueReference": _ref(reference)}])


def _deep_extension(owner: str, reference: str) -> Resource:
    inner = [{"url": "https://app.example/in", "valueReference": _ref(reference)}]
    coded = {"text": "x", "extension": [{"url": "https://app.example/e", "extension": inner}]}
    return observation(owner, interpretation=[coded])


def _on_primitive(owner: str, reference: str) -> Resource:
    told = {"extension": [{"url": "https://app.example/e", "valueReference": _ref(reference)}]}
    return observation(owner, _status=told)


# Where a reference can stand: the type it leads to, the element the refusal names, a resource that has it.
PLACES: dict[str, tuple[str, str, Place]] = {
    "device": ("Device", "Observation.device", lambda o, r: observation(o, device=_ref(r))),
    "performer": ("RelatedPerson", "Observation.performer[0]", lambda o, r: observation(o, performer=[_ref(r)])),
    "hasMember": ("Observation", "Observation.hasMember[0]", lambda o, r: observation(o, hasMember=[_ref(r)])),
    "derivedFrom": ("DocumentReference", "Observation.derivedFrom[0]", lambda o, r: observation(o, derivedFrom=[_ref(r)])),
    "focus": ("Device", "Observation.focus[0]", lambda o, r: observation(o, focus=[_ref(r)])),
    "another patient": ("Patient", "Observation.focus[0]", lambda o, r: observation(o, focus=[_ref(r)])),
    "contained": ("Device", "Observation.contained[0].device", _contained),
    "extension": ("Device", "Observation.extension[0].value", _extension),
    "deep extension": ("Device", "Observation.interpretation[0].extension[0].extension[0].value", _deep_extension),
    "extension of a primitive": ("Device", "Observation._status.extension[0].value", _on_primitive),
    "relatesTo": (
        "DocumentReference",
        "DocumentReference.relatesTo[0].target",
        lambda o, r: document(o, relatesTo=[{"code": "replaces", "target": _ref(r)}]),
    ),
    "related": (
        "Observation",
        "DocumentReference.context.related[0]",
        lambda o, r: document(o, context={"related": [_ref(r)]}),
    ),
    "parent": ("Device", "Device.parent", lambda o, r: device(o, parent=_ref(r))),
}


async def _target(world: World, owner: Actor, type_name: str) -> str:
    """An existing resource of this type in the owner's record."""
    if type_name == "Patient":
        return f"Patient/{owner.patient}"
    if type_name == "RelatedPerson":
        return (await world.proxy(owner)).reference
    make = {"Device": device, "Observation": observation, "DocumentReference": document}[type_name]
    return f"{type_name}/{(await owner.create(make(owner.patient)))['id']}"


@pytest.mark.parametrize("name", PLACES)
async def test_another_patients_and_a_missing_target_are_refused_alike(world: World, name: str) -> None:
    type_name, element, make = PLACES[name]
    owner, other = await world.patient(), await world.patient()
    theirs = await _target(world, other, type_name)
    missing = f"{theirs[: -len('000000')]}zzzzzz"
    before = await world.fingerprint()
    answers = [
        await owner.post(made["resourceType"], made)
        for reference in (theirs, missing, f"{BASE}/{theirs}", f"{theirs}/_history/1")
        for made in [make(owner.patient, reference)]
    ]
    assert {a.status_code for a in answers} == {422}, answers[0].text
    assert len({a.text for a in answers}) == 1
    assert issues(answers[0])[0]["code"] == "not-found"
    assert (expression(answers[0]) or "").startswith(element)
    assert await world.fingerprint() == before
    if type_name != "Patient":
        mine = make(owner.patient, await _target(world, owner, type_name))
        assert (await owner.post(mine["resourceType"], mine)).status_code == 201


@pytest.mark.parametrize("name", PLACES)
async def test_an_update_refers_no_further_than_a_create(world: World, name: str) -> None:
    type_name, element, make = PLACES[name]
    owner, other = await world.patient(), await world.patient()
    theirs = await _target(world, other, type_name)
    missing = f"{theirs[: -len('000000')]}zzzzzz"
    plain = {"Observation": observation, "DocumentReference": document, "Device": device}[element.partition(".")[0]]
    kept = await owner.create(plain(owner.patient))
    before = await world.fingerprint()
    answers = [
        await owner.put(f"{kept['resourceType']}/{kept['id']}", make(owner.patient, reference) | {"id": kept["id"]})
        for reference in (theirs, missing)
    ]
    # (of a document nothing that refers may change at all)
    expected = 422 if world.gateway.registry[kept["resourceType"]].lifecycle is None else 405
    assert {a.status_code for a in answers} == {expected}
    assert answers[0].text == answers[1].text
    assert await world.fingerprint() == before


@pytest.mark.parametrize("escape", ["\\/", "\\u002f"])
async def test_escapes_in_the_json_hide_no_address_of_ours(world: World, escape: str) -> None:
    owner, other = await world.patient(), await world.patient()
    theirs = await _target(world, other, "Device")
    reading = observation(owner.patient, device=_ref(f"{BASE}/{theirs}"))
    answer = await owner.post("Observation", json.dumps(reading).replace("/", escape).encode())
    assert (answer.status_code, expression(answer)) == (422, "Observation.device")
    hidden = json.dumps(_extension(owner.patient, theirs)).replace('"extension"', '"e\\u0078tension"').encode()
    answer = await owner.post("Observation", hidden)
    assert (answer.status_code, expression(answer)) == (422, "Observation.extension[0].valueReference")


async def test_an_app_points_at_its_own_deposits_and_at_nothing_hidden(world: World) -> None:
    """It may collect, not read: what others put into the same record is hidden from it."""
    owner = await world.patient()
    app = await world.app(owner)
    await world.consent(owner, app, "collect", ["Observation", "Device"])
    hidden = await owner.create(device(owner.patient))
    own = await app.create(device(owner.patient))
    assert (await app.post("Observation", observation(owner.patient, device=_ref(f"Device/{own['id']}")))).status_code == 201
    answers = [
        await app.post("Observation", observation(owner.patient, device=_ref(reference)))
        for reference in (f"Device/{hidden['id']}", f"Device/{hidden['id'][:-6]}zzzzzz")
    ]
    assert {a.status_code for a in answers} == {422}
    assert answers[0].text == answers[1].text
    in_bundle = [
        await app.post(
            "", bundle("transaction", entry("POST", "Observation", observation(owner.patient, device=_ref(reference))))
        )
        for reference in (f"Device/{hidden['id']}", f"Device/{hidden['id'][:-6]}zzzzzz")
    ]
    assert in_bundle[0].text == in_bundle[1].text


async def test_a_deleted_target_is_like_a_missing_one(world: World) -> None:
    owner = await world.patient()
    sensor = await owner.create(device(owner.patient))
    await owner.delete(f"Device/{sensor['id']}")
    answers = [
        await owner.post("Observation", observation(owner.patient, device=_ref(f"Device/{identifier}")))
        for identifier in (sensor["id"], f"{sensor['id'][:-6]}zzzzzz")
    ]
    assert {a.status_code for a in answers} == {422}
    assert answers[0].text == answers[1].text


async def test_directories_can_be_referred_to_by_everybody(world: World) -> None:
    owner = await world.patient()
    doctor = await world.operator.create(practitioner())
    made = await owner.create(observation(owner.patient, performer=[_ref(f"Practitioner/{doctor['id']}")]))
    assert made["performer"] == [_ref(f"Practitioner/{doctor['id']}")]


async def test_own_absolute_addresses_become_relative_and_versions_stay(world: World) -> None:
    owner = await world.patient()
    sensor = await owner.create(device(owner.patient))
    made = await owner.create(
        observation(
            owner.patient,
            subject=_ref(f"{BASE}/Patient/{owner.patient}"),
            device=_ref(f"{BASE}/Device/{sensor['id']}/_history/1"),
        )
    )
    assert made["subject"] == _ref(f"Patient/{owner.patient}")
    assert made["device"] == _ref(f"Device/{sensor['id']}/_history/1")


async def test_the_address_of_the_service_itself_is_no_reference_and_stays(world: World) -> None:
    owner = await world.patient()
    told = [{"url": "https://app.example/sent-to", "valueUrl": f"{BASE}/"}, {"url": "https://app.example/x", "valueUrl": BASE}]
    assert (await owner.create(observation(owner.patient, extension=told)))["extension"] == told
    answer = await owner.post("Observation", observation(owner.patient, device=_ref(f"{BASE}/../fhir/Device/000-x")))
    assert (answer.status_code, expression(answer)) == (422, "Observation.device")


async def test_an_own_address_is_made_relative_where_it_is_a_link_and_kept_elsewhere(world: World) -> None:
    owner = await world.patient()
    own = f"{BASE}/Patient/{owner.patient}"
    told = [{"url": "https://app.example/source", name: own} for name in ("valueUri", "valueUrl")]
    div = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{own}">a</a></div>'
    paper = document(
        owner.patient,
        extension=told,
        content=[{"attachment": {"url": own}}],
        text={"status": "generated", "div": div},
    )
    made = await owner.create(paper)
    assert made["extension"] == told
    assert made["content"] == [{"attachment": {"url": f"Patient/{owner.patient}"}}]
    assert made["text"]["div"] == div.replace(own, f"Patient/{owner.patient}")


@pytest.mark.requirement("BUN-03")
async def test_a_uri_is_replaced_only_where_it_is_a_full_url(world: World) -> None:
    owner = await world.patient()
    full_url = "https://app.example/fhir/Device/sensor-1"
    sent = [full_url, f"{full_url}/_history/1", "Device/sensor-1", f"{BASE}/Device/sensor-1"]
    told = [{"url": "https://app.example/source", "valueUri": uri} for uri in sent]
    reading = observation(owner.patient, device=_ref("Device/sensor-1"), extension=told)
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Device", device(owner.patient) | {"id": "sensor-1"}, full_url),
            entry("POST", "Observation", reading, "https://app.example/fhir/Observation/1"),
        ),
        Prefer="return=representation",
    )
    sensor, made = (e["resource"] for e in answer.json()["entry"])
    assert made["device"] == _ref(f"Device/{sensor['id']}")
    assert [e["valueUri"] for e in made["extension"]] == [f"Device/{sensor['id']}", *sent[1:]]


async def test_addresses_elsewhere_are_kept_and_never_followed(world: World) -> None:
    owner = await world.patient()
    elsewhere = "https://canary.example/fhir/Device/1"
    made = await owner.create(observation(owner.patient, device=_ref(elsewhere)))
    assert made["device"] == _ref(elsewhere)


# A reference that can never be right, and how it is refused.
WRONG: dict[str, tuple[str, int, str]] = {
    "a conditional reference": ("Device?identifier=https://app.example/x|1", 422, "not-supported"),
    "a short conditional reference": ("Device?identifier=1", 422, "not-supported"),
    "no reference": ("sensor", 422, "value"),
    "a path": ("/Device/000-x", 422, "value"),
    "another type": ("Practitioner/000-x", 422, "value"),
    "a type nobody knows": ("Gadget/000-x", 422, "value"),
    "a type not served": ("DeviceMetric/000-x", 422, "not-found"),
    "no id": ("Device/", 422, "not-found"),
    "a missing contained resource": ("#sensor", 422, "invariant"),
    "a UUID that names nothing": ("urn:uuid:8b8f0d4c-8a38-4a8e-8a1e-8b5e4a6f0001", 422, "not-found"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_reference_that_leads_nowhere_is_refused(world: World, name: str) -> None:
    text, status, code = WRONG[name]
    owner = await world.patient()
    before = await world.fingerprint()
    answer = await owner.post("Observation", observation(owner.patient, device=_ref(text)))
    assert (answer.status_code, issues(answer)[0]["code"]) == (status, code), answer.text
    assert expression(answer) == "Observation.device"
    assert await world.fingerprint() == before


async def test_fragments_lead_to_contained_resources(world: World) -> None:
    owner = await world.patient()
    inside = {"resourceType": "Device", "id": "sensor", "parent": _ref("#")}
    made = await owner.create(observation(owner.patient, contained=[inside], device=_ref("#sensor")))
    assert (made["contained"], made["device"]) == ([inside], _ref("#sensor"))


async def test_logical_references_are_kept_as_they_are(world: World) -> None:
    owner = await world.patient()
    logical = {"type": "Practitioner", "identifier": {"system": "https://rpps.esante.gouv.fr", "value": "10999000042"}}
    made = await owner.create(observation(owner.patient, performer=[logical]))
    assert made["performer"] == [logical]


async def test_a_patient_refers_to_nobody_elses_record(world: World) -> None:
    """But for its links to other Patients, which operators alone write: see test_merge."""
    other = await world.patient()
    extension = [{"url": "https://app.example/kin", "valueReference": _ref(f"Patient/{other.patient}")}]
    answer = await world.operator.post("Patient", patient(extension=extension))
    assert (answer.status_code, expression(answer)) == (422, "Patient.extension[0].valueReference")
