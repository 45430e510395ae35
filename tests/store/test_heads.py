"""The head of a record: its commits are numbered without gaps, and their times never go back, whatever the clocks say."""

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.world import Actor, World, bundle, device, document, entry, observation, organization, patient

COLLECTIONS = ("Observation", "Device", "DocumentReference", "Consent", "Patient", "RelatedPerson")


async def versions(world: World, owner: Actor) -> list[dict[str, Any]]:
    """Every version of every resource of a record, in the order of their commits."""
    found = []
    for name in COLLECTIONS:
        found += await world.stored(name, patient=owner.patient)
        found += await world.stored(f"{name}_history", patient=owner.patient)
    return sorted(found, key=lambda d: (d["commit"], d["_id"]))


async def check_order(world: World, owner: Actor) -> int:
    """The commits of a record are 1…n, each has one time, and the times grow. Returns n."""
    found = await versions(world, owner)
    moments: dict[int, set[Any]] = {}
    for document_ in found:
        moments.setdefault(document_["commit"], set()).add(document_["updated"])
    assert list(moments) == list(range(1, len(moments) + 1))
    assert all(len(times) == 1 for times in moments.values())
    times = [times.pop() for times in moments.values()]
    assert all(earlier < later for earlier, later in itertools.pairwise(times))
    head = (await world.stored("heads", _id=owner.patient))[0]
    assert (head["commit"], head["updated"]) == (len(moments), times[-1])
    return len(moments)


async def test_every_kind_of_write_is_one_commit(world: World) -> None:
    owner = await world.patient()
    made = await owner.create(observation(owner.patient))
    await owner.put(f"Observation/{made['id']}", made)
    await owner.post("", bundle("transaction", *(entry("POST", "Device", device(owner.patient)) for _ in range(3))))
    await owner.delete(f"Observation/{made['id']}")
    await owner.delete(f"Observation/{made['id']}")  # nothing is left to be done
    assert await check_order(world, owner) == 5
    devices = await world.stored("Device", patient=owner.patient)
    assert {(d["commit"], d["updated"]) for d in devices} == {(4, devices[0]["updated"])}


async def test_what_writes_nothing_makes_no_commit(world: World) -> None:
    owner = await world.patient()
    reading = observation(owner.patient)
    await owner.create(reading)
    await owner.post("Observation", reading)
    await owner.post("Observation", reading | {"colour": "red"})
    await owner.post("", bundle("transaction", entry("POST", "Observation", reading)))
    assert await check_order(world, owner) == 2


async def test_a_stored_time_is_the_one_in_the_resource(world: World) -> None:
    owner = await world.patient()
    made = await owner.create(observation(owner.patient))
    stored = (await world.stored("Observation", _id=made["id"]))[0]
    assert made["meta"]["lastUpdated"] == stored["updated"].isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)])
async def test_times_grow_although_the_clocks_of_two_gateways_differ(world: World, peer: World, ahead: timedelta) -> None:
    owner = await world.patient()
    peer.clock.ahead = ahead
    made = await owner.create(observation(owner.patient))
    for n in range(6):
        actor = peer.bearer(owner) if n % 2 else owner
        answer = await actor.put(f"Observation/{made['id']}", made)
        assert answer.status_code == 200, answer.text
    assert await check_order(world, owner) == 8
    history = (await owner.get(f"Observation/{made['id']}/_history")).json()["entry"]
    times = [e["resource"]["meta"]["lastUpdated"] for e in history]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 7


async def test_times_grow_although_the_clock_goes_back(world: World) -> None:
    owner = await world.patient()
    for minutes in (0, 10, -10, 5, -60):
        world.clock.ahead = timedelta(minutes=minutes)
        await owner.create(observation(owner.patient))
    assert await check_order(world, owner) == 6


