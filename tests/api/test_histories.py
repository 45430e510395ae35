"""The histories of a type and of the whole system: for operators alone, whole however much is written meanwhile."""

from typing import Any

import httpx
import pytest

from gateway.store.mongo import Mongo
from tests.world import BASE, Actor, World, bundle, entry, expression, issues, organization, patient, related_person, unique


async def bring(world: World) -> list[dict[str, Any]]:
    """Two Patients and an Organization, of which the first Patient has three versions; all versions, newest first."""
    first = await world.operator.create(patient())
    second = await world.operator.create(patient())
    clinic = await world.operator.create(organization())
    versions = [first, second, clinic]
    for n in range(2):
        changed = await world.operator.put(f"Patient/{first['id']}", {**first, "language": f"x-{n}"})
        assert changed.status_code == 200, changed.text
        versions.append(changed.json())
    return versions[::-1]


async def walk(actor: Actor, url: str) -> list[dict[str, Any]]:
    """The entries of all pages."""
    found: list[dict[str, Any]] = []
    following: str | None = url
    while following:
        answer = await actor.get(following)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert page["type"] == "history"
        found += page.get("entry", [])
        following = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    return found


def names(versions: list[dict[str, Any]], *types: str) -> list[str]:
    """The versions of these types, by id and number."""
    return [f"{v['id']}/{v['meta']['versionId']}" for v in versions if not types or v["resourceType"] in types]


def ours(found: list[dict[str, Any]], versions: list[dict[str, Any]]) -> list[str]:
    """What was found of these resources: other tests write too."""
    seen = [e["resource"] for e in found]
    assert len(names(seen)) == len(set(names(seen)))
    moments = [e["response"]["lastModified"] for e in found]
    assert moments == sorted(moments, reverse=True)
    return names([one for one in seen if one["id"] in {v["id"] for v in versions}])


@pytest.mark.requirement("CORE-09")
@pytest.mark.parametrize("count", [1, 2, 3, 50])
async def test_every_version_of_a_type_newest_first(world: World, count: int) -> None:
    versions = await bring(world)
    since = versions[-1]["meta"]["lastUpdated"]
    for name in ("Patient", "Organization"):
        found = await walk(world.operator, f"{name}/_history?_since={since}&_count={count}")
        assert ours(found, versions) == names(versions, name)
    newest = (await walk(world.operator, f"Patient/_history?_since={since}"))[0]
    address = f"Patient/{versions[0]['id']}"
    assert newest == {
        "fullUrl": f"{BASE}/{address}",
        "resource": versions[0],
        "request": {"method": "PUT", "url": address},
        "response": {"status": "200", "etag": 'W/"3"', "lastModified": versions[0]["meta"]["lastUpdated"]},
    }


@pytest.mark.parametrize("count", [1, 2, 50])
async def test_every_version_of_all_types_in_one_order(world: World, count: int) -> None:
    versions = await bring(world)
    since = versions[-1]["meta"]["lastUpdated"]
    found = await walk(world.operator, f"_history?_since={since}&_count={count}")
    assert ours(found, versions) == names(versions)


async def test_since_is_the_moment_itself_and_later(world: World) -> None:
    versions = await bring(world)
    second = versions[-2]["meta"]["lastUpdated"]
    found = await walk(world.operator, f"_history?_since={second}")
    assert ours(found, versions) == names(versions[:-1])
    shifted = f"{second[:-1]}%2B00:00"
    assert ours(await walk(world.operator, f"_history?_since={shifted}"), versions) == names(versions[:-1])


async def test_the_links_say_what_was_asked(world: World) -> None:
    versions = await bring(world)
    since = versions[-1]["meta"]["lastUpdated"]
    page = (await world.operator.get(f"Patient/_history?_count=1&_since={since}&_format=json")).json()
    links = {link["relation"]: link["url"] for link in page["link"]}
    assert httpx.URL(links["self"]).params == httpx.QueryParams({"_count": "1", "_since": since, "_format": "json"})
    assert [*httpx.URL(links["next"]).params] == ["_cursor", "_format"]
    assert links["next"].startswith(f"{BASE}/Patient/_history?")
    following = (await world.operator.get(links["next"])).json()
    assert {link["relation"]: link["url"] for link in following["link"]}["self"] == links["next"]


