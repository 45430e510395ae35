"""What is left of a resource where only part of it is asked for: `_summary` and `_elements`.

Knows: https://hl7.org/fhir/R4/search.html#summary and #elements: which elements belong to which part, and the tag that says
that the rest is missing. Summary elements are those that fhir.resources marks in its classes; so no type needs a list of ours.
Must not know: who asks, HTTP, stores.

A stored resource is cut as JSON: what is kept is never decoded, so it stays as it was sent to the last digit.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from gateway.fhir.types import NESTED, Element, Types
from gateway.problem import Problem

Cut = Mapping[str, Any]  # the members of an object that are kept, each with the cut of what is within it, or None: whole

# What every part holds (`modifierExtension` changes how all the rest is to be understood).
_ALWAYS = ("resourceType", "id", "meta", "implicitRules", "_implicitRules", "modifierExtension")
# An element's own extensions stay with it.
_WITHIN = ("id", "extension", "modifierExtension")
_SUBSETTED = b'{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}'

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Subset:
    """One part of one type. Calling it cuts the JSON of a resource and marks what is left as SUBSETTED."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut

    def __call__(self, body: bytes) -> bytes:
        """The part of this resource."""
        kept = _keep(self._cut, body)
        kept["meta"] = _mark(kept.get("meta"))
        return _encode(kept)


class Subsets:
    """The parts of every type, each worked out when it is first asked for."""

    def __init__(self, types: Types) -> None:
        self._types = types
        self._parts: dict[tuple[str, str], Subset] = {}
        self._within: dict[str, Cut | None] = {}

    def summary(self, type_name: str, kind: str) -> Subset:
        """`_summary`: `true`, `text` or `data`."""
        key = (type_name, kind)
        if key not in self._parts:
            self._parts[key] = Subset(self._summary(type_name, kind))
        return self._parts[key]

    def elements(self, type_name: str, names: Iterable[str]) -> Subset:
        """`_elements`: these root elements and those that are mandatory. Raises Problem naming one that there is not."""
        found = self._types.elements(type_name)
        known = {name for e in found for name in (e.name, e.choice, e.choice and f"{e.choice}[x]") if name and name[0] != "_"}
        wanted = set(names)
        if wanted - known - {"resourceType"}:
            raise Problem("invalid", f"'_elements' lists root elements of {type_name}, parted by commas", "_elements")
        needed = self._mandatory(type_name)
        return Subset(
            self._keep(found, lambda e: e.name in needed or not wanted.isdisjoint((e.name, e.choice, f"{e.choice}[x]")))
        )

    def _summary(self, type_name: str, kind: str) -> Cut:
        found, needed = self._types.elements(type_name), self._mandatory(type_name)
        match kind:
            case "data":
                return self._keep(found, lambda e: e.name != "text")
            case "text":
                return self._keep(found, lambda e: e.name == "text" or e.name in needed)
            case _:
                kept = self._keep(found, lambda e: e.summary or e.name in needed)
                within = {e.name: self._cut_within(e.type) for e in found if e.name in kept and e.name not in _ALWAYS}
                return {**kept, **within}

    def _mandatory(self, type_name: str) -> set[str]:
        found = self._types.elements(type_name)
        choices = {e.choice for e in found if e.choice_required}
        return {e.name for e in found if e.required or (e.choice and e.choice in choices)}

    def _keep(self, found: Iterable[Element], wanted: Callable[[Element], bool]) -> dict[str, Any]:
        """The wanted elements whole, with what says more of their primitives (`_birthDate`), and what is always kept."""
        kept = [e for e in found if wanted(e)]
        return dict.fromkeys((*_ALWAYS, *(e.name for e in kept), *(f"_{e.name}" for e in kept if e.is_primitive)))

    def _cut_within(self, type_name: str) -> Cut | None:
        """The summary of what stands inside an element, None where that is all of it."""
        if type_name[0].islower() or type_name in (NESTED, "Extension", "Narrative"):
            return None
        if type_name not in self._within:
            if not self._leaves_out(type_name, set()):
                self._within[type_name] = None
            else:
                cut: dict[str, Any] = {}
                self._within[type_name] = cut  # (before going on: types can hold themselves)
                for element in self._kept_within(type_name):
                    cut[element.name] = self._cut_within(element.type)
                    if element.is_primitive:
                        cut[f"_{element.name}"] = None
        return self._within[type_name]

    def _kept_within(self, type_name: str) -> list[Element]:
        needed = self._mandatory(type_name)
        return [e for e in self._types.elements(type_name) if e.summary or e.name in needed or e.name in _WITHIN]

    def _leaves_out(self, type_name: str, seen: set[str]) -> bool:
        """Whether the summary of this type, or of one within it, is less than all of it."""
        if type_name[0].islower() or type_name in seen or type_name in (NESTED, "Extension", "Narrative"):
            return False
        seen.add(type_name)
        kept = self._kept_within(type_name)
        named = {e.name for e in self._types.elements(type_name) if e.name[0] != "_"}
        return bool(named - {e.name for e in kept}) or any(self._leaves_out(e.type, seen) for e in kept)


def _keep(cut: Cut, data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of an object that are kept."""
    inside = ((name, _inside(cut[name], value)) for name, value in _members(data).items() if name in cut)
    return {name: value for name, value in inside if value is not None}


def _inside(cut: Cut | None, raw: msgspec.Raw) -> msgspec.Raw | None:
    """What is kept of a value, which may be a list; None where that is nothing, because FHIR has no empty element."""
    if cut is None:
        return raw
    kept: Any
    if bytes(raw)[:1] == b"[":
        kept = [item for item in (_inside(cut, item) for item in _items(raw)) if item is not None]
    else:
        kept = _keep(cut, raw)
    return msgspec.Raw(_encode(kept)) if kept else None


def _mark(meta: msgspec.Raw | None) -> msgspec.Raw:
    """The meta with the tag SUBSETTED, once."""
    found = _members(meta) if meta is not None else {}
    tags = _items(found["tag"]) if "tag" in found else []
    if not any(b'"SUBSETTED"' in bytes(tag) for tag in tags):
        tags.append(msgspec.Raw(_SUBSETTED))
    return msgspec.Raw(_encode({**found, "tag": tags}))
