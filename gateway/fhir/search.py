"""Reading search parameters into a Clause.

Knows: https://hl7.org/fhir/R4/search.html as far as the registry declares it: types, prefixes, modifiers, escaping.
Must not know: who asks, MongoDB. A parameter, modifier or value that is not understood is refused by name, never skipped.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gateway.fhir.clause import Clause, Interval, Measure, Test, every, negate, some
from gateway.fhir.dates import EARLIEST, LATEST, Span, read_span
from gateway.fhir.registry import COMMON_PARAMETERS, Registry, ResourceType, SearchParameter
from gateway.fhir.values import escape, fold, string_value
from gateway.problem import Problem

_PREFIX = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.+)\Z", re.DOTALL)
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?\Z")
_DATE = re.compile(
    r"[0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?\Z"
)
_UNSEPARATED = re.compile(r"(?:[^\\,]|\\.)*", re.DOTALL)
_ESCAPED = re.compile(r"\\([\\,|$])")

_MODIFIERS: Mapping[str, frozenset[str]] = {
    "token": frozenset({"not", "missing"}),
    "date": frozenset({"missing"}),
    "reference": frozenset({"missing", "identifier"}),
    "string": frozenset({"missing", "exact"}),
    "quantity": frozenset({"missing"}),
    "number": frozenset({"missing"}),
    "uri": frozenset({"missing"}),
}

_PATIENT = SearchParameter("patient", "reference", targets=("Patient",), definition="clinical-patient", field="patient")


@dataclass(frozen=True, slots=True)
class Asked:
    """A parameter as it was asked: `name`, `modifier` (without colon) and the raw value."""

    name: str
    modifier: str | None
    value: str

    @property
    def text(self) -> str:
        """Name and modifier as they stand in a URL."""
        return f"{self.name}:{self.modifier}" if self.modifier else self.name


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a parameter depends on besides the registry.

    `now`: for the prefix `ap`. `patients`: the ids behind the patient identifiers in the search, looked up beforehand.
    `or_values`: how many values one parameter may list.
    """

    now: datetime
    or_values: int
    patients: Mapping[str, str | None]


def implied_parameters(kind: ResourceType) -> tuple[SearchParameter, ...]:
    """Parameters a type has without declaring them: `patient`, where its resources belong to one."""
    return (_PATIENT,) if kind.patient else ()


def find_parameter(kind: ResourceType, name: str) -> SearchParameter | None:
    """The parameter of that name, of the type or common to all; None if there is none."""
    if name in COMMON_PARAMETERS:
        return SearchParameter(name, COMMON_PARAMETERS[name])
    return next((p for p in implied_parameters(kind) if p.name == name), None) or kind.search.get(name)


def split_name(name: str) -> tuple[str, str | None]:
    """`code:not` as name and modifier."""
    base, colon, modifier = name.partition(":")
    return base, modifier if colon else None


def patient_identifiers(kind: ResourceType, pairs: list[tuple[str, str]]) -> list[str]:
    """The patient identifiers (`system|value`) that a search names in place of an id, in any spelling of that."""
    return [
        value for name, raw in pairs if _names_patient_identifier(kind, name) for value in _split(raw)
    ]  # French documents use both patient.identifier and patient:identifier (PDSm, API Mesures)


def read_parameter(registry: Registry, kind: ResourceType, name: str, value: str, reading: Reading) -> Clause:
    """The clause of one `name=value`. Raises Problem naming the parameter."""
    if _names_patient_identifier(kind, name):
        ids = [reading.patients.get(identifier) for identifier in _split(value)]
        return some(*(Test("patient", "is", found) for found in ids if found))
    base, modifier = split_name(name)
    parameter = find_parameter(kind, base)
    if parameter is None:
        raise Problem("not-supported", f"{kind.name} has no search parameter '{clip(base)}'", clip(base), status=400)
    asked = Asked(base, modifier, value)
    if parameter.any_of:
        return _read_union(registry, kind, parameter, asked, reading)
    if modifier is not None:
        asked, parameter = _apply_type_modifier(parameter, asked)
    if asked.modifier == "missing":
        if value not in ("true", "false"):
            raise _refuse(asked, "takes true or false")
        return Test(_stored_name(parameter), "missing", value == "true")
    values = _split(value)
    if len(values) > reading.or_values:
        raise Problem("too-costly", f"'{asked.text}' lists more than {reading.or_values} values", asked.text, status=400)
    if not all(values):
        raise _refuse(asked, "has an empty value")
    clause = some(*(_read_value(parameter, asked, one, reading) for one in values))
    return negate(clause) if asked.modifier == "not" else clause


def read_parameters(registry: Registry, kind: ResourceType, pairs: list[tuple[str, str]], reading: Reading) -> Clause:
    """The clause of a whole search: repeated parameters are all required."""
    return every(*(read_parameter(registry, kind, name, value, reading) for name, value in pairs))


def _names_patient_identifier(kind: ResourceType, name: str) -> bool:
    base, separator, tail = name.partition("." if "." in name else ":")
    if not separator or tail != "identifier":
        return False
    parameter = find_parameter(kind, base)
    return parameter is not None and parameter.field == "patient"


def _read_union(registry: Registry, kind: ResourceType, parameter: SearchParameter, asked: Asked, reading: Reading) -> Clause:
    """A parameter that stands for several: what is asked holds for one of them, what is denied for none."""
    suffix = f":{asked.modifier}" if asked.modifier else ""
    parts = [read_parameter(registry, kind, f"{name}{suffix}", asked.value, reading) for name in parameter.any_of]
    denies = asked.modifier == "not" or (asked.modifier == "missing" and asked.value == "true")
    return every(*parts) if denies else some(*parts)


