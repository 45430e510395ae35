"""The history of an instance: every version, newest first, deletions included, in pages."""

from typing import Any

import pytest

from tests.world import BASE, Actor, World, issues, observation


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


async def reading_with_versions(camille: Actor, versions: int) -> dict[str, Any]:
    stored = await camille.create(observation(camille.patient))
    for n in range(2, versions + 1):
        changed = {**stored, "note": [{"text": f"version {n}"}]}
        assert (await camille.put(f"Observation/{stored['id']}", changed)).status_code == 200
    return stored


@pytest.mark.requirement("CORE-09")
async def test_every_version_newest_first(camille: Actor) -> None:
    stored = await reading_with_versions(camille, 2)
    await camille.delete(f"Observation/{stored['id']}")
    answer = await camille.get(f"Observation/{stored['id']}/_history")
    assert answer.status_code == 200
    history = answer.json()
    assert (history["resourceType"], history["type"]) == ("Bundle", "history")
    address = f"Observation/{stored['id']}"
    said = [
        (e["fullUrl"], e["request"], e["response"]["status"], e["response"]["etag"], "resource" in e) for e in history["entry"]
    ]
    assert said == [
        (f"{BASE}/{address}", {"method": "DELETE", "url": address}, "204", 'W/"3"', False),
        (f"{BASE}/{address}", {"method": "PUT", "url": address}, "200", 'W/"2"', True),
        (f"{BASE}/{address}", {"method": "POST", "url": "Observation"}, "201", 'W/"1"', True),
    ]
    assert history["entry"][2]["resource"] == stored
    assert history["entry"][2]["response"]["lastModified"] == stored["meta"]["lastUpdated"]
    moments = [e["response"]["lastModified"] for e in history["entry"]]
    assert moments == sorted(moments, reverse=True)
    assert len(set(moments)) == 3


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
async def test_pages_lose_and_repeat_nothing(camille: Actor, count: int) -> None:
    stored = await reading_with_versions(camille, 7)
    url: str | None = f"Observation/{stored['id']}/_history?_count={count}"
    seen: list[str] = []
    while url:
        page = (await camille.get(url)).json()
        links = {link["relation"]: link["url"] for link in page["link"]}
        assert links["self"].endswith(url.removeprefix(f"{BASE}/"))
        assert 1 <= len(page["entry"]) <= count
        seen += [e["response"]["etag"] for e in page["entry"]]
        url = links.get("next")
    assert seen == [f'W/"{n}"' for n in range(7, 0, -1)]


@pytest.mark.parametrize(
    ("query", "code", "name"),
    [
        ("_count=0", "invalid", "_count"),
        ("_count=-1", "invalid", "_count"),
        ("_count=x", "invalid", "_count"),
        ("_count=1e3", "invalid", "_count"),
        ("_count=1&_count=2", "invalid", "_count"),
        ("_before=x", "invalid", "_before"),
        ("_since=2026", "not-supported", "_since"),
        ("foo=bar", "not-supported", "foo"),
    ],
)
async def test_parameters_that_are_not_understood(camille: Actor, query: str, code: str, name: str) -> None:
    stored = await reading_with_versions(camille, 1)
    answer = await camille.get(f"Observation/{stored['id']}/_history?{query}")
    assert answer.status_code == 400
    assert (issues(answer)[0]["code"], issues(answer)[0]["expression"]) == (code, [name])


async def test_a_history_of_others_is_no_history(world: World, camille: Actor) -> None:
    stranger = await world.patient()
    stored = await reading_with_versions(camille, 2)
    for query in ("", "?_count=1", "?_before=2", "?_count=1&_before=9"):
        answers = [await stranger.get(f"Observation/{i}/_history{query}") for i in (stored["id"], "abc-0000000000000000")]
        assert {answer.status_code for answer in answers} == {404}
        assert answers[0].content == answers[1].content
