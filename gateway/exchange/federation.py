"""Logging in with an OpenID provider: from the button on our page, over the provider, back to a session here.

Knows: that an answer is one to a question of this very browser, asked of this very provider and answered once; and whom here a
provider's claims mean, by its table. Must not know: HTTP, cookies, pages, how an id token is verified.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from gateway.exchange.accounts import audit_login, begin_session
from gateway.exchange.call import Origin
from gateway.exchange.gateway import Gateway
from gateway.fhir.values import token_values
from gateway.issuers.claims import Refused, holds, named_by, texts_of
from gateway.issuers.files import Named
from gateway.issuers.openid import Identity, Question, new_question
from gateway.issuers.providers import Coded, Person, Provider
from gateway.outbound import Unreachable
from gateway.problem import Problem
from gateway.store import federation as store
from gateway.store.accounts import end_sessions_elsewhere, find_person
from gateway.store.mongo import Document
from gateway.telemetry import log

_AWAY = timedelta(minutes=10)  # as long as somebody may take to log in elsewhere
_LONGEST_NAME = 100

Outcome = Literal["done", "again", "cancelled", "unknown", "unreachable"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """How somebody came back from a provider. `cookie`: of the session that begins; `query`: of their login page."""

    outcome: Outcome
    cookie: str = ""
    query: str = ""


@dataclass(frozen=True, slots=True)
class _Who:
    """The resources here that are somebody; of a professional, the PractitionerRoles and the Organization they work at."""

    references: tuple[str, ...]
    workplaces: tuple[str, ...]
    is_operator: bool


def require_provider(gateway: Gateway, name: str) -> Provider:
    """The provider of this name. Raises Problem 404."""
    provider = gateway.providers.find(name)
    if provider is None:
        raise Problem("not-found", "there is no such provider")
    return provider


async def send_away(
    gateway: Gateway, provider: Provider, browser: str, query: str, language: str, *, afresh: bool = False
) -> str:
    """Where the browser with this cookie is to go, to log in with this provider.

    `query`: of the login page they come from; `afresh`: even if they are logged in there.
    """
    question = new_question()
    now = gateway.clock()
    fields = {
        "provider": provider.name,
        "nonce": question.nonce,
        "verifier": question.verifier,
        "query": query,
        "since": now if afresh else None,
        "expires": now + _AWAY,
    }
    await store.put_login(gateway.mongo, question.state, browser, fields)
    return gateway.providers.address(provider, question, redirect_uri(gateway, provider), language, afresh=afresh)


async def arrive(gateway: Gateway, provider: Provider, browser: str, answer: Mapping[str, str], origin: Origin) -> Arrival:
    """What comes of a provider's answer. Nothing of it is looked at unless this browser was sent there and waits for it."""
    now, state = gateway.clock(), answer.get("state", "")
    known = await store.take_login(gateway.mongo, state, browser, provider.name, now)
    if known is None:
        log("login.refused", detail=f"{provider.name}: state")
        return Arrival("again")
    query, code = known["query"], answer.get("code", "")
    issuer = answer.get("iss", "" if provider.says_issuer else provider.issuer)
    if issuer != provider.issuer:  # https://www.rfc-editor.org/rfc/rfc9207#section-2.4
        log("login.refused", detail=f"{provider.name}: iss")
        return Arrival("again", query=query)
    if "error" in answer or not code:
        log("login.refused", detail=f"{provider.name}: the provider gives no code")
        return Arrival("cancelled" if answer.get("error") == "access_denied" else "again", query=query)
    question = Question(state, known["nonce"], known["verifier"])
    try:
        identity = await gateway.providers.identity(provider, code, question, redirect_uri(gateway, provider), now)
    except (Refused, Unreachable) as error:
        log("login.refused", detail=f"{provider.name}: {error}")
        return Arrival("again" if isinstance(error, Refused) else "unreachable", query=query)
    if known["since"] is not None and not _is_since(identity, known["since"] - timedelta(seconds=provider.skew)):
        log("login.refused", detail=f"{provider.name}: auth_time")
        return Arrival("again", query=query)
    return await _let_in(gateway, provider, identity, query, origin)


async def end_elsewhere(gateway: Gateway, provider: Provider, token: str) -> None:
    """End the sessions of somebody who has logged out at the provider, as it says. A notice counts once.

    Raises Refused where it is no notice of this provider, and Unreachable where that cannot be known now.
    """
    notice = await gateway.providers.notice(provider, token, gateway.clock())
    if await store.has_come(gateway.mongo, notice.id):
        raise Refused("jti")
    account = account_of(provider, notice.subject) if notice.subject is not None else None
    sid = account_of(provider, notice.session) if notice.session is not None else None
    ended = await end_sessions_elsewhere(gateway.mongo, account, sid)
    # (Only now: what could not be done is sent again.)
    await store.write_down(gateway.mongo, notice.id, notice.ends)
    log("logout.noticed", detail=provider.name, count=ended)


