"""Attacks on all that speaks OAuth or HTML: every address, whatever it is sent; every secret, wherever else it is shown."""

import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from gateway.oauth.routes import offered_routes
from gateway.problem import Problem
from gateway.web.routes import ROUTES
from tests.clients import SITE, Registered, ask, ask_token, asked_with, assertion, error_of, register
from tests.conftest import make_settings, running_world
from tests.decisions import CALLBACK, PASSWORD, Request, account_of, allow, arrive, paired, register_app
from tests.issuing import write_issuers
from tests.person import Person
from tests.unit.issuers.test_openid import PROVIDER
from tests.world import Actor, World, observation, unique

# (In the tests /fhir is the base: what lies below it and is not of FHIR is told by its path.)
ADDRESSES = sorted({(method, path) for method, path, _ in (*offered_routes(people=True), *ROUTES)})
PATHS = sorted({path for _, path in ADDRESSES})
CANARY = "c4n4ry"
HOSTILE: dict[str, list[tuple[str, str]]] = {
    "operators": [("client_id[$ne]", ""), ("request[$gt]", ""), ("code[$regex]", ".*"), ("login[$ne]", "x"), ("state[]", "x")],
    "objects": [(name, '{"$gt": ""}') for name in ("client_id", "request", "code", "state", "login", "password", "token")],
    "twice": [(name, value) for name in ("client_id", "code", "state", "request", "token") for value in ("a", "b")],
    "NUL and surrogates": [("client_id", "a\x00b"), ("state", "\x00"), ("request", "a\x00"), ("login", "\x00" * 5)],
    "markup": [
        (name, f'"><script>{CANARY}</script>') for name in ("client_id", "state", "request", "login", "iss", "ui_locales")
    ],
    "lines": [(name, f"x\r\nSet-Cookie: {CANARY}=1\r\n\r\n") for name in ("state", "redirect_uri", "request", "ui_locales")],
    "long": [(name, "a" * 3_000) for name in ("client_id", "request", "state")],
    "right to left": [("client_id", "\u202egro.elpmaxe"), ("login", "\u2066x\u2069"), ("state", "\u0000\u200b")],
    "nothing": [],
}


