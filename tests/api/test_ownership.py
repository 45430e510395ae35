"""Whose record a resource belongs to: how a patient is named, and that nothing ever moves to another."""

from typing import Any

import pytest

from tests.world import (
    BASE,
    LOINC,
    Actor,
    World,
    bundle,
    concept,
    consent,
    device,
    document,
    entry,
    expression,
    issues,
    observation,
    organization,
    patient,
    related_person,
)


async def _identifier(world: World, owner: Actor) -> dict[str, str]:
    """The business identifier of a patient."""
    found = (await world.operator.get(f"Patient/{owner.patient}")).json()["identifier"][0]
    return {"system": found["system"], "value": found["value"]}


async def test_a_logical_reference_to_the_patient_is_resolved(world: World) -> None:
    owner = await world.patient()
    subject = {"identifier": await _identifier(world, owner), "display": "Camille"}
    made = await owner.create(observation(owner.patient, subject=subject))
    assert made["subject"] == subject
    stored = (await world.stored("Observation", _id=made["id"]))[0]
    assert stored["patient"] == owner.patient
    assert made["id"][:3] == owner.patient[:3]
    assert [r["id"] for r in await owner.search(f"Observation?patient={owner.patient}")] == [made["id"]]


async def test_literal_and_logical_names_of_a_patient_make_one_key(world: World) -> None:
    owner = await world.patient()
    reading = observation(owner.patient)
    made = await owner.create(reading)
    again = reading | {"subject": {"identifier": await _identifier(world, owner)}}
    answer = await owner.post("Observation", again)
    assert (answer.status_code, issues(answer)[0]["code"]) == (409, "duplicate")  # it does say something else
    assert (await owner.post("Observation", reading)).headers["Location"].split("/")[-3] == made["id"]


# Ways to name somebody who is not there, or not for this writer: each pair must be answered alike.
@pytest.mark.parametrize("kind", ["patient", "app", "professional", "service", "operator"])
@pytest.mark.parametrize("way", ["literal", "absolute", "logical"])
async def test_another_patient_is_refused_like_one_who_does_not_exist(world: World, kind: str, way: str) -> None:
    mine, other = await world.patient(), await world.patient()
    writer = {
        "patient": lambda: world.patient_actor(mine.patient),
        "app": lambda: world.app(mine),
        "professional": lambda: world.professional("patient/*.cruds", patient=mine.patient),
        "service": lambda: world.service("user/*.cruds"),
        "operator": lambda: world.actor("operator", "system/Observation.c"),
    }[kind]
    actor = await writer()
    known = await _identifier(world, other)
    names: dict[str, list[dict[str, Any]]] = {
        "literal": [{"reference": f"Patient/{other.patient}"}, {"reference": f"Patient/{other.patient[:-6]}zzzzzz"}],
        "absolute": [{"reference": f"{BASE}/Patient/{other.patient}"}, {"reference": f"{BASE}/Patient/000-none"}],
        "logical": [{"identifier": known}, {"identifier": known | {"value": "9999999999999"}}],
    }
    before = await world.fingerprint()
    answers = [await actor.post("Observation", observation("x", subject=subject)) for subject in names[way]]
    assert answers[0].status_code in (403, 422), answers[0].text
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].text == answers[1].text
    in_bundle = [
        await actor.post("", bundle("transaction", entry("POST", "Observation", observation("x", subject=subject))))
        for subject in names[way]
    ]
    assert in_bundle[0].text == in_bundle[1].text
    assert await world.fingerprint() == before


async def test_an_operator_brings_nobody_into_the_record_of_a_patient_who_is_not_there(world: World) -> None:
    for subject in ({"reference": "Patient/000-none"}, {"identifier": {"system": "urn:oid:1.2.3", "value": "none"}}):
        answer = await world.operator.post("RelatedPerson", related_person("x", patient=subject))
        assert (answer.status_code, issues(answer)[0]["code"]) == (422, "not-found"), answer.text
        assert expression(answer) == "RelatedPerson.patient"
        in_bundle = await world.operator.post(
            "", bundle("transaction", entry("POST", "RelatedPerson", related_person("x", patient=subject)))
        )
        assert expression(in_bundle) == "Bundle.entry[0].resource.patient"


