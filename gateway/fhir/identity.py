"""The few elements that tell whose a resource is and under which identifier it is known.

Knows: how to read them without decoding the rest, which for a re-sent resource is all that is needed.
Must not know: stores, what is done with an identity.
"""

import typing
from hashlib import blake2b
from typing import Any

import msgspec

from gateway.fhir.registry import Registry, ResourceType
from gateway.fhir.values import has_system


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


def business_key(kind: ResourceType, identity: Any, patient: str | None, source: str) -> bytes | None:
    """The hash under which a resource is unique, None where it has no business identifier.

    `identity`: the resource, or what `Identities.read` gives. In a patient's compartment the key is the sender's own
    (patient, source, identifier): two sources never collide. A directory entry or a Patient is one for all sources.
    """
    for name in kind.unique:
        for branch, convert in kind.search[name].readers:
            for item in branch.read(identity):
                token = next(iter(convert(item)), "")
                if has_system(token):
                    owner = f"{patient}\0{source}\0" if kind.patient else ""
                    return blake2b((owner + token).encode(), digest_size=16).digest()
    return None


def digest_of(data: bytes) -> int:
    """A number that tells whether bytes were sent before, in the range of a BSON integer."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), signed=True)


def _decoder(registry: Registry, kind: ResourceType) -> msgspec.json.Decoder[Any]:
    branches = [*kind.patient, *(branch for name in kind.unique for branch, _ in kind.search[name].readers)]
    firsts = {branch.first for branch in branches}
    types = registry.types
    struct = types.struct(kind.name)
    # Forward references in the annotations are names of types: the derived Struct's module knows them.
    fields = [(name, typing.get_type_hints(struct, include_extras=True)[name], None) for name in sorted(firsts)]
    renames = {e.attribute: e.name for e in types.elements(kind.name) if e.attribute in firsts and e.attribute != e.name}
    identity = msgspec.defstruct(f"{kind.name}Identity", [("resourceType", str), *fields], rename=renames or None, gc=False)
    return msgspec.json.Decoder(identity)
