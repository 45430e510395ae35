"""Paging: every match once, whatever happens to the record meanwhile, and cursors that carry no right."""

import asyncio
import base64
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.conftest import packaged
from tests.examples import TYPES, bring, writer_of
from tests.world import BASE, Actor, World, bundle, document, entry, expression, finding, issues, observation

REGISTRY = packaged().registry


def next_link(page: dict[str, Any]) -> str | None:
    return next((link["url"] for link in page["link"] if link["relation"] == "next"), None)


async def read_page(actor: Actor, url: str) -> dict[str, Any]:
    answer = await actor.get(url)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def walk(actor: Actor, url: str) -> list[str]:
    """The ids on all pages, in order."""
    found: list[str] = []
    following: str | None = url
    while following:
        page = await read_page(actor, following)
        found += [one["resource"]["id"] for one in page.get("entry", ())]
        following = next_link(page)
    return found


async def push(owner: Actor, count: int, **elements: Any) -> list[str]:
    """Readings, minutes apart, in one transaction; their ids."""
    readings = [
        observation(owner.patient, effectiveDateTime=f"2026-10-{n // 1440 + 1:02d}T{n // 60 % 24:02d}:{n % 60:02d}:00Z")
        | elements
        for n in range(count)
    ]
    answer = await owner.post("", bundle("transaction", *(entry("POST", "Observation", one) for one in readings)))
    assert answer.status_code == 200, answer.text
    return [one["response"]["location"].split("/")[1] for one in answer.json()["entry"]]


@pytest.mark.requirement("SRCH-02")
async def test_a_thousand_readings_are_paged_through_without_duplicate_or_gap(world: World) -> None:
    owner = await world.patient()
    pushed = await push(owner, 1_000)
    newest_first = await walk(owner, f"Observation?patient={owner.patient}&_count=100")
    assert newest_first == pushed[::-1]
    assert await walk(owner, f"Observation?patient={owner.patient}&_count=200") == newest_first
    assert await walk(owner, "Observation?_sort=date&_count=7&code=99504-3") == pushed
    by_id = await walk(owner, "Observation?_sort=_id&_count=200")
    assert by_id == sorted(pushed)
    # All were stored in one moment: only the id tells them apart.
    assert sorted(await walk(owner, "Observation?_sort=-_lastUpdated&_count=90")) == by_id


@pytest.mark.requirement("SRCH-03")
@pytest.mark.parametrize("sort", ["date", "-date", "_id", "-_id"])
async def test_pages_stay_whole_while_the_record_changes(world: World, sort: str) -> None:
    owner = await world.patient()
    known = await push(owner, 60)
    changed, deleted = set(known[5::12]), set(known[8::12])
    untouched = set(known) - deleted
    seen: list[str] = []
    url: str | None = f"Observation?_sort={sort}&_count=10"
    to_change, to_delete = sorted(changed), sorted(deleted)
    while url:
        page = await read_page(owner, url)
        seen += [one["resource"]["id"] for one in page["entry"]]
        for identifier in to_change[:2]:
            now = (await owner.get(f"Observation/{identifier}")).json()
            assert (await owner.put(f"Observation/{identifier}", {**now, "status": "amended"})).status_code == 200
        if to_delete:
            assert (await owner.delete(f"Observation/{to_delete.pop()}")).status_code == 204
        del to_change[:2]
        for moment in ("2020-01-01", "2026-10-01T00:30:30Z", "2030-01-01"):
            await owner.create(finding(owner.patient, effectiveDateTime=moment))
        url = next_link(page)
    assert max(Counter(seen).values()) == 1
    assert untouched <= set(seen)


@pytest.mark.requirement("SRCH-03")
async def test_a_page_ends_where_its_last_resource_was_even_if_that_is_gone(world: World) -> None:
    owner = await world.patient()
    known = await push(owner, 9)
    page = await read_page(owner, "Observation?_sort=date&_count=3")
    for identifier in known[:4]:
        await owner.delete(f"Observation/{identifier}")
    assert await walk(owner, next_link(page) or "") == known[4:]


