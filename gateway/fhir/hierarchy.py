"""Codes above and below others, for the modifiers `:above` and `:below`.

Knows: the code systems whose hierarchy lies in `schemas/hierarchies.toml`. Must not know: search parameters, who asks.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.schemas import SchemaError, read_schema


class Hierarchy:
    """One code system: `children` are the codes directly below each code that has some."""

    def __init__(self, children: Mapping[str, list[str]]) -> None:
        self._children = children
        self._parents = {child: parent for parent, found in children.items() for child in found}

    def below(self, code: str) -> list[str]:
        """The code and all below it."""
        found = [code]
        for parent in found:
            found += self._children.get(parent, ())
        return found

    def above(self, code: str) -> list[str]:
        """The code and all above it."""
        found = [code]
        while found[-1] in self._parents:
            found.append(self._parents[found[-1]])
        return found


class _File(msgspec.Struct, forbid_unknown_fields=True):
    below: dict[str, dict[str, list[str]]]


def read_hierarchies(schemas: Path) -> Mapping[str, Hierarchy]:
    """Read `hierarchies.toml`; none where there is no such file. Raises SchemaError where a code would be below itself."""
    file = schemas / "hierarchies.toml"
    if not file.exists():
        return {}
    systems = read_schema(file, _File).below
    for system, children in systems.items():
        parents = {child: parent for parent, found in children.items() for child in found}
        if len(parents) < sum(map(len, children.values())):
            raise SchemaError(file, f"below.{system}", "a code stands below two others")
        for _ in parents:  # what is below nothing that is left is in no circle
            parents = {child: parent for child, parent in parents.items() if parent in parents}
        if parents:
            raise SchemaError(file, f"below.{system}", f"'{min(parents)}' stands below itself")
    return {system: Hierarchy(children) for system, children in systems.items()}
