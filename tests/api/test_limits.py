"""What one request may ask for: each limit of gateway.toml holds to the unit, and what goes beyond is refused by name."""

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from tests.world import Actor, World, bundle, entry, expression, issues, observation

FORM = "application/x-www-form-urlencoded"

pytestmark = pytest.mark.requirement("LIM-001")


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


def padded(resource: dict[str, Any], length: int) -> bytes:
    """A resource's JSON, blown up by white space to this many bytes."""
    body = json.dumps(resource).encode()
    return body + b" " * (length - len(body))


async def stored(world: World, sent: dict[str, Any]) -> int:
    return len(await world.stored("Observation", **{"search.identifier": sent["identifier"][0]["value"]}))


@pytest.mark.parametrize(("more", "status"), [(0, 201), (1, 413)])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_body(world: World, camille: Actor, more: int, status: int, is_chunked: bool) -> None:
    sent = observation(camille.patient)
    body = padded(sent, world.gateway.limits.body_bytes + more)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1_048_576):
            yield body[start : start + 1_048_576]

    answer = await camille.http.post(
        "http://gateway.test/fhir/Observation",
        content=chunks() if is_chunked else body,
        headers={"Authorization": f"Bearer {camille.token}", "Content-Type": "application/fhir+json"},
    )
    assert answer.status_code == status
    assert await stored(world, sent) == (status == 201)
    if status == 413:
        assert issues(answer)[0]["code"] == "too-long"


@pytest.mark.parametrize(
    ("length", "status"), [("99999999999", 413), ("9" * 5_000, 413), ("-1", 400), ("1e3", 400), ("0x10", 400)]
)
async def test_a_stated_length_is_refused_before_anything_is_read(camille: Actor, length: str, status: int) -> None:
    answer = await camille.send("POST", "Observation", b"{}", Content_Length=length)
    assert (answer.status_code, issues(answer)[0]["code"]) == (status, "too-long" if status == 413 else "invalid")


async def test_a_length_that_lies_is_counted_all_the_same(world: World, camille: Actor) -> None:
    sent = observation(camille.patient)
    answer = await camille.send("POST", "Observation", padded(sent, world.gateway.limits.body_bytes + 1), Content_Length="10")
    assert answer.status_code == 413
    assert await stored(world, sent) == 0


@pytest.mark.requirement("BUN-10")
@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_bundle_entries(world: World, camille: Actor, kind: str) -> None:
    sent = [observation(camille.patient) for _ in range(world.gateway.limits.bundle_entries + 1)]
    entries = [entry("POST", "Observation", one) for one in sent]
    answer = await camille.post("", bundle(kind, *entries))
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (413, "too-costly", "Bundle.entry")
    assert await stored(world, sent[0]) == 0
    if kind == "transaction":
        assert (await camille.post("", bundle(kind, *entries[1:]))).status_code == 200


def nested(owner: str, levels: int) -> bytes:
    """A reading whose JSON is nested this deep, by extensions within extensions (two levels each)."""
    inner = '{"url":"urn:x","valueString":"[[[[{{{{"}'
    extensions = (levels - 1) // 2
    text = '{"url":"urn:x","extension":[' * (extensions - 1) + inner + "]}" * (extensions - 1)
    body = json.dumps(observation(owner) | {"extension": "here"}).replace('"here"', f"[{text}]")
    assert deepest(body) == levels
    return body.encode()


def deepest(text: str) -> int:
    depth = most = 0
    outside = text.replace("[[[[{{{{", "")
    for character in outside:
        depth += (character in "[{") - (character in "]}")
        most = max(most, depth)
    return most


@pytest.mark.parametrize(("more", "status"), [(-1, 201), (1, 400)])
async def test_depth(world: World, camille: Actor, more: int, status: int) -> None:
    body = nested(camille.patient, world.gateway.limits.depth + more)
    answer = await camille.post("Observation", body)
    assert answer.status_code == status, answer.text
    if status == 400:
        assert issues(answer)[0]["code"] == "structure"


@pytest.mark.requirement("ATK-T20")
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 5_000 + b"]" * 5_000,
        b'{"resourceType":"Observation","a":' + b"[" * 1_000 + b"]" * 1_000 + b"}",
        b'{"resourceType":"Bundle","type":"batch","entry":' + b'[{"resource":' * 500 + b"1" + b"}]" * 500 + b"}",
        b'{"resourceType":"Observation","valueInteger":' + b"9" * 1_000_000 + b"}",
        b'{"resourceType":"Observation","valueQuantity":{"value":1e999999999}}',
        b'{"resourceType":"Observation","status":"\\ud800"}',
    ],
)
async def test_json_made_to_hurt(world: World, camille: Actor, body: bytes) -> None:
    for path in ("Observation", ""):
        answer = await camille.post(path, body)
        assert answer.status_code in (400, 422)
        assert issues(answer)


@pytest.mark.parametrize(("more", "status"), [(0, 201), (1, 422)])
async def test_string_length(world: World, camille: Actor, more: int, status: int) -> None:
    text = "x" * (world.gateway.limits.string_length + more)
    sent = observation(camille.patient, note=[{"text": text}])
    answer = await camille.post("Observation", sent, Prefer="return=minimal")
    assert answer.status_code == status
    assert await stored(world, sent) == (status == 201)
    if status != 201:
        assert expression(answer) == "Observation.note[0].text"


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 414)])
async def test_url(world: World, camille: Actor, more: int, status: int) -> None:
    path = "/fhir/Observation"
    query = "code="
    query += "x" * (world.gateway.limits.url_bytes + more - len(path) - len(query))
    answer = await camille.get(f"Observation?{query}")
    assert answer.status_code == status
    if status == 414:
        assert issues(answer)[0]["code"] == "too-long"


