"""A person who is sent by a client to decide, and the client that waits for the answer.

Knows: how a client asks (RFC 6749 §4.1, RFC 7636) and what a person does on the pages. Must not know: how the gateway answers.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from gateway.exchange.accounts import add_account
from gateway.exchange.catalogue import Entry, find_entry
from gateway.exchange.redemption import Issued, redeem_code
from gateway.oauth.core import Asked, Core
from tests.clients import Registered, register
from tests.person import Page, Person
from tests.world import BASE, Actor, World, device, unique

PASSWORD = "correct horse battery"
SITE = "http://gateway.test"
CALLBACK = "https://app.example/callback"
SCOPE = "launch/patient openid fhirUser offline_access patient/Observation.rs patient/Observation.c patient/Device.rs"


async def register_app(world: World, **changes: Any) -> Registered:
    """A measurement app on phones: a public client, a Device of the catalogue."""
    if "actor" not in changes:
        created = await world.operator.create(device())
        changes["actor"] = f"Device/{created['id']}"
    described: dict[str, Any] = {
        "client": unique("app"),
        "name": "GlucoApp",
        "kind": "app",
        "category": "measurement",
        "purpose": {"en": "To show your glucose to you.", "fr": "Vous montrer votre glycémie."},
        "controller": "GlucoApp SAS",
        "contact": "privacy@glucoapp.example",
        "authentication": "none",
        "grants": ["authorization_code", "refresh_token"],
        "read": ["Observation", "Device", "Patient", "DocumentReference"],
        "write": ["Observation", "Device"],
        "redirect_uris": [CALLBACK],
        "keys": [],
    }
    return await register(world, **described | changes)


async def medisoft(world: World, redirect_uris: list[str], **changes: Any) -> Registered:
    """What a professional works with: a public client, so that it needs no secret here."""
    described: dict[str, Any] = {
        "kind": "software",
        "category": "care",
        "name": "MediSoft",
        "authentication": "none",
        "grants": ["authorization_code", "refresh_token"],
        "keys": [],
        "redirect_uris": redirect_uris,
        "read": ["Observation", "Patient"],
        "write": [],
    }
    return await register(world, **described | changes)


async def entry_of(world: World, app: Registered) -> Entry:
    """What the catalogue says of a client."""
    found = await find_entry(world.gateway, app.id)
    assert found is not None
    return found


def answering(
    world: World, entry: Entry, redirect_uri: str | None, verifier: str | None
) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a code is for a client that brings it with these."""
    form = {"grant_type": "authorization_code", "code": "-", "redirect_uri": redirect_uri, "code_verifier": verifier}
    sent = {name: value for name, value in form.items() if value is not None}
    core = Core(world.gateway.scopes)
    return lambda code: core.is_answer(Asked(sent, entry, entry.client.authentication, "", world.clock(), code=code))


async def redeem(world: World, entry: Entry, code: str, redirect_uri: str | None, verifier: str | None) -> Issued:
    """A client brings a code."""
    return await redeem_code(world.gateway, entry, code, answering(world, entry, redirect_uri, verifier))


@dataclass
class Request:
    """One request for authorization."""

    client: str
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(8))

    def parameters(self, **changes: str | None) -> dict[str, str]:
        """What is sent; None leaves a parameter out."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        found: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client,
            "redirect_uri": CALLBACK,
            "scope": SCOPE,
            "state": self.state,
            "aud": BASE,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **changes,
        }
        return {name: value for name, value in found.items() if value is not None}

    def path(self, **changes: str | None) -> str:
        """The address that the client sends a person to."""
        return f"/oauth/authorize?{urlencode(self.parameters(**changes))}"


def told(person: Person) -> dict[str, str]:
    """What the client was told, by the address that its person was sent to in the end."""
    location = person.last.headers["location"]
    assert person.last.status_code == 303
    return {name: value for name, [value] in parse_qs(urlsplit(location).query, keep_blank_values=True).items()}


async def account_of(world: World, *references: str) -> str:
    """The login of a new account that is these."""
    login = unique("login")
    await add_account(world.gateway, login, PASSWORD, "Camille Durand", references)
    return login


async def arrive(
    world: World, login: str, request: Request, language: str = "en", **changes: str | None
) -> tuple[Person, Page]:
    """A person who was sent by a client and has logged in: before the page to decide on."""
    person = Person(world.http, SITE, language)
    page = await person.log_in(login, PASSWORD, request.path(**changes))
    return person, page


async def allow(person: Person, page: Page, *allowed: str, duration: str = "year", **fields: str | list[str]) -> dict[str, str]:
    """Tick these (`read-Observation`), send, and return what the client is told."""
    form = page.form("/oauth/authorize/continue")
    await person.send(form, decision="allow", allow=list(allowed), duration=duration, **fields)
    return told(person)


async def paired(world: World, owner: Actor, app: Registered, *allowed: str, **fields: str) -> tuple[Request, str]:
    """A patient who has allowed an app these; returns the request and the code."""
    request = Request(app.id)
    person, page = await arrive(world, await account_of(world, owner.reference), request)
    answer = await allow(person, page, *(allowed or ("read-Observation", "write-Observation")), **fields)
    return request, answer["code"]
