"""The narrative of a resource: only harmless XHTML passes.

Knows: what https://hl7.org/fhir/R4/narrative.html#rules (txt-1, txt-2) allows. Must not know: what the text says.
"""

import re
from typing import Any

from lxml import etree

from gateway.fhir.xhtml import MOST_ATTRIBUTES, XHTML, parse_div

_XHTML = f"{{{XHTML}}}"
_ELEMENTS = frozenset(
    "a abbr acronym b big blockquote br caption center cite code col colgroup dd dfn div dl dt em font h1 h2 h3 h4 h5 h6 hr i"
    " img li map area ol p pre q samp small span strong sub sup table tbody td tfoot th thead tr tt ul var".split()
)
_ATTRIBUTES = frozenset(
    "abbr accesskey align alt axis bgcolor border cellhalign cellpadding cellspacing cellvalign char charoff charset cite class"
    " colspan compact coords dir frame headers height href hreflang hspace id lang longdesc name nowrap rel rev rowspan rules"
    " scope shape span src start style summary tabindex title type valign value vspace width".split()
)
_XML_ATTRIBUTES = frozenset(f"{{http://www.w3.org/XML/1998/namespace}}{name}" for name in ("lang", "space"))
_LINKS = frozenset({"href", "src", "longdesc", "cite"})
# A scheme that runs nothing, or none at all: no colon before the first `/`, `?` or `#`, whatever a browser strips.
_SAFE_LINK = re.compile(r"(?:https?|ftp|mailto|tel|urn):|data:image/(?:png|jpeg|gif)[;,]|[^:/?#]*(?:[/?#]|\Z)", re.IGNORECASE)
_DECLARATION = re.compile(r"<\?|<!(?!--)")
_UNSAFE_STYLE = re.compile(r"expression|url\s*\(|src\s*\(|image-set|@|behavior|binding|position\s*:|\\|<|/\*", re.IGNORECASE)


def check_div(div: str) -> str | None:
    """The rule that a narrative's XHTML breaks, None where it breaks none."""
    if _DECLARATION.search(div):
        return "txt-1: a narrative has no doctype, entity or instruction"
    try:
        root = parse_div(div)
    except ValueError:
        return "txt-1: a narrative is well-formed XHTML"
    if root.tag != f"{_XHTML}div":
        return "txt-1: a narrative is one div in the XHTML namespace"
    if any(not _is_harmless(element) for element in root.iter()):
        return "txt-1: the narrative holds an element, attribute or link that is not allowed"
    for comment in root.iter(etree.Comment):
        comment.text = ""
    if not "".join(root.itertext()).strip() and root.find(f".//{_XHTML}img") is None:
        return "txt-2: a narrative says something"
    return None


def _is_harmless(element: Any) -> bool:
    if element.tag is etree.Comment:
        # (`<!-->` ends a comment in HTML, and not in XML: what follows would be live there)
        return "<" not in element.text and ">" not in element.text
    if not isinstance(element.tag, str) or element.tag.removeprefix(_XHTML) not in _ELEMENTS:
        return False
    if len(element.attrib) > MOST_ATTRIBUTES:
        return False
    return all(_is_harmless_attribute(name, value) for name, value in element.attrib.items())


def _is_harmless_attribute(name: str, value: str) -> bool:
    if name in _XML_ATTRIBUTES:
        return True
    if name not in _ATTRIBUTES:
        return False
    if name in _LINKS:
        return _SAFE_LINK.match(value.strip()) is not None
    return name != "style" or not _UNSAFE_STYLE.search(value)
