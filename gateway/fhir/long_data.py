"""Long base64 in a JSON body, set apart before the rest is looked at: nothing of it is read five times.

Knows: that the value of a key `data` whose bytes are base64 without anything else (https://www.rfc-editor.org/rfc/rfc4648)
can hold nothing that JSON, or a check of it, would stop at. Must not know: resources, what the bytes are.
"""

from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from secrets import token_bytes

_KEY = b'"data"'
_SHORT = 16_384  # bytes: what is not longer is not worth it
_MARK_BYTES = 18  # 24 characters that nobody can have sent
_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Apart:
    """A body with a mark (base64, too) in place of each long value. `held`: by mark, the value as sent and its bytes."""

    body: bytes
    held: Mapping[bytes, tuple[bytes, bytes]] = field(default_factory=dict)

    def plain_of(self, part: bytes) -> bytes | None:
        """The bytes that are meant by the one long value in a part of the body; None where there is none, or several."""
        found = [(begin, end) for begin, end in _values(part) if part[begin:end] in self.held]
        return self.held[part[found[0][0] : found[0][1]]][1] if len(found) == 1 else None

    def whole(self, part: bytes) -> bytes:
        """A part of the body as it was sent."""
        pieces, done = list[bytes](), 0
        for begin, end in _values(part) if self.held else ():
            known = self.held.get(part[begin:end])
            if known is not None:
                pieces += [part[done:begin], known[0]]
                done = end
        return b"".join([*pieces, part[done:]])


def set_apart(body: bytes) -> Apart:
    """The body without its long data. What is the same in two places has the same mark."""
    if len(body) <= _SHORT:
        return Apart(body)
    pieces, done = list[bytes](), 0
    held: dict[bytes, tuple[bytes, bytes]] = {}
    marks: dict[bytes, bytes] = {}
    for begin, end in _values(body):
        if end - begin <= _SHORT:
            continue
        sent = body[begin:end]
        if sent not in marks:
            plain = _plain(sent)
            if plain is None:
                continue
            marks[sent] = b64encode(token_bytes(_MARK_BYTES))
            held[marks[sent]] = sent, plain
        pieces += [body[done:begin], marks[sent]]
        done = end
    return Apart(b"".join([*pieces, body[done:]]), held) if held else Apart(body)


def _plain(sent: bytes) -> bytes | None:
    try:
        return None if sent.endswith(b"===") else a2b_base64(sent, strict_mode=True)
    except Error:
        return None


def _values(body: bytes) -> Iterator[tuple[int, int]]:
    """Where the text behind each key `data` begins and ends."""
    at = body.find(_KEY)
    while at >= 0:
        begin = _behind_space(body, at + len(_KEY))
        if body[begin : begin + 1] == b":":
            begin = _behind_space(body, begin + 1)
            end = body.find(b'"', begin + 1)
            if body[begin : begin + 1] == b'"' and end > begin:
                yield begin + 1, end
                at = body.find(_KEY, end)
                continue
        at = body.find(_KEY, begin)


def _behind_space(body: bytes, at: int) -> int:
    while body[at : at + 1] and body[at] in _SPACE:
        at += 1
    return at
