"""Consents that are written: given by whom they must be, short, and not too many of one patient.

Knows: what holds for a Consent beyond what it says. Must not know: HTTP, MongoDB, what a Consent provides.
"""

from gateway.access.access import Access
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


async def limit_consents(gateway: Gateway, fresh: list[Entry]) -> None:
    """Each request about a record reads and weighs all its Consents, so they are short, and not too many."""
    limits = gateway.limits
    created: dict[str, int] = {}
    for entry in fresh:
        if entry.kind.name != "Consent":
            continue
        if len(entry.call.body or b"") > limits.consent_bytes:
            raise entry.locate(Problem("too-long", f"a Consent has at most {limits.consent_bytes} bytes here", "Consent"))
        if entry.is_create and entry.patient:
            created[entry.patient] = created.get(entry.patient, 0) + 1
    if created:
        for patient, record in (await gateway.standings.find_records(created)).items():
            if created[patient] + sum(not consent.get("deleted") for consent in record.consents) > limits.consents:
                raise Problem("too-costly", f"a record has at most {limits.consents} Consents here", "Consent")
