"""What the store keeps beside a resource's bytes: its index values, its labels, its patient and its business key.

Knows: how the registry's parameters read a resource. Must not know: MongoDB, who may see the result.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from gateway.fhir.registry import Registry, ResourceType, SearchParameter, identifier_readers
from gateway.fhir.values import has_system, hull, token_values

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


def business_key(kind: ResourceType, resource: Any, patient: str | None, source: str) -> bytes | None:
    """The hash under which a resource is unique, None where it has no business identifier.

    In a patient's compartment the key is the sender's own (patient, source, identifier): two sources never collide. A
    directory entry or a Patient is one for all sources.
    """
    for name in kind.unique:
        for branch, convert in kind.search[name].readers:
            for item in branch.read(resource):
                token = next(iter(convert(item)), "")
                if has_system(token):
                    owner = (patient or "", source) if kind.patient else ()
                    return blake2b("\0".join((*owner, token)).encode(), digest_size=16).digest()
    return None


def _extractor(kind: ResourceType) -> Extract:
    parameters = tuple((p.name, p.type == "date", p.readers) for p in _stored(kind))
    # Most elements are absent in most resources: look at the first step of the path before anything else.

    def extract(resource: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, is_date, readers in parameters:
            found: list[Any] = []
            for branch, convert in readers:
                if getattr(resource, branch.first) is not None:
                    for item in branch.read(resource):
                        found.extend(convert(item))
            if found:
                values[name] = hull(found) if is_date else _distinct(found)
        return values

    return extract


def _stored(kind: ResourceType) -> list[SearchParameter]:
    stored = list(kind.search.values())
    for parameter in kind.search.values():
        if readers := identifier_readers(parameter):
            stored.append(SearchParameter(f"{parameter.name}:identifier", "token", readers))
    return stored


def _distinct(found: list[Any]) -> list[Any]:
    return found if len(found) < 2 or isinstance(found[0], dict) else list(dict.fromkeys(found))
