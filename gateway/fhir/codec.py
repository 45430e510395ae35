"""JSON to typed resources and back, strictly and fast.

Knows: the two validators. The derived Struct decides on the hot path; where it refuses, fhir.resources reads the resource
again because it lists every error. What neither of them sees is found by one law: *what we would store must be what was
sent*. Encoding the decoded resource gives back the same JSON, or the first difference is the error: a duplicate key, a
number sent as text, a null, digits lost (`fidelity.py`).
Must not know: stores, HTTP, profiles.
"""

import re
from array import array
from collections.abc import Iterator
from decimal import Decimal
from itertools import accumulate
from typing import Any

import msgspec
import pydantic

from gateway.fhir.explain import mistakes
from gateway.fhir.fidelity import clean_name, difference, is_calm, is_kept
from gateway.fhir.types import Types
from gateway.problem import Issue, Problem

_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"[]", b"{}")
_STEPS = bytes.maketrans(b"{}", b"\x01\xff")  # one level down, one up, as signed bytes
_MANY_BRACKETS = 10_000
# msgspec puts the place last, and there the names are the standard's: what a client wrote can only stand before it.
_PLACE = re.compile(r"(.*?)(?: - at `\$([\w.\[\]]*)`)?", re.DOTALL)
_INVARIANT = re.compile(r"[a-z]{3}-[0-9]+: ")
# What a full explanation may cost: fhir.resources takes up to 20 µs for every error, and an answer is for reading.
_EXPLAINED_VALUES, _LISTED_ISSUES = 500, 100
_COMPARED_NAMES = 200_000  # of one resource, or of a whole Bundle: those of a thousand entries have room
_WALKED = (msgspec.Struct, Decimal, list)
_NO_PLACE = ((), ("resource_type",))
_HOLDERS = frozenset({"Bundle", "Parameters"})  # resources made to hold others


