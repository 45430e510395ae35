"""Hash chains over the audit: whatever is done to an event or a seal, the first broken link is named."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from gateway.fhir.balp import Event
from gateway.fhir.registry import Registry
from gateway.problem import Problem
from gateway.store import audit as audit_module
from gateway.store import chain
from gateway.store.audit import AuditWriter
from gateway.store.chain import find_broken_link, seal_for_the_dead
from gateway.store.ids import Ids
from gateway.store.mongo import Mongo, Stale
from gateway.store.schema import SEALS, WRITERS, required_indexes
from tests.world import SECRET, unique

NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


@pytest.fixture
async def mongo(mongo_url: str, registry: Registry) -> AsyncIterator[Mongo]:
    """A database that holds nothing but the audit."""
    mongo = Mongo(mongo_url, unique("audit"), "motor")
    for name in ("AuditEvent", SEALS, WRITERS):
        await mongo.create_collection(name)
        for index in required_indexes(registry):
            if index.collection == name and "writer" in index.name:
                await mongo.create_index(name, list(index.keys), index.name, **index.options)
    yield mongo
    await mongo.close()


async def opened(mongo: Mongo, now: datetime = NOW) -> AuditWriter:
    writer = AuditWriter(mongo, Ids(SECRET))
    await writer.open(now)
    return writer


def event(reference: str = "Observation/abc-1") -> Event:
    return Event(
        interaction="read",
        type="Observation",
        patient="abc-camille",
        outcome="0",
        client="medisoft",
        kind="professional",
        user="Practitioner/abc-martin",
        purpose=None,
        token="0123456789abcdef",
        request_id="r-1",
        address="192.0.2.1",
        entities=(reference,),
    )


async def three_seals(mongo: Mongo, writer: AuditWriter) -> None:
    """Nine events, three to a seal."""
    for seal in range(3):
        for n in range(3):
            await writer.record([event(f"Observation/abc-{seal}{n}")], NOW)
        await writer.seal(NOW)


async def test_an_untouched_chain_holds(mongo: Mongo) -> None:
    writer = await opened(mongo)
    await three_seals(mongo, writer)
    assert await find_broken_link(mongo, LATER) == (9, None)
    await writer.close(NOW)
    assert await find_broken_link(mongo, LATER) == (9, None)


async def _edit(mongo: Mongo, name: str) -> None:
    await mongo.change("AuditEvent", {"writer": name, "n": 5}, {"$set": {"event.outcome": "8"}})


async def _delete(mongo: Mongo, name: str) -> None:
    await mongo.delete("AuditEvent", {"writer": name, "n": 5})


async def _reorder(mongo: Mongo, name: str) -> None:
    for old, new in ((4, 1_000), (5, 4), (1_000, 5)):
        await mongo.change("AuditEvent", {"writer": name, "n": old}, {"$set": {"n": new}})


async def _insert(mongo: Mongo, name: str, **changes: object) -> None:
    forged = await mongo.find_one("AuditEvent", {"writer": name, "n": 9}) or {}
    forged |= {"_id": "abc-forged", "n": 10} | changes
    await mongo.insert("AuditEvent", [{k: v for k, v in forged.items() if v is not None}])


async def _insert_a_text(mongo: Mongo, name: str) -> None:
    await _insert(mongo, name, n="ten")


async def _insert_for_a_stranger(mongo: Mongo, name: str) -> None:
    await _insert(mongo, name, writer="zzz-nobody")


async def _insert_for_nobody(mongo: Mongo, name: str) -> None:
    await _insert(mongo, name, writer=None)


async def _change_the_hash(mongo: Mongo, name: str) -> None:
    await mongo.change(SEALS, {"writer": name, "number": 2}, {"$set": {"hash": bytes(32)}})


async def _change_the_links(mongo: Mongo, name: str) -> None:
    await mongo.change(SEALS, {"writer": name, "number": 2}, {"$set": {"links": bytes(24)}})


async def _lengthen_the_links(mongo: Mongo, name: str) -> None:
    seal = await mongo.find_one(SEALS, {"writer": name, "number": 2}) or {}
    await mongo.change(SEALS, {"writer": name, "number": 2}, {"$set": {"links": bytes(seal["links"]) + bytes(8)}})


async def _delete_a_seal(mongo: Mongo, name: str) -> None:
    await mongo.delete(SEALS, {"writer": name, "number": 2})


async def _delete_the_last_seal(mongo: Mongo, name: str) -> None:
    await mongo.delete(SEALS, {"writer": name, "number": 3})


async def _cut_off_the_end(mongo: Mongo, name: str) -> None:
    await mongo.delete(SEALS, {"writer": name, "number": 3})
    await mongo.delete("AuditEvent", {"writer": name, "n": {"$gt": 6}})


async def _forget_the_process(mongo: Mongo, name: str) -> None:
    await mongo.delete(WRITERS, {"_id": name})


@pytest.mark.requirement("AUD-07")
@pytest.mark.parametrize(
    ("tamper", "sound", "said"),
    [
        (_edit, 4, "seal 2: event 5 ("),
        (_delete, 4, "seal 2: event 5 is missing"),
        (_reorder, 3, "seal 2: event 4 ("),
        (_insert, 9, ": event 10 (abc-forged) was never sealed"),
        (_insert_a_text, 9, ": event ten (abc-forged) was never sealed"),
        (_insert_for_a_stranger, 9, "writer zzz-nobody: is no process of the gateway"),
        (_insert_for_nobody, 0, "there is an event of no writer"),
        (_change_the_hash, 6, "seal 2: the seal itself was changed"),
        (_change_the_links, 3, "seal 2: event 4 ("),
        (_lengthen_the_links, 6, "seal 2: the seal itself was changed"),
        (_delete_a_seal, 3, "seal 2: is missing"),
        (_delete_the_last_seal, 6, "seal 3: is missing"),
        (_cut_off_the_end, 6, "seal 3: is missing"),
        (_forget_the_process, 0, ": is no process of the gateway"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_the_first_broken_link_is_named(
    mongo: Mongo, tamper: Callable[[Mongo, str], Awaitable[None]], sound: int, said: str
) -> None:
    writer = await opened(mongo)
    await three_seals(mongo, writer)
    await writer.close(NOW)
    await tamper(mongo, writer._writer)
    count, broken = await find_broken_link(mongo, LATER)
    assert broken is not None
    assert said in broken
    assert count == sound


async def test_a_whole_chain_that_was_cut_off_shows_against_the_log(mongo: Mongo) -> None:
    writer = await opened(mongo)
    await writer.record([event()], NOW)
    logged = await writer.close(NOW)
    assert await find_broken_link(mongo, LATER, logged) == (1, None)
    for collection, where in (("AuditEvent", {}), (SEALS, {}), (WRITERS, {})):
        await mongo.delete(collection, where)
    assert await find_broken_link(mongo, LATER) == (0, None)
    _, broken = await find_broken_link(mongo, LATER, logged)
    assert broken == f"writer {writer._writer}, seal 1: is missing"


async def test_a_chain_that_was_made_anew_shows_against_the_log(mongo: Mongo) -> None:
    writer = await opened(mongo)
    await writer.record([event()], NOW)
    [(name, number, digest)] = await writer.seal(NOW)
    other = "00" * 32
    assert await find_broken_link(mongo, LATER, [(name, number, digest)]) == (1, None)
    _, broken = await find_broken_link(mongo, LATER, [(name, number, other)])
    assert broken == f"writer {name}, seal 1: is not the one that was logged"


async def test_a_recent_event_may_still_wait_and_an_old_one_may_not(mongo: Mongo) -> None:
    writer = await opened(mongo)
    await writer.record([event()], NOW)
    assert await find_broken_link(mongo, NOW + timedelta(seconds=50)) == (0, None)
    await mongo.change(WRITERS, {"_id": writer._writer}, {"$set": {"alive": LATER}})
    _, broken = await find_broken_link(mongo, LATER)
    assert broken is not None
    assert broken.endswith("was never sealed")


@pytest.mark.requirement("REL-010")
async def test_others_seal_for_a_process_that_died(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "MOST_IN_SEAL", 2)
    writer = await opened(mongo)
    await writer.record([event()], NOW)
    await writer.seal(NOW)
    await writer.record([event(f"Observation/abc-{n}") for n in range(5)], NOW)  # and is never heard of again
    _, broken = await find_broken_link(mongo, LATER)
    assert broken is not None
    assert "event 2 (" in broken
    assert broken.endswith("its process died, and no other has sealed for it")
    assert await seal_for_the_dead(mongo, NOW + timedelta(seconds=30)) == []
    made = await seal_for_the_dead(mongo, LATER)
    assert [(name, number) for name, number, _ in made] == [(writer._writer, number) for number in (2, 3, 4)]
    assert await find_broken_link(mongo, LATER) == (6, None)
    assert await seal_for_the_dead(mongo, LATER) == []


async def test_two_processes_seal_for_the_same_dead_one_at_once(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "MOST_IN_SEAL", 3)
    writer = await opened(mongo)
    await writer.record([event(f"Observation/abc-{n}") for n in range(20)], NOW)
    for _ in range(3):
        await asyncio.gather(*(seal_for_the_dead(mongo, LATER) for _ in range(4)))
    assert await mongo.count(SEALS, {}) == 7
    assert await find_broken_link(mongo, LATER) == (20, None)


async def test_a_process_taken_for_dead_goes_on_behind_the_seals_of_the_others(mongo: Mongo) -> None:
    writer = await opened(mongo)
    await writer.record([event()], NOW)
    await seal_for_the_dead(mongo, LATER)
    await writer.record([event()], LATER)
    assert [number for _, number, _ in await writer.seal(LATER)] == [2]
    assert await mongo.find(WRITERS, {"ended": {"$exists": True}}) == []
    assert await find_broken_link(mongo, LATER) == (2, None)


@pytest.mark.parametrize("arrives", [True, False], ids=["and the seal is there", "and it is not"])
async def test_sealing_that_broke_off_is_taken_up(mongo: Mongo, monkeypatch: pytest.MonkeyPatch, arrives: bool) -> None:
    writer = await opened(mongo)
    await writer.record([event()], NOW)
    insert = mongo.insert

    async def broken_off(collection: str, documents: list[object], session: object = None) -> None:
        if arrives:
            await insert(collection, documents)  # type: ignore[arg-type]
        raise Problem("transient", "the store cannot be reached at the moment")

    monkeypatch.setattr(mongo, "insert", broken_off)
    with pytest.raises(Problem):
        await writer.seal(NOW)
    monkeypatch.undo()
    await writer.record([event()], NOW)
    await writer.seal(NOW)
    assert await find_broken_link(mongo, NOW) == (2, None)


@pytest.mark.parametrize("arrives", [True, False], ids=["and the event is there", "and it is not"])
async def test_an_event_whose_writing_broke_off_is_sealed_if_it_is_there(
    mongo: Mongo, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    writer = await opened(mongo)
    insert = mongo.insert

    async def broken_off(collection: str, documents: list[object], session: object = None) -> None:
        if arrives:
            await insert(collection, documents)  # type: ignore[arg-type]
        raise Problem("transient", "the store cannot be reached at the moment")

    monkeypatch.setattr(mongo, "insert", broken_off)
    with pytest.raises(Problem) as refused:
        await writer.record([event()], NOW)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})
    monkeypatch.undo()
    await writer.seal(NOW)
    assert await mongo.count(SEALS, {}) == 0
    await writer.seal(LATER)
    assert await find_broken_link(mongo, LATER) == (int(arrives), None)


async def test_what_waits_to_be_sealed_is_bounded(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "_MOST_WAITING", 3)
    writer = await opened(mongo)
    await writer.record([event()] * 4, NOW)
    with pytest.raises(Problem) as refused:
        await writer.record([event()], NOW)
    assert refused.value.status == 503
    await writer.seal(NOW)
    await writer.record([event()], NOW)
    assert await mongo.count("AuditEvent", {}) == 5


async def test_two_gateways_write_at_once(mongo: Mongo) -> None:
    writers = [await opened(mongo) for _ in range(2)]

    async def work(writer: AuditWriter) -> None:
        for _ in range(20):
            await asyncio.gather(*(writer.record([event()], NOW) for _ in range(5)))
            await writer.seal(NOW)

    await asyncio.gather(*map(work, writers))
    assert await find_broken_link(mongo, LATER) == (200, None)


async def test_a_seal_costs_the_same_however_many_events_there_are(mongo: Mongo) -> None:
    writer = await opened(mongo)
    calls: list[int] = []
    for _ in range(3):
        await writer.record([event() for _ in range(200)], NOW)
        before = mongo.calls
        await writer.seal(NOW)
        calls.append(mongo.calls - before)
    assert calls == [2, 2, 2]  # the seal, and the sign of life


async def test_verifying_holds_a_part_of_a_seal_in_memory_at_most(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = await opened(mongo)
    await writer.record([event() for _ in range(1_000)], NOW)
    await writer.close(NOW)
    sizes: list[int] = []
    find = mongo.find

    async def counting(*args: object, **options: object) -> list[object]:
        found = await find(*args, **options)  # type: ignore[arg-type]
        sizes.append(len(found))
        return found  # type: ignore[return-value]

    monkeypatch.setattr(mongo, "find", counting)
    assert await find_broken_link(mongo, LATER) == (1_000, None)
    assert max(sizes) == 256


async def test_numbers_keep_one_bit_for_each() -> None:
    numbers = chain._Numbers()
    for n in (1, 7, 8, 9_000_001):
        numbers.add(n)
    assert [n for n in (0, 1, 2, 7, 8, 9, 9_000_000, 9_000_001, 99_000_000, -1, 1.5, "1") if n in numbers] == [
        1,
        7,
        8,
        9_000_001,
    ]


async def test_an_event_number_is_given_once(mongo: Mongo) -> None:
    writer = await opened(mongo)
    await writer.record([event()], NOW)
    again = (await mongo.find("AuditEvent", {}))[0] | {"_id": "abc-other"}
    with pytest.raises(Stale):
        await mongo.insert("AuditEvent", [again])
