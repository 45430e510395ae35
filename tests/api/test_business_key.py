"""Business identifiers: unique for each sender and record, kept through updates, never taken over."""

import asyncio
from typing import Any

import pytest

from tests.world import Actor, World, bundle, entry, expression, issues, observation, organization, patient, unique

SYSTEM = "urn:oid:1.2.3.9"


def numbered(owner: Actor, token: str, **elements: Any) -> dict[str, Any]:
    return observation(owner.patient, identifier=[{"system": SYSTEM, "value": token}], **elements)


async def _apps(world: World, owner: Actor) -> list[Actor]:
    apps = [await world.app(owner) for _ in range(2)]
    for app in apps:
        await world.consent(owner, app, "collect", ["Observation"])
    return apps


@pytest.mark.requirement("REL-002")
async def test_two_senders_never_collide_nor_learn_of_each_other(world: World) -> None:
    owner = await world.patient()
    one, other = await _apps(world, owner)
    token = unique("n")
    reading = numbered(owner, token)
    made = [await app.create(reading) for app in (one, other)]
    assert made[0]["id"] != made[1]["id"]
    different = [await app.post("Observation", reading | {"status": "amended"}) for app in (one, other)]
    assert {a.status_code for a in different} == {409}
    # What only the one has sent is as new to the other as anything.
    await one.create(numbered(owner, token + "-only"))
    answer = await other.post("Observation", numbered(owner, token + "-only", status="amended"))
    assert answer.status_code == 201
    found = await other.post("", bundle("batch", entry("POST", "Observation", reading)))
    assert found.json()["entry"][0]["response"]["location"].split("/")[1] == made[1]["id"]


async def test_the_same_sender_through_two_clients_is_one(world: World) -> None:
    owner = await world.patient()
    clients = [await world.app(owner, source="glucoapp") for _ in range(2)]
    for app in clients:
        await world.consent(owner, app, "collect", ["Observation"])
    reading = numbered(owner, unique("n"))
    made = await clients[0].create(reading)
    again = await clients[1].post("Observation", reading)
    assert (again.status_code, again.headers["Location"].split("/")[-3]) == (200, made["id"])


@pytest.mark.requirement("REL-002")
async def test_two_patients_never_collide(world: World) -> None:
    doctor = await world.professional()
    owners = [await world.patient() for _ in range(2)]
    token = unique("n")
    made = [await doctor.post("Observation", numbered(owner, token)) for owner in owners]
    assert {a.status_code for a in made} == {201}
    assert [a.json()["id"][:3] for a in made] == [owner.patient[:3] for owner in owners]


@pytest.mark.requirement("REL-002")
async def test_a_directory_entry_is_one_for_all_senders(world: World) -> None:
    entry_ = organization()
    made = await world.operator.create(entry_)
    feed = await world.actor("feed", "system/*.cruds")
    again = await feed.post("Organization", entry_)
    assert (again.status_code, again.headers["Location"].split("/")[-3]) == (200, made["id"])
    other = await feed.post("Organization", entry_ | {"name": "Other"})
    assert (other.status_code, expression(other)) == (409, "Organization.identifier")


@pytest.mark.requirement("REL-002")
async def test_a_patient_sent_again_is_known_whatever_the_spelling(world: World) -> None:
    sent = patient()
    made = await world.operator.create(sent)
    for body in (sent, dict(reversed(list(sent.items())))):
        again = await world.operator.post("Patient", body)
        assert (again.status_code, again.headers["Location"].split("/")[-3]) == (200, made["id"])


async def test_a_key_survives_updates_by_anybody(world: World) -> None:
    owner = await world.patient()
    app, _ = await _apps(world, owner)
    reading = numbered(owner, unique("n"))
    made = await app.create(reading)
    for status in ("amended", "corrected"):
        answer = await owner.put(f"Observation/{made['id']}", made | {"status": status})
        assert answer.status_code == 200
    stored = (await world.stored("Observation", _id=made["id"]))[0]
    assert stored["version"] == 3
    assert stored["source"] != "portal"
    again = await app.post("Observation", reading)
    assert (again.status_code, again.headers["ETag"]) == (200, 'W/"3"')
    assert (await app.post("Observation", reading | {"status": "final", "language": "fr"})).status_code == 409


