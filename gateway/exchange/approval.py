"""What a person decides on a request for authorization, made durable: Consents, approval and code, all or none.

Knows: whose decision makes a Consent (the patient's, or of who acts for them, about an app or service) and whose is an approval
alone (patients and professionals who use a client as themselves); what the audit keeps as evidence; when an approval is over.
Must not know: HTTP, pages, how a code becomes a token.
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.access.decision import (
    PARTS,
    Asker,
    Decision,
    Evidence,
    Item,
    build_consents,
    digest_of,
    end_of,
    identifier_of,
    items_of,
    narrow,
    what_of,
)
from gateway.exchange.accounts import Session
from gateway.exchange.audit import event
from gateway.exchange.authorization import LEVELS, Authorization, answer_url, over, read_authorization
from gateway.exchange.call import Call, Origin
from gateway.exchange.client import Client
from gateway.exchange.gateway import Gateway
from gateway.exchange.persons import Acting, access_of
from gateway.exchange.write import write
from gateway.fhir.balp import DONE, REFUSED, Event
from gateway.problem import Problem
from gateway.store import approvals as store
from gateway.store.mongo import Document
from gateway.store.mongo import Session as Transaction

CODE_LASTS = timedelta(seconds=60)
_TO_TRY_AGAIN = timedelta(minutes=5)
_ROUNDS, _ROUND = 100, 0.05  # how often, and after how many seconds again, it is looked whether a decision is stored
_BY_CONSENT = ("app", "service")
_PATIENTS = ("patient", "proxy")
_ROLES = {"app": _PATIENTS, "service": _PATIENTS, "portal": _PATIENTS, "software": ("professional",)}


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, with the exact text that it is about and the language of that."""

    decision: Decision
    text: str
    language: str


def is_by_consent(client: Client) -> bool:
    """Whether it acts by what the patient agrees to, and not as the person who logs in."""
    return client.kind in _BY_CONSENT


def roles_for(authorization: Authorization, roles: Sequence[Acting]) -> list[Acting]:
    """In which of their roles a person can decide on this."""
    launch = authorization.launch
    fitting = [role for role in roles if role.kind in _ROLES[authorization.entry.client.kind]]
    if launch is None:
        return fitting
    named = [role for role in fitting if role.reference == launch["user"]]
    # (whom somebody else chose before, they choose anew)
    return named if named or not authorization.asks_for_patient else fitting


def items_asked(gateway: Gateway, authorization: Authorization) -> list[Item]:
    """What there is to decide."""
    return items_of(gateway.registry, gateway.scopes(authorization.scope))


def parts_offered(gateway: Gateway, authorization: Authorization) -> list[Item]:
    """Parts of what is asked for as a whole that can be allowed in its place: for reading."""
    whole = [what for way, what in items_asked(gateway, authorization) if way == "read" and "?" not in what]
    return [("read", what_of(name, query)) for name in whole for query in gateway.registry[name].consent_parts]


