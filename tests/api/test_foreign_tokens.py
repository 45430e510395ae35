"""Tokens of other issuers, the whole way: a provider process issues them, a gateway process takes them through the one door."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import make_settings, running_world
from tests.process import LOOPBACK, Provider, ToPort, environment, free_port, provider_at, run, running_provider, serving
from tests.security.test_certificates import rfc9440, x5t
from tests.world import BASE, Actor, World, device, issues, observation, organization, practitioner, unique

INS, RPPS = "urn:oid:1.2.250.1.213.1.4.10", "https://rpps.esante.gouv.fr"
KINDS = ["clinic", "realm", "psc"]
ANYTHING = "Organization?_count=1"  # what every professional may ask

CLINIC = """
issuer = "{issuer}"
[jwt]
keys = "{jwks_uri}"
[scopes]
smart = true
[[caller]]
kind = "patient"
user = {{claim = "fhirUser", type = "Patient"}}
[[caller]]
kind = "professional"
user = {{claim = "fhirUser", type = "Practitioner"}}
"""
REALM = """
issuer = "{issuer}"
audience = "gateway"
[require]
typ = ["Bearer"]
[jwt]
keys = "{jwks_uri}"
types = ["JWT"]
refetch_seconds = 1
[scopes]
claims = ["scope", "realm_access.roles"]
[scopes.become]
"glucose:write" = ["patient/Observation.cr"]
"doctor" = ["user/*.rs"]
[[caller]]
kind = "app"
when = {{azp = ["glucoapp-mobile"]}}
source = "glucoapp"
actors = ["{device}"]
patient = {{claim = "ins", type = "Patient", system = "urn:oid:1.2.250.1.213.1.4.10"}}
[[caller]]
kind = "professional"
when = {{"realm_access.roles" = ["doctor"]}}
user = {{claim = "rpps", type = "Practitioner", system = "https://rpps.esante.gouv.fr"}}
[[caller]]
kind = "service"
when = {{azp = ["appointments"]}}
actors = ["{organization}"]
scopes = ["user/Observation.rs"]
"""
PSC = """
issuer = "{issuer}"
audience = "any"
[require]
typ = ["Bearer"]
azp = ["medisoft"]
[introspection]
endpoint = "{introspection_endpoint}"
client = "gateway"
secret_file = "secret"
prefix = "psc_"
[[caller]]
kind = "professional"
user = {{claim = "SubjectNameID", type = "Practitioner", system = "https://rpps.esante.gouv.fr"}}
scopes = ["user/*.rs"]
"""


async def write_files(provider: Provider, folder: Path, **names: str) -> Path:
    """The files that a gateway reads about the three issuers, from what they tell of themselves."""
    for name, text in (("clinic", CLINIC), ("realm", REALM), ("psc", PSC)):
        told = (await provider.http.get(f"{provider.url}/{name}/.well-known/openid-configuration")).json()
        (folder / f"{name}.toml").write_text(text.format(**told, **names), "utf-8")
    (folder / "secret").write_text("gateway\n", "utf-8")
    return folder


@dataclass(slots=True)
class TokenScene:
    """A gateway that takes the provider's tokens. `world` brings people past it; `http` speaks to it."""

    world: World
    http: httpx.AsyncClient
    provider: Provider
    organization: str
    device: str

    def bearer(self, token: str, reference: str = "", patient: str = "") -> Actor:
        """Somebody with this token."""
        return Actor(self.http, token, reference, patient)

    async def doctor(self, issuer: str, **says: Any) -> tuple[Actor, str]:
        """A Practitioner who logged in at an issuer, and the name of the account there."""
        created = await self.world.operator.create(practitioner())
        name, number = unique("doctor"), created["identifier"][0]["value"]
        reference = f"Practitioner/{created['id']}"
        said: dict[str, dict[str, Any]] = {
            "clinic": {"fhirUser": reference, "aud": BASE},
            "realm": {"rpps": number, "realm_access": {"roles": ["doctor", "uma_authorization"]}},
            "psc": {"SubjectNameID": number},
        }
        tokens = await self.provider.login(issuer, name, scope="openid user/*.rs", says=said[issuer] | says)
        return self.bearer(tokens["access_token"], reference), name


