"""Holds the parser of scopes to the grammar of SMART App Launch 2.2, and scopes to what they allow."""

from datetime import UTC, datetime

import pytest

from gateway.access.scope import Scope, parse_scopes, scope_clause
from gateway.fhir.clause import EVERYTHING, NOTHING, All, matches
from gateway.fhir.clause import Test as Compare
from gateway.fhir.registry import Registry
from gateway.fhir.search import Reading
from gateway.problem import Problem

READING = Reading(now=datetime(2026, 11, 20, tzinfo=UTC), or_values=50, patients={})
LABORATORY = "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"


def parse(registry: Registry, text: str) -> tuple[Scope, ...]:
    return parse_scopes(registry, text, READING)


@pytest.mark.parametrize(
    ("text", "level", "type_name", "letters"),
    [
        ("patient/Observation.rs", "patient", "Observation", "rs"),
        ("user/Observation.cruds", "user", "Observation", "cruds"),
        ("system/*.s", "system", "*", "s"),
        ("user/DocumentReference.cu", "user", "DocumentReference", "cu"),
        ("patient/Observation.read", "patient", "Observation", "rs"),
        ("patient/Observation.write", "patient", "Observation", "cud"),
        ("user/*.*", "user", "*", "cruds"),
        *[(f"patient/Observation.{letter}", "patient", "Observation", letter) for letter in "cruds"],
    ],
)
def test_good_scopes(registry: Registry, text: str, level: str, type_name: str, letters: str) -> None:
    (scope,) = parse(registry, text)
    assert (scope.level, scope.type, scope.permissions, scope.filters) == (level, type_name, frozenset(letters), EVERYTHING)


@pytest.mark.parametrize(
    ("query", "filters"),
    [
        ("category=laboratory", Compare("category", "is", "laboratory")),
        (f"category={LABORATORY}", Compare("category", "is", LABORATORY)),
        ("category=a,b", "any"),
        ("code=x&category=y", All((Compare("code", "is", "x"), Compare("category", "is", "y")))),
        ("code=x&code=y", All((Compare("code", "is", "x"), Compare("code", "is", "y")))),
        ("code=a%20b", Compare("code", "is", "a b")),
        ("code=a+b", Compare("code", "is", "a+b")),
        ("code=%C3%A9", Compare("code", "is", "é")),
    ],
)
def test_granular_scopes(registry: Registry, query: str, filters: object) -> None:
    (scope,) = parse(registry, f"patient/Observation.rs?{query}")
    if filters == "any":
        assert all(matches(scope.filters, {"search": {"category": [code]}}) for code in "ab")
        assert not matches(scope.filters, {"search": {"category": ["c"]}})
    else:
        assert scope.filters == filters


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"patient/Observation.{wrong}"
            for wrong in ("", "sr", "dus", "dr", "rr", "cruds*", "CRUDS", "x", "readwrite", "r s")
        ),
        *("patient/observation.rs", "patient/Nope.rs", "patient/Encounter.rs", "Patient/Observation.rs", "patient/Observation"),
        *("patient/.rs", "patient/../.rs", "/Observation.rs", "patient/**.rs", "patient/Observation.rs/", "everybody/*.rs"),
        *(
            "patient/Observation.rs?",
            "patient/Observation.rs?category",
            "patient/Observation.rs?category=",
            "patient/*.rs?code=x",
        ),
        *("patient/Observation.read?category=x", "patient/Observation.*?category=x", "patient/Observation.rs?code=x&"),
        *("patient/Observation.rs?code:in=x", "patient/Observation.rs?code:not=x", "patient/Observation.rs?patient.name=x"),
        *("patient/Observation.rs?_filter=x", "patient/Observation.rs?status=final", "patient/Observation.rs?$where=1"),
        *("patient/Observation.rs?_id=x", "patient/Observation.rs?subject=Patient/x"),
        *("patient/Observation.rs\n", "patient/Observation.rs\tpatient/Device.rs", "patient/Observation.rs\u00a0openid"),
        *(
            'patient/Observation.rs?code="x"',
            "patient/Observation.rs?code=a\\,b",
            "patient/Observation.rs?code=é",
            "системa/*.rs",
        ),
        *("patient/Observation.rs?code=%FF", "patient/Observation.rs?code=" + "x" * 512, "launch/Patient", "fhiruser", "admin"),
    ],
)
def test_bad_scopes_are_refused(registry: Registry, text: str) -> None:
    with pytest.raises(Problem) as refused:
        parse(registry, text)
    assert refused.value.status == 400


def test_scopes_that_carry_no_right_are_passed_over(registry: Registry) -> None:
    scopes = parse(registry, "openid fhirUser  profile launch launch/patient offline_access online_access user/Device.r ")
    assert [scope.text for scope in scopes] == ["user/Device.r"]


@pytest.mark.parametrize(
    ("scopes", "letter", "patient", "admitted"),
    [
        ("patient/Observation.r", "r", "0a1-me", True),
        ("patient/Observation.r", "r", "0a1-other", False),
        ("patient/Observation.r", "r", None, False),
        ("patient/Observation.r", "s", "0a1-me", False),
        ("patient/Device.r", "r", "0a1-me", False),
        ("user/*.r", "r", None, True),
        ("system/Observation.cud", "r", "0a1-me", False),
        ("patient/Observation.r?category=x", "r", "0a1-me", False),
        ("patient/Observation.r?category=laboratory", "r", "0a1-me", True),
        ("patient/Observation.r?category=x patient/Observation.r?category=laboratory", "r", "0a1-me", True),
        ("patient/Observation.c?category=laboratory patient/Observation.r?category=x", "r", "0a1-me", False),
        ("patient/Observation.r?category=laboratory&code=x", "r", "0a1-me", False),
    ],
)
def test_what_scopes_allow(registry: Registry, scopes: str, letter: str, patient: str | None, admitted: bool) -> None:
    values = {"_id": "0a1-o", "patient": "0a1-me", "search": {"category": ["laboratory"], "code": ["99504-3"]}}
    clause = scope_clause(parse(registry, scopes), registry["Observation"], letter, [patient] if patient else [])
    assert matches(clause, values) is admitted


def test_no_scope_allows_nothing(registry: Registry) -> None:
    assert scope_clause((), registry["Observation"], "r", ["0a1-me"]) == NOTHING


def test_patient_scopes_reach_directories_and_catalogue_devices(registry: Registry) -> None:
    scopes = parse(registry, "patient/*.r")
    assert scope_clause(scopes, registry["Organization"], "r", ["0a1-me"]) == EVERYTHING
    catalogue = scope_clause(scopes, registry["Device"], "r", ["0a1-me"])
    assert matches(catalogue, {"_id": "0a1-d", "search": {}})
    assert not matches(catalogue, {"_id": "0a1-d", "patient": "0a1-other", "search": {}})
