"""Merging records: one Patient takes the place of another, or gives it back, in one transaction that changes both.

Knows: what must be said in both Patients, and what no merge may lose. Must not know: HTTP, MongoDB, what a merge then means for
reading (that is for `access` to say: nothing is moved, each resource stays in the record it was deposited in).
"""

from typing import Any

from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.fhir.merging import OPPOSITE, is_replaced, merging_links
from gateway.problem import Problem

_SHOWN = ("active", "link")  # what a replaced Patient is still found by


def check_merges(gateway: Gateway, draft: Draft) -> None:
    """Refuse a link that merges, or the loss of one, that the other Patient does not say too in the same transaction."""
    said: dict[tuple[str, str, str], tuple[bool, Entry]] = {}
    for entry in draft.entries:
        if entry.kind.is_patient and entry.change is not None and entry.resource is not None:
            now, before = set(merging_links(entry.resource)), set(_former_links(gateway, entry))
            said |= {(entry.id or "", *link): (link in now, entry) for link in now ^ before}
    for (one, kind, other), (is_new, entry) in said.items():
        back = said.get((other, OPPOSITE[kind], one))
        if back is None or back[0] is not is_new:
            text = "Patients are merged, and parted again, by one transaction that changes the links of both"
            raise entry.locate(Problem("business-rule", text, "Patient.link"))
        if is_new and kind == "replaced-by":
            _check_identifiers(entry, back[1])


def keep_links(gateway: Gateway, entry: Entry, stored: bytes) -> None:
    """Give a Patient that is renewed the links it has: directories and feeds know nothing of merges here."""
    if entry.kind.is_patient and not entry.resource.link and b'"link":' in stored:
        former = gateway.codec.load("Patient", stored)
        if is_replaced(former):
            text = "this Patient has been replaced by another, which is to be renewed in its place"
            raise entry.locate(Problem("business-rule", text, "Patient.identifier"))
        entry.resource.link = former.link


def values_shown(patient: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The index values of a Patient: of one that is replaced only those by which nobody looks for a person."""
    return {name: values[name] for name in _SHOWN if name in values} if is_replaced(patient) else values


def _former_links(gateway: Gateway, entry: Entry) -> list[tuple[str, str]]:
    former = entry.former or {}
    if not former.get("search", {}).get("link"):
        return []
    return merging_links(gateway.codec.load("Patient", bytes(former["body"])))


def _check_identifiers(replaced: Entry, survivor: Entry) -> None:
    """Whom a replaced Patient was known as, the surviving one must be known as: deposits are addressed by it."""
    kept = _identifiers(survivor.resource)
    for n, token in enumerate(_identifiers(replaced.resource)):
        if token not in kept:
            text = f"the surviving Patient lacks identifier[{n}] of the one that it replaces (as 'old', if need be)"
            raise survivor.locate(Problem("business-rule", text, "Patient.identifier"))


def _identifiers(patient: Any) -> list[tuple[str | None, str | None]]:
    return [(identifier.system, identifier.value) for identifier in patient.identifier or ()]