async def test_two_gateways_write_to_one_record_at_the_same_time(world: World, peer: World) -> None:
    owner = await world.patient()
    peer.clock.ahead = timedelta(seconds=-30)
    actors = [owner, peer.bearer(owner)]

    async def write(n: int) -> httpx.Response:
        actor = actors[n % 2]
        if n % 5 == 0:
            entries = [entry("POST", "Observation", observation(owner.patient)) for _ in range(4)]
            return await actor.post("", bundle("transaction", *entries))
        return await actor.post("DocumentReference", document(owner.patient))

    answers = await asyncio.gather(*(write(n) for n in range(40)))
    assert {a.status_code for a in answers} == {200, 201}, [a.text for a in answers if a.status_code > 201]
    commits = await check_order(world, owner)
    assert 2 <= commits <= 41  # those that waited together went together
    assert len(await world.stored("Observation", patient=owner.patient)) == 32
    assert len(await world.stored("DocumentReference", patient=owner.patient)) == 32


async def test_a_new_patient_has_a_head_from_the_first_commit_on(world: World) -> None:
    made = await world.operator.create(patient(generalPractitioner=[{"reference": "https://rpps.example/Practitioner/1"}]))
    head = (await world.stored("heads", _id=made["id"]))[0]
    stored = (await world.stored("Patient", _id=made["id"]))[0]
    assert (head["commit"], stored["commit"], stored["patient"]) == (1, 1, made["id"])
    assert head["care_team"] == ["https://rpps.example/Practitioner/1"]


async def test_what_belongs_to_nobody_is_ordered_by_its_type(world: World, peer: World) -> None:
    operators = [world.operator, peer.bearer(world.operator)]
    peer.clock.ahead = timedelta(minutes=-5)
    await world.operator.create(organization())
    before = (await world.stored("heads", _id="Organization"))[0]["commit"]
    answers = await asyncio.gather(*(operators[n % 2].post("Organization", organization()) for n in range(20)))
    assert {a.status_code for a in answers} == {201}, [a.text for a in answers if a.status_code != 201]
    found = await world.stored("Organization", commit={"$gt": before})
    moments = {d["commit"]: d["updated"] for d in sorted(found, key=lambda d: d["commit"])}
    assert list(moments) == list(range(before + 1, before + len(moments) + 1))
    times = list(moments.values())
    assert times == sorted(set(times))
    head = (await world.stored("heads", _id="Organization"))[0]
    assert (head["commit"], head["updated"]) == (before + len(moments), times[-1])


async def test_transactions_over_several_records_in_any_order_all_succeed(world: World, peer: World) -> None:
    doctor = await world.professional()
    owners = [await world.patient() for _ in range(3)]
    doctors = [doctor, peer.bearer(doctor)]

    async def write(n: int) -> httpx.Response:
        order = owners[n % 3 :] + owners[: n % 3]
        entries = [entry("POST", "Observation", observation(owner.patient)) for owner in order]
        return await doctors[n % 2].post("", bundle("transaction", *entries))

    answers = await asyncio.gather(*(write(n) for n in range(24)))
    assert {a.status_code for a in answers} == {200}, [a.text for a in answers if a.status_code > 200]
    for owner in owners:
        await check_order(world, owner)
        assert len(await world.stored("Observation", patient=owner.patient)) == 24


async def test_wide_periods_are_marked_on_the_head(world: World) -> None:
    owner = await world.patient()
    period = {"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"}
    reading = {k: v for k, v in observation(owner.patient).items() if k != "effectiveDateTime"}
    assert "wide" not in (await world.stored("heads", _id=owner.patient))[0]
    await owner.create(reading | {"effectivePeriod": period})
    assert (await world.stored("heads", _id=owner.patient))[0]["wide"] == ["Observation"]
    found = await owner.search(f"Observation?patient={owner.patient}&date=ge2026-01-15")
    assert [r["effectivePeriod"] for r in found] == [period]


async def test_a_wide_period_is_found_in_the_transaction_that_brings_it(world: World) -> None:
    owner = await world.patient()
    period = {"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"}
    reading = {k: v for k, v in observation(owner.patient).items() if k != "effectiveDateTime"} | {"effectivePeriod": period}
    search = f"Observation?patient={owner.patient}&date=ge2026-01-15"
    answer = await owner.post("", bundle("transaction", entry("POST", "Observation", reading), entry("GET", search)))
    assert answer.status_code == 200, answer.text
    assert answer.json()["entry"][1]["resource"]["total"] == 1
