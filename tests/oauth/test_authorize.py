"""A request for authorization: what is wrong is told to the client, or to the person alone where the address may be another's.

Whoever comes with a sound one gets to decide, whatever way they came.
"""

from datetime import timedelta
from typing import Any

import pytest

from gateway.exchange.catalogue import set_state
from tests.clients import register
from tests.decisions import CALLBACK, PASSWORD, SITE, Request, account_of, allow, arrive, register_app, told
from tests.person import Person
from tests.world import BASE, World

LONG = "x" * 3_000


@pytest.mark.requirement("SEC-006")
@pytest.mark.parametrize(
    "uri",
    [
        None, "", "https://app.example", "https://app.example/", "https://app.example/callback/",
        "https://app.example/callback?a=b",
        "https://app.example/callback#x", "https://app.example/callback/../evil", "https://app.example/%63allback",
        "https://app.example/Callback", "https://APP.example/callback", "http://app.example/callback",
        "https://app.example:443/callback",
        "https://app.example.evil.example/callback", "https://evil.example/callback", "https://app.example@evil.example/callback",
        "//app.example/callback", "/callback", "callback", "javascript:alert(1)", "data:text/html,x",
        " https://app.example/callback",
        "https://app.example/callback ", "https://app.example/callback\n", "https://app.example\\@evil.example/callback",
        "https://app.example/callback%00", "https://app.example/callback;x", "https://app.example//callback",
        "app.example/callback",
        "http://127.0.0.1:80@evil.example/cb", "http://localhost:8080/cb", "http://127.0.0.2/cb", "http://127.0.0.1:8080/cb/",
        "http://127.0.0.1:8080/CB", "https://127.0.0.1:8080/cb", "http://127.0.0.1.evil.example/cb",
        "http://127.0.0.1:123456/cb",
        "com.evil.app:/cb", "https://app.example/callback?", "HTTPS://app.example/callback",
    ],
)  # fmt: skip
async def test_nobody_is_sent_to_an_address_that_is_not_the_client_s(world: World, uri: str | None) -> None:
    app = await register_app(world, redirect_uris=[CALLBACK, "http://127.0.0.1/cb", "com.example.app:/cb"])
    page = await Person(world.http, SITE).open(Request(app.id).path(redirect_uri=uri))
    assert page.status == 400
    assert "location" not in page.answer.headers
    assert "redirect_uri" in page.text


@pytest.mark.parametrize("uri", [CALLBACK, "http://127.0.0.1:51234/cb", "http://127.0.0.1/cb", "com.example.app:/cb"])
async def test_its_own_addresses_are_taken_and_an_app_on_this_machine_has_any_port(world: World, uri: str) -> None:
    app = await register_app(world, redirect_uris=[CALLBACK, "http://127.0.0.1/cb", "com.example.app:/cb"])
    page = await Person(world.http, SITE).open(Request(app.id).path(redirect_uri=uri))
    assert (page.status, page.answer.url.path) == (200, "/login")


@pytest.mark.parametrize("client", ["nobody", "", LONG, "draft", "suspended", "system"])
async def test_a_client_that_may_not_ask_is_told_to_the_person(world: World, client: str) -> None:
    if client in ("draft", "suspended"):
        client = (await register_app(world, state=client)).id
    if client == "system":
        client = (await register(world)).id
    page = await Person(world.http, SITE).open(Request(client).path())
    assert page.status == 400
    assert page.answer.headers["content-type"].startswith("text/html")


@pytest.mark.requirement("SEC-002", "SEC-003", "SEC-005", "SEC-007", "SEC-010")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": "=" * 43}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"aud": None}, "invalid_request"),
        ({"aud": "https://elsewhere.example/fhir"}, "invalid_target"),
        ({"aud": f"{BASE}//"}, "invalid_target"),
        ({"aud": f"{BASE}/Patient"}, "invalid_target"),
        ({"resource": "https://elsewhere.example/fhir"}, "invalid_target"),
        ({"scope": None}, "invalid_scope"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"scope": "patient/Observation.dus"}, "invalid_scope"),
        ({"scope": "patient/Unheard.rs"}, "invalid_scope"),
        ({"scope": "patient/Observation.rs  system/Observation.rs"}, "invalid_scope"),
        ({"scope": "user/Observation.rs"}, "invalid_scope"),
        ({"scope": "patient/List.rs"}, "invalid_scope"),
        ({"scope": "patient/Observation.rs?code:in=x"}, "invalid_scope"),
        ({"scope": "patient/Observation.rs launch"}, "invalid_request"),
        ({"launch": "x"}, "invalid_request"),
        ({"scope": "patient/Observation.rs launch", "launch": "unknown"}, "invalid_request"),
        ({"request": "eyJ"}, "request_not_supported"),
        ({"request_uri": "https://x.example"}, "request_uri_not_supported"),
        ({"prompt": "none"}, "interaction_required"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"nonce": LONG}, "invalid_request"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_told_to_the_client(world: World, changes: dict[str, Any], error: str) -> None:
    app = await register_app(world)
    request = Request(app.id)
    person = Person(world.http, SITE)
    await person.open(request.path(**changes))
    assert person.last.headers["location"].startswith(f"{CALLBACK}?")
    answer = told(person)
    assert (answer["error"], answer["state"], answer["iss"]) == (error, request.state, SITE)
    assert answer["error_description"]
    assert "code" not in answer


