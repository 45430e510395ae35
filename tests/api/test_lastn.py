"""$lastn: the newest of each code, under the door of every search, at a cost that does not grow with the record."""

from typing import Any

import pytest

from tests.world import LOINC, Actor, World, concept, issues, observation

MASS, MOLES = f"{LOINC}|99504-3", f"{LOINC}|105272-9"


@pytest.fixture
async def camille(world: World) -> Actor:
    owner = await world.patient()
    for hour in (8, 10, 9):
        for code in ("99504-3", "105272-9"):
            sent = observation(owner.patient, code=concept(LOINC, code), effectiveDateTime=f"2026-11-20T{hour:02}:00:00Z")
            await owner.create(sent | {"category": [concept("urn:oid:1.2.7", "morning" if hour < 10 else "late")]})
    return owner


def hours(answer: Any) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.text
    found = [entry["resource"] for entry in answer.json().get("entry", ())]
    return [(one["code"]["coding"][0]["code"], one["effectiveDateTime"][11:13]) for one in found]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"code={MASS}", [("99504-3", "10")]),
        (f"code={MASS}&max=2", [("99504-3", "10"), ("99504-3", "09")]),
        (f"code={MASS},{MOLES}", [("99504-3", "10"), ("105272-9", "10")]),
        (f"code={MASS},{MASS},99504-3&max=9", [("99504-3", "10"), ("99504-3", "09"), ("99504-3", "08")]),
        (f"code={MASS}&category=morning", [("99504-3", "09")]),
        ("code=http://loinc.org|1-8", []),
    ],
)
async def test_the_newest_of_each_code(camille: Actor, query: str, expected: list[tuple[str, str]]) -> None:
    assert hours(await camille.get(f"Observation/$lastn?patient={camille.patient}&{query}")) == expected
    assert hours(await camille.get(f"Observation/$lastn?{query}")) == expected  # the patient in context
    given = [part.partition("=") for part in query.split("&")]
    parameters = [
        {"name": n, "valuePositiveInt" if n == "max" else "valueString": int(v) if n == "max" else v} for n, _, v in given
    ]
    body = {"resourceType": "Parameters", "parameter": parameters}
    assert hours(await camille.post("Observation/$lastn", body)) == expected


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("", "code"),
        ("code=", "code"),
        (f"code={MASS}&max=0", "max"),
        (f"code={MASS}&max=-1", "max"),
        (f"code={MASS}&max=100000", "max"),
        (f"code={MASS}&max=2000", "max"),
        ("code=" + ",".join(map(str, range(21))), "code"),
        (f"code={MASS}&colour=red", "colour"),
    ],
)
async def test_what_cannot_be_asked(camille: Actor, query: str, where: str) -> None:
    answer = await camille.get(f"Observation/$lastn?{query}")
    assert (answer.status_code, issues(answer)[0]["expression"]) == (400, [where])


async def test_it_shows_what_a_search_shows(world: World, camille: Actor) -> None:
    app = await world.app(camille)
    path = f"Observation/$lastn?patient={camille.patient}&code={MASS}"
    assert hours(await app.get(path)) == []
    given = await world.consent(camille, app, "access", ["Observation"])
    assert hours(await app.get(path)) == [("99504-3", "10")]
    await world.revoke(camille, given)
    assert hours(await app.get(path)) == []
    other = await world.patient()
    assert hours(await other.get(path)) == []
    writer = await world.app(camille, "patient/Observation.c")
    assert (await writer.get(path)).status_code == 403
    service = await world.service()
    assert (await service.get(f"Observation/$lastn?code={MASS}")).status_code == 400


async def test_who_looked_is_in_the_audit(world: World, camille: Actor) -> None:
    before = len(await camille.search("AuditEvent?_count=100"))
    await camille.get(f"Observation/$lastn?code={MASS},{MOLES}")
    assert len(await camille.search("AuditEvent?_count=100")) == before + 2  # of the looking, and of the counting before


async def test_it_reads_no_more_than_it_shows(world: World, camille: Actor) -> None:
    seen: list[dict[str, Any]] = []
    database = world.gateway.mongo._database
    await database.command({"profile": 2})
    try:
        await camille.get(f"Observation/$lastn?code={MASS}")
        async for one in database["system.profile"].find({"ns": {"$regex": "Observation$"}, "op": "query"}):
            seen.append(one)
    finally:
        await database.command({"profile": 0})
    (last,) = seen[-1:]
    assert (last["docsExamined"], last["nreturned"]) == (1, 1)
