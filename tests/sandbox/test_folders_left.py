"""The folder of a demo that was killed: the next one removes it, and nothing that could be anybody else's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.sandbox.folders import passing_folder, remove_left_folders
from tests.process import free_port
from tests.sandbox.test_demo import Demo, is_running


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place for temporary files, of this test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def left(place: Path, name: str = "gateway-demo-left") -> Path:
    """A folder like one whose demo was killed."""
    folder = place / name
    folder.mkdir(mode=0o700)
    (folder / "in-use-by").write_text("1\n")
    (folder / "journal").mkdir()
    (folder / "mongod.lock").write_text("")
    return folder


@contextmanager
def starting(place: Path, *options: str) -> Iterator[tuple[Demo, list[int]]]:
    """A demo as soon as its mongod has files in this place, and that mongod."""
    command = [sys.executable, "-m", "gateway", "demo", "--port", str(free_port()), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started, known = Demo(process), {*place.rglob("WiredTiger")}
    try:
        wait_until(lambda: {*place.rglob("WiredTiger")} - known != set())
        yield started, started.mongods()
    finally:
        if process.poll() is None:
            started.end(signal.SIGINT)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="its mongod ends on Linux")
def test_what_a_killed_demo_left_is_removed_by_the_next(temporary: Path) -> None:
    kept = temporary / "gateway-demo-kept"
    with starting(temporary, "--data-dir", str(kept)) as (keeper, one), starting(temporary) as (other, another):
        [folder] = set(temporary.glob("gateway-demo-*")) - {kept}
        keeper.end(signal.SIGKILL)
        other.end(signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, [*one, *another])))
    assert (folder / "WiredTiger").is_file()
    with starting(temporary) as (following, [mongod]):
        [new] = set(temporary.glob("gateway-demo-*")) - {kept}
        assert (new / "in-use-by").read_text().strip() == str(following.process.pid)
        assert new != folder
        remove_left_folders()
        assert (new / "WiredTiger").is_file()
    assert not is_running(mongod)
    assert [*temporary.glob("gateway-demo-*")] == [kept]
    assert (kept / "mongo" / "WiredTiger").is_file()


def test_a_folder_goes_when_its_process_is_gone_and_its_mongod_too(temporary: Path) -> None:
    folder = left(temporary)
    (folder / "mongod.lock").write_text(f"{os.getpid()}\n")
    remove_left_folders()
    assert folder.exists()
    (folder / "mongod.lock").write_text("")
    with passing_folder() as mine:
        assert [*temporary.iterdir()] == [mine]
        remove_left_folders()
        assert [*temporary.iterdir()] == [mine]
    assert [*temporary.iterdir()] == []


def test_what_is_not_known_for_certain_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (unmarked := left(temporary, "gateway-demo-unmarked")).joinpath("in-use-by").unlink()
    elsewhere = left(temporary, "elsewhere")
    (temporary / "gateway-demo-link").symlink_to(elsewhere)
    by_link = left(temporary, "gateway-demo-by-link")
    (by_link / "in-use-by").unlink()
    (by_link / "in-use-by").symlink_to(elsewhere / "in-use-by")
    (temporary / "gateway-demo-file").write_text("1")
    before = sorted(temporary.rglob("*"))
    remove_left_folders()
    assert sorted(temporary.rglob("*")) == before
    assert unmarked.is_dir()
    of_another = left(temporary)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    remove_left_folders()
    assert of_another.exists()
