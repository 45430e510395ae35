"""What the store keeps beside a resource's bytes: its index values and its labels.

Knows: how the registry's parameters read a resource. Must not know: MongoDB, who may see the result.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from gateway.fhir.codec import Codec
from gateway.fhir.equivalents import add_equivalents
from gateway.fhir.path import Branch
from gateway.fhir.registry import Registry, ResourceType, SearchParameter
from gateway.fhir.values import MODIFIERS, Convert, hull, reference_identifiers, token_values

Spellings = Callable[[str | None, str | None], tuple[str, ...]]
Extract = Callable[[Any], dict[str, Any]]

# A label of a system that nobody here knows could mean anything: this token stands for it, and denials test it.
# (No search value is read into it: `values.escape` never leaves a single `\\`.)
UNKNOWN_LABEL = "\\?"


class Index:
    """Reads index values for every type of a registry.

    `label_systems`: the code systems whose labels are understood; `spellings`: the tokens of a label, by its system and code.
    """

    def __init__(
        self, registry: Registry, label_systems: frozenset[str], codec: Codec, spellings: Spellings = token_values
    ) -> None:
        self._spellings = spellings
        self._labelling = {kind.name: p for kind in registry.resource_types.values() if (p := _labelling(kind)) is not None}
        self._codec = codec
        self._types = registry.resource_types
        self._extract = {name: _extractor(kind) for name, kind in registry.resource_types.items()}
        self._label_systems = label_systems
        self._leading_inside = {
            name: found
            for name, kind in registry.resource_types.items()
            if (found := [parameter for parameter in kind.search.values() if parameter.contained])
        }

    def search_values(self, kind: ResourceType, resource: Any) -> dict[str, Any]:
        """The values of every search parameter that has some, by parameter."""
        values = self._extract[kind.name](resource)
        if kind.equivalents:
            add_equivalents(kind.equivalents, resource, values)
        if kind.name in self._leading_inside and resource.contained:
            values |= self._contained_values(kind, resource)
        labelling = self._labelling.get(kind.name)
        if labelling in values:
            values[labelling] = self._label_values(kind, resource)
        return values

    def _contained_values(self, kind: ResourceType, resource: Any) -> dict[str, list[Any]]:
        """The values of contained resources, under the parameters that lead to them."""
        held: dict[str, tuple[str, Any, dict[str, Any]]] = {}
        for raw in resource.contained:
            name = self._codec.peek_type(raw)
            if name in self._extract:
                contained = self._codec.decode(name, raw)
                held[f"#{contained.id}"] = (name, contained, self._extract[name](contained))
        found: dict[str, list[Any]] = {}
        for parameter in self._leading_inside[kind.name]:
            references = _named_by(parameter, resource)
            for name, contained, _ in [held[reference] for reference in references if reference in held]:
                onward = (self._types[name].search[step] for step in parameter.through if step in self._types[name].search)
                references += [reference for step in onward for reference in _named_by(step, contained)]
            for name, _, values in (held[reference] for reference in dict.fromkeys(references) if reference in held):
                for inner in parameter.contained:
                    found.setdefault(contained_name(parameter.name, name, inner), []).extend(values.get(inner, ()))
        return {name: _distinct(values) for name, values in found.items() if values}

    def _label_values(self, kind: ResourceType, resource: Any) -> list[str]:
        """The values of the parameter that finds labels: in whichever system of the same codes one is asked for."""
        labels = (label for branch in kind.labels[1:] for label in branch.read(resource))
        codings = (coding for label in labels for coding in getattr(label, "coding", None) or ())
        return list(dict.fromkeys(token for one in codings for token in self._spellings(one.system, one.code)))

    def sort_key(self, kind: ResourceType, resource: Any, parameter: str) -> datetime | None:
        """Where the dates of one parameter begin, None where there are none."""
        readers = kind.search[parameter].readers
        spans = [span for branch, convert in readers for item in branch.read(resource) for span in convert(item)]
        return min(span.low for span in spans) if spans else None

    def labels(self, kind: ResourceType, resource: Any) -> list[str]:
        """The tokens of the resource's security labels."""
        found: dict[str, None] = {}
        for branch in kind.labels:
            for label in branch.read(resource):
                for coding in getattr(label, "coding", None) or (label,):  # a CodeableConcept, or a Coding itself
                    system, code = getattr(coding, "system", None), getattr(coding, "code", None)
                    found.update(dict.fromkeys(self._spellings(system, code)))
                    if system not in self._label_systems:
                        found[UNKNOWN_LABEL] = None
        return list(found)


def _labelling(kind: ResourceType) -> str | None:
    """The parameter that finds the labels of a type which stand in an element of their own."""
    own = {branch.first for branch in kind.labels[1:]}
    named = (p.name for p in kind.search.values() if p.readers and own and {branch.first for branch, _ in p.readers} == own)
    return next(named, None)


def _extractor(kind: ResourceType) -> Extract:
    ways: dict[str, list[tuple[str, Callable[[Any], list[Any]], Convert]]] = {}
    for parameter in _stored(kind):
        for branch, convert in parameter.readers:
            ways.setdefault(branch.first, []).append((parameter.name, branch.read, convert))
    by_element = tuple((first, tuple(found)) for first, found in ways.items())
    dates = frozenset(parameter.name for parameter in _stored(kind) if parameter.type == "date")

    def extract(resource: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        several: set[str] = set()
        for first, ways in by_element:
            # Most elements are absent in most resources: look for them before anything else, and once for all parameters.
            if getattr(resource, first) is not None:
                for name, read, convert in ways:
                    for item in read(resource):
                        found = convert(item)
                        if not found:
                            continue
                        if name in values:
                            values[name] += found
                            several.add(name)
                        else:
                            values[name] = [*found]
        for name in several - dates:
            values[name] = _distinct(values[name])
        for name in dates:
            if name in values:
                values[name] = hull(values[name])
        return values

    return extract


def _named_by(parameter: SearchParameter, resource: Any) -> list[str]:
    return [it.reference for branch, _ in parameter.readers for it in branch.read(resource) if it.reference]


def _stored(kind: ResourceType) -> list[SearchParameter]:
    stored = list(kind.search.values())
    for parameter in kind.search.values():
        for modifier, readers in modifier_readers(parameter):
            stored.append(SearchParameter(f"{parameter.name}:{modifier}", "token", readers))
    return stored


def _distinct(found: list[Any]) -> list[Any]:
    return found if isinstance(found[0], dict) else list(dict.fromkeys(found))


def contained_name(parameter: str, type_name: str, name: str) -> str:
    """Under which name the values of contained resources are kept, so that they are found through the reference to them."""
    return f"{parameter}#{type_name}#{name}"


def modifier_readers(parameter: SearchParameter) -> Iterator[tuple[str, tuple[tuple[Branch, Convert], ...]]]:
    """The modifiers of a parameter that look at values of their own, and how those are read.

    `:identifier` of a reference: the logical references behind it.
    """
    references = [branch for branch, _ in parameter.readers if branch.type == "Reference"]
    if parameter.type == "reference" and references:
        yield "identifier", tuple((branch, reference_identifiers) for branch in references)
    for modifier in sorted(parameter.modifiers & MODIFIERS.keys()):
        yield modifier, tuple((branch, MODIFIERS[modifier][branch.type]) for branch, _ in parameter.readers)
