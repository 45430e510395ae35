"""A client that we did not write (Authlib's) asks for tokens, looks at them and gives them back, at running gateways."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

from gateway.app import attached
from gateway.settings import read_settings
from tests.clients import EC, RSA, Registered, asked_with, assertion, register
from tests.process import ToPort, environment, free_port, serving
from tests.world import Clock, World, observation


@dataclass
class Two:
    """Two gateway processes on one database; `sites`: where each is."""

    world: World
    sites: tuple[str, str]
    system: Registered


@pytest.fixture(scope="module")
async def two(mongo_url: str) -> AsyncIterator[Two]:
    ports = free_port(), free_port()
    env = environment(mongo_url, GATEWAY_BASE_URL=f"http://127.0.0.1:{ports[0]}/fhir", GATEWAY_LOG_LEVEL="debug")
    with serving(env, ports[0]), serving(env, ports[1]):
        async with attached(read_settings(env)) as gateway, httpx.AsyncClient(transport=ToPort(ports[0]), timeout=60) as http:
            world = await World(gateway, http, Clock()).start()
            sites = tuple(f"http://127.0.0.1:{port}" for port in ports)
            yield Two(world, sites, await register(world, write=["Observation"]))  # type: ignore[arg-type]


class FiveMinutes(PrivateKeyJWT):  # type: ignore[misc]
    """What the library signs, for as long as SMART allows: left alone, it signs for an hour."""

    def sign(self, auth: Any, token_endpoint: str) -> Any:
        self.claims = {"exp": int(time.time()) + 300}  # anew each time: it writes the name of an assertion in here
        return super().sign(auth, token_endpoint)


def client_of(two: Two, key: Any, algorithm: str) -> AsyncOAuth2Client:
    client = AsyncOAuth2Client(two.system.id, key, token_endpoint_auth_method="private_key_jwt", scope="system/*.crs")
    client.revocation_endpoint_auth_method = "private_key_jwt"
    assert httpx.AsyncClient in type(client).__mro__
    client.register_client_auth_method(FiveMinutes(f"{two.sites[0]}/oauth/token", None, {"kid": key.kid}, algorithm))
    return client


@pytest.mark.requirement("SEC-001")
@pytest.mark.parametrize(("key", "algorithm"), [(EC, "ES384"), (RSA, "RS384")])
async def test_it_gets_a_token_uses_it_looks_at_it_and_gives_it_back(two: Two, key: Any, algorithm: str) -> None:
    camille = await two.world.patient()
    site = two.sites[0]
    async with client_of(two, key, algorithm) as client:
        found = (await client.request("GET", f"{site}/fhir/.well-known/smart-configuration", withhold_token=True)).json()
        token = await client.fetch_token(found["token_endpoint"], grant_type="client_credentials")
        assert (token["expires_in"], token["scope"]) == (300, "system/Observation.crs")
        service = await two.world.service()
        service.reference = two.system.reference
        await two.world.consent(camille, service, "access")
        reading = await camille.create(observation(camille.patient))
        for at in two.sites:
            answer = await client.get(f"{at}/fhir/Observation", params={"patient": camille.patient})
            assert [one["resource"]["id"] for one in answer.json()["entry"]] == [reading["id"]]
        seen = await client.introspect_token(found["introspection_endpoint"], token=token["access_token"])
        assert (seen.json()["active"], seen.json()["scope"]) == (True, token["scope"])
        gone = await client.revoke_token(found["revocation_endpoint"], token=token["access_token"])
        assert gone.status_code == 200
        seen = await client.introspect_token(found["introspection_endpoint"], token=token["access_token"])
        assert seen.json() == {"active": False}
        for at in two.sites:
            assert (await client.get(f"{at}/fhir/Observation")).status_code == 401


@pytest.mark.requirement("SEC-001")
async def test_the_metadata_is_what_the_library_takes_for_sound(two: Two) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        told = (await http.get(f"{two.sites[0]}/.well-known/oauth-authorization-server")).json()
    for name in AuthorizationServerMetadata.REGISTRY_KEYS:
        if name in told and name != "response_types_supported":
            getattr(AuthorizationServerMetadata(told), f"validate_{name}")()


@pytest.mark.requirement("SEC-019")
async def test_an_assertion_shown_to_two_processes_at_once_is_good_once(two: Two) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        for _ in range(5):
            signed = assertion(two.system.id, two.world.clock(), aud=f"{two.sites[0]}/oauth/token")
            form = asked_with(signed, grant_type="client_credentials", scope="system/Observation.rs")
            sent = (http.post(f"{two.sites[n % 2]}/oauth/token", data=form) for n in range(20))
            answers = await asyncio.gather(*sent)
            assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
