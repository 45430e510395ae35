"""The keys of an issuer: how often they are fetched, how long they hold, and which can be used."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import respx
from joserfc import jwt

from gateway.fhir.registry import Registry
from gateway.issuers import signed
from gateway.issuers.claims import Refused
from gateway.issuers.issuers import Issuers
from gateway.issuers.keys import parse_keys
from gateway.outbound import Unreachable
from tests.issuing import SIGNED, ec, issuers_of, public, rsa, token

FULL = {"keys": [rsa("k1").as_dict(private=False)]}


class Scene:
    """An issuer whose key set a test changes, and time that a test sets ahead."""

    def __init__(self, issuers: Issuers, route: respx.Route) -> None:
        self.issuers, self.route = issuers, route
        self.ahead = 0.0

    def publish(self, *keys: Any, **headers: str) -> None:
        self.route.respond(json=public(*keys), headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def use(self, key: Any, kid: str | None = None) -> bool:
        """Whether a token signed with this key holds."""
        now = datetime.now(UTC) + timedelta(seconds=self.ahead)
        moment = int(now.timestamp())
        text = token(key, {"kid": kid or key.kid}, iat=moment, exp=moment + 300)
        issuer = self.issuers.find(text)
        assert issuer is not None
        try:
            await self.issuers.bearer(issuer, text, now)
        except Refused:
            return False
        return True

    @property
    def fetches(self) -> int:
        return self.route.call_count


@pytest.fixture
async def scene(registry: Registry, tmp_path: Path) -> AsyncIterator[Scene]:
    with respx.mock() as router:
        found = Scene(issuers_of(registry, tmp_path, clinic=SIGNED), router.get(path="/jwks"))
        found.publish(rsa("k1"))
        assert await found.use(rsa("k1"))
        yield found
        await found.issuers.close()


@pytest.mark.requirement("SEC-043")
async def test_a_flood_of_unknown_keys_is_one_fetch_an_interval(scene: Scene) -> None:
    for interval in range(3):
        scene.ahead = interval * 31
        held = await asyncio.gather(*(scene.use(rsa("k2"), f"{interval}-{n}") for n in range(334)))
        assert held == [False] * 334
        assert await scene.use(rsa("k1"))
    assert scene.fetches == 3  # the first one of the fixture was within the first interval


@pytest.mark.requirement("SEC-043")
async def test_keys_rotate(scene: Scene) -> None:
    scene.publish(rsa("k1"), rsa("k2"))
    assert not await scene.use(rsa("k2"))  # within half a minute of the last fetch
    scene.ahead = 31
    assert await asyncio.gather(*(scene.use(rsa("k2")) for _ in range(20))) == [True] * 20
    assert scene.fetches == 2
    scene.publish(rsa("k2"))
    scene.ahead += 599
    assert await scene.use(rsa("k1"))
    scene.ahead += 2  # ten minutes old: fetched anew, and what was taken back holds no longer
    assert not await scene.use(rsa("k1"))
    assert await scene.use(rsa("k2"))
    assert scene.fetches == 3


@pytest.mark.requirement("SEC-043")
@pytest.mark.parametrize(
    "down",
    [
        {"side_effect": httpx.ConnectError("canary")},
        {"side_effect": httpx.ReadTimeout("canary")},
        {"return_value": httpx.Response(500)},
        {"return_value": httpx.Response(302, headers={"Location": "https://evil.example/jwks"})},
        {"return_value": httpx.Response(200, json={"keys": []})},
        {"return_value": httpx.Response(200, text="<html>")},
        {"return_value": httpx.Response(200, content=b"[" * 100_000)},
        {"return_value": httpx.Response(200, json=[])},
        {"return_value": httpx.Response(200, json={**FULL, "x": "y" * 262_144})},
        {
            "return_value": httpx.Response(
                200, content=gzip.compress(json.dumps(FULL).encode()), headers={"Content-Encoding": "gzip"}
            )
        },
    ],
    ids=["refused", "slow", "500", "redirect", "empty", "no json", "deep", "no object", "large", "compressed"],
)
async def test_while_an_issuer_is_down_its_keys_go_on_for_an_hour(scene: Scene, down: dict[str, Any]) -> None:
    scene.route.mock(**down)
    scene.ahead = 601
    assert await scene.use(rsa("k1"))
    assert await scene.use(rsa("k1"))
    assert scene.fetches == 2
    with pytest.raises(Unreachable):  # whether this is a key of the issuer, nobody can know now
        await scene.use(rsa("k2"))
    scene.ahead = 4_199
    assert await scene.use(rsa("k1"))
    scene.ahead = 4_201
    with pytest.raises(Unreachable):
        await scene.use(rsa("k1"))
    fetches = scene.fetches
    scene.ahead += 31
    scene.publish(rsa("k1"))
    assert await scene.use(rsa("k1"))
    assert scene.fetches == fetches + 1


@pytest.mark.requirement("SEC-043")
async def test_a_token_that_held_is_verified_once_and_ends_with_its_key_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = []

    def decode(text: str, *args: Any, **kwargs: Any) -> Any:
        verified.append(text)
        return jwt.decode(text, *args, **kwargs)

    monkeypatch.setattr(signed, "jwt", SimpleNamespace(decode=decode))
    now = datetime.now(UTC)
    text = token(rsa("k1"), exp=int(now.timestamp()) + 3_000)
    issuer = scene.issuers.find(text)
    assert issuer is not None
    for seconds in (0, 10, 605, 610):  # after ten minutes the keys are new ones, though they say the same
        assert await scene.issuers.bearer(issuer, text, now + timedelta(seconds=seconds)) is not None
    assert verified == [text, text]
    with pytest.raises(Refused, match=r"^signature$"):
        await scene.issuers.bearer(issuer, f"{text[:-8]}AAAAAAAA", now)
    scene.publish(rsa("k2"))
    with pytest.raises(Refused, match=r"^kid$"):
        await scene.issuers.bearer(issuer, text, now + timedelta(seconds=1_220))
    scene.publish(rsa("k1"))
    with pytest.raises(Refused, match=r"^exp$"):
        await scene.issuers.bearer(issuer, text, now + timedelta(seconds=3_040))


async def test_without_any_keys_yet_nothing_is_known(registry: Registry, tmp_path: Path) -> None:
    with respx.mock() as router:
        scene = Scene(issuers_of(registry, tmp_path, clinic=SIGNED), router.get(path="/jwks"))
        scene.route.respond(503)
        for _ in range(3):
            with pytest.raises(Unreachable):
                await scene.use(rsa("k1"))
        assert scene.fetches == 1
        await scene.issuers.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"json": public(rsa("k1"), rsa("weak", 1_024), ec("e1"))}, ("2 usable keys", True)),
        ({"json": {"keys": []}}, ("no usable answer: no usable key in the answer", False)),
        ({"status_code": 404}, ("no usable answer: status 404", False)),
    ],
)
async def test_whether_there_are_keys_can_be_tried_out(
    registry: Registry, tmp_path: Path, answer: dict[str, Any], said: tuple[str, bool]
) -> None:
    with respx.mock() as router:
        router.get(path="/jwks").respond(**answer)
        issuers = issuers_of(registry, tmp_path, clinic=SIGNED)
        assert [one async for one in issuers.try_out(datetime.now(UTC))] == [("clinic", *said)]
        await issuers.close()


async def test_whoever_waited_for_keys_gets_them_though_the_first_went_away(registry: Registry, tmp_path: Path) -> None:
    asked, published = asyncio.Event(), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.set()
        await published.wait()
        return httpx.Response(200, json=FULL)

    with respx.mock() as router:
        scene = Scene(issuers_of(registry, tmp_path, clinic=SIGNED), router.get(path="/jwks"))
        scene.route.mock(side_effect=answer)
        first, second = (asyncio.create_task(scene.use(rsa("k1"))) for _ in range(2))
        await asked.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        published.set()
        assert await second
        assert scene.fetches == 1
        await scene.issuers.close()


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("max-age=60", 60),
        ("public, max-age=60", 60),
        ("max-age=1", 30),
        ("max-age=86400", 600),
        ("no-store", 30),
        ("private", 600),
    ],
)
async def test_an_issuer_says_how_long_its_keys_hold(scene: Scene, told: str, seconds: int) -> None:
    scene.publish(rsa("k1"), Cache_Control=told)
    scene.ahead = 601
    assert await scene.use(rsa("k1"))
    scene.ahead += seconds - 1
    assert await scene.use(rsa("k1"))
    assert scene.fetches == 2
    scene.ahead += 2
    assert await scene.use(rsa("k1"))
    assert scene.fetches == 3


async def test_a_clock_that_is_set_back_makes_keys_old(scene: Scene) -> None:
    scene.ahead = -3_600
    assert await scene.use(rsa("k1"))
    assert scene.fetches == 2


K1 = rsa("k1").as_dict(private=False)


@pytest.mark.requirement("SEC-044")
@pytest.mark.parametrize(
    "member",
    [
        {**K1, "kid": "k1"},
        {**rsa("k2").as_dict(private=False), "kid": "k1"},
        {**K1, "kid": "bad", "use": "enc"},
        {**K1, "kid": "bad", "key_ops": ["encrypt"]},
        {**K1, "kid": "bad", "kty": "AKP"},
        {**K1, "kid": "bad", "kty": "oct", "k": "c2VjcmV0"},
        {**K1, "kid": "bad", "n": "AQAB"},
        {**K1, "kid": "bad", "n": 17},
        {**K1, "kid": "bad", "e": "Ag"},
        {"kty": "RSA", "kid": "bad"},
        {"kty": "EC", "kid": "bad", "crv": "BP-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "kid": "bad", "crv": "P-256", "x": "AA", "y": "AA"},
        {**K1, "kid": 7},
        {**K1, "kid": None},
        {"kid": "bad"},
        rsa("bad", 1_024).as_dict(private=False),
        rsa("bad").as_dict(private=True),
        "bad",
        None,
        [],
    ],
    ids=range(20),
)
def test_a_member_that_cannot_be_used_is_left_out(member: Any) -> None:
    found = parse_keys(json.dumps({"keys": [K1, member, ec("e1").as_dict(private=False)]}).encode())
    # Of two with one name nobody can say which is meant.
    assert found.keys() == ({"e1"} if isinstance(member, dict) and member.get("kid") == "k1" else {"k1", "e1"})


@pytest.mark.requirement("SEC-044")
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b'{"keys":null}', b'{"keys":{}}', b'{"keys":7}', b"\xff", b'{"keys":[' * 3000]
)
def test_what_is_no_key_set_has_no_keys(body: bytes) -> None:
    assert parse_keys(body) == {}