@pytest.fixture(scope="module")
async def scene(session_world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TokenScene]:
    of = session_world
    references = {
        "device": f"Device/{(await of.operator.create(device()))['id']}",
        "organization": f"Organization/{(await of.operator.create(organization()))['id']}",
    }
    ports = free_port(), free_port()
    with running_provider(ports[0]):
        async with provider_at(ports[0]) as provider, httpx.AsyncClient(transport=ToPort(ports[1])) as http:
            env = environment(
                of.gateway.settings.mongo_url,
                GATEWAY_MONGO_DATABASE=of.gateway.settings.mongo_database,
                GATEWAY_BASE_URL=BASE,
                GATEWAY_ISSUERS=str(await write_files(provider, tmp_path_factory.mktemp("issuers"), **references)),
                GATEWAY_OUTBOUND_NETWORKS=LOOPBACK,
                GATEWAY_TRUSTED_PROXIES="127.0.0.1",
                GATEWAY_CERTIFICATE_HEADER="Client-Cert",
                GATEWAY_LOG_LEVEL="error",
            )
            with serving(env, ports[1]):
                yield TokenScene(of, http, provider, **references)


@pytest.mark.requirement("SEC-041", "SEC-042", "SEC-045", "CON-001")
@pytest.mark.parametrize("issuer", KINDS)
async def test_a_consent_opens_a_record_and_closes_it_and_the_patient_sees_who_came(scene: TokenScene, issuer: str) -> None:
    owner = await scene.world.patient()
    reading = await owner.create(observation(owner.patient))
    doctor, name = await scene.doctor(issuer)
    search, place = f"Observation?patient={owner.patient}", f"Observation/{reading['id']}"
    assert await doctor.search(search) == []
    given = await scene.world.consent(owner, doctor)
    assert [found["id"] for found in await doctor.search(search)] == [reading["id"]]
    assert (await doctor.get(place)).status_code == 200
    await scene.world.revoke(owner, given)
    assert await doctor.search(search) == []
    gone, never = await doctor.get(place), await doctor.get(f"Observation/{owner.patient[:3]}-never")
    assert (gone.status_code, gone.content) == (never.status_code, never.content)

    subject = {"system": f"{scene.provider.url}/{issuer}", "value": f"account-{name}"}
    events = await owner.search(f"AuditEvent?agent:identifier={subject['system']}|{subject['value']}&_count=10")
    assert sorted(event["outcome"] for event in events) == ["0", "0", "8", "8", "8"]
    for event in events:
        client, _, user = event["agent"]
        assert user["who"] == {"reference": doctor.reference, "identifier": subject}
        assert client["who"]["identifier"]["value"] == f"{issuer}:medisoft"


@pytest.mark.requirement("SEC-041")
async def test_the_door_is_the_same_as_for_a_token_of_ours(scene: TokenScene) -> None:
    owner, stranger = await scene.world.patient(), await scene.world.patient()
    seen = await owner.create(observation(owner.patient))
    unseen = await stranger.create(observation(stranger.patient))
    theirs, _ = await scene.doctor("clinic")
    await scene.world.consent(owner, theirs)
    ours = await scene.world.actor("professional", "openid user/*.rs", "medisoft", theirs.reference, user=theirs.reference)
    for method, path, body in (
        ("GET", f"Observation/{seen['id']}", None),
        ("GET", f"Observation/{unseen['id']}", None),
        ("GET", f"Observation?patient={owner.patient}", None),
        ("GET", f"Observation?patient={stranger.patient}", None),
        ("GET", f"Observation?patient={owner.patient}&cod=1", None),
        ("GET", f"Patient/{owner.patient}", None),
        ("GET", f"Consent?patient={owner.patient}", None),
        ("GET", f"AuditEvent?patient={owner.patient}", None),
        ("POST", "Observation", observation(owner.patient)),
        ("DELETE", f"Observation/{seen['id']}", None),
        ("GET", "Foo/1", None),
    ):
        answers = [await scene.world.bearer(ours).send(method, path, body), await theirs.send(method, path, body)]
        told = [(a.status_code, a.content, a.headers.get("www-authenticate"), a.headers.get("etag")) for a in answers]
        assert told[0] == told[1], path


