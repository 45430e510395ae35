"""The one error: its statuses, its OperationOutcome, and where it points."""

import pytest
from fhir.resources.R4B.operationoutcome import OperationOutcome

from gateway.problem import STATUS, Issue, Problem, operation_outcome

# https://hl7.org/fhir/R4/valueset-issue-type.html
ISSUE_TYPES = frozenset(
    """invalid structure required value invariant security login unknown expired forbidden suppressed processing not-supported
    duplicate multiple-matches not-found deleted too-long code-invalid extension too-costly business-rule conflict transient
    lock-error no-store exception timeout incomplete throttled informational""".split()
)


@pytest.mark.requirement("CORE-13")
@pytest.mark.parametrize("code", STATUS)
def test_every_code_is_fhirs_and_makes_a_valid_outcome(code: str) -> None:
    assert code in ISSUE_TYPES
    assert 400 <= STATUS[code] < 600
    problem = Problem(code, "what is wrong", "Observation.code")
    assert problem.status == STATUS[code]
    outcome = OperationOutcome.model_validate(problem.outcome())
    assert (outcome.issue[0].code, outcome.issue[0].severity) == (code, "error")
    assert (outcome.issue[0].diagnostics, outcome.issue[0].expression) == ("what is wrong", ["Observation.code"])


def test_a_code_that_is_not_in_the_table_needs_a_status() -> None:
    with pytest.raises(KeyError):
        Problem("suppressed", "x")
    assert Problem("suppressed", "x", status=403).status == 403


def test_an_issue_without_place_has_no_expression() -> None:
    for nowhere in (None, ""):
        assert operation_outcome([Issue("invalid", "x", nowhere)])["issue"] == [
            {"severity": "error", "code": "invalid", "diagnostics": "x"}
        ]


def test_several_issues_are_one_problem_and_the_first_decides() -> None:
    problem = Problem.of([Issue("required", "a", "Observation.code"), Issue("structure", "b", "Observation.foo", "warning")])
    assert (problem.code, problem.status, str(problem)) == ("required", 422, "a")
    assert [(issue["code"], issue["severity"]) for issue in problem.outcome()["issue"]] == [
        ("required", "error"),
        ("structure", "warning"),
    ]


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("Observation.code.coding[0]", "Bundle.entry[3].resource.code.coding[0]"),
        ("Observation", "Bundle.entry[3].resource"),
        (None, "Bundle.entry[3].resource"),
    ],
)
def test_within_points_from_outside_and_keeps_the_rest(inner: str | None, outer: str) -> None:
    problem = Problem("conflict", "x", inner, status=412, headers={"Retry-After": "1"})
    problem.records = ("abc-1",)
    moved = problem.within("Bundle.entry[3].resource")
    assert moved.issues == (Issue("conflict", "x", outer),)
    assert (moved.code, moved.status, moved.headers, moved.records) == ("conflict", 412, {"Retry-After": "1"}, ("abc-1",))
    assert problem.issues[0].expression == inner  # the first one is as it was


def test_headers_are_the_problems_own() -> None:
    shared = {"Retry-After": "1"}
    Problem("transient", "x", headers=shared).headers["X"] = "y"
    assert shared == {"Retry-After": "1"}
