"""A Clause as a MongoDB filter: the reader for what is stored. Its twin in memory is `fhir/clause.py`.

Knows: the shape of a stored document and the traps of the query language: empty `$or` and `$and` are errors, a range on a
list needs `$elemMatch`, `$nor` matches documents that lack the field.
Must not know: where a clause came from.
"""

import re
from collections.abc import Callable, Iterable
from datetime import datetime

from gateway.fhir.clause import FIELDS, INSTANTS, All, Clause, Interval, Measure, Not, Test
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.dates import EARLIEST, Span
from gateway.fhir.values import COMMON_SPAN
from gateway.store.mongo import Document, Regex

# (`$alwaysFalse`, which says the same, makes MongoDB 6 look at every document there is)
_NOTHING: Document = {"_id": {"$in": []}}
LIVE: Document = {"deleted": {"$exists": False}}
_SPECIAL = re.compile(r"[][\\^$.|?*+(){}]")  # what means something in a pattern
_PATTERN = 300  # references in one: the server takes 32 kB
_SCALARS = frozenset({"_id", "patient", "source", "depositor"})  # texts that are no lists


def to_filter(clause: Clause, *, common_spans: bool = False) -> Document:
    """The filter that matches the stored documents which satisfy the clause.

    `common_spans`: every date of the documents in question covers a common span or less. Then a date is found by where it
    begins, give or take one span, and the filter bounds the index; without that knowledge it is exact, and unbounded.
    """
    return _filter(clause, stored_field, common_spans)


def _filter(clause: Clause, field_of: Callable[[str], str], common: bool) -> Document:
    match clause:
        case All(of):
            return _all([_filter(part, field_of, common) for part in of])
        case AnyOf(of):
            return _any([_filter(part, field_of, common) for part in of])
        case Not(part):
            # Bounds help no index here, and a span that is not common after all must not slip past a denial.
            return {"$nor": [_filter(part, field_of, False)]}
        case Test(parameter, "holds", inner):
            found = _filter(inner, str, False)  # what is within a composite value stands under the parts' own names
            return _NOTHING if found == _NOTHING else {field_of(parameter): {"$elemMatch": found}}
        case Test():
            return _test(clause, field_of(clause.parameter), common=common)


def among(ids: Iterable[str], field: str = "_id") -> Document:
    """The filter of what is one of these, or has one of them in this field; it goes to their shards alone."""
    wanted = sorted(ids)
    return {"bucket": {"$in": sorted({one[:3] for one in wanted})}, field: {"$in": wanted}}


def stored_field(parameter: str) -> str:
    """Where the values of a parameter stand in a stored document."""
    return FIELDS.get(parameter, f"search.{parameter}")


def _all(parts: list[Document]) -> Document:
    if _NOTHING in parts:
        return _NOTHING
    merged: Document = {}
    rest: list[Document] = []
    for part in parts:
        if not part.keys() & merged.keys():
            merged.update(part)
        elif any(name not in merged or merged[name] != value for name, value in part.items()):
            rest.append(part)
    if rest:
        merged["$and"] = [*merged.get("$and", ()), *rest]
    return merged


def _any(parts: list[Document]) -> Document:
    possible = [part for part in parts if part != _NOTHING]
    if not possible:
        return _NOTHING
    if len(possible) == 1:
        return possible[0]
    names = possible[0].keys()
    # Several values of one field are one index scan, not several. (An id or a patient decides its bucket.)
    one_field = len(names) == 1 or names in ({"bucket", "_id"}, {"bucket", "patient"})
    if one_field and all(part.keys() == names and all(isinstance(v, str) for v in part.values()) for part in possible):
        return {name: {"$in": list(dict.fromkeys(part[name] for part in possible))} for name in names}
    return {"$or": possible}


