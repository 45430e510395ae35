"""Clients that we did not write complete a launch at a running gateway: Authlib's AsyncOAuth2Client and SMART's fhirclient."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from authlib.common.security import generate_token
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from fhirclient import client as smart
from fhirclient.models.observation import Observation

from tests.clients import Registered
from tests.decisions import PASSWORD, account_of, register_app
from tests.person import Page, Person
from tests.process import process_world
from tests.world import Actor, World, observation

CALLBACK = "http://127.0.0.1/callback"


@pytest.fixture(scope="module")
async def served(mongo_url: str) -> AsyncIterator[World]:
    """People around a gateway process."""
    async with process_world(mongo_url) as world:
        yield world


async def decided(world: World, owner: Actor, url: str, *allowed: str) -> str:
    """What the browser of a patient comes back to the client with, after they allowed these."""
    parts = urlsplit(url)
    person = Person(world.http, world.gateway.settings.site)
    page: Page = await person.log_in(await account_of(world, owner.reference), PASSWORD, f"{parts.path}?{parts.query}")
    form = page.form("/oauth/authorize/continue")
    await person.send(form, decision="allow", allow=list(allowed), duration="year", past="yes")
    return str(person.last.headers["location"])


@pytest.mark.requirement("SEC-001", "SEC-016")
@pytest.mark.parametrize("method", ["none", "client_secret_basic"])
async def test_authlib_gets_tokens_refreshes_looks_and_gives_back(served: World, method: str) -> None:
    owner = await served.patient()
    reading = await owner.create(observation(owner.patient))
    app = await register_app(served, redirect_uris=[CALLBACK], authentication=method)
    site, base = served.gateway.settings.site, served.gateway.settings.base_url
    async with AsyncOAuth2Client(
        app.id,
        app.secret,
        scope="launch/patient openid fhirUser offline_access patient/Observation.rs",
        redirect_uri=CALLBACK,
        token_endpoint_auth_method=method,
        code_challenge_method="S256",
    ) as client:
        assert httpx.AsyncClient in type(client).__mro__
        found = (await client.request("GET", f"{base}/.well-known/smart-configuration", withhold_token=True)).json()
        verifier = generate_token(48)
        url, state = client.create_authorization_url(found["authorization_endpoint"], code_verifier=verifier, aud=base)
        back = await decided(served, owner, url, "read-Observation")
        token = await client.fetch_token(
            found["token_endpoint"], authorization_response=back, code_verifier=verifier, state=state
        )
        assert token["patient"] == owner.patient
        read = await client.get(f"{base}/Observation/{reading['id']}")
        assert read.json()["id"] == reading["id"]
        renewed = await client.refresh_token(found["token_endpoint"], refresh_token=token["refresh_token"])
        assert renewed["access_token"] != token["access_token"]
        assert (await client.get(f"{base}/Observation", params={"patient": owner.patient})).status_code == 200
        if app.secret:
            seen = await client.introspect_token(found["introspection_endpoint"], token=renewed["access_token"])
            assert seen.json()["scope"] == token["scope"]
        latest = renewed.get("refresh_token", token["refresh_token"])
        await client.revoke_token(found["revocation_endpoint"], token=latest, token_type_hint="refresh_token")
        with pytest.raises(OAuthError, match="invalid_grant"):
            await client.refresh_token(found["token_endpoint"], refresh_token=latest)
        assert site == found["issuer"]


def settings_of(app: Registered, world: World) -> dict[str, Any]:
    return {
        "app_id": app.id,
        "api_base": world.gateway.settings.base_url,
        "redirect_uri": CALLBACK,
        "scope": "launch/patient openid fhirUser patient/Observation.rs patient/Patient.r",
    }


async def test_fhirclient_launches_alone_and_reads(served: World) -> None:
    owner = await served.patient()
    reading = await owner.create(observation(owner.patient))
    app = await register_app(served, redirect_uris=[CALLBACK])
    client = await asyncio.to_thread(smart.FHIRClient, settings_of(app, served))
    await asyncio.to_thread(client.prepare)
    assert not client.ready
    back = await decided(served, owner, client.authorize_url, "read-Observation", "read-Patient")
    await asyncio.to_thread(client.handle_callback, back)
    assert client.ready
    assert client.patient_id == owner.patient
    named = await asyncio.to_thread(lambda: client.patient)
    assert named.id == owner.patient
    search = Observation.where({"patient": owner.patient})
    found = await asyncio.to_thread(lambda: list(search.perform_resources_iter(client.server)))
    assert [one.id for one in found] == [reading["id"]]
