"""Documents of HL7 CDA R2, as far as another file is wrapped in one (http://hl7.org/cda, nonXMLBody).

Knows: where the file stands, and how XML from strangers is read: as it comes, without types, entities or a tree in memory.
Must not know: where the bytes come from, which media types are taken here.
"""

import re
from base64 import b64decode
from typing import Any, NamedTuple

from lxml import etree

_V3 = "{urn:hl7-org:v3}"
_PLACE = [f"{_V3}ClinicalDocument", f"{_V3}component", f"{_V3}nonXMLBody", f"{_V3}text"]
_MOST_ELEMENTS = 20_000  # around a wrapped file stand some hundreds; whoever sends more has wrapped none
_PROLOG = re.compile(rb"(?:\xef\xbb\xbf)?+(?:<\?(?:(?!\?>).)*+\?>|<!--(?:(?!-->).)*+-->|\s++)*+<[^!?]", re.DOTALL)


class Embedded(NamedTuple):
    """A file that is wrapped in a document, and what it is said to be."""

    media: str
    plain: bytes


def declares_nothing(first: bytes) -> bool:
    """Whether XML that begins with these bytes goes on to its root element without a document type, so without entities."""
    return _PROLOG.match(first) is not None


class EmbeddedReader:
    """Reads a document as it comes."""

    def __init__(self) -> None:
        self._target = _Target()
        self._parser = etree.XMLParser(
            target=self._target, resolve_entities=False, load_dtd=False, no_network=True, huge_tree=True
        )

    def feed(self, piece: bytes) -> bool:
        """Take one more piece. Returns whether more can be of use: False where there is no file to be found, or it is read."""
        try:
            self._parser.feed(piece)
        except etree.XMLSyntaxError:
            self._target.fail()
        except _Done:
            return False
        return not self._target.has_failed

    def result(self) -> Embedded | None:
        """The file that is wrapped in what was read, None where there is none."""
        if self._target.has_failed or not self._target.is_complete:
            return None
        try:
            return Embedded(self._target.media, b64decode("".join("".join(self._target.text).split()), validate=True))
        except ValueError:
            return None


class _Done(Exception):
    pass


class _Target:
    """What a parser tells of a document: of the wrapped file everything, of the rest nothing."""

    def __init__(self) -> None:
        self.media = ""
        self.text: list[str] = []
        self.is_complete = self.has_failed = False
        self._path: list[str] = []
        self._count = 0

    def fail(self) -> None:
        self.has_failed = True

    def start(self, tag: str, attributes: Any) -> None:
        self._count += 1
        self._path.append(tag)
        if self._path[0] != _PLACE[0] or self._count > _MOST_ELEMENTS or self.media:
            self.fail()
            raise _Done
        if self._path == _PLACE:
            if attributes.get("representation") != "B64" or attributes.get("compression") is not None:
                self.fail()
                raise _Done
            self.media = attributes.get("mediaType") or "application/octet-stream"

    def data(self, text: str) -> None:
        if self._path == _PLACE:
            self.text.append(text)

    def end(self, _tag: str) -> None:
        if self._path == _PLACE:
            self.is_complete = True
            raise _Done
        self._path.pop()

    def doctype(self, *_: Any) -> None:
        self.fail()
        raise _Done

    def comment(self, _text: str) -> None:
        """Nothing is said in it."""

    def pi(self, _target: str, _data: str | None = None) -> None:
        """Nothing is done by it."""

    def close(self) -> None:
        """There is no tree to be given out."""
