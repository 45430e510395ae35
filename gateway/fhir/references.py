"""Every place in a resource that points somewhere, to be read, rewritten or checked.

Knows: which elements hold references and links (https://hl7.org/fhir/R4/references.html, and for bundles
https://hl7.org/fhir/R4/http.html#trules). Must not know: stores, who may see a target.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from gateway.fhir.codec import Codec
from gateway.fhir.types import Element, Types

Rewrite = Callable[[str], str]

_HREF = re.compile(r"""(\b(?:href|src)\s*=\s*)(["'])(.*?)\2""", re.DOTALL)
_LINKS = frozenset({("Reference", "reference"), ("Attachment", "url")})
# (An oid or a uuid could not hold what a fullUrl becomes; canonicals are not replaced, says the standard.)
_URI_TYPES = frozenset({"uri", "url"})
# Identifying things, not pointing at them: a system or profile that looks like a fullUrl must stay what it is.
_NAMES = frozenset({"system", "profile", "implicitRules", "url"})


class Place(NamedTuple):
    """A reference found: where, the Reference struct itself, and the resource types the standard allows there."""

    expression: str
    reference: Any
    targets: tuple[str, ...]


class References:
    """Finds and rewrites references over the derived types."""

    def __init__(self, types: Types, codec: Codec) -> None:
        self._types = types
        self._codec = codec
        self._steps: dict[tuple[str, bool], tuple[Element, ...]] = {}

    def find(self, resource: Any, *, with_extensions: bool = True) -> Iterator[Place]:
        """Every Reference of a resource, contained resources included.

        `with_extensions` False when the resource is known to hold no extension: whole branches need no look then.
        """
        name = type(resource).__name__
        yield from self._walk(name, name, resource, with_extensions)
        for n, raw in enumerate(getattr(resource, "contained", None) or ()):
            contained = self._codec.decode(self._codec.peek_type(raw), raw)
            kind = type(contained).__name__
            yield from self._walk(kind, f"{name}.contained[{n}]", contained, True)

    def rewrite(self, resource: Any, link: Rewrite, uri: Rewrite) -> None:
        """Pass what points somewhere through `link`: references, URLs of attachments, links of the narrative.

        What may point somewhere, every other uri and url, goes through `uri`. All in place, with contained resources and
        extensions.
        """
        self._rewrite(type(resource).__name__, resource, link, uri)
        contained = getattr(resource, "contained", None)
        if contained:
            resource.contained = [self._rewrite_contained(raw, link, uri) for raw in contained]

    def _rewrite_contained(self, raw: msgspec.Raw, link: Rewrite, uri: Rewrite) -> msgspec.Raw:
        resource = self._codec.decode(self._codec.peek_type(raw), raw)
        self._rewrite(type(resource).__name__, resource, link, uri)
        return msgspec.Raw(self._codec.encode(resource))

    def _walk(self, kind: str, place: str, struct: Any, with_extensions: bool) -> Iterator[Place]:
        for element in self._complex_elements(kind, with_extensions):
            value = getattr(struct, element.attribute)
            if value is None:
                continue
            items = value if element.many else (value,)
            for n, item in enumerate(items):
                where = f"{place}.{element.name}[{n}]" if element.many else f"{place}.{element.name}"
                if item is None:
                    continue
                if element.type == "Reference":
                    yield Place(where, item, element.targets)
                yield from self._walk(element.type, where, item, with_extensions)

    def _complex_elements(self, kind: str, with_extensions: bool) -> tuple[Element, ...]:
        """The elements below which a Reference can stand."""
        key = (kind, with_extensions)
        if key not in self._steps:
            found = (e for e in self._types.elements(kind) if self._can_refer(e, with_extensions, set()))
            self._steps[key] = tuple(found)
        return self._steps[key]

    def _can_refer(self, element: Element, with_extensions: bool, seen: set[str]) -> bool:
        kind = element.type
        if element.is_primitive or kind == "Resource" or kind in seen:
            return False
        if kind in ("Extension", "FHIRPrimitiveExtension"):
            return with_extensions
        if kind == "Reference":
            return True
        seen.add(kind)
        return any(self._can_refer(inner, with_extensions, seen) for inner in self._types.elements(kind))

    def _rewrite(self, kind: str, struct: Any, link: Rewrite, uri: Rewrite) -> None:
        for element in self._types.elements(kind):
            value = getattr(struct, element.attribute)
            if value is None or element.type == "Resource":
                continue
            if element.is_primitive:
                rewritten = self._rewrite_primitive(kind, element, value, link, uri)
                if rewritten is not value:
                    setattr(struct, element.attribute, rewritten)
            else:
                for item in value if element.many else (value,):
                    if item is not None:
                        self._rewrite(element.type, item, link, uri)

    @staticmethod
    def _rewrite_primitive(kind: str, element: Element, value: Any, link: Rewrite, uri: Rewrite) -> Any:
        if (kind, element.name) in _LINKS:
            return link(value)
        if element.type == "xhtml":
            return _HREF.sub(lambda m: f"{m[1]}{m[2]}{link(m[3])}{m[2]}", value)
        if element.type not in _URI_TYPES or element.name in _NAMES:
            return value
        return [v if v is None else uri(v) for v in value] if element.many else uri(value)
