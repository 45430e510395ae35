"""What is stored already under the same key: the same again is answered, something else is refused or, where it is, renewed.

Knows: when two say the same. Must not know: how keys are made, HTTP, MongoDB.
"""

from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry, decode_entry, require_kind
from gateway.exchange.gateway import Gateway
from gateway.exchange.labels import check_labels, forget_ends
from gateway.exchange.merging import keep_links
from gateway.exchange.versions import change_of, clean_meta
from gateway.fhir.identity import identifier_key
from gateway.fhir.plausible import flag
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.change import Change, require
from gateway.store.mongo import Document


def says_the_same(gateway: Gateway, entry: Entry, twin: Entry) -> bool:
    """Whether two creates of one Bundle say the same, be it in other bytes."""
    if entry.digest == twin.digest:
        return True
    if twin.resource is None:
        decode_entry(gateway, twin)
    return _content(gateway, entry.resource) == _content(gateway, twin.resource)


async def check_keys(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    """An update cannot take over the identifier of another resource, stored or of the same Bundle."""
    changing = [e for e in entries if e.former is not None and e.change and e.change.key not in (None, e.former.get("key"))]
    if not changing:
        return
    taken = {(e.kind.name, e.key) for e in draft.entries if e.is_create}
    for entry in changing:
        key = (entry.change and entry.change.key) or b""
        known = await gateway.lookups.find_known(draft.access, entry.kind, {(entry.id or "")[:3]: [key]})
        if known or (entry.kind.name, key) in taken:
            raise duplicate(entry)
        taken.add((entry.kind.name, key))


async def compare_known(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    """What is stored under the same key and says the same in other bytes is answered, not written again.

    What says something else is refused, unless it is to be renewed.
    """
    by_kind: dict[str, list[Entry]] = {}
    for entry in entries:
        by_kind.setdefault(entry.kind.name, []).append(entry)
    for name, known in by_kind.items():
        for entry in known:
            if entry.change is not None:
                try:
                    require(draft.access, entry.change)
                except Problem as problem:
                    draft.refuse(entry, problem)
        ids = [entry.id or "" for entry in known]
        stored = await store.find_for_change(draft.access, gateway.mongo, gateway.registry[name], ids)
        for entry in known:
            former = stored.get(entry.id or "", {})
            body = former.get("body")
            if body is not None and entry.call.renews:
                keep_links(gateway, entry, bytes(body))
            is_same = body is not None and _content(gateway, entry.resource) == _content(
                gateway, gateway.codec.load(name, body)
            )
            try:
                if not is_same and (body is None or not entry.call.renews):
                    raise duplicate(entry)
                entry.change = None if is_same else _renewal(gateway, draft.access, entry, former)
                # (Somebody may have said the same since it was looked up: it is answered as it was compared.)
                entry.existing = former if is_same else entry.existing
            except Problem as problem:
                draft.refuse(entry, problem)


def _renewal(gateway: Gateway, access: Access, entry: Entry, former: Document) -> Change:
    """The create as an update of what is stored under its identifier.

    Whoever may create may say anew what is theirs alone; where somebody else has written to it, that takes the right to update.
    """
    needed = "update" if former.get("touched") else "create"
    entry.call = msgspec.structs.replace(entry.call, interaction="update")
    require_kind(gateway, entry.call)
    try:
        access.require(entry.kind, needed)
    except Problem as problem:
        raise entry.locate(problem) from None
    entry.former = former
    change = change_of(gateway, access, entry)
    change.interaction = needed
    require(access, change)
    check_labels(gateway, access, entry, set(change.values.get("labels", ())))
    return change


def _content(gateway: Gateway, resource: Any) -> bytes:
    """What a resource says, without what the server says of it."""
    resource.id = None
    clean_meta(gateway, resource)
    flag(resource, False, gateway.registry.types.struct("Coding"))
    forget_ends(gateway.registry[type(resource).__name__], resource)
    return gateway.codec.encode(resource)


def duplicate(entry: Entry) -> Problem:
    """The 409 for what is known, and says something else."""
    if entry.kind.natural and identifier_key(entry.kind, entry.resource or entry.identity, entry.patient) is None:
        text = "what is known again by when it was made, and of what, is already there, and says something else"
        return Problem("duplicate", text, entry.expression())
    text = "a resource with this identifier is already there, and says something else"
    return Problem("duplicate", text, entry.expression(f".{next(iter(entry.kind.unique), 'identifier')}"))