# Subjects that are no patient at all, existing or not.
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("type_name", ["Device", "Practitioner", "Group", "Organization"])
async def test_a_subject_that_is_no_patient_is_refused(world: World, type_name: str, missing: bool) -> None:
    owner = await world.patient()
    target = f"{type_name}/000-none"
    if not missing and type_name == "Device":
        target = f"Device/{(await owner.create(device(owner.patient)))['id']}"
    if not missing and type_name == "Organization":
        target = f"Organization/{(await world.operator.create(organization()))['id']}"
    answer = await owner.post("Observation", observation("x", subject={"reference": target}))
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "not-found")
    assert expression(answer) == "Observation.subject.reference"


NOT_NAMED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "only a display": {"subject": {"display": "Camille"}},
    "an identifier without system": {"subject": {"identifier": {"value": "1850578006084"}}},
    "an identifier without value": {"subject": {"identifier": {"system": "urn:oid:1.2.250.1.213.1.4.10"}}},
}


@pytest.mark.parametrize("name", NOT_NAMED)
@pytest.mark.parametrize("interaction", ["create", "update"])
async def test_it_must_say_whose_data_it_is(world: World, name: str, interaction: str) -> None:
    owner = await world.patient()
    made = await owner.create(observation(owner.patient))
    changed = {k: v for k, v in made.items() if k != "subject"} | NOT_NAMED[name]
    before = await world.fingerprint()
    if interaction == "create":
        answer = await owner.post("Observation", changed | {"identifier": [{"system": "urn:x", "value": made["id"]}]})
        assert (answer.status_code, issues(answer)[0]["code"]) == (422, "required"), answer.text
    else:
        answer = await owner.put(f"Observation/{made['id']}", changed)
        assert answer.status_code == 422
    assert expression(answer) == "Observation.subject"
    assert await world.fingerprint() == before


@pytest.mark.requirement("T-11")
@pytest.mark.parametrize("way", ["literal", "absolute", "logical", "unknown", "nobody", "contained", "another type"])
async def test_an_update_never_moves_a_resource_to_another_patient(world: World, way: str) -> None:
    """The same refusal whoever is named: it tells nothing of anybody."""
    owner, other = await world.patient(), await world.patient()
    made = await owner.create(observation(owner.patient))
    inside = {"resourceType": "Patient", "id": "p"}
    changes: dict[str, dict[str, Any]] = {
        "literal": {"subject": {"reference": f"Patient/{other.patient}"}},
        "absolute": {"subject": {"reference": f"{BASE}/Patient/{other.patient}"}},
        "logical": {"subject": {"identifier": await _identifier(world, other)}},
        "unknown": {"subject": {"identifier": {"system": "urn:oid:1.2.3", "value": "none"}}},
        "nobody": {"subject": {"reference": "Patient/000-none"}},
        "contained": {"subject": {"reference": "#p"}, "contained": [inside]},
        "another type": {"subject": {"reference": "Group/000-none"}},
    }
    before = await world.fingerprint()
    answer = await owner.put(f"Observation/{made['id']}", made | changes[way])
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "business-rule"), answer.text
    assert issues(answer)[0]["diagnostics"] == "an update cannot move a resource to another patient"
    assert expression(answer) == "Observation.subject"
    in_bundle = await owner.post("", bundle("transaction", entry("PUT", f"Observation/{made['id']}", made | changes[way])))
    assert expression(in_bundle) == "Bundle.entry[0].resource.subject"
    assert await world.fingerprint() == before


