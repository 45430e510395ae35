"""What is written of one entry: the next version of its resource with all that is stored beside it, or its tombstone.

Knows: what is kept of the version before. Must not know: whether it may be written, HTTP, MongoDB.
"""

from typing import Any

from gateway.access.access import Access
from gateway.exchange.attachments import attached_ids, still_attached
from gateway.exchange.care import relations_kept
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.labels import ends_kept, label_values
from gateway.exchange.merging import values_shown
from gateway.fhir.identity import business_key
from gateway.fhir.plausible import flag
from gateway.store.change import Change
from gateway.store.mongo import Document


def deletion_of(gateway: Gateway, access: Access, entry: Entry) -> Change:
    """The tombstone of an entry that deletes: it keeps the key, and what decides who may see that there was something."""
    former = entry.former or {}
    kept: Document = {
        name: former[name] for name in ("search", "labels", "hidden_until", "hidable_until", "attached") if name in former
    }
    key, digest = former.get("key"), former.get("digest")
    return Change(
        kind=entry.kind,
        interaction="delete",
        id=entry.id or "",
        head=entry.patient or entry.kind.name,
        patient=entry.patient,
        source=former["source"],
        resource=None,
        values=kept,
        key=None if key is None else bytes(key),  # a re-sent reading stays deleted
        digest=digest,
        former=former,
        place=entry.call.place,
        depositor=former.get("depositor"),
        kept={**relations_kept(gateway, access, entry), **ends_kept(access, entry, {})},
    )


def change_of(gateway: Gateway, access: Access, entry: Entry) -> Change:
    """What is to be written of an entry whose resource is known."""
    kind, resource, former = entry.kind, entry.resource, entry.former
    clean_meta(gateway, resource)
    if kind.name == "Observation":
        flag(resource, gateway.plausible.is_doubtful(resource), gateway.registry.types.struct("Coding"))
    found = gateway.index.search_values(kind, resource)
    values: Document = {"search": values_shown(resource, found) if kind.is_patient else found}
    values |= label_values(gateway, access, entry)
    attached = attached_ids(kind, resource)
    if former is not None and kind.attachments:
        attached += still_attached(kind, former, values | {"attached": attached})
    if attached:
        values["attached"] = attached
    source = access.caller.source if former is None else former["source"]
    # (Two that were alike before stay two.)
    keep = _as_is if former is not None and former.get("key") is not None else None
    key = entry.key if former is None else business_key(kind, resource, entry.patient, source, keep)
    digest = entry.digest if key is not None else None
    if former is not None and key is not None and former.get("key") == key:
        digest = former.get("digest")  # what was sent once stays known, whatever was corrected since
    change = Change(
        kind=kind,
        interaction=entry.call.interaction,
        id=entry.id or "",
        head=entry.patient or kind.name,
        patient=entry.patient,
        source=source,
        resource=resource,
        values=values,
        key=key,
        digest=digest,
        former=former,
        touched=former is not None and (bool(former.get("touched")) or access.is_of_another(former)),
        place=entry.call.place,
        depositor=access.caller.depositor if former is None else former.get("depositor"),
        kept={**relations_kept(gateway, access, entry), **ends_kept(access, entry, values)},
    )
    resource.id = change.id
    resource.meta.versionId = str(change.version)
    return change


def _as_is(reference: str) -> str:
    """What a reference leads to once it is resolved."""
    return reference


def clean_meta(gateway: Gateway, resource: Any) -> None:
    """What the server alone sets in `meta` is not the client's to say."""
    if resource.meta is None:
        resource.meta = gateway.registry.types.struct("Meta")()
    resource.meta.versionId = resource.meta.lastUpdated = None
    resource.meta.versionId__ext = resource.meta.lastUpdated__ext = None
