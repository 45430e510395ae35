"""Identifiers of persons: whether one can be right at all, and whether it is of a person.

Knows: `schemas/identifiers.toml`, and how check digits follow from the others. Must not know: who has which identifier.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway.problem import Issue
from gateway.schemas import SchemaError, read_schema


class _SystemRow(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    form: str | None = None
    check: Literal["nir"] | None = None
    test: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    systems: dict[str, _SystemRow]


@dataclass(frozen=True, slots=True)
class System:
    """One system: `form` and `is_sound` say what its values are, `is_test` that they are of nobody."""

    name: str
    form: re.Pattern[str] | None
    is_sound: Callable[[str], bool] | None
    is_test: bool


class Identifiers:
    """The identifier systems of the data file. `with_test`: whether identifiers of test persons hold."""

    def __init__(self, systems: Mapping[str, System], *, with_test: bool) -> None:
        self._systems = systems
        self._with_test = with_test

    def issues(self, identifier: Any, expression: str) -> Iterator[Issue]:
        """What is wrong with an Identifier, whoever has it: no value is told."""
        system = self._systems.get(identifier.system or "")
        value = identifier.value
        if system is None or value is None:
            return
        if system.is_test and not self._with_test:
            yield Issue("business-rule", f"{system.name} is of test persons: it is not taken here", f"{expression}.system")
        elif system.form is not None and not system.form.fullmatch(value):
            yield Issue("value", f"this is no {system.name}", f"{expression}.value")
        elif system.is_sound is not None and not system.is_sound(value):
            yield Issue("value", f"the check digits are not those of this {system.name}", f"{expression}.value")


def is_sound_nir(value: str) -> bool:
    """Whether the last two digits are the key of the thirteen characters before them."""
    number = value[:-2].replace("2A", "19").replace("2B", "18")
    return number.isdigit() and value[-2:].isdigit() and 97 - int(number) % 97 == int(value[-2:])


_CHECKS: Mapping[str, Callable[[str], bool]] = {"nir": is_sound_nir}


def read_systems(schemas: Path) -> Mapping[str, System]:
    """The systems of `identifiers.toml`. Raises SchemaError naming the key."""
    file = schemas / "identifiers.toml"
    systems: dict[str, System] = {}
    for url, row in read_schema(file, _File).systems.items():
        try:
            form = None if row.form is None else re.compile(row.form, re.ASCII)
        except re.error:
            raise SchemaError(file, f"systems.{url}.form", "is no pattern") from None
        if row.check is not None and form is None:
            raise SchemaError(file, f"systems.{url}.form", "is missing: only what has a form is checked")
        systems[url] = System(row.name, form, _CHECKS[row.check] if row.check else None, row.test)
    return systems
