"""The store's frame: what is created at the start, what stops it, and the settings that keep acknowledged writes."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

import gateway
from gateway.fhir.registry import Registry
from gateway.sandbox.mongod import _free_port, _stop, find_mongod
from gateway.store.mongo import Mongo
from gateway.store.schema import (
    META,
    StoreError,
    create_missing_indexes,
    find_problems,
    find_topology_problems,
    history_of,
    prepare,
    required_collections,
    required_indexes,
)
from tests.world import SECRET, unique

NEWEST = "patient,code,-date"
PARTIAL = {"key": {"$exists": True}}
KEY = [("bucket", 1), ("key", 1)]


@pytest.fixture(scope="module")
async def mongo(mongo_url: str, registry: Registry) -> AsyncIterator[Mongo]:
    """A database that was prepared; whoever changes it puts it right again."""
    mongo = Mongo(mongo_url, unique("schema"), "motor")
    await prepare(mongo, registry, SECRET)
    yield mongo
    await mongo.close()


async def test_a_prepared_database_is_sound(mongo: Mongo, registry: Registry) -> None:
    assert await find_problems(mongo, registry) == []
    assert await mongo.collections() == set(required_collections(registry))
    for name in registry.resource_types:
        assert history_of(name) in await mongo.collections()


async def test_a_prepared_database_is_prepared_again_without_a_change(mongo: Mongo, registry: Registry) -> None:
    before = {name: await mongo.indexes(name) for name in await mongo.collections()}
    await prepare(mongo, registry, SECRET)
    assert {name: await mongo.indexes(name) for name in await mongo.collections()} == before


def test_every_unique_index_can_be_sharded(registry: Registry) -> None:
    of_data = [*registry.resource_types, *map(history_of, registry.resource_types)]
    unique_ones = [i for i in required_indexes(registry) if i.options.get("unique") and i.collection in of_data]
    unique_ones = [i for i in unique_ones if "writer" not in i.name]
    assert unique_ones
    assert {index.keys[0] for index in unique_ones} == {("bucket", 1)}


def test_every_index_by_patient_begins_with_the_bucket(registry: Registry) -> None:
    # (what belongs to nobody is in many buckets, and has an index of its own)
    by_patient = [i for i in required_indexes(registry) if ("patient", 1) in i.keys and not i.name.startswith("unowned")]
    assert by_patient
    assert {index.keys[:2] for index in by_patient} == {(("bucket", 1), ("patient", 1))}


def test_index_names_are_given_once(registry: Registry) -> None:
    places = [(index.collection, index.name) for index in required_indexes(registry)]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("collection", ["Observation", "Observation_history", "AuditEvent", "seals", "heads"])
async def test_blocks_are_compressed_with_zstd(mongo: Mongo, collection: str) -> None:
    statistics = await mongo.statistics(collection)
    assert "block_compressor=zstd" in statistics["wiredTiger"]["creationString"]


CHANGES: dict[str, tuple[str, str, list[tuple[str, int]] | None, dict[str, Any]]] = {
    "missing": ("Observation", NEWEST, None, {}),
    "other keys": ("Observation", NEWEST, [("bucket", 1), ("patient", 1)], {}),
    "other direction": ("Observation", NEWEST, "reversed", {}),  # type: ignore[dict-item]
    "missing key": ("Observation", "key", None, {}),
    "not unique": ("Observation", "key", KEY, {"partialFilterExpression": PARTIAL}),
    "not partial": ("Observation", "key", KEY, {"unique": True}),
    "partial otherwise": ("Observation", "key", KEY, {"unique": True, "partialFilterExpression": {"key": {"$type": "string"}}}),
    "sparse": ("Observation", NEWEST, "same", {"sparse": True}),  # type: ignore[dict-item]
    "hidden": ("Observation", NEWEST, "same", {"hidden": True}),  # type: ignore[dict-item]
    "collation": ("Observation", NEWEST, "same", {"collation": {"locale": "fr"}}),  # type: ignore[dict-item]
    "text": ("Observation", NEWEST, [("body", "text")], {}),  # type: ignore[list-item]
    "receipts gone sooner": ("receipts", "at", [("at", 1)], {"expireAfterSeconds": 3_600}),
    "expires otherwise": ("tokens", "expires", [("expires", 1)], {"expireAfterSeconds": 1}),
    "history": ("Observation_history", "id,version", None, {}),
    "seals": ("seals", "writer,number", [("writer", 1), ("number", 1)], {}),
    "audit": ("AuditEvent", "writer,n", None, {}),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_an_index_that_is_missing_or_different_stops_the_start_with_its_name(
    mongo: Mongo, registry: Registry, name: str
) -> None:
    collection, index, keys, options = CHANGES[name]
    required = next(i for i in required_indexes(registry) if (i.collection, i.name) == (collection, index))
    database = mongo._database[collection]
    await database.drop_index(index)
    try:
        if keys == "same":
            await database.create_index(list(required.keys), name=index, **options)
        elif keys == "reversed":
            await database.create_index([(field, -way) for field, way in required.keys], name=index)
        elif keys is not None:
            await database.create_index(keys, name=index, **options)
        what = "is missing" if keys is None else "is not the one required"
        todo = "build what is missing: gateway check --create-indexes"
        todo = todo if keys is None else f"drop what {what}, then {todo}"
        with pytest.raises(StoreError, match=f"^index '{index}' of collection '{collection}' {what}; {todo}$"):
            await prepare(mongo, registry, SECRET)
        assert await create_missing_indexes(mongo, registry) == ([f"{collection}.{index}"] if keys is None else [])
    finally:
        if index in await mongo.indexes(collection):
            await database.drop_index(index)
        await database.create_index(list(required.keys), name=index, **required.options)
    assert await find_problems(mongo, registry) == []


async def test_required_keys_under_another_name_are_no_substitute(mongo: Mongo, registry: Registry) -> None:
    required = next(i for i in required_indexes(registry) if (i.collection, i.name) == ("Observation", NEWEST))
    database = mongo._database["Observation"]
    await database.drop_index(NEWEST)
    await database.create_index(list(required.keys), name="mine")
    try:
        assert await create_missing_indexes(mongo, registry) == []
        assert await find_problems(mongo, registry) == [f"index '{NEWEST}' of collection 'Observation' is missing"]
    finally:
        await database.drop_index("mine")
        await database.create_index(list(required.keys), name=NEWEST)


async def test_a_unique_index_that_the_data_does_not_allow_is_named(mongo: Mongo, registry: Registry) -> None:
    database = mongo._database["Observation"]
    await database.drop_index("key")
    twins = [{"_id": f"abc-{n}", "bucket": "abc", "key": b"the same"} for n in range(2)]
    await mongo.insert("Observation", twins)
    try:
        with pytest.raises(StoreError, match=r"^index 'key' of collection 'Observation' cannot be built"):
            await create_missing_indexes(mongo, registry)
    finally:
        await mongo.delete("Observation", {"bucket": "abc"})
        assert await create_missing_indexes(mongo, registry) == ["Observation.key"]


async def test_a_collection_that_is_gone_stops_the_start(mongo: Mongo, registry: Registry) -> None:
    await mongo._database.drop_collection("List_history")
    with pytest.raises(StoreError, match=r"^collection 'List_history' is missing$"):
        await prepare(mongo, registry, SECRET)
    assert "List_history" not in await mongo.collections()
    await mongo.change(META, {"_id": "collections"}, {"$pull": {"made": "List_history"}})
    await prepare(mongo, registry, SECRET)


async def test_another_secret_is_refused(mongo: Mongo, registry: Registry) -> None:
    with pytest.raises(StoreError, match=r"^GATEWAY_SECRET is not the one this database was made with$"):
        await prepare(mongo, registry, SECRET + "!")


async def test_several_processes_start_on_an_empty_database_at_once(mongo_url: str, registry: Registry) -> None:
    name = unique("schema")
    several = [Mongo(mongo_url, name, driver) for driver in ("motor", "pymongo", "motor")]
    await asyncio.gather(*(prepare(mongo, registry, SECRET) for mongo in several))
    assert await find_problems(several[0], registry) == []
    for mongo in several:
        await mongo.close()


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mongod that is no member of a replica set."""
    folder: Path = tmp_path_factory.mktemp("standalone")
    port = _free_port()
    arguments = ["--dbpath", folder, "--port", str(port), "--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", "0.25"]
    process = subprocess.Popen([find_mongod(), *arguments, "--logpath", folder / "log"], stdout=subprocess.DEVNULL)
    try:
        with MongoClient[dict[str, Any]]("127.0.0.1", port, directConnection=True) as client:
            client.admin.command("hello")
        yield f"mongodb://127.0.0.1:{port}"
    finally:
        _stop(process)