@pytest.fixture(scope="module")
async def site(session_world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A gateway with a provider to log in with, which nobody reaches."""
    settings = session_world.gateway.settings
    folder = write_issuers(tmp_path_factory.mktemp("providers"), portal=PROVIDER)
    changes = {"mongo_database": settings.mongo_database, "providers": folder}
    async with asynccontextmanager(running_world)(make_settings(settings.mongo_url, **changes)) as world:
        yield world


def filled(path: str) -> str:
    return path.replace("{provider}", "portal").replace("{name}", "x")


def answered_safely(answer: httpx.Response, path: str) -> None:
    """What holds for every answer of these addresses, whatever was asked."""
    assert answer.status_code < 500, (path, answer.status_code, answer.text)
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "script" not in headers["content-security-policy"]
    public = ("/assets/", "/.well-known/", "/oauth/jwks")
    if answer.status_code >= 400 or not any(part in path for part in public):
        assert headers["cache-control"] == "no-store", path
    assert CANARY not in str(headers.get_list("set-cookie"))
    assert f"<script>{CANARY}" not in answer.text
    location = headers.get("location", "")
    assert location.startswith(("/", "https://id.example/authorize?")) or not location
    assert not location.startswith("//")


@pytest.mark.requirement("ATK-T18", "ATK-T28", "ATK-T36", "ATK-T37")
@pytest.mark.parametrize("kind", HOSTILE)
async def test_no_address_fails_or_passes_on_what_it_is_sent(site: World, kind: str) -> None:
    query = urlencode(HOSTILE[kind])
    for method, path in ADDRESSES:
        answer = await site.http.request(method, f"{SITE}{filled(path)}?{query}"[:7_000])
        answered_safely(answer, path)
        if method == "POST":
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = await site.http.post(f"{SITE}{filled(path)}", content=query.encode(), headers=form)
            answered_safely(answer, path)


BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "JSON": (b'{"client_id": {"$ne": null}}', {"Content-Type": "application/json"}),
    "a million brackets": (b"[" * 1_000_000, {"Content-Type": "application/json"}),
    "a megabyte": (b"a=" + b"b" * 1_000_000, {"Content-Type": "application/x-www-form-urlencoded"}),
    "thousands of fields": (
        b"&".join(b"a%d=1" % n for n in range(5_000)),
        {"Content-Type": "application/x-www-form-urlencoded"},
    ),
    "no UTF-8": (b"login=%FF%FE&client_id=\xff", {"Content-Type": "application/x-www-form-urlencoded"}),
    "surrogates": (b"login=%ED%A0%80", {"Content-Type": "application/x-www-form-urlencoded"}),
    "compressed": (
        gzip.compress(b"a" * 1_000_000),
        {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"},
    ),
    "parts": (b"--x\r\n\r\n--x--", {"Content-Type": "multipart/form-data; boundary=x"}),
    "nothing": (b"", {}),
}


@pytest.mark.requirement("ATK-T20", "ATK-T21", "ATK-T22")
@pytest.mark.parametrize("kind", BODIES)
async def test_a_body_that_is_no_form_of_ours_is_refused(site: World, kind: str) -> None:
    content, headers = BODIES[kind]
    for method, path in ADDRESSES:
        if method == "POST":
            answer = await site.http.post(f"{SITE}{filled(path)}", content=content, headers=headers)
            answered_safely(answer, path)
            assert answer.status_code in (400, 401, 403, 413, 415), (path, answer.status_code)


@pytest.mark.requirement("ATK-T39")
async def test_a_method_is_what_the_request_line_says(site: World) -> None:
    for path in PATHS:
        known = {method for method, other in ADDRESSES if other == path}
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"):
            if method not in known:
                headers = {"X-HTTP-Method-Override": next(iter(known)), "X-Method-Override": next(iter(known))}
                answer = await site.http.request(method, f"{SITE}{filled(path)}?_method={next(iter(known))}", headers=headers)
                assert answer.status_code in (401, 404, 405), (method, path, answer.status_code)


@pytest.mark.requirement("ATK-T38", "SEC-048")
async def test_no_header_changes_the_addresses_that_are_told(site: World) -> None:
    forged = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "Forwarded": "host=evil.example;proto=https",
        "X-Original-URL": "/me",
        "Origin": "https://evil.example",
        "Referer": "https://evil.example/",
    }
    for method, path in ADDRESSES:
        answer = await site.http.request(method, f"{SITE}{filled(path)}", headers=forged)
        answered_safely(answer, path)
        assert "evil.example" not in answer.text + answer.headers.get("location", ""), path
        assert answer.headers.get("access-control-allow-origin", "*") == "*", path
        assert "access-control-allow-credentials" not in answer.headers


@dataclass(frozen=True)
class Secrets:
    """Everything secret that one pairing of an app comes with, by what it is for."""

    owner: Actor
    app: Registered
    request: Request
    by_use: dict[str, str]


async def secrets_of(world: World) -> Secrets:
    """A patient pairs an app; a system gets a token; one more request waits to be decided on."""
    owner, app = await world.patient(), await register_app(world)
    request, code = await paired(world, owner, app)
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": request.verifier}
    answer = (await ask(world, {**form, "client_id": app.id})).json()
    person, page = await arrive(world, await account_of(world, owner.reference), Request(app.id))
    _, fresh = await paired(world, owner, app)
    system = await register(world)
    return Secrets(
        owner,
        app,
        request,
        {
            "access token": answer["access_token"],
            "refresh token": answer["refresh_token"],
            "id token": answer["id_token"],
            "code": fresh,
            "session": person.cookies["session"],
            "form token": dict(page.forms[-1].fields)["form_token"],
            "request": page.answer.url.params["request"],
            "assertion": assertion(system.id, world.clock()),
            "verifier": request.verifier,
        },
    )


@pytest.mark.requirement("ATK-T25", "SEC-026")
async def test_a_secret_is_good_for_what_it_was_made_for_and_for_nothing_else(site: World) -> None:
    secrets = await secrets_of(site)
    server = await register(site, introspects=True)
    search = f"Observation?patient={secrets.owner.patient}"
    await secrets.owner.create(observation(secrets.owner.patient))
    for use, secret in secrets.by_use.items():
        as_bearer = await Actor(site.http, secret, "").get(search)
        assert as_bearer.status_code == (200 if use == "access token" else 401), use
        in_url = await site.http.get(f"{SITE}/fhir/{search}&access_token={secret}")
        assert in_url.status_code in (400, 401), use
        asked = asked_with(assertion(server.id, site.clock()), token=secret)
        told = (await ask(site, asked, "/oauth/introspect")).json()
        assert told.get("active") is (use == "access token"), use
        if use != "code":
            form = {"grant_type": "authorization_code", "code": secret, "redirect_uri": CALLBACK, "client_id": secrets.app.id}
            refused = await ask(site, {**form, "code_verifier": secrets.request.verifier})
            assert error_of(refused) == (400, "invalid_grant"), use
        if use != "refresh token":
            form = {"grant_type": "refresh_token", "refresh_token": secret, "client_id": secrets.app.id}
            assert error_of(await ask(site, form)) == (400, "invalid_grant"), use
        if use != "session":
            visitor = Person(site.http, SITE)
            visitor.cookies["session"] = secret
            assert (await visitor.open("/me")).answer.url.path == "/login", use
    # All of that took nothing away from whom it was made for.
    assert (await Actor(site.http, secrets.by_use["access token"], "").get(search)).status_code == 200
    form = {"grant_type": "refresh_token", "refresh_token": secrets.by_use["refresh token"], "client_id": secrets.app.id}
    assert (await ask(site, form)).status_code == 200


@pytest.mark.requirement("ATK-T26")
@pytest.mark.parametrize(
    "attack", ["another client", "no verifier", "another verifier", "the challenge", "another address", "no address"]
)
async def test_a_stolen_code_is_good_for_nothing_and_no_longer_for_its_client(site: World, attack: str) -> None:
    owner, app, other = await site.patient(), await register_app(site), await register_app(site)
    request, code = await paired(site, owner, app)
    sound = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": request.verifier}
    sound["client_id"] = app.id
    changes: dict[str, str | None] = {
        "another client": other.id,
        "no verifier": None,
        "another verifier": Request(app.id).verifier,
        "the challenge": request.parameters()["code_challenge"],
        "another address": f"{CALLBACK}/",
        "no address": None,
    }
    key = {"client": "client_id", "address": "redirect_uri"}.get(attack.rsplit(maxsplit=1)[-1], "code_verifier")
    stolen = {name: value for name, value in {**sound, key: changes[attack]}.items() if value is not None}
    assert error_of(await ask(site, stolen)) == (400, "invalid_grant")
    assert error_of(await ask(site, sound)) == (400, "invalid_grant")
    assert await site.stored("tokens", client=app.id) == []


@pytest.mark.requirement("ATK-T28", "SEC-029")
@pytest.mark.parametrize("attack", ["GET", "form of another session", "no form token", "another site", "framed by GET"])
async def test_nobody_decides_for_somebody_else(site: World, attack: str) -> None:
    owner, app = await site.patient(), await register_app(site)
    victim, page = await arrive(site, await account_of(site, owner.reference), Request(app.id))
    form = page.form("/oauth/authorize/continue")
    fields = {"decision": "allow", "allow": "read-Observation", "duration": "year"}
    if attack in ("GET", "framed by GET"):
        extra = {**fields, "form_token": dict(form.fields)["form_token"]} if attack == "GET" else fields
        await victim.open(f"{form.action}&{urlencode(extra)}")
        assert victim.last.status_code == 200  # the page, once more, with nothing decided
    else:
        if attack == "form of another session":
            _, theirs = await arrive(site, await account_of(site, (await site.patient()).reference), Request(app.id))
            form.fields = theirs.form("/oauth/authorize/continue").fields
        if attack == "another site":
            victim.headers["Sec-Fetch-Site"] = "cross-site"
        await victim.send(form, drop=("form_token",) if attack == "no form token" else (), **fields)
        assert victim.last.status_code == 403
    assert await owner.search("Consent") == []
    assert await site.stored("approvals", client=app.id) == []


@pytest.mark.requirement("ATK-T28")
async def test_a_request_cannot_hide_what_it_asks_for_nor_who_asks(site: World) -> None:
    owner = await site.patient()
    app = await register_app(site, name="Ameli<b>santé</b>", read=["Observation"], write=[])
    login = await account_of(site, owner.reference)
    many, most = (" ".join(f"patient/Observation.rs?code=http://loinc.org|{n}" for n in range(count)) for count in (12, 1_000))
    _, page = await arrive(site, login, Request(app.id), scope=many)
    assert page.status == 200
    assert all(f"loinc.org|{n}" in page.text for n in range(12))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    posted = urlencode(Request(app.id).parameters(scope=most)).encode()
    refused = await site.http.post(f"{SITE}/oauth/authorize", content=posted, headers=form)
    assert refused.status_code in (303, 413)  # told to the client, or too long to be looked at
    assert "code=" not in urlsplit(refused.headers.get("location", "")).query
    _, page = await arrive(site, login, Request(app.id), scope="patient/Observation.rs")
    assert page.status == 200
    assert "<b>santé</b>" not in page.answer.text


@pytest.mark.requirement("ATK-T28")
async def test_whoever_logs_in_in_somebody_s_browser_decides_for_nobody_else(site: World) -> None:
    victim, attacker, app = await site.patient(), await site.patient(), await register_app(site)
    person, page = await arrive(site, await account_of(site, victim.reference), Request(app.id))
    form = page.form("/oauth/authorize/continue")
    before = person.cookies["session"]
    await person.send((await person.open("/me")).form("/logout"))
    await person.log_in(await account_of(site, attacker.reference), PASSWORD)
    assert person.cookies["session"] != before
    await person.send(form, decision="allow", allow="read-Observation", duration="year")  # the page that was left open
    assert person.last.status_code == 403
    assert await victim.search("Consent") == await attacker.search("Consent") == []


@pytest.mark.requirement("ATK-T36", "SEC-030")
async def test_no_secret_of_a_login_or_pairing_is_in_any_log(site: World, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("gateway", "authlib", "joserfc"):
        caplog.set_level(logging.DEBUG, name)
    logging.getLogger("gateway").propagate = True
    try:
        secrets = await secrets_of(site)
        login = await account_of(site, secrets.owner.reference)
        person = Person(site.http, SITE)
        await person.log_in(login, f"{PASSWORD}-wrong")
        await person.open("/login/with/portal")
        away = parse_qs(urlsplit(person.last.headers["location"]).query)
        await person.open(f"/login/callback/portal?state={away['state'][0]}&code={CANARY}&iss=https://{CANARY}.example")
        for secret in secrets.by_use.values():
            await Actor(site.http, secret, "").get(f"Observation?patient={secrets.owner.patient}")
            await ask(site, {"grant_type": "refresh_token", "refresh_token": secret, "client_id": secrets.app.id})
    finally:
        logging.getLogger("gateway").propagate = False
    lines = "\n".join(
        json.dumps([r.getMessage(), str(getattr(r, "fields", "")), str(r.args)]) for r in caplog.records if r.name != "httpx"
    )
    assert "login.refused" in lines
    hidden = {**secrets.by_use, "password": PASSWORD, "state": away["state"][0], "nonce": away["nonce"][0], "canary": CANARY}
    hidden |= {"login": login, "patient": secrets.owner.patient}
    assert [use for use, secret in hidden.items() if secret in lines] == []


@pytest.mark.requirement("ATK-T37")
async def test_an_error_of_ours_tells_nothing_but_that_it_happened(site: World, monkeypatch: pytest.MonkeyPatch) -> None:
    system = await register(site)

    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"{CANARY} at mongodb://user:password@db")

    async def unreachable(*_: Any, **__: Any) -> None:
        raise Problem("transient", "the database cannot be reached", headers={"Retry-After": "1"})

    person = Person(site.http, SITE)
    form = (await person.open("/login")).forms[-1]
    for failure, status in ((fail, 500), (unreachable, 503)):
        with monkeypatch.context() as patched:
            for name in ("find_one", "find", "change", "insert", "find_all", "write_all", "delete"):
                patched.setattr(site.gateway.mongo, name, failure)
            answers = [
                await ask_token(site, system.id),
                await site.http.get(f"{SITE}/oauth/authorize?client_id={system.id}"),
                await site.http.get(f"{SITE}/login?request=x"),
                (await person.send(form, login="camille", password=PASSWORD)).answer,
                await site.http.get(f"{SITE}/login/with/portal"),
                await site.http.get(f"{SITE}/services"),
                await site.http.get(f"{SITE}/me", headers={"Cookie": "session=abc"}),
            ]
        for answer in answers:
            assert answer.status_code == status, (answer.url, answer.text)
            assert CANARY not in answer.text + str(answer.headers)
            assert "mongodb" not in answer.text.replace("the database", "")
            assert "Traceback" not in answer.text
    assert (await ask_token(site, system.id)).status_code == 200


@pytest.mark.requirement("ATK-T40")
async def test_guessing_tells_nothing(site: World) -> None:
    app, owner = await register_app(site), await site.patient()
    _, code = await paired(site, owner, app)
    near = code[:-1] + ("A" if code[-1] != "A" else "B")
    told = set()
    for guess in (near, unique("guess"), "", "%", "a" * 5_000, "gwat_" + "x" * 43, "gwrt_" + "A" * 64):
        form = {"grant_type": "authorization_code", "code": guess, "redirect_uri": CALLBACK, "code_verifier": "v" * 43}
        answer = await ask(site, {**form, "client_id": app.id})
        told.add((answer.status_code, answer.text) if guess else "")
    assert len(told) == 2
    server, forms = await register(site, introspects=True), ("gwat_" + "x" * 43, "gwrt_" + "A" * 64, "x", code)
    for guess in forms:
        asked = asked_with(assertion(server.id, site.clock()), token=guess)
        assert (await ask(site, asked, "/oauth/introspect")).content == b'{"active":false}'
    unknown, known = Person(site.http, SITE), Person(site.http, SITE)
    pages = [
        await unknown.open("/oauth/authorize/continue?request=guess"),
        await known.open(f"/oauth/authorize/continue?request={near}"),
    ]
    assert len({(page.status, page.text) for page in pages}) == 1


async def test_the_sound_way_still_leads_there(site: World) -> None:
    owner, app = await site.patient(), await register_app(site)
    person, page = await arrive(site, await account_of(site, owner.reference), Request(app.id))
    assert "code" in await allow(person, page, "read-Observation")
