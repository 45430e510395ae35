"""From a code to tokens, and from a refresh token to others: what is good once, what may be lost, what ends it all."""

import asyncio
from datetime import timedelta

import pytest

from gateway.exchange.accounts import lock_account
from gateway.exchange.redemption import InvalidGrant, InvalidScope, Issued, refresh
from gateway.exchange.refresh_tokens import RefreshTokens
from tests.clients import Registered
from tests.decisions import CALLBACK, Request, account_of, arrive, entry_of, paired, redeem, register_app, told
from tests.world import Actor, World, observation, related_person

SECRETS = "client_secret_basic"


async def tokens_of(world: World, app: Registered, owner: Actor, **fields: str) -> Issued:
    """A patient's pairing with an app, redeemed."""
    request, code = await paired(world, owner, app, **fields)
    return await redeem(world, await entry_of(world, app), code, CALLBACK, request.verifier)


async def works(world: World, token: str, patient: str) -> bool:
    answer = await Actor(world.http, token, "").get(f"Observation?patient={patient}")
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


async def again(world: World, app: Registered, token: str, scope: str | None = None) -> Issued:
    return await refresh(world.gateway, await entry_of(world, app), token, scope)


@pytest.mark.requirement("SEC-008")
async def test_of_fifty_who_redeem_a_code_at_once_one_gets_tokens_and_then_nobody_has_any(world: World, peer: World) -> None:
    owner, app = await world.patient(), await register_app(world)
    request, code = await paired(world, owner, app)
    entry = await entry_of(world, app)
    attempts = [redeem(w, entry, code, CALLBACK, request.verifier) for w in [world, peer] * 25]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    issued = [one for one in outcomes if isinstance(one, Issued)]
    assert len(issued) <= 1
    assert all(isinstance(one, Issued | InvalidGrant) for one in outcomes)
    assert await world.stored("tokens", client=app.id) == []
    for one in issued:
        assert not await works(world, one.access_token, owner.patient)
        assert one.refresh_token is not None
        with pytest.raises(InvalidGrant):
            await again(world, app, one.refresh_token)


@pytest.mark.requirement("SEC-008")
async def test_a_code_that_comes_again_takes_back_what_it_gave(world: World) -> None:
    owner, app = await world.patient(), await register_app(world)
    request, code = await paired(world, owner, app)
    issued = await redeem(world, await entry_of(world, app), code, CALLBACK, request.verifier)
    assert await works(world, issued.access_token, owner.patient)
    with pytest.raises(InvalidGrant):
        await redeem(world, await entry_of(world, app), code, CALLBACK, request.verifier)
    assert not await works(world, issued.access_token, owner.patient)


@pytest.mark.requirement("SEC-002")
@pytest.mark.parametrize("wrong", ["verifier", "no verifier", "challenge", "redirect_uri", "no redirect_uri", "client", "late"])
async def test_a_code_that_was_tried_wrongly_is_used_up(world: World, wrong: str) -> None:
    owner, app = await world.patient(), await register_app(world)
    request, code = await paired(world, owner, app)
    verifier: str | None = {
        "verifier": "x" * 43, "no verifier": None, "challenge": request.parameters()["code_challenge"],
    }.get(wrong, request.verifier)  # fmt: skip
    uri = {"redirect_uri": f"{CALLBACK}/", "no redirect_uri": None}.get(wrong, CALLBACK)
    entry = await entry_of(world, await register_app(world) if wrong == "client" else app)
    if wrong == "late":
        world.clock.ahead += timedelta(seconds=61)
    with pytest.raises(InvalidGrant):
        await redeem(world, entry, code, uri, verifier)
    world.clock.ahead *= 0
    if wrong != "late":
        with pytest.raises(InvalidGrant):
            await redeem(world, await entry_of(world, app), code, CALLBACK, request.verifier)
    assert await world.stored("tokens", client=app.id) == []


@pytest.mark.requirement("SEC-016")
async def test_a_public_client_may_lose_answers_until_a_successor_is_used(world: World) -> None:
    owner, app = await world.patient(), await register_app(world)
    first = (await tokens_of(world, app, owner)).refresh_token or ""
    lost = [await again(world, app, first) for _ in range(3)]
    world.clock.ahead += timedelta(days=20)  # the phone slept
    second = (await again(world, app, first)).refresh_token or ""
    assert second not in (first, *(one.refresh_token for one in lost))
    third = await again(world, app, second)
    assert await works(world, third.access_token, owner.patient)


@pytest.mark.requirement("SEC-016")
@pytest.mark.parametrize("who", ["first", "lost"])
async def test_a_refresh_token_that_was_spent_ends_the_pairing(world: World, who: str) -> None:
    owner, app = await world.patient(), await register_app(world)
    first = (await tokens_of(world, app, owner)).refresh_token or ""
    lost = (await again(world, app, first)).refresh_token or ""
    second = (await again(world, app, first)).refresh_token or ""
    last = await again(world, app, second)
    with pytest.raises(InvalidGrant):
        await again(world, app, first if who == "first" else lost)
    assert not await works(world, last.access_token, owner.patient)
    with pytest.raises(InvalidGrant):
        await again(world, app, last.refresh_token or "")


