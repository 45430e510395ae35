"""From an approval to tokens: a code is good once and for a minute, a refresh token as long as the approval stands.

Knows: what a second use of a code or of a spent refresh token means (RFC 6749 §4.1.2, RFC 9700 §4.14): somebody else has it, so
the approval ends. A confidential client's refresh token stays the same. A public client gets another one each time, and the one
before is good until a successor is first used: an answer that was lost, or several that crossed, cost nobody their pairing.
Must not know: HTTP, how a client shows that it is one, what an id_token looks like.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gateway.exchange.catalogue import Entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.persons import find_roles
from gateway.exchange.professions import find_professions
from gateway.exchange.tokens import Grant, fields_of, new_token
from gateway.exchange.withdrawal import is_live
from gateway.problem import Problem
from gateway.store import approvals as store
from gateway.store.accounts import find_session_by_key, is_locked
from gateway.store.mongo import Document

LASTS = timedelta(minutes=15)
_MOST_LIVE = 64  # successors that wait to be used
_ATTEMPTS = 100


class InvalidGrant(Exception):
    """What was shown is good for nothing (any more); the client is not told why."""


class InvalidScope(Exception):
    """More is asked for than was approved."""


@dataclass(frozen=True, slots=True)
class Issued:
    """Tokens that come from an approval. `refresh_token` None: the client keeps what it has, or has none."""

    access_token: str
    refresh_token: str | None
    approval: Mapping[str, Any]
    scope: str
    seconds: int


async def redeem_code(
    gateway: Gateway, entry: Entry, code: str, is_answer: Callable[[Document], bool], certificate: str | None = None
) -> Issued:
    """The tokens that a code stands for, bound to this certificate. Raises InvalidGrant; a code that was tried is used up.

    `is_answer`: whether who brings the code is who it was given to, as far as the request alone tells.
    """
    now = gateway.clock()
    found, was_used = await store.claim_code(gateway.mongo, code, now)
    if found is None:
        raise InvalidGrant
    if was_used:
        await store.end_approvals(gateway.mongo, [found["approval"]], now)
        raise InvalidGrant
    if found["expires"] <= now or found["client"] != entry.client.client or not is_answer(found):
        raise InvalidGrant
    approval = await store.find_approval(gateway.mongo, found["approval"])
    if approval is None or approval["edition"] != entry.edition or not await is_live(gateway, approval, now):
        raise InvalidGrant
    refresh_token, changes = None, {}
    if approval["offline"] or approval["online"]:
        refresh_token = gateway.refresh_tokens.make(approval["_id"])
        changes = {"refresh": {"live": [store.hash_of(refresh_token)], "previous": None}}
    return await _issue(
        gateway, entry, approval, _granted(approval, approval["scope"]), refresh_token, {}, changes, now, certificate
    )


async def refresh(gateway: Gateway, entry: Entry, token: str, scope: str | None, certificate: str | None = None) -> Issued:
    """Tokens for a refresh token, bound to this certificate. Raises InvalidGrant, InvalidScope."""
    for _ in range(_ATTEMPTS):
        now = gateway.clock()
        identifier = gateway.refresh_tokens.read(token)
        approval = await store.find_approval(gateway.mongo, identifier) if identifier is not None else None
        if approval is None or approval["client"] != entry.client.client:
            raise InvalidGrant
        state, used = approval["refresh"], store.hash_of(token)
        if used not in state["live"] and used != state["previous"]:
            await store.end_approvals(gateway.mongo, [approval["_id"]], now)  # it was spent: two have it
            raise InvalidGrant
        # (another edition of the client wants something else than what was approved)
        is_same = approval["edition"] == entry.edition
        if not is_same or not await is_live(gateway, approval, now) or not await _is_at_hand(gateway, approval, now):
            raise InvalidGrant
        granted = _narrowed(gateway, approval, scope)
        successor, changes = None, {}
        if entry.client.is_public:
            successor = gateway.refresh_tokens.make(approval["_id"])
            others = state["live"][-_MOST_LIVE + 1 :] if used == state["previous"] else []
            changes = {"refresh": {"live": [*others, store.hash_of(successor)], "previous": used}}
        try:
            return await _issue(gateway, entry, approval, granted, successor, {"refresh": state}, changes, now, certificate)
        except InvalidGrant:
            continue  # another request came in between: what holds now, the next round sees
    raise Problem("transient", "this pairing is being refreshed too often", headers={"Retry-After": "1"})


async def end_pairing(gateway: Gateway, client: str, token: str) -> None:
    """End the approval of a refresh token, with all its tokens; nothing where it is none of this client's."""
    identifier = gateway.refresh_tokens.read(token)
    approval = await store.find_approval(gateway.mongo, identifier) if identifier is not None else None
    if approval is not None and approval["client"] == client:
        await store.end_approvals(gateway.mongo, [approval["_id"]], gateway.clock())