class Codec:
    """Decodes and encodes resources. `explain_bytes`: a refused resource larger than this gets its first error only."""

    def __init__(self, types: Types, *, depth: int, explain_bytes: int) -> None:
        self._types = types
        self._depth = depth
        self._explain_bytes = explain_bytes
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        self._choices: dict[str, list[tuple[str, tuple[str, str]]]] = {}
        self._encode = msgspec.json.Encoder(decimal_format="number").encode

    def check_body(self, body: bytes) -> bool:
        """Refuse JSON nested too deeply. Returns whether the body is calm: free of what needs the slow comparison."""
        if not _is_shallow(body, self._depth):
            raise Problem("structure", f"JSON nested deeper than {self._depth} levels")
        return is_calm(body)

    def decode(self, type_name: str, data: bytes | msgspec.Raw, *, calm: bool = False) -> Any:
        """The resource (or datatype) as its Struct. Raises Problem that lists what is wrong, by FHIRPath expression.

        `calm`: what `check_body` said of the bytes around `data`.
        """
        try:
            resource = self._decoder(type_name).decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._explain(type_name, bytes(data), error) from None
        try:
            kept = self._encode(resource)
        except ValueError:  # since msgspec 0.23, for a decimal that is no number; before, it was written as text
            raise Problem.of([self._doubt(type_name, resource) or _no_number(type_name)]) from None
        if not (calm and is_kept(bytes(data), kept)):
            _require_few_names(kept)
            issue = self._doubt(type_name, resource) or difference(type_name, bytes(data), kept)
            if issue is not None:
                raise Problem.of([issue])
        if getattr(resource, "contained", None):
            self._check_contained(type_name, resource.contained)
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

    def _check_contained(self, type_name: str, contained: list[msgspec.Raw]) -> None:
        ids: set[str] = set()
        for n, raw in enumerate(contained):
            try:
                identifier = self._check_one_contained(raw)
                if identifier in ids:
                    raise Problem("invariant", "a contained resource has an id of its own", "Resource.id")
                ids.add(identifier)
            except Problem as problem:
                raise problem.within(f"{type_name}.contained[{n}]") from None

    def _check_one_contained(self, raw: msgspec.Raw) -> str:
        """https://hl7.org/fhir/R4/domainresource.html: dom-2, dom-4 and dom-5. Returns its id."""
        kind = self.peek_type(raw)
        if not self._types.has_resource(kind):
            raise Problem("structure", f"R4 has no resource type '{clean_name(kind)}'", "Resource.resourceType")
        contained = self.decode(kind, raw)
        if contained.id is None:
            raise Problem("required", "a contained resource has an id", "Resource.id")
        if getattr(contained, "contained", None) or kind in _HOLDERS:
            raise Problem("invariant", "dom-2: a contained resource contains no other", "Resource.contained")
        meta = contained.meta
        if meta is not None and (meta.versionId or meta.lastUpdated or meta.security):
            raise Problem("invariant", "dom-4, dom-5: no version, time or security label inside", "Resource.meta")
        return str(contained.id)

    def _decoder(self, type_name: str) -> msgspec.json.Decoder[Any]:
        if type_name not in self._decoders:
            try:
                self._decoders[type_name] = msgspec.json.Decoder(self._types.struct(type_name))
            except KeyError:
                raise Problem("structure", f"R4 has no resource type '{clean_name(type_name)}'", "Resource") from None
        return self._decoders[type_name]

    def _doubt(self, type_name: str, resource: Any) -> Issue | None:
        """What neither the derived types nor the comparison of bytes can see: NaN, and a choice made twice by a twin."""
        for place, it in _walk(resource, type_name):
            if isinstance(it, Decimal):
                if not it.is_finite():
                    return _no_number(place)
                continue
            chosen: set[str] = set()
            for choice, names in self._choices_of(type(it).__name__):
                if any(getattr(it, name, None) is not None for name in names):
                    if choice in chosen:
                        return Issue("structure", f"{choice}[x] takes at most one value", f"{place}.{choice}")
                    chosen.add(choice)
        return None

    def _choices_of(self, type_name: str) -> list[tuple[str, tuple[str, str]]]:
        """Each element of a choice with its attributes, by the name of the choice."""
        if type_name not in self._choices:
            elements = (element for element in self._types.elements(type_name) if element.choice)
            self._choices[type_name] = [(e.choice or "", (e.attribute, f"{e.attribute}__ext")) for e in elements]
        return self._choices[type_name]

    def _mistakes(self, type_name: str, data: bytes) -> list[Issue]:
        """What fhir.resources lets through, or stops at the first of."""
        try:
            sent = msgspec.json.decode(data)
            return [*mistakes(self._types, type_name, sent, type_name)] if isinstance(sent, dict) else []
        except (ValueError, RecursionError):
            return []  # typed decoding stops at the first mistake: what comes after need not be JSON

    def _explain(self, type_name: str, data: bytes, error: Exception) -> Problem:
        malformed = _malformed(error)
        if malformed is not None:
            return malformed
        first = _issue_of(type_name, str(error))
        others: list[Issue] = []
        if len(data) <= self._explain_bytes and data.count(b",") < _EXPLAINED_VALUES:
            others = [*self._mistakes(type_name, data), *_oracle_issues(self._types.model(type_name), type_name, data)]
        listed: dict[str | None, Issue] = {}
        for issue in (first, *others):
            listed.setdefault(issue.expression, issue)
        return Problem.of([*listed.values()][:_LISTED_ISSUES])


