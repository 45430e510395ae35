"""Asking an OpenID provider who somebody is: the requests that are made, and every answer that is none to them."""

import json
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import respx
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core.util import create_half_hash

from gateway.fhir.registry import Registry
from gateway.issuers.claims import Refused
from gateway.issuers.openid import Identity, Providers, Question, new_question
from gateway.issuers.providers import Provider, read_providers
from gateway.outbound import Unreachable
from tests.issuing import ADDRESS, ISSUER, KEYS, ec, public, rsa, token, write_issuers
from tests.world import BASE

CALLBACK = "https://gateway.example/login/callback/portal"
PROVIDER = f"""
name = "Portal"
issuer = "{ISSUER}"
client = "gate way:1"
secret_file = "secret"
acr = ["eidas1", "eidas2"]
[require]
typ = ["ID"]
[endpoints]
authorization = "{ISSUER}/authorize?tenant=1"
token = "{ISSUER}/token"
userinfo = "{ISSUER}/userinfo"
[id_token]
keys = "{KEYS}"
[[person]]
kind = "patient"
user = {{claim = "sub", type = "Patient"}}
"""
Q = Question("the state", "the nonce", "v" * 64)


def read(registry: Registry, folder: Path, text: str = PROVIDER) -> list[Provider]:
    return read_providers(write_issuers(folder, portal=text), registry, (), BASE, ("en", "fr"))


async def resolve(host: str, port: int) -> list[str]:
    return [ADDRESS]


@pytest.fixture
def asked() -> Iterator[respx.MockRouter]:
    with respx.mock(assert_all_called=False) as router:
        router.get(path="/jwks").respond(json=public(rsa("k1"), ec("e1")))
        router.get(path="/userinfo", headers={"Authorization": "Bearer at"}, name="userinfo").respond(
            json={"sub": "u-1", "name": "A", "acr": "x"}
        )
        yield router


@pytest.fixture
async def providers(registry: Registry, tmp_path: Path, asked: respx.MockRouter) -> AsyncIterator[Providers]:
    found = Providers(read(registry, tmp_path), (), resolve)
    yield found
    await found.close()


