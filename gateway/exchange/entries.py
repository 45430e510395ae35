"""The writes of one request, from what was asked to what was decided.

Knows: how much of a create, update or delete is to be decoded when, and what it must say about itself.
Must not know: stores, HTTP.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.exchange.call import Call, methods_beside
from gateway.exchange.contents import Deposit
from gateway.exchange.gateway import Gateway
from gateway.exchange.patch import Patch, apply_patch, make_version, read_patch
from gateway.exchange.withheld import NOTHING, Withheld, leave_out
from gateway.fhir.identity import digest_of
from gateway.fhir.registry import ResourceType
from gateway.problem import Issue, Problem
from gateway.store.change import Change
from gateway.store.conditions import Condition
from gateway.store.mongo import Document


@dataclass(slots=True)
class Entry:
    """One write.

    What is asked: `call`, `kind`, `full_url`; of a create `identity`, the elements by which it may be known already, and
    `digest`, a hash of the bytes as sent; of a patch `patch`. What planning decides: `resource`, decoded once it is needed;
    `id`, new or known; `existing`, the stored resource that answers in place of a new one (`matched`: found by
    `If-None-Exist`); `condition`, what must not be found when it is committed; `twin`, an earlier entry of the Bundle that
    says the same; `former`, the version to be replaced; `change`, what is to be written; `refusal`, why not, where
    each entry stands for itself; `withheld`, the links of the former version that its writer is not shown. Of content
    `deposit`; `has_names`: whether names were put into it that stand for others; `came_along`: whether nobody asked for it as
    such; `publishes`: whether it is a document that came alone; `warnings`: what of it has no consequences here.
    """

    call: Call
    kind: ResourceType
    full_url: str | None = None
    identity: Any = None
    digest: int | None = None
    patch: Patch | None = None
    resource: Any = None
    id: str | None = None
    patient: str | None = None
    key: bytes | None = None
    existing: Document | None = None
    matched: bool = False
    condition: Condition | None = None
    twin: "Entry | None" = None
    former: Document | None = None
    withheld: Withheld = NOTHING
    change: Change | None = None
    refusal: Problem | None = None
    deposit: Deposit | None = None
    has_names: bool = False
    came_along: bool = False
    publishes: bool = False
    warnings: tuple[Issue, ...] = ()

    @property
    def is_create(self) -> bool:
        """Whether a resource is to be created, unless one is there already."""
        return self.call.interaction == "create"

    @property
    def is_resent(self) -> bool:
        """Whether the very same bytes are stored already, or what they said was deleted: there is nothing to do."""
        if self.existing is None or self.matched:
            return False
        if self.existing.get("deleted"):
            return True
        # (What is to be renewed may have been sent in these bytes once, and say something else since.)
        is_first = not self.call.renews or self.existing.get("version") == 1
        return is_first and self.existing.get("digest") == self.digest

    @property
    def replaces_by_criteria(self) -> bool:
        """Whether it updates what its criteria find: in the record that the resource is for."""
        return self.call.interaction == "update" and self.call.criteria is not None

    def expression(self, rest: str = "") -> str:
        """The FHIRPath of an element of this entry, from the root of what was sent."""
        return (self.call.place or self.kind.name) + rest

    @property
    def condition_expression(self) -> str | None:
        """Where its criteria or its `If-None-Exist` stand; None outside a Bundle, where that is no element."""
        if not self.call.place:
            return None
        request = f"{self.call.place.removesuffix('.resource')}.request"
        return f"{request}.ifNoneExist" if self.call.criteria is None else f"{request}.url"

    def locate(self, problem: Problem) -> Problem:
        """The problem with expressions from the root of what was sent."""
        return problem.within(self.call.place) if self.call.place else problem

    def locate_patch(self, problem: Problem) -> Problem:
        """The problem of the patch itself; inside a Binary no element can be named."""
        if self.call.patch == "json" and self.call.place:
            issues = [Issue(i.code, f"{i.expression or '$this'}: {i.text}", f"{self.call.place}.data") for i in problem.issues]
            return Problem(problem.code, issues[0].text, status=problem.status, issues=issues)
        return self.locate(problem)


def read_entry(gateway: Gateway, access: Access, call: Call, full_url: str | None = None) -> Entry:
    """The write that a call asks for. Raises Problem where it is not theirs to write or says nothing about itself."""
    kind = require_kind(gateway, call)
    entry = Entry(call, kind, full_url, id=call.id)
    try:
        access.require(kind, call.interaction)
    except Problem as problem:
        raise entry.locate(problem) from None
    if call.interaction == "create":
        body = call.body or b""
        entry.identity = call.identity or gateway.identities.read(kind, body)
        entry.digest = digest_of(body)
        if entry.identity is None or kind.is_raw:
            decode_entry(gateway, entry)  # it is not valid: say what is wrong
            entry.identity = entry.resource
    elif call.interaction == "update":
        decode_entry(gateway, entry)
        if call.criteria is None and entry.resource.id != call.id:
            raise Problem("invalid", "the id in the resource must be the one in the URL", entry.expression(".id"))
    elif call.interaction == "patch":
        try:
            entry.patch = read_patch(gateway, kind, call)
        except Problem as problem:
            raise entry.locate_patch(problem) from None
    return entry


def decode_entry(gateway: Gateway, entry: Entry) -> None:
    """Decode the whole resource of an entry. Raises Problem with everything that is wrong, at its place."""
    body = entry.call.body or b""
    try:
        if entry.identity is None and gateway.codec.peek_type(body) != entry.kind.name:
            raise Problem("invalid", f"a {entry.kind.name} is expected here", entry.kind.name)
        entry.resource = gateway.codec.decode(entry.kind.name, body, calm=entry.call.calm)
    except Problem as problem:
        raise entry.locate(problem) from None


def patch_entry(gateway: Gateway, entry: Entry) -> None:
    """Make the new version of an entry that patches, from what its writer is shown; from then on it is like an update."""
    if entry.patch is None or entry.former is None:
        return
    former = leave_out(gateway, entry.kind, bytes(entry.former["body"]), entry.withheld)
    try:
        tree = apply_patch(entry.patch, former)
    except Problem as problem:
        raise entry.locate_patch(problem) from None
    try:
        body, entry.resource = make_version(gateway, entry.kind, former, tree)
    except Problem as problem:
        raise entry.locate(problem) from None
    entry.call = msgspec.structs.replace(entry.call, body=body, calm=False)


def require_kind(gateway: Gateway, call: Call) -> ResourceType:
    """The type of a call. Raises Problem 404 where it is not served, 405 where it has no such interaction."""
    kind = gateway.registry.find(call.type)
    if kind is None:
        raise Problem("not-supported", "this resource type is not served here", call.place, status=404)
    if call.interaction not in kind.interactions:
        raise not_offered(call, kind.interactions)
    return kind


def not_offered(call: Call, interactions: Iterable[str]) -> Problem:
    """The 405 for an interaction that is none of these, or that is not for this caller: both look the same."""
    text = f"{call.type or 'the service'} has no interaction '{call.interaction}' here"
    others = frozenset(interactions) - {call.interaction}
    return Problem("not-supported", text, call.place, headers={"Allow": methods_beside(call, others)})
