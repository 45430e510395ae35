"""`Prefer`: what comes back from a write, and how strictly a search is read."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.world import Actor, World, expression, issues, observation, unique

Write = Callable[[Actor, str | None], Awaitable[httpx.Response]]


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


def headers(prefer: str | None) -> dict[str, str]:
    return {} if prefer is None else {"Prefer": prefer}


async def created(camille: Actor, prefer: str | None) -> httpx.Response:
    return await camille.post("Observation", observation(camille.patient), **headers(prefer))


async def sent_again(camille: Actor, prefer: str | None) -> httpx.Response:
    sent = observation(camille.patient)
    await camille.create(sent)
    return await camille.post("Observation", sent, **headers(prefer))


async def matched(camille: Actor, prefer: str | None) -> httpx.Response:
    known = await camille.create(observation(camille.patient))
    condition = {"If_None_Exist": f"_id={known['id']}"}
    return await camille.post("Observation", observation(camille.patient), **condition, **headers(prefer))


async def updated(camille: Actor, prefer: str | None) -> httpx.Response:
    stored = await camille.create(observation(camille.patient))
    return await camille.put(f"Observation/{stored['id']}", {**stored, "status": "amended"}, **headers(prefer))


async def deleted(camille: Actor, prefer: str | None) -> httpx.Response:
    stored = await camille.create(observation(camille.patient))
    return await camille.delete(f"Observation/{stored['id']}", **headers(prefer))


async def deleted_again(camille: Actor, prefer: str | None) -> httpx.Response:
    stored = await camille.create(observation(camille.patient))
    await camille.delete(f"Observation/{stored['id']}")
    return await camille.delete(f"Observation/{stored['id']}", **headers(prefer))


@pytest.mark.requirement("CORE-14")
@pytest.mark.parametrize(
    ("write", "status"),
    [(created, 201), (sent_again, 200), (matched, 200), (updated, 200), (deleted, 204), (deleted_again, 204)],
)
async def test_return(camille: Actor, write: Write, status: int) -> None:
    minimal = await write(camille, "return=minimal")
    assert (minimal.status_code, minimal.content) == (status, b"")
    assert "content-type" not in minimal.headers

    representation = await write(camille, "return=representation")
    assert representation.status_code == status
    if status != 204:
        assert representation.json()["resourceType"] == "Observation"
        assert representation.json()["meta"]["versionId"] == representation.headers["etag"].strip('W/"')

    outcome = await write(camille, "return=OperationOutcome")
    assert outcome.status_code == (status if status != 204 else 200)
    assert [(issue["severity"], issue["code"]) for issue in issues(outcome)] == [("information", "informational")]

    for answer in (minimal, representation, outcome):
        assert answer.headers["etag"].startswith('W/"')
        assert ("location" in answer.headers) == (write in (created, sent_again, matched))
        assert ("last-modified" in answer.headers) == (status != 204)


@pytest.mark.requirement("CORE-14")
async def test_without_preference_a_write_is_answered_with_what_was_stored(camille: Actor) -> None:
    assert (await created(camille, None)).json()["status"] == "final"
    assert (await updated(camille, None)).json()["status"] == "amended"
    assert (await deleted(camille, None)).content == b""
    # Nothing was written: nothing is sent either, unless it is asked for.
    assert (await sent_again(camille, None)).content == b""


@pytest.mark.requirement("CORE-14")
@pytest.mark.parametrize(
    ("prefer", "is_empty"),
    [
        ("return=minimal", True),
        ("RETURN=minimal", True),
        ('return="minimal"', True),
        ("return = minimal", True),
        ("respond-async, return=minimal", True),
        ("handling=strict; return=minimal", True),
        ("return=minimal, return=representation", True),
        ("return=representation, return=minimal", False),
        ("return=Minimal", False),
        ("return=nothing", False),
        ("return", False),
        ("", False),
        ("xreturn=minimal", False),
    ],
)
async def test_how_a_preference_is_written(camille: Actor, prefer: str, is_empty: bool) -> None:
    answer = await created(camille, prefer)
    assert answer.status_code == 201
    assert (answer.content == b"") == is_empty


async def test_a_preference_gives_no_right_to_read(world: World, camille: Actor) -> None:
    app = await world.app(camille, "patient/Observation.c")
    await world.consent(camille, app, "collect", ["Observation"])
    sent = observation(camille.patient)
    assert (await app.post("Observation", sent, Prefer="return=representation")).status_code == 201
    again = await app.post("Observation", sent, Prefer="return=representation")
    assert (again.status_code, again.content) == (200, b"")


@pytest.mark.requirement("CORE-15")
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("foo=bar", "foo"),
        ("code:in=x", "code"),
        ("_include=Observation:code", "_include"),
        ("date:exact=2026", "date"),
        ("patient.nothing=x", "patient.nothing"),
        ("Code=x", "Code"),
        ("_sort=value-quantity", "_sort"),
        ("_sort=date,code", "_sort"),
        ("_summary=most", "_summary"),
        ("_total=maybe", "_total"),
    ],
)
async def test_what_is_not_understood_is_refused_by_name_unless_the_client_is_lenient(
    camille: Actor, query: str, name: str
) -> None:
    known = await camille.create(observation(camille.patient))
    path = f"Observation?_id={known['id']}&{query}"
    for prefer in (None, "handling=strict"):
        strict = await camille.get(path, **headers(prefer))
        assert (strict.status_code, issues(strict)[0]["code"], expression(strict)) == (400, "not-supported", name)
    lenient = await camille.get(path, Prefer="handling=lenient")
    assert lenient.status_code == 200
    assert [entry["resource"]["id"] for entry in lenient.json()["entry"]] == [known["id"]]
    [own] = [link["url"] for link in lenient.json()["link"] if link["relation"] == "self"]
    assert own.endswith(f"/Observation?_id={known['id']}")


@pytest.mark.requirement("CORE-15")
@pytest.mark.parametrize(
    ("query", "name"),
    [("date=yesterday", "date"), ("value-quantity=much", "value-quantity"), ("_count=some", "_count"), ("code=", "code")],
)
async def test_a_wrong_value_is_refused_even_so(camille: Actor, query: str, name: str) -> None:
    for prefer in (None, "handling=lenient"):
        answer = await camille.get(f"Observation?{query}", **headers(prefer))
        assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (400, "invalid", name)


@pytest.mark.requirement("CORE-15")
async def test_being_lenient_shows_nobody_more(world: World) -> None:
    owner, stranger = await world.patient(), await world.patient()
    tag: dict[str, Any] = {"identifier": [{"system": "urn:x", "value": unique("tag")}]}
    await owner.create(observation(owner.patient, **tag))
    for query in ("foo=bar", "", f"patientx={owner.patient}"):
        answer = await stranger.get(f"Observation?{query}", Prefer="handling=lenient")
        assert (answer.status_code, answer.json().get("entry")) == (200, None)
