"""The store's work on both drivers: Motor, and PyMongo's own async client."""

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.problem import Problem
from gateway.store import mongo as store_mongo
from gateway.store.mongo import Mongo, Part, Session, Stale, Step, Unmatched
from tests.conftest import make_settings, running_world
from tests.world import World, bundle, entry, issues, observation, unique

LINES = {"motor": "AsyncIOMotorClient", "pymongo": "AsyncMongoClient"}


@pytest.fixture(scope="module", params=LINES)
async def driver_world(request: pytest.FixtureRequest, mongo_url: str) -> AsyncIterator[World]:
    """A gateway on each driver."""
    async for world in running_world(make_settings(mongo_url, mongo_driver=request.param)):
        assert type(world.gateway.mongo._client).__name__ == LINES[request.param]
        yield world


async def test_a_resource_lives_through_its_versions(driver_world: World) -> None:
    camille = await driver_world.patient()
    made = await camille.create(observation(camille.patient or ""))
    place = f"Observation/{made['id']}"
    assert (await camille.get(place)).json() == made
    changed = await camille.put(place, {**made, "status": "amended"}, If_Match='W/"1"')
    assert (changed.status_code, changed.json()["meta"]["versionId"]) == (200, "2")
    assert (await camille.put(place, made, If_Match='W/"1"')).status_code == 412
    assert (await camille.get(f"{place}/_history/1")).json() == made
    assert (await camille.delete(place)).status_code == 204
    assert (await camille.get(place)).status_code == 410
    history = (await camille.get(f"{place}/_history")).json()["entry"]
    assert [e["request"]["method"] for e in history] == ["DELETE", "PUT", "POST"]


async def test_pages_follow_each_other(driver_world: World) -> None:
    camille = await driver_world.patient()
    asked = bundle("transaction", *(entry("POST", "Observation", observation(camille.patient or "")) for _ in range(7)))
    assert (await camille.post("", asked)).status_code == 200
    seen: list[str] = []
    url: str | None = "Observation?_count=3&_total=accurate"
    while url is not None:
        page = (await camille.get(url)).json()
        seen += [e["resource"]["id"] for e in page["entry"]]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    assert len(seen) == len(set(seen)) == 7


async def test_a_transaction_is_all_or_nothing(driver_world: World) -> None:
    camille, noe = await driver_world.patient(), await driver_world.patient()
    mine, foreign = observation(camille.patient or ""), observation(noe.patient or "")
    refused = await camille.post(
        "", bundle("transaction", entry("POST", "Observation", mine), entry("POST", "Observation", foreign))
    )
    assert refused.status_code in (403, 422)
    assert await driver_world.stored("Observation", patient=camille.patient) == []
    both = bundle("transaction", entry("POST", "Observation", mine), entry("GET", "Observation?_summary=count"))
    answered = (await camille.post("", both)).json()["entry"]
    assert answered[1]["resource"]["total"] == 1  # a transaction reads what it wrote


async def test_connections_at_work_are_known(driver_world: World) -> None:
    mongo = driver_world.gateway.mongo
    await driver_world.patient()
    slow = [asyncio.create_task(mongo.find("Patient", {"$where": "sleep(500) || true"}, limit=1)) for _ in range(3)]
    await asyncio.sleep(0.3)
    assert mongo.connections_in_use >= 3
    await asyncio.gather(*slow)
    assert mongo.connections_in_use <= 2  # sealing and sweeping go on


@pytest.mark.parametrize("has_key", [True, False])
async def test_parallel_conditional_creates_give_one_resource(driver_world: World, has_key: bool) -> None:
    camille = await driver_world.patient()
    reading = observation(camille.patient or "", effectiveDateTime="2026-11-20T08:00:00Z")
    if not has_key:
        del reading["identifier"]
    criteria = "date=2026-11-20T08:00:00Z&code=99504-3"
    answers = await asyncio.gather(*(camille.post("Observation", reading, If_None_Exist=criteria) for _ in range(16)))
    assert sorted(a.status_code for a in answers) == [200] * 15 + [201]
    assert len(await driver_world.stored("Observation", patient=camille.patient)) == 1


async def test_one_of_parallel_updates_wins(driver_world: World) -> None:
    camille = await driver_world.patient()
    made = await camille.create(observation(camille.patient or ""))
    puts = (camille.put(f"Observation/{made['id']}", {**made, "status": "amended"}, If_Match='W/"1"') for _ in range(20))
    assert sorted(a.status_code for a in await asyncio.gather(*puts)) == [200] + [412] * 19


