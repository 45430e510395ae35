"""Commands as a user runs them; a gateway, or another server, as a process on a real port, and people who speak to it over TCP.

Knows: how to start one and how the tests' people reach it. Must not know: what is asked of it.
"""

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import httpx

from gateway.__main__ import main
from gateway.app import attached
from gateway.settings import read_settings
from tests.world import SECRET, Clock, World, unique

LOOPBACK = "127.0.0.0/8"


def environment(mongo_url: str | None, **changes: str) -> dict[str, str]:
    """The environment of a command, with a database of its own."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    if mongo_url:
        found |= {"GATEWAY_MONGO_URL": mongo_url, "GATEWAY_SECRET": SECRET, "GATEWAY_MONGO_DATABASE": unique("cli")}
        found["GATEWAY_TEST_IDENTITIES"] = "on"
    return found | changes


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, env: Mapping[str, str], given: str = "") -> Ended:
    """A command run in this process (importing everything anew takes seconds), in a thread, which has no event loop yet."""
    out, err = io.StringIO(), io.StringIO()

    def work() -> int:
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    patched = patch.multiple(sys, argv=["gateway", *arguments], stdin=io.StringIO(given))
    with (
        patch.dict(os.environ, dict(env), clear=True),
        patched,
        redirect_stdout(out),
        redirect_stderr(err),
        ThreadPoolExecutor(1) as pool,
    ):
        status = pool.submit(work).result(60)
    return Ended(status, out.getvalue(), err.getvalue())


def run_apart(*arguments: str, env: Mapping[str, str]) -> Ended:
    """A command as a process of its own."""
    command = [sys.executable, "-m", "gateway", *arguments]
    ended = subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=60, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def refused(ended: Ended) -> str:
    """The one line of a command that cannot be carried out."""
    assert ended.returncode == 1, ended
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("gateway: ")
    return lines[0].removeprefix("gateway: ")


@contextmanager
def serving(env: Mapping[str, str], port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`gateway serve`, ready; ended at the end if it has not ended by then."""
    with listening(["gateway", "serve", "--port", str(port), *options], port, dict(env)) as process:
        yield process


@contextmanager
def listening(
    module: Sequence[str], port: int, env: dict[str, str] | None = None, seconds: float = 40
) -> Iterator[subprocess.Popen[str]]:
    """A module with its arguments as a process, ready; ended at the end if it has not ended by then."""
    command = [sys.executable, "-m", *module]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until_ready(process, port, seconds)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def wait_until_ready(process: subprocess.Popen[str], port: int, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(process.communicate())
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("not ready in time")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ToPort(httpx.AsyncHTTPTransport):
    """Sends to the process what the tests' people send to the gateway."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return await super().handle_async_request(request)


@asynccontextmanager
async def process_world(mongo_url: str, **changes: str) -> AsyncIterator[World]:
    """People around a gateway process; its address is in `world.gateway.settings.base_url`. `changes`: of its environment."""
    port = free_port()
    env = environment(mongo_url, GATEWAY_BASE_URL=f"http://127.0.0.1:{port}/fhir", GATEWAY_LOG_LEVEL="error") | changes
    with serving(env, port):
        async with attached(read_settings(env)) as gateway, httpx.AsyncClient(transport=ToPort(port)) as http:
            yield await World(gateway, http, Clock()).start()


@asynccontextmanager
async def two_processes(mongo_url: str) -> AsyncIterator[tuple[World, httpx.AsyncClient]]:
    """Two gateway processes on one database: a world at the first, and a wire to the second."""
    ports = free_port(), free_port()
    env = environment(mongo_url, GATEWAY_BASE_URL=f"http://127.0.0.1:{ports[0]}/fhir", GATEWAY_LOG_LEVEL="error")
    with serving(env, ports[0]), serving(env, ports[1]):
        async with (
            attached(read_settings(env)) as gateway,
            httpx.AsyncClient(transport=ToPort(ports[0]), timeout=60) as first,
            httpx.AsyncClient(transport=ToPort(ports[1]), timeout=60) as second,
        ):
            yield await World(gateway, first, Clock()).start(), second


@contextmanager
def running_provider(port: int) -> Iterator[subprocess.Popen[str]]:
    """Another authorization server (`tests/provider.py`), ready; ended at the end if it has not ended by then."""
    with listening(["tests.provider", str(port)], port) as process:
        yield process


@dataclass(slots=True)
class Provider:
    """The other server, as those see it who log in there."""

    url: str
    http: httpx.AsyncClient

    async def login(
        self, issuer: str, name: str | None, client: str = "medisoft", scope: str = "", says: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The tokens that this client is given: for a person whom the issuer says this of, or without one for itself."""
        form = {"grant_type": "client_credentials", "scope": scope}
        if name is not None:
            assert (await self.http.put(f"{self.url}/{issuer}/people/{name}", json=dict(says or {}))).status_code == 200
            form |= {"grant_type": "password", "username": name, "password": name}
        answer = await self.http.post(f"{self.url}/{issuer}/token", data=form, auth=(client, client))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def asked(self, issuer: str) -> dict[str, int]:
        """How often the gateway asked for what."""
        return dict((await self.http.get(f"{self.url}/{issuer}/asked")).json())


@asynccontextmanager
async def provider_at(port: int) -> AsyncIterator[Provider]:
    async with httpx.AsyncClient() as http:
        yield Provider(f"http://127.0.0.1:{port}", http)
