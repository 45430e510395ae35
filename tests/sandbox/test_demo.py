"""`gateway demo`: the tour's lines, typed as they stand, give what it says; whatever ends it, nothing is left running."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from gateway.sandbox.mongod import running_mongod
from tests.person import Person
from tests.process import Ended, free_port, run_apart


@dataclass
class Demo:
    """A running demo and what it printed."""

    process: subprocess.Popen[str]
    text: str = ""
    seen: dict[str, str] = field(default_factory=dict)

    def read_tour(self) -> "Demo":
        """Wait for the end of the tour."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line
            if "AuditEvent?_count=5" in line:
                return self
        raise AssertionError(self.text + (self.process.stderr.read() if self.process.stderr else ""))

    def lines(self) -> list[str]:
        """The commands of the tour, in order."""
        return [block.strip() for block in re.findall(r"(?m)^   curl .*(?:\n     .*)*", self.text)]

    def mongods(self) -> list[int]:
        """The mongod that this demo started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"mongod" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def talk(self, data: bytes) -> bytes:
        """What the gateway answers these bytes with until it closes the connection."""
        port = re.search(r"http://127\.0\.0\.1:(\d+)/", self.text)
        assert port is not None
        with socket.create_connection(("127.0.0.1", int(port[1])), timeout=10) as raw:
            raw.sendall(data)
            return raw.makefile("rb").read()

    def end(self, number: int) -> Ended:
        """Send a signal and wait."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return Ended(self.process.returncode, out, err)


@contextmanager
def demo(*options: str) -> Iterator[Demo]:
    command = [sys.executable, "-m", "gateway", "demo", "--port", str(free_port()), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield Demo(process).read_tour()
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def shell(command: str) -> str:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True).stdout


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_tour_gives_what_it_says_and_the_demo_ends_in_good_order(tmp_path: Path) -> None:
    with demo("--data-dir", str(tmp_path)) as first:
        push, search, nobody, refused, revoke, again, log = first.lines()
        assert shell(push).startswith("HTTP/1.1 201")
        assert shell(push).startswith("HTTP/1.1 200")  # known: nothing is written
        assert '"type":"searchset"' in (page := shell(search))
        assert page.count('"resourceType":"Observation"') == 2
        assert '"value":104' in page
        assert '"total":0' in shell(nobody)
        answer = shell(refused)
        assert answer.startswith("HTTP/1.1 403")
        assert "the patient has withdrawn the consent given to this service" in answer
        assert "HTTP/1.1 200" in shell(revoke)
        assert again == search
        assert '"total":0' in (empty := shell(again))
        assert "Observation/" not in empty
        assert "Practitioner/" in shell(log)
        [mongod] = first.mongods()
        ended = first.end(signal.SIGINT)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.endswith("stopped.\n")
        assert not is_running(mongod)
    with demo("--data-dir", str(tmp_path)) as second:
        assert "renewing the tokens" in second.text
        [push, search, *_] = second.lines()
        assert '"total":0' in shell(search)  # the data was kept, and so was what Camille decided
        assert shell(push).startswith("HTTP/1.1 201")  # an app pushes what is new
        assert b'"resourceType":"OperationOutcome"' in second.talk(b"no HTTP\r\n\r\n")  # the server is that of `serve`
        [mongod] = second.mongods()
        ended = second.end(signal.SIGTERM)
        [line] = ended.stderr.splitlines()
        assert (ended.returncode, json.loads(line)["level"]) == (0, "warning")
        assert not is_running(mongod)


def test_a_demo_that_is_stopped_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "demo", "--port", str(free_port()), "--data-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started = Demo(process)
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 30
    while not (mongods := started.mongods()) and time.monotonic() < deadline:
        time.sleep(0.05)
    ended = started.end(signal.SIGTERM)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [pid for pid in mongods if is_running(pid)] == []
    assert len(mongods) == 1


@pytest.mark.parametrize("seconds", [0.2, 0.6, 1.2])
def test_ctrl_c_while_it_is_read_in_leaves_no_trace(seconds: float) -> None:
    command = [sys.executable, "-m", "gateway", "demo", "--port", str(free_port())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    ended = Demo(process).end(signal.SIGINT)
    assert (ended.returncode in (0, -signal.SIGINT), ended.stderr) == (True, ""), ended


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for it")
def test_a_demo_that_is_killed_takes_its_mongod_along() -> None:
    with demo() as running:
        [mongod] = running.mongods()
        running.end(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while is_running(mongod) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(mongod)


def refusal(path: str, *options: str) -> str:
    env = os.environ | {"PATH": path}
    ended = run_apart("demo", "--port", str(free_port()), *options, env=env)
    assert ended.returncode == 1, ended
    [line] = ended.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 'mongod: error while loading shared libraries: libcrypto.so.3: cannot open shared object file' >&2; exit 127",
            "cannot run here: mongod: error while loading shared libraries: libcrypto.so.3: cannot open shared object file",
        ),
        ("exit 3", "cannot run here: exit status 3"),
        ('if [ "$1" = --version ]; then exit 0; fi; exit 1', "mongod ended at once: "),
    ],
)
def test_a_mongod_that_cannot_run_says_what_is_missing(tmp_path: Path, script: str, said: str) -> None:
    mongod = tmp_path / "mongod"
    mongod.write_text(f"#!/bin/sh\n{script}\n")
    mongod.chmod(0o755)
    assert said in refusal(f"{tmp_path}:{os.environ['PATH']}")


def test_a_mongod_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "mongod").write_text("nonsense")
    (tmp_path / "mongod").chmod(0o755)
    assert f"{tmp_path / 'mongod'} cannot run here: Exec format error" in refusal(str(tmp_path))


def test_a_folder_that_cannot_hold_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refusal(os.environ["PATH"], "--data-dir", str(tmp_path / "file"))
    assert f"no data can be kept in {tmp_path / 'file'}: Not a directory" in line


def test_data_that_is_in_use_is_told(tmp_path: Path) -> None:
    with running_mongod(tmp_path, cache_gb=0.25):
        assert "mongod ended at once: " in (line := refusal(os.environ["PATH"], "--data-dir", str(tmp_path)))
        assert "lock" in line.lower()


def test_its_app_is_decided_on_in_a_browser_with_its_accounts() -> None:
    with demo() as running:
        link = re.search(r"(?m)^   (http://\S+/oauth/authorize\?\S+)$", running.text)
        assert link is not None
        site = link[1].partition("/oauth/")[0]
        password = re.search(r"their password is (\S+)\.", running.text)
        assert password is not None

        async def decide() -> str:
            async with httpx.AsyncClient() as http:
                paul = Person(http, site)
                page = await paul.log_in("paul", password[1], link[1])
                assert "This is about the record of Camille Durand, for whom you act." in page.text
                form = page.form("/oauth/authorize/continue")
                page = await paul.send(form, decision="allow", allow="read-Observation", duration="months", past="yes")
                return page.answer.text

        said = asyncio.run(decide())
        assert "It was granted:" in said
        command = re.search(r"(?m)^curl .*\\\n.*$", said)
        assert command is not None
        assert shell(command[0]).count('"resourceType":"Observation"') == 2
        renewal = re.search(r"(?m)^curl '[^']+/oauth/token' .*$", said)
        assert renewal is not None
        renewed = json.loads(shell(renewal[0]))
        assert renewed["access_token"] not in command[0]
        assert (
            shell(command[0].partition("Bearer ")[0] + f"Bearer {renewed['access_token']}'").count(
                '"resourceType":"Observation"'
            )
            == 2
        )
