"""The jobs: what the gateway is asked to do, and what raw calls do beside it."""

import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.client import Connection, Measured, drive, request
from tests.bench.raw import Raw
from tests.bench.world import EPOCH, World, bundle

READINGS = 288
LATER = 1_000  # days after the epoch


@dataclass(slots=True)
class Row:
    """One line of the table. `unit`: how many of the thing counted one operation is."""

    job: str
    what: str
    clients: int
    measured: Measured
    unit: int
    raw: float | None
    calls: float

    @property
    def rate(self) -> float:
        """Things per second."""
        return self.measured.rate * self.unit


def _ask(connection: Connection, message: bytes, expected: tuple[int, ...]) -> bytes:
    status, body = connection.ask(message)
    if status not in expected:
        raise RuntimeError(f"{status}: {body[:300]!r}")
    return body


def run_jobs(world: World, raw: Raw, seconds: float, clients: int, wanted: set[str], many: int) -> list[Row]:
    """Measure the wanted jobs, each beside its raw counterpart."""
    rows: list[Row] = []

    def measure(
        job: str, what: str, unit: int, count: int, worker: Callable[[int], Callable[[], None]], raw_rate: float | None
    ) -> None:
        before = raw.server_status()["network"]["numRequests"]
        measured = drive(count, seconds, worker)
        calls = (raw.server_status()["network"]["numRequests"] - before) / max(1, len(measured.latencies))
        rows.append(Row(job, what, count, measured, unit, raw_rate, calls))
        print(f"  {job}: {rows[-1].rate:.0f}/s", flush=True)

    mine = [world.patients[n::clients] for n in range(clients)]

    def pushing(n: int) -> Callable[[], None]:
        turn = itertools.cycle(mine[n])
        days = itertools.count(LATER)  # so that what is prepared and not pushed leaves no gap in what is filled up
        messages = [
            request("POST", "/fhir", world.app_tokens[p], bundle(p, world.sensors[p], next(days)))
            for p in itertools.islice(turn, int(200 * seconds / clients) + 40)
        ]
        ready, connection = iter(messages), Connection(world.port)
        return lambda: [None, _ask(connection, next(ready), (200,))][0]

    def resending(n: int) -> Callable[[], None]:
        connection = Connection(world.port)
        first_days = ((p, bundle(p, world.sensors[p], 0)) for p in mine[n])
        again = itertools.cycle([request("POST", "/fhir", world.app_tokens[p], day) for p, day in first_days])
        return lambda: [None, _ask(connection, next(again), (200,))][0]

    numbers = itertools.count()

    def creating(n: int) -> Callable[[], None]:
        turn = itertools.cycle(mine[n])
        template = json.loads(bundle(mine[n][0], world.sensors[mine[n][0]], 0))["entry"][0]["resource"]

        def create(patient: str) -> bytes:
            template["identifier"][0]["value"] = f"single-{next(numbers)}"
            template["subject"]["reference"] = f"Patient/{patient}"
            template["device"]["reference"] = f"Device/{world.sensors[patient]}"
            return request("POST", "/fhir/Observation", world.app_tokens[patient], json.dumps(template).encode())

        ready = iter([create(p) for p in itertools.islice(turn, int(3_000 * seconds / clients) + 40)])
        connection = Connection(world.port)
        return lambda: [None, _ask(connection, next(ready), (201,))][0]

    def paging(n: int) -> Callable[[], None]:
        connection, turn = Connection(world.port), itertools.cycle(mine[n % clients])
        path = "/fhir/Observation?patient={}&code=http://loinc.org|99504-3&date=ge" + f"{EPOCH:%Y-%m-%d}&_sort=-date&_count=100"

        def page() -> None:
            body = _ask(connection, request("GET", path.format(next(turn)), world.professional), (200,))
            assert body.count(b'"fullUrl"') == 100

        return page

    def reading(n: int, query: str = "") -> Callable[[], None]:
        connection, turn = Connection(world.port), itertools.cycle(ids[n::clients])

        def read() -> None:
            _ask(connection, request("GET", f"/fhir/Observation/{next(turn)}{query}", world.professional), (200,))

        return read

    if "W1" in wanted:
        raw_rate = raw.insert_days(clients, seconds).rate * READINGS
        measure("W1", "readings, a day in a transaction", READINGS, clients, pushing, raw_rate)
    if "W1b" in wanted:
        before = raw.server_status()["opcounters"]["insert"]
        measure("W1b", "readings, the same day again", READINGS, clients, resending, rows[-1].rate if rows else None)
        inserted = raw.server_status()["opcounters"]["insert"] - before
        print(f"  W1b: {inserted / len(rows[-1].measured.latencies):.2f} inserts a Bundle (audit)", flush=True)
    if "W2" in wanted:
        measure("W2", "single creates", 1, clients, creating, raw.insert_one(clients, seconds).rate)
    if "W3" in wanted:
        fill(world, many, clients)
        raw_rate = raw.find_pages(world, clients, seconds).rate
        measure("W3", "pages of 100, newest first", 1, clients, paging, raw_rate)
        measure("W3/1", "the same, one client", 1, 1, paging, raw.find_pages(world, 1, seconds).rate)
    if "R1" in wanted:
        ids = raw.ids(4_000)
        raw_rate = raw.find_one(ids, clients, seconds).rate
        measure("R1", "reads by id", 1, clients, reading, raw_rate)
        measure("R1/xml", "the same, in XML", 1, clients, lambda n: reading(n, "?_format=xml"), raw_rate)
    return rows


def fill(world: World, readings: int, clients: int) -> None:
    """Push whole days until there are at least this many readings."""
    days = -(-readings // READINGS // len(world.patients))
    print(f"  filling up to {readings} readings …", flush=True)

    def work(n: int) -> None:
        connection = Connection(world.port)
        for patient in world.patients[n::clients]:
            while world.days.get(patient, 0) < days:
                _ask(connection, request("POST", "/fhir", world.app_tokens[patient], world.next_day(patient)), (200,))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
