"""$changes: a feed of which nothing is missed and nothing comes twice, under the door of every search."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from tests.api.test_merge import merge
from tests.world import LOINC, Actor, World, bundle, entry, finding, issues, label, observation

Seen = list[tuple[str, str, int]]  # method, id and version


async def follow(actor: Actor, url: str) -> tuple[Seen, str]:
    """What a page tells, and where the next one is."""
    answer = await actor.get(url)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["type"] == "history"
    (following,) = [link["url"] for link in found["link"] if link["relation"] == "next"]
    return [_told(one) for one in found.get("entry", ())], following


def _told(one: Any) -> tuple[str, str, int]:
    version = int(one["response"]["etag"].strip('W/"'))
    assert ("resource" in one) == (one["request"]["method"] != "DELETE")
    return one["request"]["method"], one["fullUrl"].rpartition("/")[2], version


async def all_new(actor: Actor, url: str) -> tuple[Seen, str]:
    """Everything there is by now."""
    seen: Seen = []
    while True:
        page, url = await follow(actor, url)
        seen += page
        if not page:
            return seen, url


@pytest.fixture
async def camille(world: World) -> Actor:
    return await world.patient()


async def test_new_corrected_and_removed_come_once_each_in_their_order(camille: Actor) -> None:
    path = f"Observation/$changes?patient={camille.patient}"
    made = [(await camille.create(observation(camille.patient)))["id"] for _ in range(5)]
    seen, url = await all_new(camille, f"{path}&count=2")
    assert seen == [("POST", one, 1) for one in made]
    late = await camille.create(observation(camille.patient, effectiveDateTime="2026-11-17T08:00:00Z"))  # three days late
    changed = (await camille.get(f"Observation/{made[0]}")).json()
    assert (await camille.put(f"Observation/{made[0]}", {**changed, "status": "amended"})).status_code == 200
    assert (await camille.delete(f"Observation/{made[1]}")).status_code in (200, 204)
    seen, url = await all_new(camille, url)
    assert seen == [("POST", late["id"], 1), ("PUT", made[0], 2), ("DELETE", made[1], 2)]
    assert (await all_new(camille, url))[0] == []


async def test_one_commit_of_many_is_paged_without_loss(camille: Actor) -> None:
    readings = [entry("POST", "Observation", observation(camille.patient)) for _ in range(23)]
    answer = await camille.post("", bundle("transaction", *readings))
    made = {one["response"]["location"].split("/")[1] for one in answer.json()["entry"]}
    url = f"Observation/$changes?patient={camille.patient}&count=5"
    pages: list[Seen] = []
    while not pages or pages[-1]:
        page, url = await follow(camille, url)
        pages.append(page)
        url += "&count=5"
    assert [len(page) for page in pages] == [5, 5, 5, 5, 3, 0]
    ids = [one for page in pages for _, one, _ in page]
    assert (set(ids), len(ids)) == (made, len(made))


async def test_from_now_on(camille: Actor) -> None:
    await camille.create(observation(camille.patient))
    seen, url = await follow(camille, f"Observation/$changes?patient={camille.patient}&from=now")
    assert seen == []
    made = await camille.create(observation(camille.patient))
    assert (await all_new(camille, url))[0] == [("POST", made["id"], 1)]


async def test_it_is_filtered_as_a_search_is(camille: Actor) -> None:
    await camille.create(observation(camille.patient))
    other = await camille.create(finding(camille.patient))
    seen, _ = await all_new(camille, f"Observation/$changes?patient={camille.patient}&code={LOINC}%7C3141-9")
    assert seen == [("POST", other["id"], 1)]
    assert (await all_new(camille, "Observation/$changes"))[0][-1] == ("POST", other["id"], 1)  # of the token's patient


async def test_what_may_not_be_seen_is_not_in_it(world: World, camille: Actor) -> None:
    doctor = await world.professional()
    path = f"Observation/$changes?patient={camille.patient}"
    hidden = await follow(doctor, path)
    nobody = await follow(doctor, path[:-3] + "000")
    assert hidden[0] == nobody[0] == []
    assert len(hidden[1]) == len(nobody[1])
    calls = [await world.calls_of(lambda one=one: doctor.get(one)) for one in (path, path[:-3] + "000")]
    assert calls[0] == calls[1]
    await world.consent(camille, doctor, "access", ["Observation"])
    made = [(await camille.create(observation(camille.patient)))["id"] for _ in range(2)]
    deleted = await camille.create(observation(camille.patient, meta={"security": [label("R")]}))
    seen, url = await all_new(doctor, path)
    assert [one for _, one, _ in seen] == [*made, deleted["id"]]
    await world.consent(camille, doctor, "access", ["Observation"])  # it changes nothing of what he may see
    assert (await all_new(doctor, url))[0] == []


async def test_with_other_rights_it_begins_anew(world: World, camille: Actor) -> None:
    service = await world.service("user/Observation.rs")
    path = f"Observation/$changes?patient={camille.patient}"
    old = await camille.create(observation(camille.patient))
    seen, url = await follow(service, path)
    assert seen == []
    given = await world.consent(camille, service, "access", ["Observation"])
    answer = await service.get(url)
    assert (answer.status_code, issues(answer)[0]["code"], issues(answer)[0]["expression"]) == (410, "expired", ["cursor"])
    seen, url = await all_new(service, path)
    assert seen == [("POST", old["id"], 1)]
    await world.revoke(camille, given)
    assert (await service.get(url)).status_code == 410
    assert (await follow(service, path))[0] == []


async def test_a_cursor_is_for_its_feed_alone(world: World, camille: Actor) -> None:
    _, url = await follow(camille, "Observation/$changes")
    _, _, cursor = url.partition("cursor=")
    other = await world.patient()
    for actor, path, status in [
        (camille, f"Observation/$changes?cursor={cursor}&code=1", 400),
        (camille, f"Observation/$changes?cursor={cursor}&from=now", 400),
        (camille, "Observation/$changes?cursor=AAAA", 400),
        (camille, "Observation/$changes?cursor=%C3%A9", 400),
        (camille, f"DiagnosticReport/$changes?cursor={cursor}", 400),
        (camille, "Observation/$changes?count=0", 400),
        (camille, "Observation/$changes?from=yesterday", 400),
        (camille, f"Observation/$changes?patient={camille.patient},{other.patient}", 400),
        (camille, "Observation/$changes?colour=red", 400),
        (camille, "Patient/$changes", 404),
        (other, f"Observation/$changes?cursor={cursor}", 410),
    ]:
        answer = await actor.get(path)
        assert answer.status_code == status, (path, answer.text)
        assert issues(answer)


async def test_each_page_is_in_the_log_of_the_patient(world: World, camille: Actor) -> None:
    doctor = await world.professional()
    await follow(doctor, f"Observation/$changes?patient={camille.patient}")
    newest = (await camille.search("AuditEvent?_count=1"))[0]
    assert (newest["action"], newest["outcome"] != "0") == ("E", True)


async def test_nothing_is_lost_between_two_processes_that_write_and_two_that_read(
    world: World, peer: World, camille: Actor
) -> None:
    """Readings, corrections and deletions by ten writers at once, with clocks that differ, while two follow."""
    peer.clock.ahead = timedelta(seconds=-3)
    path = f"Observation/$changes?patient={camille.patient}"
    here, there = camille, peer.bearer(camille)
    done = asyncio.Event()
    dice = random.Random(7)

    async def write(actor: Actor, rounds: int) -> None:
        for _ in range(rounds):
            several = [entry("POST", "Observation", observation(camille.patient)) for _ in range(dice.randint(1, 4))]
            answer = await actor.post("", bundle("transaction", *several))
            assert answer.status_code == 200, answer.text
            one = answer.json()["entry"][0]["response"]["location"].split("/")[1]
            stored = (await actor.get(f"Observation/{one}")).json()
            assert (await actor.put(f"Observation/{one}", {**stored, "status": "amended"})).status_code == 200
            if dice.random() < 0.5:
                assert (await actor.delete(f"Observation/{one}")).status_code in (200, 204)

    async def read(actor: Actor) -> Seen:
        seen: Seen = []
        url = path
        while True:
            was_done = done.is_set()
            page, url = await follow(actor, url)
            seen += page
            if was_done and not page:
                return seen

    readers = [asyncio.create_task(read(actor)) for actor in (here, there)]
    await asyncio.gather(*(write(actor, 4) for actor in [here, there] * 5))
    done.set()
    stored = {one["_id"]: one for one in await world.stored("Observation", patient=camille.patient)}
    for seen in await asyncio.gather(*readers):
        assert len(seen) == len({(one, version) for _, one, version in seen})  # no version comes twice
        last = {one: (method, version) for method, one, version in seen}
        assert last.keys() == stored.keys()
        for one, document in stored.items():
            assert last[one] == ("DELETE" if document.get("deleted") else last[one][0], document["version"])


async def test_the_records_of_one_person_are_one_feed(world: World) -> None:
    new, old = await world.patient(), await world.patient()
    first = [(await one.create(observation(one.patient)))["id"] for one in (old, new, old)]
    _, url = await all_new(new, f"Observation/$changes?patient={new.patient}")
    await merge(world, new.patient, old.patient)
    assert (await new.get(url)).status_code == 410  # there is more to be seen
    seen, url = await all_new(new, f"Observation/$changes?patient={new.patient}&count=1")
    assert sorted(one for _, one, _ in seen) == sorted(first)
    made = await new.create(observation(new.patient))
    changed = (await new.get(f"Observation/{first[0]}")).json()
    assert (await new.put(f"Observation/{first[0]}", {**changed, "status": "amended"})).status_code == 200
    seen, _ = await all_new(new, url)
    assert sorted(seen) == sorted([("POST", made["id"], 1), ("PUT", first[0], 2)])
