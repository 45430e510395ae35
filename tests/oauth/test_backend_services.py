"""Backend services: systems that ask for tokens with a signed assertion, each of which is good once.

Tests named after the public kit smart_stu2_2 assert what it asserts; the others, what no kit tests.
"""

import asyncio
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from joserfc.jwk import ECKey, RSAKey

from gateway.exchange.catalogue import change_client, set_state
from gateway.fhir.balp import render_event
from tests.clients import (
    EC,
    RSA,
    SITE,
    Registered,
    ask,
    ask_token,
    asked_with,
    assertion,
    error_of,
    register,
)
from tests.world import Actor, World, observation, unique

CREDENTIALS = {"grant_type": "client_credentials", "scope": "system/Observation.rs"}
INVALID_CLIENT = (400, "invalid_client")


@pytest.fixture(scope="module")
async def system(session_world: World) -> Registered:
    return await register(session_world, read=["Observation", "Device"], write=["Observation"])


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


async def send(world: World, signed: str, **form: str | None) -> Any:
    return await ask(world, asked_with(signed, **{**CREDENTIALS, **form}))


@pytest.mark.requirement("SEC-017")
@pytest.mark.parametrize("key", [EC, RSA], ids=["ES384", "RS384"])
async def test_smart_backend_services_auth_request_success(world: World, system: Registered, key: Any) -> None:
    answer = await send(world, assertion(system.id, world.clock(), key))
    assert answer.status_code == 200, answer.text


@pytest.mark.requirement("SEC-009", "SEC-023")
async def test_smart_backend_services_auth_response_body(world: World, system: Registered) -> None:
    body = (await ask_token(world, system.id, "system/Observation.rs system/Device.read")).json()
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 300)
    assert isinstance(body["expires_in"], int)
    assert body["scope"] == "system/Observation.rs system/Device.read"
    (stored,) = await world.stored("tokens", client=system.id, scope=body["scope"])
    assert body["access_token"] not in str(stored)
    assert (stored["kind"], stored["actors"]) == ("service", [system.reference])
    assert (stored["expires"] - stored["issued"]).total_seconds() == 300
    assert stored["grant"]


async def test_smart_backend_services_invalid_grant_type(world: World, system: Registered) -> None:
    answer = await send(world, assertion(system.id, world.clock()), grant_type="not_a_grant_type")
    assert error_of(answer) == (400, "unsupported_grant_type")
    assert error_of(await send(world, assertion(system.id, world.clock()), grant_type=None)) == (400, "unsupported_grant_type")


async def test_smart_backend_services_invalid_client_assertion(world: World, system: Registered) -> None:
    signed = assertion(system.id, world.clock())
    for kind in ("not_an_assertion_type", None):
        assert error_of(await send(world, signed, client_assertion_type=kind)) == INVALID_CLIENT
    assert error_of(await send(world, signed, client_assertion=None)) == INVALID_CLIENT


async def test_smart_backend_services_invalid_jwt(world: World, system: Registered) -> None:
    for signed in ("x", "a.b.c", "..", assertion(system.id, world.clock()) + "x", assertion(system.id, world.clock())[:-8]):
        assert error_of(await send(world, signed)) == INVALID_CLIENT


@pytest.mark.requirement("SEC-017")
async def test_other_algorithms_are_refused(world: World, system: Registered) -> None:
    small, now = ECKey.generate_key("P-256", {"kid": "e1"}), world.clock()
    for key, algorithm in ((RSA, "RS256"), (RSA, "RS512"), (RSA, "PS384"), (small, "ES256")):
        assert error_of(await send(world, assertion(system.id, now, key, algorithm))) == INVALID_CLIENT, algorithm
    header, claims, _ = assertion(system.id, now).split(".")
    for algorithm in ("HS256", "HS384"):  # the public key for a secret (CVE-2024-37568)
        start = f"{_base64(msgspec.json.encode({'alg': algorithm, 'kid': 'r1'}))}.{claims}"
        digest = hmac.digest(RSA.as_pem(private=False), start.encode(), f"sha{algorithm[2:]}")
        assert error_of(await send(world, f"{start}.{_base64(digest)}")) == INVALID_CLIENT
    none = _base64(b'{"alg":"none","kid":"e1"}')
    for signed in (f"{none}.{claims}.", f"{none}.{claims}.AA", f"{header}.{claims}."):
        assert error_of(await send(world, signed)) == INVALID_CLIENT


