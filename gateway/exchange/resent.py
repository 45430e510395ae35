"""Entries that are stored already, byte for byte: answered before anything of them is planned.

Knows: how planning would find them known (`owners.py`, `Entry.is_resent`), and that each passes the same door.
Must not know: HTTP, MongoDB.

Apps send everything again, for ever. What is known needs no call, no draft and no resource: its identifier says under which
key it lies, a hash of its bytes that nothing is new. Whatever is not plain to see here (escapes, searches or ids of other
entries in place of references, conditions, a deletion, a correction) is left to planning, which decides as it always would.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from gateway.access.access import Access
from gateway.exchange.audit import event
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.standing import extend_to, whole
from gateway.fhir.balp import DONE, Event
from gateway.fhir.identity import business_key, digest_of
from gateway.fhir.registry import ResourceType
from gateway.pace import paced
from gateway.problem import Problem
from gateway.store.mongo import Document

# With these, bytes say less than they mean: an escape, a search in place of a reference, an id that another entry links by.
_NOT_PLAIN = (b"\\", b"?", b'"id"')
# What the door mostly looks at of a resource that is known: then it is asked once for all that are alike in it.
_ALIKE = {"patient": "patient", "_source": "source"}


@dataclass(slots=True)
class Resent:
    """What is known of a Bundle: the answer of each such entry by its number, what their fullUrls stand for, what to audit."""

    answers: dict[int, Answer] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


class _Seen(NamedTuple):
    number: int
    patient: str
    key: bytes
    digest: int


async def find_resent(
    gateway: Gateway, access: Access, call: Call, entries: Sequence[Any], names: Iterable[str]
) -> tuple[Access, Resent]:
    """The entries of this Bundle of creates that change nothing. `names`: the types they may be of.

    Returns the access over their records as well.
    """
    found = Resent()
    body = call.body or b""
    if call.prefer == "representation" or any(mark in body for mark in _NOT_PLAIN):
        return access, found
    if not all(entry.fullUrl is None or _is_usual(entry.fullUrl, entry.request.url) for entry in entries):
        return access, found
    for kind in _kinds(gateway, access, names):
        seen = await _look_at(gateway, access, kind, entries)
        if seen:
            access = await extend_to(gateway, access, {one.patient for one in seen})
            access = await whole(gateway, access)
            await _answer(gateway, access, Call("create", kind.name, call.origin), kind, seen, entries, found)
    if found.answers:
        gateway.throttle.charge(access.caller, access.now, written=0, known=len(found.answers))
    return access, found


def _kinds(gateway: Gateway, access: Access, names: Iterable[str]) -> list[ResourceType]:
    """The types of which something may be known by a key of its sender and record, if the caller may create such at all."""
    kinds = []
    for kind in (gateway.registry[name] for name in sorted(names)):
        if kind.patient and kind.keys and kind.lifecycle is None and not kind.attachments and not kind.is_raw:
            try:
                access.require(kind, "create")
            except Problem:
                continue
            kinds.append(kind)
    return kinds


async def _look_at(gateway: Gateway, access: Access, kind: ResourceType, entries: Sequence[Any]) -> list[_Seen]:
    """Under which key each entry of this type lies, and a hash of its bytes. Nothing if one of them is not plain to see, or
    two that are not the same go by one key: what they are, planning decides.
    """
    own = f"{gateway.settings.base_url}/"
    urls = (kind.name, own + kind.name)
    # (What has no identifier is known by what it refers to, which may be another entry: of these all are of one type.)
    is_alone = all(entry.request.url in urls for entry in entries)
    localize = partial(_localize, own) if is_alone else None
    seen: list[_Seen] = []
    digests: dict[bytes, int] = {}
    async for n, entry in paced(enumerate(entries)):
        if entry.request.url not in urls:
            continue
        identity = _identity(gateway, kind, entry)
        patient = _patient(kind, identity, own) if identity is not None else None
        if patient is None:
            return []
        key = business_key(kind, identity, patient, access.caller.source, localize)
        digest = digest_of(entry.resource)
        if key is None or digests.setdefault(key, digest) != digest:
            return []
        seen.append(_Seen(n, patient, key, digest))
    return seen


def _identity(gateway: Gateway, kind: ResourceType, entry: Any) -> Any:
    """The identifying elements of an entry that creates without a condition."""
    request = entry.request
    if request.method != "POST" or request.ifNoneExist is not None or entry.resource is None:
        return None
    return gateway.identities.read(kind, entry.resource)


def _is_usual(full_url: str, url: str) -> bool:
    """Whether a fullUrl can be taken for no resource but its own."""
    return full_url.startswith("urn:") or full_url.rpartition("/")[0].endswith("/" + url.rpartition("/")[2])


def _patient(kind: ResourceType, identity: Any, own: str) -> str | None:
    """The patient whom a resource names literally; None where it is not plain whom it does."""
    named = {reference.reference for branch in kind.patient for reference in branch.read(identity)}
    text = named.pop() if len(named) == 1 else None
    target, _, patient = (text or "").removeprefix(own).partition("/")
    return patient if target == "Patient" and patient and "/" not in patient else None


def _localize(own: str, text: str) -> str:
    return text.removeprefix(own) or text


async def _answer(
    gateway: Gateway,
    access: Access,
    call: Call,
    kind: ResourceType,
    seen: Sequence[_Seen],
    entries: Sequence[Any],
    found: Resent,
) -> None:
    """Answer those that are stored as they were sent, and that the caller may (still) write."""
    keys: dict[str, list[bytes]] = {}
    for one in seen:
        keys.setdefault(one.patient[:3], []).append(one.key)
    known = await gateway.lookups.find_known(access, kind, keys)
    door = _Door(access, kind)
    touched: dict[str, list[str]] = {}
    async for one in paced(seen):
        there = known.get(one.key)
        if there is None or there.get("digest") != one.digest or not _is_as_sent(there) or not door.admits(there):
            continue
        found.answers[one.number] = Answer(
            200, type=kind.name, id=there["_id"], version=1, updated=there["updated"], located=True, receipt="known"
        )
        reference = f"{kind.name}/{there['_id']}"
        touched.setdefault(one.patient, []).append(reference)
        full_url = entries[one.number].fullUrl
        if full_url is not None:
            found.urls[full_url] = reference
    found.events += [event(access, call, patient, DONE, references) for patient, references in touched.items()]


def _is_as_sent(there: Document) -> bool:
    """Whether it is present, and says what it said at first."""
    return there.get("version") == 1 and not there.get("deleted") and not there.get("withdrawn")


class _Door:
    """The door of writing, asked once for all that are alike in what it looks at."""

    def __init__(self, access: Access, kind: ResourceType) -> None:
        self._access, self._kind = access, kind
        looked_at = access.parameters_weighed(kind, "create")
        self._fields = [_ALIKE[name] for name in looked_at] if looked_at <= _ALIKE.keys() else None
        self._said: dict[tuple[Any, ...], bool] = {}

    def admits(self, there: Mapping[str, Any]) -> bool:
        if self._fields is None:
            return self._access.admits(self._kind, "create", there)
        values = tuple(there.get(name) for name in self._fields)
        if values not in self._said:
            self._said[values] = self._access.admits(self._kind, "create", there)
        return self._said[values]
