"""The few elements that tell whose a resource is, under which identifier it is known and what it points at.

Knows: how to read them without decoding the rest, which for a re-sent resource is all that is needed.
Must not know: stores, what is done with an identity.
"""

import typing
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from gateway.fhir.dates import read_span
from gateway.fhir.registry import Registry, ResourceType
from gateway.fhir.values import has_system, token_values

IDENTIFIER_BYTES, SOURCE_BYTES = 12, 4


class Identities:
    """Reads the identity of resources of every type of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._decoders = {kind.name: _decoder(registry, kind) for kind in registry.resource_types.values()}

    def read(self, kind: ResourceType, data: bytes | msgspec.Raw) -> Any:
        """The identifying elements as a Struct; None where they are not valid, or it is no resource of this type."""
        try:
            identity = self._decoders[kind.name].decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            return None
        return identity if identity.resourceType == kind.name else None


def business_key(
    kind: ResourceType, identity: Any, patient: str | None, source: str, localize: Callable[[str], str] | None = None
) -> bytes | None:
    """The hash under which a resource is unique, None where it has no business identifier.

    `identity`: the resource, or what `Identities.read` gives; `localize`: what a reference leads to here, where a resource
    without an identifier may be known by its natural key. In a patient's compartment the key is the sender's own: its
    first part stands for type, patient and identifier, its second for the source, so that two sources never collide. A
    directory entry or a Patient is one for all sources.
    """
    first = identifier_key(kind, identity, patient)
    if first is None and kind.natural and localize is not None:
        told = _natural(kind, identity, localize)
        first = _hash(f"{kind.name}\0{patient}\0\0{told}", IDENTIFIER_BYTES) if told is not None else None
    return None if first is None else first + _hash(source if kind.patient else "", SOURCE_BYTES)


def identifier_key(kind: ResourceType, identity: Any, patient: str | None) -> bytes | None:
    """The first part of a business key, which needs no source to be known."""
    for branch, convert in kind.keys:
        for item in branch.read(identity):
            token = next(iter(convert(item)), "")
            if has_system(token):
                owner = f"{patient}\0" if kind.patient else ""
                return _hash(f"{kind.name}\0{owner}{token}", IDENTIFIER_BYTES)
    return None


def of_any_sender(key: bytes) -> dict[str, bytes]:
    """The business keys that differ from this one by the sender alone, as a range.

    (Both ends are as long as a key: to MongoDB whatever is shorter comes before whatever is longer.)
    """
    first = key[:IDENTIFIER_BYTES]
    return {"$gte": first + b"\x00" * SOURCE_BYTES, "$lte": first + b"\xff" * SOURCE_BYTES}


def content_key(digest: bytes, source: str) -> bytes:
    """The hash under which content is unique. `digest`: a hash of its patient, media type and bytes; `source`: whose it is."""
    return digest[:IDENTIFIER_BYTES] + _hash(source, SOURCE_BYTES)


def _natural(kind: ResourceType, identity: Any, localize: Callable[[str], str]) -> str | None:
    """What a resource is known by where it has no identifier; None where it leaves open by what it was made, or when."""
    parts: list[str] = []
    for branches in kind.natural:
        for branch in branches:
            names = [item if branch.type == "code" else _name(item, localize) for item in branch.read(identity)]
            if None in names or (not names and branch.type not in ("CodeableConcept", "Coding")):
                return None
            parts.append("\0".join(name for name in names if name is not None))
    return "\0\0".join(parts)


def _name(item: Any, localize: Callable[[str], str]) -> str | None:
    """A reference, a code or an instant as it is the same whoever writes it; None where it tells none."""
    if isinstance(item, str):
        return read_span(item).low.isoformat() if len(item) > len("2026-11-25") else None
    if hasattr(item, "reference"):
        text = localize(item.reference) if item.reference else ""
        tokens = token_values(item.identifier.system, item.identifier.value) if item.identifier is not None else [""]
        return None if text.startswith("#") else text or tokens[0] or None
    coding = next(iter(item.coding or ()), None) if hasattr(item, "coding") else item
    return None if coding is None or not coding.code else token_values(coding.system, coding.code)[0]


def references_of(identity: Any) -> list[str]:
    """The literal references among the identifying elements."""
    found = []
    for name in identity.__struct_fields__:
        value = getattr(identity, name)
        for item in value if isinstance(value, list) else (value,):
            text = getattr(item, "reference", None)
            if text:
                found.append(text)
    return found


def digest_of(data: bytes) -> int:
    """A number that tells whether bytes were sent before, in the range of a BSON integer."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), signed=True)


def _hash(text: str, size: int) -> bytes:
    return blake2b(text.encode(), digest_size=size).digest()


def _decoder(registry: Registry, kind: ResourceType) -> msgspec.json.Decoder[Any]:
    branches = [*kind.patient, *(branch for branch, _ in kind.keys)]
    branches += [branch for found in kind.natural for branch in found]
    types = registry.types
    firsts = {branch.first for branch in branches}
    firsts |= {element.attribute for element in types.elements(kind.name) if element.type == "Reference"}
    struct = types.struct(kind.name)
    # Forward references in the annotations are names of types: the derived Struct's module knows them.
    fields = [(name, typing.get_type_hints(struct, include_extras=True)[name], None) for name in sorted(firsts)]
    renames = {e.attribute: e.name for e in types.elements(kind.name) if e.attribute in firsts and e.attribute != e.name}
    identity = msgspec.defstruct(f"{kind.name}Identity", [("resourceType", str), *fields], rename=renames or None, gc=False)
    return msgspec.json.Decoder(identity)
