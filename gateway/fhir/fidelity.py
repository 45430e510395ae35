"""Whether what would be kept is what was sent: the law by which a decoded resource is held against its bytes.

Knows: JSON as FHIR restricts it (https://hl7.org/fhir/R4/json.html): no key twice, no null but in twin lists, nothing empty,
numbers as numbers with all their digits. Must not know: types, profiles, stores.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from gateway.problem import Issue

_WHITE_SPACE = b" \t\r\n"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_OF_NUMBERS = frozenset(bytes([byte]) for byte in b"0123456789.-")
_BEFORE_NUMBERS = frozenset((b":", b",", b"["))
_LONGEST_NUMBER = 64  # characters; the 18 digits of https://hl7.org/fhir/R4/datatypes.html#decimal with room to spare
_LONG_NUMBER = b"0" * (_LONGEST_NUMBER + 1)
_DIGITS = bytes.maketrans(b"0123456789+-.eE", b"0" * 15)


def is_calm(body: bytes) -> bool:
    """Whether JSON is free of what needs the slow comparison: then `is_kept` can prove that nothing got lost."""
    if b"null" in body or b"{}" in body or _LONG_NUMBER in body.translate(_DIGITS):
        return False
    return not (b"\\" in body and any(mark in body for mark in (b"\\u", b"\\b", b"\\f")))


def is_kept(sent: bytes, kept: bytes) -> bool:
    """Whether calm JSON and its re-encoding are sure to say the same; False where only `difference` can tell.

    Re-encoding drops quotes with a repeated key or a number sent as text, adds them with a missing resourceType, and makes
    nothing longer but an exponent: equal quotes and equal lengths leave no room for a loss.
    """
    if sent.count(b'"') != kept.count(b'"'):
        return False
    if len(sent) != len(kept) and (_length(sent) != _length(kept) or b"{}" in kept):
        return False
    # What only the slow comparison can judge: twins (`_name`), elements that may hold an id alone, exponents.
    if (b"_" in kept and b'"_' in kept) or b'{"id":"' in kept:
        return False
    return b"E" not in kept or not (_has_exponent(kept, b"E+") or _has_exponent(kept, b"E-"))


def _has_exponent(kept: bytes, mark: bytes) -> bool:
    """Whether a number in compact JSON has an exponent. (Contents in base64 are full of what looks like a part of one.)"""
    at = kept.find(mark)
    while at >= 0:
        begin = at
        while kept[begin - 1 : begin] in _OF_NUMBERS and begin > 0:
            begin -= 1
        if begin < at and kept[begin - 1 : begin] in _BEFORE_NUMBERS:
            return True
        at = kept.find(mark, at + 2)
    return False


def difference(type_name: str, sent: bytes, kept: bytes) -> Issue | None:
    """The first place where the sent JSON says something that the decoded resource does not, or that JSON may not say."""
    try:
        asked = _STRICT.decode(sent.decode())
    except (ValueError, RecursionError):
        return Issue("structure", "not JSON in UTF-8", type_name)
    found = _KEPT.decode(kept.decode())
    if isinstance(asked, dict) and "resourceType" in found and "resourceType" not in asked:
        return Issue("required", "a resource says its resourceType", f"{type_name}.resourceType")
    return _compare(asked, found, type_name)


def clean_name(text: str) -> str:
    """A key the client made up, as it may stand in an answer."""
    return "".join(c if c.isalnum() or c == "_" else "?" for c in text[:40])


class _Number(str):
    """A JSON number by its characters, so that comparing loses no digit."""

    __slots__ = ()


class _Repeated(dict[str, Any]):
    """An object in which a key stands twice."""

    name = ""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated, left = _Repeated(found), dict(found)
    repeated.name = next(name for name, _ in pairs if left.pop(name, left) is left)
    return repeated


def _refuse_constant(_: str) -> Any:
    raise ValueError("not a JSON number")


_STRICT = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant)
_KEPT = json.JSONDecoder(parse_float=_Number, parse_int=_Number)


def _length(data: bytes) -> int:
    return len(data.translate(None, _WHITE_SPACE))


def _compare(sent: Any, kept: Any, place: str) -> Issue | None:
    if isinstance(sent, dict):
        return _compare_objects(sent, kept, place)
    if isinstance(sent, list):
        if not isinstance(kept, list) or len(sent) != len(kept):
            return Issue("structure", "a list is not expected here", place)
        pairs = enumerate(zip(sent, kept, strict=True))
        return next((i for n, (s, k) in pairs if (i := _compare(s, k, f"{place}[{n}]"))), None)
    if isinstance(sent, _Number) or isinstance(kept, _Number):
        return _compare_numbers(sent, kept, place)
    if isinstance(sent, str) and _CONTROL.search(sent):
        return Issue("value", "text must not hold control characters", place)
    return None if sent == kept else Issue("structure", "not a valid value of this element", place)


def _compare_objects(sent: dict[str, Any], kept: Any, place: str) -> Issue | None:
    if not sent:
        return Issue("structure", "an object must not be empty", place)
    if isinstance(sent, _Repeated):
        where = f"{place}.{clean_name(sent.name)}"
        return Issue("structure", "this key stands twice in one object", where)
    for name, value in sent.items():
        where = f"{place}.{clean_name(name)}"
        if value is None:
            return Issue("structure", "null is not allowed here", where)
        if not isinstance(kept, dict) or name not in kept:
            return Issue("structure", "not a valid value of this element", where)
        issue = _check_twin(sent, name, value, where) or _compare(value, kept[name], where)
        if issue is not None:
            return issue
    return None


def _check_twin(sent: dict[str, Any], name: str, value: Any, where: str) -> Issue | None:
    """https://hl7.org/fhir/R4/json.html#primitive: two lists fill one another's gaps; ele-1: no element is without content."""
    is_twin = name.startswith("_")
    twin = sent.get(name[1:] if is_twin else f"_{name}")
    if not isinstance(value, list):
        if _is_id_alone(value) and (twin is None or not is_twin):
            return Issue("invariant", "ele-1: an element has a value or children beside its id", where)
        return None
    filled = twin if isinstance(twin, list) else []
    if filled and len(filled) != len(value):
        return Issue("structure", "a list and its twin have the same length", where)
    for n, item in enumerate(value):
        other = filled[n] if filled else None
        if item is None and other is None:
            return Issue("structure", "null is allowed only where the list's twin has an entry", where)
        if _is_id_alone(item) and (other is None or not is_twin):
            return Issue("invariant", "ele-1: an element has a value or children beside its id", f"{where}[{n}]")
    return None


def _is_id_alone(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and "id" in value


def _compare_numbers(sent: Any, kept: Any, place: str) -> Issue | None:
    if not isinstance(sent, _Number) or not isinstance(kept, _Number):
        return Issue("structure", "a number is sent as a JSON number, and nothing else is", place)
    too_long = Issue("value", "the number has more digits than can be kept", place)
    if len(sent) > _LONGEST_NUMBER:
        return too_long
    try:
        one, other = Decimal(sent), Decimal(kept)
    except InvalidOperation:
        return too_long
    if abs(one.adjusted()) > 300:
        return too_long
    same = one == other and (one.is_zero() or one.as_tuple() == other.as_tuple())
    return None if same else Issue("value", "the number cannot be kept as sent", place)
