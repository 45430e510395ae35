"""Whoever no longer acts for a patient has no access from the next request on, whatever token they still hold."""

from datetime import timedelta
from typing import Any

import pytest

from gateway.exchange.standing import examine
from tests.world import Actor, World, bundle, entry, instant, observation, related_person


async def proxy_of(world: World, owner: Actor, **elements: Any) -> tuple[Actor, dict[str, Any]]:
    """Somebody who acts for a patient, with the RelatedPerson that says so."""
    named = await world.operator.create(related_person(owner.patient, **elements))
    reference = f"RelatedPerson/{named['id']}"
    proxy = await world.actor("proxy", "patient/*.cruds", "portal", reference, user=reference, patient=owner.patient)
    return proxy, named


async def change(world: World, named: dict[str, Any], **elements: Any) -> None:
    answer = await world.operator.put(f"RelatedPerson/{named['id']}", {**named, **elements})
    assert answer.status_code == 200, answer.text


async def answers(proxy: Actor, reading: str) -> set[int]:
    """What every kind of request is answered."""
    own = {**observation(proxy.patient), "identifier": [{"system": "https://app.example/readings", "value": reading}]}
    asked = [
        await proxy.get(f"Observation/{reading}"),
        await proxy.get(f"Observation?patient={proxy.patient}"),
        await proxy.get("Observation?_count=1"),
        await proxy.get("AuditEvent?_count=1"),
        await proxy.get(proxy.reference),
        await proxy.post("Observation", own),
        await proxy.post("", bundle("batch", entry("GET", f"Observation/{reading}"))),
    ]
    return {200 if one.status_code == 201 else one.status_code for one in asked}


@pytest.mark.parametrize("how", ["inactive", "over", "not begun", "of another"])
async def test_the_access_of_a_proxy_ends_with_the_next_request(world: World, how: str) -> None:
    owner = await world.patient()
    proxy, named = await proxy_of(world, owner)
    reading = (await owner.create(observation(owner.patient)))["id"]
    assert await answers(proxy, reading) == {200}
    now = world.clock()
    changed: dict[str, Any] = {
        "inactive": {"active": False},
        "over": {"period": {"end": instant(now - timedelta(minutes=1))}},
        "not begun": {"period": {"start": instant(now + timedelta(days=1))}},
        "of another": {"patient": {"reference": f"Patient/{(await world.patient()).patient}"}},
    }[how]
    answer = await world.operator.put(f"RelatedPerson/{named['id']}", {**named, **changed})
    if how == "of another":
        assert answer.status_code == 422  # a RelatedPerson stays in the record of whom it is of
        return
    assert answer.status_code == 200, answer.text
    assert await answers(proxy, reading) == {401}
    assert await examine(world.gateway, proxy.token) is None
    assert (await owner.get(f"Observation/{reading}")).status_code == 200
    await change(world, named)
    assert await answers(proxy, reading) == {200}
    assert await examine(world.gateway, proxy.token) is not None


async def test_it_ends_by_itself_when_its_period_does(world: World) -> None:
    owner = await world.patient()
    proxy, _ = await proxy_of(world, owner, period={"end": instant(world.clock() + timedelta(hours=2))})
    other, _ = await proxy_of(world, owner)
    assert (await proxy.get("Observation")).status_code == 200
    world.clock.ahead += timedelta(hours=3)
    assert [(await one.get("Observation")).status_code for one in (proxy, other)] == [401, 200]


async def test_to_know_it_costs_no_call_but_where_the_address_names_the_patient(world: World) -> None:
    owner = await world.patient()
    proxy, _ = await proxy_of(world, owner)
    reading = (await owner.create(observation(owner.patient)))["id"]
    for path, more in (("Observation?_count=1", 0), (f"Observation/{reading}", 0), (f"Observation?patient={owner.patient}", 1)):
        taken = [await world.calls_of(lambda one=one, path=path: one.get(path)) for one in (owner, proxy)]  # type: ignore[misc]
        assert taken[1] == taken[0] + more, path
