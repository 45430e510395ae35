"""Too many requests from one address, and too many guesses from there: 429 with when to come again, and nobody else notices."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from gateway.exchange.throttle import Throttle
from gateway.problem import Problem
from gateway.settings import Allowance
from tests.clients import ask_token, register
from tests.conftest import make_settings, running_world
from tests.decisions import PASSWORD, SITE, Request, account_of, register_app
from tests.person import Person
from tests.world import World

ADDRESS = "127.0.0.1"
PAGES, LOGINS = ("visitor pages", ADDRESS, ""), ("visitor logins", ADDRESS, "")


@pytest.fixture(scope="module")
async def shared_strict(mongo_url: str) -> AsyncIterator[World]:
    """A gateway whose rates hold."""
    async for world in running_world(make_settings(mongo_url, rates="on")):
        yield world


@pytest.fixture
def strict(shared_strict: World) -> World:
    """The same, with nobody counted yet."""
    shared_strict.gateway.throttle._left.clear()
    shared_strict.clock.ahead *= 0
    return shared_strict


def leave(world: World, key: tuple[str, str, str], many: float) -> None:
    world.gateway.throttle._left[key] = many, world.gateway.clock()


@pytest.mark.requirement("LIM-004")
@pytest.mark.parametrize("path", ["/login", "/oauth/authorize", "/services", "/login/with/nobody", "/oauth/authorize/continue"])
async def test_an_address_that_asks_without_end_waits_and_who_is_logged_in_there_does_not(strict: World, path: str) -> None:
    owner, app = await strict.patient(), await register_app(strict)
    camille = Person(strict.http, SITE)
    await camille.log_in(await account_of(strict, owner.reference), PASSWORD)
    leave(strict, PAGES, 0.5)
    url = f"{SITE}{Request(app.id).path()}" if path == "/oauth/authorize" else f"{SITE}{path}"
    refused = await strict.http.get(url, headers={"Accept-Language": "fr"})
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"  # half a request, at twenty a second
    assert refused.headers["content-type"].startswith("text/html")
    assert "Trop de demandes" in refused.text
    assert await strict.stored("authorizations", client=app.id) == []
    assert (await camille.open("/me")).status == 200
    strict.clock.ahead += timedelta(seconds=1)
    assert (await strict.http.get(f"{SITE}/login")).status_code == 200


@pytest.mark.requirement("LIM-004")
async def test_an_account_that_asks_without_end_waits_too(strict: World) -> None:
    owner = await strict.patient()
    login = await account_of(strict, owner.reference)
    camille = Person(strict.http, SITE)
    await camille.log_in(login, PASSWORD)
    leave(strict, ("visitor pages", login, ""), -20)
    page = await camille.open("/me")
    assert (page.status, page.answer.headers["retry-after"]) == (429, "2")


@pytest.mark.requirement("LIM-004")
async def test_guesses_from_one_address_are_counted_over_all_accounts_and_what_succeeds_is_not(strict: World) -> None:
    owner = await strict.patient()
    login = await account_of(strict, owner.reference)
    leave(strict, LOGINS, 3)
    for _ in range(5):
        assert (await Person(strict.http, SITE).log_in(login, PASSWORD)).answer.url.path == "/me"
    for n in range(3):  # of accounts that are not there: nothing but the address counts them
        assert (await Person(strict.http, SITE).log_in(f"nobody-{n}", "wrong wrong wrong")).status == 401
    refused = await Person(strict.http, SITE).log_in(login, PASSWORD)
    assert (refused.status, "too many attempts to log in" in refused.text) == (429, True)
    assert 1 <= int(refused.answer.headers["retry-after"]) <= 10
    [account] = await strict.stored("accounts", _id=login)
    assert account["failures"] == 0  # it was not tried
    strict.clock.ahead += timedelta(seconds=10)
    assert (await Person(strict.http, SITE).log_in(login, PASSWORD)).answer.url.path == "/me"


@pytest.mark.requirement("LIM-004")
@pytest.mark.parametrize("path", ["token", "introspect", "revoke", "par"])
async def test_who_does_not_show_that_it_is_a_client_waits_and_who_does_is_not_counted(strict: World, path: str) -> None:
    system = await register(strict)
    leave(strict, ("visitor clients", ADDRESS, ""), 3)
    for _ in range(5):
        assert (await ask_token(strict, system.id)).status_code == 200
        assert (await ask_token(strict, system.id, "system/Patient.r")).json()["error"] == "invalid_scope"
    for _ in range(3):
        answer = await strict.http.post(f"{SITE}/oauth/{path}", data={"client_id": "nobody", "token": "x"})
        assert answer.json()["error"] == "invalid_client"
    refused = await ask_token(strict, system.id)
    assert (refused.status_code, refused.json()["error"]) == (429, "temporarily_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert (await strict.http.get(f"{SITE}/oauth/jwks")).status_code == 200
    strict.clock.ahead += timedelta(seconds=1)
    assert (await ask_token(strict, system.id)).status_code == 200


def test_of_ipv6_a_subscriber_is_counted_and_an_ipv4_address_is_the_same_in_both_writings() -> None:
    throttle = Throttle({}, {"pages": Allowance(per_second=1, burst=2)})
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for first, second in (("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"), ("192.0.2.1", "::ffff:192.0.2.1")):
        throttle.admit_visitor("pages", first, now)
        throttle.admit_visitor("pages", second, now)
        with pytest.raises(Problem) as told:
            throttle.admit_visitor("pages", first, now)
        assert told.value.headers["Retry-After"] == "1"
    throttle.admit_visitor("pages", "2001:db8:1:3::1", now)
    throttle.forgive("pages", "192.0.2.1", now)
    throttle.admit_visitor("pages", "192.0.2.1", now)
    for _ in range(9):  # what nothing is said of is not counted
        throttle.admit_visitor("others", "192.0.2.1", now)