@pytest.mark.requirement("SEC-018")
@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": None},
        {"aud": "https://other.example/token"},
        {"aud": [f"{SITE}/oauth/token", "https://other.example/token"]},
        {"aud": []},
        {"aud": f"{SITE}/oauth/token/"},
        {"aud": {"x": "y"}},
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 256},
        {"jti": 7},
        {"iss": "another"},
        {"iss": None},
        {"sub": "another"},
        {"sub": None},
        {"sub": 7},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": 1},
        {"exp": 1e300},
        {"nbf": "x"},
        {"header": {"kid": None}},
        {"header": {"kid": "r1"}},
        {"header": {"kid": "unknown"}},
        {"header": {"typ": "at+jwt"}},
        {"header": {"jku": "https://evil.example/jwks"}},
        {"key": ECKey.generate_key("P-384", {"kid": "e1"})},
        {"key": RSAKey.generate_key(2_048, {"kid": "r1"})},
    ],
    ids=str,
)
async def test_an_assertion_that_says_something_else_is_refused(
    world: World, system: Registered, wrong: dict[str, Any]
) -> None:
    assert error_of(await send(world, assertion(system.id, world.clock(), **wrong))) == INVALID_CLIENT


@pytest.mark.requirement("SEC-018", "EXT-08")
@pytest.mark.parametrize(("seconds", "holds"), [(-1, False), (2, True), (300, True), (328, True), (332, False), (3_600, False)])
async def test_it_ends_within_five_minutes_and_the_skew_of_clocks(
    world: World, system: Registered, seconds: int, holds: bool
) -> None:
    now = world.clock()
    answer = await send(world, assertion(system.id, now, exp=now.timestamp() + seconds))
    assert answer.status_code == (200 if holds else 400)


async def test_it_may_be_for_the_issuer_or_the_endpoint_and_say_when_it_begins(world: World, system: Registered) -> None:
    now = world.clock()
    for claims in ({"aud": SITE}, {"aud": [SITE]}, {"nbf": int(now.timestamp()) + 20}, {"iat": int(now.timestamp())}):
        assert (await send(world, assertion(system.id, now, **claims))).status_code == 200
    assert error_of(await send(world, assertion(system.id, now, nbf=int(now.timestamp()) + 60))) == INVALID_CLIENT


@pytest.mark.requirement("SEC-019", "EXT-08")
async def test_an_assertion_is_good_once_whatever_became_of_it(world: World, system: Registered) -> None:
    for form, status in (({}, 200), ({"scope": "system/Patient.r"}, 400), ({"grant_type": "other"}, 400)):
        signed = assertion(system.id, world.clock())
        assert (await send(world, signed, **form)).status_code == status
        again = await send(world, signed)
        assert error_of(again) == INVALID_CLIENT
        assert "used before" in again.json()["error_description"]
    other = await register(world)
    name = unique("jti")  # is a client's own
    assert (await send(world, assertion(system.id, world.clock(), jti=name))).status_code == 200
    assert (await send(world, assertion(other.id, world.clock(), jti=name))).status_code == 200


@pytest.mark.requirement("SEC-019")
async def test_of_fifty_at_once_in_two_processes_one_is_answered(world: World, peer: World, system: Registered) -> None:
    for _ in range(3):
        signed = assertion(system.id, world.clock())
        others = (send(world, assertion(system.id, world.clock())) for _ in range(5))
        answers = await asyncio.gather(*(send((world, peer)[n % 2], signed) for n in range(50)), *others)
        assert sorted(answer.status_code for answer in answers[:50]) == [200] + [400] * 49
        assert {answer.status_code for answer in answers[50:]} == {200}  # those that waited with it get theirs


