"""Chained parameters: a search by what is said of the resource that a reference leads to.

Knows: https://hl7.org/fhir/R4/search.html#chaining, over one reference: `device.identifier`, `subject:Patient.birthdate`.
Must not know: who asks, stores.
"""

from dataclasses import dataclass

from gateway.fhir.clause import All, Any, Clause, Not, Test
from gateway.fhir.include import served_targets
from gateway.fhir.index import contained_name
from gateway.fhir.registry import Registry, ResourceType, SearchParameter
from gateway.fhir.search import Reading, clip, find_parameter, patient_identifiers, read_parameter, split_name
from gateway.problem import Problem


@dataclass(frozen=True, slots=True)
class Chain:
    """As it was asked: `name` in whole, the reference `parameter` it begins with, what is `asked` of the types it leads to."""

    name: str
    parameter: SearchParameter
    asked: tuple[tuple[ResourceType, Clause], ...]

    def inside(self) -> list[Clause]:
        """What the same would be of resources that are contained, whose values are kept with those of what contains them."""
        modifier = split_name(self.name.partition(".")[2])[1]
        if modifier in ("not", "missing"):
            return []  # of nothing contained, nothing is denied
        found: list[Clause] = []
        for kind, clause in self.asked:
            if split_name(self.name.partition(".")[2])[0] in self.parameter.contained:
                found.append(_within(clause, self.parameter, kind))
        return found


def is_chain(kind: ResourceType, name: str) -> bool:
    """Whether a parameter's name is a chain. (A patient named by identifier is none: that is what addresses a record.)"""
    return "." in name and not patient_identifiers(kind, [(name, "")])


def read_chain(registry: Registry, kind: ResourceType, name: str, value: str, reading: Reading, most_types: int) -> Chain:
    """The chain of one `name=value`. Raises Problem naming it."""
    head, _, rest = name.partition(".")
    base, target = split_name(head)
    parameter = find_parameter(kind, base)
    targets = served_targets(registry, parameter) if parameter is not None and parameter.type == "reference" else frozenset()
    if parameter is None or not targets or "." in rest:
        raise _refuse(name, f"{kind.name} has no such chain of one reference and one parameter")
    if target is not None and target not in targets:
        raise _refuse(name, f"'{clip(base)}' never leads to '{clip(target)}' here")
    led_to = [registry[one] for one in sorted(targets) if target in (None, one)]
    kinds = [one for one in led_to if _has(one, rest)]
    if not kinds:
        raise _refuse(name, "what it leads to has no such search parameter")
    if len(kinds) > most_types:
        raise _refuse(name, f"say which type is meant, as in '{clip(base)}:{kinds[0].name}.'")
    try:
        asked = tuple((one, read_parameter(one, rest, value, reading)) for one in kinds)
    except Problem as problem:
        raise problem.moved(clip(name)) from None
    return Chain(name, parameter, asked)


def leads_to(parameter: SearchParameter, kind: ResourceType, identifier: str) -> Clause:
    """True of what refers by this parameter to that resource."""
    if parameter.field is not None:
        return Test(parameter.field, "is", identifier)
    return Test(parameter.name, "is", f"{kind.name}/{identifier}")


def _has(kind: ResourceType, rest: str) -> bool:
    known = "search-type" in kind.interactions and find_parameter(kind, split_name(rest)[0]) is not None
    return known and not patient_identifiers(kind, [(rest, "")])


def _within(clause: Clause, parameter: SearchParameter, kind: ResourceType) -> Clause:
    match clause:
        case Test(name, op, value):
            return Test(contained_name(parameter.name, kind.name, name), op, value)
        case Not(part):
            return Not(_within(part, parameter, kind))
        case All(of):
            return All(tuple(_within(part, parameter, kind) for part in of))
        case Any(of):
            return Any(tuple(_within(part, parameter, kind) for part in of))


def _refuse(name: str, text: str) -> Problem:
    return Problem("not-supported", f"'{clip(name)}': {text}", clip(name), status=400)