def redirect_uri(gateway: Gateway, provider: Provider) -> str:
    """Where a provider sends people back: an address of its own for each, so that one cannot answer for another."""
    return f"{gateway.settings.site}/login/callback/{provider.name}"


def account_of(provider: Provider, subject: str) -> str:
    """What a session has in place of the login of an account; no login of ours has a space in it."""
    return f"{provider.name} {subject}"


async def _let_in(gateway: Gateway, provider: Provider, identity: Identity, query: str, origin: Origin) -> Arrival:
    who = await _who(gateway, provider, identity)
    if not who.references and not who.is_operator:
        log("login.refused", detail=f"{provider.name}: nobody here has these claims")
        return Arrival("unknown", query=query)
    account: Document = {
        "_id": account_of(provider, identity.subject),
        "name": _name(identity) or provider.name,
        "references": list(who.references),
        "operator": who.is_operator,
    }
    hint = gateway.sealer.seal(identity.id_token.encode(), account["_id"]) if provider.endpoints.end_session else b""
    await audit_login(gateway, account, origin, subject=(provider.issuer, identity.subject))
    level = " ".join(f"{provider.name}:{identity.acr}".split()) if identity.acr else provider.name
    elsewhere: Document = {"provider": provider.name, "hint": hint, "workplaces": list(who.workplaces)}
    sid = identity.claims.get("sid")
    if isinstance(sid, str):
        elsewhere["sid"] = account_of(provider, sid)
    return Arrival("done", await begin_session(gateway, account, level=level, elsewhere=elsewhere), query)


async def _who(gateway: Gateway, provider: Provider, identity: Identity) -> _Who:
    """Who this is here: by every rule that fits the claims."""
    references, workplaces, is_operator = dict[str, None](), dict[str, None](), False
    for rule in provider.people:
        if holds(identity.claims, rule.when):
            is_operator = is_operator or rule.kind == "operator"
            people = await _find(gateway, provider, identity, rule.user)
            # One identifier may be that of a carer of several; anybody else whom it does not tell apart is not known by it.
            if rule.kind == "proxy" or len(people) == 1:
                references |= dict.fromkeys(people)
                workplaces |= dict.fromkeys(await _workplaces(gateway, provider, identity, rule, people))
    return _Who(tuple(references), tuple(workplaces), is_operator)


async def _find(gateway: Gateway, provider: Provider, identity: Identity, named: Named | None) -> list[str]:
    text = named_by(provider.own, identity.claims, named)
    if named is None or text is None:
        return []
    if named.system is not None:
        ids = await store.find_people(gateway.mongo, named.type, token_values(named.system, text)[0])
        return [f"{named.type}/{identifier}" for identifier in ids]
    reference = f"{named.type}/{text}"
    return [reference] if await find_person(gateway.mongo, reference) else []


async def _workplaces(gateway: Gateway, provider: Provider, identity: Identity, rule: Person, people: list[str]) -> list[str]:
    """Where a professional works, by what the provider says at this login, and as what, by the directory here."""
    organizations = await _find(gateway, provider, identity, rule.organization)
    if len(organizations) != 1:
        return []
    codes = _codes(identity, rule.role) if rule.role else None
    roles = await store.find_roles(gateway.mongo, people[0], organizations[0], codes)
    return [*(f"PractitionerRole/{identifier}" for identifier in roles), *organizations]


def _is_since(identity: Identity, moment: datetime) -> bool:
    """Whether the provider says that they logged in there since then."""
    seconds = identity.claims.get("auth_time")
    return isinstance(seconds, int | float) and seconds >= moment.timestamp()


def _codes(identity: Identity, coded: Coded) -> list[str]:
    found: list[str] = []
    for text in texts_of(identity.claims, coded.claim):
        code, _, oid = text.partition("^") if coded.system is None else (text, "", "")
        found += token_values(coded.system or f"urn:oid:{oid}", code)[:1]
    return found


def _name(identity: Identity) -> str:
    """What the pages call somebody, without characters that are none or turn the writing round."""
    claims = identity.claims
    parts = texts_of(claims, "name")[:1] or [*texts_of(claims, "given_name")[:1], *texts_of(claims, "family_name")[:1]]
    text = "".join(c for c in " ".join(parts) if unicodedata.category(c)[0] != "C")
    return " ".join(text.split())[:_LONGEST_NAME]