@pytest.mark.requirement("SEC-019")
async def test_it_is_remembered_as_long_as_it_could_be_used(world: World, system: Registered) -> None:
    signed = assertion(system.id, world.clock())
    assert (await send(world, signed)).status_code == 200
    claims = msgspec.json.decode(urlsafe_b64decode(signed.split(".")[1] + "=="))
    (one,) = await world.stored("assertions", _id=sha256(f"{system.id}\x00{claims['jti']}".encode()).digest())
    assert one["ends"].timestamp() == claims["exp"] + 300
    indexes = await world.gateway.mongo.indexes("assertions")
    assert indexes["ends"]["expireAfterSeconds"] == 0


@pytest.mark.requirement("SEC-022")
async def test_nested_json_is_refused_and_never_an_error(world: World, system: Registered) -> None:
    deep = "[" * 2_000 + "]" * 2_000
    header = _base64(b'{"alg":"ES384","kid":"e1"}')
    for text in (f'{{"sub":"{system.id}","x":{deep}}}', deep, "[]", '"x"', "1", "{", '{"sub":"\\ud800"}'):
        signed = f"{header}.{_base64(text.encode())}.AA"
        assert error_of(await send(world, signed)) == INVALID_CLIENT, text[:40]
    nested = _base64(f'{{"alg":"ES384","kid":{deep}}}'.encode())
    assert error_of(await send(world, f"{nested}.e30.AA")) == INVALID_CLIENT
    assert error_of(await send(world, "x" * 9_000)) == INVALID_CLIENT


@pytest.mark.requirement("SEC-010")
@pytest.mark.parametrize(
    "scope",
    [
        None, "Observation.rs", "system/Observation", "system/Observation.", "system/Observation.sr", "system/Observation.dr",
        "system/Observation.rr", "system/Observation.x", "system/observation.rs", "System/Observation.rs", "system/Nonsense.rs",
        "system/Observation.rs?", "system/Observation.rs?category", "system/Observation.rs?category:in=x",
        "system/Observation.rs?patient.birthdate=2000", "system/Observation.rs?_filter=x", "system/*.rs?category=x",
        "system/Observation.read?category=x", "system/Observation.rs,system/Device.rs", "system/Observation.rs\tx",
        "system/Observation.rs\\x", "system/Observation.readx", "system//Observation.rs", "../Observation.rs",
        "system/Observation.rs?" + "x" * 600, "system/Patient.rs", "patient/Observation.rs", "user/Observation.rs", "openid",
    ],
)  # fmt: skip
async def test_a_scope_that_is_not_of_the_grammar_or_not_to_be_had_is_refused(
    world: World, system: Registered, scope: str | None
) -> None:
    assert error_of(await send(world, assertion(system.id, world.clock()), scope=scope)) == (400, "invalid_scope")


@pytest.mark.requirement("AUD-001")
async def test_a_token_that_is_issued_leaves_an_event_by_which_its_uses_are_found(world: World) -> None:
    system = await register(world)
    body = (await ask_token(world, system.id, "system/Observation.rs")).json()
    await ask_token(world, system.id, "system/Patient.r")  # refused: nothing is issued
    [event] = await world.stored("AuditEvent", source=system.id)
    shown = render_event(event, "https://gateway.example/fhir")
    world.gateway.codec.load("AuditEvent", json.dumps(shown).encode())
    assert (shown["subtype"][0]["code"], shown["outcomeDesc"]) == ("ITI-71", "system/Observation.rs")
    assert body["access_token"] not in str(event)
    camille = await world.patient()
    await Actor(world.http, body["access_token"], "").get(f"Observation?patient={camille.patient}")
    used = [one for one in await world.stored("AuditEvent", source=system.id) if one["event"]["interaction"] != "grant"]
    assert {one["event"]["token"] for one in used} == {event["event"]["token"]}