@pytest.mark.requirement("SEC-041")
async def test_a_patient_who_logged_in_elsewhere_has_their_own_record_only(scene: TokenScene) -> None:
    owner, stranger = await scene.world.patient(), await scene.world.patient()
    reading = await owner.create(observation(owner.patient))
    says = {"fhirUser": f"{BASE}/Patient/{owner.patient}", "aud": BASE}
    tokens = await scene.provider.login("clinic", unique("patient"), "portal", "openid fhirUser patient/*.rs", says)
    actor = scene.bearer(tokens["access_token"], f"Patient/{owner.patient}", owner.patient)
    assert [found["id"] for found in await actor.search("Observation")] == [reading["id"]]
    assert (await actor.get(f"Patient/{owner.patient}")).status_code == 200
    assert (await actor.get(f"Patient/{stranger.patient}")).status_code == 404
    assert (await actor.post("Observation", observation(owner.patient))).status_code == 403


async def test_an_app_deposits_for_the_patient_whom_its_token_names(scene: TokenScene) -> None:
    owner, stranger = await scene.world.patient(), await scene.world.patient()
    [identifier] = (await owner.get(f"Patient/{owner.patient}")).json()["identifier"]
    assert identifier["system"] == INS
    tokens = await scene.provider.login(
        "realm", unique("patient"), "glucoapp-mobile", "openid glucose:write", {"ins": identifier["value"]}
    )
    app = scene.bearer(tokens["access_token"], scene.device, owner.patient)
    assert (await app.post("Observation", observation(owner.patient))).status_code == 422  # as for nobody
    await scene.world.consent(owner, app, "collect")
    created = await app.create(observation(owner.patient))
    [stored] = await scene.world.stored("Observation", _id=created["id"])
    assert (stored["source"], stored["patient"]) == ("glucoapp", owner.patient)
    assert (await app.post("Observation", observation(stranger.patient))).status_code == 422
    # Its word became creating and reading readings; nothing else.
    assert (await app.get("Device")).status_code == 403
    assert (await app.delete(f"Observation/{created['id']}")).status_code == 403


async def test_a_service_comes_by_itself(scene: TokenScene) -> None:
    owner = await scene.world.patient()
    reading = await owner.create(observation(owner.patient))
    token = (await scene.provider.login("realm", None, "appointments"))["access_token"]
    service = scene.bearer(token, scene.organization)
    assert await service.search(f"Observation?patient={owner.patient}") == []
    await scene.world.consent(owner, service)
    assert [found["id"] for found in await service.search(f"Observation?patient={owner.patient}")] == [reading["id"]]
    [event, *_] = await owner.search("AuditEvent?_sort=-_lastUpdated&_count=1&subtype=search-type")
    assert {"system": f"{scene.provider.url}/realm", "value": "service-account-appointments"} in [
        agent["who"].get("identifier") for agent in event["agent"]
    ]


@pytest.mark.requirement("SEC-041")
async def test_a_token_says_nothing_that_its_table_does_not_map(scene: TokenScene) -> None:
    owner = await scene.world.patient()
    grand = {
        "scope": "system/*.cruds user/*.cruds doctor",
        "kind": "operator",
        "actors": [f"Patient/{owner.patient}"],
        "source": "glucoapp",
        "patient": owner.patient,
        "purpose": "http://terminology.hl7.org/CodeSystem/v3-ActReason|ETREAT",
    }
    for issuer in ("realm", "psc"):  # of neither do SMART scopes mean what they say
        doctor, _ = await scene.doctor(issuer, **grand)
        assert await doctor.search(f"Observation?patient={owner.patient}") == []
        for path, body in (("Observation", observation(owner.patient)), ("Patient", {"resourceType": "Patient"})):
            answer = await doctor.post(path, body)
            assert (answer.status_code, 'error="insufficient_scope"' in answer.headers["www-authenticate"]) == (403, True)
    doctor, _ = await scene.doctor("clinic", **grand)  # there they do; and a professional stays one
    answer = await doctor.post("Patient", {"resourceType": "Patient"})
    assert (answer.status_code, issues(answer)[0]["code"]) == (403, "forbidden")
    assert "professional" in answer.text
    assert await doctor.search(f"Observation?patient={owner.patient}") == []


