"""FHIR XML as FHIR JSON: what comes in as XML goes on as the JSON that says the same, and is validated there.

Knows: https://hl7.org/fhir/R4/xml.html, strictly: elements in the standard's order, nothing unknown, no text between them;
of XML nothing but elements, attributes and comments. Must not know: whether a resource is valid, HTTP.
Nothing of a document is taken before its prolog is known to be harmless: only there can it declare types and entities.
"""

import re
from typing import Any

import msgspec
from lxml import etree

from gateway.fhir.xhtml import MOST_ATTRIBUTES, hardened_parser, write_div
from gateway.fhir.xml_place import place_of
from gateway.fhir.xml_shape import FHIR, PRIMITIVE, Shape, Shapes, Slot
from gateway.problem import Problem

_FHIR = f"{{{FHIR}}}"
# (a hint of editors, which the standard lets stand and nobody follows here)
_SCHEMA_LOCATION = "{http://www.w3.org/2001/XMLSchema-instance}schemaLocation"
_PROLOG = re.compile(
    rb"""(?:\xef\xbb\xbf)?+
    (?:<\?xml\s++version\s*+=\s*+(?:'1\.0'|"1\.0")
      (?:\s++encoding\s*+=\s*+(?:'(?:utf-8|us-ascii)'|"(?:utf-8|us-ascii)"))?+
      (?:\s++standalone\s*+=\s*+(?:'(?:yes|no)'|"(?:yes|no)"))?+ \s*+\?>)?+
    (?:\s++|<!--.*?-->)*+
    <[^!?]""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)
_INTEGER = re.compile(r"\+?(-?(?:0|[1-9][0-9]*))\Z", re.ASCII)
_DECIMAL = re.compile(r"(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\Z", re.ASCII)
_BOOLEANS = {"true": True, "false": False}
_SPACE = " \t\r\n"
_encode = msgspec.json.Encoder().encode

Json = dict[str, Any]


class XmlReader:
    """Reads documents. `depth`: how deep elements may be nested."""

    def __init__(self, shapes: Shapes, depth: int) -> None:
        self._shapes = shapes
        self._depth = depth

    def read(self, body: bytes) -> bytes:
        """The JSON of the resource in a document. Raises Problem naming the element by its FHIRPath."""
        root = _parse(body)
        root.attrib.pop(_SCHEMA_LOCATION, None)
        return _encode(self._resource(root, 1))

    def _resource(self, element: Any, depth: int) -> Json:
        name = element.tag.removeprefix(_FHIR)
        if name == element.tag or not self._shapes.has_resource(name):
            raise self._refuse(element, "structure", "R4 has no such resource type in the namespace http://hl7.org/fhir")
        return {"resourceType": name} | self._object(element, self._shapes.of(name), depth)

    def _object(self, element: Any, shape: Shape, depth: int) -> Json:
        """The members of an element that has no value of its own."""
        found = self._members(element, shape, depth)
        if not found:
            raise self._refuse(element, "structure", "an element has a value or children")
        return found

    def _members(self, element: Any, shape: Shape, depth: int, *, but: str = "") -> Json:
        """What the attributes (without one of them) and children of an element say."""
        if depth > self._depth:
            raise self._refuse(element, "structure", f"XML nested deeper than {self._depth} levels")
        if len(element.attrib) > MOST_ATTRIBUTES:
            raise self._refuse(element, "structure", f"an element has at most {MOST_ATTRIBUTES} attributes")
        found: Json = {}
        for name, value in element.items():
            if name in shape.attributes:
                found[name] = value
            elif name != but:
                raise self._refuse(element, "structure", "R4 has no such attribute here", name)
        self._require_space(element, element.text)
        twins: dict[str, dict[int, Json]] = {}
        last = -1
        for child in element:
            slot = shape.tags.get(child.tag)
            if slot is not None:
                if slot.order < last:
                    raise self._refuse(child, "structure", "elements stand in the order of the standard")
                last = slot.order
                self._take(child, slot, found, twins, depth)
            elif child.tag is not etree.Comment:
                raise self._refuse(child, "structure", "R4 has no such element here")
            self._require_space(element, child.tail)
        for name, held in twins.items():
            _add_twins(found, name, held, many=shape.slots[name].many)
        return found

    def _take(self, child: Any, slot: Slot, found: Json, twins: dict[str, dict[int, Json]], depth: int) -> None:
        """Put one child into its parent's members; what a primitive has besides its value, into the twins."""
        name = slot.name
        if slot.form == "object":
            value: Any = self._object(child, self._shapes.of(slot.type), depth + 1)
        elif slot.form == "resource":
            value = self._held(child, depth + 1)
        elif slot.form == "xhtml":
            value = self._narrative(child)
        else:
            value, twin = self._primitive(child, slot, depth + 1)
            if twin is not None:
                twins.setdefault(name, {})[len(found.get(name, ())) if slot.many else 0] = twin
        if slot.many:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise self._refuse(child, "structure", "this element stands once at most")
        else:
            found[name] = value

    def _held(self, element: Any, depth: int) -> Json:
        """The one resource inside `contained` or an entry."""
        self._require_space(element, element.text)
        inside = [child for child in element if child.tag is not etree.Comment]
        if len(inside) != 1 or not isinstance(inside[0].tag, str) or element.attrib:
            raise self._refuse(element, "structure", "one resource is expected here")
        for child in element:
            self._require_space(element, child.tail)
        return self._resource(inside[0], depth + 1)

    def _narrative(self, element: Any) -> str:
        try:
            return write_div(element)
        except ValueError:
            text = "txt-1: the narrative holds an element, attribute or link that is not allowed"
            raise self._refuse(element, "invariant", text) from None

    def _primitive(self, element: Any, slot: Slot, depth: int) -> tuple[Any, Json | None]:
        """The value of a primitive, None where it has none; and what it has besides."""
        text = element.get("value")
        if text is not None and len(element.attrib) == 1 and not len(element) and not element.text:
            return self._value(element, slot, text), None
        twin = self._members(element, self._shapes.of(PRIMITIVE), depth, but="value") or None
        if text is None:
            if twin is None:
                raise self._refuse(element, "structure", "an element has a value or children")
            return None, twin
        return self._value(element, slot, text), twin

    def _value(self, element: Any, slot: Slot, text: str) -> Any:
        if slot.form == "text":
            return text
        if slot.form == "boolean":
            if text not in _BOOLEANS:
                raise self._refuse(element, "structure", "expected true or false")
            return _BOOLEANS[text]
        match = (_DECIMAL if slot.type == "decimal" else _INTEGER).match(text)
        if match is None:
            raise self._refuse(element, "structure", f"not a number as FHIR writes a {slot.type}")
        return msgspec.Raw(match[1].encode())

    def _require_space(self, element: Any, text: str | None) -> None:
        if text and text.strip(_SPACE):
            raise self._refuse(element, "structure", "no text stands between elements")

    def _refuse(self, element: Any, code: str, text: str, attribute: str | None = None) -> Problem:
        return Problem(code, text, place_of(self._shapes, element, attribute))


def _parse(body: bytes) -> Any:
    """The root element. Raises Problem for what is no XML in UTF-8, and for all that XML can do besides elements."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Problem("structure", f"not XML in UTF-8 at byte {error.start}") from None
    if not _PROLOG.match(body):
        text = "before its root element a document has at most an XML declaration of version 1.0 in UTF-8 and comments"
        raise Problem("structure", text)
    try:
        # (the encoding is said here, so that no bytes can say another)
        root = etree.fromstring(body, hardened_parser(encoding="utf-8"))
    except etree.XMLSyntaxError as error:
        raise Problem("structure", f"not well-formed XML at line {error.lineno or 1}") from None
    for found in (*root.iter(etree.PI, etree.Entity), *root.itersiblings(etree.PI)):
        raise Problem("structure", f"XML here holds no instructions and no entities (line {found.sourceline or 1})")
    return root


def _add_twins(found: Json, name: str, held: dict[int, Json], *, many: bool) -> None:
    """https://hl7.org/fhir/R4/json.html#primitive."""
    if not many:
        found[f"_{name}"] = held[0]
        if found[name] is None:
            del found[name]
        return
    found[f"_{name}"] = [held.get(n) for n in range(len(found[name]))]
    if not any(value is not None for value in found[name]):
        del found[name]
