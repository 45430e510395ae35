"""FHIR JSON as FHIR XML: what is stored and answered, for those who ask for XML.

Knows: https://hl7.org/fhir/R4/xml.html: the standard's order, what is an attribute, the narrative in its own namespace.
Must not know: whether a resource is valid (it is ours), HTTP. Numbers keep their characters; equal JSON gives equal XML.
"""

import json
import re
from typing import Any

from gateway.fhir.xhtml import parse_div, write_div
from gateway.fhir.xml_shape import FHIR, PRIMITIVE, Shape, Shapes, Slot

# JSON can hold characters that XML cannot: they are replaced, as no document could be read otherwise.
_SPECIAL = re.compile('[&<>"\x00-\x1f\ufffe\uffff]')
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
_REPLACEMENT = "\ufffd"
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str)
_BOOLEANS = {True: "true", False: "false"}


class XmlWriter:
    """Writes documents."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes

    def write(self, body: bytes, *, pretty: bool = False) -> bytes:
        """The document of a resource, from its JSON. `pretty`: laid out for people."""
        pieces = ['<?xml version="1.0" encoding="UTF-8"?>']
        self._resource(pieces, _DECODER.decode(body.decode()), "\n" if pretty else "", f' xmlns="{FHIR}"')
        return "".join(pieces).encode()

    def _resource(self, pieces: list[str], resource: dict[str, Any], margin: str, namespace: str = "") -> None:
        name = resource["resourceType"]
        self._object(pieces, name + namespace, name, resource, self._shapes.of(name), margin)

    def _object(self, pieces: list[str], start: str, name: str, tree: dict[str, Any], shape: Shape, margin: str) -> None:
        """An element with the members of an object; `start`: its name, and attributes it has already."""
        for attribute in ("id", "url"):
            if attribute in shape.attributes and attribute in tree:
                start += f' {attribute}="{_escape(tree[attribute])}"'
        pieces.append(f"{margin}<{start}>")
        begun, inner = len(pieces), margin and margin + "  "
        slots = shape.slots
        keys = {key.removeprefix("_") for key in tree} - shape.attributes - {"resourceType"}
        for slot in sorted([slots[key] for key in keys], key=_order):
            values, twins = tree.get(slot.name), tree.get(f"_{slot.name}")
            if not slot.many:
                self._one(pieces, slot, values, twins, inner)
            else:
                for n in range(max(len(values or ()), len(twins or ()))):
                    self._one(pieces, slot, values and values[n], twins and twins[n], inner)
        if len(pieces) == begun:
            pieces[-1] = f"{margin}<{start}/>"
        else:
            pieces.append(f"{margin}</{name}>")

    def _one(self, pieces: list[str], slot: Slot, value: Any, twin: dict[str, Any] | None, margin: str) -> None:
        name = slot.name
        if slot.form == "object":
            self._object(pieces, name, name, value, self._shapes.of(slot.type), margin)
        elif slot.form == "resource":
            pieces.append(f"{margin}<{name}>")
            self._resource(pieces, value, margin and margin + "  ")
            pieces.append(f"{margin}</{name}>")
        elif slot.form == "xhtml":
            pieces.append(margin + write_div(parse_div(value)))
        else:
            text = value if isinstance(value, str) else _BOOLEANS.get(value)
            start = name if text is None else f'{name} value="{_escape(text)}"'
            if twin is None:
                pieces.append(f"{margin}<{start}/>")
            else:
                self._object(pieces, start, name, twin, self._shapes.of(PRIMITIVE), margin)


def _order(slot: Slot) -> int:
    return slot.order


def _escape(text: str) -> str:
    return _SPECIAL.sub(_written, text) if _SPECIAL.search(text) else text


def _written(match: re.Match[str]) -> str:
    return _MARKUP.get(match[0], _REPLACEMENT)
