"""Somebody logs out at the provider where they logged in, and is out here: OpenID Connect Back-Channel Logout 1.0."""

from collections.abc import AsyncIterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gateway.exchange.accounts import begin_session, find_session
from gateway.exchange.federation import account_of, end_elsewhere
from gateway.issuers.claims import Refused
from gateway.issuers.logout import Notice
from tests.web.test_federation import LoginScene, standing
from tests.world import World, unique

EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture(scope="module")
async def scene(session_world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LoginScene]:
    async with standing(session_world, tmp_path_factory.mktemp("providers")) as found:
        yield found


async def notice(scene: LoginScene, name: str = "realm", header: Any = None, **changes: Any) -> str:
    """A logout token of a provider; a change to None takes a claim away."""
    now = int(scene.world.clock().timestamp())
    sound = {
        "iss": f"{scene.provider.url}/{name}",
        "aud": "gateway",
        "iat": now,
        "exp": now + 120,
        "jti": unique("notice"),
        "events": {EVENT: {}},
    }
    claims = {key: value for key, value in (sound | changes).items() if value is not None}
    said = {"header": {"typ": "logout+jwt", **(header or {})}, "claims": claims}
    return str((await scene.provider.http.post(f"{scene.provider.url}/{name}/notice", json=said)).json())


async def send_notice(scene: LoginScene, token: str, provider: str = "realm") -> httpx.Response:
    return await scene.http.post(f"{scene.site}/login/logged-out/{provider}", data={"logout_token": token})


async def test_who_logs_out_at_the_provider_is_out_here(scene: LoginScene) -> None:
    _, name = await scene.patient()
    _, other = await scene.patient()
    person, another, bystander = scene.person(), scene.person(), scene.person()
    for browser, account in ((person, name), (another, name), (bystander, other)):
        await scene.log_in(browser, "realm", account)
    assert (await person.open("/me")).answer.url.path == "/me"
    answer = await send_notice(scene, await notice(scene, sub=f"account-{name}"))
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (200, b"", "no-store")
    assert [await scene.session(browser) for browser in (person, another)] == [None, None]
    assert await scene.session(bystander) is not None
    assert (await person.open("/me")).answer.url.path == "/login"


async def test_one_session_ends_where_the_notice_names_one(scene: LoginScene) -> None:
    owner = await scene.world.patient()
    [identifier] = (await owner.get(f"Patient/{owner.patient}")).json()["identifier"]
    browsers = {unique("sid"): scene.person() for _ in range(2)}
    name = await scene.account("realm", ins=identifier["value"])
    for sid, browser in browsers.items():
        said = {"ins": identifier["value"], "id_token": {"sid": sid}}
        await scene.provider.http.put(f"{scene.provider.url}/realm/people/{name}", json=said)
        await scene.log_in(browser, "realm", name)
    (_, first), (last, second) = browsers.items()
    nobody = await notice(scene, sub="account-somebody-else", sid=last)
    assert (await send_notice(scene, nobody)).status_code == 200  # it is of nobody here: that is no error
    assert await scene.session(second) is not None
    assert (await send_notice(scene, await notice(scene, sid=last))).status_code == 200
    assert await scene.session(first) is not None
    assert await scene.session(second) is None


