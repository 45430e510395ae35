"""Codes that say the same in another system: what bears one of them is found by all.

Knows: `[[equivalent]]` of a type's file; that a code may mean another thing where an element says so. What was sent stays as it
was: only index values are added. Must not know: stores, searches.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.fhir.path import Branch
from gateway.fhir.type_file import EquivalentFile
from gateway.fhir.values import has_system


@dataclass(frozen=True, slots=True)
class Equivalent:
    """Codes (`system|code`) of one parameter that mean the same; with `where`, only in what has one of these elements."""

    parameter: str
    codes: tuple[str, ...]
    where: tuple[Branch, ...] = ()


Table = Mapping[str, Mapping[str, Equivalent]]  # by parameter, by code


def read_equivalents(
    rows: Iterable[EquivalentFile],
    search: Mapping[str, Any],
    branches: Callable[[str, str], tuple[Branch, ...]],
    error: Callable[[str, str], Exception],
) -> Table:
    """What a type's file says. `search`: its parameters; `branches` reads a path under a key, `error` refuses a key."""
    found: dict[str, dict[str, Equivalent]] = {}
    for n, raw in enumerate(rows):
        if raw.parameter not in search or search[raw.parameter].type != "token":
            raise error(f"equivalent[{n}].parameter", f"'{raw.parameter}' is no token parameter of this type")
        if len(set(raw.codes)) < 2 or not all(map(has_system, raw.codes)):
            raise error(f"equivalent[{n}].codes", "are not two codes or more, each as system|code")
        where = branches(f"equivalent[{n}].where", raw.where) if raw.where is not None else ()
        row = Equivalent(raw.parameter, tuple(raw.codes), where)
        found.setdefault(raw.parameter, {}).update(dict.fromkeys(raw.codes, row))
    return found


def add_equivalents(table: Table, resource: Any, values: dict[str, Any]) -> None:
    """Add to the index values of a resource those of the codes that mean the same as its own."""
    for parameter, rows in table.items():
        for token in values.get(parameter, ()):
            row = rows.get(token)
            if row is not None and (not row.where or any(branch.read(resource) for branch in row.where)):
                spelled = [text for code in row.codes for text in (code, code.partition("|")[2])]
                values[parameter] = list(dict.fromkeys((*values[parameter], *spelled)))
                return
