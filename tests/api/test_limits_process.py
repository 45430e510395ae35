"""The limits on the wire: a real server process, raw bytes, and what it writes to its log meanwhile."""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from gateway.api import wire
from gateway.app import attached
from gateway.exchange.tokens import Grant, issue_token
from gateway.settings import read_settings
from tests.world import SECRET, observation, patient, unique

CANARY = "Canari-4711"


@dataclass(frozen=True)
class Server:
    """A gateway process, a token of its operator and of a patient, and the file it logs to."""

    port: int
    operator: str
    token: str
    patient: str
    log: Path

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/fhir"

    async def talk(self, data: bytes) -> bytes:
        """What comes back for these bytes until the server closes or has answered once."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            return head + (await reader.readexactly(int(length[1])) if length else b"")
        finally:
            writer.close()


@pytest.fixture(scope="module")
async def server(mongo_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    environment = {
        **os.environ,
        "GATEWAY_MONGO_URL": mongo_url,
        "GATEWAY_MONGO_DATABASE": unique("process"),
        "GATEWAY_SECRET": SECRET,
        "GATEWAY_BASE_URL": f"http://127.0.0.1:{port}/fhir",
        "GATEWAY_LOG_LEVEL": "debug",
    }
    with log.open("wb") as output:
        command = [sys.executable, "-m", "gateway", "serve", "--port", str(port)]
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
    try:
        await wait_until_ready(process, port)
        yield await with_people(port, environment, log)
    finally:
        process.terminate()
        await process.wait()


async def wait_until_ready(process: asyncio.subprocess.Process, port: int) -> None:
    async with httpx.AsyncClient() as http, asyncio.timeout(60):
        while True:
            assert process.returncode is None
            try:
                if (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.1)


async def with_people(port: int, environment: dict[str, str], log: Path) -> Server:
    async with attached(read_settings(environment)) as gateway, httpx.AsyncClient() as http:
        operator = await issue_token(gateway, Grant("operator", "operator", "system/*.cruds"))
        created = await http.post(
            f"http://127.0.0.1:{port}/fhir/Patient",
            content=json.dumps(patient()),
            headers={"Authorization": f"Bearer {operator}", "Content-Type": "application/fhir+json"},
        )
        identifier = created.json()["id"]
        reference = f"Patient/{identifier}"
        grant = Grant("portal", "patient", "patient/*.cruds", (reference,), patient=identifier, user=reference)
        return Server(port, operator, await issue_token(gateway, grant), identifier, log)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def outcome_of(answer: bytes) -> dict[str, Any]:
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert body["resourceType"] == "OperationOutcome"
    issue: dict[str, Any] = body["issue"][0]
    return issue


def post(server: Server, *headers: str) -> bytes:
    lines = [
        "POST /fhir/Observation HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {server.token}",
        "Content-Type: application/fhir+json",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.requirement("LIM-001", "ATK-T22")
async def test_a_chunked_body_without_end_is_refused_while_it_comes(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(post(server, "Transfer-Encoding: chunked"))
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    sent = 0
    answering = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    while not answering.done() and sent < 64:
        writer.write(chunk)
        await writer.drain()
        sent += 1
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        head = await answering
    assert status_of(head) == 413
    writer.close()


@pytest.mark.requirement("LIM-001")
async def test_a_chunked_body_is_a_body(server: Server) -> None:
    body = json.dumps(observation(server.patient)).encode()
    chunks = (
        b"".join(b"%x\r\n%b\r\n" % (len(body[n : n + 50]), body[n : n + 50]) for n in range(0, len(body), 50)) + b"0\r\n\r\n"
    )
    assert status_of(await server.talk(post(server, "Transfer-Encoding: chunked") + chunks)) == 201


async def test_a_client_that_goes_away_is_no_failure_of_the_server(server: Server) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(post(server, "Content-Length: 1000", "X-Request-Id: gone-away") + b"{")
    await writer.drain()
    writer.close()
    lines: list[str] = []
    async with asyncio.timeout(10):
        while True:
            lines = [line for line in server.log.read_text().splitlines() if "gone-away" in line]
            if lines:
                break
            await asyncio.sleep(0.02)
    [line] = map(json.loads, lines)
    assert (line["event"], line["level"], line["status"]) == ("request", "info", 400)


@pytest.mark.requirement("LIM-001")
async def test_a_body_that_is_announced_too_long_is_refused_unseen(server: Server) -> None:
    answer = await server.talk(post(server, "Content-Length: 1000000000"))
    assert (status_of(answer), outcome_of(answer)["code"]) == (413, "too-long")


@pytest.mark.requirement("ATK-T39")
@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: -5"],
        ["Content-Length: 99999999999999999999999"],
        ["Transfer-Encoding: chunked, identity"],
        ["X-Bad\x00: 1"],
        [" Folded: 1"],
    ],
)
async def test_a_request_that_can_be_read_in_two_ways_is_refused(server: Server, headers: list[str]) -> None:
    answer = await server.talk(post(server, *headers) + b"0\r\n\r\n")
    assert status_of(answer) in (400, 413)


@pytest.mark.requirement("LIM-001")
async def test_headers_and_urls_that_are_too_long(server: Server) -> None:
    answer = await server.talk(post(server, f"X-Big: {'x' * 20_000}", "Content-Length: 0"))
    assert (status_of(answer), outcome_of(answer)["code"]) == (431, "too-long")
    answer = await server.talk(f"GET /fhir/Observation?code={'x' * 9_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (status_of(answer), outcome_of(answer)["code"]) == (414, "too-long")


@pytest.mark.requirement("LIM-001", "ATK-T22")
@pytest.mark.parametrize("piece", [b"X-Many: " + b"x" * 1_000 + b"\r\n", b"x" * 1_000])
async def test_a_head_without_end_is_ended(server: Server, piece: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /fhir/metadata HTTP/1.1\r\nX-Endless: ")
    sent = 0
    answering = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    while not answering.done() and sent < 50_000_000:
        writer.write(piece * 10)
        sent += len(piece) * 10
        try:
            await writer.drain()
        except ConnectionError:
            break
        await asyncio.sleep(0)
    try:
        async with asyncio.timeout(10):
            assert status_of(await answering) == 400
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # it hung up while we were still talking
    assert sent < 10_000_000
    writer.close()
    assert status_of(await server.talk(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")) == 200


@pytest.mark.requirement("CORE-13")
@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET  HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
async def test_what_is_no_http_gets_an_outcome_too(server: Server, data: bytes) -> None:
    answer = await server.talk(data)
    assert (status_of(answer), outcome_of(answer)["code"]) == (400, "invalid")


@pytest.mark.requirement("ATK-T22")
@pytest.mark.parametrize(
    "pieces", [[], [b"GET /fhir/metadata HTTP/1.1\r\nHo"], [b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /l"]]
)
async def test_a_head_that_does_not_come_is_waited_for_no_longer_than_said(
    monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(wire, "_MOST_SECONDS", 0.05)
    config = uvicorn.Config(app, http=wire.BoundedHttp, ws="none", lifespan="off", log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    state = uvicorn.server.ServerState()
    listening = await loop.create_server(lambda: wire.BoundedHttp(config, state, {}), "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(5):
            said = await reader.read()  # until the server closes
        assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", said)] == [200] * (len(pieces) - 1) + [400]
        writer.close()
    finally:
        listening.close()


@pytest.mark.requirement("SRCH-13")
async def test_bytes_that_are_no_utf8_in_a_url(server: Server) -> None:
    line = b"GET /fhir/Observation?code=\xff\xfe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + server.token.encode()
    answer = await server.talk(line + b"\r\n\r\n")
    assert status_of(answer) == 400


@pytest.mark.requirement("CORE-11")
async def test_a_head_has_the_length_of_the_body_it_does_not_send(server: Server) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {server.token}"}) as http:
        get, head = await http.get(f"{server.base}/metadata"), await http.head(f"{server.base}/metadata")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(get.content)))
        # The connection is still in step.
        assert (await http.get(f"{server.base}/Patient/{server.patient}")).status_code == 200


@pytest.mark.requirement("OPS-04", "AUD-006", "ATK-T36")
async def test_the_log_tells_of_requests_and_of_nobody(server: Server) -> None:
    """Names, identifiers, queries, ids, tokens and request bodies, sent in every place a request has."""
    bearer = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/fhir+json", "User-Agent": CANARY}
    async with httpx.AsyncClient(headers=bearer, base_url=server.base) as http:
        reading = observation(server.patient, note=[{"text": CANARY}])
        assert (await http.post("/Observation", json=reading)).status_code == 201
        wrong = await http.post("/Observation", json=reading | {"status": CANARY, CANARY: 1})
        assert wrong.status_code in (400, 422)
        for path in (
            f"/Observation/{CANARY}",
            f"/{CANARY}/x",
            f"/Observation?code={CANARY}",
            f"/Observation?{CANARY}=x",
            f"/Patient/%0A{CANARY}",
        ):
            await http.get(path)
        await http.get("/Observation", headers={"Authorization": f"Bearer {CANARY}"})
        await http.get(f"/Observation?access_token={server.token}")
        await http.post(
            "/Observation/_search", data={"code": CANARY}, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        marked = await http.get(f"/Observation?patient={server.patient}&_count=1", headers={"X-Request-Id": "seen-in-the-log"})
        assert marked.status_code == 200
    lines = server.log.read_text()
    for secret in (CANARY, server.token, server.operator, server.patient, reading["identifier"][0]["value"]):
        assert secret not in lines
    events = [json.loads(line) for line in lines.splitlines()]
    [seen] = [event for event in events if event.get("request_id") == "seen-in-the-log"]
    assert {name: seen[name] for name in ("level", "event", "method", "route", "status")} == {
        "level": "info",
        "event": "request",
        "method": "GET",
        "route": "/fhir/Observation",
        "status": 200,
    }
