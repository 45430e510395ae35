"""Issuing opaque bearer tokens.

Knows: what a token must say to be worth storing. Must not know: how it travels; the grants of an authorization server, which
will end here too.
"""

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import get_args

from gateway.access.policy import RELATION_KINDS, Kind
from gateway.exchange.gateway import Gateway
from gateway.exchange.professions import find_professions
from gateway.issuers.issuers import OWN_PREFIX
from gateway.problem import Problem
from gateway.store.mongo import Document
from gateway.store.owners import find_owner
from gateway.store.standing import delete_token, put_token, token_key

CHALLENGE = 'Bearer realm="fhir"'


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token stands for; the fields are those of a Caller.

    `actors`: the references that Consents name; `id`: what the tokens that are taken back together have in common;
    `terms_since`: from when on Consents permit anything to this client; `roles`, `organization`: as what and where whoever is
    behind it acts; `professions`: what they are, by the codes of the entitlements; `certificate`: the thumbprint of the one
    certificate with which the token is good (RFC 8705), None for any bearer.
    """

    client: str
    kind: str
    scope: str
    actors: tuple[str, ...] = ()
    software: tuple[str, ...] = ()
    source: str | None = None
    user: str | None = None
    patient: str | None = None
    purpose: str | None = None
    lifetime: timedelta = timedelta(minutes=15)
    id: str | None = None
    terms_since: datetime | None = None
    certificate: str | None = None
    roles: tuple[str, ...] = ()
    professions: tuple[str, ...] = ()
    organization: str | None = None


async def issue_token(gateway: Gateway, grant: Grant, token: str | None = None) -> str:
    """Store a token for this grant and return it; this is the only moment its text exists here.

    `token`: a text chosen beforehand, for sandboxes. Raises Problem where the grant cannot be.
    """
    await _check(gateway, grant)
    grant = replace(grant, professions=await find_professions(gateway, grant.kind, grant.actors, grant.roles))
    token = token or new_token()
    await put_token(gateway.mongo, token, fields_of(grant, gateway.clock()))
    return token


def new_token() -> str:
    """The text of a token: 256 random bits, in letters that need no escape anywhere."""
    return OWN_PREFIX + secrets.token_urlsafe(32)


def fields_of(grant: Grant, now: datetime) -> Document:
    """What is stored of a grant that begins now."""
    fields: Document = {
        "client": grant.client,
        "source": grant.source or grant.client,
        "kind": grant.kind,
        "actors": list(grant.actors),
        "software": list(grant.software),
        "user": grant.user,
        "patient": grant.patient,
        "scope": grant.scope,
        "purpose": grant.purpose,
        "grant": grant.id,
        "terms_since": grant.terms_since,
        "certificate": grant.certificate,
        "roles": list(grant.roles) or None,
        "professions": list(grant.professions) or None,
        "organization": grant.organization,
        "issued": now,
        "expires": now + grant.lifetime,
    }
    return {name: value for name, value in fields.items() if value is not None}


def unknown_token() -> Problem:
    """The one answer for every token that does not hold, whoever issued it (RFC 6750 §3.1)."""
    challenge = f'{CHALLENGE}, error="invalid_token"'
    return Problem("unknown", "the token is not known or has expired", headers={"WWW-Authenticate": challenge})


def token_name(token: str) -> str:
    """How the audit names a token: by the beginning of its hash, which opens nothing."""
    return token_key(token).hex()[:16]


async def revoke_token(gateway: Gateway, token: str) -> bool:
    """Forget a token; its next use is refused. Returns whether it was known."""
    return await delete_token(gateway.mongo, token)


async def _check(gateway: Gateway, grant: Grant) -> None:
    if grant.kind not in get_args(Kind) or grant.kind in RELATION_KINDS:
        kinds = ", ".join(kind for kind in get_args(Kind) if kind not in RELATION_KINDS)
        raise Problem("invalid", f"the kind of actor is one of {kinds}")
    scopes = gateway.scopes(grant.scope)
    if not scopes:
        raise Problem("invalid", "a token needs at least one scope for resources")
    if grant.patient is None and any(s.level == "patient" for s in scopes):
        raise Problem("invalid", "patient/ scopes need a patient in context")
    await require_actor(gateway, grant)


async def require_actor(gateway: Gateway, grant: Grant) -> None:
    """Refuse a grant that is nobody's: whom no Consent could name, or who does not act for the patient in context."""
    if grant.patient is None and grant.kind in ("patient", "proxy"):
        raise Problem("invalid", "tokens of patients and proxies need a patient in context")
    if grant.kind not in ("patient", "operator", "feed") and not grant.actors:
        raise Problem("invalid", "without a reference to the actor no Consent could ever name it")
    if grant.kind == "proxy":
        for actor in grant.actors:
            type_name, _, identifier = actor.partition("/")
            if type_name != "RelatedPerson" or await find_owner(gateway.mongo, type_name, identifier) != grant.patient:
                raise Problem("invalid", "a proxy is a RelatedPerson of the patient in context")