def _no_number(place: str) -> Issue:
    return Issue("structure", "a number is sent as a JSON number, and nothing else is", place)


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
    """Whether no bracket is nested deeper than `depth`: pairs are struck out, level by level; where that is slow, counted."""
    brackets = body.translate(_ONE_KIND, _NO_BRACKET)
    for _ in range(depth):
        before, brackets = len(brackets), brackets.replace(b"{}", b"")
        if not brackets:
            return True
        if before > _MANY_BRACKETS and len(brackets) > before * 0.8:
            break
    # It is deep, or brackets inside strings have spoilt the pairs.
    brackets = _without_strings(body).translate(_ONE_KIND, _NO_BRACKET)
    if b"{" * (depth + 1) in brackets:
        return False
    return max(accumulate(array("b", brackets.translate(_STEPS))), default=0) <= depth


def _without_strings(body: bytes) -> bytes:
    """JSON with every string left out; one that never ends reaches to the end."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2])


def _require_few_names(data: bytes) -> None:
    """Refuse what would take seconds to compare, name by name (long text has few)."""
    if data.count(b'":') > _COMPARED_NAMES:
        text = (
            f"with more than {_COMPARED_NAMES} elements, no null, _name, element with an id first, or escape like \\u is taken"
        )
        raise Problem("too-costly", text)


def _walk(it: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every Struct and every decimal of a resource, with its FHIRPath; what holds others before these."""
    left = [(it, place)]
    while left:
        it, place = left.pop()
        if isinstance(it, list):
            left += [(item, f"{place}[{n}]") for n, item in enumerate(it) if isinstance(item, _WALKED)][::-1]
            continue
        yield place, it
        if isinstance(it, msgspec.Struct):
            parts = zip(it.__struct_fields__, it.__struct_encode_fields__, strict=True)
            held = [(getattr(it, attribute), name) for attribute, name in parts]
            left += [(item, f"{place}.{name}") for item, name in held if isinstance(item, _WALKED)][::-1]


def _issue_of(type_name: str, message: str) -> Issue:
    """The issue of msgspec's message, without any value the client sent."""
    match = _PLACE.fullmatch(message)
    text, place = (match[1], match[2] or "") if match else (message, "")
    expression = type_name + place
    if text.startswith("Object missing required field `"):
        return Issue("required", "this element is required", f"{expression}.{text.split('`')[1]}")
    if text.startswith("Object contains unknown field `"):
        return Issue("structure", "R4 has no such element here", f"{expression}.{clean_name(text.split('`')[1])}")
    if text.startswith("Invalid enum value"):
        return Issue("code-invalid", "the code is not in the required value set", expression)
    if text.endswith(" is required"):
        return Issue("required", "this element is required", f"{expression}.{text.split()[0]}")
    if " takes " in text:
        return Issue("structure", text, f"{expression}.{text.partition('[')[0]}")
    if _INVARIANT.match(text):
        return Issue("invariant", text, f"{expression}.div" if text.startswith("txt-") else expression)
    kind = re.fullmatch(r"Expected `(?P<kind>[a-z| ]+)`, got `(?P<got>[a-z]+)`", text)
    if kind:
        return Issue("structure", f"expected {kind['kind'].removesuffix(' | null')}, got {kind['got']}", expression)
    return Issue("value", "not a valid value of this element", expression)


def _oracle_issues(model: Any, type_name: str, data: bytes) -> list[Issue]:
    """Every error that fhir.resources finds, with its path and none of its values."""
    try:
        model.model_validate_json(data)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        return [_oracle_issue(type_name, e["loc"], e["type"]) for e in found if e["loc"] not in _NO_PLACE]
    except (ValueError, TypeError, RecursionError):
        return []
    return []


def _oracle_issue(type_name: str, place: tuple[int | str, ...], kind: str) -> Issue:
    expression = type_name + "".join(f"[{p}]" if isinstance(p, int) else f".{clean_name(p)}" for p in place)
    if kind.endswith("missing"):
        return Issue("required", "this element is required", expression)
    if kind == "extra_forbidden":
        return Issue("structure", "R4 has no such element here", expression)
    if kind.endswith("_type"):
        return Issue("structure", f"expected {kind.removesuffix('_type').replace('_', ' ')}", expression)
    return Issue("value", "not a valid value of this element", expression)
