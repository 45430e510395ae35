"""`python -m tests.bench glucose`: uploaders that send everything again, what that costs others, and what a reading weighs.

Consent and audit are on, as everywhere; the rates are off, so that the work itself is seen.
"""

import argparse
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from pymongo import MongoClient

from gateway.sandbox.series import reading
from tests.bench.client import Connection, Measured, drive, request
from tests.bench.grants import cpu_seconds
from tests.bench.jobs import fill
from tests.bench.world import EPOCH, World, built_world

_KNOWN = 1_000  # readings of a Bundle that is sent again
_BURST = 20_000
_SIZES = (1, 12, 288)
_WEIGHED = 20_160  # readings, seventy days of a sensor
_DATABASE = "bench"


def run_glucose(options: argparse.Namespace) -> None:
    """Measure and print."""
    with built_world(options.driver, max(8, options.patients), options.workers) as world, MongoClient(world.url) as client:
        print(f"\n{'job':34} {'requests':>8} {'p50':>8} {'p99':>8}")
        _resend(world, client, options.seconds)
        _burst(world, options.seconds)
        fill(world, options.readings, options.clients)
        _tell(f"$lastn, 1 client, {options.readings} readings", _lastn(world, 1, options.seconds))
        _tell(f"$lastn, {options.clients} clients", _lastn(world, options.clients, options.seconds))
    print(f"\n{'readings a Bundle':>18} {'data':>6} {'indexes':>8} {'audit':>6} {'all':>6}   bytes on disk per reading")
    for size in _SIZES:
        _weigh(options.driver, options.workers, size)


def _tell(job: str, measured: Measured) -> None:
    print(f"{job:34} {len(measured.latencies):8} {measured.quantile(0.5):8.1f} {measured.quantile(0.99):8.1f}", flush=True)


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
    """What another patient's app waits while one sends its last 20 000 readings again, all of them known."""
    sender, other = world.patients[1], world.patients[2]
    messages = [_submission(world, sender, first, _KNOWN) for first in range(0, _BURST, _KNOWN)]
    connection = Connection(world.port)
    for message in messages:
        _ask(connection, message)
    fresh = itertools.count()

    def creating(_: int) -> Callable[[], None]:
        own = Connection(world.port)
        moments = (EPOCH + timedelta(minutes=5 * n) for n in fresh)

        def create() -> None:
            one = reading(f"Patient/{other}", f"Device/{world.sensors[other]}", next(moments))
            status, body = own.ask(request("POST", "/fhir/Observation", world.app_tokens[other], json.dumps(one).encode()))
            assert status == 201, body
            time.sleep(0.005)  # (an app that pushes what it measures, and does not fill a core by itself)

        return create

    quiet = drive(1, seconds, creating)
    done = threading.Event()

    def bursting() -> None:
        for message in _again(messages, done):
            _ask(connection, message)

    thread = threading.Thread(target=bursting)
    thread.start()
    busy = drive(1, seconds, creating)
    done.set()
    thread.join()
    _tell("another's single create, quiet", quiet)
    _tell("the same during the burst", busy)
    print(f"  p99: {busy.quantile(0.99) / quiet.quantile(0.99):.1f} times", flush=True)


def _again(messages: list[bytes], done: threading.Event) -> Iterator[bytes]:
    return itertools.takewhile(lambda _: not done.is_set(), itertools.cycle(messages))


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
