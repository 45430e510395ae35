"""One language for every limit: a search, a SMART scope, a Consent and a mask are all a `Clause`.

Knows: the shape of a clause, and how to test it against the index values of one resource in memory. Its twin that reads a
clause for MongoDB is `store/filter.py`; a property test holds the two together.
Must not know: where a clause came from, MongoDB.

The index values of a resource are the mapping that the store keeps:
`{"_id", "patient", "source", "labels", "updated", "search": {parameter: values}}`, where values are

- token, reference, uri, string: a list of texts (see `fhir/values.py` for their spelling),
- date: `{"low", "high"}`, the half-open span of all the dates,
- number: a list of floats; quantity: a list of `{"v": float, "u": [unit, …]}`,
- composite: a list of such mappings by parameter, one for each element that has all parts.
"""

import typing
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

import msgspec

from gateway.fhir.dates import Span

Values = Mapping[str, typing.Any]


class Test(msgspec.Struct, frozen=True, gc=False):
    """One comparison of a search parameter with a value.

    `op` and `value`: `is`, `starts` and `contains` (before any NUL) take a text; `missing` a bool; `holds` a clause about the
    parts of one composite value; `beyond`, references: that it names something else than these (or any version of them), or
    nothing; `eq ne lt gt le ge sa eb` (FHIR's prefixes) and `overlaps` take a `Span`, an `Interval` or a
    `Measure`, by the type of the parameter.
    """

    parameter: str
    op: str
    value: typing.Any


class All(msgspec.Struct, frozen=True, gc=False):
    """True where every part is."""

    of: tuple["Clause", ...]


class Any(msgspec.Struct, frozen=True, gc=False):
    """True where at least one part is."""

    of: tuple["Clause", ...]


class Not(msgspec.Struct, frozen=True, gc=False):
    """True where the part is not, a missing value included."""

    clause: "Clause"


Clause = Test | All | Any | Not

NOTHING = Any(())
EVERYTHING = All(())


class Interval(NamedTuple):
    """A number as a search value: the point itself, and the implicit range of its precision, half-open."""

    low: float
    point: float
    high: float


class Measure(NamedTuple):
    """A quantity as a search value. `unit` None: any unit."""

    interval: Interval
    unit: str | None


# Parameters whose values stand beside `search`, because every resource has exactly one (or, labels, one list) of them.
FIELDS: Mapping[str, str] = {
    "_id": "_id",
    "_lastUpdated": "updated",
    "_security": "labels",
    "_source": "source",
    "_depositor": "depositor",
    "_hiddenUntil": "hidden_until",
    "_entity": "event.entities",
    "patient": "patient",
}

INSTANTS = frozenset({"updated", "hidden_until"})  # fields that hold a moment

_MILLISECOND = timedelta(milliseconds=1)


def every(*clauses: Clause) -> Clause:
    """All of these, in the simplest form."""
    of: list[Clause] = []
    for clause in clauses:
        if type(clause) is All:  # (quicker than isinstance, and asked some hundred times for each request)
            of += clause.of
        elif type(clause) is Any and not clause.of:
            return NOTHING
        else:
            of.append(clause)
    return of[0] if len(of) == 1 else All(tuple(of))


def some(*clauses: Clause) -> Clause:
    """At least one of these, in the simplest form."""
    of: list[Clause] = []
    for clause in clauses:
        if type(clause) is Any:
            of += clause.of
        elif type(clause) is All and not clause.of:
            return EVERYTHING
        else:
            of.append(clause)
    return of[0] if len(of) == 1 else Any(tuple(of))


def negate(clause: Clause) -> Clause:
    """The opposite, in the simplest form."""
    if clause == NOTHING:
        return EVERYTHING
    if clause == EVERYTHING:
        return NOTHING
    return clause.clause if isinstance(clause, Not) else Not(clause)


def parts_of(clause: Clause) -> tuple[Clause, ...]:
    """The clauses that must all be true for this one to be."""
    return clause.of if isinstance(clause, All) else (clause,)


def parameters_of(clause: Clause) -> set[str]:
    """The parameters a clause looks at."""
    match clause:
        case Test(parameter):
            return {parameter}
        case Not(part):
            return parameters_of(part)
        case All(of) | Any(of):
            return {name for part in of for name in parameters_of(part)}


def matches(clause: Clause, values: Values) -> bool:
    """Whether the resource with these index values satisfies the clause."""
    match clause:
        case Test():
            return _test(clause, values)
        case All(of):  # (plain loops: this is asked many times for each request)
            for part in of:  # noqa: SIM110
                if not matches(part, values):
                    return False
            return True
        case Any(of):
            for part in of:  # noqa: SIM110
                if matches(part, values):
                    return True
            return False
        case Not(part):
            return not matches(part, values)


def _test(test: Test, values: Values) -> bool:
    if test.parameter == "_entity":
        named = values.get("event", {}).get("entities", ())
        if test.op == "missing":
            return (not named) is test.value
        return not named or any(without_version(one) not in test.value for one in named)
    found = _values_of(test.parameter, values)
    if test.op == "missing":
        return (not found) is test.value
    if not found:
        return False
    if isinstance(test.value, Span):
        return _compare_span(test.op, found["low"], found["high"], test.value)
    if isinstance(test.value, Interval):
        return any(_compare_number(test.op, number, test.value) for number in found)
    if isinstance(test.value, Measure):
        interval, unit = test.value
        return any(_compare_number(test.op, q["v"], interval) and (unit is None or unit in q["u"]) for q in found)
    if test.op == "is":
        return test.value in found
    if test.op == "holds":
        return any(matches(test.value, {"search": item}) for item in found)
    if test.op == "contains":
        return any(test.value in text.partition("\0")[0] for text in found)
    return any(text.startswith(test.value) for text in found)


def without_version(reference: str) -> str:
    """What a reference to a version is a version of."""
    return reference.partition("/_history/")[0]


def _values_of(parameter: str, values: Values) -> typing.Any:
    field = FIELDS.get(parameter)
    if field is None:
        return values["search"].get(parameter)
    value = values.get(field)
    if field in INSTANTS:
        return {"low": value, "high": value + _MILLISECOND} if value else None
    return [value] if isinstance(value, str) else value


def _compare_span(op: str, low: typing.Any, high: typing.Any, asked: Span) -> bool:
    match op:
        case "eq":
            return bool(asked.low <= low and high <= asked.high)
        case "ne":
            return bool(low < asked.low or asked.high < high)
        case "lt":
            return bool(low < asked.low)
        case "gt":
            return bool(asked.high < high)
        case "le":
            return bool(low < asked.low or high <= asked.high)
        case "ge":
            return bool(asked.low <= low or asked.high < high)
        case "sa":
            return bool(asked.high <= low)
        case "eb":
            return bool(high <= asked.low)
        case _:
            return bool(low < asked.high and asked.low < high)


def _compare_number(op: str, number: float, asked: Interval) -> bool:
    match op:
        case "eq":
            return asked.low <= number < asked.high
        case "ne":
            return not asked.low <= number < asked.high
        case "lt":
            return number < asked.point
        case "gt":
            return number > asked.point
        case "le":
            return number <= asked.point
        case "ge":
            return number >= asked.point
        case "sa":
            return number >= asked.high
        case _:
            return number < asked.low
