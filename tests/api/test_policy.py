"""Holds the gateway to its table of who may write what, who must name a patient, and what holds without any Consent."""

from typing import Any

import pytest

from tests.world import (
    Actor,
    World,
    consent,
    device,
    document,
    expression,
    issues,
    observation,
    organization,
    patient,
    practitioner,
    related_person,
)

TREATING = {"treating_doctor", "emergency", "care_team", "consulted"}
KINDS = ("patient", "proxy", *sorted(TREATING), "professional", "app", "service", "operator", "feed")
WRITERS: dict[str, set[str]] = {
    "Observation": {"patient", "proxy", *TREATING, "professional", "app", "service"},
    "DocumentReference": {"patient", "proxy", *TREATING, "professional", "app", "service"},
    "Device": set(KINDS),
    "Consent": {"patient", "proxy"},
    "CareTeam": {"patient", "proxy", *TREATING, "professional"},
    "Patient": {"operator", "feed"},
    "RelatedPerson": {"operator", "feed"},
    "Practitioner": {"operator", "feed"},
    "PractitionerRole": {"operator", "feed"},
    "Organization": {"operator", "feed"},
}
Everybody = dict[str, Actor]


async def gather(world: World) -> tuple[Actor, Everybody]:
    """A patient and one of each kind of actor, with every scope there is."""
    doctor, member, asked, other, hurried = [await world.professional("user/*.cruds") for _ in range(5)]
    owner = await world.patient(generalPractitioner=[{"reference": doctor.reference}])
    await world.relation(owner, member, "care-team")
    await world.relation(owner, asked, "consultation")
    await world.relation(owner, hurried, "emergency", days=1 / 48, reasonCode=[{"text": "found unconscious"}])
    everybody = {
        "patient": owner,
        "proxy": await world.proxy(owner),
        "treating_doctor": doctor,
        "care_team": member,
        "consulted": asked,
        "emergency": hurried,
        "professional": other,
        "app": await world.app(owner, "patient/*.cruds"),
        "service": await world.service(),
        "operator": world.operator,
        "feed": await world.actor("feed", "system/*.cruds"),
    }
    return owner, everybody


def body_of(kind: str, owner: Actor, service: Actor) -> dict[str, Any]:
    """A new resource of a type, in the patient's record where it belongs to one."""
    me = owner.patient
    made = {
        "Observation": lambda: observation(me),
        "DocumentReference": lambda: document(me),
        "Device": lambda: device(me),
        "Consent": lambda: consent(owner, service),
        "Patient": patient,
        "RelatedPerson": lambda: related_person(me),
        "Practitioner": practitioner,
        "PractitionerRole": lambda: {"resourceType": "PractitionerRole", "active": True},
        "Organization": organization,
    }
    return made[kind]()


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "CareTeam"])  # of which nobody writes another's
async def test_who_writes_what(world: World, kind: str) -> None:
    """Consents for the app and the service are given, so that nothing but the table is in the way."""
    owner, everybody = await gather(world)
    for name in ("app", "service"):
        await world.consent(owner, everybody[name], "collect")
        await world.consent(owner, everybody[name], "access")
    creator = owner if "patient" in WRITERS[kind] else world.operator
    stored = await creator.create(body_of(kind, owner, everybody["service"]))
    path = f"{kind}/{stored['id']}"
    if kind == "Device":  # apps and services see one through a measure only
        await owner.create(observation(owner.patient, device={"reference": path}))
    for name, actor in everybody.items():
        created = await actor.post(kind, body_of(kind, owner, everybody["service"]))
        updated = await actor.put(path, stored)
        if name in WRITERS[kind] and not (kind == "Device" and name in ("operator", "feed")):
            assert created.status_code == 201, (name, created.text)
            theirs = {"professional": (200, 405), "emergency": (200, 422)}  # they change nothing that others deposited
            assert updated.status_code in theirs.get(name, (200,)), (name, updated.text)
            stored = (await creator.get(path)).json()
        elif kind == "Device":
            assert created.status_code == 422, (name, created.text)  # it keeps the catalogue, not patients' devices
        else:
            assert (created.status_code, updated.status_code) == (403, 403), (name, created.text)
            assert issues(created)[0]["code"] == "forbidden"


