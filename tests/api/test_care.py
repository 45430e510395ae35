"""The relation of care: declared by a professional, for a time; seen and ended by the patient; asked for first of all."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.security.test_labels_hide import VISIBILITY, watching
from tests.world import (
    PROFESSIONS,
    Actor,
    World,
    care_team,
    concept,
    consent,
    device,
    document,
    expression,
    instant,
    label,
    observation,
    organization,
    related_person,
)

pytestmark = pytest.mark.requirement("SEC-07")
STATUS = "Patient/$access-status"
RELATIONS = "urn:fhir-document-gateway:CodeSystem/care-relation"


def asking(identifier: dict[str, str]) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "identifier", "valueIdentifier": identifier}]}


async def identifier_of(world: World, owner: Actor) -> dict[str, str]:
    found = (await world.operator.get(f"Patient/{owner.patient}")).json()["identifier"][0]
    return {name: found[name] for name in ("system", "value")}


def said(answer: httpx.Response) -> dict[str, Any]:
    """What the answer says, by parameter."""
    assert answer.status_code == 200, answer.text
    found = {}
    for parameter in answer.json()["parameter"]:
        name = parameter.pop("name")
        [found[name]] = parameter.values()
    return found


async def status(world: World, actor: Actor, owner: Actor) -> str:
    """The status, which is the same by id and by identifier."""
    by_id = said(await actor.get(f"Patient/{owner.patient}/$access-status"))
    assert said(await actor.post(f"Patient/{owner.patient}/$access-status", {"resourceType": "Parameters"})) == by_id
    assert said(await actor.post(STATUS, asking(await identifier_of(world, owner)))) == by_id
    return str(by_id["status"])


async def reads(actor: Actor, owner: Actor, reading: dict[str, Any]) -> bool:
    found = await actor.search(f"Observation?patient={owner.patient}")
    answer = await actor.get(f"Observation/{reading['id']}")
    assert (answer.status_code == 200) is (reading in found)
    return answer.status_code == 200


@pytest.mark.requirement("CON-001")
@pytest.mark.parametrize("code", ["care-team", "consultation"])
async def test_a_relation_opens_the_record_until_it_ends(world: World, code: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    reading = await owner.create(observation(owner.patient))
    assert not await reads(doctor, owner, reading)
    assert await status(world, doctor, owner) == "none"
    declared = await world.relation(owner, doctor, code, days=0.5)
    assert await reads(doctor, owner, reading)
    assert await status(world, doctor, owner) == "valid"
    found = said(await doctor.get(f"Patient/{owner.patient}/$access-status"))
    assert found["relation"] == code
    assert found["until"] > instant(world.clock() + timedelta(days=0.4))
    assert found["patient"] == {"reference": f"Patient/{owner.patient}"}
    world.clock.ahead += timedelta(hours=12)
    try:
        assert not await reads(doctor, owner, reading)
        assert await status(world, doctor, owner) == "expired"
        assert (await doctor.get(f"CareTeam/{declared['id']}")).status_code == 404
    finally:
        world.clock.ahead -= timedelta(hours=12)


async def test_what_ran_out_long_ago_is_forgotten(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional(lifetime=timedelta(days=99))
    old = care_team(owner.patient, doctor.reference, world.clock() - timedelta(days=60), "consultation")
    await doctor.create(old)
    assert await status(world, doctor, owner) == "expired"
    world.clock.ahead += timedelta(days=31)
    try:
        assert said(await doctor.get(f"Patient/{owner.patient}/$access-status")) == {"status": "none"}
        await world.relation(owner, doctor)
        [head] = await world.stored("heads", _id=owner.patient)
        assert len(head["care"]) == 1
    finally:
        world.clock.ahead -= timedelta(days=31)


@pytest.mark.requirement("AUD-004")
@pytest.mark.parametrize("how", ["update", "earlier end", "delete", "patch"])
async def test_the_patient_sees_and_ends_it(world: World, how: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    reading = await owner.create(observation(owner.patient))
    declared = await world.relation(owner, doctor)
    [seen] = await owner.search("CareTeam")
    assert seen == declared
    assert len(await owner.search(f"AuditEvent?subtype=create&agent={doctor.reference}")) == 1
    address = f"CareTeam/{declared['id']}"
    if how == "update":
        ended = await owner.put(address, {**declared, "status": "inactive"})
    elif how == "earlier end":
        period = {**declared["period"], "end": instant(world.clock() - timedelta(seconds=5))}
        ended = await owner.put(address, {**declared, "period": period})
    elif how == "patch":
        patch = b'[{"op":"replace","path":"/status","value":"entered-in-error"}]'
        ended = await owner.send("PATCH", address, patch, Content_Type="application/json-patch+json")
    else:
        ended = await owner.delete(address)
    assert ended.status_code in (200, 204), ended.text
    assert not await reads(doctor, owner, reading)
    assert await status(world, doctor, owner) == ("expired" if how == "earlier end" else "none")
    if how != "delete":
        again = await doctor.put(address, declared)
        assert again.status_code == 422
        assert expression(await owner.put(address, declared)) == "CareTeam.status"
    assert not await reads(doctor, owner, reading)
    await world.relation(owner, doctor)  # who is not blocked may ask again
    assert await reads(doctor, owner, reading)


async def test_the_professional_ends_and_shortens_it(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    reading = await owner.create(observation(owner.patient))
    declared = await world.relation(owner, doctor, days=300)
    shorter = {**declared, "period": {**declared["period"], "end": instant(world.clock() + timedelta(days=1))}}
    assert (await doctor.put(f"CareTeam/{declared['id']}", shorter)).status_code == 200
    assert await reads(doctor, owner, reading)
    assert (await doctor.delete(f"CareTeam/{declared['id']}")).status_code == 204
    assert not await reads(doctor, owner, reading)


@pytest.mark.requirement("CON-010")
@pytest.mark.parametrize("relation", ["declared", "named by the Patient", "expired"])
async def test_who_is_blocked_is_told_none(world: World, relation: str) -> None:
    doctor = await world.professional()
    named = {"generalPractitioner": [{"reference": doctor.reference}]} if relation == "named by the Patient" else {}
    owner = await world.patient(**named)
    reading = await owner.create(observation(owner.patient))
    if relation != "named by the Patient":
        ago = timedelta(days=2 if relation == "expired" else 0)
        await doctor.create(care_team(owner.patient, doctor.reference, world.clock() - ago))
    assert await status(world, doctor, owner) == ("expired" if relation == "expired" else "valid")
    blocking = await owner.create(consent(owner, doctor, "access", type="deny"))
    assert await status(world, doctor, owner) == "none"
    assert not await reads(doctor, owner, reading)
    await world.revoke(owner, blocking)
    assert await status(world, doctor, owner) == ("expired" if relation == "expired" else "valid")
    everything = consent(owner, doctor, type="deny")
    del everything["provision"]["action"]
    await owner.create(everything)
    answer = await doctor.post("CareTeam", care_team(owner.patient, doctor.reference, world.clock()))
    ghost = world.gateway.ids.new(owner.patient[:3])
    absent = await doctor.post("CareTeam", care_team(ghost, doctor.reference, world.clock()))
    assert (answer.status_code, answer.text) == (absent.status_code, absent.text)


@pytest.mark.requirement("SEC-05")
async def test_none_is_the_answer_for_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No relation, a block, and no such patient: the same bytes, the same commands to the database."""
    owner, doctor = await world.patient(), await world.professional()
    stranger = await world.professional()
    await owner.create(consent(owner, doctor, "access", type="deny"))
    await world.relation(owner, await world.professional())
    ghost = world.gateway.ids.new(owner.patient[:3])
    for actor in (doctor, stranger):
        by_id = [await actor.get(f"Patient/{one}/$access-status") for one in (owner.patient, ghost)]
        known, nobody = await identifier_of(world, owner), {"system": "urn:oid:1.2.250.1.213.1.4.10", "value": "nobody"}
        by_identifier = [await actor.post(STATUS, asking(one)) for one in (known, nobody)]
        for here, absent in (by_id, by_identifier):
            assert here.content == absent.content
            assert here.json()["parameter"] == [{"name": "status", "valueCode": "none"}]
        commands = []
        for one, identifier in ((owner.patient, known), (ghost, nobody)):
            with watching(world, monkeypatch) as seen:
                await actor.get(f"Patient/{one}/$access-status")
                await actor.post(STATUS, asking(identifier))
            commands.append(seen)
        assert commands[0] == commands[1] != []
    assert "$access-status" in str(await world.stored("AuditEvent", patient=owner.patient))


