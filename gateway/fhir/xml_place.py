"""Where an element of a document stands, as the FHIRPath that the same place has in JSON.

Knows: names and positions of elements. Must not know: why anybody asks. Looked at only once something is wrong.
"""

from typing import Any

from lxml import etree

from gateway.fhir.fidelity import clean_name
from gateway.fhir.xml_shape import PRIMITIVE, Shape, Shapes


def place_of(shapes: Shapes, element: Any, attribute: str | None = None) -> str:
    """The FHIRPath of an element, or of one of its attributes; what is unknown keeps its name, without odd characters."""
    way = [element, *element.iterancestors()][::-1]
    place, shape = _name(way[0]), _shape(shapes, _name(way[0]))
    is_held = False
    for each in way[1:]:
        slot = shape.tags.get(each.tag) if shape is not None and isinstance(each.tag, str) else None
        if is_held:  # a resource inside the element that holds it is no step
            shape, is_held = _shape(shapes, _name(each)), False
            continue
        place += f".{_name(each)}"
        if slot is not None and slot.many:
            place += f"[{sum(1 for _ in each.itersiblings(each.tag, preceding=True))}]"
        is_held = slot is not None and slot.form == "resource"
        shape = None if slot is None else _shape(shapes, slot.type if slot.form == "object" else PRIMITIVE)
    return place if attribute is None else f"{place}.{clean_name(etree.QName(attribute).localname)}"


def _name(element: Any) -> str:
    return clean_name(etree.QName(element).localname if isinstance(element.tag, str) else "instruction")


def _shape(shapes: Shapes, type_name: str) -> Shape | None:
    try:
        return shapes.of(type_name)
    except KeyError:
        return None
