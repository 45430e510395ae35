"""An app that brings years of history follows what it is told: it is not starved, starves nobody, and goes on after a cut."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import make_settings, running_world
from tests.world import Actor, World, bundle, entry, observation, unique

STATUS = "Observation/$submission-status"
GUIDANCE = "urn:fhir-document-gateway:StructureDefinition/submission-guidance"
FIRST = datetime(2023, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)


@pytest.fixture(scope="module")
async def strict(mongo_url: str) -> AsyncIterator[World]:
    """A gateway whose rates hold."""
    async for world in running_world(make_settings(mongo_url, rates="on")):
        yield world


async def an_app(world: World, owner: Actor, scope: str = "patient/Observation.c") -> Actor:
    app = await world.app(owner, scope, source=unique("service"))
    await world.consent(owner, app, "collect", ["Observation"])
    return app


def reading(owner: Actor, number: int) -> dict[str, Any]:
    moment = FIRST + number * STEP
    named = [{"system": "https://app.example/readings", "value": f"{moment:%Y%m%dT%H%M}"}]
    return entry("POST", "Observation", observation(owner.patient, identifier=named, effectiveDateTime=moment.isoformat()))


def submission(*entries: dict[str, Any]) -> dict[str, Any]:
    return bundle("transaction", *entries) | {"timestamp": "2026-11-25T12:00:00Z"}


def parameters(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {one["name"]: next(v for k, v in one.items() if k != "name") for one in answer.json().get("parameter", ())}


async def declared(actor: Actor) -> dict[str, Any]:
    """What the CapabilityStatement says to whoever has no token yet."""
    (rest,) = (await actor.http.get("/metadata")).json()["rest"]
    submit = next(one for one in rest["operation"] if one["name"] == "submit-cgm-bundle")
    (told,) = (one["extension"] for one in submit["extension"] if one["url"] == GUIDANCE)
    return {one["url"]: next(v for k, v in one.items() if k != "url") for one in told}


@dataclass
class Phone:
    """An app that knows nothing but its readings, the moment it was paired and what it is told."""

    world: World
    app: Actor
    owner: Actor
    count: int
    receipts: dict[str, int] = field(default_factory=dict)
    waited: int = 0
    bundles: int = 0

    async def push(self, most_bundles: int | None = None) -> None:
        """Bring what is not there yet, oldest first; give up after so many Bundles, without remembering anything."""
        status = parameters(await self.app.get(f"{STATUS}?end={(FIRST + self.count * STEP).isoformat().replace('+', '%2B')}"))
        until = status.get("until")
        done = 0 if until is None else (datetime.fromisoformat(until) - FIRST) // STEP + 1
        sent = 0
        while done < self.count and sent != most_bundles:
            numbers = range(done, min(done + status["entries"], self.count))
            await self.bring([reading(self.owner, n) for n in numbers])
            done, sent = numbers.stop, sent + 1
            self.bundles += 1

    async def bring(self, readings: list[dict[str, Any]]) -> None:
        """Push these, as soon as it may."""
        while (answer := await self.app.post("$submit-cgm-bundle", submission(*readings))).status_code == 429:
            self.waited += 1
            assert int(answer.headers["RateLimit"].partition("r=")[2].partition(";")[0]) == 0
            self.world.clock.ahead += timedelta(seconds=int(answer.headers["Retry-After"]))
        assert answer.status_code == 200, answer.text
        for one in answer.json()["entry"]:
            receipt = one["response"]["extension"][0]["valueCode"]
            self.receipts[receipt] = self.receipts.get(receipt, 0) + 1


async def neighbour(world: World, over: asyncio.Event) -> list[int]:
    """Another patient's app, which pushes what it measures meanwhile: what it is answered."""
    owner = await world.patient()
    app = await an_app(world, owner)
    found = []
    while not over.is_set():
        one = observation(owner.patient, identifier=[{"system": "https://app.example/readings", "value": unique("n")}])
        found.append((await app.post("Observation", one)).status_code)
        await asyncio.sleep(0.05)
    return found


