"""Pushed authorization requests (RFC 9126): good once, for a minute, for who pushed them; what the browser adds is nothing."""

import asyncio
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from gateway.exchange.catalogue import set_state
from tests.clients import EC, SITE, Registered, ask, asked_with, assertion, error_of, register
from tests.decisions import CALLBACK, PASSWORD, Request, account_of, allow, register_app, told
from tests.person import Person
from tests.world import World, unique

PAR, URN = "/oauth/par", "urn:ietf:params:oauth:request_uri:"
ELSEWHERE = "https://elsewhere.example/cb"


async def confidential(world: World, **changes: Any) -> Registered:
    """A client that signs, and has to push."""
    keys = {"authentication": "private_key_jwt", "keys": [EC.as_dict(private=False)], "pushed": True}
    return await register_app(world, **keys | changes)


async def push(world: World, app: Registered, request: Request, /, **changes: str | None) -> Any:
    sent = {name: value for name, value in request.parameters(**changes).items() if name != "client_id"}
    return await ask(world, asked_with(assertion(app.id, world.clock()), **sent), PAR)


def named(client: str, uri: str, **others: str) -> str:
    return f"/oauth/authorize?{urlencode({'client_id': client, 'request_uri': uri, **others})}"


@pytest.mark.requirement("SEC-028")
async def test_what_was_pushed_is_decided_on_and_gives_a_token(world: World) -> None:
    owner, app = await world.patient(), await confidential(world)
    request = Request(app.id)
    answer = await push(world, app, request)
    assert (answer.status_code, answer.json()["expires_in"]) == (201, 60)
    uri = answer.json()["request_uri"]
    assert uri.startswith(URN)
    person = Person(world.http, SITE)
    more = {"scope": "patient/*.cruds", "state": "theirs", "redirect_uri": ELSEWHERE, "code_challenge": "x" * 43}
    page = await person.log_in(await account_of(world, owner.reference), PASSWORD, named(app.id, uri, **more))
    assert page.answer.url.path == "/oauth/authorize/continue"
    got = await allow(person, page, "read-Observation", "read-Patient")
    assert person.last.headers["location"].startswith(f"{CALLBACK}?")
    assert (got["state"], got["iss"]) == (request.state, SITE)
    signed = asked_with(
        assertion(app.id, world.clock()),
        grant_type="authorization_code",
        code=got["code"],
        redirect_uri=CALLBACK,
        code_verifier=request.verifier,
    )
    body = (await ask(world, signed)).json()
    assert body["patient"] == owner.patient
    assert "patient/Patient" not in body["scope"]
    assert uri not in str(await world.stored("approvals", client=app.id))


@pytest.mark.requirement("SEC-028")
async def test_a_client_that_has_to_push_is_refused_when_it_does_not(world: World) -> None:
    app = await confidential(world)
    request = Request(app.id)
    person = Person(world.http, SITE)
    for changes in ({}, {"request_uri": "https://app.example/request"}):
        await person.open(request.path(**changes))
        assert (told(person)["error"], told(person)["state"]) == ("invalid_request", request.state)
    posted = await world.http.post(f"{SITE}/oauth/authorize", data=request.parameters())
    assert "error=invalid_request" in posted.headers["location"]


@pytest.mark.requirement("SEC-028")
async def test_a_request_uri_is_good_once_for_a_minute_and_for_its_client(world: World) -> None:
    app, other = await confidential(world), await confidential(world)
    uri = (await push(world, app, Request(app.id))).json()["request_uri"]
    for client, name in (
        (other.id, uri),
        ("nobody", uri),
        (app.id, URN),
        (app.id, URN + "x" * 43),
        (app.id, uri + "x"),
        (app.id, URN + "x" * 2_000),
    ):
        page = await Person(world.http, SITE).open(named(client, name))
        assert (page.status, "location" in page.answer.headers) == (400, False), (client, name)
    assert (await Person(world.http, SITE).open(f"{named(app.id, uri)}&request_uri={uri}")).status == 400
    assert (await Person(world.http, SITE).open(f"/oauth/authorize?request_uri={uri}")).status == 400
    handle = uri.removeprefix(URN)  # it is no way past the address that takes it once
    assert (await Person(world.http, SITE).open(f"/oauth/authorize/continue?request={handle}")).status == 410
    asked = [world.http.get(SITE + named(app.id, uri)) for _ in range(12)]
    assert sorted(one.status_code for one in await asyncio.gather(*asked)) == [303] + [400] * 11
    late = (await push(world, app, Request(app.id))).json()["request_uri"]
    world.clock.ahead += timedelta(seconds=61)
    assert (await Person(world.http, SITE).open(named(app.id, late))).status == 400


@pytest.mark.requirement("SEC-028")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"aud": None}, "invalid_request"),
        ({"aud": "https://elsewhere.example/fhir"}, "invalid_target"),
        ({"scope": "system/Observation.rs"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"redirect_uri": ELSEWHERE}, "invalid_request"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"request_uri": URN + "x"}, "invalid_request"),
        ({"request": "eyJ"}, "request_not_supported"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_told_at_once_and_nothing_is_kept(world: World, changes: dict[str, Any], error: str) -> None:
    app = await confidential(world)
    answer = await push(world, app, Request(app.id), **changes)
    assert error_of(answer) == (400, error)
    assert await world.stored("authorizations", client=app.id) == []


@pytest.mark.requirement("SEC-028")
async def test_who_pushes_has_to_show_who_it_is(world: World) -> None:
    app, request = await confidential(world), Request("x")
    sent = request.parameters(client_id=None)
    signed = assertion(app.id, world.clock())
    assert (await ask(world, asked_with(signed, **sent), PAR)).status_code == 201
    assert error_of(await ask(world, asked_with(signed, **sent), PAR)) == (400, "invalid_client")  # it was used
    for form in ({**sent, "client_id": app.id}, sent, asked_with(assertion(app.id, world.clock()), **sent, client_id="other")):
        assert error_of(await ask(world, form, PAR))[1] == "invalid_client"
    await set_state(world.gateway, app.id, "suspended")
    assert error_of(await push(world, app, Request(app.id))) == (400, "invalid_client")
    system = await register(world)
    assert error_of(await push(world, system, Request(system.id))) == (400, "invalid_request")  # nobody logs in for it
    url = await world.http.post(f"{SITE}{PAR}?client_id={unique()}", data={"x": "y"})
    assert error_of(url) == (400, "invalid_request")
    assert (await world.http.get(f"{SITE}{PAR}")).status_code == 405


@pytest.mark.requirement("SEC-028")
async def test_any_client_may_push_and_suspending_it_ends_what_it_pushed(world: World) -> None:
    app = await register_app(world)  # a public one, which may also ask directly
    answer = await ask(world, Request(app.id).parameters(), PAR)
    assert answer.status_code == 201
    page = await Person(world.http, SITE).open(named(app.id, answer.json()["request_uri"]))
    assert (page.status, page.answer.url.path) == (200, "/login")
    again = (await ask(world, Request(app.id).parameters(), PAR)).json()["request_uri"]
    await set_state(world.gateway, app.id, "suspended")
    assert (await Person(world.http, SITE).open(named(app.id, again))).status == 410
