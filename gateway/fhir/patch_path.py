"""The part of FHIRPath in which a FHIRPath Patch names elements, over JSON trees.

    path = Type *( "." name | "[" n "]" | ".where(" criterion *( " and " criterion ) ")"
                 | ".first()" | ".last()" | ".ofType(" type ")" | ".extension('" url "')" )
    criterion = name *( "." name ) " = " ( "'" text "'" | number | "true" | "false" )

The name of a choice element (`value`) stands for whichever of its types is there. As in FHIRPath a criterion holds where its
left side is exactly that one value.

Knows: derived types, how FHIR writes elements in JSON. Must not know: what is done to what is found.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway.fhir.types import NESTED, Element, Types

Step = tuple[str, Any]  # what kind of step, and its argument

_TEXT = r"'(?:[^'\\]|\\.)*'"
_STEP = re.compile(
    rf"\.(?P<function>first|last)\(\)|\.where\((?P<where>(?:[^'()]|{_TEXT})*)\)|\.extension\((?P<extension>{_TEXT})\)"
    r"|\.ofType\((?P<oftype>[A-Za-z]+)\)|\.(?P<name>[A-Za-z][A-Za-z0-9]*)(?!\w*\()|\[(?P<index>[0-9]{1,6})\]"
)
_ROOT = re.compile(r"[A-Z][A-Za-z]+")
_CRITERION = re.compile(
    rf"\s*(?P<path>[A-Za-z]+(?:\.[A-Za-z]+)*)\s*=\s*(?P<literal>{_TEXT}|true|false|-?[0-9]+(?:\.[0-9]+)?)\s*(?:(?P<and>and\b)|$)"
)
_LONGEST, _MOST_STEPS = 1_024, 32


class PatchPathError(ValueError):
    """A path that this language does not have, or that names what the type does not have."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One element in a tree: under which key of which object, and where in the list if it is an item of one."""

    holder: dict[str, Any]
    key: str
    index: int | None
    type: str

    @property
    def value(self) -> Any:
        """What is there; of an element without a value, None."""
        found = self.holder.get(self.key)
        if self.index is None:
            return found
        return found[self.index] if isinstance(found, list) and self.index < len(found) else None


def parse_patch_path(resource_type: str, text: str) -> tuple[Step, ...]:
    """The steps of a path below a resource of this type. Raises PatchPathError."""
    root = _ROOT.match(text)
    if root is None or root[0] != resource_type or len(text) > _LONGEST:
        raise PatchPathError(f"a path begins with {resource_type}, and is not long")
    steps: list[Step] = []
    at = root.end()
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None or len(steps) == _MOST_STEPS:
            raise PatchPathError(f"this part of FHIRPath is not known here (from character {at + 1})")
        steps.append(_read_step(match))
        at = match.end()
    return tuple(steps)


def find_spots(types: Types, resource: dict[str, Any], steps: Iterable[Step]) -> list[Spot]:
    """The elements at the end of the steps, in order. Raises PatchPathError where a name is none of the type's."""
    spots = [Spot({"": resource}, "", None, str(resource.get("resourceType")))]
    for kind, argument in steps:
        spots = _STEPS[kind](types, spots, argument)
    return spots


def elements_named(types: Types, type_name: str, name: str) -> list[Element]:
    """The element of that name, or each type of that choice. Raises PatchPathError where there is none."""
    try:
        elements = types.elements(type_name)
    except KeyError:
        elements = ()
    found = [e for e in elements if (e.choice or e.name) == name and not e.name.startswith("_")]
    if not found:
        raise PatchPathError(f"there is no element '{name}' at this place" if len(name) < 64 else "there is no such element")
    return found


def _read_step(match: re.Match[str]) -> Step:
    if match["name"]:
        return "name", match["name"]
    if match["index"]:
        return "index", int(match["index"])
    if match["function"]:
        return "index", 0 if match["function"] == "first" else -1
    if match["oftype"]:
        return "ofType", match["oftype"]
    if match["extension"]:
        return "extension", _unquote(match["extension"])
    return "where", _read_criteria(match["where"])


def _read_criteria(text: str) -> list[tuple[tuple[str, ...], Any]]:
    criteria: list[tuple[tuple[str, ...], Any]] = []
    at, goes_on = 0, True
    while goes_on:
        match = _CRITERION.match(text, at)
        if match is None:
            raise PatchPathError("where() takes comparisons of an element with a literal, joined by 'and'")
        criteria.append((tuple(match["path"].split(".")), _read_literal(match["literal"])))
        at, goes_on = match.end(), match["and"] is not None
    return criteria


def _read_literal(text: str) -> Any:
    if text.startswith("'"):
        return _unquote(text)
    return text == "true" if text in ("true", "false") else Decimal(text)


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _children(types: Types, spots: list[Spot], name: str) -> list[Spot]:
    found: list[Spot] = []
    for spot in spots:
        value = spot.value
        type_name = str(value.get("resourceType")) if spot.type == NESTED and isinstance(value, dict) else spot.type
        for element in elements_named(types, type_name, name):
            there = value.get(element.name) if isinstance(value, dict) else None
            twin = value.get(f"_{element.name}") if isinstance(value, dict) else None
            if element.many:
                length = max(len(part) if isinstance(part, list) else 0 for part in (there, twin))
                found += (Spot(value, element.name, n, element.type) for n in range(length))
            elif there is not None or twin is not None:
                found.append(Spot(value, element.name, None, element.type))
    return found


def _at(_: Types, spots: list[Spot], index: int) -> list[Spot]:
    return spots[index:][:1] if index >= 0 else spots[-1:]


def _of_type(_: Types, spots: list[Spot], type_name: str) -> list[Spot]:
    return [spot for spot in spots if spot.type == type_name]


def _where(types: Types, spots: list[Spot], criteria: list[tuple[tuple[str, ...], Any]]) -> list[Spot]:
    return [spot for spot in spots if all(_holds(types, spot, path, literal) for path, literal in criteria)]


def _holds(types: Types, spot: Spot, path: tuple[str, ...], literal: Any) -> bool:
    found = [spot]
    for name in path:
        found = _children(types, found, name)
    if len(found) != 1:
        return False
    value = found[0].value
    return bool(value == literal) and isinstance(value, bool) == isinstance(literal, bool)


def _extension(types: Types, spots: list[Spot], url: str) -> list[Spot]:
    return _where(types, _children(types, spots, "extension"), [(("url",), url)])


_STEPS: dict[str, Callable[[Types, list[Spot], Any], list[Spot]]] = {
    "name": _children,
    "index": _at,
    "ofType": _of_type,
    "where": _where,
    "extension": _extension,
}
