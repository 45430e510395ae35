"""What all tests stand on: a real mongod, the wired system on it, and people who act over HTTP."""

import functools
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from gateway.app import Schemas, create_app, read_schemas
from gateway.fhir.codec import Codec
from gateway.fhir.registry import Registry
from gateway.sandbox.mongod import running_mongod
from gateway.schemas import find_schemas
from gateway.settings import Settings
from tests.process import environment, free_port, serving
from tests.world import BASE, SECRET, Clock, World, unique

_MEMORY, _ROOM = Path("/dev/shm"), 6_000_000_000  # bytes; a whole run of the tests leaves less than two of them
SHARED = Path(__file__).resolve().parents[2] / "shared" / "reference"


_calls_out: list[str] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse, and write down, every attempt to reach something that is not on this machine, whoever makes it."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments[0] if event.startswith("socket.get") else arguments[1]
        host = place[0] if isinstance(place, tuple) else place if event.startswith("socket.get") else None  # a path: no host
        if host not in (None, "", "localhost", b"localhost") and not _is_here(str(host), looked_up="get" in event):
            _calls_out.append(f"{event} {host}")
            raise OSError(f"a test calls out: {host}")


def _is_here(host: str, *, looked_up: bool) -> bool:
    try:
        # To look up a number asks nobody.
        return ip_address(host).is_loopback or looked_up
    except ValueError:
        try:
            return looked_up and bool(socket.inet_aton(host))
        except OSError:
            return False


sys.addaudithook(_watch)

# What a script starts in its background ignores Ctrl-C, and so does whatever that starts: some tests end processes by it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nobody_calls_out() -> Iterator[list[str]]:
    """No test reaches anything beyond this machine: one that tries fails, even if the code under test swallows the error."""
    yield _calls_out
    tried, _calls_out[:] = list(_calls_out), []
    assert tried == []


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """A mongod of this session, with its files in memory where there is room: no test is about the disk of this machine.

    (A mongod that is killed loses what this one would: nothing. Tests that stop or kill one have one of their own.)
    """
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    with (
        TemporaryDirectory(prefix="gateway-tests-", dir=_MEMORY if has_room else None, ignore_cleanup_errors=True) as folder,
        running_mongod(Path(folder), cache_gb=0.25) as url,
    ):
        yield url


def make_settings(mongo_url: str, **changes: object) -> Settings:
    """Settings on a database of their own."""
    values: dict[str, object] = {
        "mongo_url": mongo_url,
        "mongo_database": unique("db"),
        "mongo_driver": "motor",
        "base_url": BASE,
        "secret": SECRET,
        "trusted_proxies": "",
        "log_level": "error",
        "schemas": find_schemas(),
        "local_login": "on",
        **changes,
    }
    return Settings(**values)  # type: ignore[arg-type]


async def running_world(settings: Settings) -> AsyncIterator[World]:
    """The whole application on these settings, and its people."""
    clock = Clock()
    app = create_app(settings, clock)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            yield await World(app.state.gateway, http, clock).start()


@pytest.fixture(scope="session")
async def session_world(mongo_url: str) -> AsyncIterator[World]:
    """The one running gateway that nearly all tests share (a database is dear to make, a patient is cheap)."""
    async for world in running_world(make_settings(mongo_url)):
        yield world


@pytest.fixture
def world(session_world: World) -> Iterator[World]:
    """The shared gateway; its clock is put right again afterwards."""
    yield session_world
    session_world.clock.ahead *= 0


@pytest.fixture
async def peer(world: World) -> AsyncIterator[World]:
    """Another gateway process, as far as the database can tell, with a clock of its own and the other driver."""
    settings = world.gateway.settings
    changes = {"mongo_database": settings.mongo_database, "mongo_driver": "pymongo"}
    async for other in running_world(make_settings(settings.mongo_url, **changes)):
        yield other


@pytest.fixture(scope="module")
def prepared(mongo_url: str) -> dict[str, str]:
    """An environment whose database was prepared by `gateway serve`, which ended at once."""
    env = environment(mongo_url)
    with serving(env, free_port()) as process:
        process.terminate()
        process.wait(30)
    return env


@functools.cache
def packaged() -> Schemas:
    """The packaged schemas, read once."""
    return read_schemas(find_schemas())


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The registry of the packaged schemas, for tests that need no database."""
    return packaged().registry


@pytest.fixture(scope="session")
def codec(registry: Registry) -> Codec:
    """Decodes and encodes the registry's types, with the limits of production."""
    limits = packaged().limits
    return Codec(registry.types, depth=limits.depth, explain_bytes=limits.explain_bytes)


@pytest.fixture(scope="session")
def specifications() -> Path:
    """The folder of real specification examples, which only the makers have beside the repository."""
    folder = SHARED / "specs"
    if not folder.is_dir():
        assert os.environ.get("GATEWAY_SPECIFICATIONS") != "required", f"{folder} is not there"
        pytest.skip("the specification examples are not beside this repository")
    return folder
