"""`python -m tests.bench glucose`: uploaders that send everything again, what that costs others, and what a reading weighs.

Consent and audit are on, as everywhere; the rates are off, so that the work itself is seen.
"""

import argparse
import itertools
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from pymongo import MongoClient

from gateway.sandbox.series import reading
from tests.bench.client import Connection, Measured, drive, request
from tests.bench.grants import cpu_seconds
from tests.bench.jobs import fill
from tests.bench.many import explain_reads, fill_fast
from tests.bench.world import EPOCH, World, built_world

_KNOWN = 1_000  # readings of a Bundle that is sent again
_BURST = 20_000
_TURNS = 5  # of quiet and of each kind of work beside
_MANY = 2_000_000  # readings: more than the gateway itself is asked to take for a benchmark
_SIZES = (1, 12, 288)
_WEIGHED = 20_160  # readings, seventy days of a sensor
_DATABASE = "bench"


def run_glucose(options: argparse.Namespace) -> None:
    """Measure and print."""
    with built_world(options.driver, max(8, options.patients), options.workers) as world, MongoClient(world.url) as client:
        print(f"\n{'job':44} {'requests':>8} {'p50':>8} {'p99':>8}")
        _resend(world, client, options.seconds)
        _burst(world, options.seconds)
        fill_up = fill if options.readings <= _MANY else fill_fast
        fill_up(world, options.readings, options.clients)
        explain_reads(world)
        _tell(f"$lastn, 1 client, {options.readings} readings", _lastn(world, 1, options.seconds))
        _tell(f"$lastn, {options.clients} clients", _lastn(world, options.clients, options.seconds))
    print(f"\n{'readings a Bundle':>18} {'data':>6} {'indexes':>8} {'audit':>6} {'all':>6}   bytes on disk per reading")
    for size in _SIZES:
        _weigh(options.driver, options.workers, size)


def _tell(job: str, measured: Measured) -> None:
    print(f"{job:44} {len(measured.latencies):8} {measured.quantile(0.5):8.1f} {measured.quantile(0.99):8.1f}", flush=True)


def _submission(world: World, patient: str, first: int, count: int) -> bytes:
    """A submission of this many readings of a patient, five minutes apart."""
    moments = (EPOCH + timedelta(minutes=5 * n) for n in range(first, first + count))
    resources = (reading(f"Patient/{patient}", f"Device/{world.sensors[patient]}", moment) for moment in moments)
    request_ = {"method": "POST", "url": "Observation"}
    entries = [{"resource": resource, "request": request_} for resource in resources]
    whole = {"resourceType": "Bundle", "type": "transaction", "timestamp": "2026-01-01T00:00:00Z", "entry": entries}
    return request("POST", "/fhir/$submit-cgm-bundle", world.app_tokens[patient], json.dumps(whole).encode())


def _ask(connection: Connection, message: bytes) -> bytes:
    status, body = connection.ask(message)
    if status != 200:
        raise RuntimeError(f"{status}: {body[:300]!r}")
    return body


def _resend(world: World, client: "MongoClient[Any]", seconds: float) -> None:
    """A thousand known readings, again and again: nothing is written of them."""
    patient = world.patients[0]
    message = _submission(world, patient, 0, _KNOWN)
    _ask(Connection(world.port), message)
    before = _written(client)

    def resending(_: int) -> Callable[[], None]:
        connection = Connection(world.port)

        def again() -> None:
            assert _ask(connection, message).count(b'"known"') == _KNOWN

        return again

    busy = cpu_seconds(world.pid)
    measured = drive(1, seconds, resending)
    busy = cpu_seconds(world.pid) - busy
    _tell(f"{_KNOWN} known readings, 1 client", measured)
    assert _written(client) == before
    each = 1_000 * busy / len(measured.latencies)
    print(f"  none of them was written; {each:.0f} ms of the gateway's own processor time a request", flush=True)


def _written(client: "MongoClient[Any]") -> tuple[int, int]:
    """How many readings there are and ever were: both grow by whatever is written."""
    database = client[_DATABASE]
    return database.Observation.count_documents({}), database.Observation_history.count_documents({})


