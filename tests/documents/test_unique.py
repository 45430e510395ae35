"""One document of one name, however many send it at once, and to however many processes (DOC-18)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.documents.papers import attaching, binary, deposit, pdf
from tests.process import two_processes
from tests.world import Actor, World, bundle, consent, entry, expression, unique

pytestmark = pytest.mark.requirement("DOC-18")
MINIMAL = "https://profiles.ihe.net/ITI/MHD/StructureDefinition/IHE.MHD.Minimal.ProvideBundle"


def named() -> dict[str, Any]:
    return {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{unique('00000000-0000-4000-8000')}"}


async def senders(world: World) -> tuple[Actor, list[Actor]]:
    """A patient, and who deposits for them: themselves and two professionals who may read everything."""
    owner = await world.patient()
    doctors = [await world.professional() for _ in range(2)]
    for doctor in doctors:
        await world.relation(owner, doctor)
    return owner, [owner, *doctors]


async def outcomes(owner: Actor, askers: list[Actor], *, alike: bool) -> list[str]:
    """What is answered to all, who send a document of one name at once: the same, or each another one."""
    base = attaching(owner.patient, "https://elsewhere.example/a", masterIdentifier=named(), date="2026-11-01T08:00:00Z")
    sent = [{**base, "description": str(0 if alike else n)} for n in range(len(askers))]
    answers = await asyncio.gather(
        *(one.post("DocumentReference", document) for one, document in zip(askers, sent, strict=True))
    )
    return [str(answer.status_code) for answer in answers]


@pytest.mark.parametrize("alike", [True, False])
async def test_of_several_senders_at_once_one_deposits_it(world: World, alike: bool) -> None:
    owner, askers = await senders(world)
    for _ in range(5):
        found = Counter(await outcomes(owner, askers, alike=alike))
        assert found == {"201": 1, "200" if alike else "409": 2}
    assert len(await world.stored("DocumentReference", patient=owner.patient)) == 5


async def test_documents_of_other_names_are_in_nobodys_way(world: World) -> None:
    """In each round every name is new, and so is its place among the keys of those that are there."""
    owner, _ = await senders(world)
    for _ in range(3):
        sent = [deposit(owner.patient, pdf(), masterIdentifier=named()) for _ in range(8)]
        answers = await asyncio.gather(*(owner.post("", body) for body in sent))
        assert [answer.status_code for answer in answers] == [200] * len(sent), [answer.text for answer in answers]


async def test_in_submissions_too(world: World) -> None:
    """The one that comes second is refused as a whole: no content and no submission set of it stay."""
    owner, askers = await senders(world)
    name = named()
    sent = [deposit(owner.patient, pdf(), masterIdentifier=name) for _ in askers]
    answers = await asyncio.gather(*(one.post("", body) for one, body in zip(askers, sent, strict=True)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 2}
    for collection in ("DocumentReference", "Binary"):
        assert len(await world.stored(collection, patient=owner.patient)) == 1


async def test_who_may_not_see_each_other_is_told_nothing(world: World) -> None:
    owner = await world.patient()
    services = [await world.service() for _ in range(2)]
    for service in services:
        await owner.create(consent(owner, service, "collect"))
    assert await outcomes(owner, services, alike=False) == ["201", "201"]


@pytest.fixture(scope="module")
async def two(mongo_url: str) -> AsyncIterator[tuple[World, httpx.AsyncClient]]:
    """Two processes on one database: a world at the first, and a wire to the second."""
    async with two_processes(mongo_url) as found:
        yield found


@pytest.mark.parametrize("alike", [True, False])
async def test_at_two_processes(two: tuple[World, httpx.AsyncClient], alike: bool) -> None:
    world, second = two
    owner, askers = await senders(world)
    askers[1].http = second
    for _ in range(8):
        found = Counter(await outcomes(owner, askers, alike=alike))
        assert found == {"201": 1, "200" if alike else "409": 2}
    assert len(await world.stored("DocumentReference", patient=owner.patient)) == 8


@pytest.mark.requirement("DOC-02")
async def test_a_batch_is_no_submission(world: World) -> None:
    owner = await world.patient()
    sent = deposit(owner.patient, pdf()) | {"type": "batch", "meta": {"profile": [MINIMAL]}}
    for path in ("", "Bundle/$validate"):
        answer = await owner.post(path, sent)
        assert expression(answer) == "Bundle.type", answer.text
    assert (await owner.post("", sent)).status_code == 422
    assert await world.stored("DocumentReference", patient=owner.patient) == []
    mixed = bundle("batch", entry("POST", "Binary", binary(pdf(), securityContext={"reference": f"Patient/{owner.patient}"})))
    assert (await owner.post("", mixed)).json()["entry"][0]["response"]["status"].startswith("201")
