"""The narrative of a resource: only harmless XHTML passes.

Knows: what https://hl7.org/fhir/R4/narrative.html#rules (txt-1, txt-2) allows. Must not know: what the text says.
"""

import re
from typing import Any

from lxml import etree

from gateway.problem import Issue

_XHTML = "{http://www.w3.org/1999/xhtml}"
_ELEMENTS = frozenset(
    "a abbr acronym b big blockquote br caption center cite code col colgroup dd dfn div dl dt em font h1 h2 h3 h4 h5 h6 hr i"
    " img li map area ol p pre q samp small span strong sub sup table tbody td tfoot th thead tr tt ul var".split()
)
_ATTRIBUTES = frozenset(
    "abbr accesskey align alt axis bgcolor border cellhalign cellpadding cellspacing cellvalign char charoff charset cite class"
    " colspan compact coords dir frame headers height href hreflang hspace id lang longdesc name nowrap rel rev rowspan rules"
    " scope shape span src start style summary tabindex title type valign value vspace width".split()
)
_LINKS = frozenset({"href", "src", "longdesc", "cite"})
_SAFE_LINK = re.compile(r"(?:https?:|mailto:|tel:|urn:|#|data:image/(?:png|jpeg|gif);|[A-Za-z]+/[A-Za-z0-9\-.]+)")
_DECLARATION = re.compile(r"<\?|<!(?!--)")
_UNSAFE_STYLE = re.compile(r"expression|url\s*\(|@import|behavior|-moz-binding|\\", re.IGNORECASE)


def check_narrative(resource: Any) -> Issue | None:
    """What is wrong with the resource's narrative, None where nothing is."""
    narrative = getattr(resource, "text", None)
    if narrative is None or narrative.div is None:
        return None
    expression = f"{type(resource).__name__}.text.div"
    if _DECLARATION.search(narrative.div):
        return Issue("invariant", "txt-1: a narrative has no doctype, entity or instruction", expression)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        root = etree.fromstring(narrative.div.encode(), parser)
    except (etree.XMLSyntaxError, ValueError):
        return Issue("invariant", "txt-1: a narrative is well-formed XHTML", expression)
    if root.tag != f"{_XHTML}div":
        return Issue("invariant", "txt-1: a narrative is one div in the XHTML namespace", expression)
    text = "".join(root.itertext()).strip()
    if not text and root.find(f".//{_XHTML}img") is None:
        return Issue("invariant", "txt-2: a narrative says something", expression)
    if any(not _is_harmless(element) for element in root.iter()):
        return Issue("invariant", "txt-1: the narrative holds an element, attribute or link that is not allowed", expression)
    return None


def _is_harmless(element: Any) -> bool:
    if element.tag is etree.Comment:
        return True
    if not isinstance(element.tag, str) or element.tag.removeprefix(_XHTML) not in _ELEMENTS:
        return False
    for name, value in element.attrib.items():
        if name in ("{http://www.w3.org/XML/1998/namespace}lang", "{http://www.w3.org/XML/1998/namespace}space"):
            continue
        if name not in _ATTRIBUTES:
            return False
        if name in _LINKS and not _SAFE_LINK.match(value.strip()):
            return False
        if name == "style" and _UNSAFE_STYLE.search(value):
            return False
    return True
