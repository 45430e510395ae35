"""$glucose-series: readings as a table, streamed, under the door and the audit of every search."""

import csv
import io
import json
from typing import Any

import pytest

from gateway.exchange.operations import glucose_series
from gateway.exchange.operations.glucose_series import Series
from gateway.exchange.operations.readings import DAYS
from gateway.exchange.standing import authenticate
from gateway.problem import Problem
from gateway.store.standing import About
from tests.api.test_glucose_stats import reading
from tests.world import Actor, World, bundle, issues, observation

COLUMNS = ["time", "value", "unit", "status", "doubtful", "device", "id"]


@pytest.fixture
async def camille(world: World) -> Actor:
    owner = await world.patient()
    readings = [
        reading(owner, "2026-11-20T08:00:00+01:00", 100),
        reading(owner, "2026-11-20T07:05:00Z", 5.50, "mmol/L"),
        reading(owner, "2026-11-20T08:10:00+01:00", 39),
        reading(owner, "2026-11-21T09:00:00+01:00", 300),
        reading(owner, "2026-11-21T10:00:00+01:00", 50, status="entered-in-error"),
        reading(owner, "2026-11-21T11:00:00+01:00", 150, extension=[{"url": DAYS, "valueCodeableConcept": {"text": "7"}}]),
        reading(owner, "2026-11-22T00:00:00Z", 100),
    ]
    assert (await owner.post("", bundle("transaction", *readings))).status_code == 200
    return owner


