"""Taking back what was approved: unpairing an app, withdrawing Consents, and what no longer stands because of that.

Knows: that an approval by Consent is over when none of its Consents is in force. Must not know: HTTP, pages, tokens' looks.
"""

from datetime import datetime

from gateway.exchange.accounts import Session
from gateway.exchange.approval import withdrawing
from gateway.exchange.call import Origin
from gateway.exchange.gateway import Gateway
from gateway.exchange.persons import Acting, access_of
from gateway.exchange.write import write
from gateway.problem import Problem
from gateway.store import approvals as store
from gateway.store.mongo import Document


async def is_live(gateway: Gateway, approval: Document, now: datetime) -> bool:
    """Whether tokens may come from this approval: it has not ended and, where it rests on Consents, one of them is in force."""
    if approval["ended"] is not None or (approval["until"] is not None and approval["until"] <= now):
        return False
    if not approval["consents"]:
        return True
    found = await store.find_consents(gateway.mongo, approval["patient"], approval["consents"])
    provisions = [gateway.provision_of(bytes(consent["body"])) for consent in found]
    return any(p is not None and p.permits and p.period.low <= now < p.period.high for p in provisions)


async def withdraw(gateway: Gateway, session: Session, role: Acting, client: str, origin: Origin) -> None:
    """Take back everything that was approved for a client about this person's patient: Consents, approvals, tokens.

    When this returns, every request of that client that begins later is refused. Raises Problem where there is nothing.
    """
    open_ones = [one for one in await store.find_approvals(gateway.mongo, role.patient or "") if one["client"] == client]
    if not open_ones:
        raise Problem("not-found", "nothing is approved for this client")
    await end(gateway, session, role, open_ones, origin)


async def end(gateway: Gateway, session: Session, role: Acting, approvals: list[Document], origin: Origin) -> None:
    """End these approvals of one patient with the Consents they rest on."""
    identifiers = sorted({identifier for approval in approvals for identifier in approval["consents"]})
    known = await store.find_consents(gateway.mongo, role.patient or "", identifiers) if identifiers else []
    active = [one for one in known if gateway.provision_of(bytes(one["body"])) is not None]
    if active:
        access = await access_of(gateway, session, role, "patient/Consent.cruds")
        _, events = await write(gateway, access, [(withdrawing(origin, one), None) for one in active])
        await gateway.audit.record(events, gateway.clock())
    await store.end_approvals(gateway.mongo, [approval["_id"] for approval in approvals], gateway.clock())
