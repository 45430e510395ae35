"""Two client libraries that others wrote, fhirpy and fhirclient, work against a running gateway without special treatment."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from fhirclient.client import FHIRClient
from fhirclient.models.bundle import Bundle
from fhirclient.models.device import Device
from fhirclient.models.observation import Observation
from fhirclient.server import FHIRNotFoundException
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import AuthorizationError, OperationOutcome, ResourceNotFound

from tests.process import process_world
from tests.world import Actor, World, bundle, device, entry, observation

READINGS = 25


@dataclass
class Shared:
    """A gateway process, a patient there, their sensor, and how many readings it has made."""

    world: World
    owner: Actor
    sensor: str

    @property
    def url(self) -> str:
        return self.world.gateway.settings.base_url


@pytest.fixture(scope="module")
async def shared(mongo_url: str) -> AsyncIterator[Shared]:
    async with process_world(mongo_url) as world:
        owner = await world.patient()
        sensor = f"Device/{(await owner.create(device(owner.patient)))['id']}"
        readings = (observation(owner.patient, device={"reference": sensor}) for _ in range(READINGS))
        answer = await owner.post("", bundle("transaction", *(entry("POST", "Observation", r) for r in readings)))
        assert answer.status_code == 200, answer.text
        yield Shared(world, owner, sensor)


@pytest.fixture
async def other(shared: Shared) -> Actor:
    """A patient of whom nothing is stored yet."""
    return await shared.world.patient()


def fhirpy_client(shared: Shared, actor: Actor, **headers: str) -> AsyncFHIRClient:
    return AsyncFHIRClient(shared.url, authorization=f"Bearer {actor.token}", extra_headers=headers)


def fhirclient_of(shared: Shared, actor: Actor) -> Any:
    """A fhirclient with a token got elsewhere."""
    client = FHIRClient({"app_id": "portal", "api_base": shared.url})
    client.prepare()  # reads the CapabilityStatement into its own typed classes, and from it where tokens are had
    client.server.auth.access_token = actor.token
    assert client.ready
    return client.server


async def test_fhirpy_searches_page_by_page(shared: Shared) -> None:
    client = fhirpy_client(shared, shared.owner)
    found = client.resources("Observation").search(patient=shared.owner.patient, code="99504-3", date__ge="2026-01-01")
    pages = found.sort("-date").limit(10)
    assert len(await pages.fetch()) == 10
    every = await pages.fetch_all()
    assert len({reading.id for reading in every}) == len(every) == READINGS
    assert len([reading async for reading in pages]) == READINGS
    first = await pages.first()
    assert (await first["subject"].to_resource()).id == shared.owner.patient


async def test_fhirpy_includes(shared: Shared) -> None:
    client = fhirpy_client(shared, shared.owner)
    found = client.resources("Observation").search(patient=shared.owner.patient)
    raw = await found.include("Observation", "device").limit(5).fetch_raw()
    modes = [e.search.mode for e in raw.entry]
    assert (modes.count("match"), modes.count("include")) == (5, 1)
    assert [e.resource.id for e in raw.entry if e.search.mode == "include"] == [shared.sensor.partition("/")[2]]
    back = client.resources("Device").search(_id=shared.sensor.partition("/")[2]).revinclude("Observation", "device")
    assert len((await back.fetch_raw()).entry) == 1 + READINGS


async def test_fhirpy_creates_reads_updates_and_deletes(shared: Shared, other: Actor) -> None:
    client = fhirpy_client(shared, other)
    reading = client.resource("Observation", **observation(other.patient))
    assert await reading.is_valid()
    await reading.save()
    assert reading["meta"]["versionId"] == "1"
    reading["status"] = "amended"
    await reading.update()
    assert reading["meta"]["versionId"] == "2"
    again = await client.reference("Observation", reading.id).to_resource()
    assert (again["status"], again["meta"]) == ("amended", reading["meta"])
    await again.refresh()
    assert again == reading
    wrong = client.resource("Observation", **{**observation(other.patient), "status": "perhaps"})
    assert not await wrong.is_valid()
    with pytest.raises(OperationOutcome) as refused:
        await wrong.save()
    assert refused.value.resource["issue"][0]["expression"] == ["Observation.status"]
    await reading.delete()
    with pytest.raises(ResourceNotFound):
        await client.get("Observation", reading.id)


async def test_fhirpy_creates_what_is_not_there(shared: Shared, other: Actor) -> None:
    sent = observation(other.patient)
    identifier = f"{sent['identifier'][0]['system']}|{sent['identifier'][0]['value']}"
    headers = {"If-None-Exist": f"identifier={identifier}", "Prefer": "return=representation"}
    client = fhirpy_client(shared, other, **headers)
    first, second = (client.resource("Observation", **{**sent, "status": status}) for status in ("final", "amended"))
    await first.save()
    await second.save()
    assert second == first
    # `get_or_create` puts the condition into the URL, which R4 does not know: refused by name, never created unconditionally.
    wanted = client.resources("Observation").search(identifier=f"{identifier}-2")
    with pytest.raises(OperationOutcome) as refused:
        await wanted.get_or_create(client.resource("Observation", **sent))
    assert refused.value.resource["issue"][0]["expression"] == ["identifier"]


async def test_fhirpy_says_what_is_refused(shared: Shared, other: Actor) -> None:
    with pytest.raises(AuthorizationError):
        await AsyncFHIRClient(shared.url).resources("Observation").fetch()
    client = fhirpy_client(shared, other)
    assert await client.resources("Observation").search(patient=shared.owner.patient).fetch() == []
    # `count` sends a parameter that R4 does not know: refused by name, unless leniency is asked for.
    with pytest.raises(OperationOutcome) as refused:
        await client.resources("Observation").count()
    assert refused.value.resource["issue"][0]["expression"] == ["_totalMethod"]
    lenient = fhirpy_client(shared, shared.owner, Prefer="handling=lenient")
    assert await lenient.resources("Observation").count() == READINGS


def test_fhirclient_searches_page_by_page_with_includes(shared: Shared) -> None:
    server = fhirclient_of(shared, shared.owner)
    search = Observation.where({"patient": shared.owner.patient, "_count": "10", "date": "ge2026-01-01"})
    pages = list(search.perform_iter(server))
    assert [len(page.entry) for page in pages] == [10, 10, 5]
    found = list(search.include("device").perform_resources_iter(server))
    assert {type(one) for one in found} == {Observation, Device}
    assert len({one.id for one in found if isinstance(one, Observation)}) == READINGS
    assert {one.device.reference for one in found if isinstance(one, Observation)} == {shared.sensor}


def test_fhirclient_creates_reads_updates_and_deletes(shared: Shared, other: Actor) -> None:
    server = fhirclient_of(shared, other)
    created = Observation(Observation(observation(other.patient)).create(server))
    read = Observation.read(created.id, server)
    assert read.as_json() == created.as_json()
    read.status = "amended"
    read.valueQuantity.value = 111
    updated = Observation(read.update(server))
    assert (updated.meta.versionId, updated.valueQuantity.value) == ("2", 111)
    assert read.delete(server) is None
    with pytest.raises(Exception, match="410"):
        Observation.read(created.id, server)
    with pytest.raises(FHIRNotFoundException):
        Observation.read(f"{created.id[:4]}{'0' * 16}", server)


def test_fhirclient_sends_a_transaction(shared: Shared, other: Actor) -> None:
    server = fhirclient_of(shared, other)
    day = Bundle(bundle("transaction", *(entry("POST", "Observation", observation(other.patient)) for _ in range(3))))
    answer = Bundle(day.create(server))
    assert [one.response.status for one in answer.entry] == ["201 Created"] * 3
    assert json.dumps(answer.as_json())