@pytest.mark.parametrize(
    ("issuer", "says", "reason"),
    [
        ("realm", {"realm_access": {"roles": ["clerk"]}}, "tokens of this kind have no access here"),
        ("realm", {"realm_access": "doctor"}, "tokens of this kind have no access here"),
        ("realm", {"rpps": "0"}, "the Practitioner whom the token names is not known here"),
        ("psc", {"SubjectNameID": "0"}, "the Practitioner whom the token names is not known here"),
        ("psc", {"SubjectNameID": None}, "tokens of this kind have no access here"),
        ("clinic", {"fhirUser": "Device/x"}, "tokens of this kind have no access here"),
    ],
)
async def test_whom_nobody_knows_has_no_access(scene: TokenScene, issuer: str, says: dict[str, Any], reason: str) -> None:
    doctor, _ = await scene.doctor(issuer, **says)
    answer = await doctor.get(ANYTHING)
    assert (answer.status_code, issues(answer)[0]["diagnostics"]) == (403, reason)


@pytest.mark.requirement("SEC-040", "SEC-041", "SEC-042", "ATK-T25")
async def test_whatever_does_not_hold_is_answered_like_a_token_nobody_issued(scene: TokenScene) -> None:
    doctor, name = await scene.doctor("realm")
    tokens = await scene.provider.login("realm", name, says={"rpps": "1", "realm_access": {"roles": ["doctor"]}})
    other, _ = await scene.doctor("clinic", aud="https://other.example/fhir")
    psc, _ = await scene.doctor("psc", azp="othersoft")
    unknown = await scene.bearer("gwat_nobody").get(ANYTHING)
    assert unknown.status_code == 401
    head, claims, signature = doctor.token.split(".")
    for token in (
        tokens["id_token"],
        tokens["refresh_token"],
        other.token,
        psc.token,
        "psc_nobody",
        f"{head}.{claims}.{signature[:-8]}AAAAAAAA",
        f"{head}.{claims}.",
        f"{head}.{other.token.split('.')[1]}.{signature}",
    ):
        answer = await scene.bearer(token).get(ANYTHING)
        assert (answer.status_code, answer.content) == (401, unknown.content)
        assert answer.headers["www-authenticate"] == 'Bearer realm="fhir", error="invalid_token"'
    assert (await doctor.get(ANYTHING)).status_code == 200


@pytest.mark.requirement("SEC-027")
@pytest.mark.parametrize("issuer", KINDS)
async def test_a_token_that_its_issuer_bound_to_a_certificate_is_good_with_that_only(scene: TokenScene, issuer: str) -> None:
    doctor, _ = await scene.doctor(issuer, cnf={"x5t#S256": x5t("a")})
    assert (await doctor.get(ANYTHING, Client_Cert=rfc9440("a"))).status_code == 200
    unknown = await scene.bearer("gwat_nobody").get(ANYTHING)
    for headers in ({}, {"Client_Cert": rfc9440("b")}):
        answer = await doctor.get(ANYTHING, **headers)
        assert (answer.status_code, answer.content) == (401, unknown.content)
    other, _ = await scene.doctor(issuer, cnf={"jkt": "x"})
    assert (await other.get(ANYTHING, Client_Cert=rfc9440("a"))).status_code == 401


@pytest.mark.requirement("SEC-045")
async def test_a_token_ended_at_its_issuer_ends_here(scene: TokenScene) -> None:
    doctor, _ = await scene.doctor("psc")
    assert (await doctor.get(ANYTHING)).status_code == 200
    ended = await scene.provider.http.post(
        f"{scene.provider.url}/psc/revoke", data={"token": doctor.token}, auth=("medisoft", "medisoft")
    )
    assert ended.status_code == 200
    assert (await doctor.get(ANYTHING)).status_code == 401


