"""`python -m tests.bench`: one table, and a JSON file with machine and commit."""

import argparse
import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.documents import run_documents
from tests.bench.glucose import run_glucose
from tests.bench.grants import run_grants
from tests.bench.jobs import Row, fill, run_jobs
from tests.bench.raw import Raw
from tests.bench.revocation import run_revocation
from tests.bench.world import built_world

JOBS = ("W1", "W1b", "W2", "W3", "R1")


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description="Benchmarks of the gateway, as ratios to raw driver calls.")
    parser.add_argument(
        "jobs", nargs="*", metavar="JOB", help="which jobs (default: all), or documents, glucose, grants, revocation"
    )
    parser.add_argument("--driver", default="motor", choices=("motor", "pymongo"))
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of each measurement")
    parser.add_argument("--workers", type=int, default=2, help="processes of the gateway")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--patients", type=int, default=48)
    parser.add_argument("--readings", type=int, default=1_000_000, help="in store before W3")
    parser.add_argument("--documents", type=int, default=100_000, help="in store before pages of documents are asked for")
    options = parser.parse_args()
    if options.jobs == ["grants"]:
        run_grants(options.driver, options.workers, options.clients, options.seconds)
        return
    if options.jobs == ["revocation"]:
        run_revocation(options.driver, options.clients)
        return
    if options.jobs == ["glucose"]:
        run_glucose(options)
        return
    if options.jobs == ["documents"]:
        with built_world(options.driver, options.patients, options.workers) as world:
            print_rows(run_documents(world, options.seconds, options.clients, options.documents))
            print(f"\n{options.driver}, {options.workers} workers; gateway RSS {_resident_megabytes(world.pid):.0f} MB")
        return
    with built_world(options.driver, options.patients, options.workers) as world:
        raw = _prepared(world, options)
        rows = run_jobs(world, raw, options.seconds, options.clients, set(options.jobs or JOBS), options.readings)
        sizes = raw.sizes()
        memory = _resident_megabytes(world.pid)
    _print(rows, sizes, memory, options.driver, options.workers)
    _write(rows, sizes, memory, options)


def _prepared(world: Any, options: argparse.Namespace) -> Raw:
    fill(world, 115_200, options.clients)
    return Raw(world)


def print_rows(rows: list[Row]) -> None:
    """The table."""
    print(f"\n{'job':6} {'what':34} {'clients':>7} {'rate/s':>9} {'p50':>7} {'p95':>7} {'p99':>7} {'ratio':>6} {'calls':>6}")
    for row in rows:
        p50, p95, p99 = (row.measured.quantile(q) for q in (0.5, 0.95, 0.99))
        ratio = f"{row.rate / row.raw:.2f}" if row.raw else "-"
        latencies = f"{p50:7.1f} {p95:7.1f} {p99:7.1f}"
        print(f"{row.job:6} {row.what:34} {row.clients:7} {row.rate:9.0f} {latencies} {ratio:>6} {row.calls:6.1f}")


def _print(rows: list[Row], sizes: dict[str, float], memory: float, driver: str, workers: int) -> None:
    print_rows(rows)
    print(
        f"\n{driver}, {workers} workers; latencies in ms; ratio to raw synchronous PyMongo (W1b: to W1);"
        f" calls: to mongod per request\n"
        f"gateway RSS {memory:.0f} MB; bytes on disk per reading: {sizes['data']:.0f} data, {sizes['indexes']:.0f} indexes,"
        f" {sizes['audit']:.0f} audit ({sizes['readings']:.0f} readings)"
    )


def _write(rows: list[Row], sizes: dict[str, float], memory: float, options: argparse.Namespace) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    report = {
        "commit": commit,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), "processor": _processor()},
        "options": vars(options),
        "rss_megabytes": memory,
        "bytes_per_reading": sizes,
        "jobs": [
            {
                "job": row.job,
                "clients": row.clients,
                "rate": row.rate,
                "raw": row.raw,
                "ratio": row.rate / row.raw if row.raw else None,
                "calls": row.calls,
                **{f"p{int(q * 100)}": row.measured.quantile(q) for q in (0.5, 0.95, 0.99)},
            }
            for row in rows
        ],
    }
    file = Path(f"bench-{options.driver}.json")
    file.write_text(json.dumps(report, indent=2, default=str), "utf-8")
    print(f"written to {file}")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model} x {len([line for line in lines if line.startswith('processor')])}"


def _resident_megabytes(pid: int) -> float:
    """Of a process and those it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _own_megabytes(pid) + sum(_resident_megabytes(int(child)) for child in children)


def _own_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
