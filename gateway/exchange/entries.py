"""The writes of one request, from what was asked to what was decided.

Knows: how a create, update or delete is decoded and what it must say about itself. Must not know: stores, HTTP.
"""

from dataclasses import dataclass
from typing import Any

from gateway.access.access import Access
from gateway.exchange.call import Call
from gateway.exchange.gateway import Gateway
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem
from gateway.store.commit import Change
from gateway.store.mongo import Document


@dataclass(slots=True)
class Entry:
    """One write. What is asked: `call`, `kind`, `resource`, `full_url`. What planning decides: everything else.

    `id`: the resource's id, new or known. `existing`: the stored resource that answers in place of a new one; `matched`: it
    was found by `If-None-Exist`. `twin`: an earlier entry of the Bundle that says the same. `former`: the version to be
    replaced. `change`: what is to be written, if anything.
    """

    call: Call
    kind: ResourceType
    resource: Any = None
    full_url: str | None = None
    id: str | None = None
    patient: str | None = None
    key: bytes | None = None
    existing: Document | None = None
    matched: bool = False
    twin: "Entry | None" = None
    former: Document | None = None
    change: Change | None = None

    @property
    def is_create(self) -> bool:
        """Whether a resource is to be created, unless one is there already."""
        return self.call.interaction == "create"

    def expression(self, rest: str = "") -> str:
        """The FHIRPath of an element of this entry, from the root of what was sent."""
        return (self.call.place or self.kind.name) + rest

    def locate(self, problem: Problem) -> Problem:
        """The problem with expressions from the root of what was sent."""
        return problem.within(self.call.place) if self.call.place else problem


def read_entry(gateway: Gateway, access: Access, call: Call, full_url: str | None = None) -> Entry:
    """The write that a call asks for, decoded. Raises Problem where it is no valid resource or not theirs to write."""
    kind = require_kind(gateway, call)
    access.require(kind, call.interaction)
    entry = Entry(call, kind, full_url=full_url, id=call.id)
    if call.interaction == "delete":
        return entry
    try:
        entry.resource = _decode(gateway, kind, call)
    except Problem as problem:
        raise entry.locate(problem) from None
    if call.interaction == "update" and entry.resource.id != call.id:
        text = "the id in the resource must be the one in the URL"
        raise Problem("invalid", text, entry.expression(".id"))
    return entry


def require_kind(gateway: Gateway, call: Call) -> ResourceType:
    """The type of a call. Raises Problem 404 where it is not served, 405 where it has no such interaction."""
    kind = gateway.registry.find(call.type)
    if kind is None:
        raise Problem("not-supported", "this resource type is not served here", call.place, status=404)
    if call.interaction not in kind.interactions:
        raise Problem("not-supported", f"{kind.name} has no interaction '{call.interaction}' here", call.place)
    return kind


def _decode(gateway: Gateway, kind: ResourceType, call: Call) -> Any:
    body = call.body or b""
    found = gateway.codec.peek_type(body)
    if found != kind.name:
        raise Problem("invalid", f"a {kind.name} is expected here", kind.name)
    return gateway.codec.decode(kind.name, body, calm=call.calm)
