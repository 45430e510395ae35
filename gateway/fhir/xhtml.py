"""The XHTML of a narrative as text and as elements.

Knows: how a `div` is parsed without any harm, and the one way it is written here. Must not know: what a narrative may hold
(`narrative.py`), resources.
"""

import re
from collections.abc import Mapping
from typing import Any

from lxml import etree

XHTML = "http://www.w3.org/1999/xhtml"
_XML = "http://www.w3.org/XML/1998/namespace"
_PREFIXES: Mapping[str, str] = {"": "", f"{{{_XML}}}": "xml:"}
# (nothing in FHIR or XHTML has as many, and lxml lists them in a time that grows with their square)
MOST_ATTRIBUTES = 64
_DEEPEST = 256
_TAG = f"{{{XHTML}}}"
# Those that HTML knows no end tag of: any other is written with one, or a browser would take what follows for its content.
_VOID = frozenset({"area", "br", "col", "hr", "img"})
_MARKUP: Mapping[str, str] = {
    "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"
}  # fmt: skip
_IN_TEXT, _IN_VALUE = re.compile("[&<>\r]"), re.compile('[&<>"\t\n\r]')
_NAME = re.compile(r"(\{[^}]*\})?(.*)", re.DOTALL)


def hardened_parser(**options: Any) -> etree.XMLParser:
    """A parser that resolves no entity, loads nothing, and gives up what is too deep or too large for any document."""
    return etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False, **options)


def parse_div(text: str) -> Any:
    """The root element of a narrative. Raises ValueError where it is not well-formed."""
    try:
        return etree.fromstring(text.encode(), hardened_parser())
    except etree.XMLSyntaxError:
        raise ValueError("not well-formed") from None


def write_div(div: Any) -> str:
    """The text of an XHTML element, in the default namespace. Raises ValueError for elements and attributes of any other,
    for too many attributes, and for what is nested too deeply.

    Equal elements give equal text, whatever prefixes, quotes and entities they were written with.
    """
    pieces: list[str] = []
    _write(pieces, div, f' xmlns="{XHTML}"', 0)
    return "".join(pieces)


def _write(pieces: list[str], element: Any, namespace: str, depth: int) -> None:
    tag, text = element.tag, element.text or ""
    if tag is etree.Comment:
        pieces.append(f"<!--{text}-->")
        return
    if not isinstance(tag, str) or not tag.startswith(_TAG) or depth > _DEEPEST or len(element.attrib) > MOST_ATTRIBUTES:
        raise ValueError("not written here")
    name = tag[len(_TAG) :]
    start = name + namespace + "".join([f' {_attribute(n)}="{_escape(_IN_VALUE, v)}"' for n, v in element.items()])
    if name in _VOID and not text and len(element) == 0:
        pieces.append(f"<{start}/>")
        return
    pieces.append(f"<{start}>{_escape(_IN_TEXT, text)}")
    for child in element:
        _write(pieces, child, "", depth + 1)
        if child.tail:
            pieces.append(_escape(_IN_TEXT, child.tail))
    pieces.append(f"</{name}>")


def _attribute(name: str) -> str:
    match = _NAME.fullmatch(name)
    prefix = _PREFIXES.get(match[1] or "") if match else None
    if match is None or prefix is None:
        raise ValueError("an attribute of another namespace")
    return prefix + match[2]


def _escape(special: re.Pattern[str], text: str) -> str:
    return special.sub(lambda match: _MARKUP[match[0]], text) if special.search(text) else text
