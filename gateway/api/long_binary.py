"""Content that comes in FHIR JSON and is too long to be held: its base64 is read as it comes.

Knows: where in the JSON of a Binary (https://hl7.org/fhir/R4/binary.html) its data stands, and how base64 is cut.
Must not know: who may deposit it, how it is kept.

What is to be known before the first byte is kept (whose it is, of which type) has to stand before the data, as it does in
the order that FHIR gives its elements.
"""

import json
import re
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

from gateway.problem import Problem

_MOST_BESIDE = 65_536  # bytes of all but the data: an identity, a few labels
_BEGINNING = re.compile(rb'(?:\s*[{\[]|\s*[}\]]|\s*,|\s*:|\s*"(?:[^"\\]|\\.)*"|\s*[-+.\w]+)')
_COLON = re.compile(rb'\s*:\s*"')
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")


class LongBinary:
    """The body of a Binary as it comes. First `begin`, then `data` to its end, then `said`."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._before, self._held, self._behind = b"", b"", b""

    async def begin(self) -> dict[str, Any]:
        """What stands before the data. Raises Problem where there is none within what is read of the rest.

        It is looked for again when there is twice as much: nobody is known to ask yet, and pieces can be of one byte.
        """
        looked_at, has_ended = 0, False
        while not has_ended:
            piece = await anext(self._stream, None)
            has_ended = piece is None
            self._held += piece or b""
            if len(self._held) < min(2 * looked_at, _MOST_BESIDE) and not has_ended:
                continue
            looked_at = len(self._held)
            place = _find_data(self._held)
            if place is not None and place <= _MOST_BESIDE:
                self._before, self._held = self._held[:place], self._held[place:]
                return _read(self._before + b'"}')
            if len(self._held) > _MOST_BESIDE:
                break
        raise Problem("required", "there is no content", "Binary.data")

    async def data(self) -> AsyncIterator[bytes]:
        """The bytes of the content. Raises Problem for what is no base64."""
        rest, is_closed, has_ended = self._held, False, False
        while not is_closed:
            text, quote, behind = rest.partition(b'"')
            is_closed = bool(quote)
            text = text.replace(b"\\/", b"/")  # as some write it
            whole = len(text) if is_closed else len(text.removesuffix(b"\\")) // 4 * 4
            text, left = text[:whole], text[whole:]
            if (text and has_ended) or not _BASE64.fullmatch(text) or (is_closed and len(text) % 4):
                raise Problem("value", "this is no base64", "Binary.data")
            has_ended = has_ended or text.endswith(b"=")
            if text:
                yield b64decode(text)
            if not is_closed:
                piece = await anext(self._stream, None)
                if piece is None:
                    raise Problem("structure", "the body ends within its data", "Binary.data")
                rest = left + piece
        self._behind = behind
        async for piece in self._stream:
            if len(self._behind) <= _MOST_BESIDE:
                self._behind += piece
        if len(self._behind) > _MOST_BESIDE:
            raise Problem("too-long", f"beside data stand at most {_MOST_BESIDE} bytes", "Binary")

    def said(self) -> dict[str, Any]:
        """All that the resource says, without its data."""
        resource = _read(self._before + b'"' + self._behind)
        return {name: value for name, value in resource.items() if name != "data"}


def _find_data(text: bytes) -> int | None:
    """Where the value of the member `data` begins, behind its quotation mark; None where it has not come yet."""
    depth, at, is_key = 0, 0, False
    while found := _BEGINNING.match(text, at):
        token, at = found[0].lstrip(), found.end()
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
        elif token == b'"data"' and depth == 1 and is_key:
            colon = _COLON.match(text, at)
            return colon.end() if colon else None
        is_key = token in (b"{", b",")
    return None


def _read(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Problem("structure", "the body is not JSON", "Binary") from None
    if not isinstance(found, dict):
        raise Problem("structure", "a Binary is expected here", "Binary")
    return found


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise Problem("structure", "a name stands twice in one object", "Binary")
    return found
