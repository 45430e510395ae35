"""Whatever a search says that is not understood is refused by name; what looks like an operator is a literal."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.clause import All, Clause, Not
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.clause import Test as Comparison  # (pytest would take a class called Test for tests)
from gateway.fhir.registry import Registry
from gateway.fhir.search import Reading, read_parameter
from gateway.problem import Problem

READING = Reading(now=datetime(2026, 11, 24, 12, tzinfo=UTC), or_values=5, patients={}, base_url="https://gateway.example/fhir")


def read(registry: Registry, query: str) -> Clause:
    type_name, _, parameter = query.partition("?")
    name, _, value = parameter.partition("=")
    return read_parameter(registry[type_name], name, value, READING)


def refused(registry: Registry, query: str) -> Problem:
    with pytest.raises(Problem) as caught:
        read(registry, query)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.requirement("CORE-15")
@pytest.mark.parametrize(
    "name",
    ["foo", "Code", "code ", "_content", "_text", "_query", "_has:Observation:patient:code", "_source", "_tag", "_profile", "",
     "subject.name", "performer.identifier", "patient.name", "code.text", "identifier.value", "$where",
     "search.code", "__proto__"],
)  # fmt: skip
def test_an_unknown_parameter_is_refused_by_name(registry: Registry, name: str) -> None:
    problem = refused(registry, f"Observation?{name}=x")
    assert problem.code == "not-supported"
    assert problem.issues[0].expression == name.partition(":")[0]


@pytest.mark.requirement("CORE-15")
@pytest.mark.parametrize(
    ("name", "modifiers"),
    [
        ("code", "in not-in above below of-type exact identifier contains Not "),
        ("date", "not exact gt contains"),
        ("performer", "not above below exact Observation text patient"),
        ("category", "text above below"),
        ("status", "text of-type in"),
        ("value-string", "not text identifier"),
        ("value-quantity", "not exact"),
        ("code-value-quantity", "not exact text"),
        ("patient", "not exact Device"),
        ("_id", "exact in"),
        ("_lastUpdated", "exact not"),
    ],
)
def test_an_unknown_modifier_is_refused_by_name(registry: Registry, name: str, modifiers: str) -> None:
    for modifier in (*modifiers.split(), ""):
        problem = refused(registry, f"Observation?{name}:{modifier}=x")
        assert problem.code == "not-supported", modifier
        assert problem.issues[0].expression == name
        assert f"'{name}:{modifier}'" in problem.issues[0].text


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("Observation?code=", "empty value"),
        ("Observation?code=a,", "empty value"),
        ("Observation?code=,a", "empty value"),
        ("Observation?code=|", "neither system nor code"),
        ("Observation?performer=", "empty value"),
        ("Observation?patient=", "empty value"),
        ("Observation?device:Device=Device/7", "an id"),
        ("Observation?device:Device=DeviceMetric/7", "an id"),
        ("Observation?device:Device=", "empty value"),
        ("Observation?value-string:contains=", "empty value"),
        ("Observation?value-string:contains= ", "nothing to compare"),
        ("Observation?code:text= ", "nothing to compare"),
        ("Observation?code-value-quantity=99504-3", "code$value-quantity"),
        ("Observation?code-value-quantity=99504-3$", "code$value-quantity"),
        ("Observation?code-value-quantity=$5", "code$value-quantity"),
        ("Observation?code-value-quantity=a$5$6", "code$value-quantity"),
        ("Observation?code-value-quantity=a$ten", "not a FHIR number"),
        ("Observation?code-value-date=a$2026-13", "not a FHIR date"),
        ("DocumentReference?location:below=urn:uuid:1", "not a URL"),
        ("DocumentReference?location:above=http://", "not a URL"),
        ("DocumentReference?location:above=http://a" + "/b" * 60, "too many steps"),
        ("Patient?identifier:of-type=urn:t|MR", "system|code|value"),
        ("Patient?identifier:of-type=urn:t||1", "system|code|value"),
    ],
)
def test_a_value_that_says_nothing_is_refused(registry: Registry, query: str, why: str) -> None:
    assert why in refused(registry, query).issues[0].text


def test_a_parameter_lists_a_limited_number_of_values(registry: Registry) -> None:
    assert isinstance(read(registry, "Observation?code=1,2,3,4,5"), AnyOf)
    problem = refused(registry, "Observation?code=1,2,3,4,5,6")
    assert (problem.code, problem.issues[0].expression) == ("too-costly", "code")


# Operators


@pytest.mark.requirement("SRCH-13")
@pytest.mark.parametrize(
    "text", ['{"$ne": null}', "$where", "$gt", "a.$", "x'; return true; //", "[$ne]", ".*", "(a+)+$", "\0", "a\0b"]
)
@pytest.mark.parametrize("name", ["code", "performer", "value-string", "identifier", "_id"])
def test_operators_are_literals(registry: Registry, name: str, text: str) -> None:
    clause = read(registry, f"Observation?{name}={text.replace(',', chr(92) + ',')}")
    for test in comparisons_in(clause):
        assert isinstance(test.value, str)
        assert test.parameter == name


def comparisons_in(clause: Clause) -> list[Comparison]:
    match clause:
        case Comparison():
            return [clause]
        case Not(part):
            return comparisons_in(part)
        case All(of) | AnyOf(of):
            return [test for part in of for test in comparisons_in(part)]


@given(st.text(max_size=30), st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_whatever_is_asked_is_read_or_refused(registry: Registry, name: str, value: str) -> None:
    for asked in (name, "code", "date", "value-quantity", "value-string", "performer", "patient", "_id", "code:not"):
        problem = problem_of(registry, asked, value)
        assert problem is None or problem.status == 400
        assert problem is None or all(c.isprintable() for c in problem.issues[0].text + (problem.issues[0].expression or ""))


def problem_of(registry: Registry, name: str, value: str) -> Problem | None:
    try:
        read_parameter(registry["Observation"], name, value, READING)
    except Problem as problem:
        return problem
    return None
