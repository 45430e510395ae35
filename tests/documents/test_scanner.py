"""What a clamd finds harmful is refused, and so is everything while it does not answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.exchange.contents import CHUNK
from gateway.problem import Problem
from gateway.scanner import Scanner
from tests.conftest import make_settings, running_world
from tests.documents.papers import attaching, binary, deposit, ids_of, pdf, send_raw
from tests.process import free_port
from tests.world import World, bundle, document, entry, expression, issues

pytestmark = pytest.mark.requirement("DOC-24")

# (In two parts, so that no scanner takes this file for what it tests.)
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"


class Clamd:
    """A server that speaks clamd's INSTREAM. `mode`: what it does in place of answering as it should."""

    def __init__(self) -> None:
        self.mode = ""
        self.seen: list[bytes] = []
        self.most = 50_000_000

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "closes":
            return
        assert await reader.readexactly(10) == b"zINSTREAM\0"
        content = b""
        while length := int.from_bytes(await reader.readexactly(4)):
            content += await reader.readexactly(length)
            if len(content) > self.most:
                writer.write(b"INSTREAM size limit exceeded. ERROR\0")
                return
        self.seen.append(content)
        if self.mode == "is silent":
            await asyncio.sleep(3_600)
        found = b"Eicar-Signature FOUND" if EICAR in content else b"OK"
        writer.write({"errs": b"stream: lstat() failed. ERROR\0", "babbles": b"OK"}.get(self.mode, b"stream: " + found + b"\0"))


@asynccontextmanager
async def listening(address: str = "") -> AsyncIterator[tuple[Clamd, str]]:
    clamd = Clamd()
    if address:
        server = await asyncio.start_unix_server(clamd, address)
        where = f"unix:{address}"
    else:
        server = await asyncio.start_server(clamd, "127.0.0.1", 0)
        where = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield clamd, where
    finally:
        server.close()


@pytest.fixture(scope="module")
async def examined(mongo_url: str) -> AsyncIterator[tuple[World, Clamd]]:
    """A gateway with a clamd."""
    async with listening() as (clamd, where):
        async for world in running_world(make_settings(mongo_url, clamd=where)):
            yield world, clamd


@pytest.fixture
def clean(examined: tuple[World, Clamd]) -> Any:
    yield examined
    examined[1].mode, examined[1].most = "", 50_000_000


def harmful(size: int) -> bytes:
    content = pdf(size)
    return content[: size // 2] + EICAR + content[size // 2 + len(EICAR) :]


WAYS = ["raw", "long", "Binary", "transaction", "inline", "long inline"]


async def send(world: World, owner: Any, way: str, content: bytes) -> Any:
    match way:
        case "raw" | "long":
            return await send_raw(owner, content)
        case "Binary":
            return await owner.post("Binary", binary(content))
        case "transaction":
            return await owner.post("", deposit(owner.patient, content))
        case _:
            attachment = {"contentType": "application/pdf", "data": binary(content)["data"]}
            return await owner.post("DocumentReference", document(owner.patient, content=[{"attachment": attachment}]))


def size_of(way: str) -> int:
    return {"long": 2 * CHUNK + 9, "inline": 1_000, "long inline": 60_000}.get(way, 100_000)


@pytest.mark.requirement("T-42")
@pytest.mark.parametrize("way", WAYS)
async def test_what_is_harmful_is_refused_and_leaves_nothing(clean: tuple[World, Clamd], way: str) -> None:
    world, _ = clean
    owner = await world.patient()
    answer = await send(world, owner, way, harmful(size_of(way)))
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "business-rule")
    assert (expression(answer) or "").endswith("data")
    assert "icar" not in answer.text
    for name in ("Binary", "DocumentReference", "contents"):
        assert await world.stored(name, patient=owner.patient) == []


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_harmless_is_examined_as_a_whole_and_taken(clean: tuple[World, Clamd], way: str) -> None:
    world, clamd = clean
    owner, content = await world.patient(), pdf(size_of(way))
    answer = await send(world, owner, way, content)
    assert answer.is_success, answer.text
    assert clamd.seen[-1] == content
    if way in ("raw", "transaction"):
        before = len(clamd.seen)
        await send(world, owner, way, content)
        assert len(clamd.seen) == before  # it is known, and was examined


@pytest.mark.parametrize("mode", ["closes", "errs", "babbles"])
@pytest.mark.parametrize("way", ["raw", "long", "transaction"])
async def test_nothing_is_taken_that_was_not_examined(clean: tuple[World, Clamd], way: str, mode: str) -> None:
    world, clamd = clean
    owner = await world.patient()
    clamd.mode = mode
    answer = await send(world, owner, way, pdf(size_of(way)))
    assert (answer.status_code, issues(answer)[0]["code"]) == (503, "transient")
    assert answer.headers["retry-after"] == "5"
    assert await world.stored("contents", patient=owner.patient) == []
    assert (await owner.get(f"Patient/{owner.patient}")).status_code == 200  # all else goes on


async def test_a_clamd_that_is_not_there_is_no_reason_to_take_anything(mongo_url: str) -> None:
    async for world in running_world(make_settings(mongo_url, clamd=f"tcp://127.0.0.1:{free_port()}")):
        owner = await world.patient()
        for way in ("raw", "long", "inline"):
            assert (await send(world, owner, way, pdf(size_of(way)))).status_code == 503
        assert await world.stored("contents", patient=owner.patient) == []
        assert (await owner.post("DocumentReference", attaching(owner.patient, "https://x.example/a"))).status_code == 201


async def test_what_is_too_long_to_be_examined_is_told_so(clean: tuple[World, Clamd]) -> None:
    world, clamd = clean
    owner = await world.patient()
    clamd.most = 10_000
    for way in ("raw", "long"):
        answer = await send(world, owner, way, pdf(size_of(way)))
        assert (answer.status_code, issues(answer)[0]["code"]) == (413, "too-long")
    assert await world.stored("contents", patient=owner.patient) == []


async def test_it_is_reached_by_a_path_too(tmp_path: Path) -> None:
    async with listening(str(tmp_path / "clamd.ctl")) as (clamd, where):
        scanner = Scanner(where)
        await scanner.examine(b"harmless", "x")
        assert clamd.seen == [b"harmless"]
        with pytest.raises(Problem, match="harmful"):
            await scanner.examine(EICAR, "x")


async def test_it_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.scanner._SECONDS", 0.2)
    async with listening() as (clamd, where):
        clamd.mode = "is silent"
        with pytest.raises(Problem, match="at the moment"):
            await Scanner(where).examine(b"x", "x")


async def test_the_place_in_a_bundle_is_named(clean: tuple[World, Clamd]) -> None:
    world, _ = clean
    owner = await world.patient()
    good, bad = deposit(owner.patient, pdf()), deposit(owner.patient, harmful(9_000))
    answer = await owner.post("", bundle("transaction", *good["entry"], *bad["entry"]))
    assert (answer.status_code, expression(answer)) == (422, "Bundle.entry[3].resource.data")
    assert await world.stored("Binary", patient=owner.patient) == []
    ids_of(await owner.post("", good))
    assert entry


@pytest.mark.parametrize(
    "address", ["", "clamd:3310", "tcp://clamd", "unix:", "unix://host/x", "tcp://clamd:3310/x", "http://x:1"]
)
def test_any_other_address_is_none(address: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        Scanner(address)