async def approve(
    gateway: Gateway, authorization: Authorization, session: Session, role: Acting, decided: Decided, origin: Origin
) -> str:
    """Carry the decision out; returns where to send the person. Raises Problem where it cannot be, or another one was already.

    The same decision sent twice (a button clicked twice) leads to the same place, as long as nobody has been there.
    """
    allowed = decided.decision.allowed & {*items_asked(gateway, authorization), *parts_offered(gateway, authorization)}
    levels = LEVELS[authorization.entry.client.kind]
    scope = " ".join(narrow(gateway.scopes(authorization.scope), levels, allowed))
    if not scope:
        raise Problem("invalid", "nothing that was asked for is allowed", status=400)
    now, code = gateway.clock().replace(microsecond=0), secrets.token_urlsafe(32)
    location = answer_url(gateway, authorization.redirect_uri, authorization.state, code=code)
    said = digest_of(f"{role.reference}\n{decided.text}")
    earlier = await _take(gateway, authorization, session, said, location, code)
    if earlier is not None:
        return earlier
    approval = _approval(gateway, authorization, session, role, decided, scope, now)
    fields: Document = {
        "approval": approval["_id"],
        "client": approval["client"],
        "redirect_uri": authorization.redirect_uri,
        "challenge": authorization.challenge,
        "expires": gateway.clock() + CODE_LASTS,
    }
    try:
        if approval["consents"]:
            await _with_consents(gateway, authorization, session, role, decided, approval, (code, fields), origin)
        else:
            access = await access_of(gateway, session, role, "")
            said_so = _decision_event(access, role, origin, approval, decided)
            await store.add_approval(gateway.audit, approval, code, fields, said_so, now)
    except Exception:
        # Whoever is told that it failed may try again. (If it was stored all the same, the next decision takes its place.)
        await store.reopen_authorization(gateway.mongo, authorization.handle, gateway.clock() + _TO_TRY_AGAIN)
        raise
    return location


async def refuse(gateway: Gateway, authorization: Authorization, session: Session, role: Acting | None, origin: Origin) -> str:
    """The person wants none of it; returns where to send them."""
    text = "the person has refused this"
    location = answer_url(
        gateway, authorization.redirect_uri, authorization.state, error="access_denied", error_description=text
    )
    if await _take(gateway, authorization, session, "refused", location) is None and role is not None:
        access = await access_of(gateway, session, role, "")
        call = Call("consent", "Consent", origin)
        asked = event(access, call, role.patient, REFUSED, reason=f"{authorization.entry.client.client}: refused by the person")
        await gateway.audit.record([asked], gateway.clock())
    return location


async def _take(
    gateway: Gateway, authorization: Authorization, session: Session, said: str, location: str, code: str | None = None
) -> str | None:
    """Close the request with this answer; where it is closed by the same decision of the same person, the answer it got then.

    Raises Problem where it is closed by another one, or what it was answered with has been used.
    """
    owner = session.key.hex()
    answer: Document = {
        "by": session.key,
        "said": said,
        "location": gateway.sealer.seal(location.encode(), owner),
        "code": store.hash_of(code) if code is not None else None,
    }
    now = gateway.clock()
    if await store.take_authorization(gateway.mongo, authorization.handle, now, answer, now + CODE_LASTS):
        return None
    earlier = (await read_authorization(gateway, authorization.handle, decided=True)).answer
    if earlier is None or (bytes(earlier["by"]), earlier["said"]) != (session.key, said):
        raise over()
    if earlier["code"] is not None:
        await _await_code(gateway, bytes(earlier["code"]))
    return gateway.sealer.open(bytes(earlier["location"]), owner).decode()


async def _await_code(gateway: Gateway, code: bytes) -> None:
    """Return when the code can be used. Raises Problem where it was used already, or does not come."""
    for _ in range(_ROUNDS):
        is_waiting = await store.is_waiting(gateway.mongo, code)
        if is_waiting is not None:
            break
        await asyncio.sleep(_ROUND)
    else:
        raise Problem("transient", "this decision is still being stored", headers={"Retry-After": "2"})
    if not is_waiting:
        raise over()


