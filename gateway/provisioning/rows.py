"""The resources in a file, one after the other, whatever its size: NDJSON, and JSON with Bundles.

Knows: how a file is read in constant memory, and where each resource stands in it. Must not know: what is done with them.

A file that begins with a Bundle, or with a brace alone on its line, is read as JSON values that follow each other, and its
Bundles are opened entry by entry. Any other is read line by line: there a broken line spoils no other.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.problem import Problem

_CHUNK = 262_144
_BEGINS_WITH_VALUE = re.compile(rb'\s*\{\s*(?:\n|"resourceType"\s*:\s*"Bundle")')
_BUNDLE = re.compile(rb'"resourceType"\s*:\s*"Bundle"')
# A string (without its closing quote where it is not all there yet) or a bracket. Possessive: nothing is ever tried twice.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[][{}]', re.DOTALL)
_COLON = re.compile(rb"\s*:")
_SPACE = re.compile(rb"\s*")
_QUOTE = ord('"')
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """A resource of a file. `line`: where it begins; `url`: its fullUrl; `problem`: why there is none to be read here."""

    file: str
    line: int
    body: bytes = b""
    url: str | None = None
    problem: Problem | None = None


class _Request(msgspec.Struct):
    method: str = ""


class _Entry(msgspec.Struct):
    fullUrl: str | None = None  # noqa: N815 (FHIR's own name)
    resource: msgspec.Raw = msgspec.Raw()
    request: _Request | None = None


class _Bundle(msgspec.Struct):
    resourceType: str  # noqa: N815 (FHIR's own name)
    entry: list[msgspec.Raw] = []


def read_rows(path: Path, most_bytes: int) -> Iterator[tuple[Row, int]]:
    """Every resource of a file, and how many of its bytes have been read by then. `most_bytes`: of one resource."""
    with path.open("rb") as file:
        if file.read(3) != _BOM:
            file.seek(0)
        start = file.tell()
        head = file.read(_CHUNK)
        file.seek(start)
        as_values = _BEGINS_WITH_VALUE.match(head) is not None
        found = _values(file, str(path), most_bytes) if as_values else _lines(file, str(path), most_bytes)
        for row in found:
            yield row, file.tell()


def _lines(file: BinaryIO, name: str, most_bytes: int) -> Iterator[Row]:
    number = 0
    while line := file.readline(most_bytes + 1):
        number += 1
        if len(line) > most_bytes:
            while line and not line.endswith(b"\n"):
                line = file.readline(_CHUNK)
            yield Row(name, number, problem=_too_long(most_bytes))
            continue
        body = line.strip()
        if body and _BUNDLE.search(body):
            yield from _opened(name, number, body)
        elif body:
            yield Row(name, number, body)


def _opened(name: str, line: int, body: bytes) -> Iterator[Row]:
    """The resources of a Bundle that is at hand as a whole; anything else as it is."""
    try:
        bundle = msgspec.json.decode(body, type=_Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield Row(name, line, body)  # whoever decodes it says what is wrong
        return
    if bundle.resourceType != "Bundle":
        yield Row(name, line, body)
        return
    for raw in bundle.entry:
        yield _row_of_entry(name, line, bytes(raw))


def _row_of_entry(name: str, line: int, body: bytes) -> Row:
    try:
        entry = msgspec.json.decode(body, type=_Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Row(name, line, problem=Problem("structure", "this is no entry of a Bundle", "Bundle.entry"))
    if entry.request is not None and entry.request.method not in ("", "POST", "PUT"):
        text = "an import creates and renews: it deletes, patches and reads nothing"
        return Row(name, line, problem=Problem("not-supported", text, "Bundle.entry.request.method"))
    if bytes(entry.resource) in (b"", b"null"):
        return Row(name, line, problem=Problem("required", "this element is required", "Bundle.entry.resource"))
    return Row(name, line, bytes(entry.resource), entry.fullUrl)


def _values(file: BinaryIO, name: str, most_bytes: int) -> Iterator[Row]:
    """JSON values that follow each other. What is no JSON ends the file: nobody can say where the next one begins."""
    reader = _Values(file, name, most_bytes)
    try:
        yield from reader.rows()
    except Problem as problem:
        yield Row(name, reader.stopped_at(), problem=problem)


class _Values:
    """Splits a stream into its values, those of type Bundle into their entries. Holds one of them at a time, and a chunk.

    The positions are in what is held: `at`, how far it has been looked through; `start`, where what is to be kept begins;
    `after`, where the last value ends; `counted`, to where its lines are counted in `line`.
    """

    def __init__(self, file: BinaryIO, name: str, most_bytes: int) -> None:
        self.line = 1
        self._file = file
        self._name = name
        self._most = most_bytes
        self._held = b""
        self._at = self._after = self._counted = 0
        self._start: int | None = None
        self._depth = 0
        self._key = b""  # the last one of the value at the top
        self._is_bundle = self._in_entries = False

    def rows(self) -> Iterator[Row]:
        """Every resource, in order. Raises Problem where the stream is no JSON."""
        while chunk := self._file.read(_CHUNK):
            self._held += chunk
            for token in _TOKEN.finditer(self._held, self._at):
                text = token[0]
                if text[0] == _QUOTE and not (token[1] and self._is_told_apart(token.end())):
                    break
                self._at = token.end()
                yield from self._take(text, token.start())
            self._drop()
        if self._depth or self._held.strip():
            raise _broken()

    def stopped_at(self) -> int:
        """The line on which that begins which could not be read to its end."""
        self._count_lines(self._at if self._start is None else self._start)
        return self.line

    def _is_told_apart(self, end: int) -> bool:
        """Whether what tells a key from a value is there behind a string, where that matters."""
        space = _SPACE.match(self._held, end)
        return self._depth != 1 or (space is not None and space.end() < len(self._held))

    def _take(self, text: bytes, start: int) -> Iterable[Row]:
        """One token further: the rows that end with it."""
        match text:
            case b"{" | b"[":
                self._open(text, start)
            case b"}" | b"]":
                return self._close()
            case _ if self._depth == 1:
                if _COLON.match(self._held, self._at):
                    self._key = text
                elif self._key == b'"resourceType"':
                    self._is_bundle = text == b'"Bundle"'
        return ()

    def _open(self, text: bytes, start: int) -> None:
        if self._depth == 0 and (text == b"[" or self._held[self._after : start].strip()):
            raise _broken()
        if self._depth == 1 and self._is_bundle and text == b"[" and self._key == b'"entry"':
            self._in_entries, self._start = True, None
        elif self._depth == 0 or (self._depth == 2 and self._in_entries):
            self._start = start
        self._depth += 1

    def _close(self) -> Iterable[Row]:
        self._depth -= 1
        if self._depth < 0:
            raise _broken()
        ended = self._depth == 0 or (self._depth == 2 and self._in_entries)
        if not ended or self._start is None:
            self._in_entries = self._in_entries and self._depth > 1
            self._end_of_value()
            return ()
        begun, self._start = self._start, None
        self._count_lines(begun)
        line, body = self.line, self._held[begun : self._at]
        self._end_of_value()
        if len(body) > self._most:
            return (Row(self._name, line, problem=_too_long(self._most)),)
        if self._depth == 2:
            return (_row_of_entry(self._name, line, body),)
        return _opened(self._name, line, body) if _BUNDLE.search(body) else (Row(self._name, line, body),)

    def _end_of_value(self) -> None:
        if self._depth == 0:
            self._after = self._at
            self._key, self._is_bundle = b"", False

    def _count_lines(self, end: int) -> None:
        if end > self._counted:
            self.line += self._held.count(b"\n", self._counted, end)
            self._counted = end

    def _drop(self) -> None:
        """Forget what is done with. Raises Problem where a resource is larger than one may be."""
        done = self._at if self._depth else self._after
        gone = done if self._start is None else self._start
        self._count_lines(gone)
        self._held = self._held[gone:]
        self._at -= gone
        self._counted -= gone
        self._after = 0
        if self._start is not None:
            self._start = 0
        if len(self._held) > self._most + _CHUNK:
            raise _too_long(self._most)


def _broken() -> Problem:
    return Problem("structure", "not JSON from here on, or cut off")


def _too_long(most_bytes: int) -> Problem:
    return Problem("too-long", f"a resource has at most {most_bytes} bytes here")
