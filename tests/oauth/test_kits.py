"""What the public test kits assert of a server (Inferno's smart_stu2_2, (g)(10), bulk data and IPA), each under its own id.

A kit brings a browser, an app and a person; so do these tests, once, and each id then asserts what the kit asserts of what came
of it. `NOT_HERE` says of every other id why it is none of ours; `UNTESTED`, which tests hold what no kit tests.
"""

import ast
import base64
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from gateway.oauth import cors
from tests.clients import EC, SITE, Registered, ask, ask_token, asked_with, assertion, register
from tests.decisions import CALLBACK, Request, account_of, allow, arrive, medisoft, register_app, told
from tests.world import BASE, Actor, World, concept, observation

ORIGIN = "https://app.example"
SCOPE = "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs patient/Device.rs"
ALL = ("read-Patient", "read-Observation", "read-Device")
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
SMART = f"{BASE}/.well-known/smart-configuration"


@dataclass
class Launch:
    """An app that was launched, what its browser came back with, and what it was given."""

    app: Registered
    owner: Actor
    request: Request
    came_back: dict[str, str]
    answer: httpx.Response

    @property
    def body(self) -> dict[str, Any]:
        return dict(self.answer.json())

    def bearer(self, world: World) -> Actor:
        return Actor(world.http, self.body["access_token"], "")


@dataclass
class Runs:
    """One launch of each kind, and a system."""

    world: World
    public: Launch
    secret: Launch
    signing: Launch
    ehr: Launch
    launched: dict[str, Any]
    system: Registered


async def redeem(world: World, app: Registered, request: Request, **fields: str | None) -> httpx.Response:
    sent = {"grant_type": "authorization_code", "redirect_uri": CALLBACK, "code_verifier": request.verifier}
    return await token(world, app, **sent | fields)


async def token(world: World, app: Registered, **fields: str | None) -> httpx.Response:
    """The token endpoint, asked by a client as it is registered."""
    sent = {name: value for name, value in fields.items() if value is not None}
    headers = {"Origin": ORIGIN}
    if app.secret is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{app.id}:{app.secret}".encode()).decode()
    elif app.client.authentication == "private_key_jwt":
        sent = asked_with(assertion(app.id, world.clock()), **sent)
    else:
        sent = {"client_id": app.id, **sent}
    return await world.http.post(f"{SITE}/oauth/token", data=sent, headers=headers)


async def launch(world: World, app: Registered, *ticks: str, scope: str = SCOPE, part: Sequence[str] = ()) -> Launch:
    owner, request = await world.patient(), Request(app.id)
    person, page = await arrive(world, await account_of(world, owner.reference), request, scope=scope)
    came_back = await allow(person, page, *ticks, past="yes", part=list(part))
    return Launch(app, owner, request, came_back, await redeem(world, app, request, code=came_back["code"]))


async def app_of(world: World, **changes: Any) -> Registered:
    return await register_app(world, origins=[ORIGIN], **changes)


async def from_record(world: World) -> tuple[Launch, dict[str, Any]]:
    """A launch from a professional's software, about the patient in view."""
    doctor = await world.professional()
    owner = await world.patient(generalPractitioner=[{"reference": doctor.reference}])
    app = await medisoft(world, [CALLBACK], read=["Observation", "Patient", "Practitioner"])
    handed = (await doctor.send("POST", f"{SITE}/oauth/launch", {"patient": owner.patient, "client": app.id})).json()
    request = Request(app.id)
    changes = {"scope": "launch openid fhirUser patient/Patient.rs user/Practitioner.rs", "launch": handed["launch"]}
    person, page = await arrive(world, await account_of(world, doctor.reference), request, **changes)
    await person.send(page.form("/oauth/authorize/continue"), decision="allow")
    came_back = told(person)
    return Launch(app, owner, request, came_back, await redeem(world, app, request, code=came_back["code"])), handed


@pytest.fixture(scope="module")
def looked_up_each_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cors, "_FRESH", 0.0)
        yield


@pytest.fixture(scope="module")
async def runs(session_world: World, looked_up_each_time: None) -> Runs:
    world = session_world
    secret = await app_of(world, authentication="client_secret_basic")
    signing = await app_of(world, authentication="private_key_jwt", keys=[EC.as_dict(private=False)])
    ehr, handed = await from_record(world)
    return Runs(
        world,
        public=await launch(world, await app_of(world), *ALL),
        secret=await launch(world, secret, *ALL),
        signing=await launch(world, signing, *ALL),
        ehr=ehr,
        launched=handed,
        system=await register(world),
    )