async def test_an_update_can_change_the_identifier_and_frees_the_old_one(world: World) -> None:
    owner = await world.patient()
    old, new = unique("n"), unique("n")
    reading = numbered(owner, old)
    made = await owner.create(reading)
    moved = numbered(owner, new) | {"id": made["id"]}
    assert (await owner.put(f"Observation/{made['id']}", moved)).status_code == 200
    again = await owner.post("Observation", numbered(owner, new, status="amended"))
    assert (again.status_code, issues(again)[0]["code"]) == (409, "duplicate")
    fresh = await owner.create(reading)
    assert fresh["id"] != made["id"]


@pytest.mark.parametrize("deleted", [False, True])
async def test_an_update_takes_no_identifier_over(world: World, deleted: bool) -> None:
    owner = await world.patient()
    token = unique("n")
    taken, mine = await owner.create(numbered(owner, token)), await owner.create(numbered(owner, unique("n")))
    if deleted:
        await owner.delete(f"Observation/{taken['id']}")
    wrong = numbered(owner, token) | {"id": mine["id"]}
    before = await world.fingerprint()
    single = await owner.put(f"Observation/{mine['id']}", wrong)
    assert (single.status_code, expression(single)) == (409, "Observation.identifier")
    whole = await owner.post("", bundle("transaction", entry("PUT", f"Observation/{mine['id']}", wrong)))
    assert (whole.status_code, expression(whole)) == (409, "Bundle.entry[0].resource.identifier")
    assert await world.fingerprint() == before


async def test_a_bundle_gives_one_identifier_to_one_resource(world: World) -> None:
    owner = await world.patient()
    token = unique("n")
    kept = [await owner.create(numbered(owner, unique("n"))) for _ in range(2)]
    renamed = [entry("PUT", f"Observation/{k['id']}", numbered(owner, token) | {"id": k["id"]}) for k in kept]
    created = entry("POST", "Observation", numbered(owner, token))
    before = await world.fingerprint()
    for entries, place in ((renamed, 1), ([created, renamed[0]], 1), ([renamed[0], created], 0)):
        answer = await owner.post("", bundle("transaction", *entries))
        assert (answer.status_code, expression(answer)) == (409, f"Bundle.entry[{place}].resource.identifier")
    assert await world.fingerprint() == before


async def test_what_is_deleted_in_a_bundle_is_not_created_again_in_it(world: World) -> None:
    owner = await world.patient()
    reading = numbered(owner, unique("n"))
    made = await owner.create(reading)
    before = await world.fingerprint()
    answer = await owner.post(
        "", bundle("transaction", entry("DELETE", f"Observation/{made['id']}"), entry("POST", "Observation", reading))
    )
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (400, "invalid", "Bundle.entry[1].resource")
    assert await world.fingerprint() == before


@pytest.mark.requirement("REL-002")
async def test_updates_to_one_identifier_at_the_same_time_give_it_to_one(world: World) -> None:
    owner = await world.patient()
    token = unique("n")
    kept = [await owner.create(numbered(owner, unique("n"))) for _ in range(8)]
    answers = await asyncio.gather(
        *(owner.put(f"Observation/{k['id']}", numbered(owner, token) | {"id": k["id"]}) for k in kept)
    )
    assert sorted(a.status_code for a in answers) == [200] + [409] * 7
    assert len(await world.stored("Observation", **{"search.identifier": f"{SYSTEM}|{token}"})) == 1


@pytest.mark.requirement("REL-002")
async def test_other_content_under_one_identifier_at_the_same_time_is_stored_once(world: World) -> None:
    owner = await world.patient()
    token = unique("n")
    readings = [numbered(owner, token, note=[{"text": str(n)}]) for n in range(16)]
    answers = await asyncio.gather(*(owner.post("Observation", reading) for reading in readings))
    assert sorted(a.status_code for a in answers) == [201] + [409] * 15
    assert len(await world.stored("Observation", patient=owner.patient)) == 1
