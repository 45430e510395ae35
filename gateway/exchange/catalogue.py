"""The service catalogue: who may ask for tokens at all, and what an operator does about it.

Knows: the states of an entry (draft, tested, referenced, suspended) and what follows from a change: only who is referenced gets
tokens; whoever is suspended, or wants other data or for another purpose than patients agreed to, loses those that there are.
Must not know: how a client shows that it is one; pages and commands.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from typing import Any

import msgspec

from gateway.exchange.audit import at_machine
from gateway.exchange.client import Client
from gateway.exchange.gateway import Gateway
from gateway.problem import Problem
from gateway.store.catalogue import Audited, add_entry, change_entry, find_entries, is_in_directory, take_tokens
from gateway.store.mongo import Document
from gateway.telemetry import log

# From which states each can be reached.
_BEFORE: Mapping[str, tuple[str, ...]] = {
    "tested": ("draft",),
    "referenced": ("tested", "suspended"),
    "suspended": ("draft", "tested", "referenced"),
}
REFERENCED = "referenced"
UNNAMED = "operator"  # who did something and did not say who they are
_SECRET_PREFIX = "gwcs_"  # noqa: S105 (lets scanners for leaked secrets know one of ours)


@dataclass(frozen=True, slots=True)
class Entry:
    """A client with its standing in the catalogue.

    `edition` counts the changes of what patients agree to; `since`: when it was last changed. `secrets`: hashes, each with the
    time it ends (None: it does not). `is_closed`: by now its category is one that nobody can open anything to.
    """

    client: Client
    state: str
    edition: int
    since: datetime
    states: tuple[Mapping[str, Any], ...]
    revision: int
    is_closed: bool = False
    secrets: tuple[tuple[bytes, datetime | None], ...] = ()

    @property
    def is_referenced(self) -> bool:
        """Whether it may have tokens."""
        return self.state == REFERENCED and not self.is_closed

    @property
    def terms_since(self) -> datetime | None:
        """From when on Consents that name it permit anything: whoever agreed before agreed to something else."""
        return self.since if self.edition > 1 else None

    def has_secret(self, text: str, now: datetime) -> bool:
        """Whether this is a secret of the client."""
        digest = _hash(text)
        return any(compare_digest(digest, known) for known, ends in self.secrets if ends is None or ends > now)


def entry_of(gateway: Gateway, document: Document) -> Entry:
    """The entry that is stored so."""
    client = msgspec.convert({**document["file"], "client": document["_id"]}, Client)
    return Entry(
        client=client,
        state=document["state"],
        edition=document["edition"],
        since=document["since"],
        states=tuple(document["states"]),
        revision=document["revision"],
        is_closed=client.category in gateway.policy.never_recipients,
        secrets=tuple((bytes(one["hash"]), one.get("ends")) for one in document["secrets"]),
    )


async def find_entry(gateway: Gateway, client: str) -> Entry | None:
    """The entry of a client as it is now, None where there is none."""
    found = await gateway.clients.find(client)
    return None if found is None else entry_of(gateway, found)


async def still_stands(gateway: Gateway, entry: Entry) -> bool:
    """Whether a client is still referenced, as the same edition, at this moment."""
    found = await gateway.clients.find(entry.client.client)
    if found is None or found["edition"] != entry.edition or found["state"] != REFERENCED:
        return False
    return found["file"]["category"] not in gateway.policy.never_recipients


async def list_entries(gateway: Gateway, *states: str) -> list[Entry]:
    """The entries of the catalogue, or those in these states."""
    return [entry_of(gateway, document) for document in await find_entries(gateway.mongo, states)]


async def add_client(gateway: Gateway, client: Client, operator: str = UNNAMED) -> str | None:
    """Register a client, as a draft. Returns its secret where it has one: it can be seen only now.

    `operator`, here and below: who does it, for the audit. Raises Problem where there is one of that id, or its actor is not
    there.
    """
    await _require_actor(gateway, client)
    secret, hashes = _new_secret() if client.authentication == "client_secret_basic" else (None, [])
    now = gateway.clock()
    entry = {
        "_id": client.client,
        **_file(client),
        "edition": 1,
        "since": now,
        "revision": 1,
        "secrets": hashes,
        "state": "draft",
        "states": [{"state": "draft", "at": now, "note": ""}],
    }
    if not await add_entry(entry, _audited(gateway, client, operator, "draft, edition 1")):
        raise Problem("duplicate", f"there is a client '{client.client}' already")
    log("catalogue.added", client=client.client)
    return secret


async def change_client(gateway: Gateway, client: Client, operator: str = UNNAMED) -> Entry:
    """Describe a client anew; returns its entry as it then is.

    Where that changes what patients agreed to, it is a draft again, and its tokens are taken away.
    """
    await _require_actor(gateway, client)
    entry = await _require_entry(gateway, client.client)
    fields = _file(client)
    if client.authentication != entry.client.authentication:
        raise Problem("business-rule", "how a client authenticates is not changed: register another one")
    has_new_terms = client.terms() != entry.client.terms()
    if has_new_terms:
        now = gateway.clock()
        fields |= {"edition": entry.edition + 1, "since": now, **_state(entry, "draft", now, "what it wants has changed")}
    said = f"described anew; {fields.get('state', entry.state)}, edition {fields.get('edition', entry.edition)}"
    await _change(gateway, entry, fields, operator, said)
    if has_new_terms:
        await take_tokens(gateway.mongo, client.client)
    return await _require_entry(gateway, client.client)


async def set_state(gateway: Gateway, client: str, state: str, note: str = "", operator: str = UNNAMED) -> None:
    """Bring a client into another state; `note` says why, or what shows it. Raises Problem where that cannot be.

    When this returns, a client that is not referenced has no token any more.
    """
    entry = await _require_entry(gateway, client)
    if entry.state not in (*_BEFORE[state], state):
        raise Problem("business-rule", f"'{client}' is {entry.state}; {state} comes after {' or '.join(_BEFORE[state])}")
    if state == REFERENCED and entry.is_closed:
        raise Problem("business-rule", f"'{client}' is of a category that no Consent can open anything to")
    if entry.state != state:
        said = f"{state}, edition {entry.edition}"
        await _change(gateway, entry, _state(entry, state, gateway.clock(), note), operator, said)
    if state != REFERENCED:
        # Also where it was so before: whoever was interrupted says it again.
        await take_tokens(gateway.mongo, client)


async def rotate_secret(gateway: Gateway, client: str, keep: timedelta, operator: str = UNNAMED) -> str:
    """Give a client another secret and return it: it can be seen only now. The former ones end when `keep` is over."""
    entry = await _require_entry(gateway, client)
    if entry.client.authentication != "client_secret_basic":
        raise Problem("business-rule", f"'{client}' has no secret: its authentication is {entry.client.authentication}")
    now = gateway.clock()
    secret, hashes = _new_secret()
    ends = now + keep
    kept = [(known, min(ends, until or ends)) for known, until in entry.secrets if until is None or until > now]
    former = [{"hash": known, "ends": until} for known, until in kept if until > now]
    await _change(gateway, entry, {"secrets": [*hashes, *former]}, operator, "another secret")
    return secret


def _new_secret() -> tuple[str, list[Document]]:
    secret = _SECRET_PREFIX + secrets.token_urlsafe(32)
    return secret, [{"hash": _hash(secret)}]


def _hash(secret: str) -> bytes:
    """What is stored of a secret: it has 256 random bits, which no list of guesses reaches."""
    return sha256(secret.encode()).digest()


def _file(client: Client) -> Document:
    described = msgspec.to_builtins(client)
    del described["client"]
    return {"file": described, "origins": client.origins}


def _state(entry: Entry, state: str, now: datetime, note: str) -> Document:
    return {"state": state, "states": [*entry.states, {"state": state, "at": now, "note": note}]}


async def _change(gateway: Gateway, entry: Entry, fields: Document, operator: str, said: str) -> None:
    audited = _audited(gateway, entry.client, operator, said)
    if not await change_entry(entry.client.client, entry.revision, fields, audited):
        raise Problem("conflict", f"'{entry.client.client}' was changed by somebody else at the same time")
    log("catalogue.changed", client=entry.client.client, detail=str(fields.get("state", entry.state)))


def _audited(gateway: Gateway, client: Client, operator: str, said: str) -> Audited:
    """The event of a change, with what the entry then is."""
    entities = (client.actor,) if client.actor else ()
    event = at_machine(operator, "catalogue", entities=entities, reason=f"{client.client}: {said}")
    return Audited(gateway.audit, event, gateway.clock())


async def _require_entry(gateway: Gateway, client: str) -> Entry:
    entry = await find_entry(gateway, client)
    if entry is None:
        raise Problem("not-found", f"there is no client '{client}'")
    return entry


async def _require_actor(gateway: Gateway, client: Client) -> None:
    """Refuse a client whose actor is not in the directory: no Consent could name it."""
    if client.actor is not None and not await is_in_directory(gateway.mongo, client.actor):
        raise Problem("not-found", f"'{client.actor}', the actor of this client, is not in the directory")
