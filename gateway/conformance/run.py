"""A run of the kit: pytest in a process of its own, and the report it leaves.

Knows: how pytest is called so that nothing of the place where it runs has a say. Must not know: what is checked.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gateway.conformance.consent import consent_given
from gateway.conformance.target import Target
from gateway.conformance.verdicts import Report, read_report

CHECKS = Path(__file__).parent / "checks"
_NEEDED = ("pytest", "xdist", "filelock")


class KitError(Exception):
    """The kit cannot run: the message says why."""


def pytest_arguments(only: Sequence[str], report: Path) -> list[str]:
    """What pytest is told for a run in one process, which writes its report there."""
    told = [str(CHECKS), "-c", str(CHECKS.parent / "pytest.ini"), "--report-to", str(report)]
    return told + [part for name in only for part in ("--only", name)]


def pytest_environment(target: Target, version: str) -> dict[str, str]:
    """The variables of such a run. pytest loads no plugin that happens to be installed, and heeds nobody's options."""
    told = {"GATEWAY_CONFORMANCE_TARGET": target.to_json(), "GATEWAY_CONFORMANCE_VERSION": version}
    return told | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}


def run_checks(target: Target, only: Sequence[str], processes: int, version: str) -> Report:
    """Check the server. `only`: numbers of rules, or groups; all where it is empty.

    Raises KitError where what the kit is built on is not installed, or nothing was left to check.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise KitError("the kit needs more than is installed: pip install 'fhir-document-gateway[conformance]'")
    groups = {path.stem for path in CHECKS.glob("[a-z]*.py")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pytest", *pytest_arguments(only, path)]
        command += ["-p", "xdist", "-n", str(processes)] if processes > 1 else []
        environ = os.environ | pytest_environment(target, version)
        with consent_given(target):
            ended = subprocess.run(command, env=environ, cwd=folder, check=False)  # noqa: S603 (its own interpreter)
        report = read_report(path) if ended.returncode in (0, 1) and path.exists() else None
        if report is None or not report.verdicts:
            raise KitError(f"nothing was checked; groups are: {', '.join(sorted(groups))}")
        return report
