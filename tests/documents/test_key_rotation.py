"""The master key is changed while the gateway goes on: contents stay as they are, and only their keys are wrapped anew."""

import asyncio
from typing import Any

import pytest

from gateway.exchange.patient_keys import MasterKey, rewrap
from gateway.problem import Problem
from gateway.settings import Settings
from gateway.store.contents import destroy_key
from tests.conftest import make_settings, running_world
from tests.documents.papers import deposited, pdf
from tests.process import environment, run
from tests.world import Actor, World

FIRST, SECOND = "the first master key of these tests", "the second master key of these tests"

pytestmark = pytest.mark.requirement("OPS-003")


def configured(settings: Settings, **changes: Any) -> Settings:
    return make_settings(settings.mongo_url, mongo_database=settings.mongo_database, **changes)


async def read(settings: Settings, owner: Actor, raw: str) -> Any:
    async for world in running_world(settings):
        answer = await world.bearer(owner).get(raw)
    return answer


async def test_contents_are_read_before_during_and_after(mongo_url: str) -> None:
    first = make_settings(mongo_url, master_key=FIRST)
    async for world in running_world(first):
        owner, content = await world.patient(), pdf()
        _, raw = await deposited(owner, owner.patient, content)
        erased = await world.patient()
        await deposited(erased, erased.patient, pdf())
        await destroy_key(world.gateway.mongo, erased.patient, world.clock())
    async for world in running_world(configured(first, master_key=SECOND, former_master_key=FIRST)):
        assert (await world.bearer(owner).get(raw)).content == content
        later = await world.patient()
        _, newer = await deposited(later, later.patient, content)
        before = await world.stored("contents")
        env = environment(
            mongo_url,
            GATEWAY_MONGO_DATABASE=first.mongo_database,
            GATEWAY_SECRET=first.secret,
            GATEWAY_MASTER_KEY=SECOND,
            GATEWAY_FORMER_MASTER_KEY=FIRST,
        )
        for count in (1, 0):  # what is done already is not done again
            ended = await asyncio.to_thread(run, "keys", "rewrap", env=env)
            assert (ended.returncode, ended.stdout) == (0, f"{count} keys rewrapped\n"), ended.stderr
        assert await world.stored("contents") == before
        assert (await world.bearer(owner).get(raw)).content == content
        assert (await world.stored("patient_keys", _id=erased.patient))[0].keys() == {"_id", "bucket", "destroyed"}
    for one in ((owner, raw), (later, newer)):
        assert (await read(configured(first, master_key=SECOND), *one)).content == content
        assert (await read(configured(first, master_key=FIRST), *one)).status_code == 500


async def test_a_key_that_neither_opens_stops_it_and_stays(world: World) -> None:
    owner = await world.patient()
    await deposited(owner, owner.patient, pdf())
    before = await world.stored("patient_keys", _id=owner.patient)
    with pytest.raises(Problem, match="cannot be opened"):
        await rewrap(world.gateway.mongo, MasterKey(SECOND, FIRST))
    assert await world.stored("patient_keys", _id=owner.patient) == before


def test_there_is_nothing_to_do_without_a_former_one(mongo_url: str) -> None:
    ended = run("keys", "rewrap", env=environment(mongo_url))
    assert (ended.returncode, ended.stderr.split(":")[1].strip()) == (1, "GATEWAY_FORMER_MASTER_KEY")


def test_one_for_another_owner_opens_nothing() -> None:
    keys = MasterKey(SECOND, FIRST)

    async def work() -> None:
        wrapped = await MasterKey(FIRST).wrap(b"k" * 32, "abc-1")
        assert await keys.unwrap(wrapped, "abc-1") == b"k" * 32
        assert not keys.is_current(wrapped, "abc-1")
        with pytest.raises(Problem):
            await keys.unwrap(wrapped, "abc-2")

    asyncio.run(work())
