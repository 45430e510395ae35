"""`_include` and `_revinclude`: what may come with the matches of a search.

Knows: https://hl7.org/fhir/R4/search.html#include: how they are written, and which there are, computed from the registry.
Must not know: who asks, stores.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.fhir.registry import Registry, ResourceType, SearchParameter
from gateway.fhir.search import clip, implied_parameters
from gateway.problem import Problem

INCLUDES = frozenset({"_include", "_include:iterate", "_revinclude", "_revinclude:iterate"})

# (The Mesures interface of Mon espace santé writes a dot where FHIR has a colon.)
_VALUE = re.compile(r"([A-Za-z]+)[:.]([A-Za-z][A-Za-z0-9-]*|\*)(?::([A-Za-z]+))?\Z")


@dataclass(frozen=True, slots=True)
class Include:
    """References of `source` resources, by these parameters, to the types in `targets`.

    `reverse`: they lead from what comes to what is there already. `iterate`: also from what came itself.
    """

    source: ResourceType
    parameters: tuple[SearchParameter, ...]
    targets: frozenset[str]
    reverse: bool
    iterate: bool


def followed(registry: Registry, kind: ResourceType) -> dict[str, SearchParameter]:
    """The parameters of a type that lead to types served here."""
    return {p.name: p for p in (*implied_parameters(kind), *kind.search.values()) if served_targets(registry, p)}


def served_targets(registry: Registry, parameter: SearchParameter) -> frozenset[str]:
    """The types served here that a reference parameter may lead to."""
    if parameter.field == "patient":
        return frozenset({"Patient"})
    return frozenset(name for name in parameter.targets if registry.find(name) is not None)


def declared_includes(registry: Registry, kind: ResourceType) -> list[str]:
    """What `_include` takes in a search of this type."""
    names = sorted(followed(registry, kind))
    return ["*", *(f"{kind.name}:{name}" for name in ("*", *names))] if names else []


def declared_revincludes(registry: Registry, kind: ResourceType) -> list[str]:
    """What `_revinclude` takes in a search of this type."""
    found: list[str] = []
    for source in registry.resource_types.values():
        names = [name for name, p in followed(registry, source).items() if kind.name in served_targets(registry, p)]
        if names and "search-type" in source.interactions:
            found += [f"{source.name}:{name}" for name in ("*", *sorted(names))]
    return found


def read_includes(
    registry: Registry, kinds: Iterable[ResourceType], pairs: Iterable[tuple[str, str]], most: int
) -> tuple[Include, ...]:
    """The includes among the parameters of a search of these types. Raises Problem naming one that is not understood."""
    searched = {kind.name for kind in kinds}
    asked = list(dict.fromkeys(pair for pair in pairs if pair[0] in INCLUDES))
    if len(asked) > most:
        raise Problem("too-costly", f"a search has at most {most} includes here", asked[-1][0], status=400)
    return tuple(found for name, value in asked for found in _read_include(registry, searched, name, value))


def _read_include(registry: Registry, searched: set[str], name: str, value: str) -> list[Include]:
    base, _, modifier = name.partition(":")
    reverse = base == "_revinclude"
    if value == "*" and not reverse and not modifier:
        found = [include for one in sorted(searched) for include in _every_include(registry, registry[one])]
        if not found:
            raise _refuse(name, "what is searched leads to nothing here")
        return found
    match = _VALUE.match(value)
    if match is None:
        raise Problem("invalid", f"the value of '{name}' is not Type:parameter or Type:parameter:Type", name)
    type_name, parameter, target = match.groups()
    source = registry.find(type_name)
    if source is None or (reverse and "search-type" not in source.interactions):
        raise _refuse(name, f"no such type as '{clip(type_name)}'")
    ways = followed(registry, source)
    if parameter != "*" and parameter not in ways:
        raise _refuse(name, f"{type_name}:{clip(parameter)} leads to nothing here")
    parameters = tuple(ways.values()) if parameter == "*" else (ways[parameter],)
    targets = frozenset[str]().union(*(served_targets(registry, p) for p in parameters))
    if target is not None:
        if target not in targets:
            raise _refuse(name, f"{type_name}:{clip(parameter)} never leads to '{clip(target)}'")
        targets = frozenset({target})
    if not modifier and not (targets & searched if reverse else type_name in searched):
        raise _refuse(name, f"'{clip(value)}' never meets what is searched, unless with ':iterate'")
    return [Include(source, parameters, targets, reverse, bool(modifier))]


def _every_include(registry: Registry, kind: ResourceType) -> list[Include]:
    parameters = tuple(followed(registry, kind).values())
    targets = frozenset[str]().union(*(served_targets(registry, p) for p in parameters))
    return [Include(kind, parameters, targets, reverse=False, iterate=False)] if parameters else []


def _refuse(name: str, text: str) -> Problem:
    return Problem("not-supported", f"'{name}': {text}", name, status=400)
