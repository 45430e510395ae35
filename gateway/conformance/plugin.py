"""pytest's part in the kit: which checks run, what they are given, what becomes of their results.

Knows: pytest. Must not know: what is right, how a report looks.
"""

import json
import os
import re
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.conformance.server import Server
from gateway.conformance.target import Target
from gateway.conformance.verdicts import Exchange, Outcome, Report, Verdict
from gateway.conformance.wire import FHIR_JSON, Caller, Record, remove

TARGET, KIT = "GATEWAY_CONFORMANCE_TARGET", "GATEWAY_CONFORMANCE_VERSION"
_TIMEOUT = 30.0
_LACKING = ("JSONDecodeError", "KeyError", "IndexError", "TypeError")
"""What reading an answer ends with that is not as a check takes it to be."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the command line of the kit passes on."""
    parser.addoption("--only", action="append", default=[], help="Numbers of rules, or groups.")
    parser.addoption("--report-to", default="", help="Where the report goes, as JSON.")


def pytest_configure(config: pytest.Config) -> None:
    """Take the marks, and begin to collect where this process is the one that reports."""
    config.addinivalue_line("markers", "rule(**told): the rule of a specification that this checks")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Results(config), "results-of-the-kit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what was asked for."""
    only = {name.upper() for name in config.getoption("--only")}
    if only:
        items[:] = [item for item in items if _told(item)["id"].upper() in only or _group(item).upper() in only]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the rule and what was said into the result, which may come from another process."""
    result = yield
    if result.when == "call" or (result.when == "setup" and not result.passed):
        record: Record | None = item.funcargs.get("record") if hasattr(item, "funcargs") else None
        told = {**_told(item), "group": _group(item)}
        said = [asdict(exchange) for exchange in record.exchanges] if record is not None else []
        result.user_properties.append(("verdict", json.dumps({"told": told, "exchanges": said})))
    return result


@pytest.fixture(scope="session")
def target() -> Target:
    """What is judged."""
    return Target.from_json(os.environ[TARGET])


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    """One client for all checks of a process."""
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=False, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def capability(target: Target, http: httpx.Client) -> dict[str, Any]:
    """The CapabilityStatement, by which it is decided what applies."""
    return find_capability(target, http)


@pytest.fixture
def record(target: Target) -> Record:
    """What is said in this check."""
    return Record(target.secrets)


@pytest.fixture
def server(target: Target, http: httpx.Client, capability: dict[str, Any], record: Record) -> Iterator[Server]:
    """The server, for this check; what the check made is removed at its end."""
    made: list[tuple[Caller, str]] = []
    yield Server(target, http, record, made, capability)
    said = list(record.exchanges)
    remove(made)
    record.exchanges[:] = said


@pytest.fixture
def owner(server: Server) -> Caller:
    """The person of the record."""
    return server.caller("owner")


@pytest.fixture
def app(server: Server) -> Caller:
    """An app that the person lets write."""
    return server.caller("app")


@pytest.fixture
def professional(server: Server) -> Iterator[Caller]:
    """A professional whom the person lets read. One check at a time has them: some take the consent away for a while."""
    with FileLock("professional.lock"):  # in the folder of this run
        yield server.caller("professional")


def find_capability(target: Target, http: httpx.Client) -> dict[str, Any]:
    """The CapabilityStatement; {} where there is none that can be read."""
    try:
        told = http.get(f"{target.base}/metadata", headers={"accept": FHIR_JSON}).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return told if isinstance(told, dict) and told.get("resourceType") == "CapabilityStatement" else {}


class _Results:
    """Verdicts as they come, in the process that reports; a progress bar on standard error."""

    def __init__(self, config: pytest.Config) -> None:
        self._path = Path(config.getoption("--report-to") or os.devnull)
        self._verdicts: list[Verdict] = []
        self._start = time.monotonic()
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("checking", total=None)

    def pytest_sessionstart(self) -> None:
        """Show the bar."""
        self._bar.start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know how many there are."""
        if session.items:
            self._bar.update(self._task, total=len(session.items))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Say what cannot even be read: that is a fault of the kit."""
        if report.failed:
            print(report.longreprtext, file=sys.stderr)  # noqa: T201 (pytest's own terminal is not there)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """The same, where other processes collect."""
        self._bar.update(self._task, total=len(ids))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a verdict."""
        sent = dict(report.user_properties).get("verdict")
        if sent is None or not (report.when == "call" or (report.when == "setup" and not report.passed)):
            return
        told = json.loads(str(sent))
        outcome, reason = _outcome(report)
        rule = told["told"]
        self._verdicts.append(
            Verdict(
                rule=rule["id"],
                check=report.nodeid.split("checks/")[-1],
                group=rule["group"],
                strength=rule["strength"],
                text=rule["text"],
                source=rule["source"],
                link=rule["link"],
                outcome=outcome,
                reason=reason,
                seconds=round(report.duration, 3),
                exchanges=[Exchange(**said) for said in told["exchanges"]],
            )
        )
        self._bar.advance(self._task)

    def pytest_sessionfinish(self) -> None:
        """Write the report."""
        self._bar.stop()
        target = Target.from_json(os.environ[TARGET])
        with httpx.Client(timeout=_TIMEOUT, trust_env=False) as http:
            software = find_capability(target, http).get("software", {})
        Report(
            kit=os.environ.get(KIT, ""),
            base=target.base,
            software=" ".join(str(software[key]) for key in ("name", "version") if key in software),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._start, 1),
            verdicts=sorted(self._verdicts, key=lambda verdict: (verdict.group, verdict.rule, verdict.check)),
        ).write(self._path)


def _outcome(report: pytest.TestReport) -> tuple[Outcome, str]:
    if report.passed:
        return "passed", ""
    if report.skipped:
        return "not applicable", _skipped(report)
    crash = getattr(report.longrepr, "reprcrash", None)
    message = str(crash.message) if crash is not None else report.longreprtext
    message = re.sub(r"\n \+ .*", "", message, flags=re.DOTALL)  # where pytest goes on about objects of the kit's
    name, _, text = message.partition(": ")
    if report.when == "call" and name == "AssertionError":
        return "failed", in_words(text)
    if report.when == "call" and name.rpartition(".")[2] in _LACKING:
        return "failed", f"the answer does not have what is read from it ({message.strip()})"
    return "broken", message.strip()


def in_words(text: str) -> str:
    """What is expected, in the words of the check, and what was seen, where that is short; of pytest's explanation no more."""
    told, _, asserted = text.strip().partition("\nassert ")
    compared = re.fullmatch(r"(.{1,120}) == (.{1,120})", asserted.partition("\n")[0])
    return f"expected: {told}\nseen: {compared[1]}, where {compared[2]} is right" if compared else f"expected: {told}"


def _skipped(report: pytest.TestReport) -> str:
    told = report.longrepr
    return str(told[2]).removeprefix("Skipped: ") if isinstance(told, tuple) else report.longreprtext


def _told(item: pytest.Item) -> dict[str, Any]:
    mark = item.get_closest_marker("rule")
    if mark is None:
        raise pytest.UsageError(f"{item.nodeid} names no rule")
    return dict(mark.kwargs)


def _group(item: pytest.Item) -> str:
    return Path(str(item.fspath)).stem
