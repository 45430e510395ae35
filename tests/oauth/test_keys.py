"""The signing keys: one set for all processes, published before they sign and as long as their signatures count."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from gateway.exchange.sealer import Sealer
from gateway.oauth.keys import AFTER_USE, BEFORE_USE, SigningKeys
from gateway.problem import Problem
from tests.clients import get_json
from tests.world import Clock, World

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def clean(world: World) -> None:
    await world.gateway.mongo.delete("signing_keys", {})


def keys_of(world: World, clock: Clock | None = None) -> SigningKeys:
    return SigningKeys(world.gateway.mongo, world.gateway.sealer, clock or world.clock)


async def published(keys: SigningKeys) -> list[str]:
    return [key["kid"] for key in (await keys.public_set())["keys"]]


@pytest.mark.usefixtures("clean")
async def test_processes_that_start_together_make_one_first_key(world: World) -> None:
    several = [keys_of(world) for _ in range(4)]
    names = await asyncio.gather(*(published(keys) for keys in several))
    assert len({name for found in names for name in found}) == 1
    assert {(await keys.signing()).id for keys in several} == set(names[0])


@pytest.mark.requirement("SEC-026")
async def test_what_is_published_is_public_and_named_by_thumbprint(world: World) -> None:
    (first, *_) = (await get_json(world, "/oauth/jwks"))["keys"]
    assert first.keys() == {"kty", "n", "e", "kid", "use", "alg"}
    assert (first["kty"], first["use"], first["alg"]) == ("RSA", "sig", "RS256")
    key = await keys_of(world).signing()
    assert key.id == key.key.thumbprint()
    assert key.key.public_key.key_size >= 2_048


@pytest.mark.usefixtures("clean")
async def test_a_rotation_overlaps(world: World) -> None:
    keys, other = keys_of(world), keys_of(world)
    first = (await keys.signing()).id
    second = await keys.rotate()
    assert await published(keys) == [first, second]
    assert (await keys.signing()).id == first  # nobody may have fetched the new one yet
    world.clock.ahead = BEFORE_USE - MINUTE
    assert (await other.signing()).id == first
    world.clock.ahead = BEFORE_USE + MINUTE
    assert (await keys.signing()).id == (await other.signing()).id == second
    assert await published(other) == [first, second]  # what the first one signed still counts
    world.clock.ahead = BEFORE_USE + AFTER_USE + MINUTE
    assert await published(other) == [second]


@pytest.mark.usefixtures("clean")
async def test_a_compromised_key_is_gone_at_once(world: World) -> None:
    keys = keys_of(world)
    await keys.signing()
    await keys.rotate()
    new = await keys.rotate(compromised=True)
    assert await published(keys) == [new]
    assert (await keys.signing()).id == new


@pytest.mark.usefixtures("clean")
async def test_rotations_at_once_each_make_a_key(world: World) -> None:
    made = await asyncio.gather(*(keys_of(world).rotate() for _ in range(3)))
    assert len(set(made)) == 3
    assert set(made) <= set(await published(keys_of(world)))


async def test_private_halves_lie_sealed(world: World) -> None:
    await published(keys_of(world))
    for stored in await world.stored("signing_keys"):
        assert set(stored) <= {"_id", "kid", "signs", "ends", "sealed"}
        assert b'"kty"' in world.gateway.sealer.open(stored["sealed"], stored["kid"])
        for sealer, owner in ((Sealer("x" * 32, b"gateway-seal"), stored["kid"]), (world.gateway.sealer, "another")):
            with pytest.raises(Problem):
                sealer.open(stored["sealed"], owner)


@pytest.fixture(autouse=True)
def put_right(world: World) -> Iterator[None]:
    """A key made by a clock set ahead signs later than now: it is not left to the tests that follow."""
    yield
    world.clock.ahead *= 0