@pytest.mark.requirement("SEC-043", "SEC-044")
async def test_an_issuer_signs_with_a_new_key(scene: TokenScene) -> None:
    before, _ = await scene.doctor("realm")
    assert (await before.get(ANYTHING)).status_code == 200
    await scene.provider.http.post(f"{scene.provider.url}/realm/rotate")
    after, _ = await scene.doctor("realm")
    async with asyncio.timeout(20):  # the gateway asks at most once a second, as the file says
        while (answer := await after.get(ANYTHING)).status_code != 200:
            assert answer.status_code == 401
            await asyncio.sleep(0.1)
    assert (await before.get(ANYTHING)).status_code == 200


@pytest.mark.requirement("SEC-041")
async def test_nobody_is_asked_about_our_own_tokens(scene: TokenScene) -> None:
    doctor, _ = await scene.doctor("psc")
    before = [await scene.provider.asked(issuer) for issuer in KINDS]
    own = scene.world.bearer(await scene.world.patient())
    own.http = scene.http
    assert (await own.get(ANYTHING)).status_code == 200
    for token in ("gwat_nobody", "gwat_psc_nobody", "demo-app", "opaque"):
        assert (await scene.bearer(token).get(ANYTHING)).status_code == 401
    assert [await scene.provider.asked(issuer) for issuer in KINDS] == before
    assert (await doctor.get(ANYTHING)).status_code == 200
    assert (await scene.provider.asked("psc"))["introspect"] == before[2].get("introspect", 0) + 1


@pytest.mark.requirement("SEC-043", "SEC-045")
async def test_an_issuer_that_is_down_and_comes_back_with_other_keys(scene: TokenScene, tmp_path: Path) -> None:
    port, settings = free_port(), scene.world.gateway.settings
    names = {"device": scene.device, "organization": scene.organization}
    changes = {"mongo_database": settings.mongo_database, "issuers": tmp_path, "outbound_networks": LOOPBACK}
    async with provider_at(port) as provider:
        with running_provider(port) as process:
            await write_files(provider, tmp_path, **names)
            async with asynccontextmanager(running_world)(make_settings(settings.mongo_url, **changes)) as world:
                here = TokenScene(scene.world, world.http, provider, **names)
                signed, asked = (await here.doctor("clinic"))[0], (await here.doctor("psc"))[0]
                assert [(await actor.get(ANYTHING)).status_code for actor in (signed, asked)] == [200, 200]
                process.kill()
                process.wait()
                assert (await signed.get(ANYTHING)).status_code == 200  # its keys are known
                answer = await asked.get(ANYTHING)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert issues(answer)[0]["diagnostics"] == "the issuer of this token cannot be asked at the moment"
                with running_provider(port):
                    renewed = (await here.doctor("clinic"))[0]
                    assert (await renewed.get(ANYTHING)).status_code == 401  # asked for less than half a minute ago
                    world.clock.ahead = timedelta(seconds=31)
                    assert (await renewed.get(ANYTHING)).status_code == 200
                    assert (await signed.get(ANYTHING)).status_code == 401  # its key is no longer published


async def test_check_says_whether_the_issuers_answer(scene: TokenScene, tmp_path: Path) -> None:
    folder = await write_files(scene.provider, tmp_path, device=scene.device, organization=scene.organization)
    env = environment(None, GATEWAY_ISSUERS=str(folder), GATEWAY_OUTBOUND_NETWORKS=LOOPBACK)
    ended = run("check", "--call-issuers", env=env)
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert [re.sub(r"[12] usable", "some usable", line) for line in lines if line.startswith("issuer")] == [
        "issuers: clinic, psc, realm",
        "issuer clinic: some usable keys",
        "issuer psc: answers",
        "issuer realm: some usable keys",
    ]
    (folder / "secret").write_text("not-the-gateway", "utf-8")
    ended = run("check", "--call-issuers", env=env)
    assert (ended.returncode, "issuer psc: no usable answer: status 401" in ended.stdout) == (1, True)
    assert run("check", env=env).returncode == 0