@pytest.mark.requirement("SRCH-07")
async def test_polling_by_last_update_loses_nothing_under_concurrent_writers(world: World, peer: World) -> None:
    """Two processes write, the clock of one is slow."""
    owner = await world.patient()
    elsewhere = replace(owner, http=peer.http)
    peer.clock.ahead = timedelta(seconds=-2)
    written: set[str] = set()
    ended = asyncio.Event()

    async def write(owner: Actor, count: int) -> None:
        for n in range(count):
            if n % 4:
                stored = await owner.create(observation(owner.patient))
                written.add(f"{stored['id']}/1")
            else:
                written.update(f"{identifier}/1" for identifier in await push(owner, 12))
            if n % 5 == 4:
                changed = await owner.put(f"Observation/{stored['id']}", {**stored, "status": "amended"})
                written.add(f"{stored['id']}/{changed.json()['meta']['versionId']}")

    async def poll() -> tuple[set[str], int]:
        seen: Counter[str] = Counter()
        since = ""
        while True:
            last_round = ended.is_set()
            url: str | None = (
                f"Observation?patient={owner.patient}&_sort=_lastUpdated&_count=5{since and f'&_lastUpdated=gt{since}'}"
            )
            latest = ""
            while url:
                page = await read_page(owner, url)
                for one in page.get("entry", ()):
                    resource = one["resource"]
                    seen[f"{resource['id']}/{resource['meta']['versionId']}"] += 1
                    latest = max(latest, resource["meta"]["lastUpdated"])
                url = next_link(page)
            since = latest or since
            if last_round:
                return set(seen), max(seen.values())

    polling = asyncio.create_task(poll())
    await asyncio.gather(*(write(actor, 10) for actor in (owner, elsewhere) for _ in range(3)))
    ended.set()
    seen, most = await polling
    # A version that was replaced before anybody looked is not in a search any more; each last version is.
    lasting = {name for name in written if f"{name.rpartition('/')[0]}/2" not in written or name.endswith("/2")}
    assert lasting <= seen
    assert most == 1


@pytest.mark.requirement("SRCH-07")
async def test_last_update_is_compared_to_the_millisecond(world: World) -> None:
    owner = await world.patient()
    stored = [await owner.create(observation(owner.patient)) for _ in range(3)]
    moments = [one["meta"]["lastUpdated"] for one in stored]
    assert len(set(moments)) == 3
    ids = [one["id"] for one in stored]
    for prefix, expected in {
        "gt": ids[2:],
        "ge": ids[1:],
        "lt": ids[:1],
        "le": ids[:2],
        "eq": ids[1:2],
        "": ids[1:2],
        "ne": [ids[0], ids[2]],
        "sa": ids[2:],
        "eb": ids[:1],
    }.items():
        assert await walk(owner, f"Observation?_sort=_lastUpdated&_lastUpdated={prefix}{moments[1]}") == expected, prefix
    # A second holds all its milliseconds.
    assert set(ids) <= set(await walk(owner, f"Observation?_lastUpdated=ge{moments[0][:19]}Z"))


@pytest.mark.requirement("SRCH-07")
@pytest.mark.parametrize("name", [name for name in TYPES if "create" in REGISTRY[name].interactions])
async def test_every_type_is_polled_by_when_it_was_last_changed(world: World, name: str) -> None:
    owner = await world.patient()
    first, second = [await bring(world, name, owner) for _ in range(2)]
    reader = world.operator if REGISTRY[name].group in ("identity", "directory") else owner
    both = f"{name}?_id={first['id']},{second['id']}&_sort=_lastUpdated"
    seen, last = (one["meta"]["lastUpdated"] for one in (first, second))
    assert seen < last
    assert await walk(reader, f"{both}&_lastUpdated=gt{seen}") == [second["id"]]
    assert await walk(reader, f"{both}&_lastUpdated=ge{seen}") == [first["id"], second["id"]]
    assert await walk(reader, f"{both}&_lastUpdated=gt{last}") == []
    changer = writer_of(world, REGISTRY[name], owner)
    other = {"language": "fr"} if REGISTRY[name].lifecycle is None else {"status": "superseded"}
    changed = (await changer.put(f"{name}/{first['id']}", {**first, **other})).json()
    assert await walk(reader, f"{both}&_lastUpdated=gt{last}") == [first["id"]]
    assert changed["meta"]["lastUpdated"] > last


async def test_a_page_of_large_resources_is_whole(world: World) -> None:
    """More than the 16 MB that the database puts into one batch."""
    owner = await world.patient()
    attachment = {"contentType": "text/plain", "data": "SGVsbG8g" * 250_000}
    stored = [
        (await owner.create(document(owner.patient, content=[{"attachment": attachment}]), Prefer="return=representation"))[
            "id"
        ]
        for _ in range(10)
    ]
    page = await read_page(owner, f"DocumentReference?patient={owner.patient}&_sort=_id&_count=20")
    assert [one["resource"]["id"] for one in page["entry"]] == sorted(stored)


async def first_cursor(actor: Actor, search: str) -> str:
    following = next_link(await read_page(actor, search))
    assert following is not None
    return following.partition("_cursor=")[2]


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    owner = await session_world.patient()
    await push(owner, 6)
    return owner


async def test_a_cursor_shows_nothing_of_the_search(camille: Actor) -> None:
    page = await read_page(camille, f"Observation?patient={camille.patient}&code=99504-3&_count=2")
    following = next_link(page) or ""
    cursor = following.partition("_cursor=")[2]
    assert following == f"{BASE}/Observation?_cursor={cursor}"
    plain = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for value in (camille.patient, "99504-3", page["entry"][-1]["resource"]["id"], "2026-10"):
        assert value.encode() not in plain
        assert value not in cursor