async def test_what_is_written_meanwhile_disturbs_no_page_to_come(world: World) -> None:
    versions = await bring(world)
    since = versions[-1]["meta"]["lastUpdated"]
    page = (await world.operator.get(f"_history?_count=2&_since={since}")).json()
    for one in versions[1:3]:
        await world.operator.put(f"{one['resourceType']}/{one['id']}", {**one, "language": "fr"})
    following = next(link["url"] for link in page["link"] if link["relation"] == "next")
    found = [*page["entry"], *await walk(world.operator, following)]
    assert ours(found, versions) == names(versions)


async def test_a_version_that_is_replaced_while_it_is_looked_for_is_found_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = await bring(world)
    newest, real, due = versions[0], Mongo.find, [True]

    async def find(mongo: Mongo, collection: str, *asked: Any, **options: Any) -> Any:
        found = await real(mongo, collection, *asked, **options)
        if collection == "Patient" and "hint" in options and due:
            due.clear()
            await world.operator.put(f"Patient/{newest['id']}", {**newest, "language": "fr"})
        return found

    monkeypatch.setattr(Mongo, "find", find)
    found = await walk(world.operator, f"Patient/_history?_since={versions[-1]['meta']['lastUpdated']}")
    assert due == []
    assert ours(found, versions) == names(versions, "Patient")


@pytest.mark.requirement("BUN-07")
async def test_histories_are_read_in_a_bundle(world: World) -> None:
    versions = await bring(world)
    since = versions[-1]["meta"]["lastUpdated"]
    paths = [f"Patient/_history?_since={since}", f"_history?_since={since}", f"{BASE}/_history?_since={since}"]
    answer = await world.operator.post("", bundle("batch", *(entry("GET", path) for path in paths)))
    of_type, *of_all = (one["resource"] for one in answer.json()["entry"])
    assert ours(of_type["entry"], versions) == names(versions, "Patient")
    assert [ours(one["entry"], versions) for one in of_all] == [names(versions)] * 2


@pytest.mark.requirement("BUN-11", "AUD-05")
@pytest.mark.parametrize("kind", ["patient", "professional", "service", "feed"])
async def test_to_others_it_is_not_offered(world: World, kind: str) -> None:
    """The answer is that for a type which keeps no such history, at the same cost, and leaves a trace."""
    client = unique("curious")
    context = {"patient": (await world.patient()).patient} if kind == "patient" else {}
    actor = await world.actor(kind, "system/*.cruds", client, f"Organization/{client}", **context)

    async def asked(actor: Actor, path: str) -> tuple[int, str, dict[str, str], int]:
        answer = await actor.get(path)
        calls = await world.calls_of(lambda: actor.get(path))
        headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
        headers.pop("content-length")
        return answer.status_code, answer.text.replace(path.partition("/")[0], "T"), headers, calls

    elsewhere = await asked(world.operator, "Observation/_history")
    assert (elsewhere[0], elsewhere[2]["allow"]) == (405, "")
    assert await asked(actor, "Patient/_history") == await asked(actor, "Observation/_history")
    assert (await asked(actor, "Patient/_history"))[:3] == elsewhere[:3]
    whole = await actor.get("_history?_cursor=x")
    assert (whole.status_code, issues(whole)[0]["code"], whole.headers["allow"]) == (405, "not-supported", "")
    events = await world.stored("AuditEvent", **{"event.interaction": "history-system", "event.client": client})
    assert [event["event"]["outcome"] for event in events] == ["4"]


