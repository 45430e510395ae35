"""What the service does of itself because of what somebody writes: a submission set hides with its documents, and no List
goes on naming what was withdrawn.

Knows: which Lists name a document, whoever deposited them. Must not know: HTTP, MongoDB.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.exchange.call import Call, Origin
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.submission import hides, labels_told
from gateway.exchange.versions import change_of
from gateway.fhir.clause import without_version
from gateway.store.mongo import Document
from gateway.store.withdrawn import find_labels, find_naming

_DOCUMENT, _LIST = "DocumentReference", "List"
_Codings = dict[tuple[str | None, str | None], dict[str, Any]]


async def label_sets_again(gateway: Gateway, draft: Draft, fresh: Iterable[Entry]) -> list[Entry]:
    """The entries by which the submission sets of documents whose labels change get these labels, and lose what none bears."""
    changed = {f"{_DOCUMENT}/{entry.id}": entry for entry in fresh if _is_labelled_anew(entry)}
    kind = gateway.registry.find(_LIST)
    if not changed or kind is None:
        return []
    made: list[Entry] = []
    said = {entry.id for entry in draft.entries if entry.kind is kind}
    for patient in sorted({entry.patient or "" for entry in changed.values()}):
        for stored in await find_naming(draft.access, gateway.mongo, kind, patient, [*changed]):
            if stored["_id"] in said or not gateway.submissions.is_submission_set(_load(gateway, stored)):
                continue
            entry = await _labelled(gateway, draft, stored, changed)
            if entry is not None:
                made.append(entry)
    draft.entries += made
    return made


def _is_labelled_anew(entry: Entry) -> bool:
    if entry.kind.name != _DOCUMENT or entry.former is None or entry.change is None:
        return False
    return set(entry.change.values.get("labels", ())) != set(entry.former.get("labels", ()))


async def _labelled(gateway: Gateway, draft: Draft, stored: Document, changed: dict[str, Entry]) -> Entry | None:
    """The entry that labels a set as its documents are; None where it is so."""
    items = set(stored["search"]["item"])
    mine = [entry for reference, entry in changed.items() if reference in items]
    wanted: _Codings = {}
    gone: _Codings = {}
    for entry in mine:
        now = _hiding(gateway, msgspec.json.decode(gateway.codec.encode(entry.resource)))
        before = _hiding(gateway, msgspec.json.decode(bytes((entry.former or {})["body"])))
        wanted |= now
        gone |= {key: coding for key, coding in before.items() if key not in now}
    others = sorted(items - changed.keys())
    if gone and others:
        kept = await find_labels(draft.access, gateway.mongo, gateway.registry[_DOCUMENT], others)
        codes = {label.rpartition("|")[2] for label in kept}  # (one code can have several systems)
        gone = {key: coding for key, coding in gone.items() if key[1] not in codes}
    resource = _load(gateway, stored)
    coding_type, meta = gateway.registry.types.struct("Coding"), resource.meta
    had = meta.security or []
    left = [one for one in had if (one.system, one.code) not in gone or (one.system, one.code) in wanted]
    there = {(one.system, one.code) for one in left}
    new = [msgspec.convert(coding, coding_type) for key, coding in wanted.items() if key not in there]
    if not new and len(left) == len(had):
        return None
    meta.security = [*left, *new] or None
    return follow(gateway, draft.access, stored, resource, mine[0].call.origin)


def _hiding(gateway: Gateway, told: dict[str, Any]) -> _Codings:
    """The labels of a document that hide it from anybody."""
    return {(one.get("system"), one.get("code")): one for one in labels_told(told) if hides(gateway, one)}


def follow(gateway: Gateway, access: Access, stored: Document, resource: Any, origin: Origin) -> Entry:
    """The entry by which a List says something else, whoever may write it: what it is known by stays as it is."""
    kind = gateway.registry[_LIST]
    entry = Entry(Call("patch", _LIST, origin, id=stored["_id"]), kind, id=stored["_id"], patient=stored["patient"])
    entry.former, entry.resource, entry.came_along = stored, resource, True
    entry.change = change = change_of(gateway, access, entry)
    change.key, change.digest, change.touched = stored.get("key"), stored.get("digest"), bool(stored.get("touched"))
    change.follows = True
    return entry


def without(gateway: Gateway, stored: Document, references: Iterable[str]) -> Any:
    """A List without the entries that name any of these."""
    resource, gone = _load(gateway, stored), set(references)
    left = [one for one in resource.entry or () if without_version(one.item.reference or "") not in gone]
    resource.entry = left or None
    return resource


def _load(gateway: Gateway, stored: Document) -> Any:
    return gateway.codec.load(_LIST, bytes(stored["body"]))
