"""SMART App Launch over HTTP: from an app's request to tokens, what they say, and the launch from a professional's software."""

import base64
import json
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from gateway.exchange.catalogue import set_state
from tests.clients import Registered, register
from tests.decisions import CALLBACK, SITE, Request, account_of, allow, arrive, paired, register_app, told
from tests.person import Person
from tests.world import BASE, Actor, World, observation, practitioner

TOKEN = f"{SITE}/oauth/token"


async def post(world: World, path: str, app: Registered, **fields: str) -> httpx.Response:
    """What a client sends to an endpoint, showing who it is as it is registered."""
    headers = {}
    if app.secret is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{app.id}:{app.secret}".encode()).decode()
    else:
        fields["client_id"] = app.id
    return await world.http.post(f"{SITE}/oauth/{path}", data=fields, headers=headers)


async def redeem(world: World, app: Registered, request: Request, code: str, **changes: str) -> httpx.Response:
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": request.verifier}
    return await post(world, "token", app, **fields | changes)


async def tokens(world: World, app: Registered, owner: Actor, *allowed: str) -> dict[str, Any]:
    request, code = await paired(world, owner, app, *allowed)
    answer = await redeem(world, app, request, code)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def software(world: World, **changes: Any) -> Registered:
    """What a professional works with, and apps that are launched from it."""
    described: dict[str, Any] = {
        "kind": "software",
        "category": "care",
        "name": "MediSoft",
        "authentication": "client_secret_basic",
        "grants": ["authorization_code", "refresh_token"],
        "keys": [],
        "redirect_uris": [CALLBACK],
        "read": ["Observation", "Patient", "Practitioner"],
        "write": [],
    }
    return await register(world, **described | changes)


@pytest.mark.requirement("SEC-009", "SEC-015")
async def test_the_token_response_is_that_of_smart(world: World) -> None:  # smart_token_response_body_stu2_2, …_headers
    owner, app = await world.patient(), await register_app(world)
    request, code = await paired(world, owner, app, "read-Observation", "read-Device", "write-Observation")
    answer = await redeem(world, app, request, code)
    assert answer.status_code == 200
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    body = answer.json()
    assert set(body) == {
        "access_token", "token_type", "expires_in", "scope", "patient", "need_patient_banner", "id_token", "refresh_token",
    }  # fmt: skip
    assert (body["token_type"], body["expires_in"], body["patient"]) == ("Bearer", 900, owner.patient)
    assert body["scope"] == (
        "launch/patient openid fhirUser offline_access patient/Observation.rs patient/Observation.c patient/Device.rs"
    )


@pytest.mark.requirement("SEC-026")
async def test_the_id_token_says_who_logged_in(world: World) -> None:  # smart_openid_*
    owner, app = await world.patient(), await register_app(world, read=["Patient", "Observation"])
    request = Request(app.id)
    changes = {"scope": "openid fhirUser launch/patient patient/Patient.r", "nonce": "n-0S6"}
    person, page = await arrive(world, await account_of(world, owner.reference), request, **changes)
    answer = await allow(person, page, "read-Patient")
    body = (await redeem(world, app, request, answer["code"])).json()
    configuration = (await world.http.get(f"{SITE}/.well-known/openid-configuration")).json()
    assert "RS256" in configuration["id_token_signing_alg_values_supported"]
    keys = KeySet.import_key_set((await world.http.get(configuration["jwks_uri"])).json())
    decoded = jwt.decode(body["id_token"], keys, algorithms=["RS256"])
    assert decoded.header["alg"] == "RS256"
    assert decoded.header["kid"] in {key.kid for key in keys}
    claims = decoded.claims
    assert (claims["iss"], claims["aud"], claims["nonce"]) == (configuration["issuer"], app.id, "n-0S6")
    assert claims["iat"] <= claims["exp"] <= claims["iat"] + 300
    assert 0 < len(claims["sub"]) <= 255
    assert claims["fhirUser"] == f"{BASE}/{owner.reference}"
    bearer = Actor(world.http, body["access_token"], "")
    assert (await bearer.get(claims["fhirUser"])).json()["id"] == owner.patient