async def test_scopes_narrow_it(world: World) -> None:
    versions = await bring(world)
    since = versions[-1]["meta"]["lastUpdated"]
    narrow = await world.actor("operator", "system/Organization.s system/Patient.r")
    assert ours(await walk(narrow, f"_history?_since={since}"), versions) == names(versions, "Organization")
    refused = await narrow.get("Patient/_history")
    assert refused.status_code == 403
    assert 'scope="patient/Patient.s"' in refused.headers["www-authenticate"]
    assert (await (await world.actor("operator", "system/Observation.s")).get("_history")).status_code == 403


async def test_a_cursor_is_of_this_history_alone_and_carries_no_right(world: World) -> None:
    await bring(world)
    page = (await world.operator.get("Patient/_history?_count=1")).json()
    following = next(link["url"] for link in page["link"] if link["relation"] == "next")
    cursor = following.partition("?")[2]
    for path in ("Organization/_history", "_history", "Patient"):
        answer = await world.operator.get(f"{path}?{cursor}")
        assert (answer.status_code, expression(answer)) == (400, "_cursor"), path
    assert (await world.operator.get(f"{following}&_count=2")).status_code == 400
    assert (await (await world.patient()).get(following)).status_code == 405
    search = (await world.operator.get("Patient?_count=1")).json()
    sealed = next(link["url"] for link in search["link"] if link["relation"] == "next").partition("?")[2]
    assert (await world.operator.get(f"Patient/_history?{sealed}")).status_code == 400


@pytest.mark.parametrize(
    ("query", "code", "name"),
    [
        ("_count=0", "invalid", "_count"),
        ("_count=x", "invalid", "_count"),
        ("_since=2026", "invalid", "_since"),
        ("_since=2026-11-20T08:00:00", "invalid", "_since"),
        ("_since=2026-13-20T08:00:00Z", "invalid", "_since"),
        ("_since=2026-11-20T08:00:00Z&_since=2026-11-20T08:00:00Z", "invalid", "_since"),
        ("_cursor=x", "invalid", "_cursor"),
        ("_at=2026-11-20", "not-supported", "_at"),
        ("_before=1", "not-supported", "_before"),
        ("foo=bar", "not-supported", "foo"),
    ],
)
async def test_parameters_that_are_not_understood(world: World, query: str, code: str, name: str) -> None:
    for path in ("Patient/_history", "_history"):
        answer = await world.operator.get(f"{path}?{query}")
        assert answer.status_code == 400, answer.text
        assert (issues(answer)[0]["code"], expression(answer)) == (code, name)


@pytest.mark.requirement("AUD-01", "AUD-03")
async def test_it_leaves_an_event_in_each_record_it_shows(world: World) -> None:
    owner = await world.patient()
    await world.operator.create(related_person(owner.patient))
    stored = await world.stored("Patient", _id=owner.patient)
    asking = await world.actor("operator", "system/*.s", unique("auditor"))
    since = stored[0]["updated"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    await walk(asking, f"_history?_since={since}")
    (event,) = await world.stored("AuditEvent", **{"patient": owner.patient, "event.interaction": "history-system"})
    assert event["event"]["outcome"] == "0"
    assert len(event["event"]["entities"]) == 2
    (shown,) = await owner.search("AuditEvent?subtype=history-system")
    assert (shown["action"], shown["subtype"][0]["code"]) == ("R", "history-system")
    before = len(await world.stored("AuditEvent", **{"event.interaction": "history-type", "patient": None}))
    await walk(asking, "Practitioner/_history?_since=2999-01-01T00:00:00Z")
    after = await world.stored("AuditEvent", **{"event.interaction": "history-type", "patient": None})
    assert len(after) == before + 1


async def test_pages_cost_the_same_however_much_there_is(world: World) -> None:
    await bring(world)
    first = await world.calls_of(lambda: world.operator.get("Patient/_history?_count=1"))
    assert await world.calls_of(lambda: world.operator.get("Patient/_history?_count=5")) == first
