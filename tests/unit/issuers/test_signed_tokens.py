"""Signed tokens of other issuers: which hold, and every way in which one must not."""

import hashlib
import hmac
import logging
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from joserfc.jwk import OctKey

from gateway.fhir.registry import Registry
from gateway.issuers.claims import Refused, granted
from gateway.issuers.issuers import Issuers
from tests.issuing import ISSUER, SIGNED, claims, ec, issuers_of, public, rsa, token, unsigned

KEYCLOAK = SIGNED.replace("[jwt]", '[require]\ntyp = ["Bearer"]\n[jwt]\ntypes = ["JWT"]')


@pytest.fixture
def asked() -> Iterator[respx.MockRouter]:
    """What is asked of id.example, whose key set has k1 (RSA), e1 and e2 (EC)."""
    keys = public(rsa("k1"), ec("e1"), ec("e2", "P-384"))
    with respx.mock(assert_all_called=False) as router:
        router.get(path="/jwks", headers={"Host": "id.example"}).respond(json=keys)
        yield router


@pytest.fixture
async def issuers(registry: Registry, tmp_path: Path, asked: respx.MockRouter) -> AsyncIterator[Issuers]:
    found = issuers_of(registry, tmp_path, clinic=SIGNED)
    yield found
    await found.close()


async def bearer_of(issuers: Issuers, text: str, ahead: float = 0) -> Any:
    issuer = issuers.find(text)
    assert issuer is not None
    return await issuers.bearer(issuer, text, datetime.now(UTC) + timedelta(seconds=ahead))


async def why(issuers: Issuers, text: str, ahead: float = 0) -> str:
    with pytest.raises(Refused) as refused:
        await bearer_of(issuers, text, ahead)
    return str(refused.value)


@pytest.mark.requirement("SEC-042")
@pytest.mark.parametrize(
    "sound",
    [
        lambda: token(),
        lambda: token(ec("e1")),
        lambda: token(header={"typ": "application/at+jwt"}),
        lambda: token(header={"typ": "AT+JWT"}),
        lambda: token(header={"alg": "PS256"}),
        lambda: token(header={"vendor": "x"}),
        lambda: token(aud=["other", claims()["aud"]]),
        lambda: token(client_id=None, azp="medisoft"),
    ],
    ids=range(8),
)
async def test_a_sound_token_says_who_bears_it(issuers: Issuers, sound: Callable[[], str]) -> None:
    text = sound()
    bearer = await bearer_of(issuers, text)
    assert (bearer.client, bearer.user, bearer.patient, bearer.rule.kind) == ("medisoft", "abc-martin", None, "professional")
    assert bearer.subject == "u-1"
    assert "user/*.rs" in list(granted(issuers.find(text), bearer))  # type: ignore[arg-type]
    assert timedelta(seconds=325) < bearer.expires - datetime.now(UTC) <= timedelta(seconds=330)