@pytest.mark.requirement("ATK-T23")
async def test_a_tampered_cursor_is_refused(camille: Actor) -> None:
    cursor = await first_cursor(camille, "Observation?_count=2")
    places = range(0, len(cursor) - 1, 7)  # the last character may hold unused bits
    tampered = [cursor[:n] + ("A" if cursor[n] != "A" else "B") + cursor[n + 1 :] for n in places]
    for text in [*tampered, cursor[:-8], cursor[8:], cursor * 2, "", "x", "A" * 16, "A" * 4_000, "%00", "%F0%9F%8E%88"]:
        answer = await camille.get(f"Observation?_cursor={text}")
        assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (400, "invalid", "_cursor")


async def test_another_process_goes_on_with_it(camille: Actor, peer: World) -> None:
    cursor = await first_cursor(camille, "Observation?_count=2")
    elsewhere = replace(camille, http=peer.http)
    page = f"Observation?_cursor={cursor}"
    assert (await read_page(elsewhere, page))["entry"] == (await read_page(camille, page))["entry"]


async def test_a_cursor_belongs_to_its_type(camille: Actor) -> None:
    cursor = await first_cursor(camille, "Observation?_count=2")
    for type_name in ("DocumentReference", "Patient", "AuditEvent"):
        answer = await camille.get(f"{type_name}?_cursor={cursor}")
        assert (answer.status_code, expression(answer)) == (400, "_cursor")


async def test_a_cursor_goes_with_nothing_else(camille: Actor) -> None:
    cursor = await first_cursor(camille, "Observation?_count=2")
    for more in ("_count=50", "code=x", f"_cursor={cursor}", "foo=bar"):
        answer = await camille.get(f"Observation?_cursor={cursor}&{more}")
        assert (answer.status_code, expression(answer)) == (400, "_cursor")
    assert (await camille.get(f"Observation?_cursor={cursor}&_format=json")).status_code == 200


@pytest.mark.requirement("ATK-T23", "EXT-06")
async def test_a_cursor_in_other_hands_opens_nothing(world: World, camille: Actor) -> None:
    cursor = await first_cursor(camille, f"Observation?patient={camille.patient}&_count=2")
    page = f"Observation?_cursor={cursor}"
    stranger, doctor = await world.patient(), await world.professional()
    for other in (stranger, doctor):
        assert (await read_page(other, page)).get("entry") is None
    narrow = await world.patient_actor(camille.patient, "patient/Device.rs")
    assert (await narrow.get(page)).status_code == 403
    assert (await world.http.get(f"{BASE}/{page}")).status_code == 401
    given = await world.consent(camille, doctor, "access", ["Observation"])
    assert len((await read_page(doctor, page))["entry"]) == 2
    await world.revoke(camille, given)
    assert (await read_page(doctor, page)).get("entry") is None


@pytest.mark.requirement("EXT-06")
async def test_revoking_between_two_pages_ends_the_paging(world: World, camille: Actor) -> None:
    doctor = await world.professional()
    given = await world.consent(camille, doctor, "access", ["Observation"])
    page = await read_page(doctor, f"Observation?patient={camille.patient}&_count=2")
    await world.revoke(camille, given)
    after = await read_page(doctor, next_link(page) or "")
    assert (after.get("entry"), after.get("total"), next_link(after)) == (None, None, None)


async def test_a_cursor_still_holds_when_its_resource_is_gone_or_hidden(world: World) -> None:
    owner = await world.patient()
    known = await push(owner, 4)
    page = await read_page(owner, "Observation?_sort=date&_count=1")
    await owner.delete(f"Observation/{known[0]}")
    assert await walk(owner, next_link(page) or "") == known[1:]


async def test_a_link_that_could_not_be_followed_is_not_given(world: World, camille: Actor) -> None:
    """A cursor holds the search; one that is too long for a URL is refused, unless all fits on one page."""
    values = ",".join(["99504-3", *(f"{n:0150d}" for n in range(49))])
    search = f"Observation?code={values}"
    assert len(search) < world.gateway.limits.url_bytes
    assert len((await read_page(camille, f"{search}&_count=6"))["entry"]) == 6
    answer = await camille.get(f"{search}&_count=5")
    assert (answer.status_code, issues(answer)[0]["code"]) == (400, "too-costly")


async def test_a_lenient_search_is_paged_without_what_it_ignored(camille: Actor) -> None:
    answer = await camille.get("Observation?foo=bar&_sort=date&_count=2", Prefer="handling=lenient")
    following = next_link(answer.json()) or ""
    strict = await camille.get(following)  # the cursor holds only what was understood
    assert strict.status_code == 200
    assert len(strict.json()["entry"]) == 2


async def test_paging_needs_no_more_than_the_link(camille: Actor) -> None:
    """`next` is absolute and complete: it can be fetched as it stands."""
    following: str | None = next_link(await read_page(camille, "Observation?_count=4"))
    answer: httpx.Response = await camille.http.get(following or "", headers={"Authorization": f"Bearer {camille.token}"})
    assert len(answer.json()["entry"]) == 2
    assert next_link(answer.json()) is None