def _apply_type_modifier(parameter: SearchParameter, asked: Asked) -> tuple[Asked, SearchParameter]:
    """`subject:Patient=7` is `subject=Patient/7`; any other modifier must be one of the parameter's type."""
    if parameter.type == "reference" and asked.modifier in parameter.targets:
        values = ",".join(v if "/" in v else f"{asked.modifier}/{v}" for v in asked.value.split(","))
        return Asked(asked.name, None, values), parameter
    if asked.modifier not in _MODIFIERS[parameter.type]:
        raise Problem(
            "not-supported",
            f"'{clip(asked.text)}': no such modifier for a {parameter.type} parameter here",
            asked.name,
            status=400,
        )
    return asked, parameter


def _read_value(parameter: SearchParameter, asked: Asked, value: str, reading: Reading) -> Clause:
    match parameter.type:
        case "token":
            return _read_token(parameter, value)
        case "date":
            return _read_date(asked, value, reading)
        case "reference":
            return _read_reference(parameter, asked, value)
        case "string":
            return _read_string(asked, value)
        case "quantity":
            return _read_quantity(asked, value)
        case "number":
            op, interval = _read_number(asked, value)
            return Test(parameter.name, op, interval)
        case _:
            return Test(_stored_name(parameter), "is", _unescape(value))


def _read_token(parameter: SearchParameter, value: str) -> Clause:
    parts = [_unescape(part) for part in _split(value, "|")]
    name = _stored_name(parameter)
    if len(parts) == 1:
        return Test(name, "is", parts[0] if name == "_id" else escape(parts[0]))
    system, code = parts[0], "|".join(parts[1:])
    if parameter.system is not None:  # a bare code element: its system is fixed by the standard and not stored
        return Test(name, "is", escape(code)) if system == parameter.system and code else some()
    if not code:
        return Test(name, "starts", f"{escape(system)}|")
    return Test(name, "is", f"{escape(system)}|{escape(code)}")


def _read_date(asked: Asked, value: str, reading: Reading) -> Clause:
    prefix, text = _split_prefix(_unescape(value))
    text = text.replace(" ", "+")  # an unescaped + of a zone arrives as a space
    try:
        if not _DATE.match(text):
            raise ValueError
        span = read_span(text)
    except ValueError:
        raise _refuse(asked, "is not a FHIR date") from None
    if prefix == "ap":
        slack = abs(reading.now - span.low) * 0.1
        low = span.low - slack if span.low - EARLIEST > slack else EARLIEST
        high = span.high + slack if LATEST - span.high > slack else LATEST
        return Test(asked.name, "overlaps", Span(low, high))
    return Test(asked.name, prefix, span)


def _read_reference(parameter: SearchParameter, asked: Asked, value: str) -> Clause:
    if asked.modifier == "identifier":
        return _read_token(SearchParameter(f"{parameter.name}:identifier", "token"), value)
    reference = _unescape(value)
    target, slash, identifier = reference.rpartition("/")
    if parameter.field == "patient":
        known = not slash or target == "Patient"
        return Test("patient", "is", identifier) if known else some()
    if slash or ":" in reference:
        return Test(parameter.name, "is", reference)
    return some(*(Test(parameter.name, "is", f"{target}/{reference}") for target in parameter.targets))


def _read_string(asked: Asked, value: str) -> Clause:
    text = _unescape(value)
    if asked.modifier == "exact":
        return Test(asked.name, "is", string_value(text))
    if not fold(text):
        raise _refuse(asked, "has nothing to compare")
    return Test(asked.name, "starts", fold(text))


def _read_quantity(asked: Asked, value: str) -> Clause:
    parts = [_unescape(part) for part in _split(value, "|")]
    op, interval = _read_number(asked, parts[0])
    if len(parts) == 1:
        return Test(asked.name, op, Measure(interval, None))
    if len(parts) != 3 or not parts[2]:
        raise _refuse(asked, "is a number, or a number|system|code")
    unit = f"{escape(parts[1])}|{escape(parts[2])}" if parts[1] else escape(parts[2])
    return Test(asked.name, op, Measure(interval, unit))


def _read_number(asked: Asked, value: str) -> tuple[str, Interval]:
    prefix, text = _split_prefix(_unescape(value))
    if not _DECIMAL.match(text):
        raise _refuse(asked, "is not a FHIR number")
    point = Decimal(text)
    if prefix == "ap":
        slack = abs(point) / 10
        return "eq", Interval(float(point - slack), float(point), float(point + slack))
    exponent = point.as_tuple().exponent
    half = Decimal(5).scaleb(int(exponent) - 1)
    return prefix, Interval(float(point - half), float(point), float(point + half))


def _split_prefix(value: str) -> tuple[str, str]:
    match = _PREFIX.match(value)
    return (match[1] or "eq", match[2]) if match else ("eq", value)


def _stored_name(parameter: SearchParameter) -> str:
    return parameter.field or parameter.name


def _split(value: str, separator: str = ",") -> list[str]:
    """Split at unescaped separators; the parts stay escaped."""
    if separator not in value:
        return [value]
    pattern = _UNSEPARATED if separator == "," else re.compile(rf"(?:[^\\{re.escape(separator)}]|\\.)*", re.DOTALL)
    parts, position = [], 0
    while position <= len(value):
        match = pattern.match(value, position)
        part = match[0] if match else ""
        parts.append(part)
        position += len(part) + 1
    return parts


def _unescape(value: str) -> str:
    return _ESCAPED.sub(r"\1", value) if "\\" in value else value


def clip(text: str) -> str:
    """A parameter name as it may stand in an answer: short and printable."""
    return "".join(c if c.isprintable() else "?" for c in text[:60])


def _refuse(asked: Asked, text: str) -> Problem:
    return Problem("invalid", f"the value of '{asked.text}' {text}", asked.text)
