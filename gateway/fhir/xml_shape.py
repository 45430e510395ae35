"""What the elements of each type look like in XML, by the derived types.

Knows: https://hl7.org/fhir/R4/xml.html: namespaces, which elements are attributes, in which order elements stand.
Must not know: documents, JSON text, HTTP.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from gateway.fhir.types import NESTED, Element, Types
from gateway.fhir.xhtml import XHTML

FHIR = "http://hl7.org/fhir"
PRIMITIVE = "FHIRPrimitiveExtension"  # what a primitive holds besides its value

Form = Literal["text", "boolean", "number", "xhtml", "resource", "object"]

_FORMS: Mapping[str, Form] = {
    "boolean": "boolean",
    "xhtml": "xhtml",
    NESTED: "resource",
    **dict.fromkeys(("decimal", "integer", "unsignedInt", "positiveInt"), "number"),
}


class Slot(msgspec.Struct, frozen=True):
    """One element as it stands in XML: where among its siblings, and what is in it."""

    name: str
    tag: str  # with its namespace, as lxml writes it
    order: int
    type: str
    form: Form
    many: bool


class Shape(msgspec.Struct, frozen=True):
    """A type: its child elements by JSON name and by tag, and the names that are attributes."""

    slots: Mapping[str, Slot]
    tags: Mapping[str, Slot]
    attributes: frozenset[str]


class Shapes:
    """The shape of every type, made when it is first met."""

    def __init__(self, types: Types) -> None:
        self._types = types
        self._shapes: dict[str, Shape] = {}

    def has_resource(self, name: str) -> bool:
        """Whether R4 has a resource type of that name."""
        return self._types.has_resource(name)

    def of(self, type_name: str) -> Shape:
        """The shape of a type. KeyError where R4 has none of that name."""
        found = self._shapes.get(type_name)
        if found is None:
            found = self._shapes[type_name] = self._make(type_name)
        return found

    def _make(self, type_name: str) -> Shape:
        elements = [e for e in self._types.elements(type_name) if not e.name.startswith("_")]
        named = {"url"} if type_name == "Extension" else set()
        if not self._types.has_resource(type_name):
            named.add("id")  # (that of a resource is an element)
        slots = {e.name: _slot(e, order) for order, e in enumerate(elements) if e.name not in named}
        return Shape(slots, {slot.tag: slot for slot in slots.values()}, frozenset(named))


def _slot(element: Element, order: int) -> Slot:
    form = _FORMS.get(element.type, "text" if element.is_primitive else "object")
    namespace = XHTML if form == "xhtml" else FHIR
    return Slot(element.name, f"{{{namespace}}}{element.name}", order, element.type, form, element.many)