def id_token(key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    if isinstance(changes.get("iat"), int):  # from now on: the suite may take longer than a token holds
        changes["iat"] += int(datetime.now(UTC).timestamp())
    sound = {"aud": "gate way:1", "nonce": Q.nonce, "acr": "eidas2", "typ": "ID", "client_id": None, "scope": None}
    return token(key, {"typ": "JWT", **(header or {})}, **{**sound, "fhirUser": None, **changes})


async def identity(providers: Providers, asked: respx.MockRouter, answer: Any, ahead: float = 0) -> Identity:
    """Who it is by this answer of the token endpoint: an id token, a whole body, or a response."""
    body = {"token_type": "Bearer", "access_token": "at", "id_token": answer} if isinstance(answer, str) else answer
    response = body if isinstance(body, httpx.Response) else httpx.Response(200, json=body)
    asked.post(path="/token").mock(return_value=response)
    provider = providers.find("portal")
    assert provider is not None
    return await providers.identity(provider, "the code", Q, CALLBACK, datetime.now(UTC) + timedelta(seconds=ahead))


def test_nobody_guesses_what_ties_an_answer_to_its_question() -> None:
    questions = [new_question() for _ in range(50)]
    texts = {text for q in questions for text in (q.state, q.nonce, q.verifier)}
    assert len(texts) == 150
    assert min(map(len, texts)) >= 43


async def test_the_browser_is_sent_with_a_challenge_never_with_what_answers_it(providers: Providers) -> None:
    provider = providers.find("portal")
    assert provider is not None
    url = providers.address(provider, Q, CALLBACK, "fr")
    assert url.startswith(f"{ISSUER}/authorize?tenant=1&")
    assert Q.verifier not in url
    assert parse_qs(urlsplit(url).query) == {
        "tenant": ["1"],
        "response_type": ["code"],
        "client_id": ["gate way:1"],
        "redirect_uri": [CALLBACK],
        "scope": ["openid"],
        "state": ["the state"],
        "nonce": ["the nonce"],
        "code_challenge": [create_s256_code_challenge(Q.verifier)],
        "code_challenge_method": ["S256"],
        "acr_values": ["eidas1 eidas2"],
        "ui_locales": ["fr"],
    }


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_the_code_is_shown_with_its_verifier_and_our_secret(
    registry: Registry, tmp_path: Path, asked: respx.MockRouter, method: str
) -> None:
    providers = Providers(read(registry, tmp_path, f'authentication = "{method}"\n{PROVIDER}'), (), resolve)
    found = await identity(providers, asked, id_token())
    await providers.close()
    assert (found.subject, found.acr, found.claims["name"]) == ("u-1", "eidas2", "A")  # what is signed counts more
    request = asked.calls[0].request
    form = {name: value[0] for name, value in parse_qs(request.content.decode()).items()}
    sent = {"grant_type": "authorization_code", "code": "the code", "redirect_uri": CALLBACK, "code_verifier": Q.verifier}
    if method == "client_secret_post":
        assert form == {**sent, "client_id": "gate way:1", "client_secret": "s:cret"}
        assert "authorization" not in request.headers
    else:
        assert form == sent
        assert b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"gate+way%3A1:s%3Acret"


SOUND: dict[str, Any] = {
    "as it is": {},
    "several audiences, and we are the one that asked": {"aud": ["other", "gate way:1"], "azp": "gate way:1"},
    "the hash of the access token": {"at_hash": create_half_hash("at", "RS256").decode()},
    "a clock that is behind": {"iat": -60},
}


@pytest.mark.parametrize("sound", SOUND.values(), ids=SOUND)
async def test_a_sound_id_token_is_an_answer(providers: Providers, asked: respx.MockRouter, sound: dict[str, Any]) -> None:
    assert (await identity(providers, asked, id_token(**sound))).subject == "u-1"
    assert (await identity(providers, asked, id_token(ec("e1"), {"typ": None}, **sound | {"at_hash": None}))).subject == "u-1"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another nonce": ({"nonce": "another"}, "nonce"),
    "no nonce": ({"nonce": None}, "nonce"),
    "another issuer": ({"iss": "https://evil.example"}, "iss"),
    "an issuer that is nearly the same": ({"iss": f"{ISSUER}/"}, "iss"),
    "no issuer": ({"iss": None}, "iss"),
    "another audience": ({"aud": "medisoft"}, "aud"),
    "no audience": ({"aud": None}, "aud"),
    "several audiences and nobody who asked": ({"aud": ["gate way:1", "medisoft"]}, "azp"),
    "somebody else asked": ({"azp": "medisoft"}, "azp"),
    "no subject": ({"sub": None}, "sub"),
    "an empty subject": ({"sub": ""}, "sub"),
    "a subject that is none": ({"sub": {"$ne": ""}}, "sub"),
    "an endless subject": ({"sub": "x" * 256}, "sub"),
    "no end": ({"exp": None}, "exp"),
    "no beginning": ({"iat": None}, "iat"),
    "an end that is none": ({"exp": "never"}, "exp"),
    "of the future": ({"iat": 4_000}, "iat"),
    "old": ({"iat": -4_000}, "iat"),
    "the hash of another access token": ({"at_hash": "AAAA"}, "at_hash"),
    "a hash that is none": ({"at_hash": 1}, "at_hash"),
    "another level": ({"acr": "eidas0"}, "acr"),
    "no level": ({"acr": None}, "acr"),
    "what is no id token to its issuer": ({"typ": "Bearer"}, "required claims"),
    "somebody else than userinfo speaks of": ({"sub": "u-2"}, "sub of userinfo"),
}


@pytest.mark.requirement("ATK-T24", "ATK-T25", "ATK-T26")
@pytest.mark.parametrize(("changes", "why"), REFUSED.values(), ids=REFUSED)
async def test_an_id_token_that_is_not_the_answer_is_refused(
    providers: Providers, asked: respx.MockRouter, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused) as refused:
        await identity(providers, asked, id_token(**changes))
    assert why in str(refused.value) or str(refused.value) == "claims"


