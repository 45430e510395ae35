"""Index values that were made by an older file are renewed, while others write, and by a run that was cut off and goes on."""

from typing import Any

import pytest

from gateway.exchange import reindexing
from gateway.exchange.operations.readings import DAYS
from gateway.exchange.reindexing import reindex
from gateway.problem import Problem
from gateway.store.schema import META
from tests.world import LOINC, Actor, World, concept, observation, patient

MED = "https://smt.esante.gouv.fr/fhir/CodeSystem/terminologie-cisis|MED-969"
WEEK = [{"url": DAYS, "valueCodeableConcept": concept("urn:oid:1.2.4", "GEN-275")}]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindexing, "_AT_ONCE", 3)


def nothing(_: int, __: int) -> None:
    pass


async def run(world: World, type_name: str = "Observation", tell: Any = nothing) -> tuple[int, int]:
    return await reindex(world.gateway, type_name, "ops", tell, share=1)


async def found(owner: Actor) -> int:
    return len(await owner.search(f"Observation?code={MED}"))


async def age(world: World, collection: str = "Observation", **where: Any) -> list[dict[str, Any]]:
    """Store these as they were before the code had an equivalent, and dates were read; returns them as they were now."""
    now = await world.stored(collection, **where)
    for one in now:
        old = {k: v for k, v in one["search"].items() if k not in ("code", "date")} | {"code": [f"{LOINC}|99504-3", "99504-3"]}
        await world.gateway.mongo.change(collection, {"_id": one["_id"]}, {"$set": {"search": old}})
    return now


@pytest.fixture
async def camille(world: World) -> Actor:
    owner = await world.patient()
    for hour in range(8):
        await owner.create(observation(owner.patient, extension=WEEK, effectiveDateTime=f"2026-11-20T0{hour}:00:00Z"))
    return owner


async def test_what_is_stored_is_found_by_what_the_file_says_now(world: World, camille: Actor) -> None:
    first = (await camille.search("Observation?_count=1"))[0]
    assert (await camille.put(f"Observation/{first['id']}", first | {"status": "amended"})).status_code == 200
    gone = (await camille.search("Observation?_count=1&status=final"))[0]
    await camille.delete(f"Observation/{gone['id']}")
    before = await age(world, patient=camille.patient)
    formers = await age(world, "Observation_history", patient=camille.patient)
    assert await found(camille) == 0
    told: list[tuple[int, int]] = []
    looked_at, renewed = await run(world, tell=lambda *counts: told.append(counts))
    assert await found(camille) == 7
    assert renewed == 7 + len(formers)  # the tombstone keeps what it has
    assert (looked_at, told[-1]) == (told[-1][0], (looked_at, renewed))
    after = await world.stored("Observation", patient=camille.patient)
    assert [one for one in after if "body" in one] == [one for one in before if "body" in one]
    assert await world.stored("Observation_history", patient=camille.patient) == formers
    assert (await run(world))[1] == 0  # there is nothing left to renew
    assert await world.stored(META, _id="reindex Observation") == []


async def test_a_run_that_was_cut_off_goes_on(world: World, camille: Actor) -> None:
    await age(world, patient=camille.patient)
    total = len(await world.stored("Observation")) + len(await world.stored("Observation_history"))

    def cut(looked_at: int, _: int) -> None:
        if looked_at >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await run(world, tell=cut)
    looked_at, _ = await run(world)
    assert looked_at == total - 6
    assert await found(camille) == 8


async def test_one_with_another_file_begins_anew(world: World, camille: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(looked_at: int, _: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await run(world, tell=cut)
    monkeypatch.setattr(reindexing, "_fingerprint", lambda *_: b"another")
    total = len(await world.stored("Observation")) + len(await world.stored("Observation_history"))
    assert (await run(world))[0] == total


async def test_what_is_written_to_meanwhile_keeps_its_new_values(
    world: World, camille: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await age(world, patient=camille.patient)
    made = await camille.search("Observation?_count=8")
    changed: list[str] = []

    original = world.gateway.mongo.write

    async def write(step: Any, session: Any) -> None:
        if step.collection == "Observation" and not changed:
            target = next(one for one in made if any(w["_id"] == one["id"] for w, _ in step.updates))
            body = target | {"status": "amended"}
            assert (await camille.put(f"Observation/{target['id']}", body)).status_code == 200
            changed.append(target["id"])
        await original(step, session)

    monkeypatch.setattr(world.gateway.mongo, "write", write)
    await run(world)
    (one,) = await world.stored("Observation", _id=changed[0])
    assert one["search"]["status"] == ["amended"]
    assert await found(camille) == 8


async def test_records_that_come_to_hold_long_spans_are_searched_exactly(world: World) -> None:
    owner = await world.patient()
    period = {"effectivePeriod": {"start": "2026-01-01", "end": "2026-06-30"}}
    sent = {k: v for k, v in observation(owner.patient).items() if k != "effectiveDateTime"} | period
    await owner.create(sent)
    await age(world, patient=owner.patient)
    await world.gateway.mongo.change("heads", {"_id": owner.patient}, {"$unset": {"wide": 1}})
    assert await owner.search("Observation?date=2026-03") == []
    await run(world)
    assert len(await owner.search("Observation?date=ap2026-03")) == 1


async def test_it_leaves_a_trace_and_refuses_what_has_no_values(world: World) -> None:
    await world.operator.create(patient())
    assert (await run(world, "Patient"))[1] == 0
    events = [one["event"] for one in await world.stored("AuditEvent") if one["event"].get("interaction") == "$reindex"]
    assert [(one["client"], one["reason"]) for one in events][-1] == ("ops", "index values of Patient")
    for name in ("AuditEvent", "Nothing"):
        with pytest.raises(Problem):
            await run(world, name)
