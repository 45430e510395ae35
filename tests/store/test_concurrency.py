"""Writers at the same time: no update is lost, none is made twice, and each gets an answer of its own."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.world import Actor, World, bundle, device, entry, observation


async def versions_of(world: World, identifier: str) -> list[dict[str, Any]]:
    """Every stored version of an Observation, oldest first."""
    former = await world.stored("Observation_history", id=identifier)
    return sorted([*former, *await world.stored("Observation", _id=identifier)], key=lambda d: d["version"])


async def check_chain(world: World, identifier: str) -> int:
    """Versions are 1…n, each once, with growing times. Returns n."""
    found = await versions_of(world, identifier)
    assert [d["version"] for d in found] == list(range(1, len(found) + 1))
    times = [d["updated"] for d in found]
    assert times == sorted(set(times))
    return len(found)


@pytest.mark.requirement("CORE-06", "REL-003")
async def test_of_20_updates_with_the_same_if_match_exactly_one_wins(world: World, peer: World) -> None:
    owner = await world.patient()
    made = await owner.create(observation(owner.patient))
    actors = [owner, peer.bearer(owner)]
    asked = (
        actors[n % 2].put(f"Observation/{made['id']}", made | {"note": [{"text": str(n)}]}, If_Match='W/"1"') for n in range(20)
    )
    answers = await asyncio.gather(*asked)
    assert Counter(a.status_code for a in answers) == {200: 1, 412: 19}
    winner = next(a for a in answers if a.status_code == 200).json()
    assert (await owner.get(f"Observation/{made['id']}")).json() == winner
    assert await check_chain(world, made["id"]) == 2


@pytest.mark.requirement("REL-003")
async def test_readers_who_update_what_they_read_lose_nothing(world: World, peer: World) -> None:
    """Each adds one note to what it has read, and tries again where somebody was faster."""
    owner = await world.patient()
    made = await owner.create(observation(owner.patient, note=[]) | {"note": [{"text": "first"}]})
    address = f"Observation/{made['id']}"

    async def add(actor: Actor, text: str) -> None:
        for _ in range(60):
            read = await actor.get(address)
            changed = read.json() | {"note": [*read.json()["note"], {"text": text}]}
            answer = await actor.put(address, changed, If_Match=read.headers["ETag"])
            if answer.status_code == 200:
                return
            assert answer.status_code == 412
        raise AssertionError("never came to its turn")

    actors = [owner, peer.bearer(owner)]
    await asyncio.gather(*(add(actors[n % 2], str(n)) for n in range(12)))
    notes = [note["text"] for note in (await owner.get(address)).json()["note"]]
    assert sorted(notes) == sorted(["first", *map(str, range(12))])
    assert await check_chain(world, made["id"]) == 13


@pytest.mark.requirement("REL-003")
@pytest.mark.parametrize("many", [20, 64])
async def test_updates_without_if_match_all_succeed_and_leave_each_version_once(world: World, peer: World, many: int) -> None:
    owner = await world.patient()
    made = await owner.create(observation(owner.patient))
    actors = [owner, peer.bearer(owner)]
    asked = (actors[n % 2].put(f"Observation/{made['id']}", made | {"note": [{"text": str(n)}]}) for n in range(many))
    answers = await asyncio.gather(*asked)
    assert Counter(a.status_code for a in answers) == {200: many}
    assert sorted(int(a.json()["meta"]["versionId"]) for a in answers) == list(range(2, many + 2))
    assert await check_chain(world, made["id"]) == many + 1
    history = (await owner.get(f"Observation/{made['id']}/_history?_count=200")).json()["entry"]
    assert [e["resource"]["meta"]["versionId"] for e in history] == [str(n) for n in range(many + 1, 0, -1)]
    notes = [e["resource"]["note"][0]["text"] for e in history[:-1]]
    assert sorted(notes, key=int) == [str(n) for n in range(many)]


@pytest.mark.requirement("REL-003")
async def test_updates_that_race_with_a_delete_come_before_it_or_are_refused(world: World, peer: World) -> None:
    owner = await world.patient()
    made = await owner.create(observation(owner.patient))
    address = f"Observation/{made['id']}"
    other = peer.bearer(owner)
    updates = [(owner, other)[n % 2].put(address, made) for n in range(10)]
    answers = await asyncio.gather(*updates[:5], owner.delete(address), other.delete(address), *updates[5:])
    statuses = Counter(a.status_code for a in answers)
    assert statuses.keys() <= {200, 204, 410}
    assert statuses[204] == 2
    assert await check_chain(world, made["id"]) == 2 + statuses[200]
    stored = await versions_of(world, made["id"])
    assert [bool(d.get("deleted")) for d in stored] == [False] * (len(stored) - 1) + [True]
    assert (await owner.get(address)).status_code == 410


async def test_deletes_at_the_same_time_make_one_tombstone(world: World, peer: World) -> None:
    owner = await world.patient()
    made = await owner.create(observation(owner.patient))
    actors = [owner, peer.bearer(owner)]
    answers = await asyncio.gather(*(actors[n % 2].delete(f"Observation/{made['id']}") for n in range(10)))
    assert {a.status_code for a in answers} == {204}
    assert await check_chain(world, made["id"]) == 2


async def test_transactions_that_overlap_are_carried_out_one_after_the_other(world: World, peer: World) -> None:
    owner = await world.patient()
    kept = [await owner.create(observation(owner.patient)) for _ in range(3)]
    actors = [owner, peer.bearer(owner)]

    async def write(n: int) -> int:
        turned = kept[n % 3 :] + kept[: n % 3]
        entries = [entry("PUT", f"Observation/{k['id']}", k | {"note": [{"text": str(n)}]}) for k in turned]
        return (await actors[n % 2].post("", bundle("transaction", *entries))).status_code

    assert await asyncio.gather(*(write(n) for n in range(12))) == [200] * 12
    for made in kept:
        assert await check_chain(world, made["id"]) == 13
    # All or nothing: at every moment the three bore the same note.
    chains = [
        [(d["commit"], bytes(d["body"]).split(b'"note"')[-1]) for d in await versions_of(world, k["id"])][1:] for k in kept
    ]
    assert chains[0] == chains[1] == chains[2]


async def test_a_consent_taken_back_meanwhile_stops_the_next_write(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    given = await world.consent(owner, app, "collect", ["Observation"])
    await asyncio.gather(*(app.create(observation(owner.patient)) for _ in range(10)))
    await world.revoke(owner, given)
    answers = await asyncio.gather(*(app.post("Observation", observation(owner.patient)) for _ in range(10)))
    assert {a.status_code for a in answers} == {403}
    assert len(await world.stored("Observation", patient=owner.patient)) == 10


async def test_writers_of_many_records_at_once_each_write_their_own(world: World) -> None:
    owners = [await world.patient() for _ in range(8)]
    asked = [owner.create(observation(owner.patient)) for owner in owners for _ in range(8)]
    made = await asyncio.gather(*asked)
    assert len({r["id"] for r in made}) == 64
    for owner in owners:
        found = await world.stored("Observation", patient=owner.patient)
        assert len(found) == 8
        told = [str(e["event"]) for e in await world.stored("AuditEvent", patient=owner.patient)]
        assert all(any(d["_id"] in text for text in told) for d in found)


async def test_creates_and_updates_of_one_record_do_not_fail_each_other(world: World, peer: World) -> None:
    owner = await world.patient()
    sensor = await owner.create(device(owner.patient))
    other = peer.bearer(owner)
    creates = [(owner, other)[n % 2].post("Observation", observation(owner.patient)) for n in range(16)]
    updates = [(owner, other)[n % 2].put(f"Device/{sensor['id']}", sensor) for n in range(16)]
    answers = await asyncio.gather(*creates, *updates)
    assert Counter(a.status_code for a in answers) == {201: 16, 200: 16}
