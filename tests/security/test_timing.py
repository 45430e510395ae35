"""How long an answer takes tells nothing about whether there is something hidden (T-43)."""

import statistics
import time
from functools import partial

import pytest

from tests.world import Actor, World, consent, label, observation, patient


async def medians(actor: Actor, one: str, other: str, rounds: int) -> tuple[float, float]:
    """The median times of two reads in milliseconds, taken alternately."""
    times: dict[str, list[float]] = {one: [], other: []}
    for _ in range(rounds):
        for path in (one, other):
            started = time.perf_counter()
            assert (await actor.get(path)).status_code == 404
            times[path].append((time.perf_counter() - started) * 1000)
    return statistics.median(times[one]), statistics.median(times[other])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["professional", "service", "patient"])
@pytest.mark.requirement("ATK-T43")
async def test_hidden_takes_as_long_as_absent(world: World, kind: str) -> None:
    victim = await world.patient()
    stored = await victim.create(observation(victim.patient or ""))
    actor = await {"professional": world.professional, "service": world.service, "patient": world.patient}[kind]()
    hidden, absent = (f"Observation/{i}" for i in (stored["id"], world.gateway.ids.new(stored["id"][:3])))
    one, other = await medians(actor, hidden, absent, 1_000)
    assert abs(one - other) < 0.5


@pytest.mark.parametrize("kind", ["professional", "service", "patient"])
@pytest.mark.requirement("ATK-T43")
async def test_hidden_asks_the_database_as_often_as_absent(world: World, kind: str) -> None:
    """What the time consists of, and what can be counted exactly."""
    victim = await world.patient()
    stored = await victim.create(observation(victim.patient or ""))
    actor = await {"professional": world.professional, "service": world.service, "patient": world.patient}[kind]()

    async def calls(method: str, identifier: str) -> int:
        async def ask() -> None:
            body = observation(victim.patient or "", id=identifier) if method == "PUT" else None
            answer = await actor.send(method, f"Observation/{identifier}", body)
            assert answer.status_code in (404, 405), answer.text

        return await world.calls_of(ask)

    for method in ("GET", "PUT", "DELETE"):
        absent = world.gateway.ids.new(stored["id"][:3])
        assert await calls(method, stored["id"]) == await calls(method, absent), method


@pytest.mark.parametrize("kind", ["professional", "service", "patient"])
@pytest.mark.parametrize("path", ["Patient?identifier={}", "Observation?patient.identifier={}"])
@pytest.mark.requirement("ATK-T43")
async def test_who_is_known_by_identifier_is_told_by_no_count_of_calls(world: World, kind: str, path: str) -> None:
    victim = await world.operator.create(patient())
    known, unknown = (f"{one['system']}|{one['value']}" for one in (*victim["identifier"], *patient()["identifier"]))
    actor = await {"professional": world.professional, "service": world.service, "patient": world.patient}[kind]()
    counts = [await world.calls_of(partial(actor.search, path.format(token))) for token in (known, unknown)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("query", ["date=ge2026-01-01", "date=lt2030&_total=accurate", "date=2026-11-20&_summary=count"])
@pytest.mark.requirement("ATK-T43", "SRCH-11")
async def test_a_long_period_that_is_hidden_is_told_by_no_count_of_calls(world: World, query: str) -> None:
    """Records that hold longer periods than days are searched by other filters, but not more often."""
    doctor = await world.professional()
    counts = []
    for has_period in (False, True):
        owner = await world.patient()
        await world.consent(owner, doctor)
        await owner.create(consent(owner, doctor, type="deny", securityLabel=[label("R")]))
        await owner.create(observation(owner.patient))
        hidden = observation(owner.patient, meta={"security": [label("R")]})
        if has_period:
            hidden["effectivePeriod"] = {"start": "2026-01-01", "end": hidden.pop("effectiveDateTime")}
        await owner.create(hidden)
        path = f"Observation?patient={owner.patient}&{query}"
        assert (await doctor.get(path)).json()["total"] == 1
        counts.append(await world.calls_of(partial(doctor.search, path)))
    assert counts[0] == counts[1]
