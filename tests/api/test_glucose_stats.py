"""$glucose-stats: sensor readings by day and hour, in bands, under the door of every search."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.exchange.operations.readings import DAYS
from gateway.glucose.bands import BANDS, FACTOR, Unit, band_of, summarize
from tests.world import LOINC, UCUM, Actor, World, bundle, concept, entry, issues, observation

NAMES = dict(zip(("veryLow", "low", "target", "high", "veryHigh"), range(5), strict=True))


@pytest.mark.requirement("CGM-09")
def test_the_limits_of_the_bands(specifications: Path) -> None:
    cases = json.loads((specifications / "agp" / "boundaries.json").read_text("utf-8"))["cases"]
    assert cases
    assert [(case["value"], band_of(case["value"], "mg/dL")) for case in cases] == [
        (case["value"], NAMES[case["band"]]) for case in cases
    ]


@pytest.mark.requirement("CGM-09")
@pytest.mark.parametrize(
    ("value", "unit", "band"),
    [
        (53.9, "mg/dL", "very-low"),
        (54, "mg/dL", "low"),
        (70, "mg/dL", "in-range"),
        (180, "mg/dL", "in-range"),
        (180.1, "mg/dL", "high"),
        (250, "mg/dL", "high"),
        (250.1, "mg/dL", "very-high"),
        (2.9, "mmol/L", "very-low"),
        (3.0, "mmol/L", "low"),
        (3.9, "mmol/L", "in-range"),
        (10.0, "mmol/L", "in-range"),
        (10.1, "mmol/L", "high"),
        (13.9, "mmol/L", "high"),
        (14.0, "mmol/L", "very-high"),
    ],
)
def test_a_value_is_put_into_its_band_in_its_own_unit(value: float, unit: Unit, band: str) -> None:
    assert BANDS[band_of(value, unit)] == band


@pytest.mark.requirement("CGM-11")
@pytest.mark.parametrize("values", [[100], [50, 60, 100], [40, 60, 100, 200, 300, 100, 100], [100] * 6 + [200]])
def test_both_units_give_the_same_and_shares_add_up(values: list[float]) -> None:
    mass = summarize((value, "mg/dL") for value in values)
    moles = summarize((value / FACTOR, "mmol/L") for value in values)
    assert mass.shares == moles.shares
    assert sum(mass.shares) == 10_000
    assert (mass.mean, mass.gmi) == (pytest.approx(moles.mean), pytest.approx(moles.gmi))


def reading(owner: Actor, moment: str, value: float, unit: str = "mg/dL", **elements: Any) -> dict[str, Any]:
    code = concept(LOINC, "99504-3" if unit == "mg/dL" else "105272-9")
    quantity = {"value": value, "unit": unit, "system": UCUM, "code": unit}
    found = observation(owner.patient, code=code, effectiveDateTime=moment, valueQuantity=quantity)
    return entry("POST", "Observation", found | elements)


@pytest.fixture
async def camille(world: World) -> Actor:
    owner = await world.patient()
    readings = [
        reading(owner, "2026-11-20T08:00:00+01:00", 100),
        reading(owner, "2026-11-20T08:00:00.000+01:00", 100),  # the same instant, by another way
        reading(owner, "2026-11-20T08:30:00+01:00", 60),
        reading(owner, "2026-11-20T23:30:00-05:00", 10.0, "mmol/L"),  # whose clock showed the 20th
        reading(owner, "2026-11-21T09:00:00+01:00", 300),
        reading(owner, "2026-11-21T10:00:00+01:00", 50, status="entered-in-error"),
        reading(owner, "2026-11-22T00:00:00Z", 100),  # the end is not included
        reading(owner, "2026-11-21T11:00:00+01:00", 150, extension=[{"url": DAYS, "valueCodeableConcept": {"text": "7"}}]),
    ]
    assert (await owner.post("", bundle("transaction", *readings))).status_code == 200
    return owner


SPAN = "start=2026-11-20&end=2026-11-22"


def groups(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [
        {part["name"]: next(v for k, v in part.items() if k != "name") for part in group["part"]}
        for group in answer.json().get("parameter", ())
    ]


@pytest.mark.requirement("MES-12")
async def test_by_day_without_doubles_means_and_mistakes(camille: Actor) -> None:
    one, other = groups(await camille.get(f"Observation/$glucose-stats?patient={camille.patient}&{SPAN}"))
    assert [(g["start"], g["count"]) for g in (one, other)] == [("2026-11-20", 3), ("2026-11-21", 1)]
    assert {name: one[name]["value"] for name in ("least", "most", "mean")} == {"least": 60, "most": 180.2, "mean": 113.4}
    assert [one[band]["value"] for band in BANDS] == [0, 33.33, 66.67, 0, 0]
    assert [other[band]["value"] for band in BANDS] == [0, 0, 0, 0, 100]
    assert one["gmi"]["value"] == 6.02
    assert {one[name]["code"] for name in ("mean", "gmi")} == {"mg/dL", "%"}


MOMENT = "2026-11-23T08:00:00Z"


@pytest.mark.parametrize(
    ("one", "other", "mean"),
    [
        ({}, {}, 120),  # what came last
        ({"issued": "2026-11-24T08:00:00Z"}, {"issued": "2026-11-23T09:00:00Z"}, 100),  # what was said last, in whatever order
        ({"issued": "2099-01-01T00:00:00Z"}, {}, 100),
        ({"status": "amended", "issued": "2026-11-24T10:00:00+02:00"}, {"issued": "2026-11-24T07:59:59Z"}, 100),
        ({}, {"status": "preliminary"}, 100),
        ({"status": "preliminary"}, {"issued": "2026-11-23T08:00:00Z"}, 120),
    ],
)
async def test_of_two_for_one_instant_what_was_said_last_counts(
    world: World, one: dict[str, Any], other: dict[str, Any], mean: float
) -> None:
    owner = await world.patient()
    for value, elements in ((100, one), (120, other)):
        assert (await owner.post("", bundle("transaction", reading(owner, MOMENT, value, **elements)))).status_code == 200
    (found,) = groups(await owner.get("Observation/$glucose-stats?start=2026-11-23&end=2026-11-24"))
    assert (found["count"], found["mean"]["value"]) == (1, mean)


async def test_a_correction_counts_whichever_came_first(world: World) -> None:
    owner = await world.patient()
    first, _ = [await owner.create(reading(owner, MOMENT, value)["resource"]) for value in (100, 120)]
    first["valueQuantity"]["value"] = 90
    assert (await owner.put(f"Observation/{first['id']}", first)).status_code == 200
    (found,) = groups(await owner.get("Observation/$glucose-stats?start=2026-11-23&end=2026-11-24"))
    assert (found["count"], found["mean"]["value"]) == (1, 90)


async def test_by_hour_and_in_the_other_unit(camille: Actor) -> None:
    found = groups(await camille.get(f"Observation/$glucose-stats?{SPAN}&by=hour&unit=mmol/L"))
    assert [(g["start"], g["count"]) for g in found] == [("2026-11-20T08", 2), ("2026-11-20T23", 1), ("2026-11-21T09", 1)]
    assert (found[1]["mean"]["value"], found[1]["mean"]["code"]) == (10.0, "mmol/L")


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("", "start"),
        ("start=2026-11-20", "end"),
        ("start=ge2026-11-20&end=2026-11-22", "start"),
        (f"{SPAN}&by=week", "by"),
        (f"{SPAN}&unit=g/L", "unit"),
        (f"{SPAN}&colour=red", "colour"),
    ],
)
async def test_what_cannot_be_asked(camille: Actor, query: str, where: str) -> None:
    answer = await camille.get(f"Observation/$glucose-stats?{query}")
    assert (answer.status_code, issues(answer)[0]["expression"]) == (400, [where])


async def test_it_sums_up_what_a_search_shows(world: World, camille: Actor) -> None:
    app = await world.app(camille)
    path = f"Observation/$glucose-stats?patient={camille.patient}&{SPAN}"
    assert groups(await app.get(path)) == []
    given = await world.consent(camille, app, "access", ["Observation"])
    assert len(groups(await app.get(path))) == 2
    await world.revoke(camille, given)
    assert groups(await app.get(path)) == []
    writer = await world.app(camille, "patient/Observation.c")
    assert (await writer.get(path)).status_code == 403
