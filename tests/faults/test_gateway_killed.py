"""A gateway that is killed in the midst of commits leaves nothing by halves; another one seals what it left."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gateway.store.chain import find_broken_link, seal_for_the_dead
from gateway.store.mongo import Mongo
from tests.process import environment, free_port, run, wait_until_ready
from tests.world import bundle, entry, observation, patient

IN_A_BUNDLE = 20


def issue(env: dict[str, str], *options: str) -> dict[str, str]:
    ended = run("token", "issue", *options, env=env)
    return {"Authorization": f"Bearer {ended.stdout.strip()}", "Content-Type": "application/fhir+json"}


class Pushed:
    """A patient whose readings are pushed to a gateway that is killed, and what was acknowledged of them."""

    def __init__(self, mongo_url: str) -> None:
        self.env, port = environment(mongo_url), free_port()
        self.base, self._port = f"http://127.0.0.1:{port}/fhir", port
        self.acknowledged: list[str] = []
        self.owner = ""
        self._app: dict[str, str] = {}

    def serve(self) -> subprocess.Popen[str]:
        """A gateway that is ready."""
        command = [sys.executable, "-m", "gateway", "serve", "--port", str(self._port)]
        process = subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        wait_until_ready(process, self._port)
        return process

    def bring_patient(self) -> None:
        operator = issue(self.env, "--client", "ops", "--kind", "operator", "--scope", "system/*.cruds")
        self.owner = httpx.post(f"{self.base}/Patient", json=patient(), headers=operator).json()["id"]
        reference = f"Patient/{self.owner}"
        who = ("--patient", self.owner, "--actor", reference, "--user", reference, "--minutes", "60")
        self._app = issue(self.env, "--client", "portal", "--kind", "patient", "--scope", "patient/*.cruds", *who)

    async def push(self, http: httpx.AsyncClient) -> None:
        """One Bundle after the other until the gateway is gone."""
        while True:
            day = bundle("transaction", *(entry("POST", "Observation", observation(self.owner)) for _ in range(IN_A_BUNDLE)))
            try:
                answer = await http.post(self.base, json=day, headers=self._app)
            except httpx.TransportError:
                return
            assert answer.status_code == 200, answer.text
            self.acknowledged.extend(e["response"]["location"].split("/")[1] for e in answer.json()["entry"])

    async def kill(self, process: subprocess.Popen[str]) -> None:
        """Kill the gateway when some have been acknowledged."""
        before = len(self.acknowledged)
        for _ in range(3_000):
            if len(self.acknowledged) - before > 5 * IN_A_BUNDLE:
                break
            await asyncio.sleep(0.01)
        process.kill()
        await asyncio.to_thread(process.wait)


@pytest.mark.requirement("REL-001", "REL-010")
@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
async def test_no_transaction_is_there_by_halves_and_no_event_is_lost(mongo_url: str, kills: int) -> None:
    pushed = Pushed(mongo_url)
    for n in range(kills):
        process = await asyncio.to_thread(pushed.serve)
        try:
            if n == 0:
                await asyncio.to_thread(pushed.bring_patient)
            async with httpx.AsyncClient() as http:
                await asyncio.gather(*(pushed.push(http) for _ in range(3)), pushed.kill(process))
        finally:
            process.kill()
    await check(mongo_url, pushed.env["GATEWAY_MONGO_DATABASE"], pushed.owner, pushed.acknowledged)


async def check(mongo_url: str, database: str, owner: str, acknowledged: list[str]) -> None:
    mongo = Mongo(mongo_url, database, "motor")
    commits: dict[int, list[str]] = {}
    for document in await mongo.find("Observation", {"patient": owner}, {"commit": 1}):
        commits.setdefault(document["commit"], []).append(document["_id"])
    stored = {identifier for ids in commits.values() for identifier in ids}
    assert set(acknowledged) <= stored
    assert {len(ids) % IN_A_BUNDLE for ids in commits.values()} == {0}
    events = await mongo.find("AuditEvent", {"patient": owner, "event.type": "Observation"})
    assert {e["event"]["commit"] for e in events} == commits.keys()
    assert sum(len(e["event"]["entities"]) + e["event"].get("more", 0) for e in events) == len(stored)
    later = datetime.now(UTC) + timedelta(minutes=3)
    _, broken = await find_broken_link(mongo, later)
    assert broken is not None
    assert "its process died" in broken
    await seal_for_the_dead(mongo, later)
    sound, broken = await find_broken_link(mongo, later)
    assert (sound, broken) == (await mongo.count("AuditEvent", {}), None)
    await mongo.close()