def with_header(text: str, changes: dict[str, Any]) -> str:
    head, _, rest = text.partition(".")
    found = json.loads(urlsafe_b64decode(head + "==")) | changes
    return f"{urlsafe_b64encode(json.dumps(found).encode()).decode().rstrip('=')}.{rest}"


@pytest.mark.requirement("ATK-T24", "ATK-T25")
@pytest.mark.parametrize(
    ("header", "key", "why"),
    [
        ({"typ": "at+jwt"}, None, "typ"),
        ({"typ": "logout+jwt"}, None, "typ"),
        ({"alg": "none"}, None, "alg"),
        ({"alg": "HS256"}, None, "alg"),
        ({"kid": None}, None, "kid"),
        ({"kid": "k1"}, rsa("k2"), "signature"),
        ({"jku": "https://evil.example"}, None, "header"),
    ],
)
async def test_an_id_token_that_was_not_signed_so_is_refused(
    providers: Providers, asked: respx.MockRouter, header: dict[str, Any], key: Any, why: str
) -> None:
    # (What it says of its algorithm is changed afterwards: nobody signs by none.)
    text = with_header(id_token(), header) if "alg" in header else id_token(key, header)
    with pytest.raises(Refused, match=f"^{why}$"):
        await identity(providers, asked, text)


async def test_an_id_token_holds_for_the_moment_of_the_login_only(providers: Providers, asked: respx.MockRouter) -> None:
    text = id_token(exp=int(datetime.now(UTC).timestamp()) + 100_000)
    assert (await identity(providers, asked, text, 325)).subject == "u-1"
    with pytest.raises(Refused, match=r"^iat$"):
        await identity(providers, asked, text, 340)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(400, json={"error": "invalid_grant"}), Refused),
        (httpx.Response(400, json={"error": "invalid_request"}), Unreachable),
        (httpx.Response(401, json={"error": "invalid_client"}), Unreachable),
        (httpx.Response(500, text="oops"), Unreachable),
        (httpx.Response(302, headers={"Location": "https://evil.example"}), Unreachable),
        (httpx.Response(200, text="{"), Unreachable),
        (httpx.Response(200, text="[]"), Unreachable),
        (httpx.Response(200, content=b"[" * 5_000), Unreachable),
        (httpx.Response(200, content=b" " * 70_000), Unreachable),
        ({"access_token": "at"}, Refused),
        ({"access_token": "at", "id_token": None}, Refused),
        ({"access_token": "at", "id_token": "a.b"}, Refused),
        ({"access_token": "at", "id_token": "a.b.c"}, Refused),
        ({"access_token": "at", "id_token": "é.é.é"}, Refused),
        ({"access_token": "at", "id_token": "a" * 20_000 + ".b.c"}, Refused),
        ({"access_token": "at\r\nX: y", "id_token": "SOUND"}, Refused),
        ({"access_token": None, "id_token": "SOUND"}, Refused),
    ],
)
async def test_an_answer_that_is_none_lets_nobody_in(
    providers: Providers, asked: respx.MockRouter, answer: Any, error: type[Exception]
) -> None:
    if isinstance(answer, dict) and answer.get("id_token") == "SOUND":
        answer = {**answer, "id_token": id_token()}
    with pytest.raises(error) as raised:
        await identity(providers, asked, answer)
    assert "at\r\n" not in str(raised.value)


@pytest.mark.parametrize(
    "answer", [httpx.Response(401), httpx.Response(200, text="jwt"), httpx.Response(200, json={"name": "x"})]
)
async def test_without_the_userinfo_of_the_same_person_nobody_is_in(
    providers: Providers, asked: respx.MockRouter, answer: httpx.Response
) -> None:
    asked["userinfo"].mock(return_value=answer)
    with pytest.raises((Refused, Unreachable)):
        await identity(providers, asked, id_token())


@pytest.mark.requirement("ATK-T17")
async def test_only_the_configured_addresses_are_called(providers: Providers, asked: respx.MockRouter) -> None:
    await identity(providers, asked, id_token())
    assert [(call.request.headers["host"], call.request.url.path) for call in asked.calls] == [
        ("id.example", "/token"),
        ("id.example", "/jwks"),
        ("id.example", "/userinfo"),
    ]