async def test_the_first_question_names_one_patient(world: World) -> None:
    doctor, blind = await world.professional(), await world.professional("user/Observation.rs")
    owner = await world.patient()
    assert expression(await doctor.post(STATUS, {"resourceType": "Parameters"})) == "Parameters.parameter"
    twice = await doctor.post(f"Patient/{owner.patient}/$access-status", asking(await identifier_of(world, owner)))
    assert expression(twice) == "Parameters.parameter"
    assert (await doctor.get(f"{STATUS}?identifier=a|b")).status_code == 400
    assert (await blind.get(f"Patient/{owner.patient}/$access-status")).status_code == 403
    assert said(await owner.get(f"Patient/{owner.patient}/$access-status"))["status"] == "valid"


async def test_services_and_apps_have_a_status_too(world: World) -> None:
    owner, service = await world.patient(), await world.service()
    assert await status(world, service, owner) == "none"
    given = await world.consent(owner, service)
    assert await status(world, service, owner) == "valid"
    await world.revoke(owner, given)
    assert await status(world, service, owner) == "none"


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "no end": ({"period": {"start": "2026-11-01"}}, 422, "CareTeam.period.end"),
    "no beginning": ({"period": {"end": "2026-11-01"}}, 422, "CareTeam.period.start"),
    "no period": ({"period": None}, 422, "CareTeam.period.start"),
    "too long": ({"period": {"start": "2026-01-01", "end": "2027-03-01"}}, 422, "CareTeam.period.end"),
    "not begun": ({"period": {"start": "2090-01-01", "end": "2090-02-01"}}, 422, "CareTeam.period.start"),
    "no relation": ({"category": None}, 422, "CareTeam.category"),
    "another system": ({"category": [concept("urn:x", "care-team")]}, 422, "CareTeam.category"),
    "two relations": (
        {"category": [concept(RELATIONS, "care-team"), concept(RELATIONS, "consultation")]},
        422,
        "CareTeam.category",
    ),
    "nobody": ({"participant": None}, 422, "CareTeam.participant"),
    "a consultation of two days": (
        {"category": [concept(RELATIONS, "consultation")], "period": {"start": "2026-11-20", "end": "2026-11-21"}},
        422,
        "CareTeam.period.end",
    ),
    "rules told elsewhere": ({"implicitRules": "http://x.example"}, 422, "CareTeam.implicitRules"),
    "an unknown modifier": (
        {"modifierExtension": [{"url": "http://x.example", "valueBoolean": True}]},
        422,
        "CareTeam.modifierExtension",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_could_not_be_honoured_is_refused(world: World, name: str) -> None:
    changes, code, element = WRONG[name]
    owner, doctor = await world.patient(), await world.professional()
    body = care_team(owner.patient, doctor.reference, world.clock(), **changes)
    sent = {name: value for name, value in body.items() if value is not None}
    before = await world.fingerprint()
    for actor in (doctor, owner):
        answer = await actor.post("CareTeam", sent)
        assert (answer.status_code, expression(answer)) == (code, element), answer.text
    validated = await owner.post("CareTeam/$validate", sent)
    assert name == "not begun" or element in validated.text
    assert await world.fingerprint() == before


async def test_professionals_declare_themselves_and_where_they_work(world: World) -> None:
    owner, other = await world.patient(), await world.professional()
    place = (await world.operator.create(organization()))["id"]
    doctor = await world.professional()
    employed = await world.actor(
        "professional", "user/*.cruds", actors=(doctor.reference, f"Organization/{place}"), user=doctor.reference
    )
    colleague = await world.actor(
        "professional", "user/*.cruds", actors=(other.reference, f"Organization/{place}"), user=other.reference
    )
    for member in (other.reference, f"Organization/{place}"):
        answer = await doctor.post("CareTeam", care_team(owner.patient, member, world.clock()))
        assert (answer.status_code, expression(answer)) == (403, "CareTeam.participant[0].member")
    reading = await owner.create(observation(owner.patient))
    await employed.create(care_team(owner.patient, f"Organization/{place}", world.clock()))
    assert await reads(employed, owner, reading)
    assert await reads(colleague, owner, reading)
    assert not await reads(doctor, owner, reading)


async def test_a_system_without_a_person_declares_nothing(world: World) -> None:
    owner = await world.patient()
    place = f"Organization/{(await world.operator.create(organization()))['id']}"
    system = await world.actor("professional", "system/*.cruds", actors=(place,))
    answer = await system.post("CareTeam", care_team(owner.patient, place, world.clock()))
    assert (answer.status_code, expression(answer)) == (403, "CareTeam")


async def test_who_works_where_a_doctor_treats_is_no_doctor_by_that(world: World) -> None:
    """The treating doctor sees what is masked to professionals; the others of the place do not."""
    doctor, other = await world.professional(), await world.professional()
    place = f"Organization/{(await world.operator.create(organization()))['id']}"
    nurse = [{"code": concept(PROFESSIONS, "60")}]
    body = {**(await world.operator.get(other.reference)).json(), "qualification": nurse}
    assert (await world.operator.put(other.reference, body)).status_code == 200
    there, also = [
        await world.actor("professional", "user/*.cruds", actors=(one.reference, place), user=one.reference)
        for one in (doctor, other)
    ]
    for named in ({"generalPractitioner": [{"reference": place}]}, {}):
        owner = await world.patient(**named)
        if not named:
            await there.create(care_team(owner.patient, place, world.clock(), "treating-doctor"))
        masked = {"meta": {"security": [label("MASQUE_PS", VISIBILITY)]}}
        hidden = await owner.create(observation(owner.patient, **masked))
        reading = await owner.create(observation(owner.patient))
        assert await reads(there, owner, hidden)
        assert await reads(also, owner, reading) is bool(named)
        assert not await reads(also, owner, hidden)


async def test_nobody_changes_what_another_professional_declared(world: World) -> None:
    owner, doctor, other = await world.patient(), await world.professional(), await world.professional()
    declared = await world.relation(owner, doctor)
    await world.relation(owner, other)
    address = f"CareTeam/{declared['id']}"
    assert (await other.get(address)).status_code == 200  # who treats sees who else does
    mine = {**declared, "participant": [{"member": {"reference": other.reference}}]}
    for answer in (await other.put(address, declared), await other.put(address, mine), await other.delete(address)):
        assert answer.status_code == 422
    assert (await owner.get(address)).json() == declared


async def test_only_they_and_the_patient_declare_it(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    body = care_team(owner.patient, doctor.reference, world.clock())
    app = await world.app(owner, "patient/*.cruds")
    service = await world.service()
    for actor in (app, service):
        await owner.create(consent(owner, actor, "collect"))
    for actor in (app, service, world.operator, await world.actor("feed", "system/*.cruds")):
        assert (await actor.post("CareTeam", body)).status_code == 403
    stranger = await world.patient()
    assert (await stranger.post("CareTeam", body)).status_code == 422
    reading = await owner.create(observation(owner.patient))
    await owner.create(body)
    assert await reads(doctor, owner, reading)
    proxy = await world.proxy(owner)
    person = (await world.operator.create(related_person(owner.patient)))["id"]
    answer = await proxy.post("CareTeam", care_team(owner.patient, f"RelatedPerson/{person}", world.clock()))
    assert expression(answer) == "CareTeam.participant[0].member"


async def test_a_record_holds_so_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any limit will do: 200 professionals take their time."""
    owner, doctor, other = await world.patient(), await world.professional(), await world.professional()
    declared, policy = await world.relation(owner, doctor), world.gateway.policy
    monkeypatch.setattr(type(world.gateway), "policy", property(lambda _: replace(policy, most_relations=1)))
    answer = await other.post("CareTeam", care_team(owner.patient, other.reference, world.clock()))
    assert (answer.status_code, expression(answer)) == (422, "CareTeam")
    assert (await doctor.put(f"CareTeam/{declared['id']}", {**declared, "name": "We"})).status_code == 200


async def test_the_strongest_relation_counts(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await world.relation(owner, doctor, "consultation")
    await world.relation(owner, doctor, "care-team")
    reading = await owner.create(observation(owner.patient))
    assert await reads(doctor, owner, reading)
    [event] = await world.stored("AuditEvent", patient=owner.patient, **{"event.interaction": "read"})
    assert event["event"]["kind"] == "care_team"


async def test_a_relation_opens_one_record_and_no_consents_or_log(world: World) -> None:
    owner, other, doctor = await world.patient(), await world.patient(), await world.professional()
    await world.relation(owner, doctor)
    foreign = await other.create(observation(other.patient))
    assert (await doctor.get(f"Observation/{foreign['id']}")).status_code == 404
    given = await owner.create(consent(owner, doctor))
    assert (await doctor.get(f"Consent/{given['id']}")).status_code == 404
    assert await doctor.search(f"AuditEvent?patient={owner.patient}") == []
    assert (await doctor.get(f"Patient/{owner.patient}")).status_code == 200
    meter = await owner.create(device(owner.patient))
    assert (await doctor.get(f"Device/{meter['id']}")).status_code == 200


async def test_in_a_transaction_it_is_declared_and_the_document_deposited(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    body = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"resource": one, "request": {"method": "POST", "url": one["resourceType"]}}
            for one in (care_team(owner.patient, doctor.reference, world.clock()), document(owner.patient))
        ],
    }
    answer = await doctor.post("", body)
    assert [one["response"]["status"][:3] for one in answer.json()["entry"]] == ["201", "201"]
    assert len(await doctor.search(f"DocumentReference?patient={owner.patient}")) == 1


async def test_a_known_declaration_costs_a_reader_no_further_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head of the record, which is read anyway, says who treats."""
    owner, doctor, named = await world.patient(), await world.professional(), await world.professional()
    await world.relation(owner, doctor)
    reading = await owner.create(observation(owner.patient))
    await world.consent(owner, named)
    commands = []
    for actor in (doctor, named):
        with watching(world, monkeypatch) as seen:
            assert (await actor.get(f"Observation/{reading['id']}")).status_code == 200
        commands.append(seen)
    assert commands[0] == commands[1] != []


async def test_it_begins_and_ends_at_the_next_request_of_another_process(world: World, peer: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    reading = await owner.create(observation(owner.patient))
    there = peer.bearer(doctor)
    for _ in range(5):
        assert not await reads(there, owner, reading)
        declared = await world.relation(owner, doctor)
        assert await reads(there, owner, reading)
        assert (await owner.put(f"CareTeam/{declared['id']}", {**declared, "status": "inactive"})).status_code == 200