def _approval(
    gateway: Gateway,
    authorization: Authorization,
    session: Session,
    role: Acting,
    decided: Decided,
    scope: str,
    now: datetime,
) -> Document:
    client, launch = authorization.entry.client, authorization.launch or {}
    by_consent = is_by_consent(client)
    once = decided.decision.duration == "once"
    refreshes = "refresh_token" in client.grants and not once
    offline = refreshes and "offline_access" in authorization.plain
    # Where a professional works was said of this login; nobody says it still holds when the session is over.
    workplaces = session.workplaces if role.kind == "professional" and not offline else ()
    patient = launch.get("patient", role.patient)
    identifiers = [identifier_of(gateway.settings.site, client.client, part) for part in PARTS]
    return {
        "_id": secrets.token_hex(16),
        "client": client.client,
        "edition": authorization.entry.edition,
        "account": session.account,
        "kind": client.kind if by_consent else role.kind,
        "actors": [client.actor] if by_consent else [role.reference, *workplaces],
        "software": [client.actor] if not by_consent and client.actor else [],
        "user": role.reference,
        "patient": patient,
        "bucket": (patient or "")[:3],
        "purpose": client.purpose_of_use,
        "scope": scope,
        "plain": list(authorization.plain),
        "offline": offline,
        "online": refreshes and "online_access" in authorization.plain,
        "session": session.key,
        "consents": [f"{system}|{value}" for system, value in identifiers] if by_consent else [],
        "context": launch.get("context"),
        "nonce": authorization.nonce,
        "level": session.level,
        "logged_in": session.began,
        "began": now,
        "until": end_of(decided.decision.duration, now) if by_consent or once else None,
        "ended": None,
        "refresh": {"live": [], "previous": None},
    }


async def _with_consents(
    gateway: Gateway,
    authorization: Authorization,
    session: Session,
    role: Acting,
    decided: Decided,
    approval: Document,
    code: tuple[str, Document],
    origin: Origin,
) -> None:
    """Write the Consents, as the person, with the approval and its code in the same transaction."""
    client, patient = authorization.entry.client, role.patient or ""
    asker = Asker(client.client, client.name, client.controller, client.actor or "", client.purpose_of_use)
    evidence = Evidence(
        text=decided.text,
        language=decided.language,
        patient=patient,
        performer=role.reference,
        moment=approval["began"],
        level=session.level,
        site=gateway.settings.site,
    )
    built = build_consents(gateway.registry.resource_types, asker, decided.decision, evidence)
    calls = [_replacing(patient, origin, consent) for consent in built.values()]
    known = await store.find_consents(gateway.mongo, patient, approval["consents"])
    kept = {f"{c['identifier'][0]['system']}|{c['identifier'][0]['value']}" for c in built.values()}
    calls += [withdrawing(origin, one) for one in known if not kept & set(one["search"]["identifier"])]

    async def approve_behind(access: Access, transaction: Transaction) -> list[Event]:
        await store.add_approval_behind(gateway.mongo, approval, *code, transaction)
        stored = await store.find_consents(gateway.mongo, patient, approval["consents"], transaction)
        references = [f"Consent/{one['_id']}/_history/{one['version']}" for one in stored]
        return [_decision_event(access, role, origin, approval, decided, references)]

    access = await access_of(gateway, session, role, "patient/Consent.cruds")
    _, events = await write(gateway, access, [(call, None) for call in calls], approve_behind)
    await gateway.audit.record(events, gateway.clock())


def _replacing(patient: str, origin: Origin, consent: dict[str, Any]) -> Call:
    """The Consent in place of what this person's patient decided before about the same, or as the first of its kind."""
    identifier = consent["identifier"][0]
    criteria = (("patient", patient), ("identifier", f"{identifier['system']}|{identifier['value']}"))
    return Call("update", "Consent", origin, criteria=criteria, body=msgspec.json.encode(consent))


def withdrawing(origin: Origin, known: Document) -> Call:
    """The Consent as one that was taken back; nothing else of it changes."""
    body = msgspec.json.decode(bytes(known["body"]))
    return Call("update", "Consent", origin, id=known["_id"], body=msgspec.json.encode({**body, "status": "inactive"}))


def _decision_event(
    access: Access, role: Acting, origin: Origin, approval: Document, decided: Decided, references: Sequence[str] = ()
) -> Event:
    """The evidence, as it enters the sealed chain: who decided what about whom, and on which text."""
    said = f"{approval['client']}: {approval['scope']}; {approval['level']}; {digest_of(decided.text)}"
    return event(access, Call("consent", "Consent", origin), role.patient, DONE, list(references), reason=said)
