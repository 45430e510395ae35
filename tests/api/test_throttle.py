"""Who asks without end is told to wait, and when to come again; nobody else notices."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.conftest import make_settings, running_world
from tests.world import Actor, World, bundle, entry, issues, observation, unique


@pytest.fixture(scope="module")
async def strict(mongo_url: str) -> AsyncIterator[World]:
    """A gateway whose rates hold."""
    async for world in running_world(make_settings(mongo_url, rates="on")):
        yield world


async def app_of(world: World, owner: Actor, client: str | None = None) -> Actor:
    return await world.actor("app", "patient/*.cruds", client, patient=owner.patient, actors=("Device/x",))


def day(owner: Actor, name: str) -> dict[str, object]:
    readings = (observation(owner.patient, identifier=[{"system": "urn:oid:1.2", "value": f"{name}-{n}"}]) for n in range(1000))
    sent = bundle("transaction", *(entry("POST", "Observation", reading) for reading in readings))
    return sent | {"timestamp": "2026-11-25T12:00:00Z"}


@pytest.mark.requirement("CGM-07", "OPS-01")
async def test_a_burst_ends_in_429_that_says_when_to_come_again(strict: World) -> None:
    owner, other = await strict.patient(), await strict.patient()
    client = unique("app")
    app, neighbour = await app_of(strict, owner, client), await app_of(strict, other, client)
    rate = strict.gateway.throttle._rates["app"]
    left = rate.burst
    caller_key = (client, "", owner.patient)
    strict.gateway.throttle._left[caller_key] = 1.5, strict.gateway.clock()
    assert (await app.get("Observation?_count=1")).status_code == 200
    strict.gateway.throttle._left[caller_key] = -1000.0, strict.gateway.clock()
    refused = await app.get("Observation?_count=1")
    assert (refused.status_code, issues(refused)[0]["code"]) == (429, "throttled")
    wait = int(refused.headers["Retry-After"])
    assert wait == 6  # 1 001 at 200 a second
    assert (await neighbour.get("Observation?_count=1")).status_code == 200
    assert (await owner.get("Observation?_count=1")).status_code == 200
    strict.clock.ahead += timedelta(seconds=wait)
    assert (await app.get("Observation?_count=1")).status_code == 200
    assert strict.gateway.throttle._left[caller_key][0] < left


@pytest.mark.requirement("CGM-07")
async def test_readings_count_and_known_ones_a_tenth(strict: World) -> None:
    owner = await strict.patient()
    key, rate = ("portal", owner.reference, owner.patient), strict.gateway.throttle._rates["patient"]
    sent = day(owner, unique("r"))
    taken = []
    for _ in range(2):
        strict.gateway.throttle._left.pop(key, None)
        assert (await owner.post("$submit-cgm-bundle", sent)).status_code == 200
        taken.append(rate.burst - strict.gateway.throttle._left[key][0])
    assert taken == [pytest.approx(1001, abs=1), pytest.approx(101, abs=1)]


async def test_an_overdrawn_caller_costs_no_more_than_knowing_who_it_is(strict: World) -> None:
    owner = await strict.patient()
    sent = day(owner, unique("r"))
    strict.gateway.throttle._left["portal", owner.reference, owner.patient] = -1e6, strict.gateway.clock()
    assert await strict.calls_of(lambda: owner.post("$submit-cgm-bundle", sent)) == 2  # the token, and what is read with it
    refused = await owner.post("$submit-cgm-bundle", sent)
    assert (refused.status_code, refused.headers["Retry-After"].isdigit()) == (429, True)
    assert await strict.stored("Observation", patient=owner.patient) == []


async def test_who_is_not_counted_is_never_refused(strict: World) -> None:
    assert "operator" not in strict.gateway.throttle._rates
    await strict.operator.get("Patient?_count=1")
    assert all(client != "operator" for client, _, _ in strict.gateway.throttle._left)
