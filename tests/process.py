"""A gateway, or another server, as a process of its own on a real port, and people who speak to it over TCP.

Knows: how to start one and how the tests' people reach it. Must not know: what is asked of it.
"""

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx

from gateway.app import attached
from gateway.settings import read_settings
from tests.unit.test_cli import environment, free_port, listening, serving
from tests.world import Clock, World


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
async def process_world(mongo_url: str) -> AsyncIterator[World]:
    """People around a gateway process; its address is in `world.gateway.settings.base_url`."""
    port = free_port()
    env = environment(mongo_url, GATEWAY_BASE_URL=f"http://127.0.0.1:{port}/fhir", GATEWAY_LOG_LEVEL="error")
    with serving(env, port):
        async with attached(read_settings(env)) as gateway, httpx.AsyncClient(transport=ToPort(port)) as http:
            yield await World(gateway, http, Clock()).start()


@contextmanager
def running_provider(port: int) -> Iterator[subprocess.Popen[str]]:
    """Another authorization server (`tests/provider.py`), ready; ended at the end if it has not ended by then."""
    with listening(["tests.provider", str(port)], port) as process:
        yield process
