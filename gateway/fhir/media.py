"""The media types that content may be of, and whether bytes are what they are said to be.

Knows: `schemas/contents.toml`. Must not know: where bytes come from, who may read them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway.fhir.cda import declares_nothing
from gateway.problem import Problem
from gateway.schemas import SchemaError, read_schema

_HEADER = re.compile(r"[\x20-\x7e]{1,128}")  # it is given out as one
_BLANKS = b" \t\r\n"
_MARK = b"\xef\xbb\xbf"  # of the byte order, before UTF-8


class _TypeRow(msgspec.Struct, forbid_unknown_fields=True):
    ending: str
    begins: list[str] = msgspec.field(default_factory=list)
    at: int = 0
    text: bool = False
    xml: bool = False
    may_be: list[str] = msgspec.field(default_factory=list)


class _ContentsFile(msgspec.Struct, forbid_unknown_fields=True):
    types: dict[str, _TypeRow]


@dataclass(frozen=True, slots=True)
class MediaType:
    """One media type. `may_be`: the types whose beginnings its own content may have, too."""

    name: str
    ending: str
    begins: tuple[bytes, ...] = ()
    at: int = 0
    is_text: bool = False
    is_xml: bool = False
    may_be: frozenset[str] = field(default_factory=frozenset)

    def begins_like_this(self, first: bytes) -> bool:
        """Whether bytes begin as content of this type does."""
        if self.is_text:
            first = first.removeprefix(_MARK).lstrip(_BLANKS)[:32].lower()
        return first.startswith(self.begins, self.at)


class MediaTypes:
    """The media types of the data file. `not_taken`: what is said of any other."""

    def __init__(self, types: Mapping[str, MediaType]) -> None:
        self._types = types
        self.not_taken = f"content of this media type is not taken here; taken are {', '.join(sorted(types))}"

    def find(self, content_type: str | None) -> MediaType | None:
        """The type that a `Content-Type` names, whatever its parameters; None where it may not be deposited."""
        return self._types.get(plain_type(content_type)) if _HEADER.fullmatch(content_type or "") else None

    def require(self, content_type: str | None, first: bytes, expression: str) -> MediaType:
        """The type of content that begins with these bytes. Raises Problem where it may not be deposited, or is another one.

        A part of a character at their end is no mistake: they may be the beginning of more.
        """
        found = self.find(content_type)
        if found is None:
            raise Problem("value", self.not_taken, expression)
        if not self._fits(found, first):
            raise Problem("value", "the content is not of the media type it is said to be", expression)
        if found.is_xml and not declares_nothing(first):
            raise Problem("value", "XML that declares a document type, and so entities, is not taken here", expression)
        return found

    def _fits(self, kind: MediaType, first: bytes) -> bool:
        if kind.begins and not kind.begins_like_this(first):
            return False
        if not kind.is_text:
            return True
        if b"\0" in first or not _is_utf8(first):
            return False
        others = (one for one in self._types.values() if one is not kind and one.name not in kind.may_be)
        return not any(one.begins and one.begins_like_this(first) for one in others)


def plain_type(content_type: str | None) -> str:
    """A media type without its parameters, in lower case."""
    return (content_type or "").partition(";")[0].strip().lower()


def read_media_types(schemas: Path) -> MediaTypes:
    """The types of `contents.toml`. Raises SchemaError naming the key."""
    file = schemas / "contents.toml"
    raw = read_schema(file, _ContentsFile)
    found: dict[str, MediaType] = {}
    for name, row in raw.types.items():
        if name != plain_type(name) or "/" not in name:
            raise SchemaError(file, f"types.{name}", "is not a media type in lower case")
        try:
            begins = tuple(text.encode("latin-1") for text in row.begins)
        except UnicodeEncodeError:
            raise SchemaError(file, f"types.{name}.begins", "holds a character that is no byte") from None
        if not begins and not row.text:
            raise SchemaError(file, f"types.{name}.begins", "is missing: nothing would tell what it is")
        begins = tuple(text.lower() for text in begins) if row.text else begins
        found[name] = MediaType(name, row.ending, begins, row.at, row.text, row.xml, frozenset(row.may_be))
    for name, kind in found.items():
        if kind.may_be - found.keys():
            raise SchemaError(file, f"types.{name}.may_be", "names a type that is not here")
    return MediaTypes(found)


def _is_utf8(first: bytes) -> bool:
    try:
        first.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True
