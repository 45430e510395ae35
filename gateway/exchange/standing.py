"""From a bearer token to an Access over the records a request is about.

Knows: which records are to be looked up, and when; how what is stored of them is read. Must not know: HTTP; what a scope
or a Consent means.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from hmac import compare_digest
from typing import Any

import msgspec

from gateway.access.access import Access, Caller, Record
from gateway.access.consent import DENY_ALL, Consent, Provision, parse_consent
from gateway.access.relation import read_relations
from gateway.exchange.foreign import read_foreign_token
from gateway.exchange.gateway import Gateway
from gateway.exchange.tokens import CHALLENGE, unknown_token
from gateway.fhir.clause import without_version
from gateway.fhir.codec import Codec
from gateway.fhir.dates import is_running
from gateway.fhir.merging import merging_links
from gateway.fhir.registry import Registry
from gateway.problem import Problem
from gateway.store.mongo import Document
from gateway.store.owners import find_owner
from gateway.store.standing import About, Standing, StoredRecord

_LONGEST_TOKEN = 512  # of ours


async def authenticate(gateway: Gateway, token: str | None, about: About, certificate: str | None = None) -> Access:
    """The access of whoever bears this token, over the record the request is about and the one in the token's context.
    `certificate`: the thumbprint of the one that the bearer has shown; a token that is bound to another, or to one at all, is
    refused like any that does not hold (RFC 8705 §3).

    Raises Problem 401 without a valid token; for tokens of other issuers also as `read_foreign_token` does.
    """
    if token is None:
        raise Problem("login", "a bearer token is needed", headers={"WWW-Authenticate": CHALLENGE})
    now = gateway.clock()
    issuer = gateway.issuers.find(token)
    if issuer is not None:
        found = await gateway.standings.find_foreign(await read_foreign_token(gateway, issuer, token, now), about)
    else:
        found = await gateway.standings.find(token, about, now) if len(token) <= _LONGEST_TOKEN else None
    if found is None or not _is_shown(found.token, certificate) or not _still_acts(gateway, found, now):
        raise unknown_token()
    access = await whole(gateway, _access(gateway, found, now), by_right=True)
    # Without a patient in the token's context, the record found is the one the request is about.
    return access if access.caller.patient is None else await extend(gateway, access, about)


async def examine(gateway: Gateway, token: str) -> tuple[Document, Access] | None:
    """A token of ours as it is stored, with the access that it gives now; None where it does not hold."""
    now = gateway.clock()
    found = await gateway.standings.find(token, About(), now) if len(token) <= _LONGEST_TOKEN else None
    if found is None or not _still_acts(gateway, found, now):
        return None
    return found.token, await whole(gateway, _access(gateway, found, now), by_right=True)


def is_confined(access: Access) -> bool:
    """Whether the record in the token's context is all that its scopes can ever reach."""
    return all(scope.level == "patient" for scope in access.caller.scopes)


async def extend(gateway: Gateway, access: Access, about: About) -> Access:
    """The access over the record this is about as well."""
    if is_confined(access):
        return access
    patient = about.patient
    if patient is None and about.resource is not None and gateway.registry.find(about.resource[0]) is not None:
        patient = await find_owner(gateway.mongo, *about.resource)
    return access if patient is None else await extend_to(gateway, access, [patient])


async def extend_to(gateway: Gateway, access: Access, patients: Iterable[str]) -> Access:
    """The access over these records as well, if they can be reached. A record that does not exist adds nothing.

    Nor is it looked for twice, which would tell it from one that may not be seen.
    """
    missing = sorted(set(patients) - access.records.keys() - access.absent)
    if not missing or is_confined(access):
        return access
    found = await gateway.standings.find_records(missing)
    records = (read_record(gateway, access.caller, record) for record in found.values())
    widened = access.over(records, absent=set(missing) - found.keys())
    return await whole(gateway, widened, by_right=True)


async def whole(gateway: Gateway, access: Access, *, by_right: bool = False) -> Access:
    """The access with all records of each person, where Patients were merged: the denials of each hold in all of them.

    `by_right`: where the caller may read something in the record itself. To others it does not even say that there are more,
    and takes no longer than one that is not there.
    """
    parts = [record for record in access.records.values() if record.linked and not record.merged]
    parts = [record for record in parts if not by_right or access.opens(record)]
    if not parts:
        return access
    known = dict(access.records)
    while missing := {other for record in parts for other in _named(known, record)} - known.keys():
        found = await gateway.standings.find_records(missing)
        known |= {patient: Record(patient) for patient in missing}  # (whoever is not there is not asked for again)
        known |= {patient: read_record(gateway, access.caller, one) for patient, one in found.items()}
    persons = {record.survivor or record.patient: _named(known, record) for record in parts}
    return access.over(one for survivor, ids in persons.items() for one in _one_person(survivor, [known[i] for i in ids]))


def _named(known: Mapping[str, Record], record: Record) -> list[str]:
    """The patients of the person whose record this is, as far as the records known name them."""
    survivor = record.survivor or record.patient
    return sorted({record.patient, survivor, *(known[survivor].linked if survivor in known else ())})