Check = Callable[[Runs], Awaitable[None]]
CHECKS: dict[str, Check] = {}


def kit(*ids: str) -> Callable[[Check], Check]:
    """This is what the tests of these ids assert."""

    def keep(check: Check) -> Check:
        CHECKS.update(dict.fromkeys(ids, check))
        return check

    return keep


# Discovery.


@kit("well_known_endpoint")
async def discovered(runs: Runs) -> None:
    for accept in ("application/json", "application/fhir+json", "*/*"):
        answer = await runs.world.http.get(SMART, headers={"Accept": accept})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/json")


@kit("well_known_capabilities_stu2", "g10_smart_well_known_capabilities", "bulk_data_smart_discovery_v101_contents")
async def described(runs: Runs) -> None:
    found = (await runs.world.http.get(SMART)).json()
    for name in ("authorization_endpoint", "token_endpoint", "issuer", "jwks_uri"):
        assert found[name].startswith(f"{SITE}/") or name == "issuer"
    assert "authorization_code" in found["grant_types_supported"]
    assert "S256" in found["code_challenge_methods_supported"]
    assert "plain" not in found["code_challenge_methods_supported"]
    assert all(isinstance(one, str) and one for one in found["capabilities"])
    assert "private_key_jwt" in found["token_endpoint_auth_methods_supported"]
    assert {"RS384", "ES384"} & set(found["token_endpoint_auth_signing_alg_values_supported"])
    assert set(found["capabilities"]) >= set(
        "launch-standalone launch-ehr client-public client-confidential-symmetric client-confidential-asymmetric"
        " sso-openid-connect context-standalone-patient context-ehr-patient context-banner permission-offline"
        " permission-patient permission-user authorize-post permission-v1 permission-v2".split()
    )


@kit("ipa_smart_capabilities")
async def described_for_patients(runs: Runs) -> None:
    found = (await runs.world.http.get(SMART)).json()["capabilities"]
    wanted = (
        "launch-standalone context-standalone-patient permission-patient permission-offline sso-openid-connect client-public"
    )
    assert set(found) >= {*wanted.split(), "client-confidential-asymmetric"}


