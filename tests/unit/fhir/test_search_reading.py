"""Search parameters are read as the FHIR R4 search page says, or refused by name: every type, prefix, modifier and escape."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.clause import EVERYTHING, NOTHING, Clause, Interval, Measure, matches
from gateway.fhir.clause import Test as Comparison  # (pytest would take a class called Test for tests)
from gateway.fhir.dates import Span, read_span
from gateway.fhir.registry import Registry
from gateway.fhir.search import Reading, patient_identifiers, read_parameter, read_parameters
from gateway.fhir.values import fold, hull, string_value, token_values
from gateway.problem import Problem
from tests.searches import DATES, QUANTITIES, STRINGS, TOKENS, UCUM

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
READING = Reading(now=NOW, or_values=5, patients={}, base_url="https://gateway.example/fhir")


def read(registry: Registry, query: str, reading: Reading = READING) -> Clause:
    type_name, _, parameter = query.partition("?")
    name, _, value = parameter.partition("=")
    return read_parameter(registry[type_name], name, value, reading)


def refused(registry: Registry, query: str, reading: Reading = READING) -> Problem:
    with pytest.raises(Problem) as caught:
        read(registry, query, reading)
    assert caught.value.status == 400
    return caught.value


def holds(clause: Clause, **values: Any) -> bool:
    return matches(clause, {"_id": "x", "search": values})


# Tokens


@pytest.mark.requirement("SRCH-05")
@pytest.mark.parametrize(
    ("asked", "system", "code", "found"),
    TOKENS,
)
def test_tokens(registry: Registry, asked: str, system: str | None, code: str, found: bool) -> None:
    stored = [*token_values(system, code)]
    assert holds(read(registry, f"Observation?code={asked}"), code=stored) is found
    assert holds(read(registry, f"Observation?code:not={asked}"), code=stored) is not found


GENDER = "http://hl7.org/fhir/administrative-gender"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("female", True),
        (f"{GENDER}|female", True),
        (f"{GENDER}|", True),
        (f"{GENDER}|male", False),
        ("http://other.org|female", False),
        ("http://other.org|", False),
        ("|female", False),
        ("male,female", True),
    ],
)
def test_a_bare_code_has_the_system_of_its_value_set(registry: Registry, asked: str, found: bool) -> None:
    assert holds(read(registry, f"Patient?gender={asked}"), gender=["female"]) is found
    assert not holds(read(registry, f"Patient?gender={asked}"))


@pytest.mark.parametrize(("asked", "found"), [("true", True), ("false", False), ("TRUE", False)])
def test_booleans_are_tokens(registry: Registry, asked: str, found: bool) -> None:
    assert holds(read(registry, f"Patient?active={asked}"), active=["true"]) is found


def test_repetition_is_and_and_comma_is_or(registry: Registry) -> None:
    values = {"category": ["laboratory"], "code": ["a"]}
    pairs = [("category", "laboratory,vital-signs"), ("code", "a,b")]
    assert holds(read_parameters(registry["Observation"], pairs, READING), **values)
    assert not holds(read_parameters(registry["Observation"], [*pairs, ("code", "b")], READING), **values)
    assert read_parameters(registry["Observation"], [], READING) == EVERYTHING


def test_not_is_about_all_of_the_values(registry: Registry) -> None:
    clause = read(registry, "Observation?code:not=a,b")
    assert not holds(clause, code=["a", "c"])
    assert holds(clause, code=["c"])
    assert holds(clause)


# Union parameters


@pytest.mark.parametrize(
    ("query", "code", "component", "found"),
    [
        ("combo-code=a", ["a"], None, True),
        ("combo-code=a", ["b"], ["a"], True),
        ("combo-code=a", ["b"], ["b"], False),
        ("combo-code:not=a", ["b"], ["a"], False),
        ("combo-code:not=a", ["b"], None, True),
        ("combo-code:missing=true", None, None, True),
        ("combo-code:missing=true", None, ["a"], False),
        ("combo-code:missing=false", None, ["a"], True),
        ("combo-code:missing=false", None, None, False),
    ],
)
def test_a_parameter_that_stands_for_several(
    registry: Registry, query: str, code: list[str] | None, component: list[str] | None, found: bool
) -> None:
    values = {name: value for name, value in {"code": code, "component-code": component}.items() if value}
    assert holds(read(registry, f"Observation?{query}"), **values) is found


@pytest.mark.requirement("CORE-15")
def test_a_refusal_names_the_parameter_that_was_asked_not_its_parts(registry: Registry) -> None:
    for value in ("combo-code:above=a", "combo-code=a,,b", "combo-code:missing=maybe", "combo-code=1,2,3,4,5,6"):
        problem = refused(registry, f"Observation?{value}")
        assert problem.issues[0].expression is not None
        assert problem.issues[0].expression.startswith("combo-code"), value
        assert "'combo-code" in problem.issues[0].text


# Dates


def span_of(text: str) -> dict[str, Any]:
    """What is stored of a date, or of a period `start/end` of which either may be left out."""
    start, slash, end = text.partition("/")
    if not slash:
        return hull([read_span(text)])
    low = read_span(start).low if start else read_span("0001").low
    high = read_span(end).high if end else read_span("9999").high
    return hull([Span(low, high)])


@pytest.mark.requirement("SRCH-04")
@pytest.mark.parametrize(("stored", "asked", "found"), DATES)
def test_dates(registry: Registry, stored: str, asked: str, found: str) -> None:
    assert holds(read(registry, f"Observation?date={asked}"), date=span_of(stored)) is (found)


@pytest.mark.parametrize("prefix", ["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"])
def test_no_prefix_finds_what_has_no_date(registry: Registry, prefix: str) -> None:
    assert not holds(read(registry, f"Observation?date={prefix}2026"))


def test_a_plus_that_arrived_as_a_space_is_a_zone(registry: Registry) -> None:
    assert read(registry, "Observation?date=2026-11-20T08:30 01:00") == read(
        registry, "Observation?date=2026-11-20T08:30+01:00"
    )


@pytest.mark.requirement("SRCH-10")
@pytest.mark.parametrize(
    "value",
    ["", "tomorrow", "20", "2026-1", "2026-13", "2026-00", "2026-02-30", "2025-02-29", "0000", "26-11-20", "2026/11/20",
     "20261120", "2026-11-20T", "2026-11-20T08", "2026-11-20T24:00", "2026-11-20T08:60", "2026-11-20T08:30:61",
     "2026-11-20T08:30:00.Z",
     "2026-11-20T08:30+1", "2026-11-20T08:30+24:00", "2026-11-20T08:30+14:30", "2026-11-20T08:30z", "2026-11-20 08:30",
     "gt", "xx2026", "GT2026", "gtlt2026", "2026,", ",2026", "2026-11-20T08:30Z\n", "２０２６", "-2026", "12026"],
)  # fmt: skip
def test_what_is_no_date_is_refused_by_name(registry: Registry, value: str) -> None:
    problem = refused(registry, f"Observation?date={value}")
    assert (problem.code, problem.issues[0].expression) == ("invalid", "date")
    assert not value or value not in problem.issues[0].text


@given(st.dates(min_value=datetime(1900, 1, 1).date()), st.sampled_from(["gt", "lt", "ge", "le", "sa", "eb", "ne"]))
@settings(max_examples=80, deadline=None)
def test_prefixes_are_consistent(registry: Registry, day: Any, prefix: str) -> None:
    """For days, the prefixes are the comparisons of whole days."""
    asked, stored = "2026-06-15", day.isoformat()
    expected = {"gt": stored > asked, "sa": stored > asked, "lt": stored < asked, "eb": stored < asked,
                "ge": stored >= asked, "le": stored <= asked, "ne": stored != asked}[prefix]  # fmt: skip
    assert holds(read(registry, f"Observation?date={prefix}{asked}"), date=span_of(stored)) is expected


# References


@pytest.mark.parametrize(
    ("query", "stored", "found"),
    [
        ("Observation?device=Device/7", "Device/7", True),
        ("Observation?device=7", "Device/7", True),
        ("Observation?device=7", "DeviceMetric/7", True),
        ("Observation?device:Device=7", "Device/7", True),
        ("Observation?device:Device=7", "DeviceMetric/7", False),
        ("Observation?device:Device=6,7", "Device/7", True),
        ("Observation?device=Device/8", "Device/7", False),
        ("Observation?device=Device/7/_history/2", "Device/7", True),
        ("Observation?device=https://gateway.example/fhir/Device/7", "Device/7", True),
        ("Observation?device=https://gateway.example/fhir/Device/7/_history/2", "Device/7", True),
        ("Observation?device=https://other.example/fhir/Device/7", "Device/7", False),
        ("Observation?device=https://other.example/fhir/Device/7", "https://other.example/fhir/Device/7", True),
        ("Observation?device=7", "https://other.example/fhir/Device/7", False),
        ("Observation?device=urn:uuid:0d5c", "urn:uuid:0d5c", True),
        ("List?item=7", "Observation/7", True),
        ("List?item=7", "Consent/7", True),
        ("List?item:Observation=7", "Observation/7", True),
        ("List?item:Observation=7", "Consent/7", False),
        ("ServiceRequest?instantiates-canonical=http://x.example/PlanDefinition/1", "http://x.example/PlanDefinition/1", True),
    ],
)
def test_references(registry: Registry, query: str, stored: str, found: bool) -> None:
    name = query.partition("?")[2].partition("=")[0].partition(":")[0]
    assert holds(read(registry, query), **{name: [stored]}) is found


@pytest.mark.parametrize("name", ["patient", "subject", "subject:Patient"])
def test_the_patient_of_a_record(registry: Registry, name: str) -> None:
    spellings = ["7"] if ":" in name else ["7", "Patient/7", "https://gateway.example/fhir/Patient/7", "Patient/7/_history/1"]
    for value in spellings:
        assert read(registry, f"Observation?{name}={value}") == Comparison("patient", "is", "7")


@pytest.mark.parametrize("value", ["Device/7", "https://other.example/fhir/Patient/7", "https://gateway.example/fhir/Device/7"])
def test_who_is_no_patient_here_has_no_record(registry: Registry, value: str) -> None:
    assert read(registry, f"Observation?patient={value}") == NOTHING


@pytest.mark.requirement("SRCH-06")
@pytest.mark.parametrize("name", ["patient:identifier", "patient.identifier", "subject:identifier", "subject.identifier"])
def test_a_patient_is_named_by_identifier(registry: Registry, name: str) -> None:
    kind = registry["Observation"]
    assert patient_identifiers(kind, [(name, r"urn:ins|1\,2,urn:ins|3"), ("code", "x")]) == ["urn:ins|1,2", "urn:ins|3"]
    known = replace(READING, patients={"urn:ins|1,2": "a", "urn:ins|3": None})
    assert read_parameter(kind, name, r"urn:ins|1\,2", known) == Comparison("patient", "is", "a")
    assert read_parameter(kind, name, "urn:ins|3", known) == NOTHING
    with pytest.raises(Problem) as caught:
        read_parameter(kind, name, ",".join("abcdef"), known)
    assert (caught.value.status, caught.value.issues[0].expression) == (400, name)


def test_logical_references_are_found_by_identifier(registry: Registry) -> None:
    clause = read(registry, "Observation?performer:identifier=urn:rpps|1")
    assert holds(clause, **{"performer:identifier": ["urn:rpps|1", "1"]})
    assert not holds(clause, performer=["urn:rpps|1"])


# Strings


@pytest.mark.parametrize(
    ("query", "stored", "found"),
    STRINGS,
)
def test_strings(registry: Registry, query: str, stored: str, found: bool) -> None:
    assert holds(read(registry, f"Patient?family{query}"), family=[string_value(stored)]) is found


@given(st.text(min_size=1))
@settings(max_examples=200, deadline=None)
def test_folding_is_done_once_and_for_all(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert fold(text.upper()) == fold(text.upper().lower().upper())


def test_a_string_without_content_is_refused(registry: Registry) -> None:
    assert refused(registry, "Patient?family= ").issues[0].expression == "family"


# Numbers and quantities


@pytest.mark.parametrize(
    ("asked", "interval"),
    [
        ("5.4", (5.35, 5.4, 5.45)),
        ("5.40", (5.395, 5.4, 5.405)),
        ("100", (99.5, 100, 100.5)),
        ("1e2", (50, 100, 150)),
        ("1.0e2", (95, 100, 105)),
        ("-3", (-3.5, -3, -2.5)),
        ("0", (-0.5, 0, 0.5)),
        ("0.0000001", (0.00000005, 0.0000001, 0.00000015)),
    ],
)
def test_a_number_stands_for_the_range_of_its_precision(registry: Registry, asked: str, interval: tuple[float, ...]) -> None:
    clause = read(registry, f"Observation?value-quantity={asked}")
    assert clause == Comparison("value-quantity", "eq", Measure(Interval(*map(float, interval)), None))


@pytest.mark.parametrize(
    ("asked", "value", "found"),
    QUANTITIES,
)
def test_quantities(registry: Registry, asked: str, value: float, found: bool) -> None:
    units = [*token_values(UCUM, "mg/dL"), "milligram per decilitre"]
    assert (
        holds(read(registry, f"Observation?value-quantity={asked}"), **{"value-quantity": [{"v": value, "u": units}]}) is found
    )


@pytest.mark.requirement("SRCH-10")
@pytest.mark.parametrize(
    "value",
    ["", "five", "5,", "5.", ".5", "+5", "05", "1e", "0x10", "1_000", "NaN", "Infinity", "5|mg", f"5|{UCUM}|", "5||", "xx5",
     "gt", "5|a|b|c", "1e9999", "٣", "5 mg"],
)  # fmt: skip
def test_what_is_no_quantity_is_refused_by_name(registry: Registry, value: str) -> None:
    problem = refused(registry, f"Observation?value-quantity={value}")
    assert (problem.code, problem.issues[0].expression) == ("invalid", "value-quantity")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**6), max_value=10**6))
@settings(max_examples=100, deadline=None)
def test_a_number_is_within_its_own_range(registry: Registry, number: Decimal) -> None:
    values = {"value-quantity": [{"v": float(number), "u": []}]}
    assert holds(read(registry, f"Observation?value-quantity={number:f}"), **values)
    assert not holds(read(registry, f"Observation?value-quantity=ne{number:f}"), **values)


# URIs


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("https://x.example/a", True),
        ("https://x.example/A", False),
        ("https://x.example/", False),
        ("https://x.example/a/", False),
    ],
)
def test_uris_are_compared_whole(registry: Registry, asked: str, found: bool) -> None:
    assert holds(read(registry, f"Device?url={asked}"), url=["https://x.example/a"]) is found


# Missing


@pytest.mark.parametrize(
    ("type_name", "name"),
    [("Observation", n) for n in ("code", "date", "performer", "value-quantity", "value-string", "patient")]
    + [("Device", "url")],
)
def test_missing(registry: Registry, type_name: str, name: str) -> None:
    assert read(registry, f"{type_name}?{name}:missing=true") == Comparison(name, "missing", True)
    assert read(registry, f"{type_name}?{name}:missing=false") == Comparison(name, "missing", False)
    for value in ("", "yes", "True", "1", "true,false"):
        assert refused(registry, f"{type_name}?{name}:missing={value}").issues[0].expression == f"{name}:missing"