@pytest.mark.requirement("AUD-002")
async def test_a_token_that_cannot_be_audited_is_not_issued(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asker, step = await register(world), type(world.gateway.audit).step

    def too_large(self: Any, documents: list[Any]) -> Any:
        return step(self, [{**document, "x": b"x" * 17_000_000} for document in documents])  # the server refuses it

    monkeypatch.setattr(type(world.gateway.audit), "step", too_large)
    signed = assertion(asker.id, world.clock())
    answer = await send(world, signed)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert await world.stored("tokens", client=asker.id) == []
    monkeypatch.undo()
    assert (await send(world, signed)).status_code == 200  # it was not used up, either


@pytest.mark.requirement("SEC-011")
async def test_a_token_is_never_wider_than_the_catalogue(world: World, system: Registered) -> None:
    body = (await ask_token(world, system.id, "system/*.cruds system/Patient.r user/Observation.rs")).json()
    assert body["scope"] == "system/Device.rs system/Observation.cruds"


async def test_a_token_reads_what_consents_open_and_nothing_else(world: World, system: Registered) -> None:
    camille, noe = await world.patient(), await world.patient()
    token = (await ask_token(world, system.id)).json()["access_token"]
    service = await world.service()
    service.token, service.reference = token, system.reference
    mine, theirs = await camille.create(observation(camille.patient)), await noe.create(observation(noe.patient))
    assert await service.search(f"Observation?patient={camille.patient}") == []
    given = await world.consent(camille, service)
    assert [one["id"] for one in await service.search(f"Observation?patient={camille.patient}")] == [mine["id"]]
    assert (await service.get(f"Observation/{theirs['id']}")).status_code == 404
    assert (await service.get("Organization")).status_code == 403  # outside its scope
    await world.revoke(camille, given)
    assert await service.search(f"Observation?patient={camille.patient}") == []


async def test_an_establishment_deposits_and_does_not_read(world: World) -> None:
    clinic = await register(world, kind="establishment", category="care", read=["Observation"], write=["Observation"])
    body = (await ask_token(world, clinic.id, "system/Observation.cruds")).json()
    assert body["scope"] == "system/Observation.cud"
    depositor, camille = await world.service(), await world.patient()
    depositor.token = body["access_token"]
    assert (await depositor.post("Observation", observation(camille.patient))).status_code == 201
    assert (await depositor.get(f"Observation?patient={camille.patient}")).status_code == 403


@pytest.mark.parametrize("state", ["draft", "tested", "suspended"])
async def test_only_who_is_referenced_gets_a_token(world: World, state: str) -> None:
    known = await register(world, state)
    unknown = await ask_token(world, "nobody")
    refused = await ask_token(world, known.id)
    assert error_of(refused) == INVALID_CLIENT
    assert refused.json() == unknown.json()  # what it is, it is not told


@pytest.mark.parametrize("change", ["suspended", "another edition"])
async def test_a_token_issued_while_its_client_loses_its_standing_is_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    known = await register(world)
    issuing = world.http._transport.app.state.oauth.issuing  # type: ignore[attr-defined]
    write = type(issuing).write

    async def interrupted(self: Any, issue: Any) -> None:
        if change == "suspended":
            await set_state(world.gateway, known.id, "suspended")
        else:
            await change_client(world.gateway, msgspec.structs.replace(known.client, controller="Others SA"))
            for state in ("tested", "referenced"):
                await set_state(world.gateway, known.id, state)
        await write(self, issue)

    monkeypatch.setattr(type(issuing), "write", interrupted)
    assert error_of(await ask_token(world, known.id)) == INVALID_CLIENT
    assert await world.stored("tokens", client=known.id) == []


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        (b"grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"),
        (b"scope=%ff", 400, "invalid_request"),
        (b"\xff=x", 400, "invalid_request"),
        (b"&".join(b"a%d=x" % n for n in range(60)), 400, "invalid_request"),
        (b"x=" + b"y" * 40_000, 413, "invalid_request"),
        (b"client_id=x&client_secret=y&grant_type=client_credentials", 400, "invalid_client"),
        (b"grant_type=client_credentials", 401, "invalid_client"),
        (b"", 401, "invalid_client"),
        (b"client_id=nobody", 401, "invalid_client"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_form_that_cannot_be_read_is_refused(world: World, form: bytes, status: int, error: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await world.http.post(f"{SITE}/oauth/token", content=form, headers=headers)
    assert error_of(answer) == (status, error)
    assert answer.headers.get("www-authenticate") == ('Basic realm="oauth"' if status == 401 else None)


async def test_a_body_that_is_no_form_and_another_method_are_refused(world: World, system: Registered) -> None:
    signed = asked_with(assertion(system.id, world.clock()), **CREDENTIALS)
    assert error_of(await world.http.post(f"{SITE}/oauth/token", json=signed)) == (400, "invalid_request")
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = await world.http.request(method, f"{SITE}/oauth/token")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.requirement("SEC-030")
@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
async def test_nothing_is_taken_from_a_url(world: World, system: Registered, path: str) -> None:
    signed = asked_with(assertion(system.id, world.clock()), token="x", **CREDENTIALS)
    answer = await world.http.post(f"{SITE}{path}", params=signed, data={"grant_type": "client_credentials"})
    assert error_of(answer) == (400, "invalid_request")
    assert signed["client_assertion"] not in answer.text


async def test_one_way_to_authenticate_at_a_time_and_by_the_one_registered(world: World, system: Registered) -> None:
    signed = asked_with(assertion(system.id, world.clock()), **CREDENTIALS)
    both = await world.http.post(f"{SITE}/oauth/token", data=signed, auth=(system.id, "x"))
    assert error_of(both) == (400, "invalid_request")
    assert error_of(await ask(world, {**signed, "client_id": "another"})) == INVALID_CLIENT
    assert error_of(await ask(world, {**CREDENTIALS, "client_id": system.id})) == (401, "invalid_client")
    other = {
        "kind": "app",
        "category": "measurement",
        "grants": ["authorization_code"],
        "redirect_uris": ["https://x.example/"],
    }
    app = await register(world, authentication="client_secret_basic", keys=[], **other)
    assert app.secret is not None
    answer = await world.http.post(f"{SITE}/oauth/token", data=CREDENTIALS, auth=(app.id, app.secret))
    assert error_of(answer) == (400, "invalid_client")  # known, and not for this grant
    for secret in ("wrong", "", app.secret + "x"):
        wrong = await world.http.post(f"{SITE}/oauth/token", data=CREDENTIALS, auth=(app.id, secret))
        assert error_of(wrong) == (401, "invalid_client")
        assert wrong.headers["www-authenticate"] == 'Basic realm="oauth"'
    for header in ("Basic x", "Basic !!!", "Basic eA==", "Basic /w==", "Basic"):
        answer = await world.http.post(f"{SITE}/oauth/token", data=CREDENTIALS, headers={"Authorization": header})
        assert error_of(answer) == (401, "invalid_client"), header


async def test_who_is_refused_leaves_a_line_without_any_secret(world: World, system: Registered, monkeypatch: Any) -> None:
    heard: list[dict[str, Any]] = []
    monkeypatch.setattr("gateway.oauth.visit.log", lambda event, **fields: heard.append({"event": event, **fields}))
    signed = assertion(system.id, world.clock(), RSA, "RS256")
    await send(world, signed)
    await world.http.post(f"{SITE}/oauth/token", data=CREDENTIALS, auth=(system.id, "wrong-secret"))
    assert [line["event"] for line in heard] == ["client.refused"] * 2
    assert heard[0]["detail"] == "an assertion is signed by RS384 or ES384"
    assert all(line["request_id"] for line in heard)
    assert signed not in str(heard)
    assert "wrong-secret" not in str(heard)
