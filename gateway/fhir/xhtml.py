"""The XHTML of a narrative as text and as elements.

Knows: how a `div` is parsed without any harm, and the one way it is written here. Must not know: what a narrative may hold
(`narrative.py`), resources.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lxml import etree

XHTML = "http://www.w3.org/1999/xhtml"
_XML = "http://www.w3.org/XML/1998/namespace"
_PREFIXES: Mapping[str, str] = {"": "", f"{{{_XML}}}": "xml:"}
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
    """The text of an XHTML element, in the default namespace. Raises ValueError for elements and attributes of any other.

    Equal elements give equal text, whatever prefixes, quotes and entities they were written with.
    """
    return "".join(_pieces(div))


def _pieces(div: Any) -> Iterator[str]:
    namespace = f' xmlns="{XHTML}"'
    for event, element in etree.iterwalk(div, events=("start", "end", "comment", "pi")):
        if event == "start":
            attributes = "".join([f' {_attribute(name)}="{_escape(_IN_VALUE, value)}"' for name, value in element.items()])
            is_void = _element(element.tag) in _VOID and len(element) == 0 and not element.text
            yield f"<{_element(element.tag)}{namespace}{attributes}{'/' if is_void else ''}>"
            yield _escape(_IN_TEXT, element.text or "")
            namespace = ""
            continue
        if event == "end" and not (_element(element.tag) in _VOID and len(element) == 0 and not element.text):
            yield f"</{_element(element.tag)}>"
        elif event == "comment":
            yield f"<!--{element.text}-->"
        elif event == "pi":
            raise ValueError("an instruction")
        if element is not div:
            yield _escape(_IN_TEXT, element.tail or "")


def _element(tag: Any) -> str:
    namespace, _, name = str(tag).rpartition("}")
    if namespace != f"{{{XHTML}":
        raise ValueError("an element of another namespace")
    return name


def _attribute(name: str) -> str:
    match = _NAME.fullmatch(name)
    prefix = _PREFIXES.get(match[1] or "") if match else None
    if match is None or prefix is None:
        raise ValueError("an attribute of another namespace")
    return prefix + match[2]


def _escape(special: re.Pattern[str], text: str) -> str:
    return special.sub(lambda match: _MARKUP[match[0]], text) if special.search(text) else text
