"""The README's first hour and its tour, typed as they stand, give the answers they show."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process import free_port

README = Path(__file__).resolve().parents[2] / "README.md"
MARK = "-- the next command --"


def typed() -> list[tuple[str, str]]:
    """Every command of the README's console blocks with what it is said to answer (`…`: anything)."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            here = re.match(r"[^\n]*<<END\n.*?^END\n", part, re.MULTILINE | re.DOTALL)
            end = here.end() if here else part.index("\n") + 1
            found.append((part[:end], part[end:].rstrip("\n")))
    return found


@contextmanager
def running_demo(port: int) -> Iterator[None]:
    """`gateway demo`, until its tour is printed; ended as Ctrl-C does."""
    command = [sys.executable, "-m", "gateway", "demo", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        try:
            assert any("The gateway listens" in line for line in demo.stdout)
            yield
        finally:
            demo.send_signal(signal.SIGINT)
            demo.communicate(timeout=60)
    assert demo.returncode == 0


def test_the_first_hour_and_the_tour_give_the_answers_they_show(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the tour is typed with curl")
    port = free_port()
    commands = typed()
    script = "".join(f"{command}printf '\\n{MARK}\\n'\n" for command, _ in commands)
    with running_demo(port):
        script = script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # where `gateway` is
        command = ["bash", "-c", script]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True, timeout=120)
    answers = done.stdout.replace(f"127.0.0.1:{port}", "127.0.0.1:8000").split(f"{MARK}\n")[:-1]
    assert len(commands) == len(answers) > 10
    for (command, shown), answer in zip(commands, answers, strict=True):
        pattern = ".*".join(re.escape(part) for part in shown.split("…"))
        assert re.fullmatch(pattern, answer.strip("\n"), re.DOTALL), f"{command}\n{answer}"
