"""read, vread and HEAD: what is there, what was, what never was, and what the client already has."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import httpx
import pytest

from tests.world import BASE, Actor, World, issues, observation


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


async def new_reading(camille: Actor, **elements: object) -> dict[str, object]:
    return await camille.create(observation(camille.patient, **elements))


def without_request_id(answer: httpx.Response) -> tuple[int, object, dict[str, str]]:
    """An answer as far as it says anything."""
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, answer.json(), headers


@pytest.mark.requirement("CORE-09", "CORE-10")
async def test_a_read_gives_the_resource_with_its_version_and_time(camille: Actor) -> None:
    stored = await new_reading(camille)
    answer = await camille.get(f"Observation/{stored['id']}")
    assert answer.status_code == 200
    assert answer.json() == stored
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    updated = datetime.fromisoformat(stored["meta"]["lastUpdated"])  # type: ignore[index]
    assert parsedate_to_datetime(answer.headers["last-modified"]) == updated.replace(microsecond=0)


@pytest.mark.requirement("CORE-09")
async def test_unknown_foreign_and_impossible_ids_all_read_alike(world: World, camille: Actor) -> None:
    other = await world.patient()
    foreign = await other.create(observation(other.patient))
    unknown = foreign["id"][:4] + "0" * 16
    answers = [
        await camille.get(f"Observation/{identifier}{rest}")
        for identifier in (foreign["id"], unknown, "abc", "...", "a" * 300, "%00", "%0A", "$where", "null")
        for rest in ("", "/_history/1", "/_history")
        if (identifier, rest) != ("$where", "")  # an operation by its form: nothing that an id could tell
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({str(without_request_id(answer)) for answer in answers}) == 1
    assert issues(answers[0]) == [
        {"severity": "error", "code": "not-found", "diagnostics": "there is no such Observation here"}
    ]


@pytest.mark.requirement("CORE-09")
async def test_deleted_is_told_only_to_who_could_see_it(world: World, camille: Actor) -> None:
    stranger = await world.patient()
    stored = await new_reading(camille)
    assert (await camille.delete(f"Observation/{stored['id']}")).status_code == 204
    gone = await camille.get(f"Observation/{stored['id']}")
    assert (gone.status_code, issues(gone)[0]["code"]) == (410, "deleted")
    assert "etag" not in gone.headers
    assert (await stranger.get(f"Observation/{stored['id']}")).status_code == 404
    # The old version can still be read, the one that says "deleted" is gone.
    old = await camille.get(f"Observation/{stored['id']}/_history/1")
    assert (old.status_code, old.json()) == (200, stored)
    assert (await camille.get(f"Observation/{stored['id']}/_history/2")).status_code == 410
    assert (await stranger.get(f"Observation/{stored['id']}/_history/1")).status_code == 404


@pytest.mark.requirement("CORE-09")
async def test_vread_gives_each_version_as_it_was(camille: Actor) -> None:
    first = await new_reading(camille)
    changed = await camille.put(f"Observation/{first['id']}", {**first, "status": "amended"})
    for version, body in ((1, first), (2, changed.json())):
        answer = await camille.get(f"Observation/{first['id']}/_history/{version}")
        assert (answer.status_code, answer.json(), answer.headers["etag"]) == (200, body, f'W/"{version}"')


@pytest.mark.parametrize("version", ["0", "3", "-1", "01", "1.0", "x", "%D9%A1", "9" * 40, "1%20", "null"])
async def test_there_is_no_version_of_another_spelling(camille: Actor, version: str) -> None:
    stored = await new_reading(camille)
    assert (await camille.get(f"Observation/{stored['id']}/_history/{version}")).status_code == 404


@pytest.mark.requirement("CORE-10")
@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ('W/"1"', 304),
        ('"1"', 304),
        ("*", 304),
        ('W/"7", W/"1"', 304),
        ('W/"2"', 200),
        ('W/"11"', 200),
        ('W/""', 200),
        ("", 200),
    ],
)
@pytest.mark.parametrize("rest", ["", "/_history/1"])
async def test_if_none_match(camille: Actor, tags: str, status: int, rest: str) -> None:
    stored = await new_reading(camille)
    answer = await camille.get(f"Observation/{stored['id']}{rest}", If_None_Match=tags)
    assert answer.status_code == status
    assert answer.headers["etag"] == 'W/"1"'
    if status == 304:
        assert answer.content == b""
        assert "content-type" not in answer.headers


@pytest.mark.requirement("CORE-10")
async def test_if_none_match_of_what_was_changed_gives_the_new_version(camille: Actor) -> None:
    stored = await new_reading(camille)
    await camille.put(f"Observation/{stored['id']}", {**stored, "status": "amended"})
    answer = await camille.get(f"Observation/{stored['id']}", If_None_Match='W/"1"')
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (200, "amended", 'W/"2"')


@pytest.mark.requirement("CORE-10")
async def test_if_modified_since(camille: Actor) -> None:
    stored = await new_reading(camille)
    path = f"Observation/{stored['id']}"
    modified = (await camille.get(path)).headers["last-modified"]
    before = format_datetime(parsedate_to_datetime(modified) - timedelta(seconds=1), usegmt=True)
    for since, status in (
        (modified, 304),
        (format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), 304),
        (modified.replace("GMT", "-0000"), 304),
        (before, 200),
        ("yesterday", 200),
        ("Thu, 01 Jan 1970 00:00:00 +9999", 200),
        ("", 200),
    ):
        assert (await camille.get(path, If_Modified_Since=since)).status_code == status, since
    # RFC 9110 §13.1.3: If-None-Match goes before If-Modified-Since.
    assert (await camille.get(path, If_Modified_Since=modified, If_None_Match='W/"9"')).status_code == 200


async def test_a_304_is_given_only_to_who_may_read(world: World, camille: Actor) -> None:
    stranger = await world.patient()
    stored = await new_reading(camille)
    for tags in ('W/"1"', "*"):
        assert (await stranger.get(f"Observation/{stored['id']}", If_None_Match=tags)).status_code == 404


@pytest.mark.requirement("CORE-09", "AUD-01")
@pytest.mark.parametrize(
    ("path", "interaction"),
    [
        ("Observation/{id}", "read"),
        ("Observation/{id}/_history/1", "vread"),
        ("Observation/{id}/_history", "history-instance"),
        ("Observation?identifier=x", "search-type"),
    ],
)
async def test_head_answers_like_get_without_body_and_leaves_the_same_trace(world: World, path: str, interaction: str) -> None:
    reader = await world.patient()
    stored = await new_reading(reader)
    where = {"patient": reader.patient, "event.interaction": interaction}
    get = await reader.get(path.format(id=stored["id"]))
    head = await reader.send("HEAD", path.format(id=stored["id"]))
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    del get.headers["x-request-id"], head.headers["x-request-id"]
    assert head.headers == get.headers
    assert len(await world.stored("AuditEvent", **where)) == 2


@pytest.mark.parametrize("path", ["metadata", "openapi.json", "?_type=Observation,Device", "Observation/{id}/$meta"])
async def test_head_is_answered_wherever_get_is(world: World, path: str) -> None:
    reader = await world.patient()
    path = path.format(id=(await new_reading(reader))["id"])
    get, head = await reader.get(path), await reader.send("HEAD", path)
    assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["content-type"] == get.headers["content-type"]


async def test_head_of_what_is_not_there(world: World, camille: Actor) -> None:
    assert (await camille.send("HEAD", "Observation/abc-000")).status_code == 404
    assert (await world.http.request("HEAD", f"{BASE}/Observation/abc-000")).status_code == 401


@pytest.mark.parametrize("path", ["observation", "OBSERVATION", "Observations", "Binaries", "Bundle", "%00", "Foo", "$where"])
async def test_types_that_are_not_served(camille: Actor, path: str) -> None:
    for answer in (await camille.get(path), await camille.get(f"{path}/abc-1"), await camille.get(f"{path}/abc-1/_history")):
        assert (answer.status_code, issues(answer)[0]["code"]) == (404, "not-supported")


@pytest.mark.parametrize(
    "path",
    [
        "Observation/{id}/",
        "Observation/{id}/foo",
        "Observation/{id}/_history/1/2",
        "Observation/{id}/_history/",
        "Observation/",
    ],
)
async def test_addresses_that_are_none(camille: Actor, path: str) -> None:
    stored = await new_reading(camille)
    answer = await camille.http.get(
        f"{BASE}/{path.format(id=stored['id'])}", headers={"Authorization": f"Bearer {camille.token}"}
    )
    assert (answer.status_code, issues(answer)[0]["code"]) == (404, "not-found")


async def test_an_id_may_be_percent_encoded(camille: Actor) -> None:
    stored = await new_reading(camille)
    encoded = "".join(f"%{ord(c):02X}" for c in str(stored["id"]))
    assert (await camille.get(f"Ob%73ervation/{encoded}")).json() == stored


@pytest.mark.parametrize("query", ["foo=1", "_count=1", "patient=x", "_format=json&x", "_elements=id&x=1", "=1"])
@pytest.mark.parametrize("path", ["Observation/{id}", "Observation/{id}/_history/1"])
async def test_a_read_takes_no_parameters_that_select(camille: Actor, path: str, query: str) -> None:
    stored = await new_reading(camille)
    answer = await camille.get(f"{path.format(id=stored['id'])}?{query}")
    assert (answer.status_code, issues(answer)[0]["code"]) == (400, "not-supported")