async def bring(world: World, count: int, cut: int) -> Phone:
    owner, over = await world.patient(), asyncio.Event()
    phone = Phone(world, await an_app(world, owner), owner, count)
    other = asyncio.create_task(neighbour(world, over))
    try:
        await phone.push(cut)  # … and the app is killed
        today = reading(owner, 0)
        today["resource"] |= {"effectiveDateTime": "2026-11-20T08:00:00Z"}
        today["resource"]["identifier"][0]["value"] = "today"
        await phone.bring([today])  # beside its history
        await phone.push()
    finally:
        over.set()
    answers = await other
    assert set(answers) == {201}
    assert len(answers) > 3
    assert len(await world.stored("Observation", patient=owner.patient)) == count + 1
    return phone


@pytest.mark.requirement("CGM-07")
async def test_four_thousand_readings_and_a_cut(strict: World) -> None:
    phone = await bring(strict, 4_000, cut=3)
    assert phone.receipts == {"created": 4_001}  # nothing was sent twice
    assert phone.bundles == 8


@pytest.mark.slow
async def test_years_of_readings_wait_as_they_are_told(strict: World) -> None:
    phone = await bring(strict, 200_000, cut=150)
    assert phone.receipts == {"created": 200_001}
    assert phone.waited > 0


async def test_what_is_declared_is_what_holds(strict: World) -> None:
    owner = await strict.patient()
    app = await an_app(strict, owner)
    answer = await app.get(STATUS)
    said, limits = parameters(answer), strict.gateway.limits
    assert said == await declared(app)
    rate = strict.gateway.throttle._rates["app"]
    assert (said["burst"], said["per-second"], said["known"]) == (rate.burst, rate.per_second, rate.known)
    most = submission(*(reading(owner, n) for n in range(said["most-entries"])))
    answer = await app.post("$submit-cgm-bundle", most)
    assert answer.status_code == 200
    left = int(answer.headers["RateLimit"].partition("r=")[2].partition(";")[0])
    assert rate.burst - said["most-entries"] - 10 < left < rate.burst - said["most-entries"] + 10
    assert answer.headers["RateLimit-Policy"] == f'"app";q={rate.burst};w={rate.burst // 200}'
    most["entry"].append(reading(owner, 5_000))
    assert (await app.post("$submit-cgm-bundle", most)).status_code == 413
    assert said["entries"] <= said["most-entries"] == limits.bundle_entries


async def test_how_far_it_came_is_told_to_who_brought_it_alone(strict: World) -> None:
    owner, stranger = await strict.patient(), await strict.patient()
    app, other = [await an_app(strict, owner) for _ in range(2)]
    await app.post("$submit-cgm-bundle", submission(*(reading(owner, n) for n in range(3))))
    path = f"{STATUS}?patient={owner.patient}"
    assert parameters(await app.get(path))["until"] == "2023-01-01T00:10:00.000Z"
    assert parameters(await app.get(f"{path}&end=2023-01-01T00:05:00Z"))["until"] == "2023-01-01T00:00:00.000Z"
    assert "until" not in parameters(await app.get(f"{path}&code=http://loinc.org|2339-0"))
    assert "until" not in parameters(await other.get(path))
    unconsented = await strict.app(owner, "patient/Observation.c")
    nobody = await strict.app(stranger, "patient/Observation.c")
    refusals = [parameters(await unconsented.get(path)), parameters(await nobody.get(path))]
    assert refusals[0] == refusals[1] == parameters(await other.get(path))
    reader = await strict.app(owner, "patient/Observation.rs")
    assert (await reader.get(path)).status_code == 403


async def test_what_was_corrected_or_others_brought_later_is_no_matter(strict: World) -> None:
    owner = await strict.patient()
    app, other = [await an_app(strict, owner) for _ in range(2)]
    await app.post("$submit-cgm-bundle", submission(*(reading(owner, n) for n in range(5))))
    for first in (1_000, 2_000):
        await other.post("$submit-cgm-bundle", submission(*(reading(owner, n) for n in range(first, first + 900))))
    assert parameters(await app.get(STATUS))["until"] == "2023-01-01T00:20:00.000Z"
