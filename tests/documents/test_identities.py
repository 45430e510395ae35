"""Whose document it is: by identifier alone, checked, and nobody's identity is ever taken from a document."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import make_settings, running_world
from tests.documents.papers import attaching, pdf
from tests.world import World, bundle, document, entry, expression, issues, patient, related_person, unique

NIR, TEST = "urn:oid:1.2.250.1.213.1.4.8", "urn:oid:1.2.250.1.213.1.4.10"


def ins(number: int, department: str = "75") -> str:
    """A number with its key."""
    thirteen = f"18701{department}{number:06d}"
    return f"{thirteen}{97 - int(thirteen.replace('2A', '19').replace('2B', '18')) % 97:02d}"


def identified(value: str, system: str = NIR) -> dict[str, Any]:
    return patient(identifier=[{"use": "official", "system": system, "value": value}])


@pytest.fixture
async def production(mongo_url: str) -> AsyncIterator[World]:
    """A gateway at an address that is not this machine's, with nothing said of test persons."""
    async for world in running_world(make_settings(mongo_url, test_identities="auto")):
        yield world


@pytest.mark.requirement("ID-01")
@pytest.mark.parametrize("department", ["75", "2A", "2B"])
async def test_a_patient_is_written_with_a_sound_ins_only(world: World, department: str) -> None:
    made = await world.operator.create(identified(ins(11, department)))
    assert made["identifier"][0]["value"][5:7] == department
    wrong = ins(12, department)[:-1] + "x"
    for body in (identified(wrong), identified(str(int(ins(13)) + 1))):
        answer = await world.operator.post("Patient", body)
        assert (answer.status_code, expression(answer)) == (422, "Patient.identifier[0].value")
        assert body["identifier"][0]["value"] not in answer.text
    changed = await world.operator.put(f"Patient/{made['id']}", {**made, **identified(wrong), "id": made["id"]})
    assert (changed.status_code, expression(changed)) == (422, "Patient.identifier[0].value")
    relative = related_person(made["id"], identifier=[{"system": NIR, "value": wrong}])
    answer = await world.operator.post("RelatedPerson", relative)
    assert (answer.status_code, expression(answer)) == (422, "RelatedPerson.identifier[0].value")
    listed = await world.operator.post("Patient/$validate", identified(wrong))
    assert issues(listed)[0]["expression"] == ["Patient.identifier[0].value"]


@pytest.mark.requirement("ID-01")
async def test_a_document_names_its_patient_by_a_sound_ins(world: World) -> None:
    value = ins(21)
    owner = await world.operator.create(identified(value))
    doctor = await world.professional()
    made = await doctor.create(document("x", subject={"identifier": {"system": NIR, "value": value}}))
    (stored,) = await world.stored("DocumentReference", _id=made["id"])
    assert stored["patient"] == owner["id"]
    sent = document("x", subject={"identifier": {"system": NIR, "value": f"{value[:-2]}00"}})
    answer = await doctor.post("DocumentReference", sent)
    assert (answer.status_code, expression(answer)) == (422, "DocumentReference.subject.identifier.value")
    in_bundle = await doctor.post("", bundle("transaction", entry("POST", "DocumentReference", sent)))
    assert expression(in_bundle) == "Bundle.entry[0].resource.subject.identifier.value"


@pytest.mark.requirement("ID-01")
async def test_in_production_nobody_is_of_a_test(production: World) -> None:
    answer = await production.operator.post("Patient", identified("0000000000001", TEST))
    assert (answer.status_code, expression(answer)) == (422, "Patient.identifier[0].system")
    assert await production.stored("Patient") == []
    owner = await production.operator.create(identified(ins(31)))
    doctor = await production.professional()
    sent = document("x", subject={"identifier": {"system": TEST, "value": "1"}})
    refused = await doctor.post("DocumentReference", sent)
    assert (refused.status_code, expression(refused)) == (422, "DocumentReference.subject.identifier.system")
    assert (await doctor.post("DocumentReference", document(owner["id"]))).status_code == 201