async def test_a_standalone_is_refused(standalone: str, mongo_url: str) -> None:
    for url, expected in ((standalone, "the server is a standalone: it has no transactions"), (mongo_url, None)):
        mongo = Mongo(url, "any", "motor")
        problems = await find_topology_problems(mongo)
        assert [p.partition(";")[0] for p in problems] == ([expected] if expected else [])
        await mongo.close()


@pytest.mark.requirement("REL-011")
@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"buildInfo": {"version": "5.0.9"}}, "the server's version 5.0.9 is older than 6.0"),
        ({"replSetGetConfig": {"config": {"writeConcernMajorityJournalDefault": False}}}, "writeConcernMajorityJournalDefault"),
    ],
)
async def test_a_server_that_could_lose_writes_is_refused(
    mongo: Mongo, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], said: str
) -> None:
    command = mongo.command

    async def answered(asked: dict[str, Any]) -> dict[str, Any]:
        return await command(asked) | answers.get(next(iter(asked)), {})

    monkeypatch.setattr(mongo, "command", answered)
    [problem] = await find_topology_problems(mongo)
    assert said in problem


@pytest.mark.requirement("REL-001")
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_the_connection_keeps_acknowledged_writes(mongo_url: str, driver: str) -> None:
    mongo = Mongo(mongo_url, "any", driver)
    client = mongo._client
    options = client.options
    assert client.write_concern.document == {"w": "majority", "j": True}
    assert client.read_concern.document == {"level": "majority"}
    assert client.read_preference.name == "Primary"
    assert (options.retry_writes, options.retry_reads) == (True, True)
    assert options.timeout == 10.0
    assert options.server_selection_timeout == 4.0
    pool = options.pool_options
    assert (pool.max_pool_size, pool.max_connecting, pool.wait_queue_timeout, pool.connect_timeout) == (100, 4, 1.0, 2.0)
    assert client.codec_options.tz_aware is True
    await mongo.close()


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_what_a_url_says_does_not_weaken_the_connection(mongo_url: str, driver: str) -> None:
    mongo = Mongo(f"{mongo_url}&w=1&journal=false&readConcernLevel=local&retryWrites=false", "any", driver)
    assert mongo._client.write_concern.document == {"w": "majority", "j": True}
    assert mongo._client.read_concern.document == {"level": "majority"}
    assert mongo._client.options.retry_writes is True
    await mongo.close()


def test_the_driver_is_named_where_it_is_wrapped_only() -> None:
    folder = Path(gateway.__file__).parent
    users = {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*.py")
        if any(line.startswith(("import pymongo", "from pymongo", "from motor")) for line in file.read_text().splitlines())
    }
    assert users == {"store/mongo.py", "store/driver_errors.py", "sandbox/mongod.py"}