async def test_a_long_path_is_a_long_url(world: World, camille: Actor) -> None:
    answer = await camille.get("Observation/" + "x" * world.gateway.limits.url_bytes)
    assert (answer.status_code, issues(answer)[0]["code"]) == (414, "too-long")


@pytest.mark.parametrize(("count", "status"), [(0, 200), (1, 400), (901, 400), (5_000, 400)])
async def test_parameters(world: World, camille: Actor, count: int, status: int) -> None:
    form = "&".join(["code=x"] * (world.gateway.limits.parameters + count)).encode()
    answer = await camille.send("POST", "Observation/_search", form, Content_Type=FORM)
    assert answer.status_code == status
    if status == 400:
        assert issues(answer)[0]["code"] == ("too-costly" if count < 901 else "invalid")


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 400)])
@pytest.mark.parametrize("name", ["code", "date", "_id", "value-quantity", "combo-code", "patient"])
async def test_values_of_a_parameter(world: World, camille: Actor, name: str, more: int, status: int) -> None:
    value = {"date": "2026", "value-quantity": "1"}.get(name, "x")
    answer = await camille.get(f"Observation?{name}={','.join([value] * (world.gateway.limits.or_values + more))}")
    assert answer.status_code == status
    if status == 400:
        assert (issues(answer)[0]["code"], expression(answer)) == ("too-costly", name)


@pytest.mark.requirement("ATK-T40")
@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 400)])
async def test_values_of_all_parameters(world: World, camille: Actor, more: int, status: int) -> None:
    """Each is a comparison; thousands of composite ones took seconds to read."""
    limits = world.gateway.limits
    lists = [limits.or_values] * (limits.search_values // limits.or_values) + [limits.search_values % limits.or_values + more]
    form = "&".join(f"combo-code-value-quantity={','.join(['x$1'] * count)}" for count in lists if count).encode()
    answer = await camille.send("POST", "Observation/_search", form, Content_Type=FORM)
    assert answer.status_code == status
    if status == 400:
        assert issues(answer)[0]["code"] == "too-costly"


@pytest.mark.requirement("SRCH-10")
@pytest.mark.parametrize("count", ["\u0663", "\u00b2", "\uff11"])
async def test_only_ascii_digits_make_a_number(camille: Actor, count: str) -> None:
    answer = await camille.get(f"Observation?_count={quote(count)}")
    assert (answer.status_code, expression(answer)) == (400, "_count")


@pytest.mark.requirement("ATK-T40")
@pytest.mark.parametrize("name", ["patient", "patient.identifier"])
async def test_patients_named_in_a_search(world: World, name: str) -> None:
    doctor = await world.professional()
    most = world.gateway.limits.or_values
    calls = world.gateway.mongo.calls
    if name == "patient":
        query = "&".join(f"patient={','.join(f'abc-{n}{m}' for m in range(most))}" for n in range(2))
    else:
        query = "&".join(f"{name}={','.join(f'urn:x|{n}{m}' for m in range(most))}" for n in range(2))
    answer = await doctor.get(f"Observation?{query}")
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (400, "too-costly", "patient")
    assert world.gateway.mongo.calls - calls < 10


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
async def test_form(world: World, camille: Actor, more: int, status: int) -> None:
    form = b"code=" + b"x" * (world.gateway.limits.form_bytes - 5 + more)
    answer = await camille.send("POST", "Observation/_search", form, Content_Type=FORM)
    assert answer.status_code == status
    if status == 413:
        assert issues(answer)[0]["code"] == "too-long"


@pytest.mark.parametrize("headers", [{"X-Big": "x" * 16_384}, {f"X-Many-{n}": "x" * 100 for n in range(200)}])
async def test_headers(camille: Actor, headers: dict[str, str]) -> None:
    answer = await camille.get("Observation", **headers)
    assert (answer.status_code, issues(answer)[0]["code"]) == (431, "too-long")
    assert (await camille.get("Observation", **{"X-Big": "x" * 15_000})).status_code == 200


@pytest.mark.requirement("LIM-003")
async def test_page_sizes_are_clamped(world: World, camille: Actor) -> None:
    page = (await camille.get("Observation?_count=999999999")).json()
    assert page["link"][0]["url"].endswith(f"?_count={world.gateway.limits.page_most}")
    reading = await camille.create(observation(camille.patient))
    history = (await camille.get(f"Observation/{reading['id']}/_history?_count=999999999")).json()
    assert history["link"][0]["url"].endswith(f"?_count={world.gateway.limits.history_most}")


@pytest.mark.requirement("LIM-003", "LIM-004")
@pytest.mark.parametrize("query", ["", "_summary=count"])
async def test_a_search_that_takes_too_long_is_given_up(
    world: World, camille: Actor, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    hasty = msgspec.structs.replace(world.gateway.limits, search_seconds=0.000_001)
    state = camille.http._transport.app.state._state  # type: ignore[attr-defined]
    monkeypatch.setitem(state, "gateway", dataclasses.replace(world.gateway, limits=hasty))
    answer = await camille.get(f"Observation?patient={camille.patient}&{query}".rstrip("&"))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert issues(answer)[0]["code"] in ("too-costly", "transient")
