"""JSON as plain Python values, for what is changed piece by piece before it is read as a resource.

Knows: how to read and write it without losing a digit, and how much may be copied. Must not know: FHIR types, patches.
"""

import json
from decimal import Decimal
from typing import Any

import msgspec

from gateway.problem import Problem

_DEEPEST = 128
_encode = msgspec.json.Encoder(decimal_format="number").encode


def read_tree(data: bytes) -> Any:
    """The JSON as dicts and lists; numbers with a fraction or exponent are Decimals. Raises Problem for what is no JSON."""
    try:
        return _DECODER.decode(data.decode())
    except _RepeatedKey:
        raise Problem("structure", "a key stands twice in one object") from None
    except (ValueError, RecursionError, ArithmeticError):
        raise Problem("structure", "not JSON in UTF-8") from None


def write_tree(tree: Any) -> bytes:
    """The bytes of a tree."""
    try:
        return _encode(tree)
    except RecursionError:
        raise Problem("structure", "JSON nested too deeply", status=422) from None


def prune(tree: Any) -> None:
    """Leave out every list without items, which FHIR does not write."""
    pending = [tree]
    while pending:
        at = pending.pop()
        if isinstance(at, dict):
            for name in [name for name, value in at.items() if value == []]:
                del at[name]
            pending += at.values()
        elif isinstance(at, list):
            pending += at


class Copier:
    """Copies trees, up to so many characters and nodes in all: a few copies of copies would be larger than any memory."""

    def __init__(self, most: int) -> None:
        self._left = most

    def copy(self, tree: Any, depth: int = 0) -> Any:
        """A tree that shares nothing that can be changed. Raises Problem where it is too much."""
        self._left -= 1 + (len(tree) if isinstance(tree, str) else 0)
        if self._left < 0 or depth > _DEEPEST:
            raise Problem("too-costly", "the patch copies more than is allowed here")
        if isinstance(tree, dict):
            self._left -= sum(map(len, tree))
            return {name: self.copy(value, depth + 1) for name, value in tree.items()}
        if isinstance(tree, list):
            return [self.copy(item, depth + 1) for item in tree]
        return tree


class _RepeatedKey(ValueError):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedKey
    return found


def _refuse_constant(_: str) -> Any:
    raise ValueError("not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=Decimal, parse_constant=_refuse_constant)