def _narrowed(gateway: Gateway, approval: Document, scope: str | None) -> str:
    """The scopes to give: those approved, or those of them that are asked for."""
    approved = str(approval["scope"])
    if scope is None:
        return _granted(approval, approved)
    asked = [part for part in scope.split(" ") if part]
    plain = [part for part in asked if part in approval["plain"]]
    of_resources = [part for part in asked if part not in plain]
    known = set(approved.split(" "))
    if not of_resources or not set(of_resources) <= known | _within(gateway, known, of_resources):
        raise InvalidScope
    return " ".join([*plain, *of_resources])


def _granted(approval: Document, scope: str) -> str:
    """The scopes as the client is told: those of resources, and the others that mean something for it."""
    kept = {"offline_access": approval["offline"], "online_access": approval["online"] and not approval["offline"]}
    return " ".join([*(part for part in approval["plain"] if kept.get(part, True)), scope])


def _within(gateway: Gateway, known: set[str], asked: list[str]) -> set[str]:
    """Those scopes asked for that are a part of an approved one: fewer letters, or a filter on what is approved whole."""
    try:
        wanted, approved = gateway.scopes(" ".join(asked)), gateway.scopes(" ".join(known))
    except Problem:
        raise InvalidScope from None
    return {
        one.text
        for one in wanted
        if any(
            one.level == wide.level
            and one.type == wide.type
            and one.permissions <= wide.permissions
            and ("?" not in wide.text or one.text.partition("?")[2] == wide.text.partition("?")[2])
            for wide in approved
        )
    }


async def _is_at_hand(gateway: Gateway, approval: Document, now: datetime) -> bool:
    """Whether the person stands behind it: logged in, where it is for as long as they are (`online_access`); and still who they
    were, with an account that is open, where the client acts as them and not by Consents.
    """
    if not approval["offline"] and await find_session_by_key(gateway.mongo, bytes(approval["session"]), now) is None:
        return False
    if approval["consents"]:
        return True
    return not await is_locked(gateway.mongo, approval["account"]) and bool(await find_roles(gateway, [approval["user"]]))


async def _issue(
    gateway: Gateway,
    entry: Entry,
    approval: Document,
    scope: str,
    refresh_token: str | None,
    known: Document,
    changes: Document,
    now: datetime,
    certificate: str | None,
) -> Issued:
    lifetime = LASTS if approval["until"] is None else min(LASTS, approval["until"] - now)
    grant = Grant(
        client=approval["client"],
        kind=approval["kind"],
        scope=scope,
        actors=tuple(approval["actors"]),
        software=tuple(approval["software"]),
        user=approval["user"],
        patient=approval["patient"],
        purpose=approval["purpose"],
        lifetime=lifetime,
        id=approval["_id"],
        # (who acts as a person is named by no Consent, and its changes are not that person's)
        terms_since=entry.terms_since if entry.client.actor in approval["actors"] else None,
        certificate=certificate,
        professions=await find_professions(gateway, approval["kind"], approval["actors"]),
    )
    access_token = new_token()
    if not await store.issue(gateway.mongo, approval["_id"], access_token, fields_of(grant, now), known, changes):
        raise InvalidGrant
    return Issued(access_token, refresh_token, approval, scope, int(lifetime.total_seconds()))