@pytest.mark.parametrize("name", ["state", "scope", "aud", "code_challenge"])
async def test_a_parameter_that_stands_twice_is_refused(world: World, name: str) -> None:
    request = Request((await register_app(world)).id)
    person = Person(world.http, SITE)
    await person.open(f"{request.path()}&{name}=x")
    assert told(person)["error"] == "invalid_request"
    for alone in ("client_id", "redirect_uri"):
        page = await person.open(f"{request.path()}&{alone}={CALLBACK}")
        assert page.status == 400


@pytest.mark.requirement("SEC-004")
@pytest.mark.parametrize("site", ["cross-site", None])
async def test_a_request_may_be_posted_by_a_page_of_the_client(world: World, site: str | None) -> None:
    app = await register_app(world)
    headers = {"Sec-Fetch-Site": site} if site else {}
    posted = await world.http.post(f"{SITE}/oauth/authorize", data=Request(app.id).parameters(), headers=headers)
    got = await world.http.get(f"{SITE}{Request(app.id).path()}")
    assert (posted.status_code, got.status_code) == (303, 303)
    for answer in (posted, got):
        assert answer.headers["location"].startswith("/oauth/authorize/continue?request=")


@pytest.mark.parametrize("aud", [BASE, f"{BASE}/"])
async def test_the_audience_may_end_in_a_slash_and_be_called_resource(world: World, aud: str) -> None:
    app = await register_app(world)
    for changes in ({"aud": aud}, {"aud": None, "resource": aud}, {"aud": aud, "resource": aud}):
        page = await Person(world.http, SITE).open(Request(app.id).path(**changes))
        assert page.answer.url.path == "/login"


async def test_the_login_says_who_asks_and_comes_back(world: World) -> None:
    owner = await world.patient()
    request = Request((await register_app(world)).id)
    person = Person(world.http, SITE)
    page = await person.open(request.path())
    assert "To decide what GlucoApp may do with your health record" in page.text
    page = await person.send(page.forms[-1], login=await account_of(world, owner.reference), password=PASSWORD)
    assert page.answer.url.path == "/oauth/authorize/continue"
    assert "GlucoApp asks for access to your health record" in page.text


async def test_prompt_login_and_max_age_ask_for_the_password_again(world: World) -> None:
    owner = await world.patient()
    login = await account_of(world, owner.reference)
    request = Request((await register_app(world)).id)
    person, page = await arrive(world, login, request)
    assert page.answer.url.path == "/oauth/authorize/continue"
    assert (await person.open(Request(request.client).path())).answer.url.path == "/oauth/authorize/continue"
    world.clock.ahead += timedelta(minutes=10)
    assert (await person.open(request.path(max_age="900"))).answer.url.path == "/oauth/authorize/continue"
    for changes in ({"prompt": "login"}, {"max_age": "300"}):
        page = await person.open(request.path(**changes))
        assert page.answer.url.path == "/login"
    page = await person.send(page.forms[-1], login=login, password=PASSWORD)
    assert page.answer.url.path == "/oauth/authorize/continue"


@pytest.mark.parametrize("how", ["too late", "decided", "suspended", "made up"])
async def test_a_request_that_is_over_cannot_be_decided_on(world: World, how: str) -> None:
    owner = await world.patient()
    app = await register_app(world)
    person, page = await arrive(world, await account_of(world, owner.reference), Request(app.id))
    form = page.form("/oauth/authorize/continue")
    if how == "too late":
        world.clock.ahead += timedelta(minutes=16)
    elif how == "decided":
        await allow(person, page, "read-Observation")
    elif how == "suspended":
        await set_state(world.gateway, app.id, "suspended")
    else:
        form.action = f"{SITE}/oauth/authorize/continue?request={'x' * 43}"
    page = await person.send(form, decision="allow", allow="read-Observation", duration="months")
    assert page.status == 410
    assert "Begin again where you came from" in page.text
    assert len(await world.stored("approvals", client=app.id)) == (1 if how == "decided" else 0)
