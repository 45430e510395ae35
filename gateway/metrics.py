"""Numbers for operators in Prometheus' text format: counted in each process of a service, added up over all of them.

Knows: which metrics there are, the text format, the files in which processes lay down their numbers for one another.
Must not know: anything of requests beyond route pattern, method, status and why it was refused. Each of these labels, like the
names of events, is out of a closed list: no id and no word of a client can become one.
(https://prometheus.io/docs/instrumenting/exposition_formats/)

Processes share no memory, and a scrape reaches one of them. So each lays down what it has counted in a file of its own, whole,
once a second, and whoever tells adds the files up. Those of processes that ended count on: a sum never falls while the service
runs.
"""

import os
import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # upper bounds of the buckets
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FRESH = 10.0  # seconds; a process that has laid down nothing for so long has no state any more


class _Metric(NamedTuple):
    type: str
    help: str


_METRICS: Mapping[str, _Metric] = {
    "gateway_requests_total": _Metric("counter", "Requests answered, by route, method and status."),
    "gateway_request_seconds": _Metric("histogram", "How long they took, by route."),
    "gateway_refusals_total": _Metric(
        "counter", "FHIR requests, and entries that stand for themselves, refused or failed, by issue type and status."
    ),
    "gateway_events_total": _Metric("counter", "Events by name, as the log has them, whatever level it is set to."),
    "gateway_mongo_calls_total": _Metric("counter", "Calls to MongoDB."),
    "gateway_mongo_connections_in_use": _Metric("gauge", "Connections to MongoDB at work; each process has up to 100."),
    "gateway_audit_unsealed_events": _Metric("gauge", "Audit events that wait for their seal."),
    "gateway_audit_lag_seconds": _Metric("gauge", "How long the first of them, of any process, has been waiting."),
    "gateway_processes": _Metric("gauge", "Processes that serve."),
}
_GREATEST = frozenset({"gateway_audit_lag_seconds"})  # of all processes, in place of the sum


class Numbers(msgspec.Struct):
    """What one process lays down. `at`: when, in seconds; `counts` only ever grow, `states` are of that moment."""

    at: float
    counts: dict[str, float]
    states: dict[str, float]


class Metrics:
    """What one process counts. `events`: how often each event was logged."""

    def __init__(self, events: Mapping[str, int]) -> None:
        self._events = events
        self._requests: Counter[tuple[str, str, int | None]] = Counter()
        self._refusals: Counter[tuple[str, int]] = Counter()
        self._taken: dict[str, list[float]] = {}  # by route: the counts of the buckets, of what took longer, the sum
        self._file = f"{os.getpid()}-{secrets.token_hex(4)}.json"  # the next process of this number is another one

    def answered(self, method: str, route: str, status: int | None, seconds: float) -> None:
        """Count a request. `status` None: whoever asked went away before there was an answer."""
        self._requests[method if method in _METHODS else "other", route, status] += 1
        taken = self._taken.get(route)
        if taken is None:
            taken = self._taken[route] = [0.0] * (len(SECONDS) + 2)
        taken[bisect_left(SECONDS, seconds)] += 1
        taken[-1] += seconds

    def refused(self, code: str, status: int) -> None:
        """Count a refusal, of a request or of an entry that stands for itself, by its FHIR issue type."""
        self._refusals[code, status] += 1

    def counts(self) -> dict[str, float]:
        """All that was counted, by series as Prometheus writes them."""
        found: dict[str, float] = {}
        for (method, route, answered), times in self._requests.items():
            labels = {"method": method, "route": route, "status": answered or "none"}
            found[_series("gateway_requests_total", labels)] = times
        for route, taken in self._taken.items():
            below = 0.0
            for bound, number in zip((*SECONDS, "+Inf"), taken, strict=False):
                below += number
                found[_series("gateway_request_seconds_bucket", {"route": route, "le": bound})] = below
            found[_series("gateway_request_seconds_sum", {"route": route})] = taken[-1]
            found[_series("gateway_request_seconds_count", {"route": route})] = below
        for (code, status), times in self._refusals.items():
            found[_series("gateway_refusals_total", {"code": code, "status": status})] = times
        for event, times in self._events.items():
            found[_series("gateway_events_total", {"event": event})] = times
        return found

    def lay_down(self, folder: Path, numbers: Numbers) -> None:
        """Put these numbers where all of this service find them, in place of the former ones."""
        whole = folder / f".{self._file}"
        whole.write_bytes(msgspec.json.encode(numbers))
        whole.replace(folder / self._file)


def read_numbers(folder: Path) -> list[Numbers]:
    """What the processes of a service laid down."""
    return [msgspec.json.decode(file.read_bytes(), type=Numbers) for file in sorted(folder.glob("[0-9]*.json"))]


def render(laid_down: Iterable[Numbers], now: float) -> str:
    """The numbers of all processes together, as Prometheus reads them."""
    counts: dict[str, float] = {}
    states: dict[str, float] = dict.fromkeys(sorted(name for name, metric in _METRICS.items() if metric.type == "gauge"), 0)
    for numbers in laid_down:
        for series, number in numbers.counts.items():
            counts[series] = counts.get(series, 0) + number
        for name, value in numbers.states.items() if now - numbers.at < _FRESH else ():
            states[name] = max(states[name], value) if name in _GREATEST else states[name] + value
    lines: list[str] = []
    for name, metric in _METRICS.items():
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.type}"]
        lines += [f"{series} {value:.10g}" for series, value in {**counts, **states}.items() if _metric_of(series) == name]
    return "\n".join(lines) + "\n"


def _metric_of(series: str) -> str:
    name = series.partition("{")[0]
    return name if name in _METRICS else name.rpartition("_")[0]


def _series(name: str, labels: Mapping[str, object]) -> str:
    said = ",".join(f'{label}="{_escaped(str(value))}"' for label, value in labels.items())
    return f"{name}{{{said}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