@pytest.mark.requirement("MES-05")
async def test_each_app_knows_a_patient_by_another_name_and_always_by_the_same(world: World) -> None:
    owner, other = await world.patient(), await world.patient()
    first, second = await register_app(world), await register_app(world)

    async def subject(app: Registered, whose: Actor) -> str:
        token = (await tokens(world, app, whose))["id_token"]
        payload = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])

    named = [await subject(first, owner), await subject(second, owner), await subject(first, other)]
    assert len(set(named)) == 3
    assert await subject(first, owner) == named[0]
    assert not any(owner.patient in name for name in named)


@pytest.mark.requirement("SEC-012")
@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("patient/Observation.read", "patient/Observation.read"),
        ("patient/Observation.*", "patient/Observation.read"),
        ("patient/*.read", "patient/Observation.read"),
        ("patient/Observation.rs?category=laboratory", "patient/Observation.rs?category=laboratory"),
    ],
)
async def test_scopes_are_granted_in_the_notation_asked(world: World, asked: str, granted: str) -> None:  # g10_smart_v1_scopes
    owner, app = await world.patient(), await register_app(world)
    request = Request(app.id)
    person, page = await arrive(world, await account_of(world, owner.reference), request, scope=asked)
    answer = await allow(person, page, f"read-Observation{'?' if '?' in asked else ''}{asked.partition('?')[2]}")
    assert (await redeem(world, app, request, answer["code"])).json()["scope"] == granted


