"""A gateway that is killed at any moment of a deposit leaves no document without content, and nothing by halves."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest

from gateway.app import attached
from gateway.exchange.contents import CHUNK
from gateway.jobs.sweep import sweep_once
from gateway.settings import read_settings
from tests.conftest import running_world
from tests.documents.papers import attaching, deposited, pdf, send_raw
from tests.process import ToPort, environment, free_port, serving
from tests.world import Actor, Clock, World

AT_MOST = 1.5  # seconds from the first deposit to the kill: every kind of deposit has been in the midst of all it does by then
_LIFETIME = 3  # seconds
SIZES = {"short": 150_000, "long": 2 * CHUNK + 500}


class Depositors:
    """People whose software deposits until the gateway is gone. `acknowledged`: Binary by DocumentReference, with its bytes."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, tuple[str, bytes]] = {}
        self.owners: list[Actor] = []

    async def deposit_on(self, owner: Actor, size: int, *, raw: bool) -> None:
        """One after the other: as a transaction, or the bytes first and then what attaches them."""
        with suppress(httpx.TransportError):
            while True:
                content = pdf(size)
                if raw:
                    sent = await send_raw(owner, content)
                    assert sent.status_code == 201, sent.text
                    binary = f"Binary/{sent.json()['id']}"
                    made = f"DocumentReference/{(await owner.create(attaching(owner.patient, binary, content)))['id']}"
                else:
                    made, binary = await deposited(owner, owner.patient, content)
                self.acknowledged[made] = binary, content

    async def work(self, world: World, process: Any) -> None:
        """Deposit in every way at once, each for a patient of their own, and kill the gateway in the midst of it."""
        ways = [(size, raw) for size in SIZES.values() for raw in (False, True)]
        owners = [await world.patient() for _ in ways]
        self.owners += owners
        working = [
            asyncio.create_task(self.deposit_on(owner, size, raw=raw)) for owner, (size, raw) in zip(owners, ways, strict=True)
        ]
        await asyncio.sleep(random.uniform(0, AT_MOST))
        process.kill()
        await asyncio.to_thread(process.wait)
        await asyncio.gather(*working)


@asynccontextmanager
async def serving_people(gateway: Any, env: dict[str, str], port: int) -> AsyncIterator[tuple[World, Any]]:
    """A gateway process, and people who speak to it."""
    with serving(env, port) as process:
        async with httpx.AsyncClient(transport=ToPort(port)) as http:
            yield await World(gateway, http, Clock()).start(), process


@pytest.mark.requirement("REL-001", "DOC-03")
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
async def test_no_document_is_without_its_content(mongo_url: str, kills: int) -> None:
    env, port, depositors = environment(mongo_url, GATEWAY_LOG_LEVEL="error"), free_port(), Depositors()
    env["GATEWAY_BASE_URL"] = "http://gateway.test/fhir"
    async with attached(read_settings(env)) as gateway, short_transactions(gateway):
        for _ in range(kills):
            async with serving_people(gateway, env, port) as (world, process):
                await depositors.work(world, process)
    async for world in running_world(read_settings(env)):
        await check_documents(world, depositors)
        orphans = await check_orphans(world, depositors)
        assert orphans or kills < 50


@asynccontextmanager
async def short_transactions(gateway: Any) -> AsyncIterator[None]:
    """MongoDB ends a transaction whose process is gone a minute after it began, and until then nobody else can write to what
    it wrote to; of those that begin in here, three seconds after it. At the end all of them are gone.
    """
    command, name = gateway.mongo.command, "transactionLifetimeLimitSeconds"
    former = await command({"getParameter": 1, name: 1})
    await command({"setParameter": 1, name: _LIFETIME})
    try:
        yield
        await asyncio.sleep(2 * _LIFETIME)  # (they are looked for every half of it)
    finally:
        await command({"setParameter": 1, name: former[name]})


async def check_documents(world: World, depositors: Depositors) -> None:
    """What was acknowledged is there, each transaction as a whole, each document with exactly its bytes."""
    by_patient = {owner.patient: owner for owner in depositors.owners}
    documents = [d for patient in by_patient for d in await world.stored("DocumentReference", patient=patient)]
    binaries = {b["_id"]: b for patient in by_patient for b in await world.stored("Binary", patient=patient)}
    assert len(documents) >= len(depositors.acknowledged) > 0
    assert depositors.acknowledged.keys() <= {f"DocumentReference/{document['_id']}" for document in documents}
    for document in documents:
        (attached_id,) = document["attached"]
        owner = world.bearer(by_patient[document["patient"]])
        answer = await owner.get(f"Binary/{attached_id}")
        assert answer.status_code == 200, answer.text
        binary, content = depositors.acknowledged.get(f"DocumentReference/{document['_id']}", ("", answer.content))
        assert binary in ("", f"Binary/{attached_id}")
        assert answer.content == content
        assert len(content) == binaries[attached_id]["size"]
    # The content of a transaction is there with its document; bytes that came alone may have remained alone.
    attaching_it = {document["attached"][0]: document["commit"] for document in documents}
    in_transactions = {owner.patient for n, owner in enumerate(depositors.owners) if n % 2 == 0}
    for binary_id, stored in binaries.items():
        if stored["patient"] in in_transactions:
            assert attaching_it.get(binary_id) == stored["commit"]


async def check_orphans(world: World, depositors: Depositors) -> int:
    """After a day nothing is left but what resources name, and of that everything. Returns how much was left before."""
    before = len(await world.stored("contents"))
    world.clock.ahead = timedelta(hours=25)
    await sweep_once(world.gateway)
    patients = {owner.patient for owner in depositors.owners}
    named = {b["content"]: b["size"] for patient in patients for b in await world.stored("Binary", patient=patient)}
    kept = {c["_id"]: c for c in await world.stored("contents")}
    assert kept.keys() == named.keys()
    chunks: dict[str, int] = {}
    for chunk in await world.stored("content_chunks"):
        content = chunk["_id"].partition("/")[0]
        chunks[content] = chunks.get(content, 0) + 1
    assert chunks == {content: -(-size // CHUNK) for content, size in named.items() if "data" not in kept[content]}
    return before - len(kept)
