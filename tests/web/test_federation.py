"""Logging in with an OpenID provider, the whole way: a provider process, a gateway process, and browsers between them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from gateway.exchange.accounts import Session, find_session
from tests.browser import browsing
from tests.conftest import make_settings, running_world
from tests.decisions import Request, allow, register_app
from tests.person import Page, Person
from tests.process import LOOPBACK, Provider, environment, free_port, provider_at, run, running_provider, serving
from tests.web.test_browser import SIZES, fits, pictures
from tests.world import World, organization, practitioner, related_person, unique

INS, PRACTITIONERS, PLACES = (f"urn:oid:1.2.250.1.{oid}" for oid in ("213.1.4.10", "71.4.2.1", "71.4.2.2"))
PROFESSIONS = "urn:oid:1.2.250.1.213.1.1.5.5"

ENDPOINTS = """
issuer = "{issuer}"
client = "gateway"
secret_file = "secret"
{more}
[endpoints]
authorization = "{authorization_endpoint}"
token = "{token_endpoint}"
userinfo = "{userinfo_endpoint}"
end_session = "{end_session_endpoint}"
[id_token]
keys = "{jwks_uri}"
"""
REALM = f"""
[require]
typ = ["ID"]
[[person]]
kind = "patient"
user = {{claim = "ins", type = "Patient", system = "{INS}"}}
[[person]]
kind = "proxy"
user = {{claim = "ins", type = "RelatedPerson", system = "{INS}"}}
"""
PSC = f"""
[[person]]
kind = "professional"
user = {{claim = "SubjectNameID", type = "Practitioner", system = "{PRACTITIONERS}"}}
organization = {{claim = "SubjectOrganizationID", type = "Organization", system = "{PLACES}"}}
role = {{claim = "SubjectRole"}}
"""
REALM_MORE = 'name = {en = "the region", fr = "la région"}\nauthentication = "client_secret_post"\nsays_issuer = true'
PSC_MORE = 'name = "Pro Santé Connect"\nscopes = ["openid", "scope_all"]\nacr = ["eidas1"]'


async def write_files(provider: Provider, folder: Path) -> Path:
    """The files that a gateway reads about the two providers, from what they tell of themselves."""
    for name, more, people in (("realm", REALM_MORE, REALM), ("psc", PSC_MORE, PSC)):
        told = (await provider.http.get(f"{provider.url}/{name}/.well-known/openid-configuration")).json()
        endpoints = ENDPOINTS.format(more=more, **told)
        if name == "realm":
            endpoints = "".join(line for line in endpoints.splitlines(True) if not line.startswith("userinfo"))
        (folder / f"{name}.toml").write_text(endpoints + people, "utf-8")
    (folder / "secret").write_text("gateway\n", "utf-8")
    return folder


@dataclass(slots=True)
class LoginScene:
    """A gateway with two providers to log in with. `world` brings people past it."""

    world: World
    http: httpx.AsyncClient
    provider: Provider
    site: str
    folder: Path

    def person(self, language: str = "en") -> Person:
        return Person(self.http, self.site, language)

    async def account(self, issuer: str, **says: Any) -> str:
        """Somebody with an account at an issuer, which says this of them."""
        name = unique("account")
        answer = await self.provider.http.put(f"{self.provider.url}/{issuer}/people/{name}", json=says)
        assert answer.status_code == 200
        return name

    async def leave(self, person: Person, issuer: str, path: str = "/login") -> str:
        """Follow the button of the login page (whoever is in does not see that page); returns where that leads."""
        page = await person.open(path)
        links = [tag["href"] for name, tag in page.tags if name == "a" and f"/with/{issuer}" in tag.get("href", "")]
        await person.open(links[0] if page.answer.url.path == "/login" else f"/login/with/{issuer}")
        assert person.last.status_code == 303
        return str(person.last.headers["location"])

    async def answer(self, away: str, name: str, password: str | None = None) -> str:
        """Log in at the provider; returns where that sends the browser back to."""
        elsewhere = Person(self.provider.http, self.provider.url)
        page = await elsewhere.open(away)
        await elsewhere.send(page.forms[0], username=name, password=name if password is None else password)
        assert elsewhere.last.status_code == 302, elsewhere.last.text
        return str(elsewhere.last.headers["location"])

    async def log_in(self, person: Person, issuer: str, name: str, path: str = "/login") -> Page:
        return await person.open(await self.answer(await self.leave(person, issuer, path), name))

    async def session(self, person: Person) -> Session | None:
        return await find_session(self.world.gateway, person.cookies["session"])

    async def patient(self) -> tuple[str, str]:
        """The reference of a new patient, and an account of theirs at the realm."""
        owner = await self.world.patient()
        [identifier] = (await owner.get(f"Patient/{owner.patient}")).json()["identifier"]
        return owner.reference, await self.account("realm", ins=identifier["value"], name="Camille Durand")


@asynccontextmanager
async def standing(session_world: World, folder: Path, host: str = "127.0.0.1") -> AsyncIterator[LoginScene]:
    """A provider process and a gateway process, which browsers know by this name."""
    ports = free_port(), free_port()
    with running_provider(ports[0]):
        async with provider_at(ports[0]) as provider, httpx.AsyncClient() as http:
            env = environment(
                session_world.gateway.settings.mongo_url,
                GATEWAY_MONGO_DATABASE=session_world.gateway.settings.mongo_database,
                GATEWAY_BASE_URL=f"http://{host}:{ports[1]}/fhir",
                GATEWAY_PROVIDERS=str(await write_files(provider, folder)),
                GATEWAY_OUTBOUND_NETWORKS=LOOPBACK,
                GATEWAY_LOCAL_LOGIN="off",
                GATEWAY_LOG_LEVEL="error",
            )
            with serving(env, ports[1]):
                yield LoginScene(session_world, http, provider, f"http://{host}:{ports[1]}", folder)


@pytest.fixture(scope="module")
async def scene(session_world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LoginScene]:
    async with standing(session_world, tmp_path_factory.mktemp("providers")) as found:
        yield found


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


async def test_a_patient_logs_in_with_the_realm_and_is_known_by_their_identifier(scene: LoginScene) -> None:
    reference, name = await scene.patient()
    camille = scene.person()
    await camille.open("/login")
    before = camille.cookies["session"]
    page = await scene.log_in(camille, "realm", name, "/login?other=abc&ui_locales=en")
    assert (page.status, str(page.answer.url)) == (200, f"{scene.site}/me?ui_locales=en")
    assert "Camille Durand" in page.text
    assert camille.cookies["session"] != before
    session = await scene.session(camille)
    assert session is not None
    assert (session.references, session.level, session.is_operator) == ((reference,), "realm", False)


@pytest.mark.requirement("ATK-T28")
async def test_a_name_that_a_provider_tells_is_text_and_no_more(scene: LoginScene) -> None:
    reference, _ = await scene.patient()
    [identifier] = (await scene.world.operator.get(reference)).json()["identifier"]
    name = "<script>alert(1)</script>\u202eeliamac\u0007 " + "x" * 500
    page = await scene.log_in(scene.person(), "realm", await scene.account("realm", ins=identifier["value"], name=name))
    assert page.status == 200
    assert "<script" not in page.answer.text
    assert "\u202e" not in page.answer.text
    assert "<script>alert(1)</script>eliamac" in page.text
    assert "x" * 101 not in page.text


async def test_a_carer_has_their_own_record_and_those_of_whom_they_care_for(scene: LoginScene) -> None:
    number, children = unique("9"), [await scene.world.patient() for _ in range(2)]
    identifier = [{"system": INS, "value": number}]
    me = await scene.world.patient(identifier=identifier)
    carer = [related_person(child.patient, identifier=identifier) for child in children]
    ids = sorted([(await scene.world.operator.create(one))["id"] for one in carer])
    past = related_person((await scene.world.patient()).patient, identifier=identifier, active=False)
    await scene.world.operator.create(past)
    person = scene.person()
    await scene.log_in(person, "realm", await scene.account("realm", ins=number))
    session = await scene.session(person)
    assert session is not None
    assert session.references == (me.reference, *(f"RelatedPerson/{identifier}" for identifier in ids))


@pytest.mark.parametrize("known", ["role", "place", "nothing"])
async def test_a_professional_logs_in_with_pro_sante_connect(scene: LoginScene, known: str) -> None:
    number, place = unique("8"), unique("place")
    create = scene.world.operator.create
    martin = await create(practitioner(identifier=[{"system": PRACTITIONERS, "value": number}]))
    places: list[str] = []
    if known != "nothing":
        clinic = await create(organization(identifier=[{"system": PLACES, "value": place}]))
        for code, active in (("10", True), ("60", True), ("10", False)) if known == "role" else ():
            role = await create(
                {
                    "resourceType": "PractitionerRole",
                    "identifier": [{"system": "https://roles.example", "value": unique("role")}],
                    "active": active,
                    "practitioner": {"reference": f"Practitioner/{martin['id']}"},
                    "organization": {"reference": f"Organization/{clinic['id']}"},
                    "code": [{"coding": [{"system": PROFESSIONS, "code": code}]}],
                }
            )
            places += [f"PractitionerRole/{role['id']}"] if (code, active) == ("10", True) else []
        places.append(f"Organization/{clinic['id']}")
    name = await scene.account(
        "psc",
        SubjectNameID=number,
        SubjectRole=[f"10^{PROFESSIONS.removeprefix('urn:oid:')}"],
        SubjectOrganizationID=place,
        given_name="Alice",
        family_name="Specimen",
    )
    person = scene.person("fr")
    page = await scene.log_in(person, "psc", name)
    assert "Alice Specimen" in page.text
    session = await scene.session(person)
    assert session is not None
    assert (session.references, session.level) == ((f"Practitioner/{martin['id']}",), "psc:eidas1")
    assert session.workplaces == tuple(places)


async def test_what_pro_sante_connect_says_is_understood_as_it_says_it(scene: LoginScene, specifications: Path) -> None:
    said = json.loads((specifications / "psc" / "userinfo-sample.json").read_text("utf-8"))
    del said["sub"]  # is the provider's to say
    create = scene.world.operator.create
    martin = await create(practitioner(identifier=[{"system": PRACTITIONERS, "value": said["SubjectNameID"]}]))
    place = await create(organization(identifier=[{"system": PLACES, "value": said["SubjectOrganizationID"]}]))
    code, _, system = said["SubjectRole"][0].partition("^")
    role = await create(
        {
            "resourceType": "PractitionerRole",
            "identifier": [{"system": "https://roles.example", "value": unique("role")}],
            "practitioner": {"reference": f"Practitioner/{martin['id']}"},
            "organization": {"reference": f"Organization/{place['id']}"},
            "code": [{"coding": [{"system": f"urn:oid:{system}", "code": code}]}],
        }
    )
    person = scene.person()
    page = await scene.log_in(person, "psc", await scene.account("psc", **said))
    assert f"{said['given_name']} {said['family_name']}" in page.text
    session = await scene.session(person)
    assert session is not None
    assert session.references == (f"Practitioner/{martin['id']}",)
    assert session.workplaces == (f"PractitionerRole/{role['id']}", f"Organization/{place['id']}")


async def test_whom_an_app_has_sent_here_decides_about_it_and_the_consent_says_how_they_logged_in(scene: LoginScene) -> None:
    reference, name = await scene.patient()
    app = await register_app(scene.world)
    person, request = scene.person(), Request(app.id)
    page = await person.open(request.path(aud=f"{scene.site}/fhir"))
    assert "To decide what GlucoApp may do with your health record" in page.text
    page = await scene.log_in(person, "realm", name, f"/login?{page.answer.url.query.decode()}")
    assert (page.answer.url.path, "GlucoApp asks for access to your health record" in page.text) == (
        "/oauth/authorize/continue",
        True,
    )
    assert "code" in await allow(person, page, "read-Observation")
    [consent] = await (await scene.world.patient_actor(reference.partition("/")[2])).search("Consent")
    assert consent["extension"] == [{"url": f"{scene.site}/StructureDefinition/login-level", "valueCode": "realm"}]


@pytest.mark.parametrize(("said", "outcome"), [(0, 200), (-3_600, 400), (None, 400)])
async def test_who_is_to_log_in_again_does_so_at_the_provider(scene: LoginScene, said: int | None, outcome: int) -> None:
    reference, _ = await scene.patient()
    [identifier] = (await scene.world.operator.get(reference)).json()["identifier"]
    moment = {} if said is None else {"auth_time": int(scene.world.clock().timestamp()) + said}
    name = await scene.account("realm", ins=identifier["value"], id_token=moment)
    person = scene.person()
    away = await scene.leave(person, "realm", "/login?again=1")
    assert {key: query_of(away)[key] for key in ("prompt", "max_age")} == {"prompt": "login", "max_age": "0"}
    assert (await person.open(await scene.answer(away, name))).status == outcome


async def test_what_the_provider_is_asked(scene: LoginScene) -> None:
    away = [await scene.leave(scene.person(), "psc") for _ in range(2)]
    first, second = map(query_of, away)
    assert away[0].startswith(f"{scene.provider.url}/psc/authorize?")
    assert {name: value for name, value in first.items() if name not in ("state", "nonce", "code_challenge")} == {
        "response_type": "code",
        "client_id": "gateway",
        "redirect_uri": f"{scene.site}/login/callback/psc",
        "scope": "openid scope_all",
        "code_challenge_method": "S256",
        "acr_values": "eidas1",
        "ui_locales": "en",
    }
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) >= 43
        assert first[name] != second[name]


@pytest.mark.requirement("AUD-01")
async def test_the_log_of_the_patient_names_who_they_are_to_the_provider(scene: LoginScene) -> None:
    reference, name = await scene.patient()
    await scene.log_in(scene.person(), "realm", name)
    owner = await scene.world.patient_actor(reference.partition("/")[2])
    [event] = await owner.search("AuditEvent?subtype=http://dicom.nema.org/resources/ontology/DCM|110122")
    subject = {"system": f"{scene.provider.url}/realm", "value": f"account-{name}"}
    assert (event["outcome"], event["agent"][-1]["who"]) == ("0", {"reference": reference, "identifier": subject})


@pytest.mark.parametrize(
    ("language", "texts"), [("en", ("the region", "Log in with")), ("fr", ("la région", "Se connecter avec"))]
)
async def test_the_page_offers_the_providers_and_no_passwords_where_local_accounts_are_off(
    scene: LoginScene, language: str, texts: tuple[str, str]
) -> None:
    page = await scene.person(language).open("/login")
    offered = [tag["href"] for name, tag in page.tags if name == "a" and "/with/" in tag.get("href", "")]
    assert offered == ["/login/with/psc", "/login/with/realm"]
    assert all(f"{texts[1]} {title}" in page.text for title in (texts[0], "Pro Santé Connect"))
    assert page.forms == []
    assert (await scene.http.post(f"{scene.site}/login", data={"login": "a", "password": "b"})).status_code == 403


@pytest.mark.parametrize("language", ["en", "fr"])
async def test_whom_nobody_knows_here_is_told_so_and_is_not_in(scene: LoginScene, language: str) -> None:
    stranger = scene.person(language)
    page = await scene.log_in(stranger, "realm", await scene.account("realm", ins=unique("0")))
    assert page.status == 403
    assert {"en": "nobody of that identity is known here", "fr": "personne de cette identité n’est connu ici"}[
        language
    ] in page.text
    assert await scene.session(stranger) is None
    assert (await stranger.open("/me")).answer.url.path == "/login"


async def test_whoever_gives_up_at_the_provider_is_told_that_nothing_happened(scene: LoginScene) -> None:
    person = scene.person()
    page = await person.open(await scene.answer(await scene.leave(person, "psc", "/login?ui_locales=en"), "nobody", "x"))
    assert (page.status, "Nothing has been changed" in page.text) == (403, True)
    assert [tag["href"] for name, tag in page.tags if name == "a" and "button" in tag.get("class", "")] == [
        "/login?ui_locales=en"
    ]


@pytest.mark.requirement("ATK-T26", "ATK-T28")
@pytest.mark.parametrize(
    "attack",
    [
        "another browser",
        "no cookie",
        "the same answer again",
        "an invented state",
        "no state",
        "state of another provider",
        "another issuer",
        "no issuer",
        "a used code",
        "a code of another browser",
        "no code",
    ],
)
async def test_an_answer_is_good_once_for_the_browser_that_asked(scene: LoginScene, attack: str) -> None:
    _, name = await scene.patient()
    victim, attacker = scene.person(), scene.person()
    back = await scene.answer(await scene.leave(victim, "realm"), name)
    answer = query_of(back)
    assert answer["iss"] == f"{scene.provider.url}/realm"
    other = query_of(await scene.answer(await scene.leave(attacker, "realm"), name))
    path, person = "/login/callback/realm", victim
    if attack == "another browser":
        person = attacker
    elif attack == "no cookie":
        victim.cookies.clear()
    elif attack in ("the same answer again", "a used code"):
        assert (await victim.open(back)).status == 200
        if attack == "a used code":
            answer["state"] = query_of(await scene.leave(victim, "realm"))["state"]
    elif attack == "state of another provider":
        path, answer["iss"] = "/login/callback/psc", f"{scene.provider.url}/psc"
    elif attack == "a code of another browser":
        answer["code"] = other["code"]
    else:
        key = {"invented": "state", "no state": "state", "another": "iss", "no issuer": "iss", "no code": "code"}
        name = next(value for start, value in key.items() if attack.removeprefix("an ").startswith(start))
        answer[name] = f"{scene.provider.url}/psc" if attack == "another issuer" else unique("x")
        if attack.startswith("no "):
            del answer[name]
    before = dict(person.cookies)
    page = await person.open(f"{path}?{httpx.QueryParams(answer)}")
    assert (page.status, "Begin again." in page.text) == (400, True)
    session = before.get("session")
    assert person.cookies.get("session") == session or session is None
    signed_in = attack in ("the same answer again", "a used code")
    assert (session is not None and await find_session(scene.world.gateway, session) is not None) == signed_in


@pytest.mark.requirement("ATK-T26")
async def test_of_many_who_come_with_one_answer_one_is_let_in(scene: LoginScene) -> None:
    _, name = await scene.patient()
    person = scene.person()
    back = await scene.answer(await scene.leave(person, "realm"), name)
    cookies = {"Cookie": f"session={person.cookies['session']}"}
    answers = await asyncio.gather(*(scene.http.get(back, headers=cookies) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [303, *[400] * 19]


@pytest.mark.requirement("ATK-T27")
@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "\r\nLocation: https://evil.example"]
)
async def test_nobody_is_led_off_this_site(scene: LoginScene, target: str) -> None:
    _, name = await scene.patient()
    person = scene.person()
    query = str(httpx.QueryParams({"next": target, "redirect_uri": target, "ui_locales": target}))
    await person.open("/login")
    away = await scene.leave(person, "realm", f"/login?{query}")
    assert query_of(away)["redirect_uri"] == f"{scene.site}/login/callback/realm"
    back = await scene.answer(away, name)
    answer = await scene.http.get(back, headers={"Cookie": f"session={person.cookies['session']}"})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/me?{urlencode({'ui_locales': target})}"
    for path in ("/login/with/evil", "/login/with/https:%2F%2Fevil.example", "/login/callback/evil?code=x&state=y"):
        assert (await person.open(path)).status == 404


@pytest.mark.requirement("ATK-T28")
async def test_a_session_that_was_there_before_ends_when_another_begins(scene: LoginScene) -> None:
    _, name = await scene.patient()
    _, other = await scene.patient()
    person = scene.person()
    await scene.log_in(person, "realm", name)
    before = person.cookies["session"]
    await scene.log_in(person, "realm", other)
    assert await find_session(scene.world.gateway, before) is None
    assert await scene.session(person) is not None


@pytest.mark.parametrize(
    ("issuer", "says"),
    [
        ("realm", {"id_token": {"nonce": "another"}}),
        ("realm", {"id_token": {"aud": "medisoft"}}),
        ("realm", {"id_token": {"aud": ["gateway", "medisoft"], "azp": "medisoft"}}),
        ("realm", {"id_token": {"iss": "https://id.example"}}),
        ("realm", {"id_token": {"typ": "Bearer"}}),
        ("realm", {"id_token": {"exp": 1}}),
        ("psc", {"id_token": {"acr": "eidas0"}}),
        ("psc", {"id_token": {"acr": ["eidas1"]}}),
        ("psc", {"userinfo": {"sub": "somebody-else"}}),
    ],
)
async def test_an_id_token_that_is_no_answer_lets_nobody_in(scene: LoginScene, issuer: str, says: dict[str, Any]) -> None:
    number = unique("8")
    identifier = {"realm": INS, "psc": PRACTITIONERS}[issuer]
    kind = {"realm": "Patient", "psc": "Practitioner"}[issuer]
    await scene.world.operator.create({"resourceType": kind, "identifier": [{"system": identifier, "value": number}]})
    sound = {"ins": number, "SubjectNameID": number}
    person = scene.person()
    assert (await scene.log_in(person, issuer, await scene.account(issuer, **sound))).status == 200
    page = await scene.log_in(scene.person(), issuer, await scene.account(issuer, **sound, **says))
    assert (page.status, "Begin again." in page.text) == (400, True)


async def test_an_operator_ends_what_somebody_has_open_wherever_they_logged_in(scene: LoginScene) -> None:
    reference, name = await scene.patient()
    _, other = await scene.patient()
    person, another, bystander = scene.person(), scene.person(), scene.person()
    for browser, account in ((person, name), (another, name), (bystander, other)):
        await scene.log_in(browser, "realm", account)
    settings = scene.world.gateway.settings
    env = environment(settings.mongo_url, GATEWAY_MONGO_DATABASE=settings.mongo_database)
    assert run("accounts", "log-out", reference, env=env).stdout == "2 sessions ended\n"
    assert [await scene.session(browser) for browser in (person, another)] == [None, None]
    assert await scene.session(bystander) is not None


async def test_who_logs_out_here_may_log_out_at_the_provider_too(scene: LoginScene) -> None:
    _, name = await scene.patient()
    person = scene.person()
    page = await person.send((await scene.log_in(person, "realm", name)).form("/logout"))
    assert (page.status, "You are still logged in with the region." in page.text) == (200, True)
    assert person.cookies["session"] == ""
    assert f"form-action 'self' {scene.provider.url}" in page.answer.headers["content-security-policy"]
    [form] = page.forms
    assert form.action == f"{scene.provider.url}/realm/logout"
    assert dict(form.fields)["post_logout_redirect_uri"] == f"{scene.site}/login"
    elsewhere = Person(scene.provider.http, scene.provider.url)
    await elsewhere.send(form)
    assert elsewhere.last.headers["location"] == f"{scene.site}/login"
    assert (await scene.provider.asked("realm"))[f"logout of account-{name}"] == 1


async def test_what_the_provider_gave_lies_nowhere_in_clear(scene: LoginScene) -> None:
    _, name = await scene.patient()
    person = scene.person()
    page = await person.send((await scene.log_in(person, "realm", name)).form("/logout"))
    token = dict(page.forms[0].fields)["id_token_hint"]
    another = scene.person()
    await scene.log_in(another, "realm", name)
    stored = str(await scene.world.stored("sessions", account=f"realm account-{name}"))
    assert "'provider': 'realm'" in stored
    for part in token.split("."):
        assert part not in stored


async def test_a_provider_that_does_not_answer_is_named_and_can_be_tried_again(scene: LoginScene, tmp_path: Path) -> None:
    port, settings = free_port(), scene.world.gateway.settings
    async with provider_at(port) as provider:
        with running_provider(port) as process:
            folder = await write_files(provider, tmp_path)
            changes = {
                "mongo_database": settings.mongo_database,
                "base_url": "http://127.0.0.1:1/fhir",
                "providers": folder,
                "outbound_networks": LOOPBACK,
                "local_login": "off",
            }
            async with asynccontextmanager(running_world)(make_settings(settings.mongo_url, **changes)) as world:
                here = LoginScene(scene.world, world.http, provider, "http://127.0.0.1:1", folder)
                _, name = await here.patient()
                person = here.person()
                back = await here.answer(await here.leave(person, "realm"), name)
                process.kill()
                process.wait()
                page = await person.open(back)
                assert (page.status, page.answer.headers["retry-after"]) == (503, "5")
                assert "At this moment, the region cannot be reached." in page.text


async def test_a_login_that_began_at_one_process_ends_at_another(scene: LoginScene) -> None:
    settings = scene.world.gateway.settings
    changes = {
        "mongo_database": settings.mongo_database,
        "base_url": f"{scene.site}/fhir",
        "providers": scene.folder,
        "outbound_networks": LOOPBACK,
        "local_login": "off",
    }
    async with asynccontextmanager(running_world)(make_settings(settings.mongo_url, **changes)) as other:
        _, name = await scene.patient()
        person = scene.person()
        back = await scene.answer(await scene.leave(person, "realm"), name)
        there = Person(other.http, scene.site)
        there.cookies = person.cookies
        assert "Camille Durand" in (await there.open(back)).text
    assert "Camille Durand" in (await person.open("/me")).text  # and goes on at the first


async def test_check_compares_the_files_with_what_the_providers_say_of_themselves(scene: LoginScene, tmp_path: Path) -> None:
    folder = await write_files(scene.provider, tmp_path)
    env = environment(None, GATEWAY_PROVIDERS=str(folder), GATEWAY_OUTBOUND_NETWORKS=LOOPBACK)
    ended = run("check", "--call-issuers", env=env)
    assert ended.returncode == 0, ended
    told = [line.replace("2 usable", "1 usable") for line in ended.stdout.splitlines() if line.startswith("provider")]
    assert told == ["providers: psc, realm", "provider psc: 1 usable keys", "provider realm: 1 usable keys"]
    text = (folder / "psc.toml").read_text("utf-8")
    (folder / "psc.toml").write_text(text.replace("/psc/token", "/psc/tokens"), "utf-8")
    ended = run("check", "--call-issuers", env=env)
    assert (ended.returncode, "provider psc: says otherwise: token_endpoint" in ended.stdout) == (1, True)
    assert run("check", env=env).returncode == 0


@pytest.fixture(scope="module")
async def abroad(session_world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LoginScene]:
    """The same, where the gateway has another name than the provider."""
    async with standing(session_world, tmp_path_factory.mktemp("providers"), "localhost") as found:
        yield found


@pytest.mark.parametrize("size", SIZES)
async def test_a_real_browser_goes_to_the_provider_and_comes_back(abroad: LoginScene, tmp_path: Path, size: str) -> None:
    """Another host is another site to a browser: the cookie comes along on the way back, and forms lead there if they may."""
    width, height, phone = SIZES[size]
    scene = abroad
    async with browsing(width, height, phone=phone) as browser:
        folder = pictures(tmp_path)
        _, name = await scene.patient()
        await browser.open(f"{scene.site}/login")
        await browser.picture(folder / f"{size}-providers.png")
        assert await fits(browser)
        await browser.go_on("a[href='/login/with/realm']")
        assert await browser.look("document.querySelector('h1').innerText") == "realm"
        await browser.type("#username", name)
        await browser.type("#password", name)
        await browser.go_on("form button")
        assert await browser.look("location.href") == f"{scene.site}/me"
        await browser.go_on("form[action='/logout'] button")
        await browser.picture(folder / f"{size}-logged-out.png")
        assert await fits(browser)
        await browser.go_on("main form button")
        assert await browser.look("location.href") == f"{scene.site}/login"
        assert (await scene.provider.asked("realm"))[f"logout of account-{name}"] == 1
        await browser.go_on("a[href='/login/with/realm']")
        await browser.type("#username", await scene.account("realm", ins=unique("0")))
        await browser.type("#password", await browser.look("document.querySelector('#username').value"))
        await browser.go_on("form button")
        await browser.picture(folder / f"{size}-unknown.png")
        assert "nobody of that identity is known here" in await browser.look("document.querySelector('main').innerText")
        assert await fits(browser)
        assert browser.refused == []
