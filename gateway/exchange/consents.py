"""Consents that are written: given by whom they must be, short, and not too many of one patient.

Knows: what holds for a Consent beyond what it says. Must not know: HTTP, MongoDB, what a Consent provides.
"""

from collections.abc import Iterable

from gateway.access.access import Access
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.problem import Problem


def check_consent(_: Gateway, access: Access, entry: Entry) -> None:
    """A Consent is given by the patient or who acts for them."""
    allowed = {f"Patient/{entry.patient}", *access.caller.actors}
    for n, performer in enumerate(entry.resource.performer or ()):
        # That a RelatedPerson is one of this patient is seen with the other references.
        if performer.reference not in allowed and not (performer.reference or "").startswith("RelatedPerson/"):
            text = "a Consent is given by the patient or by who acts for them"
            raise Problem("business-rule", text, f"Consent.performer[{n}]")


async def limit_consents(gateway: Gateway, draft: Draft, fresh: Iterable[Entry]) -> None:
    """Each request about a record reads and weighs all its Consents, so they are short, and not too many."""
    limits = gateway.limits
    written = [entry for entry in fresh if entry.kind.name == "Consent"]
    for entry in written:
        if len(entry.call.body or b"") > limits.consent_bytes:
            text = f"a Consent has at most {limits.consent_bytes} bytes here"
            draft.refuse(entry, entry.locate(Problem("too-long", text, "Consent")))
    new = [entry for entry in written if entry.is_create and entry.patient]
    # (The records of an Access have those Consents alone that speak of its caller.)
    records = await gateway.standings.find_records(dict.fromkeys(entry.patient or "" for entry in new)) if new else {}
    there = {patient: sum(not one.get("deleted") for one in record.consents) for patient, record in records.items()}
    draft.limit(
        new,
        lambda patient: there.get(patient, 0),
        limits.consents,
        lambda _: Problem("too-costly", f"a record has at most {limits.consents} Consents here", "Consent"),
    )
