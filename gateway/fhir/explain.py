"""Every mistake in a resource that was refused: typed decoding stops at the first, and senders correct one after the other.

Knows: JSON and the elements of the types, as `types.py` derives them. Must not know: what a primitive's text must look like
(fhir.resources says that), profiles.
"""

from collections.abc import Iterator
from typing import Any

from gateway.fhir.fidelity import clean_name
from gateway.fhir.types import NESTED, Element, Types
from gateway.problem import Issue

_NUMBERS = ("decimal", "integer", "positiveInt", "unsignedInt")
_KINDS = {dict: "object", list: "array", str: "str", bool: "bool", int: "int", float: "float", type(None): "null"}


def mistakes(types: Types, type_name: str, sent: dict[str, Any], place: str) -> Iterator[Issue]:
    """What is wrong with the JSON of a type, at any depth: names, null, empty arrays, kinds of values, codes, gaps."""
    elements = {element.name: element for element in types.elements(type_name)}
    for element in elements.values():
        if element.required and not {element.name, f"_{element.name}"} & sent.keys():
            yield Issue("required", "this element is required", f"{place}.{element.name}")
    for name, value in sent.items():
        found = elements.get(name)
        if found is not None:
            yield from _of_element(types, found, value, f"{place}.{name}")
        elif name != "resourceType":
            yield Issue("structure", "R4 has no such element here", f"{place}.{clean_name(name)}")


def _of_element(types: Types, element: Element, value: Any, place: str) -> Iterator[Issue]:
    if not element.many:
        yield from _of_value(types, element, value, place)
    elif not isinstance(value, list):
        yield _expected("array", value, place)
    elif not value:
        yield Issue("value", "an array has one item at least", place)
    else:
        for n, item in enumerate(value):
            if item is not None:  # (it may stand for an item of the twin list)
                yield from _of_value(types, element, item, f"{place}[{n}]")


def _of_value(types: Types, element: Element, value: Any, place: str) -> Iterator[Issue]:
    if element.is_primitive and not element.name.startswith("_"):
        yield from _of_primitive(element, value, place)
    elif not isinstance(value, dict):
        yield _expected("object", value, place)
    elif element.type == NESTED:
        name = value.get("resourceType")
        if isinstance(name, str) and types.has_resource(name):
            yield from mistakes(types, name, value, place)
    else:
        yield from mistakes(types, element.type, value, place)


def _of_primitive(element: Element, value: Any, place: str) -> Iterator[Issue]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if element.type in _NUMBERS:
        if isinstance(value, str):
            yield Issue("structure", "a number is sent as a JSON number, and nothing else is", place)
        elif not is_number:
            yield _expected("number", value, place)
    elif element.type == "boolean":
        if not isinstance(value, bool):
            yield _expected("bool", value, place)
    elif not isinstance(value, str):
        yield _expected("str", value, place)
    elif element.codes and value not in element.codes:
        yield Issue("code-invalid", "the code is not in the required value set", place)


def _expected(kind: str, value: Any, place: str) -> Issue:
    return Issue("structure", f"expected {kind}, got {_KINDS.get(type(value), 'number')}", place)
