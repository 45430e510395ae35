"""Reading search parameters into a Clause.

Knows: https://hl7.org/fhir/R4/search.html as far as the registry declares it: types, prefixes, modifiers, escaping.
Must not know: who asks, MongoDB. A parameter, modifier or value that is not understood is refused by name, never skipped.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from gateway.fhir.clause import NOTHING, Clause, Interval, Measure, Test, every, negate, some
from gateway.fhir.dates import EARLIEST, LATEST, Span, read_span
from gateway.fhir.modifiers import contains, of_type, uri_above, uri_below
from gateway.fhir.registry import COMMON_PARAMETERS, ResourceType, SearchParameter
from gateway.fhir.values import escape, fold, string_value, without_version
from gateway.problem import Problem

_PREFIX = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.+)\Z", re.DOTALL)
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?\Z")
_DATE = re.compile(
    r"[0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2}(?:T(?:[01][0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?)?"
    r"(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9]|[+-]14:00)?)?)?)?\Z"
)
_UNSEPARATED = re.compile(r"(?:[^\\,]|\\.)*", re.DOTALL)
_ESCAPED = re.compile(r"\\([\\,|$])")

# A parameter can have more: see `SearchParameter.modifiers`.
_MODIFIERS: Mapping[str, frozenset[str]] = {
    "token": frozenset({"not", "missing"}),
    "date": frozenset({"missing"}),
    "reference": frozenset({"missing", "identifier"}),
    "string": frozenset({"missing", "exact", "contains"}),
    "quantity": frozenset({"missing"}),
    "number": frozenset({"missing"}),
    "uri": frozenset({"missing", "above", "below"}),
    "composite": frozenset({"missing"}),
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
        return self.name if self.modifier is None else f"{self.name}:{self.modifier}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a parameter depends on besides the registry.

    `now`: for the prefix `ap`. `patients`: the ids behind the patient identifiers in the search, looked up beforehand.
    `or_values`: how many values one parameter may list. `base_url`: how this service's own resources are named absolutely.
    """

    now: datetime
    or_values: int
    patients: Mapping[str, str | None]
    base_url: str = ""


def implied_parameters(kind: ResourceType) -> tuple[SearchParameter, ...]:
    """Parameters a type has without declaring them: `patient`, where its resources belong to one."""
    return (_PATIENT,) if kind.patient and not kind.is_raw and "patient" not in kind.search else ()


def find_parameter(kind: ResourceType, name: str) -> SearchParameter | None:
    """The parameter of that name, of the type or common to all; None if there is none."""
    if name in COMMON_PARAMETERS:
        return SearchParameter(name, COMMON_PARAMETERS[name])
    return next((p for p in implied_parameters(kind) if p.name == name), None) or kind.search.get(kind.aliases.get(name, name))


def modifiers_of(parameter: SearchParameter) -> list[str]:
    """The modifiers that a parameter takes here, besides the types that a reference may name."""
    return sorted(_MODIFIERS[parameter.type] | parameter.modifiers)


def split_name(name: str) -> tuple[str, str | None]:
    """`code:not` as name and modifier."""
    base, colon, modifier = name.partition(":")
    return base, modifier if colon else None