@kit("smart_cors_well_known_endpoint")
async def pages_discover(runs: Runs) -> None:
    answer = await runs.world.http.get(SMART, headers={"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] in ("*", ORIGIN)


@kit("smart_cors_metadata_request")
async def pages_read_what_is_served(runs: Runs) -> None:
    answer = await runs.world.http.get(f"{BASE}/metadata", headers={"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] in ("*", ORIGIN)


@kit("smart_cors_token_exchange")
async def pages_exchange(runs: Runs) -> None:
    assert runs.public.answer.headers["access-control-allow-origin"] == ORIGIN


@kit("smart_cors_openid_fhir_user_claim")
async def pages_read_who_logged_in(runs: Runs) -> None:
    who = (await claims_of(runs))["fhirUser"]
    answer = await runs.public.bearer(runs.world).get(who, Origin=ORIGIN)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)


# From the app's link to tokens.


@kit("smart_app_redirect_stu2", "smart_app_redirect_stu2_2")
async def redirected(runs: Runs) -> None:
    request = Request(runs.public.app.id)
    got = await runs.world.http.get(SITE + request.path())
    posted = await runs.world.http.post(f"{SITE}/oauth/authorize", data=request.parameters())
    for answer in (got, posted):
        assert answer.status_code in (302, 303)


@kit("smart_code_received")
async def a_code_came(runs: Runs) -> None:
    for run in (runs.public, runs.secret, runs.signing, runs.ehr):
        assert run.came_back["code"]
        assert "error" not in run.came_back
        assert run.came_back["state"] == run.request.state


@kit("smart_launch_received", "smart_app_launch")
async def launched(runs: Runs) -> None:
    assert (runs.launched["iss"], bool(runs.launched["launch"])) == (BASE, True)


@kit("smart_token_exchange_stu2_2", "smart_token_exchange_stu2")
async def exchanged(runs: Runs) -> None:
    for run in (runs.public, runs.secret, runs.signing, runs.ehr):
        assert run.answer.status_code == 200
        assert run.answer.headers["content-type"].startswith("application/json")


@kit("smart_token_response_body_stu2_2", "smart_token_response_body")
async def answered(runs: Runs) -> None:
    for run in (runs.public, runs.secret, runs.signing, runs.ehr):
        assert run.body["token_type"].lower() == "bearer"
        assert isinstance(run.body["expires_in"], int)
        assert all(isinstance(run.body[name], str) and run.body[name] for name in ("access_token", "scope"))
        for one in run.body.get("fhirContext", ()):
            assert isinstance(one, dict)
            assert not one.get("reference", "").startswith(("Patient/", "Encounter/"))


@kit("smart_token_response_headers")
async def kept_by_nobody(runs: Runs) -> None:
    for run in (runs.public, runs.secret, runs.signing, runs.ehr):
        assert "no-store" in run.answer.headers["cache-control"]
        assert "no-cache" in run.answer.headers["pragma"]


@kit("g10_patient_context")
async def in_context(runs: Runs) -> None:
    for run in (runs.public, runs.secret, runs.signing, runs.ehr):
        assert run.body["patient"] == run.owner.patient
        assert (await run.bearer(runs.world).get(f"Patient/{run.body['patient']}")).status_code == 200


@kit("g10_smart_need_patient_banner")
async def banner(runs: Runs) -> None:
    assert (runs.public.body["need_patient_banner"], runs.ehr.body["need_patient_banner"]) == (True, False)


@kit("g10_smart_scopes")
async def granted(runs: Runs) -> None:
    for run in (runs.public, runs.secret, runs.signing):
        assert run.body["scope"].split() == SCOPE.split()


@kit("g10_smart_v1_scopes")
async def granted_as_asked(runs: Runs) -> None:
    scope = "launch/patient patient/Patient.read patient/Observation.read"
    run = await launch(runs.world, runs.public.app, "read-Patient", "read-Observation", scope=scope)
    assert run.body["scope"] == scope
    assert (await run.bearer(runs.world).get(f"Observation?patient={run.owner.patient}")).status_code == 200


@kit("g10_unauthorized_access")
async def nobody(runs: Runs) -> None:
    answer = await runs.world.http.get(f"{BASE}/Patient/{runs.public.owner.patient}")
    assert answer.status_code == 401


@kit("g10_limited_scope_grant", "g10_restricted_access_test")
async def limited(runs: Runs) -> None:
    run = await launch(runs.world, runs.public.app, "read-Patient", "read-Observation")
    assert "Device" not in run.body["scope"]
    assert "*" not in run.body["scope"]
    bearer = run.bearer(runs.world)
    assert (await bearer.get(f"Observation?patient={run.owner.patient}")).status_code == 200
    assert (await bearer.get(f"Device?patient={run.owner.patient}")).status_code in (401, 403)


@kit("g10_us_core_7_smart_fine_grained_scopes_stu2_2")
async def fine_grained(runs: Runs) -> None:
    """Of two categories, what is granted is their union: nothing else, and nothing missing."""
    world, codes = runs.world, ("laboratory", "vital-signs", "social-history", "survey")
    asked = [f"patient/Observation.rs?category={CATEGORY}|{code}" for code in codes[:2]]
    ticked = [f"read-Observation?category={CATEGORY}|{code}" for code in codes[:2]]
    run = await launch(world, runs.public.app, *ticked, scope=f"launch/patient {' '.join(asked)}")
    assert set(asked) <= set(run.body["scope"].split())
    assert "patient/Observation.rs" not in run.body["scope"].split()
    stored = {
        code: (await run.owner.create(observation(run.owner.patient, category=[concept(CATEGORY, code)])))["id"]
        for code in codes
    }
    bearer = run.bearer(world)
    found = await bearer.search(f"Observation?patient={run.owner.patient}")
    assert {one["id"] for one in found} == {stored[code] for code in codes[:2]}
    for code in codes:
        one = await bearer.get(f"Observation/{stored[code]}")
        assert (one.status_code == 200) == (code in codes[:2]), code
        within = await bearer.search(f"Observation?patient={run.owner.patient}&category={CATEGORY}|{code}")
        assert [one["id"] for one in within] == ([stored[code]] if code in codes[:2] else [])


@kit("g10_smart_granular_scope_selection")
async def narrowed_by_the_person(runs: Runs) -> None:
    """All of a type is asked for; the person allows one category of it."""
    part = [f"read-Observation?category={CATEGORY}|laboratory"]
    run = await launch(runs.world, runs.public.app, scope="launch/patient patient/Observation.rs", part=part)
    resources = [one for one in run.body["scope"].split() if one.startswith("patient/")]
    assert resources == [f"patient/Observation.rs?category={CATEGORY}|laboratory"]


@kit("g10_smart_invalid_aud")
async def another_audience(runs: Runs) -> None:
    answer = await runs.world.http.get(SITE + Request(runs.public.app.id).path(aud="https://elsewhere.example/fhir"))
    assert "code=" not in answer.headers["location"]


# What is wrong at the token endpoint.


async def refused_with(runs: Runs, **changes: str | None) -> int:
    """The status of a redemption that is as it should be but for these."""
    world, app = runs.world, runs.public.app
    owner, request = await world.patient(), Request(app.id)
    person, page = await arrive(world, await account_of(world, owner.reference), request)
    came_back = await allow(person, page, "read-Observation")
    answer = await redeem(world, app, request, **{"code": came_back["code"], **changes})
    assert "access_token" not in answer.json()
    return answer.status_code


@kit("smart_no_verifier_token_request")
async def no_verifier(runs: Runs) -> None:
    assert await refused_with(runs, code_verifier=None) in (400, 401)


@kit("smart_blank_verifier_token_request")
async def blank_verifier(runs: Runs) -> None:
    assert await refused_with(runs, code_verifier="") in (400, 401)


@kit("smart_bad_code_verifier_token_request")
async def bad_verifier(runs: Runs) -> None:
    assert await refused_with(runs, code_verifier="b" * 43) in (400, 401)


@kit("smart_plain_code_verifier_token_request")
async def plain_verifier(runs: Runs) -> None:
    """The challenge itself, as if it had been made by `plain`."""
    challenge = Request(runs.public.app.id, verifier="v" * 43).parameters()["code_challenge"]
    assert await refused_with(runs, code_verifier=challenge) in (400, 401)


@kit("g10_invalid_code")
async def bad_code(runs: Runs) -> None:
    assert await refused_with(runs, code="BAD_CODE") == 400


@kit("g10_invalid_client_id")
async def bad_client(runs: Runs) -> None:
    assert await refused_with(runs, client_id="BAD_CLIENT") in (400, 401)


# OpenID Connect.


async def claims_of(runs: Runs, run: Launch | None = None) -> dict[str, Any]:
    payload = (run or runs.public).body["id_token"].split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


async def configuration(runs: Runs) -> httpx.Response:
    issuer = (await claims_of(runs))["iss"]
    return await runs.world.http.get(f"{issuer}/.well-known/openid-configuration")


@kit("smart_openid_decode_id_token")
async def decoded(runs: Runs) -> None:
    for run in (runs.public, runs.secret, runs.signing, runs.ehr):  # public clients too get one
        assert (await claims_of(runs, run))["sub"]


@kit("smart_openid_retrieve_configuration")
async def configured(runs: Runs) -> None:
    answer = await configuration(runs)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


@kit("smart_openid_required_configuration_fields")
async def configured_whole(runs: Runs) -> None:
    found = (await configuration(runs)).json()
    names = "issuer authorization_endpoint token_endpoint jwks_uri response_types_supported subject_types_supported"
    assert all(found[name] for name in names.split())
    assert "RS256" in found["id_token_signing_alg_values_supported"]
    assert found["issuer"] == (await claims_of(runs))["iss"]


@kit("smart_openid_retrieve_jwks")
async def keys_published(runs: Runs) -> None:
    keys = (await runs.world.http.get((await configuration(runs)).json()["jwks_uri"])).json()["keys"]
    assert any(key["kty"] == "RSA" and not {"d", "p", "q"} & key.keys() for key in keys)


@kit("smart_openid_token_header", "smart_openid_token_payload")
async def signed(runs: Runs) -> None:
    keys = KeySet.import_key_set((await runs.world.http.get((await configuration(runs)).json()["jwks_uri"])).json())
    for run in (runs.public, runs.ehr):
        found = jwt.decode(run.body["id_token"], keys, algorithms=["RS256"])
        assert (found.header["alg"], found.header["kid"] in {key.kid for key in keys}) == ("RS256", True)
        assert (found.claims["iss"], found.claims["aud"]) == (SITE, run.app.id)
        assert found.claims["exp"] > runs.world.clock().timestamp() - 60


@kit("smart_openid_fhir_user_claim")
async def who_logged_in(runs: Runs) -> None:
    for run, name in ((runs.public, "Patient"), (runs.ehr, "Practitioner")):
        who = (await claims_of(runs, run))["fhirUser"]
        assert who.startswith(f"{BASE}/{name}/")
        type_name, identifier = who.split("/")[-2:]
        answer = await run.bearer(runs.world).get(f"{type_name}/{identifier}")
        assert (answer.status_code, answer.json()["resourceType"]) == (200, name)


# Refreshing and taking back.


@kit("smart_token_refresh_stu2", "smart_token_refresh_body", "smart_token_refresh_headers")
async def refreshed(runs: Runs) -> None:
    world = runs.world
    for run in (runs.secret, runs.signing, await launch(world, runs.public.app, *ALL)):
        held = run.body["refresh_token"]
        for scope in (None, "patient/Observation.rs"):
            answer = await token(world, run.app, grant_type="refresh_token", refresh_token=held, scope=scope)
            assert answer.status_code == 200
            body = answer.json()
            assert set(body["scope"].split()) <= set(run.body["scope"].split())
            assert (body["token_type"], isinstance(body["expires_in"], int)) == ("Bearer", True)
            assert ("no-store" in answer.headers["cache-control"], answer.headers["pragma"]) == (True, "no-cache")
            held = body.get("refresh_token", held)


@kit("g10_invalid_token_refresh")
async def bad_refresh(runs: Runs) -> None:
    for run in (runs.public, runs.secret, runs.signing):
        answer = await token(runs.world, run.app, grant_type="refresh_token", refresh_token="BAD")
        assert answer.status_code in (400, 401)


@kit("g10_token_revocation")
async def taken_back(runs: Runs) -> None:
    world, run = runs.world, await launch(runs.world, runs.public.app, *ALL)
    await world.http.post(f"{SITE}/oauth/revoke", data={"client_id": run.app.id, "token": run.body["refresh_token"]})
    assert (await run.bearer(world).get(f"Patient/{run.owner.patient}")).status_code in (401, 403, 404)
    answer = await token(world, run.app, grant_type="refresh_token", refresh_token=run.body["refresh_token"])
    assert answer.status_code in (400, 401)


# Introspection.


async def introspected(runs: Runs, what: str) -> dict[str, Any]:
    run = runs.secret
    assert run.app.secret is not None
    answer = await runs.world.http.post(f"{SITE}/oauth/introspect", data={"token": what}, auth=(run.app.id, run.app.secret))
    assert answer.status_code == 200
    return dict(answer.json())


@kit("smart_token_introspection_request_group")
async def introspection(runs: Runs) -> None:
    assert (await introspected(runs, runs.secret.body["access_token"]))["active"] is True
    assert await introspected(runs, "invalid") == {"active": False}


@kit("smart_token_introspection_response_group")
async def introspection_repeats(runs: Runs) -> None:
    found, body = await introspected(runs, runs.secret.body["access_token"]), runs.secret.body
    assert (found["client_id"], found["scope"], found["patient"]) == (runs.secret.app.id, body["scope"], body["patient"])
    assert isinstance(found["exp"], int)
    claims = await claims_of(runs, runs.secret)
    assert [found[name] for name in ("iss", "sub", "fhirUser")] == [claims[name] for name in ("iss", "sub", "fhirUser")]


# Backend services.


async def asked_badly(runs: Runs, **changes: str) -> int:
    form = asked_with(assertion(runs.system.id, runs.world.clock()), grant_type="client_credentials", scope="system/*.rs")
    answer = await ask(runs.world, form | changes)
    assert "access_token" not in answer.json()
    return answer.status_code


@kit("smart_backend_services_invalid_grant_type")
async def bad_grant(runs: Runs) -> None:
    assert await asked_badly(runs, grant_type="not_a_grant_type") == 400


@kit("smart_backend_services_invalid_client_assertion")
async def bad_assertion_type(runs: Runs) -> None:
    assert await asked_badly(runs, client_assertion_type="not_an_assertion_type") == 400


@kit("smart_backend_services_invalid_jwt")
async def bad_assertion(runs: Runs) -> None:
    assert await asked_badly(runs, client_assertion=assertion("somebody", runs.world.clock())) in (400, 401)


@kit("smart_backend_services_auth_request_success", "smart_backend_services_auth_response_body")
async def system_asks(runs: Runs) -> None:
    answer = await ask_token(runs.world, runs.system.id)
    assert answer.status_code in (200, 201)
    body = answer.json()
    assert all(body[name] for name in ("access_token", "token_type", "scope"))
    assert 0 < body["expires_in"] <= 300


@pytest.mark.requirement("SEC-031")
@pytest.mark.parametrize("name", CHECKS)
async def test_kit(runs: Runs, name: str) -> None:
    await CHECKS[name](runs)


_TLS = "needs TLS, which a proxy before the gateway ends"
_BULK = "there is no bulk export here yet"
NOT_HERE = {
    "smart_backend_services_token_tls_version": _TLS,
    "bulk_file_server_tls_version": _TLS,
    "g10_encounter_context": "there are no Encounters here, and the capability is not declared",
    "g10_smart_style_url": "the pages have no style to hand on, and the capability is not declared",
    "bulk_data_export_operation_support": _BULK,
    "bulk_data_no_auth_reject": _BULK,
    "bulk_data_kick_off": _BULK,
    "bulk_data_status_check": _BULK,
    "bulk_data_output_check": _BULK,
    "bulk_data_ndjson_download": _BULK,
    "bulk_data_valid_resources": _BULK,
    "bulk_data_multiple_patients": _BULK,
    "bulk_data_export_cancel_stu2": _BULK,
    "output_format_in_export_response": _BULK,
    "since_in_export_response": _BULK,
}
NOT_DECLARED = ("context-ehr-encounter", "context-standalone-encounter", "context-style")


@pytest.mark.requirement("SEC-031")
async def test_what_is_not_here_is_not_declared(world: World) -> None:
    assert not CHECKS.keys() & NOT_HERE.keys()
    smart = (await world.http.get(SMART)).json()
    assert not set(NOT_DECLARED) & set(smart["capabilities"])
    capabilities = (await world.http.get(f"{BASE}/metadata")).json()
    operations = [one["name"] for rest in capabilities["rest"] for one in rest.get("operation", ())]
    assert "export" not in operations


_INCLUDED = "test_what_comes_along_is_what_comes_for_the_owner_less_what_is_hidden"
# What no kit tests, and where it is tested here.
UNTESTED = {
    "jti replay": "oauth/test_backend_services.py: test_an_assertion_is_good_once_whatever_became_of_it",
    "jti replay over processes": "oauth/test_backend_services.py: test_of_fifty_at_once_in_two_processes_one_is_answered",
    "exp too late": "oauth/test_backend_services.py: test_it_ends_within_five_minutes_and_the_skew_of_clocks",
    "signature, kid, aud": "oauth/test_backend_services.py: test_an_assertion_that_says_something_else_is_refused",
    "jku": "oauth/test_client_keys.py: test_another_address_in_the_assertion_is_never_called",
    "code reuse": "oauth/test_redemption.py: test_a_code_that_comes_again_takes_back_what_it_gave",
    "refresh reuse": "oauth/test_redemption.py: test_a_refresh_token_that_was_spent_ends_the_pairing",
    "redirect_uri": "oauth/test_authorize.py: test_nobody_is_sent_to_an_address_that_is_not_the_client_s",
    "state and iss": "oauth/test_authorize.py: test_what_is_wrong_is_told_to_the_client",
    "cross-patient": "security/test_someone_elses_data.py: test_hidden_is_absent",
    "cross-patient include": f"security/test_hidden_from_searches.py: {_INCLUDED}",
    "write scopes": "web/test_decision_page.py: test_what_is_ticked_is_granted_and_nothing_else",
    "consent revocation": "oauth/test_two_processes.py: test_what_is_taken_back_at_one_is_refused_by_the_other_at_once",
    "Binary": "documents/test_rights.py: test_the_bytes_of_hidden_content_are_not_fetched",
    "audit": "security/test_someone_elses_data.py: test_a_stranger_leaves_a_trace_in_the_record",
}


@pytest.mark.parametrize("what", UNTESTED)
def test_what_no_kit_tests_is_tested_here(what: str) -> None:
    file, name = UNTESTED[what].split(": ")
    tree = ast.parse((Path(__file__).parents[1] / file).read_text("utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
