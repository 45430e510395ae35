"""References by search in Bundles: `Patient?identifier=…` becomes the one resource that it finds, or nothing is stored."""

from functools import partial
from typing import Any

import pytest

from gateway.exchange import sought
from tests.world import (
    Actor,
    World,
    bundle,
    consent,
    device,
    entry,
    expression,
    issues,
    observation,
    patient,
    practitioner,
    unique,
)

SYSTEM = "urn:oid:1.2.3.9"
SUBJECT = "Bundle.entry[0].resource.subject.reference"
DEVICE = "Bundle.entry[0].resource.device.reference"


@pytest.fixture
async def camille(world: World) -> Actor:
    return await world.patient()


def known_as(token: str) -> dict[str, Any]:
    return {"identifier": [{"system": SYSTEM, "value": token}]}


def by_search(type_name: str, token: str) -> dict[str, str]:
    return {"reference": f"{type_name}?identifier={SYSTEM}|{token}"}


def sending(reading: dict[str, Any], *others: Any, kind: str = "transaction") -> dict[str, Any]:
    return bundle(kind, entry("POST", "Observation", reading), *others)


async def made_of(actor: Actor, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The resources of a Bundle that must be carried out."""
    answer = await actor.post("", body, Prefer="return=representation")
    assert answer.status_code == 200, answer.text
    return [found["resource"] for found in answer.json()["entry"]]


@pytest.mark.requirement("BUN-05")
@pytest.mark.parametrize("kind", ["transaction", "batch"])
async def test_the_one_match_stands_in_its_place_everywhere(world: World, kind: str) -> None:
    """In the element that says whose it is, in a list, in an extension, in what is contained; in an update too."""
    number, ours, theirs = unique("n"), unique("d"), unique("p")
    owner = await world.operator.create(patient(**known_as(number)))
    camille = await world.patient_actor(owner["id"])
    sensor = await camille.create(device(owner["id"], **known_as(ours)))
    doctor = await world.operator.create(practitioner(**known_as(theirs)))
    reading = observation("") | {
        "subject": by_search("Patient", number),
        "device": by_search("Device", ours),
        "performer": [by_search("Practitioner", theirs), by_search("Patient", number)],
        "extension": [{"url": "https://app.example/with", "valueReference": by_search("Device", ours)}],
        "contained": [{"resourceType": "Device", "id": "part", "parent": by_search("Device", ours)}],
    }
    meant = {"reference": f"Device/{sensor['id']}"}
    (made,) = await made_of(camille, sending(reading, kind=kind))
    assert made["subject"] == {"reference": f"Patient/{owner['id']}"}
    assert made["device"] == made["extension"][0]["valueReference"] == made["contained"][0]["parent"] == meant
    assert made["performer"] == [{"reference": f"Practitioner/{doctor['id']}"}, made["subject"]]
    found = await camille.search(f"Observation?device={meant['reference']}")
    assert [r["id"] for r in found] == [made["id"]]

    change = made | {"status": "amended", "device": by_search("Device", ours)}
    (changed,) = await made_of(camille, bundle(kind, entry("PUT", f"Observation/{made['id']}", change)))
    assert (changed["status"], changed["device"]) == ("amended", meant)


@pytest.mark.requirement("BUN-05", "BUN-02")
@pytest.mark.parametrize(("matches", "code"), [(0, "not-found"), (2, "multiple-matches")])
async def test_none_or_several_fail_the_whole_transaction_by_name(
    world: World, camille: Actor, matches: int, code: str
) -> None:
    token = unique("d")
    for _ in range(matches):
        first = {"system": SYSTEM, "value": unique("own")}
        await camille.create(device(camille.patient, identifier=[first, *known_as(token)["identifier"]]))
    good, bad = observation(camille.patient), observation(camille.patient, device=by_search("Device", token))
    before = await world.fingerprint()
    answer = await camille.post("", sending(good, entry("POST", "Observation", bad)))
    assert (answer.status_code, issues(answer)[0]["code"]) == (412, code), answer.text
    assert expression(answer) == DEVICE.replace("[0]", "[1]")
    assert token not in answer.text
    assert await world.fingerprint() == before

    answer = await camille.post("", sending(good, entry("POST", "Observation", bad), kind="batch"))
    assert [e["response"]["status"][:3] for e in answer.json()["entry"]] == ["201", "412"]


@pytest.mark.requirement("BUN-05", "BUN-11")
@pytest.mark.parametrize("who", ["patient", "service"])
async def test_what_may_not_be_seen_is_not_found_and_costs_the_same(world: World, camille: Actor, who: str) -> None:
    """Another patient, and another's sensor, answer exactly like what nobody has."""
    asker = camille
    if who == "service":
        asker = await world.service()
        for action in ("access", "collect"):
            await camille.create(consent(camille, asker, action))
    number, token = unique("n"), unique("d")
    other = await world.operator.create(patient(**known_as(number)))
    await (await world.patient_actor(other["id"])).create(device(other["id"], **known_as(token)))
    answers: list[tuple[int, Any, int]] = []
    for hidden in (number, unique("n")):
        for searched in (token, unique("d")):
            for asked in ({"subject": by_search("Patient", hidden)}, {"device": by_search("Device", searched)}):
                body = sending(observation(camille.patient, **asked))
                answer = await asker.post("", body)
                calls = await world.calls_of(partial(asker.post, "", body))
                answers.append((answer.status_code, answer.json(), calls))
    assert [status for status, _, _ in answers] == [412] * 8
    subjects, devices = answers[::2], answers[1::2]
    assert all(one == subjects[0] for one in subjects)
    assert all(one == devices[0] for one in devices)


async def test_a_service_addresses_whom_it_may_read_by_identifier(world: World) -> None:
    """The record that the search names is looked up with its Consents; without one it is nobody."""
    number = unique("n")
    owner = await world.operator.create(patient(**known_as(number)))
    camille, service = await world.patient_actor(owner["id"]), await world.service()
    reading = sending(observation("") | {"subject": by_search("Patient", number)})
    assert (await service.post("", reading)).status_code == 412
    for action in ("access", "collect"):
        await camille.create(consent(camille, service, action))
    (made,) = await made_of(service, reading)
    assert made["subject"] == {"reference": f"Patient/{owner['id']}"}


@pytest.mark.requirement("BUN-05", "BUN-04")
async def test_what_the_same_bundle_creates_is_found(world: World, camille: Actor) -> None:
    """A new one, the same one sent again, and one that an `If-None-Exist` finds: no second sensor is made."""
    token, number = unique("d"), unique("n")
    sensor = device(camille.patient, **known_as(token))
    for again in (False, True):
        reading = observation(camille.patient, device=by_search("Device", token))
        made, kept = await made_of(camille, sending(reading, entry("POST", "Device", sensor)))
        assert made["device"] == {"reference": f"Device/{kept['id']}"}
        assert kept["meta"]["versionId"] == "1", again
    one = entry("POST", "Device", sensor, ifNoneExist=f"identifier={SYSTEM}|{token}")
    again_made, kept = await made_of(camille, sending(observation(camille.patient, device=by_search("Device", token)), one))
    assert again_made["device"] == {"reference": f"Device/{kept['id']}"}
    assert len(await world.stored("Device", patient=camille.patient)) == 1

    new = entry("POST", "Patient", patient(**known_as(number)))
    helper = entry("POST", "RelatedPerson", {"resourceType": "RelatedPerson", "patient": by_search("Patient", number)})
    brought, kin = await made_of(world.operator, bundle("transaction", new, helper))
    assert kin["patient"] == {"reference": f"Patient/{brought['id']}"}


@pytest.mark.requirement("BUN-05")
async def test_one_stored_and_one_coming_are_several(world: World, camille: Actor) -> None:
    token = unique("d")
    await camille.create(device(camille.patient, **known_as(token)))
    first = {"system": SYSTEM, "value": unique("own")}
    second = device(camille.patient, identifier=[first, *known_as(token)["identifier"]])
    reading = observation(camille.patient, device=by_search("Device", token))
    before = await world.fingerprint()
    for others in ([second], [second, device(camille.patient, **known_as(token))]):
        answer = await camille.post("", sending(reading, *(entry("POST", "Device", other) for other in others)))
        assert (answer.status_code, issues(answer)[0]["code"]) == (412, "multiple-matches")
        assert expression(answer) == DEVICE
    assert await world.fingerprint() == before


async def test_a_bundle_sent_again_stores_nothing(world: World, camille: Actor) -> None:
    token = unique("d")
    body = sending(
        observation(camille.patient, device=by_search("Device", token)),
        entry("POST", "Device", device(camille.patient, **known_as(token))),
    )
    first = await made_of(camille, body)
    before = await world.fingerprint()
    assert await made_of(camille, body) == first
    assert await world.fingerprint() == before


WRONG: dict[str, tuple[str, int, str]] = {
    "an unknown parameter": ("Device?colour=red", 400, "not-supported"),
    "no parameter": ("Device?", 400, "invalid"),
    "a wrong value": ("Device?_lastUpdated=soon", 400, "invalid"),
    "a type not served": ("DeviceMetric?identifier=1", 422, "not-supported"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_search_that_is_not_understood_is_refused_by_name(world: World, camille: Actor, name: str) -> None:
    text, status, code = WRONG[name]
    before = await world.fingerprint()
    answer = await camille.post("", sending(observation(camille.patient, device={"reference": text})))
    assert (answer.status_code, issues(answer)[0]["code"]) == (status, code), answer.text
    assert expression(answer) == DEVICE
    assert await world.fingerprint() == before


async def test_a_match_of_another_type_than_the_element_takes_is_refused(world: World, camille: Actor) -> None:
    doctor = unique("p")
    await world.operator.create(practitioner(**known_as(doctor)))
    answer = await camille.post("", sending(observation(camille.patient, device=by_search("Practitioner", doctor))))
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "value")


async def test_the_scope_to_search_is_needed(world: World) -> None:
    owner = await world.patient("patient/Observation.cruds patient/Device.cr")
    answer = await owner.post("", sending(observation(owner.patient, device=by_search("Device", "x"))))
    assert (answer.status_code, issues(answer)[0]["code"]) == (403, "forbidden")
    assert 'scope="patient/Device.s"' in answer.headers["www-authenticate"]


async def test_too_many_searches_are_refused(world: World, camille: Actor) -> None:
    most = world.gateway.limits.or_values
    readings = [observation(camille.patient, device=by_search("Device", str(n))) for n in range(most + 1)]
    answer = await camille.post("", bundle("transaction", *(entry("POST", "Observation", one) for one in readings)))
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "too-costly"), answer.text


async def test_many_readings_of_one_sensor_ask_once(world: World, camille: Actor) -> None:
    token = unique("d")
    await camille.create(device(camille.patient, **known_as(token)))

    async def send(count: int) -> int:
        async def post() -> None:
            readings = [observation(camille.patient, device=by_search("Device", token)) for _ in range(count)]
            await made_of(camille, bundle("transaction", *(entry("POST", "Observation", one) for one in readings)))

        return await world.calls_of(post)

    assert await send(30) == await send(2)


@pytest.mark.requirement("BUN-05")
async def test_what_comes_between_search_and_commit_counts(
    world: World, camille: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second match that is stored meanwhile: the transaction is planned anew, and refused."""
    token, real = unique("d"), sought.find_matches
    await camille.create(device(camille.patient, **known_as(token)))
    coming = [{"system": SYSTEM, "value": unique("own")}, *known_as(token)["identifier"]]

    async def find(*asked: Any, **options: Any) -> Any:
        found = await real(*asked, **options)
        if coming:
            another = device(camille.patient, identifier=[*coming])
            coming.clear()
            await camille.create(another)
        return found

    monkeypatch.setattr(sought, "find_matches", find)
    answer = await camille.post("", sending(observation(camille.patient, device=by_search("Device", token))))
    assert (answer.status_code, issues(answer)[0]["code"]) == (412, "multiple-matches"), answer.text
    assert await world.stored("Observation", patient=camille.patient) == []
