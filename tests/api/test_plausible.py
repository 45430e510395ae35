"""Readings that cannot be are refused with their reason; those that hardly can be are kept, and say so."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.fhir.plausible import read_plausibility
from gateway.schemas import SchemaError
from tests.world import LOINC, UCUM, Actor, World, concept, expression, issues, observation, patient

DOUBTFUL = [{"system": "urn:fhir-document-gateway:CodeSystem/plausibility", "code": "doubtful"}]
BORN = "1980-06-15"


@pytest.fixture
async def camille(world: World) -> Actor:
    return await world.patient(birthDate=BORN)


def measured(value: float, unit: str = "mg/dL", code: str = "99504-3") -> dict[str, Any]:
    quantity = {"value": value, "unit": unit, "system": UCUM, "code": unit}
    return {"code": concept(LOINC, code), "valueQuantity": quantity}


@pytest.mark.parametrize(
    ("elements", "verdict"),
    [
        (measured(104), None),
        (measured(40), None),
        (measured(500), None),
        (measured(39), "doubtful"),
        (measured(501), "doubtful"),
        (measured(1000), "doubtful"),
        (measured(0), "refused"),
        (measured(1001), "refused"),
        (measured(9999), "refused"),
        (measured(-5), "refused"),
        (measured(5.6, "mmol/L", "105272-9"), None),
        (measured(2.1, "mmol/L", "105272-9"), "doubtful"),
        (measured(104, "mmol/L", "105272-9"), "refused"),
        (measured(104, "mmol/L"), "refused"),  # the unit says what it is
        (measured(5.6, "mg/dL", "105272-9"), "doubtful"),
        (measured(104, "kg", "29463-7"), None),
        (measured(9999, "kg", "29463-7"), "refused"),
        (measured(9999, "1", "3141-9"), None),  # nothing is known of this code
    ],
)
async def test_by_code_and_unit(camille: Actor, elements: dict[str, Any], verdict: str | None) -> None:
    answer = await camille.post("Observation", observation(camille.patient, **elements))
    if verdict == "refused":
        assert (answer.status_code, issues(answer)[0]["code"]) == (422, "business-rule")
        assert expression(answer) == "Observation.value"
        return
    assert answer.status_code == 201
    assert answer.json()["meta"].get("tag") == (DOUBTFUL if verdict else None)


@pytest.mark.parametrize(
    ("unit", "system", "code", "is_taken"),
    [
        ("mg/dL", UCUM, "99504-3", True),
        ("mmol/L", UCUM, "105272-9", True),
        ("mgdl", UCUM, "99504-3", False),
        ("mgdl", None, "99504-3", False),
        ("mg/dL", None, "99504-3", False),
        ("g/L", UCUM, "105272-9", False),
        ("g/L", UCUM, "2345-7", True),  # of a laboratory, which says it in its own way
        ("mgdl", None, "3141-9", True),  # nothing is known of this code
    ],
)
async def test_what_a_sensor_shows_is_in_a_unit_that_is_known(
    camille: Actor, unit: str, system: str | None, code: str, is_taken: bool
) -> None:
    sent = measured(5.6, unit, code)
    if system is None:
        del sent["valueQuantity"]["system"], sent["valueQuantity"]["code"]
    answer = await camille.post("Observation", observation(camille.patient, **sent))
    assert answer.status_code == (201 if is_taken else 422)
    if not is_taken:
        assert (issues(answer)[0]["code"], expression(answer)) == ("code-invalid", "Observation.value")
    nothing = {key: value for key, value in sent.items() if key != "valueQuantity"}
    absent = {"dataAbsentReason": concept("http://terminology.hl7.org/CodeSystem/data-absent-reason", "error")}
    said = {key: value for key, value in observation(camille.patient).items() if key != "valueQuantity"} | nothing | absent
    assert (await camille.post("Observation", said)).status_code == 201


def moment(ahead: timedelta) -> str:
    return (datetime.now(UTC) + ahead).isoformat(timespec="seconds")


@pytest.mark.parametrize(
    ("when", "why"),
    [
        (moment(timedelta(minutes=5)), None),
        (moment(timedelta(hours=1)), "not come"),
        (moment(timedelta(days=2))[:10], "not come"),
        (moment(timedelta(0))[:10], None),
        ("1980-06-15T08:00:00Z", None),
        ("1980-06-14T23:00:00-05:00", None),  # the day began elsewhere
        ("1980-06-13T08:00:00Z", "born"),
        ("1979", "born"),
        ("0001-01-01", "born"),
        ("9999-12-31T23:59:59-12:00", "not come"),
        ("1980", None),
    ],
)
async def test_by_time(camille: Actor, when: str, why: str | None) -> None:
    answer = await camille.post("Observation", observation(camille.patient, effectiveDateTime=when))
    if why is None:
        assert answer.status_code == 201, answer.text
        return
    assert (answer.status_code, expression(answer)) == (422, "Observation.effective")
    assert why in issues(answer)[0]["diagnostics"]


async def test_a_birth_date_that_is_put_right_counts_at_once(world: World, camille: Actor) -> None:
    early = observation(camille.patient, effectiveDateTime="1975-01-01T08:00:00Z")
    assert (await camille.post("Observation", early)).status_code == 422
    there = (await world.operator.get(f"Patient/{camille.patient}")).json()
    answer = await world.operator.put(f"Patient/{camille.patient}", there | {"birthDate": "1970-01-01"})
    assert answer.status_code == 200
    assert (await camille.post("Observation", early)).status_code == 201
    unknown = await world.patient_actor((await world.operator.create(patient()))["id"])
    assert (await unknown.post("Observation", observation(unknown.patient, effectiveDateTime="1875-01-01"))).status_code == 201


async def test_who_may_not_write_learns_no_birth_date(world: World, camille: Actor) -> None:
    stranger = await world.app(camille)
    early = observation(camille.patient, effectiveDateTime="1875-01-01T08:00:00Z")
    late = observation(camille.patient)
    answers = [await stranger.post("Observation", body) for body in (early, late)]
    assert answers[0].status_code == answers[1].status_code == 422
    assert answers[0].json() == answers[1].json()


async def test_the_flag_is_the_services_own(camille: Actor) -> None:
    kept = {"system": "https://app.example/tags", "code": "night"}
    sent = observation(camille.patient, meta={"tag": [kept, *DOUBTFUL]})
    made = await camille.create(sent)
    assert made["meta"]["tag"] == [kept]
    low = await camille.put(f"Observation/{made['id']}", made | measured(30))
    assert low.json()["meta"]["tag"] == [kept, *DOUBTFUL]
    again = await camille.put(f"Observation/{made['id']}", low.json() | measured(90))
    assert again.json()["meta"]["tag"] == [kept]


async def test_a_doubtful_reading_sent_again_is_known(camille: Actor) -> None:
    sent = observation(camille.patient, **measured(30))
    first = await camille.post("Observation", sent)
    for body in (sent, dict(reversed(list(sent.items())))):
        again = await camille.post("Observation", body)
        assert (again.status_code, again.headers["ETag"]) == (200, first.headers["ETag"])


ROW = '[[measure]]\ncode = "a|b"\nunit = "c|d"\npossible = [1, 9]\nlikely = '


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("measure = []", "ahead_minutes"),
        ("ahead_minutes = -1\nmeasure = []", "ahead_minutes"),
        (f"ahead_minutes = 1\n{ROW}[0, 9]", r"measure\[0\].likely"),
        (f"ahead_minutes = 1\n{ROW}[5, 4]", r"measure\[0\].likely"),
        (f"ahead_minutes = 1\n{ROW}[2, 3]\n{ROW}[2, 3]", r"measure\[1\].code"),
    ],
)
def test_a_table_that_contradicts_itself_stops_the_start(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "plausible.toml").write_text(text)
    with pytest.raises(SchemaError, match=key):
        read_plausibility(tmp_path)