async def test_a_notice_of_a_session_ends_those_of_the_person_of_which_no_name_is_known(scene: LoginScene) -> None:
    """Back-Channel Logout 1.0 §2.6: what `sub` and `sid` identify. A login without `sid` is told apart by nothing."""
    owner = await scene.world.patient()
    [identifier] = (await owner.get(f"Patient/{owner.patient}")).json()["identifier"]
    name, named = await scene.account("realm", ins=identifier["value"]), unique("sid")
    nameless, other = scene.person(), scene.person()
    await scene.log_in(nameless, "realm", name)
    said = {"ins": identifier["value"], "id_token": {"sid": unique("sid")}}
    await scene.provider.http.put(f"{scene.provider.url}/realm/people/{name}", json=said)
    await scene.log_in(other, "realm", name)
    assert (await send_notice(scene, await notice(scene, sub=f"account-{name}", sid=named))).status_code == 200
    assert await scene.session(nameless) is None
    assert await scene.session(other) is not None  # which is told apart


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"}, {"aud": "another"}, {"aud": None}, {"iat": None}, {"iat": 1}, {"exp": None},
        {"exp": 1},
        {"jti": None}, {"jti": ""}, {"events": None}, {"events": {}}, {"events": []},
        {"events": {EVENT: "yes"}}, {"nonce": "n"}, {"sub": None}, {"sub": 1},
        {"sub": "x" * 300}, {"header": {"typ": "at+jwt"}}, {"header": {"kid": "unknown"}},
    ],
    ids=str,
)  # fmt: skip
async def test_what_is_no_notice_ends_nothing(scene: LoginScene, changes: dict[str, Any]) -> None:
    _, name = await scene.patient()
    person = scene.person()
    await scene.log_in(person, "realm", name)
    token = await notice(scene, **{"sub": f"account-{name}", **changes})
    answer = await send_notice(scene, token)
    assert (answer.status_code, answer.json()) == (400, {"error": "invalid_request"})
    assert await scene.session(person) is not None


async def test_a_notice_counts_once_and_for_its_provider(scene: LoginScene) -> None:
    _, name = await scene.patient()
    token = await notice(scene, sub=f"account-{name}")
    assert (await send_notice(scene, token, "psc")).status_code == 400
    assert (await send_notice(scene, token, "nobody")).status_code == 404
    assert (await send_notice(scene, token)).status_code == 200
    person = scene.person()
    await scene.log_in(person, "realm", name)
    assert (await send_notice(scene, token)).status_code == 400  # somebody sends it again when they are back
    assert await scene.session(person) is not None
    unsigned = (await notice(scene, sub=f"account-{name}")).rpartition(".")[0] + "."
    assert (await send_notice(scene, unsigned)).status_code == 400
    for content in (b"", b"logout_token=", b"logout_token=a&logout_token=b", b"\xff", b"x" * 40_000):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await scene.http.post(f"{scene.site}/login/logged-out/realm", content=content, headers=headers)
        assert answer.status_code == 400
    assert (await scene.http.get(f"{scene.site}/login/logged-out/realm")).status_code in (404, 405)


async def test_an_id_token_is_no_notice(scene: LoginScene) -> None:
    _, name = await scene.patient()
    person = scene.person()
    page = await person.send((await scene.log_in(person, "realm", name)).form("/logout"))
    hint = dict(page.forms[0].fields)["id_token_hint"]
    await scene.log_in(person, "realm", name)
    assert (await send_notice(scene, hint)).status_code == 400
    assert await scene.session(person) is not None


async def test_a_notice_that_could_not_be_followed_may_come_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where the database can be made to fail; what the provider signed stands here as it was read."""
    now, subject = world.clock(), unique("subject")
    provider: Any = SimpleNamespace(name="realm")
    account = {"_id": account_of(provider, subject), "name": "Camille", "references": [], "operator": False}
    cookie = await begin_session(world.gateway, account, level="realm", elsewhere={"provider": "realm"})
    read = Notice(subject, None, unique("notice").encode(), now + timedelta(minutes=10))

    async def signed(*_: Any) -> Notice:
        return read

    async def failing(*_: Any) -> int:
        raise ConnectionResetError

    mongo = world.gateway.mongo
    here: Any = SimpleNamespace(mongo=mongo, clock=world.clock, providers=SimpleNamespace(notice=signed))
    with monkeypatch.context() as broken:
        broken.setattr(mongo, "delete", failing)
        with pytest.raises(ConnectionResetError):
            await end_elsewhere(here, provider, "token")
    assert await find_session(world.gateway, cookie) is not None
    await end_elsewhere(here, provider, "token")
    assert await find_session(world.gateway, cookie) is None
    with pytest.raises(Refused, match="jti"):
        await end_elsewhere(here, provider, "token")
