"""Whom a person who is logged in can act for.

Knows: that a Patient acts for themselves, a RelatedPerson for a patient as long as they are named and it is not over, a
Practitioner for nobody but in their profession. Looked up every time: what holds may have ended since the last.
Must not know: HTTP, clients, what they may do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.access.access import Access, Caller
from gateway.exchange.accounts import KINDS, PORTAL, Session
from gateway.exchange.gateway import Gateway
from gateway.exchange.standing import is_acting, read_record, whole
from gateway.store.accounts import find_bodies
from gateway.store.mongo import Document


@dataclass(frozen=True, slots=True)
class Acting:
    """One role of a person. `reference`: who they are in it; `kind`: of actor; `patient`: for whom; `name`: of that patient or,
    of a professional, their own.
    """

    reference: str
    kind: str
    patient: str | None
    name: str


async def find_roles(gateway: Gateway, references: Sequence[str]) -> tuple[Acting, ...]:
    """The roles that a person whom these references name has at this moment."""
    now = gateway.clock()
    own = await find_bodies(gateway.mongo, references)
    related = {f"Patient/{d['patient']}" for r, d in own.items() if r.startswith("RelatedPerson/") and d.get("patient")}
    patients = await find_bodies(gateway.mongo, sorted(related))
    found = (_role(gateway, reference, own.get(reference), patients, now) for reference in references)
    return tuple(role for role in found if role is not None)


async def name_of(gateway: Gateway, patient: str) -> str:
    """What a patient is called: for who is known to see them."""
    found = await find_bodies(gateway.mongo, [f"Patient/{patient}"])
    return "".join([_name(gateway.codec.load("Patient", bytes(document["body"]))) for document in found.values()])


async def access_of(gateway: Gateway, session: Session, role: Acting, scope: str, workplaces: Sequence[str] = ()) -> Access:
    """What this person may do in that role from a page of this gateway, within a scope of the page's own.

    `workplaces`: where they do it, by which Consents may name them as well.
    """
    caller = Caller(
        client=PORTAL,
        source=PORTAL,
        kind=role.kind,
        actors=frozenset({role.reference, *workplaces}),
        software=frozenset(),
        user=role.reference,
        patient=role.patient,
        scopes=gateway.scopes(scope),
        purpose=None,
        token=session.token,
    )
    found = await gateway.standings.find_records([role.patient]) if role.patient is not None else {}
    records = [read_record(gateway, caller, record) for record in found.values()]
    return await whole(gateway, Access(caller, gateway.registry, gateway.policy, gateway.clock(), records))


def _role(
    gateway: Gateway, reference: str, document: Document | None, patients: dict[str, Document], now: datetime
) -> Acting | None:
    if document is None:
        return None
    type_name = reference.partition("/")[0]
    resource = gateway.codec.load(type_name, bytes(document["body"]))
    patient = document.get("patient")
    if resource.active is False:
        return None
    if type_name == "RelatedPerson":
        named = patients.get(f"Patient/{patient}")
        if named is None or not is_acting(resource, now):
            return None
        resource = gateway.codec.load("Patient", bytes(named["body"]))
        if resource.active is False:
            return None
    return Acting(reference, KINDS[type_name], patient, _name(resource))


def _name(resource: Any) -> str:
    """A name to call somebody by: what is official, or what comes first."""
    names: Sequence[Any] = sorted(resource.name or (), key=lambda name: name.use != "official")
    if not names:
        return ""
    name = names[0]
    return name.text or " ".join([*(name.prefix or ()), *(name.given or ()), *([name.family] if name.family else [])])
