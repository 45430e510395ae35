"""A store that stops, or dies: every request ends in time and says so, and what was acknowledged is kept."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from gateway.sandbox.mongod import _free_port, running_mongod
from gateway.schemas import find_schemas
from gateway.store.chain import find_broken_link
from tests.conftest import make_settings, running_world
from tests.world import Actor, World, bundle, entry, issues, observation

DEADLINE = 3.0  # seconds that a request may take in these tests


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data files, with a short deadline."""
    folder = tmp_path_factory.mktemp("faults") / "schemas"
    shutil.copytree(find_schemas(), folder)
    text = (folder / "gateway.toml").read_text("utf-8")
    assert "request_seconds = 30" in text
    (folder / "gateway.toml").write_text(text.replace("request_seconds = 30", f"request_seconds = {DEADLINE}"), "utf-8")
    return folder


class Store:
    """A mongod that can be stopped, killed and started again on its files and its port."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, _free_port()
        self._running: Any = None
        self.url = ""

    def start(self) -> None:
        self._running = running_mongod(self._folder, port=self._port, cache_gb=0.25)
        self.url = self._running.__enter__()
        with MongoClient[dict[str, Any]](self.url) as client:
            self.pid = int(str(client.admin.command("serverStatus")["pid"]))

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        self._running.__exit__(None, None, None)

    @contextmanager
    def stopped(self) -> Any:
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    store = Store(tmp_path_factory.mktemp("store"))
    store.start()
    yield store
    store.end()


@pytest.fixture(scope="module", params=["motor", pytest.param("pymongo", marks=pytest.mark.slow)])
async def fragile(request: pytest.FixtureRequest, store: Store, schemas: Path) -> AsyncIterator[World]:
    async for world in running_world(make_settings(store.url, mongo_driver=request.param, schemas=schemas)):
        yield world


async def timed(work: Awaitable[httpx.Response]) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    return await work, time.monotonic() - started


async def until_served(actor: Actor, seconds: float = 30) -> None:
    """Wait until a read is answered again."""
    deadline = time.monotonic() + seconds
    while (await actor.get(f"Patient/{actor.patient}")).status_code != 200:
        assert time.monotonic() < deadline, "not served again in time"


async def under_way(answers: list[httpx.Response], seconds: float = 30) -> None:
    """Wait until ten writes have been acknowledged."""
    deadline = time.monotonic() + seconds
    for _ in range(10_000):
        if sum(a.status_code == 201 for a in answers) >= 10:
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def kept(owner: str, answers: list[httpx.Response], found: list[dict[str, Any]]) -> None:
    """What was acknowledged is there, once."""
    acknowledged = [a.json()["id"] for a in answers if a.status_code == 201]
    ids = [resource["id"] for resource in found]
    assert len(ids) == len(set(ids))
    assert set(acknowledged) <= set(ids)


@pytest.mark.requirement("REL-004", "REL-006")
async def test_while_the_store_stands_still_every_request_ends_in_time(fragile: World, store: Store) -> None:
    camille = await fragile.patient()
    owner = camille.patient or ""
    made = await camille.create(observation(owner))
    readings = [observation(owner) for _ in range(4)]
    requests = [
        lambda: camille.get(f"Patient/{owner}"),
        lambda: camille.get("Observation"),
        lambda: camille.get(f"Observation/{made['id']}/_history"),
        lambda: camille.put(f"Observation/{made['id']}", {**made, "status": "amended"}),
        lambda: camille.delete(f"Observation/{made['id']}"),
        lambda: camille.post("", bundle("batch", entry("GET", "Observation"))),
        lambda: camille.post("", bundle("transaction", *(entry("POST", "Observation", r) for r in readings[:2]))),
        *((lambda r=r: camille.post("Observation", r)) for r in readings[2:]),
    ]
    with store.stopped():
        answers = await asyncio.gather(*(timed(request()) for request in requests))
    for answer, seconds in answers:
        assert answer.status_code in (503, 504), answer.text
        assert issues(answer)[0]["code"] in ("transient", "timeout", "too-costly")
        assert answer.headers["retry-after"].isdigit()
        assert seconds < DEADLINE + 1
    await until_served(camille)
    # Sent again with the same identifiers, each is there once, whatever became of it the first time.
    again = [await camille.post("Observation", reading) for reading in readings]
    assert {answer.status_code for answer in again} <= {200, 201}
    found = await camille.search("Observation?_count=50")
    assert sorted(r["identifier"][0]["value"] for r in found if r["id"] != made["id"]) == sorted(
        r["identifier"][0]["value"] for r in readings
    )


@pytest.mark.requirement("REL-001", "REL-004", "REL-010")
@pytest.mark.parametrize("seconds_still", [1.0, pytest.param(DEADLINE + 2, marks=pytest.mark.slow)])
async def test_a_store_that_stands_still_in_the_midst_of_writes_loses_nothing(
    fragile: World, store: Store, seconds_still: float
) -> None:
    camille = await fragile.patient()
    owner, answers = camille.patient or "", []

    async def write() -> None:
        for _ in range(20):
            answer, seconds = await timed(camille.post("Observation", observation(owner)))
            assert answer.status_code in (201, 503, 504), answer.text
            assert seconds < DEADLINE + 1
            answers.append(answer)

    async def update() -> None:
        made = await camille.create(observation(owner))
        for _ in range(20):
            answer, seconds = await timed(camille.put(f"Observation/{made['id']}", made))
            assert answer.status_code in (200, 503, 504), answer.text
            assert seconds < DEADLINE + 1

    async def stand_still() -> None:
        await under_way(answers)
        with store.stopped():
            await asyncio.sleep(seconds_still)

    await asyncio.gather(*(write() for _ in range(3)), *(update() for _ in range(3)), stand_still())
    await until_served(camille)
    assert sum(a.status_code == 201 for a in answers) > 8
    kept(owner, answers, await camille.search("Observation?_count=200"))


@pytest.mark.requirement("REL-001", "REL-005")
async def test_what_was_acknowledged_outlives_a_store_that_is_killed(fragile: World, store: Store) -> None:
    camille = await fragile.patient()
    owner, answers = camille.patient or "", []
    is_over = asyncio.Event()

    async def write() -> None:
        while not is_over.is_set():
            answer, seconds = await timed(camille.post("Observation", observation(owner)))
            assert answer.status_code in (201, 503, 504), answer.text
            assert seconds < DEADLINE + 1
            answers.append(answer)

    async def kill() -> None:
        await under_way(answers)
        await asyncio.to_thread(store.kill)
        await asyncio.to_thread(store.start)
        await until_served(camille)
        is_over.set()

    await asyncio.gather(*(write() for _ in range(3)), kill())
    kept(owner, answers, await camille.search("Observation?_count=200"))
    await fragile.gateway.audit.seal(fragile.gateway.clock())
    _, broken = await find_broken_link(fragile.gateway.mongo, fragile.gateway.clock())
    assert broken is None


async def test_readiness_follows_the_store_and_liveness_does_not(fragile: World, store: Store) -> None:
    http, base = fragile.http, fragile.gateway.settings.base_url.removesuffix("/fhir")
    assert (await http.get(f"{base}/readyz")).status_code == 200
    with store.stopped():
        answer, seconds = await timed(http.get(f"{base}/readyz"))
        assert answer.status_code in (503, 504)
        assert seconds < DEADLINE + 1
        assert (await http.get(f"{base}/livez")).status_code == 200
    camille = await fragile.patient()
    await until_served(camille)
    assert (await http.get(f"{base}/readyz")).status_code == 200
