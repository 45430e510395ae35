"""update: a new version in place of the one the client knows, and of no other."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.world import Actor, World, device, document, expression, issues, observation, patient


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


async def new_reading(camille: Actor, **elements: Any) -> dict[str, Any]:
    return await camille.create(observation(camille.patient, **elements))


@pytest.mark.requirement("CORE-05", "CORE-19")
async def test_an_update_makes_the_next_version(world: World, camille: Actor) -> None:
    stored = await new_reading(camille)
    fake = {"versionId": "40", "lastUpdated": "2001-01-01T00:00:00Z"}
    answer = await camille.put(f"Observation/{stored['id']}", {**stored, "status": "amended", "meta": fake})
    assert answer.status_code == 200
    changed = answer.json()
    assert answer.headers["etag"] == 'W/"2"'
    assert (changed["id"], changed["status"], changed["meta"]["versionId"]) == (stored["id"], "amended", "2")
    assert changed["meta"]["lastUpdated"] > stored["meta"]["lastUpdated"]
    got = await camille.get(f"Observation/{stored['id']}")
    assert (got.json(), got.headers["last-modified"]) == (changed, answer.headers["last-modified"])
    assert len(await world.stored("Observation", _id=stored["id"])) == 1
    assert len(await world.stored("Observation_history", id=stored["id"])) == 1


@pytest.mark.requirement("CORE-05")
@pytest.mark.parametrize("identifier", [None, "abc-1", "", 7])
async def test_the_id_in_the_body_must_be_the_one_in_the_address(camille: Actor, identifier: Any) -> None:
    stored = await new_reading(camille)
    sent = {**stored, "status": "amended", "id": identifier}
    if identifier is None:
        del sent["id"]
    answer = await camille.put(f"Observation/{stored['id']}", sent)
    assert (answer.status_code if identifier in (None, "abc-1") else answer.status_code in (400, 422)) in (400, True)
    assert expression(answer) == "Observation.id"
    assert (await camille.get(f"Observation/{stored['id']}")).json() == stored


@pytest.mark.requirement("CORE-05")
async def test_the_type_in_the_body_must_be_the_one_in_the_address(camille: Actor) -> None:
    stored = await new_reading(camille)
    answer = await camille.put(f"Observation/{stored['id']}", {**device(), "id": stored["id"]})
    assert (answer.status_code, issues(answer)[0]["code"]) == (400, "invalid")
    answer = await camille.put(f"Device/{stored['id']}", stored)
    assert answer.status_code == 400


@pytest.mark.requirement("CORE-05")
@pytest.mark.parametrize(
    ("tag", "status"),
    [
        ('W/"1"', 200),
        ('"1"', 200),
        ("*", 200),
        ('W/"2"', 412),
        ('W/"01"', 412),
        ("", 412),
        ("1; drop", 412),
        ('W/"1", W/"2"', 200),  # https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1: any of a list
        ('W/"2", W/"3"', 412),
    ],
)
async def test_if_match(camille: Actor, tag: str, status: int) -> None:
    stored = await new_reading(camille)
    answer = await camille.put(f"Observation/{stored['id']}", {**stored, "status": "amended"}, If_Match=tag)
    assert answer.status_code == status
    if status == 412:
        assert issues(answer)[0]["code"] == "conflict"
        assert (await camille.get(f"Observation/{stored['id']}")).json() == stored


@pytest.mark.requirement("CORE-05")
async def test_the_second_of_two_updates_of_one_version_is_refused(camille: Actor) -> None:
    stored = await new_reading(camille)
    answers = [
        await camille.put(f"Observation/{stored['id']}", {**stored, "status": status}, If_Match='W/"1"')
        for status in ("amended", "corrected")
    ]
    assert [answer.status_code for answer in answers] == [200, 412]
    assert (await camille.get(f"Observation/{stored['id']}")).json()["status"] == "amended"


@pytest.mark.requirement("CORE-06")
@pytest.mark.parametrize("tag", ['W/"1"', None])
async def test_of_twenty_parallel_updates_of_one_version_exactly_one_wins(
    world: World, camille: Actor, tag: str | None
) -> None:
    stored = await new_reading(camille)
    headers = {"If_Match": tag} if tag else {}
    sent = [{**stored, "note": [{"text": f"update {n}"}]} for n in range(20)]
    answers = await asyncio.gather(*(camille.put(f"Observation/{stored['id']}", one, **headers) for one in sent))
    won = [answer for answer in answers if answer.status_code == 200]
    current = (await camille.get(f"Observation/{stored['id']}")).json()
    history = await world.stored("Observation_history", id=stored["id"])
    if tag:
        assert Counter(answer.status_code for answer in answers) == {200: 1, 412: 19}
        assert current == won[0].json()
        assert [document["version"] for document in history] == [1]
    else:  # without If-Match the last one wins, and none is lost from the history
        assert len(won) == 20
        assert sorted(answer.headers["etag"] for answer in won) == sorted(f'W/"{n}"' for n in range(2, 22))
        assert sorted(document["version"] for document in history) == list(range(1, 21))


@pytest.mark.requirement("CORE-06")
async def test_exactly_one_wins_also_through_two_processes(world: World, camille: Actor, peer: World) -> None:
    stored = await new_reading(camille)
    elsewhere = replace(camille, http=peer.http)
    sent = [{**stored, "note": [{"text": f"update {n}"}]} for n in range(20)]
    answers = await asyncio.gather(
        *((camille, elsewhere)[n % 2].put(f"Observation/{stored['id']}", one, If_Match='W/"1"') for n, one in enumerate(sent))
    )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 412: 19}
    [won] = [answer.json() for answer in answers if answer.status_code == 200]
    assert (await elsewhere.get(f"Observation/{stored['id']}")).json() == won
    assert [document["version"] for document in await world.stored("Observation_history", id=stored["id"])] == [1]


@pytest.mark.requirement("CORE-05")
async def test_an_update_of_what_is_not_there_creates_nothing(world: World, camille: Actor) -> None:
    other = await world.patient()
    foreign = await other.create(observation(other.patient))
    for identifier in (foreign["id"], foreign["id"][:4] + "0" * 16, "mine", "$ne"):
        sent = observation(camille.patient, id=identifier)
        answer = await camille.put(f"Observation/{identifier}", sent)
        if identifier == "$ne":
            assert answer.status_code in (400, 422)
        else:
            assert (answer.status_code, issues(answer)[0]["code"]) == (405, "not-supported")
            assert (
                answer.content == (await camille.put("Observation/nothing", observation(camille.patient, id="nothing"))).content
            )
    assert (await other.get(f"Observation/{foreign['id']}")).json() == foreign


async def test_a_deleted_resource_is_not_updated(camille: Actor) -> None:
    stored = await new_reading(camille)
    await camille.delete(f"Observation/{stored['id']}")
    answer = await camille.put(f"Observation/{stored['id']}", stored)
    assert (answer.status_code, issues(answer)[0]["code"]) == (410, "deleted")


@pytest.mark.requirement("ATK-T11")
@pytest.mark.parametrize("kind", ["Observation", "DocumentReference"])
async def test_an_update_moves_nothing_into_another_record(world: World, camille: Actor, kind: str) -> None:
    other = await world.patient()
    stored = await camille.create({"Observation": observation, "DocumentReference": document}[kind](camille.patient))
    answer = await camille.put(f"{kind}/{stored['id']}", {**stored, "subject": {"reference": f"Patient/{other.patient}"}})
    assert (answer.status_code, expression(answer)) == (422, f"{kind}.subject")
    assert (await camille.get(f"{kind}/{stored['id']}")).json() == stored


@pytest.mark.requirement("CORE-16")
async def test_a_wrong_update_leaves_the_old_version(world: World, camille: Actor) -> None:
    stored = await new_reading(camille)
    for body in ({**stored, "status": "nonsense"}, {**stored, "foo": 1}, b"{", {**stored, "code": None}):
        answer = await camille.put(f"Observation/{stored['id']}", body)
        assert answer.status_code in (400, 422)
    assert (await camille.get(f"Observation/{stored['id']}")).json() == stored
    assert await world.stored("Observation_history", id=stored["id"]) == []


@pytest.mark.requirement("MES-11")
async def test_an_update_cannot_take_over_an_identifier(camille: Actor) -> None:
    first, second = await new_reading(camille), await new_reading(camille)
    answer = await camille.put(f"Observation/{second['id']}", {**second, "identifier": first["identifier"]})
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (409, "duplicate", "Observation.identifier")
    assert (await camille.get(f"Observation/{second['id']}")).json() == second


async def test_directories_are_updated_by_who_keeps_them(world: World, camille: Actor) -> None:
    created = await world.operator.create(patient())
    answer = await world.operator.put(f"Patient/{created['id']}", {**created, "active": True}, If_Match='W/"1"')
    assert (answer.status_code, answer.headers["etag"]) == (200, 'W/"2"')
    refused = await camille.put(f"Patient/{camille.patient}", {**patient(), "id": camille.patient})
    assert (refused.status_code, issues(refused)[0]["code"]) == (403, "forbidden")
