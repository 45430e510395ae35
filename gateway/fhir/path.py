"""The small language in which `schemas/` names elements.

    path = name *("." step)
    step = name | "ofType(" type ")" | "where(" name "='" text "')" | "resolve()"

A name of a choice element (`effective`) stands for each of its types; `ofType` picks one. `where` keeps the elements whose
named primitive equals the text. `resolve()` follows a reference into `contained`; `ofType` behind it says to which type.

Knows: derived types. Must not know: search, profiles. It is not FHIRPath, only written like it.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from gateway.fhir.types import NESTED, Element, Types

Read = Callable[[Any, Iterable[Any]], list[Any]]
Step = tuple[str, str | None, str | None]  # name, argument, literal

_STEP = re.compile(r"(?:(ofType)\(([A-Za-z]+)\)|(where)\(([A-Za-z]+)='([^']*)'\)|(resolve)\(\)|([A-Za-z]+))(?:\.(?=.)|\Z)")
_FUNCTIONS = ("ofType", "where", "resolve")
_NO_TEXT = frozenset({"boolean", "integer", "unsignedInt", "positiveInt", "decimal"})


class PathError(ValueError):
    """A path that this language does not have, or that names what the type does not have."""


@dataclass(frozen=True, slots=True)
class Branch:
    """The way to the values of one type.

    `read(resource)`: the values at the end, in order; empty where there are none. `first`: the attribute it begins with.
    `targets`: the resource types that a Reference there may name.
    """

    type: str
    first: str
    targets: tuple[str, ...]
    read: Callable[[Any], list[Any]]


def compile_path(types: Types, resource_type: str, text: str) -> tuple[Branch, ...]:
    """A path of a resource type, one branch for each type that may stand at its end. PathError where it cannot be followed."""
    steps = _split(text)
    branches = tuple(
        Branch(way.type, way.first, way.targets, _reader(way.steps)) for way in _follow(types, resource_type, steps)
    )
    if not branches:
        raise PathError(f"'{text}' leads nowhere in {resource_type}")
    return branches


class _Way(NamedTuple):
    type: str
    steps: tuple[Read, ...]
    first: str
    targets: tuple[str, ...]


def _reader(steps: tuple[Read, ...]) -> Callable[[Any], list[Any]]:
    """The steps as one function; nearly all paths have one or two."""
    if len(steps) == 1:
        only = steps[0]
        return lambda resource: only(resource, (resource,))
    first, *others = steps

    def read(resource: Any) -> list[Any]:
        found = first(resource, (resource,))
        for step in others:
            if not found:
                break
            found = step(resource, found)
        return found

    return read


def _split(text: str) -> list[Step]:
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            raise PathError(f"'{text}' is not a path of this language (see gateway/fhir/path.py)")
        of_type, kind, where, name, literal, resolve, element = match.groups()
        steps.append((of_type or where or resolve or element, kind or name, literal))
        position = match.end()
    if not steps or steps[0][0] in _FUNCTIONS:
        raise PathError(f"'{text}' does not begin with an element")
    return steps


def _follow(types: Types, type_name: str, steps: list[Step]) -> Iterator[_Way]:
    """Every way that the steps allow from `type_name`, depth first."""
    (name, _, _), *rest = steps
    for element in _elements_named(types, type_name, name):
        here: list[Read] = [_attribute(element)]
        after, targets = rest, element.targets
        kind = element.type
        while after and after[0][0] in _FUNCTIONS:
            function, argument, literal = after[0]
            after = after[1:]
            if function == "where" and argument and literal is not None:
                here.append(_where(_text_element(types, kind, argument).attribute, literal))
            elif function == "ofType" and argument:
                if kind != argument:
                    break
            elif function == "resolve" and kind == "Reference" and after and after[0][0] == "ofType" and after[0][1]:
                kind = _target(element, after[0][1])
                targets = ()
                here.append(_resolve(types, kind))
            else:
                raise PathError(f"'{function}' cannot stand behind '{name}'")
        else:
            if not after:
                yield _Way(kind, tuple(here), element.attribute, targets)
            elif not kind[0].islower() and kind != NESTED:
                for way in _follow(types, kind, after):
                    yield _Way(way.type, (*here, *way.steps), element.attribute, way.targets)


def _elements_named(types: Types, type_name: str, name: str) -> list[Element]:
    try:
        elements = types.elements(type_name)
    except KeyError:
        raise PathError(f"'{type_name}' is not a type") from None
    found = [e for e in elements if name in (e.name, e.choice)]
    if not found:
        raise PathError(f"{type_name} has no element '{name}'")
    return found


def _text_element(types: Types, type_name: str, name: str) -> Element:
    """The element that `where` compares with a text."""
    found = _elements_named(types, type_name, name)
    if len(found) > 1 or found[0].many or not found[0].is_primitive or found[0].type in _NO_TEXT:
        raise PathError(f"'{name}' of {type_name} is not one text to compare with")
    return found[0]


def _target(element: Element, type_name: str) -> str:
    """The type of contained resource that a reference element is followed to."""
    if type_name not in element.targets and element.targets != (NESTED,):
        raise PathError(f"'{element.name}' does not refer to a {type_name}")
    return type_name


def _attribute(element: Element) -> Read:
    name = element.attribute
    if element.many:
        return lambda _, found: [value for item in found for value in getattr(item, name) or () if value is not None]
    return lambda _, found: [value for item in found if (value := getattr(item, name)) is not None]


def _where(attribute: str, literal: str) -> Read:
    return lambda _, found: [item for item in found if getattr(item, attribute) == literal]


def _resolve(types: Types, kind: str) -> Read:
    try:
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(types.struct(kind))
    except KeyError:
        raise PathError(f"'{kind}' is not a type") from None

    def resolve(resource: Any, found: Iterable[Any]) -> list[Any]:
        wanted = {item.reference[1:] for item in found if (item.reference or "").startswith("#")}
        if not wanted:
            return []
        contained = (raw for raw in resource.contained or () if msgspec.json.decode(raw).get("resourceType") == kind)
        return [item for raw in contained if (item := decoder.decode(raw)).id in wanted]

    return resolve