@pytest.mark.parametrize("notices", ["the server", "the driver"])
async def test_a_search_that_takes_too_long_is_refused_as_too_costly(
    driver_world: World, monkeypatch: pytest.MonkeyPatch, notices: str
) -> None:
    camille = await driver_world.patient()
    owner = camille.patient or ""
    find = driver_world.gateway.mongo.find

    # The server looks at its clock between documents, not while one of them keeps it busy.
    naps = {"the server": (100, 50), "the driver": (1, 1_000)}[notices]
    sleeping = {"$function": {"body": f"function() {{ sleep({naps[1]}); return true }}", "args": [], "lang": "js"}}
    await camille.post("", bundle("transaction", *(entry("POST", "Observation", observation(owner)) for _ in range(naps[0]))))

    async def slow(collection: str, where: dict[str, object], *rest: object, **options: object) -> object:
        if collection == "Observation":
            where = {"$and": [where, {"$expr": sleeping}]}
            options |= {"seconds": 0.3, "hint": None}
        return await find(collection, where, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(driver_world.gateway.mongo, "find", slow)
    answer = await camille.get("Observation")
    assert answer.status_code == 503, answer.text
    assert issues(answer)[0]["code"] == "too-costly"
    assert answer.headers["retry-after"] == "5"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("driver", LINES)
async def test_a_server_that_is_away_is_transient(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_mongo, "_OPTIONS", {**store_mongo._OPTIONS, "serverSelectionTimeoutMS": 100})
    mongo = Mongo("mongodb://127.0.0.1:1", "any", driver)
    with pytest.raises(Problem) as refused:
        await mongo.find("Observation", {})
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})
    await mongo.close()
    gc.collect()  # PyMongo leaves the socket of a connection under way when it is closed; that is to be told here, if anywhere


@dataclass
class _Attempts:
    mongo: Mongo
    collection: str
    made: list[int] = field(default_factory=list)

    async def work(self, session: Session) -> int:
        self.made.append(len(self.made))
        await self.mongo.insert(self.collection, [{"_id": len(self.made)}], session)
        return len(self.made)


@pytest.fixture
async def mongo(driver_world: World) -> Mongo:
    """The driver alone."""
    return driver_world.gateway.mongo


async def test_a_transaction_that_fails_leaves_nothing(mongo: Mongo) -> None:
    name = unique("scratch")
    await mongo.create_collection(name)

    async def work(session: Session) -> None:
        await mongo.insert(name, [{"_id": 1}], session)
        raise Problem("forbidden", "no")

    with pytest.raises(Problem, match="no"):
        await mongo.transaction(work, seconds=5)
    assert await mongo.find(name, {}) == []


async def test_conflicting_transactions_are_repeated(mongo: Mongo) -> None:
    name = unique("scratch")
    await mongo.create_collection(name)
    await mongo.insert(name, [{"_id": "sum", "n": 0}])

    async def add(session: Session) -> None:
        await mongo.change(name, {"_id": "sum"}, {"$inc": {"n": 1}}, session=session)

    await asyncio.gather(*(mongo.transaction(add, seconds=20) for _ in range(10)))
    assert await mongo.find(name, {}) == [{"_id": "sum", "n": 10}]


async def test_a_unique_key_that_is_taken_is_stale(mongo: Mongo) -> None:
    name = unique("scratch")
    await mongo.create_collection(name)
    await mongo.insert(name, [{"_id": 1}])
    with pytest.raises(Stale):
        await mongo.insert(name, [{"_id": 1}])
    attempts = _Attempts(mongo, name)
    with pytest.raises(Stale):
        await mongo.transaction(attempts.work, seconds=5)
    assert attempts.made == [0]


async def test_steps_are_written_together(mongo: Mongo) -> None:
    name, other = await _two_scratch_collections(mongo)
    steps = [
        Step(name, inserts=[{"_id": 2}], updates=[({"_id": 1}, {"$set": {"n": 5}})]),
        Step(other, replacements=[({"_id": 1, "n": 1}, {"n": 7})]),
    ]
    await mongo.write_all(steps, seconds=5)
    assert await mongo.find(name, {}, sort=[("_id", 1)]) == [{"_id": 1, "n": 5}, {"_id": 2}]
    assert await mongo.find(other, {}) == [{"_id": 1, "n": 7}]


def _no() -> Problem:
    return Problem("transient", "no")


