"""Introspection and revocation: a token is worth what its client and the patient's consents are worth at that moment."""

from datetime import timedelta
from typing import Any

import pytest

from gateway.exchange.catalogue import set_state
from tests.clients import SITE, Registered, ask, ask_token, asked_with, assertion, error_of, register
from tests.world import World

SECRET = {
    "kind": "app",
    "category": "measurement",
    "grants": ["authorization_code"],
    "redirect_uris": ["https://x.example/"],
    "authentication": "client_secret_basic",
    "keys": [],
}
INACTIVE = {"active": False}


@pytest.fixture(scope="module")
async def system(session_world: World) -> Registered:
    return await register(session_world)


async def introspect(world: World, asker: Registered, token: str, path: str = "/oauth/introspect", **more: str) -> Any:
    signed = asked_with(assertion(asker.id, world.clock()), token=token, **more)
    return await ask(world, signed, path)


async def told(world: World, asker: Registered, token: str, **more: str) -> Any:
    answer = await introspect(world, asker, token, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def revoke(world: World, asker: Registered, token: str, **more: str) -> None:
    answer = await introspect(world, asker, token, "/oauth/revoke", **more)
    assert answer.status_code == 200, answer.text


async def issued(world: World, system: Registered, scope: str = "system/Observation.rs") -> str:
    return str((await ask_token(world, system.id, scope)).json()["access_token"])


@pytest.mark.requirement("SEC-024")
@pytest.mark.parametrize(
    "scope", ["system/Observation.rs", "system/Observation.read", "system/Observation.r system/Observation.s"]
)
async def test_smart_token_introspection_response_group(world: World, system: Registered, scope: str) -> None:
    body = await told(world, system, await issued(world, system, scope), token_type_hint="access_token")
    assert body.keys() == {"active", "token_type", "client_id", "scope", "exp", "iat", "iss"}
    assert (body["active"], body["client_id"], body["iss"]) == (True, system.id, SITE)
    assert body["scope"] == scope  # word by word as granted
    assert body["exp"] - body["iat"] == 300
    assert isinstance(body["exp"], int)


@pytest.mark.requirement("SEC-024")
async def test_smart_token_introspection_request_group(world: World, system: Registered) -> None:
    token = await issued(world, system)
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic eDp5"}, 401),
    ):
        assert error_of(await ask(world, {"token": token}, "/oauth/introspect", **headers))[0] == status
    by_bearer = await ask(world, {"token": token}, "/oauth/introspect", Authorization=f"Bearer {await issued(world, system)}")
    assert by_bearer.json()["active"] is True
    assert error_of(await introspect(world, system, "")) == (400, "invalid_request")


@pytest.mark.requirement("SEC-024")
async def test_of_what_does_not_hold_only_that_is_told(world: World, system: Registered) -> None:
    other = await register(world)
    token = await issued(world, system)
    for unknown in ("unknown", token[:-1], token + "x", "x" * 5_000, "é"):
        assert await told(world, system, unknown) == INACTIVE
    assert await told(world, other, token) == INACTIVE  # it is another's
    world.clock.ahead = timedelta(seconds=301)
    assert await told(world, system, token) == INACTIVE


@pytest.mark.requirement("SEC-024")
async def test_a_resource_server_may_ask_about_the_tokens_of_others(world: World, system: Registered) -> None:
    server = await register(world, grants=[], introspects=True, read=[])
    assert (await told(world, server, await issued(world, system)))["client_id"] == system.id
    await set_state(world.gateway, server.id, "suspended")
    assert error_of(await introspect(world, server, await issued(world, system))) == (400, "invalid_client")


async def test_a_client_may_ask_by_its_secret_and_not_by_its_name(world: World) -> None:
    app = await register(world, **SECRET)
    actor = await world.actor("service", "user/*.rs", app.id, app.reference)
    assert app.secret is not None
    answer = await world.http.post(f"{SITE}/oauth/introspect", data={"token": actor.token}, auth=(app.id, app.secret))
    assert answer.json()["active"] is True
    public = await register(world, **{**SECRET, "authentication": "none"})
    assert error_of(await ask(world, {"token": actor.token, "client_id": public.id}, "/oauth/introspect")) == (
        401,
        "invalid_client",
    )


@pytest.mark.requirement("SEC-024")
async def test_a_token_of_an_app_is_worth_what_its_patient_consents_to(world: World) -> None:
    app = await register(world, **SECRET)
    camille = await world.patient()
    actor = await world.actor("app", "patient/Observation.rs", app.id, app.reference, patient=camille.patient)
    server = await register(world, grants=[], introspects=True, read=[])
    assert await told(world, server, actor.token) == INACTIVE
    given = await world.consent(camille, actor)
    body = await told(world, server, actor.token)
    assert (body["active"], body["patient"]) == (True, camille.patient)
    await world.revoke(camille, given)
    assert await told(world, server, actor.token) == INACTIVE
    await world.consent(camille, actor, types=["Device"])  # not what its scopes are for
    assert await told(world, server, actor.token) == INACTIVE
    await world.consent(camille, actor, "collect", types=["Observation"])  # nor the direction
    assert await told(world, server, actor.token) == INACTIVE
    assert (await told(world, server, camille.token))["active"] is True  # whose record it is


@pytest.mark.requirement("SEC-025")
async def test_a_token_that_is_given_back_is_of_no_use(world: World, system: Registered) -> None:
    token = await issued(world, system)
    bearer = await world.service()
    bearer.token = token
    assert (await bearer.get("Observation?_id=x&patient=x")).status_code == 200
    for hint in (
        {},
        {"token_type_hint": "access_token"},
        {"token_type_hint": "nonsense"},
        {"token_type_hint": "refresh_token"},
    ):
        await revoke(world, system, token, **hint)  # as often as it likes, and whatever it takes the token for
    assert (await bearer.get("Observation?_id=x&patient=x")).status_code == 401
    assert await told(world, system, token) == INACTIVE


@pytest.mark.requirement("SEC-025")
async def test_nobody_revokes_the_token_of_another(world: World, system: Registered) -> None:
    token, other = await issued(world, system), await register(world)
    await revoke(world, other, token)
    assert (await told(world, system, token))["active"] is True
    await revoke(world, other, "unknown")
    assert error_of(await ask(world, {"token": token}, "/oauth/revoke")) == (401, "invalid_client")
    assert error_of(await introspect(world, system, "", "/oauth/revoke")) == (400, "invalid_request")


@pytest.mark.requirement("SEC-019")
@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/revoke"])
async def test_an_assertion_is_good_once_wherever_it_is_shown(world: World, system: Registered, path: str) -> None:
    signed = assertion(system.id, world.clock(), aud=SITE + path)
    assert (await ask(world, asked_with(signed, token="x"), path)).status_code == 200
    for again in ("/oauth/token", "/oauth/introspect", "/oauth/revoke"):
        form = asked_with(signed, token="x", grant_type="client_credentials", scope="system/Observation.rs")
        assert error_of(await ask(world, form, again)) == (400, "invalid_client")


async def test_a_public_client_gives_back_its_own(world: World) -> None:
    public = await register(world, **{**SECRET, "authentication": "none"})
    actor = await world.actor("service", "user/*.rs", public.id, public.reference)
    assert (await ask(world, {"token": actor.token, "client_id": public.id}, "/oauth/revoke")).status_code == 200
    assert (await actor.get("Organization")).status_code == 401