def hmac_with_public_key() -> str:
    """HS256 with the bytes of the issuer's public key as secret (CVE-2024-37568)."""
    signed = unsigned({"alg": "HS256", "kid": "k1", "typ": "at+jwt"}, claims()).rpartition(".")[0]
    signature = hmac.new(rsa("k1").as_pem(private=False), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def resigned(**body: Any) -> str:
    """Other claims under the signature of a sound token."""
    head, _, signature = token().split(".")
    return ".".join((head, unsigned({}, claims(**body)).split(".")[1], signature))


SOUND = {"alg": "RS256", "kid": "k1", "typ": "at+jwt"}
DEEP = b'{"iss":"' + ISSUER.encode() + b'","a":' + b"[" * 500 + b"]" * 500 + b"}"
# (Made when they are used: the suite may take longer than they hold.)
FORGED: dict[str, tuple[Callable[[], str], str]] = {
    "unsigned": (lambda: unsigned({"alg": "none", "kid": "k1", "typ": "at+jwt"}, claims()), "alg"),
    "none in capitals": (lambda: unsigned({"alg": "None", "kid": "k1", "typ": "at+jwt"}, claims()), "alg"),
    "no alg": (lambda: unsigned({"kid": "k1", "typ": "at+jwt"}, claims()), "alg"),
    "alg is a list": (lambda: unsigned({**SOUND, "alg": ["RS256"]}, claims()), "alg"),
    "HS256 with the public key": (lambda: hmac_with_public_key(), "alg"),
    "HS256": (lambda: token(OctKey.import_key("s" * 32), {"alg": "HS256", "kid": "k1"}), "alg"),
    "an algorithm that is not configured": (lambda: token(header={"alg": "RS384"}), "alg"),
    "another curve": (lambda: token(ec("e2", "P-384"), {"alg": "ES384"}), "alg"),
    "the algorithm of another key": (lambda: unsigned({**SOUND, "kid": "e1"}, claims(), b"x" * 256), "alg of the key"),
    "the wrong curve": (lambda: unsigned({**SOUND, "alg": "ES256", "kid": "e2"}, claims(), b"x" * 64), "signature"),
    "somebody else's key": (lambda: token(rsa("k2"), {"kid": "k1"}), "signature"),
    "no signature": (lambda: unsigned(SOUND, claims()), "signature"),
    "other claims": (lambda: resigned(sub="u-2"), "signature"),
    "an unknown key": (lambda: token(rsa("k2")), "kid"),
    "no key": (lambda: token(header={"kid": None}), "kid"),
    "a key that is a path": (lambda: token(header={"kid": "../../etc/passwd"}), "kid"),
    "a key that is a query": (lambda: token(header={"kid": "k1' or 1=1"}), "kid"),
    "a key that is an object": (lambda: unsigned({**SOUND, "kid": {"$ne": ""}}, claims()), "kid"),
    "a key without end": (lambda: unsigned({**SOUND, "kid": "k" * 256}, claims()), "kid"),
    "jku": (lambda: token(header={"jku": "https://evil.example/jwks"}), "header"),
    "x5u": (lambda: token(header={"x5u": "https://evil.example/x"}), "header"),
    "jwk": (lambda: token(rsa("k2"), {"kid": "k1", "jwk": rsa("k2").as_dict(private=False)}), "header"),
    "x5c": (lambda: token(header={"x5c": ["MIIB"]}), "header"),
    "crit": (lambda: unsigned({**SOUND, "crit": ["exp"], "exp": 1}, claims(), b"x"), "header"),
    "b64": (lambda: unsigned({**SOUND, "b64": False}, claims(), b"x"), "header"),
    "an id token": (lambda: token(header={"typ": "JWT"}), "typ"),
    "no type": (lambda: token(header={"typ": None}), "typ"),
    "a client assertion": (lambda: token(header={"typ": "client-authentication+jwt"}), "typ"),
    "a logout token": (lambda: token(header={"typ": "logout+jwt"}), "typ"),
    "another audience": (lambda: token(aud="https://other.example/fhir"), "aud"),
    "an audience that begins like ours": (lambda: token(aud=claims()["aud"] + "/"), "aud"),
    "no audience": (lambda: token(aud=None), "aud"),
    "an audience that is an object": (lambda: token(aud={claims()["aud"]: 1}), "aud"),
    "expired": (lambda: token(exp=claims()["iat"] - 40), "exp"),
    "without end": (lambda: token(exp=None), "exp"),
    "an end that is text": (lambda: token(exp=str(claims()["exp"])), "exp"),
    "an end that is true": (lambda: token(exp=True), "exp"),
    "an end that is no date": (lambda: token(exp=10**400), "exp"),
    "a negative end": (lambda: token(exp=-1), "exp"),
    "issued tomorrow": (lambda: token(iat=claims()["iat"] + 86_400, exp=claims()["iat"] + 86_700), "iat"),
    "without beginning": (lambda: token(iat=None), "iat"),
    "not yet": (lambda: token(nbf=claims()["iat"] + 60), "nbf"),
    "a beginning that is text": (lambda: token(nbf="now"), "nbf"),
    "for a year": (lambda: token(exp=claims()["iat"] + 31_536_000), "lifetime"),
    "nobody's": (lambda: token(sub=None), "sub"),
    "a subject without end": (lambda: token(sub="u" * 256), "sub"),
    "no client's": (lambda: token(client_id=None), "client_id"),
    "a client that is a list": (lambda: token(client_id=["medisoft"]), "client_id"),
    "a client of two lines": (lambda: token(client_id="medi\nsoft"), "client_id"),
    "bound to a key (RFC 7800)": (lambda: token(cnf={"jkt": "x"}), "cnf"),
    "bound to two": (lambda: token(cnf={"x5t#S256": "x" * 43, "jkt": "x"}), "cnf"),
    "bound to nothing": (lambda: token(cnf={}), "cnf"),
    "bound to what is no thumbprint": (lambda: token(cnf={"x5t#S256": ["x" * 43]}), "cnf"),
    "deep": (lambda: unsigned(SOUND, DEEP, b"x" * 256), "signature"),
    "no header": (lambda: "ey." + unsigned({}, claims()).split(".")[1] + ".x", "format"),
}


@pytest.mark.requirement("SEC-040", "SEC-042", "ATK-T24", "ATK-T25", "SEC-022", "SEC-027")
@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_refused(issuers: Issuers, asked: respx.MockRouter, name: str) -> None:
    forge, reason = FORGED[name]
    assert await why(issuers, forge()) == reason
    assert {str(call.request.url.path) for call in asked.calls} <= {"/jwks"}


@pytest.mark.requirement("SEC-041")
@pytest.mark.parametrize(
    "iss",
    ["https://id.example/", "https://ID.example", "http://id.example", "https://id.example.evil.example", "", None, ["x"]],
)
async def test_who_is_not_configured_is_not_asked(issuers: Issuers, asked: respx.MockRouter, iss: Any) -> None:
    assert issuers.find(token(iss=iss)) is None
    assert asked.calls.call_count == 0


@pytest.mark.requirement("SEC-041")
async def test_each_issuer_has_its_own_keys(registry: Registry, tmp_path: Path) -> None:
    other = SIGNED.replace("id.example", "other.example")
    async with respx.mock() as mock:
        mock.get(path="/jwks", headers={"Host": "id.example"}).respond(json=public(rsa("k1")))
        mock.get(path="/jwks", headers={"Host": "other.example"}).respond(json=public(rsa("k2")))
        issuers = issuers_of(registry, tmp_path, clinic=SIGNED, other=other)
        assert (await bearer_of(issuers, token(rsa("k2"), iss="https://other.example"))).client == "medisoft"
        assert await why(issuers, token(rsa("k2"))) == "kid"
        assert await why(issuers, token(rsa("k1"), iss="https://other.example")) == "kid"
        await issuers.close()


@pytest.mark.requirement("SEC-040")
@pytest.mark.parametrize(
    "text", ["x.y.z", "ey", "ey.e.", "é.é.é", "ey" + "x" * 9_000 + "..", "gwat_ey.e.e", "a b", "", "ey.e.e.e"]
)
async def test_what_is_no_jwt_is_nobody_elses(issuers: Issuers, text: str) -> None:
    assert issuers.find(text) is None


@pytest.mark.requirement("SEC-040")
async def test_an_oversize_token_is_not_looked_into(issuers: Issuers) -> None:
    assert issuers.find(token(scope="x" * 8_192)) is None
    assert issuers.find(token(scope="x" * 4_000)) is not None


@pytest.mark.requirement("SEC-047")
@pytest.mark.parametrize(("ahead", "reason"), [(300, "exp"), (0, "iat"), (0, "nbf")])
async def test_clocks_may_differ_by_half_a_minute(issuers: Issuers, ahead: int, reason: str) -> None:
    begun = claims()["iat"]
    text = token(iat=begun - 60, nbf=begun, exp=begun + 240) if reason == "nbf" else token(iat=begun, exp=begun + 300)
    direction = 1 if reason == "exp" else -1
    assert await bearer_of(issuers, text, ahead + direction * 28.5) is not None
    assert await why(issuers, text, ahead + direction * 31.5) == reason


@pytest.mark.requirement("SEC-042")
async def test_keycloaks_tokens_are_told_apart_by_their_claim(registry: Registry, tmp_path: Path) -> None:
    async with respx.mock() as mock:
        mock.get(path="/jwks").respond(json=public(rsa("k1")))
        issuers = issuers_of(registry, tmp_path, clinic=KEYCLOAK)
        jwt = {"typ": "JWT"}
        assert (await bearer_of(issuers, token(header=jwt, typ="Bearer", azp="app", client_id=None))).client == "app"
        for kind in ("ID", "Refresh", "Offline", "", None, ["ID"]):
            assert await why(issuers, token(header=jwt, typ=kind)) == "required typ"
        assert await why(issuers, token(typ="Bearer")) == "typ"
        await issuers.close()


@pytest.mark.requirement("SEC-041")
async def test_a_person_of_another_server_is_nobody_here(issuers: Issuers) -> None:
    base = claims()["aud"]
    for reference in ("Practitioner/abc-martin", f"{base}/Practitioner/abc-martin", "abc-martin"):
        assert (await bearer_of(issuers, token(fhirUser=reference))).user == "abc-martin"
    for reference in (
        "https://other.example/fhir/Practitioner/abc-martin",
        "Patient/abc-martin",
        "/Practitioner/x",
        None,
        1,
        [],
    ):
        assert await bearer_of(issuers, token(fhirUser=reference)) is None


async def test_why_is_logged_and_nothing_of_the_token(issuers: Issuers, caplog: pytest.LogCaptureFixture) -> None:
    gateway = logging.getLogger("gateway")
    gateway.addHandler(caplog.handler)
    gateway.setLevel("DEBUG")
    try:
        for text in (
            token(aud="canary-aud", sub="canary-sub"),
            token(header={"kid": "canary-kid"}),
            token(rsa("k2"), {"kid": "k1"}),
        ):
            await why(issuers, text)
        await bearer_of(issuers, token(fhirUser="Patient/canary-user"))
    finally:
        gateway.removeHandler(caplog.handler)
        gateway.setLevel("ERROR")
    lines = [(record.getMessage(), record.__dict__["fields"].get("detail")) for record in caplog.records]
    assert ("token.refused", "clinic: aud") in lines
    assert ("token.refused", "clinic: kid") in lines
    assert ("token.refused", "clinic: signature") in lines
    assert ("token.refused", "clinic: no rule for its claims") in lines
    assert "canary" not in str([record.__dict__ for record in caplog.records])


async def test_an_issuer_is_asked_for_its_keys_only(issuers: Issuers, asked: respx.MockRouter) -> None:
    await bearer_of(issuers, token())
    [call] = asked.calls
    assert (call.request.method, call.request.url.path, call.request.content) == ("GET", "/jwks", b"")
    assert not {"authorization", "cookie", "referer"} & set(httpx.Headers(call.request.headers))
