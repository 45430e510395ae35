"""Clients of the service catalogue, as operators register them and as they ask for tokens.

Knows: how to bring one and what it sends. Must not know: how the gateway answers (that is for the tests to say).
"""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
from joserfc.jwk import ECKey, RSAKey

from gateway.exchange.catalogue import add_client, set_state
from gateway.exchange.client import Client
from tests.world import World, organization, unique

SITE = "http://gateway.test"
EC = ECKey.generate_key("P-384", {"kid": "e1"})
RSA = RSAKey.generate_key(2_048, {"kid": "r1"})
PUBLIC = [EC.as_dict(private=False), RSA.as_dict(private=False)]


def described(**changes: Any) -> dict[str, Any]:
    """What the file of a client says, a system of its own without anybody who logs in."""
    return {
        "client": unique("system"),
        "name": "Prevention service",
        "kind": "service",
        "category": "prevention",
        "purpose": {"en": "To remind you of vaccinations.", "fr": "Vous rappeler vos vaccins."},
        "controller": "Prevention SAS",
        "contact": "privacy@prevention.example",
        "authentication": "private_key_jwt",
        "grants": ["client_credentials"],
        "actor": "Organization/000-nobody",
        "read": ["Observation"],
        "keys": PUBLIC,
        **changes,
    }


def write_file(folder: Path, **changes: Any) -> Path:
    """The same as a file."""
    file = folder / "client.toml"
    file.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in described(**changes).items()), "utf-8")
    return file


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@dataclass(frozen=True)
class Registered:
    """A client of the catalogue."""

    client: Client
    secret: str | None
    reference: str

    @property
    def id(self) -> str:
        """Its client id."""
        return self.client.client


async def register(world: World, state: str = "referenced", **changes: Any) -> Registered:
    """A client in this state, with an Organization of its own for its actor."""
    if "actor" not in changes:
        created = await world.operator.create(organization())
        changes["actor"] = f"Organization/{created['id']}"
    client = msgspec.convert(described(**changes), Client)
    secret = await add_client(world.gateway, client)
    for after in {"draft": (), "tested": ("tested",)}.get(state, ("tested", state)):
        await set_state(world.gateway, client.client, after)
    return Registered(client, secret, str(client.actor))


async def get_json(world: World, path: str, **headers: str) -> Any:
    """The JSON at a path below the site, which must be there."""
    answer = await world.http.get(SITE + path, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    return answer.json()


async def preflight(world: World, path: str, origin: str, method: str = "POST") -> httpx.Response:
    """What a browser asks before a page of this origin may call."""
    headers = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
    return await world.http.options(SITE + path, headers=headers)


HOUR = timedelta(hours=1)
