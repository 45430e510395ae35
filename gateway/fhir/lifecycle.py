"""What may become of a resource once it has been deposited: what changes, who withdraws it, what takes its place.

Knows: `[lifecycle]` of a type's file, and how a resource says where it stands. Must not know: stores, who is calling.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from gateway.fhir.path import Branch, PathError, compile_path
from gateway.fhir.type_file import TypeFile
from gateway.fhir.types import Types
from gateway.schemas import SchemaError

_OURS = ("id", "versionId", "lastUpdated")  # what this service says of a resource, in it and in its meta
_LABELS = "security"  # of meta: who may take them off is a rule of its own


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The rules of one type.

    `changes`: the elements that may change; `extensions`: the urls of the extensions that may; `status`: the element that says
    where a resource stands; `replaces`: the branches to what it takes the place of.
    """

    changes: frozenset[str]
    extensions: frozenset[str]
    status: str
    current: str
    superseded: str
    withdrawn: str
    replaces: tuple[Branch, ...]

    def status_of(self, resource: Any) -> str | None:
        """Where a resource stands."""
        found = getattr(resource, self.status)
        return None if found is None else str(found)

    def replaced_by(self, resource: Any) -> list[Any]:
        """The References to what a resource takes the place of."""
        return [reference for branch in self.replaces for reference in branch.read(resource)]

    def forbidden(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        """The elements that differ between two versions (JSON) and must not."""
        names = sorted(name for name in {*before, *after} - {"id"} if before.get(name) != after.get(name))
        return [name for name in names if name.lstrip("_") not in self.changes and self._is_forbidden(name, before, after)]

    def _is_forbidden(self, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
        keep = _KEEPERS.get(name)
        if name == "extension":
            return self._others(before) != self._others(after)
        return keep is None or keep(before.get(name)) != keep(after.get(name))

    def _others(self, tree: Mapping[str, Any]) -> list[Any]:
        return [one for one in tree.get("extension", ()) if one.get("url") not in self.extensions]


def _without_ours(meta: Mapping[str, Any] | None) -> dict[str, Any]:
    ours = {*_OURS, *(f"_{name}" for name in _OURS), _LABELS}
    return {name: value for name, value in (meta or {}).items() if name not in ours}


_KEEPERS: Mapping[str, Callable[[Any], Any]] = {"meta": _without_ours}


def read_lifecycle(file: FilePath, types: Types, raw: TypeFile) -> Lifecycle | None:
    """The rules of a type's file, None where it has none. Raises SchemaError naming file and key."""
    rules = raw.lifecycle
    if rules is None:
        return None
    elements = {element.name: element for element in types.elements(raw.type)}
    for name in (*rules.changes, rules.status):
        if name not in elements:
            raise SchemaError(file, "lifecycle", f"{raw.type} has no element '{name}'")
    states = (rules.current, rules.superseded, rules.withdrawn)
    if len(set(states)) < len(states) or not {*states} <= {*elements[rules.status].codes}:
        raise SchemaError(file, "lifecycle", f"its states are three different codes of '{rules.status}'")
    if rules.status not in rules.changes:
        raise SchemaError(file, "lifecycle.changes", "leaves out the status")
    if {"delete"} & {*raw.interactions}:
        raise SchemaError(file, "interactions", "what has a lifecycle is withdrawn, not deleted")
    try:
        replaces = compile_path(types, raw.type, rules.replaces)
    except PathError as error:
        raise SchemaError(file, "lifecycle.replaces", str(error)) from error
    if any(branch.type != "Reference" for branch in replaces):
        raise SchemaError(file, "lifecycle.replaces", "leads to something else than a Reference")
    return Lifecycle(
        changes=frozenset(rules.changes),
        extensions=frozenset(rules.change_extensions),
        status=elements[rules.status].attribute,
        current=rules.current,
        superseded=rules.superseded,
        withdrawn=rules.withdrawn,
        replaces=replaces,
    )
