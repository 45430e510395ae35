"""Security labels as they are written: who may put one on and take it off, and until when one hides.

Knows: that a label which hides for a time tells its end, and that this service adds it where it does not. Must not know: HTTP,
MongoDB, what a label hides from whom.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from gateway.access.access import Access
from gateway.access.visibility import AUTHOR
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.fhir.dates import read_span, write_instant
from gateway.fhir.registry import ResourceType
from gateway.fhir.values import has_system, token_values
from gateway.problem import Problem
from gateway.store.mongo import Document

# On the coding of a label: the moment from which it hides no longer (`valueDateTime`).
HIDDEN_UNTIL = "urn:fhir-document-gateway:StructureDefinition/hidden-until"
_NEWS = timedelta(days=90)  # for as long, consumers who come back are told that something ceased to be hidden


def label_values(gateway: Gateway, access: Access, entry: Entry) -> Document:
    """What is stored beside a resource of its labels. To one that hides for a time without telling its end, that is added.

    How long it can be hidden at all is settled by the first label that does so, and stays when that is taken off. Raises
    Problem where an end is told that is none, or too late.
    """
    labels = gateway.index.labels(entry.kind, entry.resource)
    most = _latest(entry)
    kept: Document = {} if most is None else {"hidable_until": most}
    if not labels:
        return kept
    found = [
        one for coding in _codings(entry.kind, entry.resource) if (one := _end(gateway, access, entry, coding)) is not None
    ]
    if not found:
        return kept | {"labels": labels}
    ends, latest = zip(*found, strict=True)
    return {"labels": labels, "hidden_until": max(ends), "hidable_until": max(latest)}


def ends_kept(access: Access, entry: Entry, values: Document) -> Document:
    """What the head of the record keeps, by field, of a label that hides for a time; None for what it keeps no longer.

    That it ends is news to who could not see it, although nothing is written then. What ended long ago goes with it.
    """
    end, known = values.get("hidden_until"), (entry.former or {}).get("hidden_until")
    if end is None and known is None:
        return {}
    record = access.records.get(entry.patient or "")
    ended = [one for one, kept in record.ends.items() if kept["end"] < access.now - _NEWS] if record is not None else []
    kept: Document = {f"ends.{one}": None for one in ended}
    attached = {"attached": values["attached"]} if "attached" in values else {}
    return kept | {f"ends.{entry.id}": None if end is None else {"type": entry.kind.name, "end": end, **attached}}


def limit_ends(gateway: Gateway, draft: Draft, fresh: Iterable[Entry]) -> None:
    """Each request about a record reads when its labels end, so they are not too many."""
    records, most = draft.access.records, gateway.policy.labels.most_ends
    new = (
        entry
        for entry in fresh
        if entry.change is not None and "hidden_until" in entry.change.values and entry.patient in records
        if entry.id not in records[entry.patient or ""].ends
    )
    text = f"a record has at most {most} resources hidden for a time here"
    draft.limit(new, lambda patient: len(records[patient].ends), most, lambda one: _refusal(one, text, "too-costly"))


def check_labels(gateway: Gateway, access: Access, entry: Entry, labels: set[str]) -> None:
    """Refuse labels that their writer may not put on, and the loss of those that they may not take off."""
    former = entry.former or {}
    had, has = set(filter(has_system, former.get("labels", ()))), set(filter(has_system, labels))
    if had == has:
        return
    record = access.records.get(entry.patient or "")
    who = {access.kind_of_actor(record) if record is not None else access.caller.kind}
    if entry.former is None or access.is_depositor(former):
        who.add(AUTHOR)
    rules = gateway.policy.labels
    if rules.refused_to_set(has - had, frozenset(who)):
        raise entry.locate(_refusal(entry, "this security label is not put on by who writes this"))
    if rules.refused_to_remove(had - has, has, frozenset(who)):
        raise entry.locate(_refusal(entry, "a security label is taken off by the patient or by who deposited the resource"))


def forget_ends(kind: ResourceType, resource: Any) -> None:
    """Take the ends off labels: what is the same but for them was sent before it was told when they end."""
    for coding in _codings(kind, resource):
        coding.extension = [one for one in coding.extension or () if one.url != HIDDEN_UNTIL] or None


def _latest(entry: Entry) -> datetime | None:
    """Until when at most this can be hidden, None where it never was."""
    former = entry.former or {}
    found: datetime | None = former.get("hidable_until", former.get("hidden_until"))
    return found


def _end(gateway: Gateway, access: Access, entry: Entry, coding: Any) -> tuple[datetime, datetime] | None:
    """Until when a label hides, and could at most; None for one that does so without an end, or hides nothing."""
    token = token_values(coding.system, coding.code)
    longest = gateway.policy.labels.longest_of(token[0]) if token else None
    if longest is None:
        return None
    latest = _latest(entry) or (access.now + longest).replace(microsecond=0)
    known: datetime | None = (entry.former or {}).get("hidden_until")
    told = [one.valueDateTime for one in coding.extension or () if one.url == HIDDEN_UNTIL]
    if not told:
        end = known or latest
        extension = gateway.registry.types.struct("Extension")(url=HIDDEN_UNTIL, valueDateTime=write_instant(end))
        coding.extension = [*(coding.extension or ()), extension]
        return end, latest
    if len(told) > 1 or told[0] is None:
        raise entry.locate(_refusal(entry, "the end of a label is one dateTime", "value"))
    end = read_span(told[0]).low
    if end > latest:
        text = f"this security label hides for {longest.days} days at most, from when it was first put on"
        raise entry.locate(_refusal(entry, text, "business-rule"))
    return end, latest


def _codings(kind: ResourceType, resource: Any) -> Iterator[Any]:
    for branch in kind.labels:
        for label in branch.read(resource):
            yield from getattr(label, "coding", None) or ((label,) if hasattr(label, "code") else ())


def _refusal(entry: Entry, text: str, code: str = "forbidden") -> Problem:
    where = "meta.security" if len(entry.kind.labels) == 1 else entry.kind.labels[-1].first
    return Problem(code, text, f"{entry.kind.name}.{where}")
