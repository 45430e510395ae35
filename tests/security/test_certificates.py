"""What proxies say is believed of them alone; a token bound to a client certificate is good with that one only (RFC 8705)."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gateway.api.proxied import thumbprint
from gateway.store.standing import token_key
from tests.clients import SITE, ask, asked_with, assertion, error_of, get_json, register
from tests.conftest import make_settings, running_world
from tests.decisions import CALLBACK, paired, register_app
from tests.world import BASE, Actor, World, observation

HEADER = "Client-Cert"
NO_CERTIFICATE = quote("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
STRANGER, PROXY = ("203.0.113.9", 1), ("10.1.2.3", 1)


@cache
def certificate(name: str) -> bytes:
    """A certificate of this name, in DER."""
    key, said = generate_private_key(SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    moment = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(said).issuer_name(said).public_key(key.public_key()).serial_number(1)
    dated = built.not_valid_before(moment).not_valid_after(moment + timedelta(days=1))
    return dated.sign(key, SHA256()).public_bytes(Encoding.DER)


def rfc9440(name: str) -> str:
    return f":{base64.b64encode(certificate(name)).decode()}:"


def escaped_pem(name: str) -> str:
    pem = x509.load_der_x509_certificate(certificate(name)).public_bytes(Encoding.PEM).decode()
    return quote(pem, safe="")


def x5t(name: str) -> str:
    return base64.urlsafe_b64encode(sha256(certificate(name)).digest()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
async def behind(session_world: World) -> AsyncIterator[World]:
    """A gateway behind proxies that pass on certificates; its people come through one of them."""
    settings = session_world.gateway.settings
    changes = {
        "mongo_database": settings.mongo_database,
        "trusted_proxies": "10.0.0.0/8, 127.0.0.1/32",
        "certificate_header": HEADER,
    }
    async with asynccontextmanager(running_world)(make_settings(settings.mongo_url, **changes)) as world:
        yield world


def through(world: World, client: tuple[str, int]) -> httpx.AsyncClient:
    """A connection from this peer."""
    app = world.http._transport.app  # type: ignore[attr-defined]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=client), base_url=BASE)


async def ask_bound(world: World, client: str, **headers: str) -> httpx.Response:
    form = asked_with(assertion(client, world.clock()), grant_type="client_credentials", scope="system/Observation.rs")
    return await ask(world, form, **headers)


@pytest.mark.parametrize("written", [rfc9440, escaped_pem])
def test_the_thumbprint_is_that_of_the_certificate_however_it_is_written(written: Any) -> None:
    assert thumbprint(written("a").encode()) == x5t("a")


@pytest.mark.parametrize(
    "value",
    ["", ":", "::", ":AAA:", ":é:", "-----BEGIN", "%", "%FF", NO_CERTIFICATE, "x" * 20_000],
)
def test_what_is_no_certificate_has_no_thumbprint(value: str) -> None:
    assert thumbprint(value.encode()) is None


@pytest.mark.requirement("SEC-027")
async def test_a_bound_token_is_good_with_its_certificate_only(behind: World) -> None:
    owner = await behind.patient()
    system = await register(behind, certificate_bound=True)
    assert error_of(await ask_bound(behind, system.id)) == (401, "invalid_client")
    answer = await ask_bound(behind, system.id, **{HEADER: rfc9440("a")})
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    [stored] = await behind.stored("tokens", client=system.id)
    assert stored["certificate"] == x5t("a")
    actor, never = Actor(behind.http, token, system.reference), Actor(behind.http, "gwat_nobody", "")
    await behind.consent(owner, actor)
    search = f"Observation?patient={owner.patient}"
    reading = await owner.create(observation(owner.patient))
    for value in (rfc9440("a"), escaped_pem("a")):
        found = await actor.get(search, **{HEADER.replace("-", "_"): value})
        assert [entry["resource"]["id"] for entry in found.json()["entry"]] == [reading["id"]]
    unknown = await never.get(search)
    for headers in ({}, {HEADER: rfc9440("b")}, {HEADER: ""}, {HEADER: ":AAAA:"}, {HEADER: x5t("a")}):
        refused = await actor.get(search, **{name.replace("-", "_"): value for name, value in headers.items()})
        assert (refused.status_code, refused.content) == (401, unknown.content)
        assert refused.headers["www-authenticate"] == unknown.headers["www-authenticate"]


@pytest.mark.requirement("SEC-027", "SEC-048")
async def test_a_certificate_that_somebody_else_claims_counts_for_nothing(behind: World) -> None:
    system = await register(behind, certificate_bound=True)
    token = (await ask_bound(behind, system.id, **{HEADER: rfc9440("a")})).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}", HEADER: rfc9440("a")}
    path = f"{BASE}/Observation?patient=abc-nobody"
    async with through(behind, STRANGER) as stranger, through(behind, PROXY) as proxy:
        assert (await proxy.get(path, headers=headers)).status_code == 200
        assert (await stranger.get(path, headers=headers)).status_code == 401
        # Through the proxy it takes one header, and that is the proxy's: a second one is somebody else's.
        twice = [*headers.items(), (HEADER, rfc9440("b"))]
        assert (await proxy.get(path, headers=twice)).status_code == 401
        form = asked_with(assertion(system.id, behind.clock()), grant_type="client_credentials", scope="system/Observation.rs")
        refused = await stranger.post(f"{SITE}/oauth/token", data=form, headers={HEADER: rfc9440("a")})
        assert error_of(refused) == (401, "invalid_client")


@pytest.mark.requirement("SEC-048", "ATK-T38")
@pytest.mark.parametrize(("peer", "seen"), [(STRANGER, STRANGER[0]), (PROXY, "198.51.100.7")])
async def test_where_a_request_came_from_is_what_a_trusted_proxy_says(behind: World, peer: tuple[str, int], seen: str) -> None:
    owner = await behind.patient()
    forged = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    async with through(behind, peer) as http:
        answer = await Actor(http, owner.token, "").get("Observation", **{k.replace("-", "_"): v for k, v in forged.items()})
    assert (answer.status_code, "evil.example" in answer.text) == (200, False)
    [event] = await owner.search("AuditEvent?subtype=search-type")
    assert event["agent"][0]["network"]["address"] == seen


@pytest.mark.requirement("SEC-024", "SEC-027")
async def test_introspection_tells_resource_servers_what_a_token_is_bound_to(behind: World) -> None:
    owner, system = await behind.patient(), await register(behind, certificate_bound=True)
    server = await register(behind, introspects=True)
    await behind.consent(owner, Actor(behind.http, "", system.reference))
    token = (await ask_bound(behind, system.id, **{HEADER: rfc9440("a")})).json()["access_token"]
    told = (await ask(behind, asked_with(assertion(server.id, behind.clock()), token=token), "/oauth/introspect")).json()
    assert told["active"] is True
    assert told["cnf"] == {"x5t#S256": x5t("a")}
    free = (await ask_bound(behind, (await register(behind)).id, **{HEADER: rfc9440("a")})).json()["access_token"]
    told = (await ask(behind, asked_with(assertion(server.id, behind.clock()), token=free), "/oauth/introspect")).json()
    assert "cnf" not in told


@pytest.mark.requirement("SEC-027")
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/oauth/launch"), ("POST", "/oauth/introspect"), ("GET", "/fhir/Observation")]
)
async def test_wherever_a_token_is_borne_its_certificate_is_asked_for(behind: World, method: str, path: str) -> None:
    owner, doctor = await behind.patient(), await behind.professional()
    await behind.gateway.mongo.change("tokens", {"_id": token_key(doctor.token)}, {"$set": {"certificate": x5t("a")}})
    bodies: dict[str, dict[str, Any]] = {
        "/oauth/launch": {"json": {"patient": owner.patient}},
        "/oauth/introspect": {"data": {"token": "x"}},
        "/fhir/Observation": {"params": {"patient": owner.patient}},
    }
    headers = {"Authorization": f"Bearer {doctor.token}"}
    for shown, is_let_in in (("a", True), ("b", False), ("", False)):
        sent = {**headers, **({HEADER: rfc9440(shown)} if shown else {})}
        answer = await behind.http.request(method, f"{SITE}{path}", headers=sent, **bodies[path])
        assert (answer.status_code != 401) is is_let_in, (path, shown, answer.text)


@pytest.mark.requirement("SEC-001")
async def test_certificates_are_offered_where_there_is_a_proxy_to_verify_them(behind: World, world: World) -> None:
    place, name = "/.well-known/oauth-authorization-server", "tls_client_certificate_bound_access_tokens"
    assert (await get_json(behind, place))[name] is True
    assert name not in await get_json(world, place)
    system = await register(world, certificate_bound=True)
    assert error_of(await ask_bound(world, system.id, **{HEADER: rfc9440("a")})) == (401, "invalid_client")


@pytest.mark.requirement("SEC-027")
async def test_tokens_that_come_from_a_person_s_approval_are_bound_too(behind: World) -> None:
    owner, app = await behind.patient(), await register_app(behind, certificate_bound=True)
    request, code = await paired(behind, owner, app)
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": request.verifier}
    form["client_id"] = app.id
    assert error_of(await ask(behind, form)) == (401, "invalid_client")  # and the code is still good
    answer = (await ask(behind, form, **{HEADER: rfc9440("phone")})).json()
    again = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"], "client_id": app.id}
    assert error_of(await ask(behind, again)) == (401, "invalid_client")
    for body in (answer, (await ask(behind, again, **{HEADER: rfc9440("phone")})).json()):
        actor = Actor(behind.http, body["access_token"], app.reference)
        assert (await actor.get("Observation", Client_Cert=rfc9440("phone"))).status_code == 200
        assert (await actor.get("Observation")).status_code == 401
