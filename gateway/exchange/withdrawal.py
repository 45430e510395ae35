"""What is approved at this moment, and taking it back: unpairing an app, withdrawing Consents.

Knows: that an approval by Consent is over when none of its Consents is in force. Must not know: HTTP, pages, tokens' looks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from gateway.access.consent import Provision
from gateway.access.decision import Item, client_of
from gateway.exchange.accounts import Session
from gateway.exchange.approval import withdrawing
from gateway.exchange.call import Origin
from gateway.exchange.catalogue import find_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.persons import Acting, access_of
from gateway.exchange.write import write
from gateway.fhir.dates import LATEST
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
    """What clients may do for this person in this role, one line a client.

    Consents count, whether or not there is a token at this moment: a service may also ask for one by itself.
    """
    now = gateway.clock()
    by_client: dict[str, list[tuple[Provision | None, datetime, datetime | None]]] = {}
    if role.patient is not None:
        for consent in await store.find_consents(gateway.mongo, role.patient):
            provision = gateway.provision_of(bytes(consent["body"]))
            for client in _clients_of(gateway, consent):
                if _is_in_force(provision, now):
                    by_client.setdefault(client, []).append((provision, consent["updated"], None))
    for approval in await _open(gateway, role):
        if not approval["consents"] and await is_live(gateway, approval, now):
            by_client.setdefault(approval["client"], []).append((None, approval["began"], approval["until"]))
    return [await _standing(gateway, client, found) for client, found in sorted(by_client.items())]


async def withdraw(gateway: Gateway, session: Session, role: Acting, client: str, origin: Origin) -> None:
    """Take back everything that was approved for a client in this role: Consents, approvals, tokens.

    When this returns, every request of that client that begins later is refused. Raises Problem where there is nothing.
    """
    approvals = [one for one in await _open(gateway, role) if one["client"] == client]
    known = await store.find_consents(gateway.mongo, role.patient) if role.patient is not None else []
    active = [
        one for one in known if client in _clients_of(gateway, one) and gateway.provision_of(bytes(one["body"])) is not None
    ]
    if not approvals and not active:
        raise Problem("not-found", "nothing is approved for this client")
    if active:
        access = await access_of(gateway, session, role, "patient/Consent.cruds")
        _, events = await write(gateway, access, [(withdrawing(origin, one), None) for one in active])
        await gateway.audit.record(events, gateway.clock())
    await store.end_approvals(gateway.mongo, [approval["_id"] for approval in approvals], gateway.clock())


async def _standing(gateway: Gateway, client: str, found: list[tuple[Provision | None, datetime, datetime | None]]) -> Standing:
    entry = await find_entry(gateway, client)
    provisions = [provision for provision, _, _ in found if provision is not None]
    ends = [p.period.high if p.period.high < LATEST else None for p in provisions] or [end for _, _, end in found]
    last = [end for end in ends if end is not None]
    return Standing(
        client=client,
        name=entry.client.name if entry is not None else client,
        items=tuple(sorted(_items(provisions), key=lambda item: (item[1], item[0]))),
        since=min(began for _, began, _ in found),
        until=max(last) if len(last) == len(ends) else None,
    )


async def _open(gateway: Gateway, role: Acting) -> list[Document]:
    """The approvals that have not ended: of a patient's record, whoever gave them for it; of a professional, their own."""
    if role.kind == "professional":
        return await store.find_approvals_of(gateway.mongo, role.reference)
    found = await store.find_approvals(gateway.mongo, role.patient or "")
    return [one for one in found if one["kind"] != "professional"]


async def _in_force(gateway: Gateway, approval: Document, now: datetime) -> list[Provision]:
    found = await store.find_consents(gateway.mongo, approval["patient"], approval["consents"])
    provisions = [gateway.provision_of(bytes(consent["body"])) for consent in found]
    return [provision for provision in provisions if provision is not None and _is_in_force(provision, now)]


def _is_in_force(provision: Provision | None, now: datetime) -> bool:
    return provision is not None and provision.permits and provision.period.low <= now < provision.period.high


def _clients_of(gateway: Gateway, consent: Document) -> list[str]:
    """The client that a Consent is a part of the decision about; none where it is no such Consent."""
    found = (client_of(gateway.settings.site, identifier) for identifier in consent["search"]["identifier"])
    return [client for client in found if client is not None]


def _items(provisions: Iterable[Provision]) -> set[Item]:
    found: set[Item] = set()
    for provision in provisions:
        parted = {part.type for part in provision.parts}
        for what in (*(provision.types - parted), *(part.text for part in provision.parts)):
            if "read" in provision.directions:
                found.add(("read", what))
            if "write" in provision.directions:
                found.add(("write", what))
    return found
