"""`python -m tests.bench revocation`: how long what was taken back still works, over four gateway processes.

Readers read one Observation without a pause, two of them at each process. One of the processes is told to take back what lets
them: a Consent, or the token (RFC 7009). From the moment that its answer has arrived, no read that begins may succeed; what is
measured is the time from there to the first refusal that each reader gets.
"""

import asyncio
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from gateway.app import attached
from gateway.exchange.catalogue import add_client, set_state
from gateway.exchange.client import Client
from gateway.exchange.tokens import Grant, issue_token
from tests.bench.client import Connection, Measured, request
from tests.bench.world import World, built_world, bundle, serving

PROCESSES = 4
ROUNDS = 100
READS = 10_000  # that begin after the acknowledgement
_CLIENT = "bench-pages"
_BEFORE = 3  # reads of each reader that succeed before anything is taken back


@dataclass(slots=True)
class Way:
    """A way to take access back. `read`: for each round; `take_back`, `give_back`: what is sent; `refusal`: the status then."""

    name: str
    refusal: int
    read: Callable[[int], bytes]
    take_back: Callable[[int], bytes]
    give_back: Callable[[int], bytes] | None = None


@dataclass(slots=True)
class _Reader:
    """Reads without a pause. `seen`: when each read began and ended, and its status."""

    connection: Connection
    seen: list[tuple[float, float, int]] = field(default_factory=list)

    def run(self, message: bytes, acknowledged: threading.Event, more: int) -> None:
        """Read until `more` reads have begun after the acknowledgement."""
        late = 0
        while late < more:
            late += acknowledged.is_set()
            began = time.perf_counter()
            status, _ = self.connection.ask(message)
            self.seen.append((began, time.perf_counter(), status))


def run_revocation(driver: str, clients: int) -> None:
    """Measure and print; ends with status 1 where a read that began too late succeeded."""
    with built_world(driver, 1, 1) as world, ExitStack() as others:
        ports = [world.port + n for n in range(PROCESSES)]
        for port in ports[1:]:
            others.enter_context(serving(world.settings, port))
        ways = asyncio.run(_prepare(world))
        head = f"{'taken back':14} {'times':>6} {'reads after':>12} {'succeeded':>10}"
        print(f"\n{head} {'p50':>7} {'p99':>7} {'longest':>8}")
        wrong = sum([_measure(way, ports, clients) for way in ways])
    print(f"\n{driver}, {PROCESSES} processes, {clients} readers; ms from the acknowledgement to each reader's first refusal")
    if wrong:
        sys.exit(1)


def _measure(way: Way, ports: list[int], clients: int) -> int:
    """Take back again and again; returns how many reads succeeded that began after the acknowledgement."""
    readers = [_Reader(Connection(port)) for port, _ in zip(itertools.cycle(ports), range(clients), strict=False)]
    takers = [Connection(port) for port in ports]
    reads, succeeded, until = 0, 0, Measured(0)
    for n in range(ROUNDS):
        acknowledged = _round(way, n, readers, takers[n % len(takers)])
        for reader in readers:
            late = [status for began, _, status in reader.seen if began > acknowledged]
            reads, succeeded = reads + len(late), succeeded + late.count(200)
            first = min(ended for _, ended, status in reader.seen if status == way.refusal)
            until.latencies.append(max(0.0, first - acknowledged))
        if way.give_back is not None:
            _require(takers[0].ask(way.give_back(n)), 200)
    longest = 1_000 * max(until.latencies)
    counted = f"{way.name:14} {ROUNDS:6} {reads:12} {succeeded:10}"
    print(f"{counted} {until.quantile(0.5):7.1f} {until.quantile(0.99):7.1f} {longest:8.1f}", flush=True)
    return succeeded


def _round(way: Way, n: int, readers: list[_Reader], taker: Connection) -> float:
    """Read, take back, read on; returns when it was acknowledged."""
    message, event = way.read(n), threading.Event()
    for reader in readers:
        reader.seen.clear()
    more = -(-READS // ROUNDS // len(readers))
    threads = [threading.Thread(target=reader.run, args=(message, event, more), daemon=True) for reader in readers]
    for thread in threads:
        thread.start()
    while any(len(reader.seen) < _BEFORE for reader in readers):
        time.sleep(0.001)
    if any(status != 200 for reader in readers for _, _, status in reader.seen[:_BEFORE]):
        raise RuntimeError("what was given is not given")
    answer = taker.ask(way.take_back(n))
    acknowledged = time.perf_counter()
    event.set()
    _require(answer, 200)
    for thread in threads:
        thread.join()
    if any(status not in (200, way.refusal) for reader in readers for _, _, status in reader.seen):
        raise RuntimeError("a read was neither answered nor refused as it should be")
    return acknowledged


def _require(answer: tuple[int, bytes], status: int) -> bytes:
    if answer[0] != status:
        raise RuntimeError(f"{answer[0]}: {answer[1][:300]!r}")
    return answer[1]


async def _prepare(world: World) -> list[Way]:
    patient, connection = world.patients[0], Connection(world.port)
    day = json.loads(bundle(patient, world.sensors[patient], 0))["entry"][0]["resource"]
    message = request("POST", "/fhir/Observation", world.app_tokens[patient], json.dumps(day).encode())
    path = f"/fhir/Observation/{json.loads(_require(connection.ask(message), 201))['id']}"
    async with attached(world.settings) as gateway:
        pages = Client(
            client=_CLIENT,
            name="Bench",
            kind="portal",
            category="record",
            purpose={"en": "To be measured."},
            controller="Bench",
            contact="bench@bench.example",
            authentication="none",
            grants=["authorization_code"],
            redirect_uris=["https://bench.example/"],
        )
        await add_client(gateway, pages)
        for state in ("tested", "referenced"):
            await set_state(gateway, _CLIENT, state)
        # (what a client holds is taken away as long as it is not referenced)
        owner = await issue_token(gateway, _grant(patient=patient))
        tokens = [await issue_token(gateway, _grant(patient=patient)) for _ in range(ROUNDS)]
    found = json.loads(_require(connection.ask(request("GET", "/fhir/Consent", owner)), 200))["entry"]
    [given] = [one["resource"] for one in found if "Practitioner/" in json.dumps(one["resource"]["provision"])]

    def change(status: str) -> bytes:
        body = json.dumps({**given, "status": status}).encode()
        return request("PUT", f"/fhir/Consent/{given['id']}", owner, body)

    def revoke(n: int) -> bytes:
        body = urlencode({"client_id": _CLIENT, "token": tokens[n]}).encode()
        head = "POST /oauth/revoke HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-www-form-urlencoded\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    return [
        Way(
            "a Consent",
            404,
            lambda _: request("GET", path, world.professional),
            lambda _: change("inactive"),
            lambda _: change("active"),
        ),
        Way("/oauth/revoke", 401, lambda n: request("GET", path, tokens[n]), revoke),
    ]


def _grant(**fields: Any) -> Grant:
    patient = fields["patient"]
    return Grant(_CLIENT, "patient", "patient/*.cruds", (f"Patient/{patient}",), lifetime=timedelta(days=1), **fields)