@pytest.mark.requirement("T-11")
async def test_an_update_may_name_its_patient_in_every_way(world: World) -> None:
    owner = await world.patient()
    made = await owner.create(observation(owner.patient))
    for subject in ({"identifier": await _identifier(world, owner)}, {"reference": f"{BASE}/Patient/{owner.patient}"}):
        answer = await owner.put(f"Observation/{made['id']}", made | {"subject": subject})
        assert answer.status_code == 200, answer.text
    stored = (await world.stored("Observation", _id=made["id"]))[0]
    assert (stored["version"], stored["patient"]) == (3, owner.patient)


async def test_a_device_without_patient_belongs_to_the_patient_in_context(world: World) -> None:
    owner = await world.patient()
    made = await owner.create(device())
    assert "patient" not in made
    assert (await world.stored("Device", _id=made["id"]))[0]["patient"] == owner.patient
    answer = await owner.put(f"Device/{made['id']}", made | {"status": "inactive"})
    assert answer.status_code == 200, answer.text
    assert (await world.stored("Device", _id=made["id"]))[0]["patient"] == owner.patient


@pytest.mark.requirement("T-11")
async def test_a_device_of_the_catalogue_is_never_given_to_a_patient(world: World) -> None:
    owner = await world.patient()
    made = await world.operator.create(device())
    answer = await world.operator.put(f"Device/{made['id']}", made | {"patient": {"reference": f"Patient/{owner.patient}"}})
    assert (answer.status_code, expression(answer)) == (422, "Device.patient")


async def test_nobody_but_who_keeps_the_catalogue_writes_what_belongs_to_nobody(world: World) -> None:
    doctor = await world.professional()
    before = await world.fingerprint()
    answer = await doctor.post("Device", device())
    assert (answer.status_code, expression(answer)) == (422, "Device.patient")
    assert await world.fingerprint() == before


async def test_a_patient_in_context_and_another_in_the_resource_is_refused(world: World) -> None:
    mine, other = await world.patient(), await world.patient()
    app = await world.app(mine)
    for owner in (mine, other):
        await owner.create(consent(owner, app, "collect", ["Observation"]))
    answer = await app.post("Observation", observation(other.patient))
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "not-found")
    assert (await app.post("Observation", observation(mine.patient))).status_code == 201


async def test_a_resource_of_two_patients_is_refused(world: World) -> None:
    """DocumentReference.subject is one; only a type whose owner may be named twice could try."""
    owner, other = await world.patient(), await world.patient()
    paper = document(owner.patient, context={"sourcePatientInfo": {"reference": f"Patient/{other.patient}"}})
    answer = await owner.post("DocumentReference", paper)
    assert (answer.status_code, expression(answer)) == (422, "DocumentReference.context.sourcePatientInfo")


async def test_ids_carry_the_bucket_of_their_patient(world: World) -> None:
    owner = await world.patient()
    for resource in (observation(owner.patient), document(owner.patient), device(owner.patient)):
        assert (await owner.create(resource))["id"][:3] == owner.patient[:3]


async def test_a_report_of_the_same_number_as_a_reading_is_another_thing(world: World) -> None:
    owner = await world.patient()
    number = [{"system": "urn:oid:1.2.3", "value": owner.patient}]
    report = {
        "resourceType": "DiagnosticReport",
        "identifier": number,
        "status": "final",
        "code": concept(LOINC, "104643-2"),
        "subject": {"reference": f"Patient/{owner.patient}"},
    }
    entries = [
        entry("POST", "Observation", observation(owner.patient, identifier=number)),
        entry("POST", "Device", device(owner.patient, identifier=number)),
        entry("POST", "DiagnosticReport", report),
    ]
    answer = await owner.post("", bundle("transaction", *entries))
    assert [e["response"]["status"] for e in answer.json()["entry"]] == ["201 Created"] * 3
    assert len({e["response"]["location"].split("/")[0] for e in answer.json()["entry"]}) == 3


async def test_two_patients_can_have_the_same_identifier_only_once(world: World) -> None:
    first = await world.operator.create(patient())
    again = await world.operator.post("Patient", patient(identifier=first["identifier"], active=True))
    assert (again.status_code, issues(again)[0]["code"]) == (409, "duplicate")
    assert expression(again) == "Patient.identifier"