@pytest.mark.parametrize(
    ("failing", "error", "says"),
    [
        ({"updates": [({"_id": 1, "n": 0}, {"$set": {"n": 5}})]}, Unmatched, None),
        ({"replacements": [({"_id": 9}, {"n": 5})]}, Unmatched, None),
        ({"inserts": [{"_id": 1}]}, Stale, None),
        ({"inserts": [{"_id": 5, "n": "x" * 17_000_000}]}, Problem, "too large"),
        ({"inserts": [{"_id": 5, "n": "x" * 17_000_000}], "otherwise": _no}, Problem, "no"),
    ],
)
async def test_a_step_that_cannot_be_done_leaves_nothing_of_the_others(
    mongo: Mongo, failing: dict[str, Any], error: type[Exception], says: str | None
) -> None:
    name, other = await _two_scratch_collections(mongo)
    with pytest.raises(error, match=says) as raised:
        await mongo.write_all([Step(name, inserts=[{"_id": 2}]), Step(other, **failing)], seconds=5)
    assert not isinstance(raised.value, Unmatched) or raised.value.collection == other
    for collection in (name, other):
        assert await mongo.find(collection, {}) == [{"_id": 1, "n": 1}]


async def test_steps_in_each_others_way_are_repeated(mongo: Mongo) -> None:
    name, _ = await _two_scratch_collections(mongo)
    add = Step(name, updates=[({"_id": 1}, {"$inc": {"n": 1}})])
    await asyncio.gather(*(mongo.write_all([add], seconds=20) for _ in range(10)))
    assert await mongo.find(name, {}) == [{"_id": 1, "n": 11}]


async def _two_scratch_collections(mongo: Mongo) -> tuple[str, str]:
    names = unique("scratch"), unique("scratch")
    for name in names:
        await mongo.create_collection(name)
        await mongo.insert(name, [{"_id": 1, "n": 1}])
    return names


async def test_the_smaller_calls(mongo: Mongo) -> None:
    name, other = unique("scratch"), unique("scratch")
    await mongo.create_collection(name)
    await mongo.create_collection(name)  # another process was faster
    await mongo.insert(name, [{"_id": n, "n": n % 2} for n in range(2_500)])
    await mongo.insert(other, [{"_id": "x"}])
    assert await mongo.count(name, {"n": 1}) == 1_250
    assert len(await mongo.find(name, {})) == 2_500
    assert await mongo.find_one(name, {"_id": 7}, {"n": 1}) == {"_id": 7, "n": 1}
    assert await mongo.find_one(name, {"_id": -1}) is None
    assert [d["_id"] async for d in mongo.walk(name, {"n": 1}, sort="_id", batch=100)] == list(range(1, 2_500, 2))
    found = await mongo.find_all([Part(name, {"_id": 1}, "a"), Part(other, {}, "b", {"_id": 1})])
    assert sorted(d["of"] for d in found) == ["a", "b"]
    assert await mongo.find_all([]) == []
    assert await mongo.change(name, {"_id": 1}, {"$set": {"n": 9}}) == {"_id": 1, "n": 9}
    assert await mongo.change(name, {"_id": -3}, {"$set": {"n": 1}}) is None
    assert await mongo.delete(name, {"n": 9}) == 1
    await mongo.create_index(name, [("n", 1)], "n")
    await mongo.create_index(name, [("n", -1)], "n")  # another one of that name: the check names it
    assert (await mongo.indexes(name))["n"]["key"] == [("n", 1)]
    assert (await mongo.explain(name, {"n": 1}))["executionStats"]["totalKeysExamined"] > 0
    assert (await mongo.statistics(name))["count"] == 2_499
    assert (await mongo.command({"hello": 1}))["isWritablePrimary"] is True


async def test_the_index_that_one_part_names_is_taken_wherever_the_part_stands(mongo: Mongo) -> None:
    name, other = unique("scratch"), unique("scratch")
    await mongo.create_collection(name)
    await mongo.insert(name, [{"_id": n, "n": n} for n in range(3)])
    await mongo.insert(other, [{"_id": "x"}])
    await mongo.create_index(name, [("n", 1)], "n")
    found = await mongo.find_all([Part(other, {}, "b"), Part(name, {"n": {"$lte": 1}}, "a", {"n": 1}, hint="n")])
    assert sorted((d["of"], d["_id"]) for d in found) == [("a", 0), ("a", 1), ("b", "x")]
    with pytest.raises(Problem):
        await mongo.find_all([Part(other, {}, "b"), Part(name, {"n": 1}, "a", hint="no such index")])


async def test_a_taken_key_is_told_as_such_beside_a_change_in_the_same_step(driver_world: World) -> None:
    mongo, there = driver_world.gateway.mongo, {"_id": unique("number")}
    await mongo.insert("signing_keys", [there])
    step = Step("signing_keys", [dict(there)], [(dict(there), {"$set": {"ends": 1}})])
    with pytest.raises(Stale):
        await mongo.write_all([step], seconds=1)
    assert await driver_world.stored("signing_keys") == [there]