@pytest.mark.requirement("SEC-016")
async def test_twenty_refreshes_at_once_over_two_processes_leave_every_answer_good(world: World, peer: World) -> None:
    owner, app = await world.patient(), await register_app(world)
    first = (await tokens_of(world, app, owner)).refresh_token or ""
    answers = await asyncio.gather(*(again(w, app, first) for w in [world, peer] * 10))
    assert len({one.refresh_token for one in answers}) == 20
    for one in answers:
        assert await works(world, one.access_token, owner.patient)
    await again(world, app, answers[7].refresh_token or "")


async def test_a_confidential_client_keeps_its_refresh_token(world: World) -> None:
    owner, app = await world.patient(), await register_app(world, authentication=SECRETS)
    first = await tokens_of(world, app, owner)
    for _ in range(3):
        answer = await again(world, app, first.refresh_token or "")
        assert answer.refresh_token is None
        assert await works(world, answer.access_token, owner.patient)


@pytest.mark.requirement("SEC-016")
async def test_a_refresh_token_is_of_one_client_and_of_no_other_text(world: World) -> None:
    owner, app = await world.patient(), await register_app(world)
    token = (await tokens_of(world, app, owner)).refresh_token or ""
    other = await register_app(world)
    forged = RefreshTokens("another secret of thirty-two letters").make(
        (await world.stored("approvals", client=app.id))[0]["_id"]
    )
    for client, text in (
        (other, token),
        (app, forged),
        (app, token[:-1] + ("A" if token[-1] != "A" else "B")),
        (app, ""),
        (app, "é"),
    ):
        with pytest.raises(InvalidGrant):
            await again(world, client, text)
    await again(world, app, token)  # none of that has ended anything


@pytest.mark.requirement("SEC-016")
@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (None, "launch/patient openid fhirUser offline_access patient/Observation.rs patient/Observation.c"),
        ("patient/Observation.rs", "patient/Observation.rs"),
        ("openid patient/Observation.r", "openid patient/Observation.r"),
        ("patient/Observation.rs?category=laboratory", "patient/Observation.rs?category=laboratory"),
        ("patient/Observation.cruds", None),
        ("patient/Device.rs", None),
        ("patient/*.rs", None),
        ("user/Observation.rs", None),
        ("openid", None),
        ("patient/Observation.sr", None),
    ],
)
async def test_a_refresh_may_ask_for_less_and_never_for_more(world: World, asked: str | None, granted: str | None) -> None:
    owner, app = await world.patient(), await register_app(world)
    token = (await tokens_of(world, app, owner)).refresh_token or ""
    if granted is None:
        with pytest.raises(InvalidScope):
            await again(world, app, token, asked)
    else:
        assert (await again(world, app, token, asked)).scope == granted


@pytest.mark.requirement("EXT-06")
@pytest.mark.parametrize("how", ["withdrawn", "deleted", "over"])
async def test_when_no_consent_is_in_force_a_refresh_is_refused(world: World, how: str) -> None:
    owner, app = await world.patient(), await register_app(world)
    issued = await tokens_of(world, app, owner)
    await owner.create(observation(owner.patient))
    reading, writing = await owner.search("Consent?_sort=-_lastUpdated")
    for one in (reading, writing):
        issued = await again(world, app, issued.refresh_token or "")
        if how == "withdrawn":
            await world.revoke(owner, one)
        elif how == "deleted":
            assert (await owner.delete(f"Consent/{one['id']}")).status_code == 204
    if how == "over":
        world.clock.ahead += timedelta(days=370)
    with pytest.raises(InvalidGrant):
        await again(world, app, issued.refresh_token or "")


@pytest.mark.parametrize("how", ["locked", "no longer named"])
async def test_a_portal_acts_as_a_person_as_long_as_they_are_one(world: World, how: str) -> None:
    mother = await world.patient()
    named = await world.operator.create(related_person(mother.patient))
    login = await account_of(world, f"RelatedPerson/{named['id']}")
    portal = await register_app(world, kind="portal", category="record", name="Portal")
    request = Request(portal.id)
    person, page = await arrive(world, login, request, scope="offline_access patient/Observation.rs")
    await person.send(page.form("/oauth/authorize/continue"), decision="allow")
    entry = await entry_of(world, portal)
    issued = await redeem(world, entry, told(person)["code"], CALLBACK, request.verifier)
    [token] = await world.stored("tokens", client=portal.id)
    assert (token["kind"], token["patient"]) == ("proxy", mother.patient)
    renewed = await again(world, portal, issued.refresh_token or "")
    if how == "locked":
        await lock_account(world.gateway, login)
    else:
        await world.operator.put(f"RelatedPerson/{named['id']}", {**named, "active": False})
    with pytest.raises(InvalidGrant):
        await again(world, portal, renewed.refresh_token or "")
