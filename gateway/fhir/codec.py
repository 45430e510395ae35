"""JSON to typed resources and back, strictly and fast.

Knows: the two validators. The derived Struct decides on the hot path; where it refuses, fhir.resources reads the resource
again because it lists every error. What neither of them sees is found by one law: *what we would store must be what was
sent*. Encoding the decoded resource gives back the same JSON, or the first difference is the error: a duplicate key, a
number sent as text, a null, digits lost.
Must not know: stores, HTTP, profiles.
"""

import importlib
import json
import re
from decimal import Decimal
from typing import Any

import msgspec
import pydantic

from gateway.fhir.types import Types
from gateway.problem import Issue, Problem

_WHITE_SPACE = b" \t\r\n"
# Where none of these bytes occurs, equal lengths prove that sent and kept are equal: re-encoding never makes JSON longer
# but for an exponent (1e2 becomes 1E+2), and escapes, nulls and empty objects are what the slow comparison is for.
_SUSPECT = (b"\\u", b"null", b"{}", b"E+")
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"[]", b"{}")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PLACE = re.compile(r"^(.*?)(?: - at `\$(.*)`)?$", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LONGEST_NUMBER = 64  # characters; the 18 digits of https://hl7.org/fhir/R4/datatypes.html#decimal with room to spare


class Codec:
    """Decodes and encodes resources. `explain_bytes`: a refused resource larger than this gets its first error only."""

    def __init__(self, types: Types, *, depth: int, explain_bytes: int) -> None:
        self._types = types
        self._depth = depth
        self._explain_bytes = explain_bytes
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        self._encode = msgspec.json.Encoder(decimal_format="number").encode

    def check_body(self, body: bytes) -> bool:
        """Refuse JSON nested too deeply. Returns whether the body is calm: free of what needs the slow comparison."""
        if not _is_shallow(body, self._depth):
            raise Problem("structure", f"JSON nested deeper than {self._depth} levels")
        return not any(mark in body for mark in _SUSPECT)

    def decode(self, type_name: str, data: bytes | msgspec.Raw, *, calm: bool = False) -> Any:
        """The resource (or datatype) as its Struct. Raises Problem that lists what is wrong, by FHIRPath expression.

        `calm`: what `check_body` said of the bytes around `data`.
        """
        try:
            resource = self._decoder(type_name).decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._explain(type_name, bytes(data), error) from None
        kept = self._encode(resource)
        if not calm or b"E+" in kept or not _same_length(bytes(data), kept):
            issue = _difference(type_name, bytes(data), kept)
            if issue is not None:
                raise Problem.of([issue])
        for n, raw in enumerate(getattr(resource, "contained", None) or ()):
            try:
                self._check_contained(raw)
            except Problem as problem:
                raise problem.within(f"{type_name}.contained[{n}]") from None
        return resource

    def load(self, type_name: str, data: bytes | msgspec.Raw) -> Any:
        """The resource behind bytes that `encode` once made."""
        return self._decoder(type_name).decode(data)

    def encode(self, resource: Any) -> bytes:
        """The resource as compact JSON in the standard's element order; decimals keep their digits."""
        return self._encode(resource)

    def peek_type(self, data: bytes | msgspec.Raw) -> str:
        """The `resourceType` of a JSON object. Raises Problem where there is none."""
        try:
            found = msgspec.json.decode(data, type=_Typed).resourceType
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _malformed(error) or Problem("structure", "a JSON object with a resourceType is expected") from None
        return found

    def _check_contained(self, raw: msgspec.Raw) -> None:
        """https://hl7.org/fhir/R4/domainresource.html: dom-2, dom-4 and dom-5."""
        contained = self.decode(self.peek_type(raw), raw)
        meta = contained.meta
        if contained.id is None:
            raise Problem("required", "a contained resource has an id", "Resource.id")
        if getattr(contained, "contained", None):
            raise Problem("invariant", "dom-2: a contained resource contains no other", "Resource.contained")
        if meta is not None and (meta.versionId or meta.lastUpdated or meta.security):
            raise Problem("invariant", "dom-4, dom-5: no version, time or security label inside", "Resource.meta")

    def _decoder(self, type_name: str) -> msgspec.json.Decoder[Any]:
        if type_name not in self._decoders:
            try:
                self._decoders[type_name] = msgspec.json.Decoder(self._types.struct(type_name))
            except KeyError:
                raise Problem("structure", f"R4 has no resource type '{_name(type_name)}'", "Resource") from None
        return self._decoders[type_name]

    def _explain(self, type_name: str, data: bytes, error: Exception) -> Problem:
        malformed = _malformed(error)
        if malformed is not None:
            return malformed
        first = _issue_of(type_name, str(error))
        issues = list(_oracle_issues(type_name, data)) if len(data) <= self._explain_bytes else []
        if not any(issue.expression == first.expression for issue in issues):
            issues.insert(0, first)
        return Problem.of(issues)


class _Typed(msgspec.Struct):
    resourceType: str  # noqa: N815 (FHIR's own name)


def _malformed(error: Exception) -> Problem | None:
    """The problem of bytes that are no JSON at all, None where only their content is wrong."""
    if isinstance(error, RecursionError):
        return Problem("structure", "JSON nested too deeply")
    if isinstance(error, msgspec.ValidationError):
        return None
    place = re.search(r"\(byte (\d+)\)", str(error))
    return Problem("structure", f"not JSON in UTF-8{f' at byte {place[1]}' if place else ''}")


def _is_shallow(body: bytes, depth: int) -> bool:
    """Whether no bracket is nested deeper than `depth`, without a tokenizer: strike out pairs, level by level."""
    if not _strike(body, depth):
        return True
    # Brackets inside strings may have spoilt the pairs. What is unbalanced even without them is the decoder's to refuse.
    return b"{}" not in _strike(_STRING.sub(b"", body), depth)


def _strike(body: bytes, levels: int) -> bytes:
    brackets = body.translate(_ONE_KIND, _NO_BRACKET)
    for _ in range(levels):
        if not brackets:
            break
        brackets = brackets.replace(b"{}", b"")
    return brackets


def _same_length(sent: bytes, kept: bytes) -> bool:
    return len(sent) == len(kept) or len(sent.translate(None, _WHITE_SPACE)) == len(kept.translate(None, _WHITE_SPACE))


def _issue_of(type_name: str, message: str) -> Issue:
    """The issue of msgspec's message, without any value the client sent."""
    match = _PLACE.match(message)
    text, place = (match[1], match[2] or "") if match else (message, "")
    expression = type_name + place
    if text.startswith("Object missing required field `"):
        return Issue("required", "this element is required", f"{expression}.{text.split('`')[1]}")
    if text.startswith("Object contains unknown field `"):
        return Issue("structure", "R4 has no such element here", f"{expression}.{_name(text.split('`')[1])}")
    if text.startswith("Invalid enum value"):
        return Issue("code-invalid", "the code is not in the required value set", expression)
    if text.startswith(("Invalid value", "Expected", "Input")):
        kind = re.match(r"Expected `(?P<kind>[a-z| ]+)`(?:, got `(?P<got>[a-z]+)`)?$", text)
        detail = f"expected {kind['kind']}, got {kind['got']}" if kind and kind["got"] else "not a valid value of this element"
        return Issue("structure" if kind else "value", detail, expression)
    if text.endswith(" is required"):
        return Issue("required", "this element is required", f"{expression}.{text.split()[0]}")
    return Issue("invariant", text, expression)


def _name(text: str) -> str:
    """A key the client made up, as it may stand in an answer."""
    return "".join(c if c.isalnum() or c == "_" else "?" for c in text[:40])


def _oracle_issues(type_name: str, data: bytes) -> list[Issue]:
    """Every error that fhir.resources finds, with its path and none of its values."""
    model: Any = getattr(importlib.import_module(f"fhir.resources.R4B.{type_name.lower()}"), type_name)
    try:
        model.model_validate_json(data)
    except pydantic.ValidationError as error:
        return [_oracle_issue(type_name, e["loc"], e["type"]) for e in error.errors(include_url=False, include_input=False)]
    except (ValueError, TypeError, RecursionError):
        return []
    return []


def _oracle_issue(type_name: str, place: tuple[int | str, ...], kind: str) -> Issue:
    expression = type_name + "".join(f"[{p}]" if isinstance(p, int) else f".{_name(p)}" for p in place)
    if kind.endswith("missing"):
        return Issue("required", "this element is required", expression)
    if kind == "extra_forbidden":
        return Issue("structure", "R4 has no such element here", expression)
    if kind.endswith("_type"):
        return Issue("structure", f"expected {kind.removesuffix('_type').replace('_', ' ')}", expression)
    return Issue("value", "not a valid value of this element", expression)


class _Number(str):
    """A JSON number by its characters, so that comparing loses no digit."""

    __slots__ = ()


class _Duplicate(Exception):
    """A key stands twice in one object."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Duplicate(next(name for name in names if names.count(name) > 1))
    return found


def _refuse_constant(_: str) -> Any:
    raise ValueError("not a JSON number")


_STRICT = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant)


def _difference(type_name: str, sent: bytes, kept: bytes) -> Issue | None:
    """The first place where the sent JSON says something that the decoded resource does not."""
    try:
        asked = _STRICT.decode(sent.decode())
    except _Duplicate as duplicate:
        return Issue("structure", f"the key '{_name(str(duplicate))}' stands twice in one object", type_name)
    except ValueError:
        return Issue("structure", "not JSON in UTF-8", type_name)
    return _compare(asked, _STRICT.decode(kept.decode()), type_name)


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
    for name, value in sent.items():
        where = f"{place}.{_name(name)}"
        if value is None:
            return Issue("structure", "null is not allowed here", where)
        if not isinstance(kept, dict) or name not in kept:
            return Issue("structure", "not a valid value of this element", where)
        if isinstance(value, list) and None in value:
            twin = sent.get(name[1:] if name.startswith("_") else f"_{name}")
            filled = twin if isinstance(twin, list) else []
            if any(v is None and (n >= len(filled) or filled[n] is None) for n, v in enumerate(value)):
                return Issue("structure", "null is allowed only where the list's twin has an entry", where)
        issue = _compare(value, kept[name], where)
        if issue is not None:
            return issue
    return None


def _compare_numbers(sent: Any, kept: Any, place: str) -> Issue | None:
    if not isinstance(sent, _Number) or not isinstance(kept, _Number):
        return Issue("structure", "a number is sent as a JSON number, and nothing else is", place)
    if len(sent) > _LONGEST_NUMBER or abs(Decimal(sent).adjusted()) > 300:
        return Issue("value", "the number has more digits than can be kept", place)
    one, other = Decimal(sent), Decimal(kept)
    same = one == other and (one.is_zero() or one.as_tuple() == other.as_tuple())
    return None if same else Issue("value", "the number cannot be kept as sent", place)
