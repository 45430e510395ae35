"""Keys that clients publish: fetched from the registered address alone, kept no longer than they say, and not too often."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
import pytest
from joserfc.jwk import ECKey

from tests.clients import EC, RSA, Registered, ask, asked_with, assertion, error_of, register
from tests.conftest import make_settings, running_world
from tests.world import World

ES2 = ECKey.generate_key("P-384", {"kid": "e2"})


@dataclass
class Publisher:
    """A server on this machine that publishes a key set."""

    port: int = 0
    keys: list[object] = field(default_factory=list)
    body: bytes | None = None
    status: str = "200 OK"
    kept: str = "max-age=600"
    asked: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = self.body if self.body is not None else msgspec.json.encode({"keys": self.keys})
        head = (
            f"HTTP/1.1 {self.status}\r\nContent-Length: {len(body)}\r\nCache-Control: {self.kept}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
async def near(mongo_url: str) -> AsyncIterator[World]:
    """A gateway that may call this machine."""
    async for world in running_world(make_settings(mongo_url, outbound_networks="127.0.0.0/8")):
        yield world


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    found = Publisher(keys=[EC.as_dict(private=False)])
    listening = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = listening.sockets[0].getsockname()[1]
    yield found
    listening.close()
    await listening.wait_closed()


@pytest.fixture
async def system(near: World, publisher: Publisher) -> AsyncIterator[Registered]:
    yield await register(near, keys=[], jwks_uri=publisher.url)
    near.clock.ahead *= 0


async def status(world: World, system: Registered, key: object = EC, **header: str) -> int:
    signed = assertion(system.id, world.clock(), key, header=header)
    form = asked_with(signed, grant_type="client_credentials", scope="system/Observation.rs")
    answer = await ask(world, form)
    return 200 if answer.status_code == 200 else error_of(answer)[0]


def later(world: World, seconds: float) -> None:
    world.clock.ahead += timedelta(seconds=seconds)


@pytest.mark.requirement("SEC-021")
async def test_a_set_is_fetched_once_and_kept_as_long_as_it_says(near: World, publisher: Publisher, system: Registered) -> None:
    publisher.kept = "public, max-age=120"
    assert await asyncio.gather(*(status(near, system) for _ in range(8))) == [200] * 8
    assert publisher.asked == 1
    later(near, 119)
    assert (await status(near, system), publisher.asked) == (200, 1)
    later(near, 2)
    publisher.keys = [ES2.as_dict(private=False)]  # a key that was withdrawn counts no more
    assert (await status(near, system), publisher.asked) == (400, 2)


@pytest.mark.requirement("SEC-021")
@pytest.mark.parametrize(
    ("kept", "fresh"), [("no-store", 1), ("no-cache", 1), ("max-age=0", 1), ("", 600), ("private", 600), ("max-age=86400", 600)]
)
async def test_how_long_that_is(near: World, publisher: Publisher, system: Registered, kept: str, fresh: int) -> None:
    publisher.kept = kept
    await status(near, system)
    later(near, fresh - 0.5)
    assert (await status(near, system), publisher.asked) == (200, 1)
    later(near, 1)
    assert (await status(near, system), publisher.asked) == (200, 2)


@pytest.mark.requirement("SEC-021")
async def test_a_new_key_works_without_restart_and_invented_names_do_not_flood(
    near: World, publisher: Publisher, system: Registered
) -> None:
    assert await status(near, system) == 200
    publisher.keys.append(ES2.as_dict(private=False))
    for _ in range(20):
        assert await status(near, system, kid="invented") == 400
    assert publisher.asked == 1  # asked less than half a minute ago
    later(near, 31)
    assert (await status(near, system, ES2), publisher.asked) == (200, 2)
    for _ in range(20):
        await status(near, system, kid="invented")
    assert publisher.asked == 2


@pytest.mark.requirement("SEC-020")
async def test_another_address_in_the_assertion_is_never_called(near: World, publisher: Publisher, system: Registered) -> None:
    for jku in ("https://evil.example/jwks", publisher.url + "?", publisher.url + "/x", publisher.url[:-1]):
        assert await status(near, system, jku=jku) == 400
    assert publisher.asked == 0
    assert await status(near, system, jku=publisher.url) == 200


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "404 Not Found"},
        {"status": "302 Found\r\nLocation: /other"},
        {"body": b"{}"},
        {"body": b'{"keys": 7}'},
        {"body": b"[" * 100_000},
        {"body": b'"' + b"x" * 300_000 + b'"'},
        {"body": b"\xff"},
    ],
    ids=lambda answer: str(answer)[:30],
)
async def test_an_answer_that_is_no_set_refuses_the_client_and_nobody_else(
    near: World, publisher: Publisher, system: Registered, answer: dict[str, object]
) -> None:
    for name, value in answer.items():
        setattr(publisher, name, value)
    assert await status(near, system) == 400
    assert await status(near, await register(near)) == 200


async def test_members_that_cannot_be_used_are_passed_over(near: World, publisher: Publisher, system: Registered) -> None:
    ec, rsa = EC.as_dict(private=False), RSA.as_dict(private=False)
    publisher.keys = [
        7, {}, {"kty": "new"}, {**ec, "crv": "P-999", "kid": "x"}, {**ec, "kid": 7}, {**ec, "x": "!"}, {**rsa, "n": "AQAB"},
        {**ec, "use": "enc"}, {**rsa, "kid": "e1"}, ec,
    ]  # fmt: skip
    assert await status(near, system) == 200  # an RSA key of the same name is not meant
    publisher.keys.append({**ES2.as_dict(private=False), "kid": "e1"})
    later(near, 601)
    assert await status(near, system) == 400  # which of the two?


async def test_an_address_inside_is_not_called(world: World, publisher: Publisher) -> None:
    system = await register(world, keys=[], jwks_uri=publisher.url)
    assert await status(world, system) == 400
    assert publisher.asked == 0