def _burst(world: World, seconds: float) -> None:
    """What another patient's app waits while one sends its last 20 000 readings again, all of them known; and beside others.

    Quiet and busy times take turns, so that what else this machine does is in both; who sends is a process of its own.
    """
    sender, other = world.patients[1], world.patients[2]
    messages = [_submission(world, sender, first, _KNOWN) for first in range(0, _BURST, _KNOWN)]
    connection = Connection(world.port)
    for message in messages:
        _ask(connection, message)
    few = [_submission(world, sender, first, 12) for first in range(0, _BURST, 12)]
    path = f"/fhir/Observation?patient={sender}&code=http://loinc.org|99504-3&_sort=-date&_count=100"
    page = request("GET", path, world.professional)
    moments = (EPOCH + timedelta(minutes=5 * n) for n in itertools.count())

    def creating(_: int) -> Callable[[], None]:
        own = Connection(world.port)

        def create() -> None:
            one = reading(f"Patient/{other}", f"Device/{world.sensors[other]}", next(moments))
            status, body = own.ask(request("POST", "/fhir/Observation", world.app_tokens[other], json.dumps(one).encode()))
            assert status == 201, body
            time.sleep(0.005)  # (an app that pushes what it measures, and does not fill a core by itself)

        return create

    works = {"nothing": [], "1 000 known in a Bundle": messages, "12 known in a Bundle": few, "pages of 100": [page]}
    waited: dict[str, Measured] = {name: Measured(0.0) for name in works}
    for _ in range(_TURNS):
        for name, work in works.items():
            with _sending(world.port, work):
                measured = drive(1, seconds / _TURNS, creating)
            waited[name].latencies += measured.latencies
            waited[name].seconds += measured.seconds
    quiet = waited["nothing"]
    for name, measured in waited.items():
        _tell(f"another's create, beside {name}", measured)
        ratios = (measured.quantile(q) / quiet.quantile(q) for q in (0.5, 0.99))
        print("  p50 and p99: {:.1f} and {:.1f} times".format(*ratios), flush=True)


@contextmanager
def _sending(port: int, messages: list[bytes]) -> Iterator[None]:
    """Meanwhile one client sends these one after the other, again and again."""
    context = multiprocessing.get_context("spawn")
    begun, done = context.Event(), context.Event()
    process = context.Process(target=_send, args=(port, messages, begun, done))
    if messages:
        process.start()
        begun.wait(30)
    try:
        yield
    finally:
        done.set()
        if messages:
            process.join(30)


def _send(port: int, messages: list[bytes], begun: Any, done: Any) -> None:
    connection = Connection(port)
    for message in itertools.takewhile(lambda _: not done.is_set(), itertools.cycle(messages)):
        _ask(connection, message)
        begun.set()


def _lastn(world: World, clients: int, seconds: float) -> Measured:
    """The newest reading of patients who have very many."""
    path = "/fhir/Observation/$lastn?patient={}&code=http://loinc.org|99504-3&max=1"

    def asking(n: int) -> Callable[[], None]:
        connection, turn = Connection(world.port), itertools.cycle(world.patients[n::clients])

        def ask() -> None:
            assert _ask(connection, request("GET", path.format(next(turn)), world.professional)).count(b'"fullUrl"') == 1

        return ask

    return drive(clients, seconds, asking)


def _weigh(driver: str, workers: int, size: int) -> None:
    """What a reading takes on disk, pushed in Bundles of this size: in a database of its own."""
    with built_world(driver, 8, workers) as world:
        threads = [threading.Thread(target=_push_all, args=(world, patient, size)) for patient in world.patients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(4)  # the audit is sealed
        with MongoClient(world.url) as client:
            client.admin.command("fsync")
            stats = client[_DATABASE].command("collStats", "Observation")
            others = [client[_DATABASE].command("collStats", name) for name in ("AuditEvent", "seals", "Observation_history")]
    count = stats["count"]
    data, indexes = stats["storageSize"] / count, stats["totalIndexSize"] / count
    audit = sum(other["storageSize"] + other["totalIndexSize"] for other in others) / count
    print(f"{size:18} {data:6.0f} {indexes:8.0f} {audit:6.0f} {data + indexes + audit:6.0f}   ({count} readings)", flush=True)


def _push_all(world: World, patient: str, size: int) -> None:
    connection = Connection(world.port)
    for first in range(0, _WEIGHED // 8, size):
        _ask(connection, _submission(world, patient, first, size))
