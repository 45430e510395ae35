"""The jobs: what the gateway is asked to do, and what raw calls do beside it."""

import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.bench.client import Connection, Measured, drive, request
from tests.bench.raw import Raw
from tests.bench.world import EPOCH, World, bundle

READINGS = 288
LATER = 1_000  # days after the epoch
_TURNS = 4


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


def measure(
    row: tuple[str, str],
    clients: int,
    seconds: float,
    worker: Callable[[int], Callable[[], None]],
    requests: Callable[[], int],
    *,
    raw: Callable[[float], Measured] | None = None,
    unit: int = 1,
) -> Row:
    """A job (its name and what it is) and, by turns, its raw counterpart: what the machine does besides, it does to both.

    `seconds`: of each in all; `requests`: how many the server has had; `unit`: what one operation counts for.
    """
    mine, others, calls = Measured(0.0), Measured(0.0), 0
    for _ in range(_TURNS):
        if raw is not None:
            others += raw(seconds / _TURNS)
        before = requests()
        mine += drive(clients, seconds / _TURNS, worker)
        calls += requests() - before
    job, what = row
    raw_rate = others.rate * unit if raw is not None else None
    found = Row(job, what, clients, mine, unit, raw_rate, calls / max(1, len(mine.latencies)))
    print(f"  {job}: {found.rate:.0f}/s", flush=True)
    return found


def _ask(connection: Connection, message: bytes, expected: tuple[int, ...]) -> bytes:
    status, body = connection.ask(message)
    if status not in expected:
        raise RuntimeError(f"{status}: {body[:300]!r}")
    return body


def run_jobs(world: World, raw: Raw, seconds: float, clients: int, wanted: set[str], many: int) -> list[Row]:
    """Measure the wanted jobs, each beside its raw counterpart."""
    rows: list[Row] = []

    def add(
        row: tuple[str, str],
        count: int,
        worker: Callable[[int], Callable[[], None]],
        raw_job: Callable[[float], Measured] | None,
        unit: int = 1,
    ) -> None:
        rows.append(measure(row, count, seconds, worker, raw.requests, raw=raw_job, unit=unit))

    mine = [world.patients[n::clients] for n in range(clients)]

    # Far on, so that what is prepared and not pushed leaves no gap in what is filled up.
    days = [itertools.count(LATER) for _ in range(clients)]

    def pushing(n: int) -> Callable[[], None]:
        turn = itertools.cycle(mine[n])
        messages = [
            request("POST", "/fhir", world.app_tokens[p], bundle(p, world.sensors[p], next(days[n])))
            for p in itertools.islice(turn, int(200 * seconds / _TURNS / clients) + 40)
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

        ready = iter([create(p) for p in itertools.islice(turn, int(3_000 * seconds / _TURNS / clients) + 40)])
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
        add(("W1", "readings, a day in a transaction"), clients, pushing, partial(raw.insert_days, clients), READINGS)
    if "W1b" in wanted:
        before = raw.server_status()["opcounters"]["insert"]
        add(("W1b", "readings, the same day again"), clients, resending, None, READINGS)
        inserted = raw.server_status()["opcounters"]["insert"] - before
        rows[-1].raw = rows[-2].rate if len(rows) > 1 else None
        print(f"  W1b: {inserted / len(rows[-1].measured.latencies):.2f} inserts a Bundle (audit)", flush=True)
    if "W2" in wanted:
        add(("W2", "single creates"), clients, creating, partial(raw.insert_one, clients))
    if "W3" in wanted:
        fill(world, many, clients)
        add(("W3", "pages of 100, newest first"), clients, paging, partial(raw.find_pages, world, clients))
        add(("W3/1", "the same, one client"), 1, paging, partial(raw.find_pages, world, 1))
    if "R1" in wanted:
        ids = raw.ids(4_000)
        add(("R1", "reads by id"), clients, reading, partial(raw.find_one, ids, clients))
        in_xml = partial(reading, query="?_format=xml")
        add(("R1/xml", "the same, in XML"), clients, in_xml, partial(raw.find_one, ids, clients))
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
