"""How much memory a gateway process takes while long content goes in and out: it does not grow with the content."""

import asyncio
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import attached
from gateway.settings import read_settings
from tests.documents.papers import PDF, attaching
from tests.process import ToPort, environment, free_port, serving
from tests.world import BASE, JSON, Actor, Clock, World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MEGABYTE = 1_048_576


class Memory:
    """The resident memory of a process, in bytes."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    def read(self, name: str) -> int:
        """`VmRSS`, what it has, or `VmHWM`, the most it had."""
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def pieces_of(size: int, piece_size: int = MEGABYTE) -> list[bytes]:
    """A content that begins like a PDF, in pieces that share their bytes: the test takes no memory for it either."""
    piece = bytes(range(256)) * (piece_size // 256)
    return [b"%PDF-1.7\n" + piece_size.to_bytes(4) + piece[13:], *([piece] * (size // piece_size - 1))]


async def send(owner: Actor, size: int) -> tuple[str, bytes]:
    """Send a long content as it is; returns its address and its SHA-256."""
    digest = sha256()

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces_of(size * MEGABYTE):
            digest.update(piece)
            yield piece

    headers = {"Authorization": f"Bearer {owner.token}", "Content-Type": PDF, "Accept": JSON}
    answer = await owner.http.post(f"{BASE}/Binary", content=stream(), headers=headers)
    assert answer.status_code == 201, answer.text
    raw = f"Binary/{answer.json()['id']}"
    await owner.create(attaching(owner.patient, raw))
    return raw, digest.digest()


async def send_json(owner: Actor, size: int) -> tuple[str, bytes]:
    """Send a long content as a resource; returns its address and its SHA-256."""
    pieces = pieces_of(size // 3 * 3 * MEGABYTE, 3 * MEGABYTE // 4)
    digest = sha256()
    before = json.dumps({"resourceType": "Binary", "contentType": PDF, "data": ""}).removesuffix('"}').encode()

    async def stream() -> AsyncIterator[bytes]:
        yield before
        for piece in pieces:
            digest.update(piece)
            yield b64encode(piece)
        yield b'"}'

    length = len(before) + 2 + sum(len(piece) // 3 * 4 for piece in pieces)
    headers = {"Authorization": f"Bearer {owner.token}", "Content-Type": JSON, "Content-Length": str(length)}
    answer = await owner.http.post(f"{BASE}/Binary", content=stream(), headers=headers)
    assert answer.status_code == 201, answer.text
    raw = f"Binary/{answer.json()['id']}"
    await owner.create(attaching(owner.patient, raw))
    return raw, digest.digest()


async def fetch(owner: Actor, raw: str) -> bytes:
    """Fetch a content as it is; returns its SHA-256."""
    digest = sha256()
    headers = {"Authorization": f"Bearer {owner.token}"}
    async with owner.http.stream("GET", f"{BASE}/{raw}", headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, PDF)
        async for piece in answer.aiter_bytes():
            digest.update(piece)
    return digest.digest()


async def fetch_json(owner: Actor, raw: str) -> bytes:
    """Fetch a content as a resource; returns the SHA-256 of its bytes."""
    digest, held = sha256(), b""
    headers = {"Authorization": f"Bearer {owner.token}", "Accept": JSON}
    async with owner.http.stream("GET", f"{BASE}/{raw}", headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, JSON)
        has_begun = False
        async for piece in answer.aiter_bytes():
            held += piece
            if not has_begun:
                before, mark, behind = held.partition(b'"data":"')
                has_begun, held = bool(mark), behind if mark else held
                assert mark or len(held) < 10_000
                if mark:
                    assert json.loads(before + b'"end":0}')["contentType"] == PDF
            whole = len(held) // 4 * 4 - 4
            if has_begun and whole > 0:
                digest.update(b64decode(held[:whole]))
                held = held[whole:]
    last, mark, rest = held.partition(b'"')
    assert (mark, rest) == (b'"', b"}")
    digest.update(b64decode(last))
    return digest.digest()


# The bound for the long one is the one that is asked for; the other shows sooner that something is held as a whole: sent as
# JSON, 24 MB would take three or four times as much.
@pytest.mark.parametrize(("size", "most"), [(24, 16), pytest.param(100, 64, marks=pytest.mark.slow)])
async def test_long_content_is_not_held_in_memory(mongo_url: str, size: int, most: int) -> None:
    port = free_port()
    env = environment(mongo_url, GATEWAY_LOG_LEVEL="error", GATEWAY_BASE_URL=BASE)
    with serving(env, port) as process:
        transport = ToPort(port)
        async with attached(read_settings(env)) as gateway, httpx.AsyncClient(transport=transport, timeout=300) as http:
            owner = await (await World(gateway, http, Clock()).start()).patient()
            memory = Memory(process.pid)
            grown: dict[str, int] = {}

            async def watch(name: str, ask: Any) -> Any:
                before = memory.read("VmRSS")
                memory.forget_peak()
                result = await ask
                grown[name] = memory.read("VmHWM") - before
                return result

            # What is needed at all is there once each way was gone.
            raw, _ = await send(owner, 3)
            await asyncio.gather(fetch(owner, raw), fetch_json(owner, raw))
            raw, digest = await watch("in", send(owner, size))
            assert await watch("out", fetch(owner, raw)) == digest
            assert await watch("out as JSON", fetch_json(owner, raw)) == digest
            raw, digest = await watch("in as JSON", send_json(owner, size))
            assert await fetch(owner, raw) == digest
            assert max(grown.values()) < most * MEGABYTE, grown
