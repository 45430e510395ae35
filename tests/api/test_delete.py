"""delete: gone for readers and searches, kept in the history, and the same answer when it is asked again."""

import asyncio

import pytest

from tests.world import Actor, World, issues, observation


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


@pytest.mark.requirement("CORE-09")
async def test_a_deleted_resource_is_gone_everywhere_but_in_its_history(world: World) -> None:
    owner = await world.patient()
    stored = await owner.create(observation(owner.patient))
    path = f"Observation/{stored['id']}"
    answer = await owner.delete(path)
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (204, b"", 'W/"2"')
    assert "content-type" not in answer.headers
    assert (await owner.get(path)).status_code == 410
    assert await owner.search(f"Observation?patient={owner.patient}") == []
    assert await owner.search(f"Observation?_id={stored['id']}") == []
    count = await owner.get(f"Observation?patient={owner.patient}&_summary=count")
    assert count.json()["total"] == 0
    assert len((await owner.get(f"{path}/_history")).json()["entry"]) == 2
    [tombstone] = await world.stored("Observation", _id=stored["id"])
    assert "body" not in tombstone


@pytest.mark.requirement("CORE-09")
async def test_deleting_again_changes_nothing(world: World, camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    answers = [await camille.delete(f"Observation/{stored['id']}") for _ in range(3)]
    assert [(answer.status_code, answer.headers["etag"]) for answer in answers] == [(204, 'W/"2"')] * 3
    assert len(await world.stored("Observation_history", id=stored["id"])) == 1


@pytest.mark.requirement("CORE-06")
async def test_of_twenty_parallel_deletions_one_version_comes(world: World, camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    answers = await asyncio.gather(*(camille.delete(f"Observation/{stored['id']}") for _ in range(20)))
    assert {(answer.status_code, answer.headers["etag"]) for answer in answers} == {(204, 'W/"2"')}
    assert len(await world.stored("Observation_history", id=stored["id"])) == 1


@pytest.mark.requirement("CORE-05")
async def test_if_match(camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    stale = await camille.delete(f"Observation/{stored['id']}", If_Match='W/"2"')
    assert (stale.status_code, issues(stale)[0]["code"]) == (412, "conflict")
    assert (await camille.get(f"Observation/{stored['id']}")).status_code == 200
    assert (await camille.delete(f"Observation/{stored['id']}", If_Match='W/"1"')).status_code == 204


async def test_what_is_not_there_or_not_theirs_cannot_be_deleted(world: World, camille: Actor) -> None:
    other = await world.patient()
    foreign = await other.create(observation(other.patient))
    answers = [
        await camille.delete(f"Observation/{identifier}") for identifier in (foreign["id"], "abc-0000", "$ne", "x" * 200)
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert (await other.get(f"Observation/{foreign['id']}")).status_code == 200


async def test_a_deletion_takes_no_parameters_and_no_search_of_several(camille: Actor) -> None:
    stored, _ = [await camille.create(observation(camille.patient)) for _ in range(2)]
    assert (await camille.delete(f"Observation/{stored['id']}?_cascade=delete")).status_code == 400
    assert (await camille.delete(f"Observation?patient={camille.patient}")).status_code == 412
    assert (await camille.get(f"Observation/{stored['id']}")).status_code == 200