@pytest.mark.parametrize("kind", ["AuditEvent", "Provenance"])
@pytest.mark.parametrize("name", KINDS)
async def test_nobody_writes_audit(world: World, kind: str, name: str) -> None:
    actor = (await gather(world))[1][name]
    assert (await actor.post(kind, {"resourceType": kind})).status_code == 405
    assert (await actor.put(f"{kind}/000-x", {"resourceType": kind, "id": "000-x"})).status_code == 405
    assert (await actor.delete(f"{kind}/000-x")).status_code == 405


def test_the_file_says_the_same(world: World) -> None:
    gateway = world.gateway
    for kind in gateway.registry.resource_types.values():
        writers = {
            actor for actor, name, interaction in gateway.policy.may_write if (name, interaction) == (kind.name, "create")
        }
        expected = WRITERS.get(kind.name, WRITERS["Observation"] if kind.group == "clinical" else set())
        assert writers == expected, kind.name
    assert gateway.policy.never_opened == {"AuditEvent", "Provenance", "Consent"}
    assert gateway.policy.patient_required == {"professional", "app", "service"}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("Observation", 400),
        ("Observation?code=99504-3", 400),
        ("Observation?patient:missing=false", 400),
        ("DocumentReference", 400),
        ("Consent", 400),
        ("Patient", 400),
        ("Patient?family=Durand", 400),
        ("Patient?_id=000-nobody", 200),
        ("Patient?identifier=urn:x|nobody", 200),
        ("Observation?patient=000-nobody", 200),
        ("Observation?patient.identifier=urn:x|nobody", 200),
        ("Practitioner", 200),
        ("Organization", 200),
        ("Device?identifier=x", 200),
    ],
)
async def test_professionals_and_services_say_whose_record_they_search(world: World, query: str, status: int) -> None:
    for actor in (await world.professional(), await world.service()):
        answer = await actor.get(query)
        assert answer.status_code == status, answer.text
        if status == 400:
            assert expression(answer) == ("_id" if query.startswith("Patient") else "patient")
        elif not query.startswith(("Practitioner", "Organization", "Device")):
            assert answer.json()["total"] == 0


async def test_the_care_team_reads_without_consent_and_others_do_not(world: World) -> None:
    owner, everybody = await gather(world)
    path = f"Observation/{(await owner.create(observation(owner.patient)))['id']}"
    expected = dict.fromkeys(("patient", "proxy", *TREATING), 200)
    for name, actor in everybody.items():
        assert (await actor.get(path)).status_code == expected.get(name, 404), name
        count = (await actor.get(f"Observation?patient={owner.patient}&_summary=count")).json()["total"]
        assert count == (1 if name in expected else 0), name


async def test_a_general_practitioner_who_is_no_longer_named_is_a_stranger(world: World) -> None:
    doctor = await world.professional()
    owner = await world.patient(generalPractitioner=[{"reference": doctor.reference}])
    path = f"Observation/{(await owner.create(observation(owner.patient)))['id']}"
    assert (await doctor.get(path)).status_code == 200
    person = (await world.operator.get(f"Patient/{owner.patient}")).json()
    del person["generalPractitioner"]
    assert (await world.operator.put(f"Patient/{owner.patient}", person)).status_code == 200
    assert (await doctor.get(path)).status_code == 404


async def test_the_patient_objects_and_takes_the_objection_back(world: World) -> None:
    doctor = await world.professional()
    owner = await world.patient(generalPractitioner=[{"reference": doctor.reference}])
    path = f"Observation/{(await owner.create(observation(owner.patient)))['id']}"
    objection = await owner.create(consent(owner, doctor, type="deny"))
    assert (await doctor.get(path)).status_code == 404
    assert await doctor.search(f"Observation?patient={owner.patient}") == []
    await world.revoke(owner, objection)
    assert (await doctor.get(path)).status_code == 200