def table(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.splitlines()[0] == ",".join(COLUMNS)
    return list(csv.DictReader(io.StringIO(answer.text)))


async def test_as_a_table_in_order_with_the_digits_that_were_sent(camille: Actor) -> None:
    rows = table(await camille.get("Observation/$glucose-series?_format=csv"))
    assert [(row["time"][8:16], row["value"], row["unit"], row["doubtful"]) for row in rows] == [
        ("20T08:00", "100", "mg/dL", "false"),
        ("20T07:05", "5.5", "mmol/L", "false"),
        ("20T08:10", "39", "mg/dL", "true"),
        ("21T09:00", "300", "mg/dL", "false"),
        ("22T00:00", "100", "mg/dL", "false"),
    ]
    assert (await camille.get(f"Observation/{rows[0]['id']}")).status_code == 200


async def test_in_one_unit_and_of_a_period(camille: Actor) -> None:
    span = "start=2026-11-20&end=2026-11-21"
    rows = table(await camille.get(f"Observation/$glucose-series?patient={camille.patient}&{span}&unit=mg/dL"))
    assert [(row["value"], row["unit"]) for row in rows] == [("100", "mg/dL"), ("99.1", "mg/dL"), ("39", "mg/dL")]
    rows = table(await camille.get(f"Observation/$glucose-series?{span}&unit=mmol/L", Accept="text/csv"))
    assert [row["value"] for row in rows] == ["5.55", "5.5", "2.16"]


@pytest.mark.parametrize(
    "accept",
    [
        "application/x-ndjson",
        "application/xml, application/fhir+ndjson;q=0.5",
        "text/csv;q=0.4, application/ndjson;q=0.5",
        "text/csv;q=0, */*",
    ],
)
async def test_as_json_line_by_line(camille: Actor, accept: str) -> None:
    answer = await camille.get("Observation/$glucose-series", Accept=accept)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="glucose.ndjson"'
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [list(line) for line in lines] == [COLUMNS] * 5
    assert [line["value"] for line in lines] == [100, 5.5, 39, 300, 100]
    assert lines[2]["doubtful"] is True


async def test_what_cannot_be_asked(camille: Actor) -> None:
    for query, status, where in [
        ("start=ge2026", 400, "start"),
        ("end=2026-13-01", 400, "end"),
        ("unit=g/L", 400, "unit"),
        ("colour=red", 400, "colour"),
    ]:
        answer = await camille.get(f"Observation/$glucose-series?{query}")
        assert (answer.status_code, issues(answer)[0]["expression"]) == (status, [where]), query
    assert (await camille.get("Observation/$glucose-series?_format=pdf")).status_code == 406
    for accept in ("image/png", "text/csv;q=0"):
        assert (await camille.get("Observation/$glucose-series", Accept=accept)).status_code == 406
    assert (await camille.post("Observation/$glucose-series", {"resourceType": "Parameters"})).status_code == 405
    head = await camille.send("HEAD", "Observation/$glucose-series")
    assert (head.status_code, head.text) == (200, "")


async def test_it_holds_what_a_search_shows_and_is_in_the_log(world: World, camille: Actor) -> None:
    doctor = await world.professional()
    path = f"Observation/$glucose-series?patient={camille.patient}"
    assert table(await doctor.get(path)) == []
    assert table(await doctor.get(path[:-3] + "000")) == []
    given = await world.consent(camille, doctor, "access", ["Observation"])
    assert len(table(await doctor.get(path))) == 5
    await world.revoke(camille, given)
    assert table(await doctor.get(path)) == []
    events = [one for one in await camille.search("AuditEvent?_count=20") if one["action"] == "E"]
    assert [one["outcome"] == "0" for one in events[:3]] == [False, True, False]
    writer = await world.app(camille, "patient/Observation.c")
    assert (await writer.get("Observation/$glucose-series")).status_code == 403


async def test_a_series_of_which_less_may_be_seen_breaks_off(
    world: World, camille: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glucose_series, "_PIECE", 2)
    doctor = await world.professional()
    given = await world.consent(camille, doctor, "access", ["Observation"])
    access = await authenticate(world.gateway, doctor.token, About(patient=camille.patient))
    rows = aiter((await series_of(world, access, camille)).rows())
    assert (await anext(rows)).value == "100"
    await world.revoke(camille, given)
    with pytest.raises(Problem):
        [row async for row in rows]
    whole = await authenticate(world.gateway, camille.token, About())
    assert len([row async for row in (await series_of(world, whole, camille)).rows()]) == 5


async def series_of(world: World, access: Any, owner: Actor) -> Series:
    kind = world.gateway.registry["Observation"]
    clauses = []
    for code in glucose_series.CODES:
        pairs = (("patient", owner.patient), ("code", code))
        access, clause, _ = await glucose_series.read_clause(world.gateway, access, kind, pairs)
        clauses.append(clause)
    return Series(world.gateway, access, kind, tuple(clauses), None)


async def test_which_of_two_for_one_instant_counts(world: World) -> None:
    owner = await world.patient()
    sensor = {"reference": f"Device/{(await owner.create(_sensor(owner)))['id']}"}
    moment = "2026-11-20T08:{:02}:00Z"
    pairs = [
        ({"status": "preliminary"}, 90, {}, 100),
        ({}, 39, {}, 100),  # hardly possible
        ({}, 90, {"device": sensor}, 100),
        ({}, 90, {}, 100),  # what was said last
    ]
    for minute, (one, low, other, high) in enumerate(pairs):
        for elements, value in ((one, low), (other, high)):
            await owner.create(reading(owner, moment.format(minute), value, **elements)["resource"])
    path = "Observation/$glucose-stats?start=2026-11-20&end=2026-11-21"
    (group,) = (await owner.get(path)).json()["parameter"]
    told = {part["name"]: part for part in group["part"]}
    assert (told["count"]["valueInteger"], told["mean"]["valueQuantity"]["value"]) == (4, 100)


def _sensor(owner: Actor) -> dict[str, Any]:
    return {"resourceType": "Device", "patient": {"reference": f"Patient/{owner.patient}"}}


async def test_many_readings_come_in_pieces(world: World, camille: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glucose_series, "_PIECE", 3)
    for day in range(1, 4):
        readings = [reading(camille, f"2026-11-0{day}T08:{n:02}:00Z", 100 + n) for n in range(20)]
        assert (await camille.post("", bundle("transaction", *readings))).status_code == 200
    await camille.create(observation(camille.patient, effectiveDateTime="2026-11-20"))  # of a day: no instant
    rows = table(await camille.get("Observation/$glucose-series"))
    assert len(rows) == 65
    assert len({row["id"] for row in rows}) == 65