def _one_person(survivor: str, records: list[Record]) -> Iterator[Record]:
    """The records of one person, each with what the others say."""
    # Who treats the person, the record says that stands for them now.
    team, relations = next(((r.care_team, r.relations) for r in records if r.patient == survivor), (frozenset[str](), ()))
    for one in records:
        elsewhere = tuple(consent for other in records if other is not one for consent in other.consents)
        merged = tuple(record.patient for record in records)
        yield replace(one, care_team=team, relations=relations, survivor=survivor, merged=merged, elsewhere=elsewhere)


def read_provision(codec: Codec, registry: Registry, body: bytes) -> Provision | None:
    """What a stored Consent provides; None where it is not in force."""
    try:
        consent = codec.load("Consent", body)
        return parse_consent(consent, registry) if consent.status == "active" else None
    except (Problem, msgspec.MsgspecError, ValueError):
        return DENY_ALL  # stored when it could be honoured, and no longer: nobody gets in by that


def head_facts(patient: Any) -> dict[str, Any]:
    """What the head of a record keeps of its Patient: who treats, whether it is active, the birth date, merged Patients."""
    named = (practitioner.reference for practitioner in patient.generalPractitioner or ())
    links = merging_links(patient)
    replaced = next((other for kind, other in links if kind == "replaced-by"), None)
    return {
        "care_team": [without_version(reference) for reference in named if reference],
        "closed": patient.active is False,
        "born": patient.birthDate,
        "merged": bool(links),
        "replaced_by": replaced,
        "replaces": [other for kind, other in links if kind == "replaces"],
    }


def _access(gateway: Gateway, found: Standing, now: datetime) -> Access:
    caller = _caller(gateway, found.token)
    records = [read_record(gateway, caller, found.record)] if found.record else []
    return Access(caller, gateway.registry, gateway.policy, now, records, found.prefetched)


def is_acting(person: Any, now: datetime) -> bool:
    """Whether a RelatedPerson acts for their patient at this moment."""
    return person.active is not False and is_running(person.period, now)


def _still_acts(gateway: Gateway, found: Standing, now: datetime) -> bool:
    """Whether whoever a token names as acting for its patient still does: it outlasts none of them."""
    patient = found.token.get("patient")
    return all(
        one is not None
        and one.get("patient") == patient
        and is_acting(gateway.codec.load("RelatedPerson", bytes(one["body"])), now)
        for one in found.acting
    )


def _is_shown(token: Document, certificate: str | None) -> bool:
    """Whether the bearer has shown the certificate that the token is bound to, if it is to one."""
    bound = token.get("certificate")
    return bound is None or (certificate is not None and compare_digest(bound, certificate))


def _caller(gateway: Gateway, token: Document) -> Caller:
    return Caller(
        client=token["client"],
        source=token["source"],
        kind=token["kind"],
        actors=frozenset(token["actors"]),
        software=frozenset(token.get("software", ())),
        user=token.get("user"),
        patient=token.get("patient"),
        scopes=gateway.scopes(token["scope"]),
        purpose=token.get("purpose"),
        token=bytes(token["_id"]).hex()[:16],
        subject=token.get("subject", ()),
        terms_since=token.get("terms_since"),
        roles=tuple(token.get("roles", ())),
        professions=frozenset(token.get("professions", ())),
        organization=token.get("organization"),
    )


def read_record(gateway: Gateway, caller: Caller, stored: StoredRecord) -> Record:
    """The record, with the consents that speak of this caller or of everybody."""
    head, declared = stored.head, stored.head.get("care", {})
    concerned = caller.actors | caller.software
    consents = [d for d in stored.consents if not d.get("actors") or concerned.intersection(d["actors"])]
    return Record(
        patient=stored.patient,
        # Nobody's Consent stands between patients and their own record.
        consents=tuple(_consent(gateway, caller, d) for d in consents) if caller.kind != "patient" else (),
        care_team=frozenset(head.get("care_team", ())),
        relations=read_relations(declared, caller.actors) if declared and caller.kind == "professional" else (),
        declared=declared,
        wide=frozenset(head.get("wide", ())),
        ends=head.get("ends", {}),
        moment=(int(head["commit"]), head["updated"]) if head else None,
        closed=bool(head.get("closed")),
        born=head.get("born"),
        survivor=head.get("replaced_by") or stored.patient if head.get("merged") else None,
        linked=tuple(head.get("replaces") or [head["replaced_by"]]) if head.get("merged") else (),
    )


def _consent(gateway: Gateway, caller: Caller, document: Document) -> Consent:
    reference = f"Consent/{document['_id']}/_history/{document['version']}"
    provision = None if document.get("deleted") else gateway.provision_of(document["body"])
    actors = frozenset(document.get("actors", ()))
    is_outdated = caller.terms_since is not None and document["updated"] < caller.terms_since and bool(actors & caller.actors)
    return Consent(reference, actors, provision, is_outdated, document["updated"])