@pytest.mark.requirement("EXT-02", "SEC-011")
async def test_a_type_that_was_not_ticked_is_refused(
    world: World,
) -> None:  # g10_limited_scope_grant, g10_restricted_access_test
    owner, app = await world.patient(), await register_app(world)
    body = await tokens(world, app, owner, "read-Observation")
    assert "patient/Observation.rs" in body["scope"]
    assert "Device" not in body["scope"]
    bearer = Actor(world.http, body["access_token"], "")
    assert (await bearer.get(f"Observation?patient={owner.patient}")).status_code == 200
    assert (await bearer.get(f"Device?patient={owner.patient}")).status_code == 403


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"code": "bad"}, 400, "invalid_grant"),  # g10: a bad code is exactly 400
        ({"code": ""}, 400, "invalid_request"),
        ({"code_verifier": ""}, 400, "invalid_grant"),  # smart_blank_verifier_token_request
        ({"code_verifier": "x" * 43}, 400, "invalid_grant"),  # smart_bad_code_verifier_token_request
        ({"redirect_uri": f"{CALLBACK}/"}, 400, "invalid_grant"),
        ({"client_id": "nobody"}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
async def test_what_is_wrong_with_a_redemption(world: World, changes: dict[str, str], status: int, error: str) -> None:
    owner, app = await world.patient(), await register_app(world)
    request, code = await paired(world, owner, app)
    fields = {
        "grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "client_id": app.id,
        "code_verifier": request.verifier, **changes,
    }  # fmt: skip
    answer = await world.http.post(TOKEN, data=fields)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert await world.stored("tokens", client=app.id) == []


async def test_a_client_that_is_not_registered_for_refreshing_is_refused(world: World) -> None:
    owner, app = await world.patient(), await register_app(world, grants=["authorization_code"])
    body = await tokens(world, app, owner)
    assert "refresh_token" not in body
    assert "offline_access" not in body["scope"]
    answer = await post(world, "token", app, grant_type="refresh_token", refresh_token="x")
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")


@pytest.mark.requirement("SEC-016", "SEC-025")
async def test_refreshing_and_giving_a_pairing_back(world: World) -> None:  # smart_token_refresh_stu2, g10_token_revocation
    owner, app = await world.patient(), await register_app(world)
    body = await tokens(world, app, owner)
    answer = await post(world, "token", app, grant_type="refresh_token", refresh_token=body["refresh_token"])
    assert answer.status_code == 200
    renewed = answer.json()
    assert (renewed["scope"], renewed["patient"]) == (body["scope"], owner.patient)
    assert renewed["refresh_token"] != body["refresh_token"]
    stranger = await register_app(world)
    assert (await post(world, "revoke", stranger, token=renewed["refresh_token"])).status_code == 200
    bearer = Actor(world.http, renewed["access_token"], "")
    assert (await bearer.get(f"Observation?patient={owner.patient}")).status_code == 200
    for _ in range(2):
        assert (await post(world, "revoke", app, token=renewed["refresh_token"])).status_code == 200
    assert (await bearer.get(f"Observation?patient={owner.patient}")).status_code == 401
    answer = await post(world, "token", app, grant_type="refresh_token", refresh_token=renewed["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


@pytest.mark.requirement("SEC-024", "EXT-06")
async def test_introspection_repeats_what_the_client_was_told_and_ends_with_the_consent(world: World) -> None:
    owner, app = await world.patient(), await register_app(world, authentication="client_secret_basic")
    body = await tokens(world, app, owner, "read-Observation")
    seen = (await post(world, "introspect", app, token=body["access_token"])).json()
    assert (seen["active"], seen["scope"], seen["client_id"], seen["patient"]) == (True, body["scope"], app.id, owner.patient)
    assert (seen["iss"], seen["fhirUser"]) == (SITE, f"{BASE}/{owner.reference}")
    assert seen["sub"]
    [given] = await owner.search("Consent")
    await world.revoke(owner, given)
    assert (await post(world, "introspect", app, token=body["access_token"])).json() == {"active": False}
    answer = await post(world, "token", app, grant_type="refresh_token", refresh_token=body["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


async def test_a_suspended_client_gets_nothing_more_and_starts_anew_with_other_terms(world: World) -> None:
    owner, app = await world.patient(), await register_app(world)
    body = await tokens(world, app, owner)
    await set_state(world.gateway, app.id, "suspended")
    assert (await Actor(world.http, body["access_token"], "").get("Observation")).status_code == 401
    answer = await post(world, "token", app, grant_type="refresh_token", refresh_token=body["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def doctor_at_work(world: World, owner: Actor) -> tuple[Actor, str]:
    """A professional who treats a patient, with a token of the software they work with; and their login."""
    doctor = await world.professional()
    stored = (await world.operator.get(f"Patient/{owner.patient}")).json()
    await world.operator.put(f"Patient/{owner.patient}", {**stored, "generalPractitioner": [{"reference": doctor.reference}]})
    return doctor, await account_of(world, doctor.reference)


async def test_a_launch_brings_an_app_before_the_patient_in_view(world: World) -> None:  # smart_full_ehr_launch
    owner = await world.patient()
    reading = await owner.create(observation(owner.patient))
    doctor, login = await doctor_at_work(world, owner)
    app = await software(world)
    seen = {"patient": owner.patient, "client": app.id, "fhirContext": [{"reference": f"Observation/{reading['id']}"}]}
    launch = await doctor.send("POST", f"{SITE}/oauth/launch", seen)
    assert launch.status_code == 200
    assert launch.json()["iss"] == BASE
    request = Request(app.id)
    changes = {"scope": "launch openid fhirUser user/Observation.rs patient/Observation.rs", "launch": launch.json()["launch"]}
    person, page = await arrive(world, login, request, **changes)
    assert "It opens on the record of Camille Durand." in page.text
    await person.send(page.form("/oauth/authorize/continue"), decision="allow")
    body = (await redeem(world, app, request, told(person)["code"])).json()
    assert (body["patient"], body["need_patient_banner"]) == (owner.patient, False)
    assert body["fhirContext"] == [{"reference": f"Observation/{reading['id']}"}]
    bearer = Actor(world.http, body["access_token"], "")
    assert (await bearer.get(f"Observation/{reading['id']}")).status_code == 200


async def test_an_encounter_that_is_kept_elsewhere_is_handed_on_by_its_identifier(world: World) -> None:
    owner = await world.patient()
    doctor, login = await doctor_at_work(world, owner)
    app = await software(world)
    visit = {
        "type": "Encounter",
        "identifier": {"system": "urn:oid:1.2.3", "value": "stay-12"},
        "role": "https://x.example/stay",
    }
    handed = await doctor.send("POST", f"{SITE}/oauth/launch", {"patient": owner.patient, "fhirContext": [visit]})
    request = Request(app.id)
    changes = {"scope": "launch user/Observation.rs", "launch": handed.json()["launch"]}
    person, page = await arrive(world, login, request, **changes)
    await person.send(page.form("/oauth/authorize/continue"), decision="allow")
    body = (await redeem(world, app, request, told(person)["code"])).json()
    assert body["fhirContext"] == [visit]
    assert (await post(world, "introspect", app, token=body["access_token"])).json()["fhirContext"] == [visit]


@pytest.mark.parametrize(
    "context",
    [
        {}, {"reference": "Observation"}, {"reference": "observation/x"}, {"reference": "../x/y"}, {"reference": ""},
        {"reference": "Patient/x"}, {"reference": "Encounter/x"},
        {"reference": "Encounter/x", "role": "launch"}, {"identifier": {"value": "1"}}, {"type": "Encounter"},
        {"type": "Encounter", "identifier": {"value": "1"}}, {"type": "Patient", "identifier": {"value": "1"}, "role": "x"},
        {"type": "stay", "identifier": {"value": "1"}}, {"type": "Encounter", "identifier": {"value": ""}, "role": "x"},
        {"type": "Encounter", "identifier": {"value": "1", "use": "usual"}, "role": "x"},
        {"type": "Device", "reference": "Observation/x"}, {"reference": "Observation/x", "identifier": {"value": "1"}},
        {"reference": "Observation/" + "x" * 300},
    ],
    ids=str,
)  # fmt: skip
async def test_a_context_that_names_nothing_is_refused(world: World, context: dict[str, Any]) -> None:
    owner = await world.patient()
    doctor, _ = await doctor_at_work(world, owner)
    answer = await doctor.send("POST", f"{SITE}/oauth/launch", {"patient": owner.patient, "fhirContext": [context]})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert await world.stored("launches", patient=owner.patient) == []


async def test_a_launch_is_for_who_made_it(world: World) -> None:
    owner = await world.patient()
    doctor, _ = await doctor_at_work(world, owner)
    app = await software(world)
    launch = (await doctor.send("POST", f"{SITE}/oauth/launch", {"patient": owner.patient})).json()["launch"]
    colleague = await world.operator.create(practitioner())
    login = await account_of(world, f"Practitioner/{colleague['id']}")
    _, page = await arrive(world, login, Request(app.id), scope="launch user/Observation.rs", launch=launch)
    assert "cannot decide about MediSoft" in page.text
    other = await software(world)
    named = (await doctor.send("POST", f"{SITE}/oauth/launch", {"patient": owner.patient, "client": other.id})).json()
    person = Person(world.http, SITE)
    await person.open(Request(app.id).path(scope="launch user/Observation.rs", launch=named["launch"]))
    assert told(person)["error"] == "invalid_request"


async def test_nobody_launches_about_whom_they_may_not_see(world: World) -> None:
    stranger = await world.patient()
    doctor = await world.professional()
    hidden = await doctor.send("POST", f"{SITE}/oauth/launch", {"patient": stranger.patient})
    unknown = await doctor.send("POST", f"{SITE}/oauth/launch", {"patient": f"{stranger.patient[:3]}-nobody"})
    assert (hidden.status_code, hidden.json()) == (unknown.status_code, unknown.json())
    assert hidden.status_code == 404
    assert (await world.http.post(f"{SITE}/oauth/launch", json={"patient": stranger.patient})).status_code == 401
    assert await world.stored("launches", patient=stranger.patient) == []


@pytest.mark.requirement("SEC-001")
async def test_discovery_says_what_there_is(
    world: World,
) -> None:  # well_known_capabilities_stu2, g10_smart_well_known_capabilities
    found = (await world.http.get(f"{BASE}/.well-known/smart-configuration")).json()
    assert {"authorization_code", "refresh_token", "client_credentials"} == set(found["grant_types_supported"])
    assert set(found["capabilities"]) >= {
        "launch-standalone", "client-public", "client-confidential-symmetric", "client-confidential-asymmetric",
        "sso-openid-connect", "context-standalone-patient", "permission-offline", "permission-patient", "authorize-post",
        "permission-v2", "permission-v1", "launch-ehr", "context-ehr-patient",
    }  # fmt: skip
    assert (found["authorization_endpoint"], found["management_endpoint"]) == (f"{SITE}/oauth/authorize", f"{SITE}/me")
    assert (await world.http.get(found["management_endpoint"])).status_code == 303
    assert (found["issuer"], found["jwks_uri"]) == (SITE, f"{SITE}/oauth/jwks")
