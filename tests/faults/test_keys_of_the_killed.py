"""A gateway process that is killed around its commit: what is sent again with its key is done once, by whichever process."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import attached
from gateway.settings import read_settings
from tests.process import ToPort, environment, free_port, serving, wait_until_ready
from tests.world import Actor, Clock, World, bundle, entry, observation, unique

# A gateway that kills itself at the first commit after a file has appeared: before it is sent, or before it is answered.
DOOMED = """
import os, runpy, signal, sys
from pathlib import Path
from pymongo.client_session import ClientSession

moment, file, commit = sys.argv[1], Path(sys.argv[2]), ClientSession.commit_transaction

def doomed(session):
    if moment == "before" and file.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    commit(session)
    if file.exists():
        os.kill(os.getpid(), signal.SIGKILL)

ClientSession.commit_transaction = doomed
sys.argv = ["gateway", "serve", "--port", sys.argv[3]]
runpy.run_module("gateway", run_name="__main__")
"""


@dataclass(slots=True)
class Processes:
    """Gateway processes on one database; `world` and its people ask at the first of them."""

    world: World
    env: dict[str, str]

    def at(self, owner: Actor, port: int) -> Actor:
        """The same person, asking at another process."""
        return Actor(httpx.AsyncClient(transport=ToPort(port)), owner.token, owner.reference, owner.patient)


@pytest.fixture(scope="module")
async def processes(mongo_url: str) -> AsyncIterator[Processes]:
    port = free_port()
    env = environment(mongo_url, GATEWAY_BASE_URL="http://gateway.test/fhir", GATEWAY_LOG_LEVEL="error")
    with serving(env, port):
        async with attached(read_settings(env)) as gateway, httpx.AsyncClient(transport=ToPort(port)) as http:
            yield Processes(await World(gateway, http, Clock()).start(), env)


@pytest.fixture(scope="module")
async def end_of_the_abandoned(processes: Processes) -> AsyncIterator[None]:
    """MongoDB ends a transaction whose process is gone after a minute; here sooner."""
    command = processes.world.gateway.mongo.command
    former = await command({"getParameter": 1, "transactionLifetimeLimitSeconds": 1})
    await command({"setParameter": 1, "transactionLifetimeLimitSeconds": 2})
    yield
    await command({"setParameter": 1, "transactionLifetimeLimitSeconds": former["transactionLifetimeLimitSeconds"]})


@contextmanager
def doomed(env: dict[str, str], moment: str, file: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", DOOMED, moment, str(file), str(port)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until_ready(process, port)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def nameless(owner: Actor) -> dict[str, Any]:
    return {name: value for name, value in observation(owner.patient).items() if name != "identifier"}


def requests(owner: Actor) -> dict[str, tuple[str, Any]]:
    """Alone, and in a transaction that also reads, which is committed in another way."""
    both = bundle("transaction", entry("POST", "Observation", nameless(owner)), entry("GET", f"Patient/{owner.patient}"))
    return {"create": ("Observation", nameless(owner)), "transaction": ("", both)}


@pytest.mark.requirement("REL-001", "REL-002", "REL-007")
@pytest.mark.usefixtures("end_of_the_abandoned")
@pytest.mark.parametrize("name", ["create", pytest.param("transaction", marks=pytest.mark.slow)])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_it_is_done_once_whenever_its_gateway_is_killed(
    processes: Processes, tmp_path: Path, moment: str, name: str
) -> None:
    owner = await processes.world.patient()
    path, body = requests(owner)[name]
    port, file, key = free_port(), tmp_path / "now", unique()
    with doomed(processes.env, moment, file, port) as process:
        there = processes.at(owner, port)
        file.touch()
        with pytest.raises(httpx.TransportError):
            await there.post(path, body, Idempotency_Key=key)
        assert await asyncio.to_thread(process.wait, 30) == -signal.SIGKILL
        await there.http.aclose()
    answer = await owner.post(path, body, Idempotency_Key=key)
    assert answer.is_success, answer.text
    assert (answer.headers.get("idempotency-replayed") == "true") is (moment == "after")
    again = await owner.post(path, body, Idempotency_Key=key)
    assert (again.content, again.headers["idempotency-replayed"]) == (answer.content, "true")
    assert len(await processes.world.stored("Observation", patient=owner.patient)) == 1


@pytest.mark.requirement("REL-002", "REL-007")
async def test_two_processes_do_it_once(processes: Processes) -> None:
    port = free_port()
    with serving(processes.env, port):
        for name in ("create", "transaction"):
            owner = await processes.world.patient()
            path, body = requests(owner)[name]
            there, key = processes.at(owner, port), unique()
            answers = await asyncio.gather(*((owner, there)[n % 2].post(path, body, Idempotency_Key=key) for n in range(24)))
            assert {answer.content for answer in answers} == {answers[0].content}
            assert {answer.status_code for answer in answers} == {201 if name == "create" else 200}
            assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
            assert len(await processes.world.stored("Observation", patient=owner.patient)) == 1
            await there.http.aclose()
