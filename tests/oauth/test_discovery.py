"""Discovery: every document is a view of one object, and lists what is there."""

import pytest

from gateway.oauth.routes import offered_routes
from gateway.web.routes import ROUTES as PAGES
from tests.clients import SITE, ask, asked_with, assertion, error_of, get_json, register
from tests.decisions import register_app
from tests.world import BASE, World

APP = {
    "kind": "app",
    "category": "measurement",
    "grants": ["authorization_code", "refresh_token"],
    "redirect_uris": ["https://app.example/cb"],
}
SMART = "/fhir/.well-known/smart-configuration"
OAUTH = "/.well-known/oauth-authorization-server"


@pytest.mark.requirement("SEC-001")
async def test_the_documents_agree(world: World) -> None:
    smart, oauth = await get_json(world, SMART), await get_json(world, OAUTH)
    assert oauth["issuer"] == SITE
    assert {name: oauth[name] for name in smart.keys() & oauth.keys()} == {
        name: smart[name] for name in smart.keys() & oauth.keys()
    }
    # https://hl7.org/fhir/smart-app-launch/conformance.html: required, and of these types
    assert isinstance(smart["capabilities"], list)
    assert isinstance(smart["grant_types_supported"], list)


@pytest.mark.requirement("SEC-001")
async def test_every_address_listed_is_there(world: World) -> None:
    oauth = await get_json(world, OAUTH)
    addresses = {value for name, value in oauth.items() if name.endswith(("_endpoint", "_uri"))}
    assert addresses <= {SITE + path for _, path, _ in (*offered_routes(people=True), *PAGES)}
    assert f"{SITE}/oauth/par" in addresses
    assert 404 not in [(await world.http.get(address)).status_code for address in addresses]


@pytest.mark.requirement("SEC-001")
async def test_a_grant_or_method_is_taken_if_and_only_if_it_is_listed(world: World) -> None:
    oauth, system = await get_json(world, OAUTH), await register(world)
    grants = [
        *oauth["grant_types_supported"], "password", "implicit", "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:token-exchange", "urn:ietf:params:oauth:grant-type:jwt-bearer",
    ]  # fmt: skip
    for grant in grants:
        signed = asked_with(assertion(system.id, world.clock()), grant_type=grant, scope="x", code="x", refresh_token="x")
        error = error_of(await ask(world, signed))[1]
        assert (error == "unsupported_grant_type") == (grant not in oauth["grant_types_supported"]), grant
    methods = set(oauth["token_endpoint_auth_methods_supported"])
    for method in ("private_key_jwt", "client_secret_basic", "none"):
        keys = {} if method == "private_key_jwt" else {"keys": []}
        app = await register(world, **APP, authentication=method, **keys)
        form = {"grant_type": "authorization_code", "code": "x", "redirect_uri": "https://app.example/cb"}
        if method == "private_key_jwt":
            form |= asked_with(assertion(app.id, world.clock()))
        if method == "none":
            form |= {"client_id": app.id}
        basic = (app.id, app.secret or "") if method == "client_secret_basic" else None
        answer = await world.http.post(f"{SITE}/oauth/token", data=form, auth=basic)
        assert (error_of(answer) == (400, "invalid_grant")) == (method in methods), method  # known, and the code is not


@pytest.mark.requirement("SEC-001")
async def test_each_endpoint_lists_the_ways_to_authenticate_that_it_takes(world: World) -> None:
    app = await register_app(world)
    for path in (SMART, OAUTH, "/.well-known/openid-configuration"):
        found = await get_json(world, path)
        lists = {name: value for name, value in found.items() if isinstance(value, list)}
        assert {name for name, value in lists.items() if len(value) != len(set(value))} == set()
        for endpoint in ("token", "introspection", "revocation"):
            sent = {"client_id": app.id, "token": "x", "grant_type": "authorization_code", "code": "x"}
            answer = await world.http.post(found[f"{endpoint}_endpoint"], data=sent)
            is_taken = answer.status_code == 200 or answer.json()["error"] != "invalid_client"
            assert ("none" in found[f"{endpoint}_endpoint_auth_methods_supported"]) is is_taken, (endpoint, answer.text)


@pytest.mark.requirement("SEC-002", "EXT-01")
async def test_plain_challenges_are_not_offered(world: World) -> None:
    assert (await get_json(world, SMART))["code_challenge_methods_supported"] == ["S256"]


async def test_it_is_json_whatever_is_accepted_and_may_be_kept(world: World) -> None:
    for path in (SMART, OAUTH, "/oauth/jwks"):
        await get_json(world, path, Accept="application/fhir+json")
    for path in (OAUTH, "/oauth/jwks"):
        kept = (await world.http.get(SITE + path)).headers.get_list("cache-control")
        assert kept == ["public, max-age=600"]


async def test_scopes_listed_are_understood_and_capabilities_are_of_smart(world: World) -> None:
    smart = await get_json(world, SMART)
    for scope in smart["scopes_supported"]:
        world.gateway.scopes(scope)
    assert all(isinstance(capability, str) for capability in smart["capabilities"])


async def test_the_capability_statement_names_the_same_addresses(world: World) -> None:
    oauth = await get_json(world, OAUTH)
    (rest,) = (await world.http.get(f"{BASE}/metadata")).json()["rest"]
    security = rest["security"]
    assert security["service"][0]["coding"][0]["code"] == "SMART-on-FHIR"
    assert security["cors"] is True
    listed = {one["url"]: one["valueUri"] for extension in security.get("extension", ()) for one in extension["extension"]}
    names = {
        "authorize": "authorization_endpoint",
        "token": "token_endpoint",
        "introspect": "introspection_endpoint",
        "revoke": "revocation_endpoint",
    }
    assert listed == {word: oauth[name] for word, name in names.items() if name in oauth}


@pytest.mark.parametrize("path", [OAUTH, "/oauth/jwks"])
async def test_another_method_is_refused_as_oauth_errors_are_told(world: World, path: str) -> None:
    answer = await world.http.post(SITE + path, content=b"x=y")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert answer.json()["error"] == "invalid_request"
