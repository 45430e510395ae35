"""The one error of the gateway, the table of its HTTP statuses, and its OperationOutcome.

Knows: FHIR issue types and the status each one means here.
Must not know: HTTP frameworks, stores, who is calling. Texts never carry values of a resource, a token or a driver's words.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# One row per FHIR issue type we raise (https://hl7.org/fhir/R4/valueset-issue-type.html).
STATUS: Mapping[str, int] = {
    "structure": 400,  # not JSON, unknown element, wrong shape
    "invalid": 400,  # a malformed parameter or header
    "incomplete": 400,  # the request broke off
    "too-long": 413,
    "required": 422,
    "value": 422,
    "invariant": 422,
    "code-invalid": 422,
    "extension": 422,
    "business-rule": 422,
    "too-costly": 422,
    "login": 401,
    "unknown": 401,  # a token nobody issued
    "expired": 401,
    "forbidden": 403,
    "not-found": 404,
    "not-supported": 405,
    "conflict": 409,
    "duplicate": 409,
    "deleted": 410,
    "multiple-matches": 412,
    "throttled": 429,
    "exception": 500,
    "transient": 503,
    "timeout": 504,
}


@dataclass(frozen=True, slots=True)
class Issue:
    """One `OperationOutcome.issue`: what is wrong and, as FHIRPath, with which element or parameter."""

    code: str
    text: str
    expression: str | None = None
    severity: str = "error"

    def element(self) -> dict[str, Any]:
        """The issue as JSON-ready FHIR."""
        issue: dict[str, Any] = {"severity": self.severity, "code": self.code, "diagnostics": self.text}
        if self.expression:
            issue["expression"] = [self.expression]
        return issue


class Problem(Exception):
    """A request that cannot be answered as asked.

    `status` overrides the table where one issue type serves several statuses (a failed `If-Match` is a `conflict`
    with 412); `headers` are added to the HTTP answer (`WWW-Authenticate`, `Retry-After`); `records` names the patients whose
    records were in question when it arose: for the audit, never for the answer.
    """

    def __init__(
        self,
        code: str,
        text: str,
        expression: str | None = None,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        issues: Iterable[Issue] = (),
    ) -> None:
        super().__init__(text)
        self.issues = tuple(issues) or (Issue(code, text, expression),)
        self.code = self.issues[0].code
        self.status = status or STATUS[self.code]
        self.headers = dict(headers or {})
        self.records: tuple[str, ...] = ()

    @classmethod
    def of(cls, issues: Iterable[Issue], *, status: int | None = None) -> "Problem":
        """One problem that lists every issue found; the first one decides the status where none is given."""
        found = tuple(issues)
        return cls(found[0].code, found[0].text, found[0].expression, status=status, issues=found)

    def within(self, path: str) -> "Problem":
        """The same problem seen from outside: every expression is put below `path` (`Bundle.entry[3].resource`)."""
        moved = [Issue(i.code, i.text, _below(path, i.expression), i.severity) for i in self.issues]
        return self._copy(moved, self.records)

    def moved(self, expression: str) -> "Problem":
        """The same problem with another element: where the parameter stands that its expressions name."""
        moved = [Issue(i.code, i.text, expression, i.severity) for i in self.issues]
        return self._copy(moved, self.records)

    def about(self, records: Iterable[str]) -> "Problem":
        """The same problem, for these records unless it names some. A copy: several requests may meet one problem."""
        return self._copy(self.issues, self.records or tuple(records))

    def _copy(self, issues: Iterable[Issue], records: tuple[str, ...]) -> "Problem":
        problem = Problem(self.code, self.issues[0].text, status=self.status, headers=self.headers, issues=issues)
        problem.records = records
        return problem

    def outcome(self) -> dict[str, Any]:
        """The OperationOutcome to send."""
        return operation_outcome(self.issues)


def as_problem(error: Exception, request_id: str) -> Problem:
    """What may be told of an error: a Problem says it itself; of anything else only that it happened, and in which request."""
    known = error if isinstance(error, Problem) else None
    if known is not None and known.code != "exception":
        return known
    return Problem("exception", f"Internal error (request {request_id})").about(known.records if known else ())


def operation_outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    """An OperationOutcome with these issues (https://hl7.org/fhir/R4/operationoutcome.html)."""
    return {"resourceType": "OperationOutcome", "issue": [issue.element() for issue in issues]}


def _below(path: str, expression: str | None) -> str:
    if expression is None:
        return path
    _, dot, rest = expression.partition(".")
    return path + dot + rest
