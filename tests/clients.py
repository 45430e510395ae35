"""Clients of the service catalogue, as operators register them and as they ask for tokens.

Knows: how to bring one and what it sends. Must not know: how the gateway answers (that is for the tests to say).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from gateway.exchange.catalogue import add_client, set_state
from gateway.exchange.client import Client
from tests.world import World, organization, unique

SITE = "http://gateway.test"
EC = ECKey.generate_key("P-384", {"kid": "e1"})
RSA = RSAKey.generate_key(2_048, {"kid": "r1"})
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
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


def assertion(client: str, now: datetime, key: Any = EC, algorithm: str = "", header: Any = None, **claims: Any) -> str:
    """What a client signs to show that it is one. `claims` and `header` in place of what belongs there; None leaves out."""
    algorithm = algorithm or {"EC": "ES384", "RSA": "RS384"}[key.key_type]
    said = {
        "iss": client,
        "sub": client,
        "aud": f"{SITE}/oauth/token",
        "exp": int(now.timestamp()) + 300,
        "jti": unique("jti"),
        **claims,
    }
    named = {"alg": algorithm, "typ": "JWT", "kid": key.kid, **(header or {})}
    sent = ({n: v for n, v in part.items() if v is not None} for part in (named, said))
    return jwt.encode(*sent, key, algorithms=[algorithm])


def asked_with(signed: str, **form: str | None) -> dict[str, str]:
    """The form of a client that shows this assertion."""
    found = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed, **form}
    return {name: value for name, value in found.items() if value is not None}


async def ask(world: World, form: Mapping[str, str], path: str = "/oauth/token", **headers: str) -> httpx.Response:
    """A request of a client; what is answered must not be kept."""
    answer = await world.http.post(SITE + path, data=dict(form), headers=headers)
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    return answer


async def ask_token(world: World, client: str, scope: str = "system/Observation.rs", **form: str | None) -> httpx.Response:
    """A system asks for a token as it should."""
    signed = assertion(client, world.clock())
    return await ask(world, asked_with(signed, grant_type="client_credentials", scope=scope, **form))


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal (RFC 6749 §5.2)."""
    body = answer.json()
    assert body.keys() == {"error", "error_description"}, body
    return answer.status_code, body["error"]