def _test(test: Test, field: str, *, common: bool) -> Document:
    if test.op == "missing":
        return {field: {"$exists": not test.value}}
    if test.op == "beyond":
        named = [_SPECIAL.sub(r"\\\g<0>", one) for one in sorted(test.value)]
        groups = ("|".join(named[n : n + _PATTERN]) for n in range(0, len(named), _PATTERN))
        # (as the driver's own: to compile one of Python's takes 17 ms)
        others = {"$elemMatch": {"$nin": [Regex(rf"^(?:{group})(?:/_history/|$)") for group in groups]}}
        return {"$or": [{field: {"$exists": False}}, {field: others}]}
    if isinstance(test.value, Span):
        if field in INSTANTS:
            return _instant(field, test.op, test.value)
        return _span(field, test.op, test.value, common=common)
    if isinstance(test.value, Interval):
        return {field: {"$elemMatch": _number(test.op, test.value)}}
    if isinstance(test.value, Measure):
        interval, unit = test.value
        wanted: Document = {"v": _number(test.op, interval)}
        return {field: {"$elemMatch": wanted if unit is None else {**wanted, "u": unit}}}
    if test.op == "is" and field in ("_id", "patient"):
        return {"bucket": test.value[:3], field: test.value}
    if test.op == "is":
        return {field: test.value}
    if test.op == "contains":
        # (a stored text has no NUL but the one behind which it stands as it was sent)
        literal = _SPECIAL.sub(r"\\\g<0>", test.value)
        return _NOTHING if "\0" in literal else {field: {"$regex": rf"^[^\x00]*{literal}"}}
    prefixed = {"$gte": test.value, **_below_successor(test.value)}
    return {field: prefixed if field in _SCALARS else {"$elemMatch": prefixed}}


def _span(field: str, op: str, asked: Span, *, common: bool) -> Document:
    low, high = f"{field}.low", f"{field}.high"
    match op:
        case "eq":
            return {low: {"$gte": asked.low, "$lt": asked.high}, high: {"$lte": asked.high}}
        case "ne":
            return {"$or": [{low: {"$lt": asked.low}}, {high: {"$gt": asked.high}}]}
        case "lt":
            return {low: {"$lt": asked.low}}
        case "gt":
            return _reaching(field, asked.high, asked.high, common=common)
        case "le":
            return {low: {"$lt": asked.high}, "$or": [{low: {"$lt": asked.low}}, {high: {"$lte": asked.high}}]}
        case "ge":
            return _reaching(field, asked.low, asked.high, common=common)
        case "sa":
            return {low: {"$gte": asked.high}}
        case "eb":
            return {low: {"$lt": asked.low}, high: {"$lte": asked.low}}
        case _:
            return _all([{low: {"$lt": asked.high}}, _reaching(field, asked.low, asked.low, common=common)])


def _reaching(field: str, start: datetime, end: datetime, *, common: bool) -> Document:
    """Spans that begin at `start` or later, or end after `end`. Ends are not indexed: see `to_filter`."""
    low, high = f"{field}.low", f"{field}.high"
    either = [{low: {"$gte": start}}, {high: {"$gt": end}}]
    if not common or end - EARLIEST < COMMON_SPAN:
        return {"$or": either}
    earliest = end - COMMON_SPAN  # what ends after `end` begins after this
    return {low: {"$gte": start}} if earliest >= start else {low: {"$gt": earliest}, "$or": either}


def _instant(field: str, op: str, asked: Span) -> Document:
    """The same comparisons for a single stored moment, which covers one millisecond."""
    match op:
        case "eq":
            return {field: {"$gte": asked.low, "$lt": asked.high}}
        case "ne":
            return {"$or": [{field: {"$lt": asked.low}}, {field: {"$gte": asked.high}}]}
        case "lt" | "eb":
            return {field: {"$lt": asked.low}}
        case "gt" | "sa":
            return {field: {"$gte": asked.high}}
        case "le":
            return {field: {"$lt": asked.high}}
        case "ge":
            return {field: {"$gte": asked.low}}
        case _:
            return {field: {"$gte": asked.low, "$lt": asked.high}}


def _number(op: str, asked: Interval) -> Document:
    match op:
        case "eq":
            return {"$gte": asked.low, "$lt": asked.high}
        case "ne":
            return {"$not": {"$gte": asked.low, "$lt": asked.high}}
        case "lt":
            return {"$lt": asked.point}
        case "gt":
            return {"$gt": asked.point}
        case "le":
            return {"$lte": asked.point}
        case "ge":
            return {"$gte": asked.point}
        case "sa":
            return {"$gte": asked.high}
        case _:
            return {"$lt": asked.low}


def _below_successor(prefix: str) -> Document:
    """The bound before the first string, in the order of code points, behind all with this prefix; none if none is."""
    rest = prefix.rstrip("\U0010ffff")
    if not rest:
        return {}
    following = ord(rest[-1]) + 1
    return {"$lt": rest[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)}
