"""SMART on FHIR scopes (https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html).

Knows: the full grammar of resource scopes, v2 and v1, and what a granted scope allows as a Clause.
Must not know: consents, who the caller is beyond the patient in context.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from gateway.fhir.clause import EVERYTHING, Clause, Test, every, some
from gateway.fhir.registry import Registry, ResourceType
from gateway.fhir.search import Reading, clip, read_parameter
from gateway.problem import Problem

# The query part has the scope-token characters of RFC 6749 §3.3: printable ASCII without space, `"` and `\`.
_SCOPE = re.compile(
    r"(?P<level>patient|user|system)/(?P<type>\*|[A-Z][A-Za-z]{2,63})"
    r"\.(?P<permissions>\*|read|write|c?r?u?d?s?|\$[a-z-]+)(?:\?(?P<query>[\x21\x23-\x5b\x5d-\x7e]+))?"
)
V1 = {"read": "rs", "write": "cud", "*": "cruds"}
_PARAMETER = re.compile(r"[a-z_][a-z0-9_-]{0,63}")
_LONGEST = 512
# Scopes of SMART and OpenID that carry no right to resources: they are kept and mean nothing here.
_OTHERS = re.compile(r"openid|fhirUser|profile|launch(?:/[a-z]+)?|offline_access|online_access")


@dataclass(frozen=True, slots=True)
class Scope:
    """One granted resource scope. `filters`: what its query part narrows it to.

    `permissions`: letters of cruds or, alone, the name of an operation that is a right of its own.
    """

    level: str
    type: str
    permissions: frozenset[str]
    filters: Clause
    text: str


def parse_scopes(registry: Registry, text: str, reading: Reading) -> tuple[Scope, ...]:
    """The resource scopes in a space-separated list. Raises Problem where one is not of the grammar."""
    parts = text.split(" ")  # no other white space separates (RFC 6749 §3.3)
    return tuple(_parse(registry, part, reading) for part in parts if part and not _OTHERS.fullmatch(part))


def _parse(registry: Registry, text: str, reading: Reading) -> Scope:
    match = _SCOPE.fullmatch(text)
    if match is None or not match["permissions"] or len(text) > _LONGEST:
        raise _invalid(text)
    type_name, permissions, query = match["type"], match["permissions"], match["query"]
    if type_name != "*" and registry.find(type_name) is None:
        raise _invalid(text)
    if permissions.startswith("$"):
        return _parse_operation(registry, match, text)
    filters: Clause = EVERYTHING
    if query is not None:
        # A query on a wildcard or a v1 scope has no defined meaning.
        if type_name == "*" or permissions in V1:
            raise _invalid(text)
        kind = registry[type_name]
        clauses = []
        for part in query.split("&"):
            name, _, value = part.partition("=")
            if not value or not _PARAMETER.fullmatch(name) or name not in kind.scope_parameters:
                raise _invalid(text)  # modifiers, chains and _filter are refused by the same line
            try:
                value = unquote(value, errors="strict")
            except UnicodeDecodeError:
                raise _invalid(text) from None
            clauses.append(read_parameter(kind, name, value, reading))
        filters = every(*clauses)
    return Scope(match["level"], type_name, frozenset(V1.get(permissions, permissions)), filters, text)


def _parse_operation(registry: Registry, match: re.Match[str], text: str) -> Scope:
    """A scope for an operation, such as `system/Patient.$lookup`: of one type, of nobody's context, with nothing behind it."""
    operation = registry.operations.get(match["permissions"].removeprefix("$"))
    is_right = operation is not None and operation.own_right and match["type"] in operation.types
    if not is_right or match["level"] == "patient" or match["query"] is not None:
        raise _invalid(text)
    return Scope(match["level"], match["type"], frozenset({match["permissions"]}), EVERYTHING, text)


def _invalid(text: str) -> Problem:
    return Problem("invalid", f"'{clip(text)}' is not a scope this gateway knows")


def scope_clause(scopes: Iterable[Scope], kind: ResourceType, permissions: str, patients: Sequence[str]) -> Clause:
    """What the scopes allow of a type: `permissions` (letters of cruds) are all needed, several scopes add up.

    `patient/` scopes reach the patient in context (`patients`: all ids of that person), and what belongs to no patient; without
    a patient in context they reach nothing. `user/` and `system/` scopes set no limit of their own, because rights and consents
    do.
    """
    allowed: list[Clause] = []
    for scope in scopes:
        if scope.type not in ("*", kind.name) or not scope.permissions.issuperset(permissions):
            continue
        if scope.level != "patient":
            allowed.append(scope.filters)
        elif patients:
            allowed.append(every(_within_record(kind, patients), scope.filters))
    return some(*allowed)


def _within_record(kind: ResourceType, patients: Sequence[str]) -> Clause:
    if not kind.in_compartment:
        return EVERYTHING
    own = some(*(Test(kind.owner, "is", patient) for patient in patients))
    return own if kind.is_patient or kind.patient_required else some(own, Test("patient", "missing", True))