@pytest.mark.requirement("ID-02")
async def test_an_identity_is_never_taken_from_a_document(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    before = (await owner.get(f"Patient/{owner.patient}")).json()
    told = {**patient(), "id": "told", "name": [{"family": "Somebody", "given": ["Else"]}], "birthDate": "1901-01-01"}
    told["identifier"] = before["identifier"]
    inside = document(owner.patient, contained=[told], context={"sourcePatientInfo": {"reference": "#told"}})
    made = await doctor.create(inside)
    assert made["contained"][0]["name"][0]["family"] == "Somebody"
    raw = await doctor.post(
        "Binary",
        {
            "resourceType": "Binary",
            "contentType": "text/plain",
            "data": "SGVsbG8h",
            "securityContext": {"reference": f"Patient/{owner.patient}"},
        },
    )
    assert raw.status_code == 201
    assert (await owner.get(f"Patient/{owner.patient}")).json() == before
    assert len(await world.stored("Patient_history", id=owner.patient)) == 0


@pytest.mark.requirement("ID-02")
@pytest.mark.parametrize("way", ["PUT", "POST", "PUT by identifier", "PATCH"])
async def test_nor_does_who_deposits_bring_one_along(world: World, way: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    identity = (await owner.get(f"Patient/{owner.patient}")).json()
    value = identity["identifier"][0]["value"]
    other = {**identity, "name": [{"family": "Somebody"}]}
    patch = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": "W10="}
    along = {
        "PUT": entry("PUT", f"Patient/{owner.patient}", other),
        "POST": entry("POST", "Patient", {k: v for k, v in other.items() if k != "id"}),
        "PUT by identifier": entry("PUT", f"Patient?identifier={TEST}|{value}", other),
        "PATCH": entry("PATCH", f"Patient/{owner.patient}", patch),
    }[way]
    before = await world.fingerprint()
    sent = bundle("transaction", entry("POST", "DocumentReference", document(owner.patient)), along)
    answer = await doctor.post("", sent)
    assert answer.status_code in (403, 404), answer.text
    assert await world.fingerprint() == before


@pytest.mark.requirement("ID-02")
@pytest.mark.parametrize("criteria", ["family=Durand", "birthdate=1987-01-01", "name=Camille&identifier={}"])
async def test_nobody_is_found_by_what_two_people_can_share(world: World, criteria: str) -> None:
    family = unique("Durand")
    known = await world.operator.create(patient(birthDate="1987-01-01", name=[{"family": family}]))
    identifier = f"{TEST}|{known['identifier'][0]['value']}"
    asked = criteria.format(identifier).replace("Durand", family)
    doctor = await world.professional()
    before = await world.fingerprint()
    sent = bundle("transaction", entry("POST", "DocumentReference", document("x", subject={"reference": f"Patient?{asked}"})))
    answer = await doctor.post("", sent)
    assert (answer.status_code, expression(answer)) == (422, "Bundle.entry[0].resource.subject.reference")
    answer = await world.operator.post("Patient", patient(), If_None_Exist=asked)
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "business-rule")
    answer = await world.operator.put(f"Patient?{asked}", patient())
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "business-rule")
    assert await world.fingerprint() == before


@pytest.mark.requirement("ID-03")
async def test_who_deposits_is_who_the_token_says(world: World) -> None:
    """Whatever the document, or a header, says of its author."""
    owner, doctor, other = await world.patient(), await world.professional(), await world.professional()
    sent = {**document(owner.patient, author=[{"reference": other.reference}])}
    made = await doctor.post("DocumentReference", sent, X_User=other.reference, X_Forwarded_User=other.reference)
    assert made.status_code == 201
    (stored,) = await world.stored("DocumentReference", _id=made.json()["id"])
    assert stored["depositor"] == doctor.reference
    where = {"patient": owner.patient, "event.type": "DocumentReference"}
    (event,) = await world.stored("AuditEvent", **where)
    assert event["event"]["user"] == doctor.reference
    assert other.reference not in json.dumps(event["event"])


async def test_content_is_attached_in_a_record_that_is_named_by_identifier(world: World) -> None:
    value = ins(41)
    owner = await world.operator.create(identified(value))
    doctor, content = await world.professional(), pdf()
    subject = {"identifier": {"system": NIR, "value": value}}
    name = "urn:uuid:00000000-0000-4000-8000-000000000001"
    binary = {"resourceType": "Binary", "contentType": "text/plain", "data": "SGVsbG8="}
    described = attaching("x", name, subject=subject)
    sent = bundle("transaction", entry("POST", "DocumentReference", described), entry("POST", "Binary", binary, full_url=name))
    answer = await doctor.post("", sent)
    assert answer.status_code == 200, answer.text
    actor = await world.patient_actor(owner["id"])
    raw = answer.json()["entry"][1]["response"]["location"].partition("/_history")[0]
    assert (await actor.get(raw)).content == b"Hello"
    assert content
