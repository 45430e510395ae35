"""What the store keeps beside a resource's bytes: its index values and its labels.

Knows: how the registry's parameters read a resource. Must not know: MongoDB, who may see the result.
"""

from collections.abc import Callable
from typing import Any

from gateway.fhir.registry import Registry, ResourceType, SearchParameter, identifier_readers
from gateway.fhir.values import hull, token_values

Extract = Callable[[Any], dict[str, Any]]

# A label of a system that nobody here knows could mean anything: this token stands for it, and denials test it.
UNKNOWN_LABEL = "?"


class Index:
    """Reads index values for every type of a registry. `label_systems`: the code systems whose labels are understood."""

    def __init__(self, registry: Registry, label_systems: frozenset[str]) -> None:
        self._extract = {name: _extractor(kind) for name, kind in registry.resource_types.items()}
        self._label_systems = label_systems

    def search_values(self, kind: ResourceType, resource: Any) -> dict[str, Any]:
        """The values of every search parameter that has some, by parameter."""
        return self._extract[kind.name](resource)

    def labels(self, kind: ResourceType, resource: Any) -> list[str]:
        """The tokens of the resource's security labels."""
        found: dict[str, None] = {}
        for branch in kind.labels:
            for label in branch.read(resource):
                for coding in getattr(label, "coding", None) or (label,):
                    found.update(dict.fromkeys(token_values(getattr(coding, "system", None), getattr(coding, "code", None))))
                    if getattr(coding, "system", None) not in self._label_systems:
                        found[UNKNOWN_LABEL] = None
        return list(found)


def _extractor(kind: ResourceType) -> Extract:
    parameters = tuple((p.name, p.type == "date", p.readers) for p in _stored(kind))

    def extract(resource: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, is_date, readers in parameters:
            found: list[Any] = []
            several = False
            for branch, convert in readers:
                # Most elements are absent in most resources: look at the first step of the path before anything else.
                if getattr(resource, branch.first) is not None:
                    for item in branch.read(resource):
                        several = bool(found)
                        found += convert(item)
            if found:
                values[name] = hull(found) if is_date else _distinct(found) if several else found
        return values

    return extract


def _stored(kind: ResourceType) -> list[SearchParameter]:
    stored = list(kind.search.values())
    for parameter in kind.search.values():
        if readers := identifier_readers(parameter):
            stored.append(SearchParameter(f"{parameter.name}:identifier", "token", readers))
    return stored


def _distinct(found: list[Any]) -> list[Any]:
    return found if isinstance(found[0], dict) else list(dict.fromkeys(found))
