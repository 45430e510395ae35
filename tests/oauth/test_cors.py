"""Pages of other origins: documents for everybody, the rest for pages of referenced clients, cookies for nobody."""

import pytest

from gateway.oauth import cors
from tests.clients import SITE, preflight, register
from tests.world import JSON, World, unique

EVERYBODY = [
    "/fhir/metadata",
    "/fhir/.well-known/smart-configuration",
    "/.well-known/oauth-authorization-server",
    "/oauth/jwks",
]
PAGE = {"kind": "app", "category": "measurement", "grants": ["authorization_code"], "authentication": "none", "keys": []}


@pytest.fixture(autouse=True)
def looked_up_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cors, "_FRESH", 0.0)


def page_of(origin: str) -> dict[str, object]:
    return {**PAGE, "redirect_uris": [f"{origin}/callback"], "origins": [origin]}


@pytest.mark.parametrize("path", EVERYBODY)
async def test_documents_are_for_every_page(world: World, path: str) -> None:
    answer = await world.http.get(SITE + path, headers={"Origin": "https://anybody.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
    asked = await preflight(world, path, "https://anybody.example", "GET")
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")


@pytest.mark.parametrize("path", ["/fhir/Patient", "/oauth/token"])
async def test_the_rest_is_for_pages_of_referenced_clients(world: World, path: str) -> None:
    known, draft = f"https://{unique('app')}.example", f"https://{unique('app')}.example"
    await register(world, **page_of(known))
    await register(world, "draft", **page_of(draft))
    asked = await preflight(world, path, known)
    assert asked.headers["access-control-allow-origin"] == known
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    for origin in (draft, known.replace("https", "http"), f"{known}.evil.example", "null", "https://anybody.example"):
        asked = await preflight(world, path, origin)
        assert "access-control-allow-origin" not in asked.headers
        assert asked.headers["vary"] == "Origin"


async def test_an_answer_shows_a_page_what_it_needs(world: World) -> None:
    origin = f"https://{unique('app')}.example"
    await register(world, **page_of(origin))
    camille = await world.patient()
    answer = await camille.get(f"Patient/{camille.patient}", Origin=origin)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    exposed = answer.headers["access-control-expose-headers"]
    assert all(name in exposed for name in ("ETag", "Location", "WWW-Authenticate", "Retry-After", "X-Request-Id"))
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers
    # a page must be able to read why it was refused, by whatever layer
    refused = await camille.post("Patient", b"x" * 20, Origin=origin, Content_Length="99999999999")
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (413, origin)


async def test_another_page_learns_nothing_and_no_call_is_made_without_one(world: World) -> None:
    camille = await world.patient()
    answer = await camille.get(f"Patient/{camille.patient}", Origin="https://evil.example")
    assert "access-control-allow-origin" not in answer.headers
    plain = await camille.get(f"Patient/{camille.patient}")
    assert "vary" not in plain.headers
    assert plain.headers["content-type"].startswith(JSON)
    without = await world.calls_of(lambda: camille.get(f"Patient/{camille.patient}"))
    with_one = await world.calls_of(lambda: camille.get(f"Patient/{camille.patient}", Origin="https://evil.example"))
    assert with_one == without + 1
