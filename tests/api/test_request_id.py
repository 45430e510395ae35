"""`X-Request-Id`: echoed on every answer, and found again in the audit."""

import re
from typing import Any

import pytest

from tests.world import BASE, Actor, World, bundle, entry, observation, unique

pytestmark = pytest.mark.requirement("CORE-17")


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


def ids_in(events: list[dict[str, Any]]) -> list[str]:
    return [
        entity["what"]["identifier"]["value"]
        for event in events
        for entity in event["entity"]
        if entity["type"]["code"] == "XrequestId"
    ]


async def test_it_is_echoed_and_stored_in_the_audit(camille: Actor) -> None:
    asked: dict[str, tuple[str, str, Any]] = {
        unique("create"): ("POST", "Observation", observation(camille.patient)),
        unique("search"): ("GET", "Observation", None),
        unique("missing"): ("GET", "Observation/abc-0000", None),
        unique("history"): ("GET", "Observation/abc-0000/_history", None),
        unique("wrong"): ("POST", "Observation", {"resourceType": "Observation"}),
        unique("batch"): ("POST", "", bundle("batch", entry("GET", f"Patient/{camille.patient}"))),
        unique("transaction"): (
            "POST",
            "",
            bundle("transaction", entry("POST", "Observation", observation(camille.patient))),
        ),
    }
    for request_id, (method, path, body) in asked.items():
        answer = await camille.send(method, path, body, X_Request_Id=request_id)
        assert answer.headers.get_list("x-request-id") == [request_id]
    found = ids_in(await camille.search("AuditEvent?_count=100"))
    assert set(asked) <= set(found)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "metadata", {}, 200),
        ("GET", "Observation", {}, 401),
        ("GET", "nowhere/at/all/x/y/z", {}, 404),
        ("OPTIONS", "Observation", {}, 405),
        ("POST", "Observation", {"Content-Length": "99999999999"}, 413),
        ("GET", "Observation?" + "x" * 9_000, {}, 414),
        ("GET", "Observation", {"Accept": "text/html"}, 406),
    ],
)
async def test_it_is_on_every_answer(world: World, method: str, path: str, headers: dict[str, str], status: int) -> None:
    answer = await world.http.request(method, f"{BASE}/{path}", headers={"X-Request-Id": "mine", **headers})
    assert (answer.status_code, answer.headers.get_list("x-request-id")) == (status, ["mine"])


@pytest.mark.parametrize("given", [None, "", " ", "a b", "x" * 129, "caf\u00e9", "a\tb", "\x7f"])
async def test_what_is_no_usable_id_gets_one_of_ours(camille: Actor, given: str | None) -> None:
    answers = [
        await camille.http.get(f"{BASE}/metadata", headers={} if given is None else {"X-Request-Id": given.encode("latin-1")})
        for _ in range(2)
    ]
    made = [answer.headers["x-request-id"] for answer in answers]
    assert all(re.fullmatch(r"[0-9a-f]{24}", one) for one in made)
    assert made[0] != made[1]


@pytest.mark.parametrize(
    "given", ["x", "x" * 128, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"]
)
async def test_any_visible_characters_will_do(camille: Actor, given: str) -> None:
    assert (await camille.get("metadata", X_Request_Id=given)).headers["x-request-id"] == given
