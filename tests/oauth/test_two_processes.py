"""What must hold over several gateway processes on one database: codes, refresh tokens, attempts to log in, taking back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.clients import Registered
from tests.decisions import CALLBACK, PASSWORD, Request, account_of, allow, register_app
from tests.person import Person
from tests.process import two_processes
from tests.world import Actor, World, observation


@dataclass
class Two:
    """Two gateway processes on one database, and people who come to the first; `https`: a wire to each."""

    world: World
    https: tuple[httpx.AsyncClient, httpx.AsyncClient]

    @property
    def site(self) -> str:
        return self.world.gateway.settings.site

    async def post(self, number: int, **fields: str) -> httpx.Response:
        """Ask one of them for tokens."""
        return await self.https[number % 2].post(f"{self.site}/oauth/token", data=fields)


@pytest.fixture(scope="module")
async def two(mongo_url: str) -> AsyncIterator[Two]:
    async with two_processes(mongo_url) as (world, second):
        yield Two(world, (world.http, second))


async def code_of(two: Two, owner: Actor, app: Registered) -> dict[str, str]:
    """A patient allows an app to read; returns what it redeems its code with."""
    request, site = Request(app.id), two.site
    login = await account_of(two.world, owner.reference)
    person = Person(two.world.http, site)
    page = await person.log_in(login, PASSWORD, request.path(aud=two.world.gateway.settings.base_url))
    answer = await allow(person, page, "read-Observation", past="yes")
    fields = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": CALLBACK, "client_id": app.id}
    return fields | {"code_verifier": request.verifier}


async def tokens(two: Two, owner: Actor, app: Registered) -> dict[str, Any]:
    answer = await two.post(0, **await code_of(two, owner, app))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.requirement("SEC-008")
async def test_a_code_is_good_once_however_many_bring_it_wherever(two: Two) -> None:
    owner, app = await two.world.patient(), await register_app(two.world)
    fields = await code_of(two, owner, app)
    answers = await asyncio.gather(*(two.post(n, **fields) for n in range(50)))
    assert sorted({answer.status_code for answer in answers} - {200}) == [400]
    issued = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(issued) <= 1
    for one in issued:  # the others have shown that it got about: nothing it gave is good any more
        for http in two.https:
            bearer = Actor(http, one["access_token"], "")
            url = f"{two.site}/fhir/Observation?patient={owner.patient}"
            assert (await bearer.get(url)).status_code == 401


@pytest.mark.requirement("SEC-016")
async def test_refreshing_at_both_at_once_unpairs_nobody(two: Two) -> None:
    owner, app = await two.world.patient(), await register_app(two.world)
    first = (await tokens(two, owner, app))["refresh_token"]
    fields = {"grant_type": "refresh_token", "client_id": app.id}
    answers = await asyncio.gather(*(two.post(n, refresh_token=first, **fields) for n in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    last = await two.post(1, refresh_token=answers[5].json()["refresh_token"], **fields)
    assert last.status_code == 200
    spent = await two.post(0, refresh_token=first, **fields)
    assert (spent.status_code, spent.json()["error"]) == (400, "invalid_grant")
    again = await two.post(1, refresh_token=last.json()["refresh_token"], **fields)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


async def test_attempts_to_log_in_are_counted_together(two: Two) -> None:
    owner = await two.world.patient()
    login = await account_of(two.world, owner.reference)
    guesses = [Person(two.https[n % 2], two.site) for n in range(12)]
    for guess in guesses:
        await guess.open("/login")
    await asyncio.gather(*(guess.log_in(login, "wrong wrong wrong") for guess in guesses))
    [account] = await two.world.stored("accounts", _id=login)
    assert account["failures"] == 5
    for http in two.https:
        assert (await Person(http, two.site).log_in(login, PASSWORD)).status == 401


@pytest.mark.requirement("EXT-06", "CON-005")
async def test_what_is_taken_back_at_one_is_refused_by_the_other_at_once(two: Two) -> None:
    owner, app = await two.world.patient(), await register_app(two.world)
    await owner.create(observation(owner.patient))
    body = await tokens(two, owner, app)
    url = f"{two.site}/fhir/Observation?patient={owner.patient}"
    bearers = [Actor(http, body["access_token"], "") for http in two.https]
    for bearer in bearers:
        assert (await bearer.get(url)).json()["total"] == 1
    camille = Person(two.https[0], two.site)
    page = await camille.log_in(await account_of(two.world, owner.reference), PASSWORD)
    taken_back = asyncio.Event()
    late: list[int] = []

    async def read(bearer: Actor) -> None:
        for _ in range(400):
            is_late = taken_back.is_set()
            status = (await bearer.get(url)).status_code
            if is_late:
                late.append(status)
            if len(late) > 40:
                return

    reading = [asyncio.create_task(read(bearer)) for bearer in bearers for _ in range(2)]
    page = await camille.send(page.form("/me/take-back"))
    assert page.status == 200
    taken_back.set()
    await asyncio.gather(*reading)
    assert set(late) == {401}
    fields = {"grant_type": "refresh_token", "client_id": app.id, "refresh_token": body["refresh_token"]}
    assert (await two.post(1, **fields)).json()["error"] == "invalid_grant"
