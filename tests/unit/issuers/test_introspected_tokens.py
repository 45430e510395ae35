"""Tokens that their issuer is asked about (RFC 7662): the question, which answers are a yes, and for how long."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx

from gateway.fhir.registry import Registry
from gateway.issuers.claims import Bearer, Refused
from gateway.issuers.issuers import Issuers
from gateway.outbound import Unreachable
from tests.issuing import INTROSPECTED, ISSUER, claims, issuers_of, token


class Scene:
    """An issuer whose answer a test decides."""

    def __init__(self, issuers: Issuers, route: respx.Route) -> None:
        self.issuers, self.route = issuers, route

    def says(self, **changes: Any) -> None:
        body = {"active": True, **claims(sub="10001234567", azp="medisoft", client_id=None), **changes}
        self.route.respond(json={name: value for name, value in body.items() if value is not None})

    async def ask(self, text: str | None = None, ahead: float = 0) -> Bearer | None:
        text = text or f"op_{secrets.token_hex(8)}"
        issuer = self.issuers.find(text)
        assert issuer is not None
        return await self.issuers.bearer(issuer, text, datetime.now(UTC) + timedelta(seconds=ahead))


async def scene_of(registry: Registry, folder: Path, text: str) -> AsyncIterator[Scene]:
    with respx.mock(assert_all_called=False) as router:
        found = Scene(
            issuers_of(registry, folder, clinic=text), router.post(path="/introspect", headers={"Host": "id.example"})
        )
        found.says()
        yield found
        await found.issuers.close()


@pytest.fixture
async def scene(registry: Registry, tmp_path: Path) -> AsyncIterator[Scene]:
    async for found in scene_of(registry, tmp_path, INTROSPECTED):
        yield found


@pytest.fixture
async def keeping(registry: Registry, tmp_path: Path) -> AsyncIterator[Scene]:
    """What is said holds for ten seconds."""
    async for found in scene_of(registry, tmp_path, INTROSPECTED.replace("prefix =", "cache_seconds = 10\nprefix =")):
        yield found


@pytest.mark.requirement("SEC-045")
@pytest.mark.parametrize("opaque", ["op_abc+/~=", ""], ids=["opaque", "JWT"])
async def test_the_token_is_asked_about_in_a_form_with_our_credentials(scene: Scene, opaque: str) -> None:
    text = opaque or token()
    bearer = await scene.ask(text)
    assert bearer is not None
    assert (bearer.client, bearer.user, bearer.rule.kind) == ("medisoft", "10001234567", "professional")
    [call] = scene.route.calls
    assert dict(httpx.QueryParams(call.request.content.decode())) == {"token": text, "token_type_hint": "access_token"}
    assert call.request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert httpx.BasicAuth("gate+way", "s%3Acret")._auth_header == call.request.headers["authorization"]  # RFC 6749 §2.3.1
    assert text not in str(call.request.url)


@pytest.mark.requirement("SEC-045", "ATK-T25")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"active": False}, "active"),
        ({"active": "true"}, "active"),
        ({"active": 1}, "active"),
        ({"active": None}, "active"),
        ({"active": [True]}, "active"),
        ({"exp": None}, "exp"),
        ({"exp": 1}, "exp"),
        ({"exp": "2100"}, "exp"),
        ({"nbf": 4_000_000_000}, "nbf"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"aud": "https://other.example"}, "aud"),
        ({"aud": None}, "aud"),
        ({"cnf": {"x5t#S256": "x"}}, "cnf"),
        ({"azp": None}, "client_id"),
        ({"sub": ["x"]}, "sub"),
    ],
)
async def test_only_a_yes_about_a_token_for_us_is_one(scene: Scene, changes: dict[str, Any], reason: str) -> None:
    scene.says(**changes)
    with pytest.raises(Refused, match=f"^{reason}$"):
        await scene.ask()


async def test_an_issuer_need_not_repeat_its_name(scene: Scene) -> None:
    scene.says(iss=None, jti=None, iat=None)
    assert await scene.ask() is not None


@pytest.mark.requirement("SEC-045")
@pytest.mark.parametrize(
    "down",
    [
        {"return_value": httpx.Response(401)},
        {"return_value": httpx.Response(403)},
        {"return_value": httpx.Response(500)},
        {"return_value": httpx.Response(302, headers={"Location": "https://evil.example"})},
        {"return_value": httpx.Response(200, text="{")},
        {"return_value": httpx.Response(200, json=[])},
        {"return_value": httpx.Response(200, content=b"[" * 30_000)},
        {"return_value": httpx.Response(200, json={"active": True, "x": "y" * 65_536})},
        {"side_effect": httpx.ConnectTimeout("canary")},
    ],
    ids=["401", "403", "500", "redirect", "no json", "no object", "deep", "large", "slow"],
)
async def test_no_answer_is_not_a_no(scene: Scene, down: dict[str, Any]) -> None:
    scene.route.mock(**down)
    with pytest.raises(Unreachable) as unreachable:
        await scene.ask()
    assert "canary" not in str(unreachable.value)
    assert scene.route.call_count == 1


async def test_nothing_is_kept_unless_the_file_says_so(scene: Scene) -> None:
    for _ in range(2):
        await scene.ask("op_same")
    assert scene.route.call_count == 2
    scene.says(active=False)
    with pytest.raises(Refused):
        await scene.ask("op_same")


@pytest.mark.requirement("SEC-045")
async def test_what_is_kept_is_kept_for_seconds(keeping: Scene) -> None:
    assert await keeping.ask("op_same") is not None
    keeping.says(active=False)
    assert await keeping.ask("op_same", 9) is not None
    with pytest.raises(Refused):
        await keeping.ask("op_other", 9)
    with pytest.raises(Refused):
        await keeping.ask("op_same", 11)
    keeping.says()
    with pytest.raises(Refused):  # a no is kept as a yes is
        await keeping.ask("op_same", 12)
    assert await keeping.ask("op_same", 22) is not None
    assert keeping.route.call_count == 4


async def test_what_is_kept_ends_with_the_token(keeping: Scene) -> None:
    keeping.says(exp=int(datetime.now(UTC).timestamp()) - 27)
    assert await keeping.ask("op_same") is not None
    with pytest.raises(Refused, match="exp"):
        await keeping.ask("op_same", 5)
    assert keeping.route.call_count == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"json": {"active": False}}, ("answers", True)),
        ({"json": {"active": True, "exp": 4_000_000_000}}, ("no usable answer: an invented token is not refused", False)),
        ({"json": {"active": None}}, ("no usable answer: an invented token is not refused", False)),
        ({"status_code": 401}, ("no usable answer: status 401", False)),
    ],
)
async def test_whether_an_issuer_answers_can_be_tried_out(scene: Scene, answer: dict[str, Any], said: tuple[str, bool]) -> None:
    scene.route.respond(**answer)
    assert [one async for one in scene.issuers.try_out(datetime.now(UTC))] == [("clinic", *said)]
    [call] = scene.route.calls
    assert dict(httpx.QueryParams(call.request.content.decode()))["token"].startswith("op_")


async def test_nobody_is_shown_a_token_that_may_be_ours_or_somebody_elses(scene: Scene) -> None:
    for text in ("gwat_op_x", "demo-app", "xop_", token(iss="https://other.example"), f"op_{'x' * 9_000}", "op_a b", "op_é"):
        assert scene.issuers.find(text) is None
    assert scene.issuers.find("op_x") is scene.issuers.find(token(iss=ISSUER))
