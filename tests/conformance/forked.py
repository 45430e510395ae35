"""Runs of the kit in a process each that need not load everything anew: one process loads the kit, and forks for each run.

Started as a process: `python -m tests.conformance.forked`; a line of JSON tells it of a run, it answers with how that ended.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.conformance.run import pytest_arguments, pytest_environment
from gateway.conformance.target import Target
from gateway.conformance.verdicts import Report, read_report


class Kit:
    """The process that has the kit loaded."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, target: Target, only: Sequence[str]) -> Report:
        """As `run_checks`, one check after the other."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "report.json"
            asked = {"arguments": pytest_arguments(only, path), "environment": pytest_environment(target, "test")}
            assert self._process.stdin
            assert self._process.stdout
            print(json.dumps({**asked, "folder": folder}), file=self._process.stdin, flush=True)
            ended = self._process.stdout.readline().strip()
            assert ended in ("0", "1"), ended
            return read_report(path)


@contextmanager
def loaded_kit() -> Iterator[Kit]:
    """The process, until it is not needed any more."""
    command = [sys.executable, "-m", "tests.conformance.forked"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Kit(process)


def _load() -> None:
    """Have pytest import the checks, with their assertions rewritten; what forks has them."""
    os.environ |= pytest_environment(Target("http://127.0.0.1:9/nobody"), "test")
    pytest.main([*pytest_arguments((), Path(os.devnull)), "--collect-only"])


def _serve() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ |= asked["environment"]
            os.chdir(asked["folder"])
            os._exit(int(pytest.main(asked["arguments"])))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _load()
    _serve()
