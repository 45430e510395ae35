"""What a search may cost: it is bounded by an index, or refused before the database is asked.

Knows: which comparisons bound which declared index. Must not know: who asks, how long anything takes (`search_seconds` ends
what is slow for another reason).
"""

from gateway.fhir.clause import EVERYTHING, All, Clause, Not, Test, parameters_of
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem

# What bounds an index on where spans begin: the others also look at where they end.
_BOUNDING = frozenset({"is", "starts", "eq", "lt", "le", "sa", "eb"})


def require_bounded(kind: ResourceType, query: Clause, asked: Clause, sorted_by: tuple[str, ...] = ("_id",)) -> None:
    """Refuse a search that could look at every resource of a type to find a few.

    `query`: what the search says; `asked`: that, within the caller's limits; `sorted_by`: the parameters in turn.
    """
    if is_bounded(kind, asked) or (asked == EVERYTHING and _lists(kind, sorted_by)):
        return
    also = [*_leading(kind)]
    names = ", ".join(("patient", "_id", *also) if kind.patient else ("_id", *also))
    text = f"this search could look at every {kind.name} there is: add one of {names}"
    raise Problem("too-costly", text, min(parameters_of(query), default="_sort"))


def is_bounded(kind: ResourceType, clause: Clause) -> bool:
    """Whether an index leads to what satisfies the clause, or to little more."""
    match clause:
        case All(of):
            return any(is_bounded(kind, part) for part in of)
        case AnyOf(of):
            return all(is_bounded(kind, part) for part in of)
        case Not():
            return False
        case Test("_id", op):
            return op == "is"
        case Test("patient", op, value):
            # (what belongs to nobody, of a type that need not belong to anybody, is a catalogue)
            return op == "is" or (op == "missing" and value is True and not kind.patient_required)
        case Test("_lastUpdated", op):
            return op not in ("ne", "missing") and "_lastUpdated" in _leading(kind)
        case Test(parameter, op, value):
            if op != "missing" or parameter not in _leading(kind):
                return op in _BOUNDING and parameter in _leading(kind)
            # (of dates it is their beginning that is indexed, not whether there are any)
            return value is True and kind.search[parameter].type != "date"


def _leading(kind: ResourceType) -> dict[str, None]:
    """The parameters that an index begins with, besides the patient."""
    found = dict.fromkeys(index[0].lstrip("-") for index in kind.indexes)
    found.pop("patient", None)
    return found


def _lists(kind: ResourceType, sorted_by: tuple[str, ...]) -> bool:
    """Whether an index has all resources in this order."""
    return sorted_by == ("_id",) or (len(sorted_by) == 1 and sorted_by[0] in _leading(kind))
