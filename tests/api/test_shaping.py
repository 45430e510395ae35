"""How an answer is shaped: parts of resources in searches, reads and Bundles, and JSON laid out for people."""

import json
from typing import Any

import httpx
import pytest

from tests.examples import TYPES, bring, writer_of
from tests.world import Actor, World, bundle, document, entry, expression, issues, observation

FORM = "application/x-www-form-urlencoded"
PARTS = ("_summary=true", "_summary=text", "_summary=data", "_elements=meta")

pytestmark = pytest.mark.requirement("SRCH-09")


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    owner = await session_world.patient()
    await owner.create(observation(owner.patient, note=[{"text": "a note"}]))
    return owner


def tags(resource: dict[str, Any]) -> list[str]:
    return [tag["code"] for tag in resource["meta"].get("tag", ())]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("type_name", [name for name in TYPES if name not in ("AuditEvent", "Provenance")])
async def test_read_vread_search_and_bundle_give_the_same_part(world: World, type_name: str, part: str) -> None:
    owner = await world.patient()
    kind = world.gateway.registry[type_name]
    stored = await bring(world, type_name, owner)
    reader = await world.patient_actor(stored["id"]) if kind.is_patient else writer_of(world, kind, owner)
    address, search = f"{type_name}/{stored['id']}", f"{type_name}?_id={stored['id']}&{part}"
    read = await reader.get(f"{address}?{part}")
    assert (read.status_code, read.headers["etag"]) == (200, 'W/"1"')
    found = read.json()
    assert tags(found) == ["SUBSETTED"]
    assert found["id"] == stored["id"]
    assert found["meta"]["versionId"] == "1"
    assert set(found) <= set(stored)
    assert (await reader.get(f"{address}/_history/1?{part}")).json() == found
    assert await reader.search(search) == [found]
    entries = [entry("GET", path) for path in (f"{address}?{part}", f"{address}/_history/1?{part}", search)]
    answers = [one["resource"] for one in (await reader.post("", bundle("batch", *entries))).json()["entry"]]
    assert [*answers[:2], answers[2]["entry"][0]["resource"]] == [found] * 3
    assert (await reader.get(address)).json() == stored  # what is stored is as it was


async def test_an_audit_event_is_given_in_part_as_well(world: World) -> None:
    owner = await world.patient()
    await owner.get("Observation?_count=1")
    found = await owner.search("AuditEvent?_elements=outcome&_count=1")
    assert set(found[0]) == {"resourceType", "id", "meta", "type", "recorded", "agent", "source", "outcome"}
    assert tags(found[0]) == ["SUBSETTED"]


async def test_the_pages_of_a_search_in_part_are_in_part(world: World) -> None:
    owner = await world.patient()
    for _ in range(3):
        await owner.create(document(owner.patient, description="long"))
    url: str | None = f"DocumentReference?patient={owner.patient}&_summary=true&_count=1"
    seen = []
    while url:
        page = (await owner.get(url)).json()
        seen += [one["resource"] for one in page["entry"]]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    assert [("data" in str(found), tags(found)) for found in seen] == [(False, ["SUBSETTED"])] * 3


@pytest.mark.parametrize(
    ("query", "code", "name"),
    [
        ("_summary=count", "not-supported", "_summary"),
        ("_summary=", "not-supported", "_summary"),
        ("_summary=true&_summary=text", "invalid", "_summary"),
        ("_elements=foo", "invalid", "_elements"),
        ("_elements=code&_summary=data", "invalid", "_elements"),
        ("_elements=code&foo=1", "not-supported", "foo"),
        ("_count=1", "not-supported", "_count"),
    ],
)
async def test_a_read_in_part_that_is_not_understood(camille: Actor, query: str, code: str, name: str) -> None:
    [stored] = await camille.search("Observation?_count=1")
    for path in (f"Observation/{stored['id']}", f"Observation/{stored['id']}/_history/1"):
        answer = await camille.get(f"{path}?{query}")
        assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (400, code, name)
        again = (await camille.post("", bundle("batch", entry("GET", f"{path}?{query}")))).json()["entry"][0]["response"]
        assert (again["status"][:3], again["outcome"]["issue"][0]["code"]) == ("400", code)


async def test_a_part_of_what_may_not_be_seen_is_like_one_of_what_is_not_there(world: World, camille: Actor) -> None:
    stranger = await world.patient()
    [stored] = await camille.search("Observation?_count=1")
    for part in PARTS:
        answers = [await stranger.get(f"Observation/{i}?{part}") for i in (stored["id"], "abc-0000000000000000")]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].content == answers[1].content


async def ask(actor: Actor, method: str, query: str) -> httpx.Response:
    """The same search by GET, or with everything in the form."""
    if method == "GET":
        return await actor.get(f"Observation?{query}")
    return await actor.send("POST", "Observation/_search", query.encode(), Content_Type=FORM)


@pytest.mark.requirement("SRCH-01")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_answer_is_laid_out_where_that_is_asked_for(camille: Actor, method: str) -> None:
    plain = await ask(camille, method, "code=99504-3")
    pretty = await ask(camille, method, "code=99504-3&_pretty=true")
    assert pretty.text == json.dumps(plain.json(), indent=2, ensure_ascii=False)
    assert plain.text.count("\n") == 0
    assert (await ask(camille, method, "code=99504-3&_pretty=false")).text == plain.text
    for wrong in ("_pretty=yes", "_pretty=", "_pretty=true&_pretty=true"):
        answer = await ask(camille, method, wrong)
        assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (400, "invalid", "_pretty")


async def test_every_address_lays_out_its_answer(camille: Actor) -> None:
    [stored] = await camille.search("Observation?_count=1")
    path = f"Observation/{stored['id']}"
    for address in (path, f"{path}/_history", f"{path}/_history/1", "metadata", "Observation/abc-none", "Observation?foo=1"):
        query = "&_pretty=true" if "?" in address else "?_pretty=true"
        answer = await camille.get(address + query)
        assert answer.text.startswith('{\n  "resourceType": '), answer.text
        assert len(answer.content) == int(answer.headers["content-length"])
    written = await camille.put(f"{path}?_pretty=true", {**stored, "status": "amended"})
    assert (written.status_code, written.text[:4]) == (200, "{\n  ")
    assert (await camille.post("?_pretty=true", bundle("batch", entry("GET", path)))).text.startswith("{\n  ")
    gone = await camille.delete(f"{path}?_pretty=true")
    assert (gone.status_code, gone.content) == (204, b"")
