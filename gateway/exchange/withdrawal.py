"""What is approved at this moment, and taking it back: unpairing an app, withdrawing Consents.

Knows: that an approval by Consent is over when none of its Consents is in force. Must not know: HTTP, pages, tokens' looks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from gateway.access.consent import Provision
from gateway.access.decision import Item
from gateway.exchange.accounts import Session
from gateway.exchange.approval import withdrawing
from gateway.exchange.call import Origin
from gateway.exchange.catalogue import find_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.persons import Acting, access_of
from gateway.exchange.write import write
from gateway.problem import Problem
from gateway.store import approvals as store
from gateway.store.mongo import Document


@dataclass(frozen=True, slots=True)
class Standing:
    """What one client may do at this moment for one person. `items`: by Consent, or as the person; `until` None: no end."""

    client: str
    name: str
    items: tuple[Item, ...]
    since: datetime
    until: datetime | None


async def is_live(gateway: Gateway, approval: Document, now: datetime) -> bool:
    """Whether tokens may come from this approval: it has not ended and, where it rests on Consents, one of them is in force."""
    if approval["ended"] is not None or (approval["until"] is not None and approval["until"] <= now):
        return False
    return not approval["consents"] or bool(await _in_force(gateway, approval, now))


async def find_standings(gateway: Gateway, role: Acting) -> list[Standing]:
    """What clients may do for this person in this role, one line a client, the newest first."""
    now = gateway.clock()
    found: dict[str, Standing] = {}
    for approval in await _open(gateway, role):
        client = approval["client"]
        if client in found or not await is_live(gateway, approval, now):
            continue
        provisions = await _in_force(gateway, approval, now) if approval["consents"] else []
        ends = [p.period.high for p in provisions if p.period.high.year < 9999]
        entry = await find_entry(gateway, client)
        found[client] = Standing(
            client=client,
            name=entry.client.name if entry is not None else client,
            items=tuple(sorted(_items(provisions), key=lambda item: (item[1], item[0]))),
            since=approval["began"],
            until=max(ends) if ends else approval["until"],
        )
    return list(found.values())


async def withdraw(gateway: Gateway, session: Session, role: Acting, client: str, origin: Origin) -> None:
    """Take back everything that was approved for a client in this role: Consents, approvals, tokens.

    When this returns, every request of that client that begins later is refused. Raises Problem where there is nothing.
    """
    approvals = [one for one in await _open(gateway, role) if one["client"] == client]
    if not approvals:
        raise Problem("not-found", "nothing is approved for this client")
    identifiers = sorted({identifier for approval in approvals for identifier in approval["consents"]})
    known = await store.find_consents(gateway.mongo, role.patient or "", identifiers) if identifiers else []
    active = [one for one in known if gateway.provision_of(bytes(one["body"])) is not None]
    if active:
        access = await access_of(gateway, session, role, "patient/Consent.cruds")
        _, events = await write(gateway, access, [(withdrawing(origin, one), None) for one in active])
        await gateway.audit.record(events, gateway.clock())
    await store.end_approvals(gateway.mongo, [approval["_id"] for approval in approvals], gateway.clock())


async def _open(gateway: Gateway, role: Acting) -> list[Document]:
    """The approvals that have not ended: of a patient's record, whoever gave them for it; of a professional, their own."""
    if role.kind == "professional":
        return await store.find_approvals_of(gateway.mongo, role.reference)
    found = await store.find_approvals(gateway.mongo, role.patient or "")
    return [one for one in found if one["kind"] != "professional"]


async def _in_force(gateway: Gateway, approval: Document, now: datetime) -> list[Provision]:
    found = await store.find_consents(gateway.mongo, approval["patient"], approval["consents"])
    provisions = [gateway.provision_of(bytes(consent["body"])) for consent in found]
    return [p for p in provisions if p is not None and p.permits and p.period.low <= now < p.period.high]


def _items(provisions: Iterable[Provision]) -> set[Item]:
    found: set[Item] = set()
    for provision in provisions:
        for name in provision.types:
            if "read" in provision.directions:
                found.add(("read", name))
            if "write" in provision.directions:
                found.add(("write", name))
    return found