async def test_depositing_needs_no_right_to_read(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    theirs = await owner.create(document(owner.patient))
    mine = await doctor.create(document(owner.patient))
    assert (await doctor.get(f"DocumentReference/{theirs['id']}")).status_code == 404
    assert [one["id"] for one in await doctor.search(f"DocumentReference?patient={owner.patient}")] == [mine["id"]]
    assert (await doctor.put(f"DocumentReference/{mine['id']}", {**mine, "status": "superseded"})).status_code == 200
    refusal = consent(owner, doctor, "collect", type="deny")
    await owner.create(refusal)
    assert (await doctor.post("DocumentReference", document(owner.patient))).status_code == 422


async def test_a_proxy_acts_in_one_record_as_far_as_the_patient_lets_them(world: World) -> None:
    owner, other = await world.patient(), await world.patient()
    proxy = await world.proxy(owner)
    mine = await owner.create(document(owner.patient))
    foreign = await other.create(document(other.patient))
    assert (await proxy.get(f"DocumentReference/{mine['id']}")).status_code == 200
    assert (await proxy.get(f"DocumentReference/{foreign['id']}")).status_code == 404
    assert (await proxy.post("Observation", observation(other.patient))).status_code == 422
    data = [{"meaning": "instance", "reference": {"reference": f"DocumentReference/{mine['id']}"}}]
    await owner.create(consent(owner, proxy, type="deny", data=data))
    assert (await proxy.get(f"DocumentReference/{mine['id']}")).status_code == 404
    assert (await proxy.post("Observation", observation(owner.patient))).status_code == 201


async def test_a_proxy_lifts_no_denial_of_the_patient(world: World) -> None:
    owner = await world.patient()
    proxy = await world.proxy(owner)
    named, general = consent(owner, proxy, type="deny", types=["DocumentReference"]), consent(owner, None, type="deny")
    general["provision"]["class"] = [{"system": "http://hl7.org/fhir/resource-types", "code": "List"}]
    for body in (named, general):
        stored = await owner.create(body)
        path = f"Consent/{stored['id']}"
        weaker = {**stored, "status": "inactive"}
        signed = {**weaker, "performer": [{"reference": proxy.reference}]}
        answers = [await proxy.put(path, weaker), await proxy.put(path, signed), await proxy.delete(path)]
        assert [answer.status_code for answer in answers] == [403, 403, 403]
        assert (await owner.get(path)).json() == stored
    own = {"performer": [{"reference": proxy.reference}]}
    assert (await proxy.post("Consent", {**named, **own})).status_code == 403
    assert (await proxy.post("Consent", general)).status_code == 403
    mine = await proxy.create({**general, **own})
    assert (await proxy.put(f"Consent/{mine['id']}", {**mine, "status": "inactive"})).status_code == 200


async def test_patient_and_proxy_take_back_what_the_other_gave(world: World) -> None:
    owner, service = await world.patient(), await world.service()
    proxy, another = await world.proxy(owner), await world.proxy(owner)
    reading = await owner.create(observation(owner.patient))
    for giver, taker in ((owner, proxy), (proxy, owner), (proxy, another)):
        given = await giver.create({**consent(owner, service), "performer": [{"reference": giver.reference}]})
        assert (await service.get(f"Observation/{reading['id']}")).status_code == 200
        await world.revoke(taker, given)
        assert (await service.get(f"Observation/{reading['id']}")).status_code == 404


async def test_nobody_of_another_record_signs_a_consent(world: World) -> None:
    owner, other = await world.patient(), await world.patient()
    stranger = await world.proxy(other)
    answer = await owner.post("Consent", {**consent(owner, None), "performer": [{"reference": stranger.reference}]})
    assert (answer.status_code, expression(answer)) == (422, "Consent.performer[0]")


async def test_operators_keep_identities_and_see_nothing_clinical(world: World) -> None:
    owner = await world.patient()
    me = owner.patient
    stored = [await owner.create(body) for body in (observation(me), document(me), device(me), consent(owner, None))]
    for operator in (world.operator, await world.actor("feed", "system/*.cruds")):
        assert (await operator.get(f"Patient/{me}")).status_code == 200
        for resource in stored:
            kind = resource["resourceType"]
            assert (await operator.get(f"{kind}/{resource['id']}")).status_code == 404, kind
            assert (await operator.get(f"{kind}?patient={me}&_summary=count")).json()["total"] == 0, kind
        assert await operator.search(f"AuditEvent?patient={me}") == []