def patient_identifiers(kind: ResourceType, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The patient identifiers (`system|value`) that a search names in place of an id, in any spelling of that."""
    # French documents use both patient.identifier and patient:identifier (PDSm, API Mesures).
    return [_token(value) for name, raw in pairs if _names_patient_identifier(kind, name) for value in _split(raw)]


def read_parameter(kind: ResourceType, name: str, value: str, reading: Reading) -> Clause:
    """The clause of one `name=value`. Raises Problem naming the parameter."""
    base, modifier = split_name(name)
    if _names_patient_identifier(kind, name):
        ids = [reading.patients.get(_token(one)) for one in _values(Asked(name, None, value), reading)]
        return some(*(Test("patient", "is", found) for found in ids if found))
    parameter = find_parameter(kind, base)
    if parameter is None:
        raise Problem("not-supported", f"{kind.name} has no search parameter '{clip(base)}'", clip(base), status=400)
    asked = Asked(base, modifier, value)
    if not parameter.any_of:
        return _read_declared(kind, parameter, asked, reading)
    # What is asked holds for one of several parameters; what is denied holds for none of them.
    parts = [_read_declared(kind, kind.search[part], asked, reading) for part in parameter.any_of]
    denies = modifier == "not" or (modifier == "missing" and value == "true")
    return every(*parts) if denies else some(*parts)


def read_parameters(kind: ResourceType, pairs: Iterable[tuple[str, str]], reading: Reading) -> Clause:
    """The clause of a whole search: repeated parameters are all required."""
    return every(*(read_parameter(kind, name, value, reading) for name, value in pairs))


def _read_declared(kind: ResourceType, parameter: SearchParameter, asked: Asked, reading: Reading) -> Clause:
    """The clause of what was asked, compared with the values of one parameter."""
    if asked.modifier is not None:
        asked = _apply_modifier(parameter, asked)
    if asked.modifier == "missing":
        if asked.value not in ("true", "false"):
            raise _refuse(asked, "takes true or false")
        absent = [Test(name, "missing", asked.value == "true") for name in _names_stored(parameter)]
        return some(*absent) if asked.value == "true" else every(*absent)
    if parameter.type == "composite":
        parts = [kind.search[name] for name in parameter.of]
        return some(*(_read_composite(parameter, parts, asked, one, reading) for one in _values(asked, reading)))
    clause = some(*(_read_value(parameter, asked, one, reading) for one in _values(asked, reading)))
    return negate(clause) if asked.modifier == "not" else clause


def _values(asked: Asked, reading: Reading) -> list[str]:
    """The values a parameter lists, still escaped: at least one, none of them empty."""
    values = _split(asked.value)
    if len(values) > reading.or_values:
        raise Problem("too-costly", f"'{asked.text}' lists more than {reading.or_values} values", asked.text, status=400)
    if not all(values):
        raise _refuse(asked, "has an empty value")
    return values


def _names_patient_identifier(kind: ResourceType, name: str) -> bool:
    base, separator, tail = name.partition("." if "." in name else ":")
    if not separator or tail != "identifier":
        return False
    parameter = find_parameter(kind, base.removesuffix(":Patient"))
    return parameter is not None and parameter.field == "patient"


def _apply_modifier(parameter: SearchParameter, asked: Asked) -> Asked:
    """`subject:Patient=7` is `subject=Patient/7`; any other modifier must be one of the parameter's type."""
    if parameter.type == "reference" and asked.modifier in parameter.targets:
        values = _split(asked.value)
        if any("/" in value for value in values):
            raise _refuse(asked, "is an id, because the modifier says the type")
        return Asked(asked.name, None, ",".join(value and f"{asked.modifier}/{value}" for value in values))
    if asked.modifier not in _MODIFIERS[parameter.type] | parameter.modifiers:
        raise Problem(
            "not-supported",
            f"'{clip(asked.text)}': no such modifier for a {parameter.type} parameter here",
            asked.name,
            status=400,
        )
    return asked


def _read_composite(
    parameter: SearchParameter, parts: list[SearchParameter], asked: Asked, value: str, reading: Reading
) -> Clause:
    """`code$value`: both hold, for one and the same element where there can be several."""
    values = _split(value, "$")
    if len(values) != len(parts) or not all(values):
        raise _refuse(asked, f"is {'$'.join(part.name for part in parts)}")
    clause = every(*(_read_value(part, asked, one, reading) for part, one in zip(parts, values, strict=True)))
    return clause if clause == NOTHING or not parameter.readers else Test(parameter.name, "holds", clause)


def _read_modified(parameter: SearchParameter, asked: Asked, value: str) -> Clause | None:
    """The clause of a value whose modifier gives it another meaning; None for all others."""
    name = _stored_name(parameter)
    try:
        match parameter.type, asked.modifier:
            case "string", "contains":
                return contains(name, _unescape(value))
            case "token", "text":
                return contains(f"{name}:text", _unescape(value))
            case "token", "of-type":
                return of_type(name, [_unescape(part) for part in _split(value, "|")])
            case "token", "above" | "below" if parameter.levels is not None:
                system, code = _token_parts(value)
                found = parameter.levels.below(code) if asked.modifier == "below" else parameter.levels.above(code)
                return some(*(Test(name, "is", escape(one)) for one in found if system in (None, parameter.system)))
            case "uri", "above":
                return uri_above(name, _unescape(value))
            case "uri", "below":
                return uri_below(name, _unescape(value))
    except ValueError as error:
        raise _refuse(asked, str(error)) from None
    return None


def _read_value(parameter: SearchParameter, asked: Asked, value: str, reading: Reading) -> Clause:
    modified = _read_modified(parameter, asked, value) if asked.modifier else None
    if modified is not None:
        return modified
    match parameter.type:
        case "token":
            return _read_token(parameter, asked, value)
        case "date":
            return _read_date(parameter, asked, value, reading)
        case "reference":
            return _read_reference(parameter, asked, value, reading)
        case "string":
            return _read_string(parameter, asked, value)
        case "quantity":
            return _read_quantity(parameter, asked, value)
        case "number":
            op, interval = _read_number(asked, value)
            return Test(parameter.name, op, interval)
        case _:  # (what is here is named without the address of this service)
            return Test(_stored_name(parameter), "is", _unescape(value).removeprefix(f"{reading.base_url}/"))


def _read_token(parameter: SearchParameter, asked: Asked, value: str) -> Clause:
    clause = _read_stored_token(parameter, asked, value)
    says_absent = parameter.absent is not None and _token_parts(value)[1] == parameter.absent
    return some(clause, Test(parameter.name, "missing", True)) if says_absent else clause


def _read_stored_token(parameter: SearchParameter, asked: Asked, value: str) -> Clause:
    system, code = _token_parts(value)
    name = _stored_name(parameter)
    if system is None:
        return Test(name, "is", code if name == "_id" else escape(code))
    if not system and not code:
        raise _refuse(asked, "has neither system nor code")
    if parameter.system is not None:  # a bare code element: its system is fixed by the standard and not stored
        if system != parameter.system:
            return some()
        return Test(name, "is", escape(code)) if code else Test(name, "missing", False)
    if not code:
        return Test(name, "starts", f"{escape(system)}|")
    return Test(name, "is", _token(value))


def _token(value: str) -> str:
    """A token search value as `values.token_values` spells it."""
    system, code = _token_parts(value)
    return escape(code) if system is None else f"{escape(system)}|{escape(code)}"


def _token_parts(value: str) -> tuple[str | None, str]:
    """System and code of a token search value; the system is None where none is said, empty where there is to be none."""
    first, *others = [_unescape(part) for part in _split(value, "|")]
    return (first, "|".join(others)) if others else (None, first)


def _read_date(parameter: SearchParameter, asked: Asked, value: str, reading: Reading) -> Clause:
    prefix, text = _split_prefix(_unescape(value))
    text = text.replace(" ", "+")  # an unescaped + of a zone arrives as a space
    try:
        if not _DATE.match(text):
            raise ValueError
        span = read_span(text)
    except ValueError:
        raise _refuse(asked, "is not a FHIR date") from None
    if prefix == "ap":
        # (in whole milliseconds, which is all that a stored date holds)
        slack = timedelta(milliseconds=abs(reading.now - span.low) // timedelta(milliseconds=10))
        low = span.low - slack if span.low - EARLIEST > slack else EARLIEST
        high = span.high + slack if LATEST - span.high > slack else LATEST
        return Test(parameter.name, "overlaps", Span(low, high))
    return Test(parameter.name, prefix, span)


def _read_reference(parameter: SearchParameter, asked: Asked, value: str, reading: Reading) -> Clause:
    if asked.modifier == "identifier":
        return _read_token(SearchParameter(f"{parameter.name}:identifier", "token"), asked, value)
    reference = _unescape(value)
    if reading.base_url:
        reference = reference.removeprefix(f"{reading.base_url}/")
    reference = without_version(reference)
    target, slash, identifier = reference.rpartition("/")
    if parameter.field == "patient":
        known = not slash or target == "Patient"
        return Test("patient", "is", identifier) if known else some()
    if slash or ":" in reference:
        return Test(parameter.name, "is", reference)
    return some(*(Test(parameter.name, "is", f"{target}/{reference}") for target in parameter.targets))


def _read_string(parameter: SearchParameter, asked: Asked, value: str) -> Clause:
    text = _unescape(value)
    if asked.modifier == "exact":
        return Test(parameter.name, "is", string_value(text))
    if not fold(text):
        raise _refuse(asked, "has nothing to compare")
    return Test(parameter.name, "starts", fold(text))


def _read_quantity(parameter: SearchParameter, asked: Asked, value: str) -> Clause:
    parts = [_unescape(part) for part in _split(value, "|")]
    op, interval = _read_number(asked, parts[0])
    if len(parts) == 1:
        return Test(parameter.name, op, Measure(interval, None))
    if len(parts) != 3 or not parts[2]:
        raise _refuse(asked, "is a number, or a number|system|code")
    unit = f"{escape(parts[1])}|{escape(parts[2])}" if parts[1] else escape(parts[2])
    return Test(parameter.name, op, Measure(interval, unit))


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


def _names_stored(parameter: SearchParameter) -> tuple[str, ...]:
    """Under which names the values of a parameter are stored: those of its parts for a composite of the resource itself."""
    return parameter.of if parameter.of and not parameter.readers else (_stored_name(parameter),)


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
