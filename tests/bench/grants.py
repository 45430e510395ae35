"""`python -m tests.bench grants`: tokens for systems, counted by the processor time that the gateway takes for them.

Each grant checks a signature, writes that its assertion was used, stores a token and looks at the catalogue before and after.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from gateway.app import attached
from gateway.exchange.catalogue import add_client, set_state
from gateway.exchange.client import Client
from gateway.exchange.gateway import Gateway
from tests.bench.client import Connection, Measured, drive
from tests.bench.world import World, built_world

_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TICKS = os.sysconf("SC_CLK_TCK")
KEYS: dict[str, Any] = {
    "ES384": ECKey.generate_key("P-384", {"kid": "e"}),
    "RS384": RSAKey.generate_key(2_048, {"kid": "r"}),
}


def run_grants(driver: str, workers: int, clients: int, seconds: float) -> None:
    """Measure and print."""
    with built_world(driver, 1, workers) as world:
        asyncio.run(_register(world))
        print(f"\n{'signed by':10} {'clients':>7} {'grants/s':>9} {'p50':>7} {'p99':>7} {'per core':>9}")
        for algorithm in KEYS:
            before = cpu_seconds(world.pid)
            measured = drive(clients, seconds, _asking(world, algorithm, int(1_500 * seconds / clients)))
            busy = cpu_seconds(world.pid) - before
            _print(algorithm, clients, measured, len(measured.latencies) / busy)
    print(f"\n{driver}, {workers} workers; latencies in ms; per core: grants in a second of the gateway's own processor time")


def _print(algorithm: str, clients: int, measured: Measured, per_core: float) -> None:
    p50, p99 = measured.quantile(0.5), measured.quantile(0.99)
    print(f"{algorithm:10} {clients:7} {measured.rate:9.0f} {p50:7.1f} {p99:7.1f} {per_core:9.0f}", flush=True)


async def _register(world: World) -> None:
    async with attached(world.settings) as gateway:
        client = Client(
            client="bench-system",
            name="Bench",
            kind="feed",
            category="record",
            purpose={"en": "To be measured."},
            controller="Bench",
            contact="bench@bench.example",
            authentication="private_key_jwt",
            grants=["client_credentials"],
            read=["Organization"],
            keys=[key.as_dict(private=False) for key in KEYS.values()],
        )
        await _reference(gateway, client)


async def _reference(gateway: Gateway, client: Client) -> None:
    await add_client(gateway, client)
    for state in ("tested", "referenced"):
        await set_state(gateway, client.client, state)


def _asking(world: World, algorithm: str, many: int) -> Callable[[int], Callable[[], None]]:
    site = world.settings.base_url.removesuffix("/fhir")

    def worker(n: int) -> Callable[[], None]:
        ready, connection = iter([*_requests(site, algorithm, n, many)]), Connection(world.port)

        def ask() -> None:
            status, body = connection.ask(next(ready))
            if status != 200:
                raise RuntimeError(f"{status}: {body[:300]!r}")

        return ask

    return worker


def _requests(site: str, algorithm: str, worker: int, many: int) -> Iterator[bytes]:
    """Requests with assertions of their own, signed before anything is measured."""
    key = KEYS[algorithm]
    for n in range(many):
        claims = {
            "iss": "bench-system",
            "sub": "bench-system",
            "aud": f"{site}/oauth/token",
            "exp": int(time.time()) + 300,
            "jti": f"{algorithm}-{worker}-{n}",
        }
        signed = jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key, algorithms=[algorithm])
        form = {
            "grant_type": "client_credentials",
            "scope": "system/Organization.rs",
            "client_assertion_type": _TYPE,
            "client_assertion": signed,
        }
        body = urlencode(form).encode()
        head = "POST /oauth/token HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-www-form-urlencoded\r\n"
        yield f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def cpu_seconds(pid: int) -> float:
    """Of a process and those it started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / _TICKS + sum(cpu_seconds(int(child)) for child in children)
