"""A Device of a patient is there for apps and services only through a measure that they may see (specs.md EXT-03; HDDT)."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.world import LOINC, Actor, World, concept, consent, device, observation

pytestmark = pytest.mark.requirement("EXT-03")

GLUCOSE, WEIGHT = "99504-3", "29463-7"
TYPES = ["Observation", "Device"]
SCOPE = "patient/Observation.cruds patient/Device.cruds"


def measure(owner: Actor, by: dict[str, Any], code: str = GLUCOSE, **elements: Any) -> dict[str, Any]:
    """A reading that names its device."""
    made = {"device": {"reference": f"Device/{by['id']}"}, "code": concept(LOINC, code)}
    return observation(owner.patient, **(made | elements))


def of_code(owner: Actor, to: Actor, code: str = GLUCOSE) -> dict[str, Any]:
    """A Consent to read the readings of one code, and devices."""
    return consent(owner, to, types=["Observation"], code=[concept(LOINC, code)])


async def open_devices(owner: Actor, to: Actor, code: str = GLUCOSE) -> None:
    """The patient permits an actor to read readings of one code, and devices."""
    await owner.create(of_code(owner, to, code))
    await owner.create(consent(owner, to, types=["Device"]))


def ids(resources: list[dict[str, Any]], kind: str = "Device") -> set[str]:
    """The ids among these of one type."""
    return {one["id"] for one in resources if one["resourceType"] == kind}


async def _service(world: World, owner: Actor) -> Actor:
    return await world.service("patient/*.cruds", patient=owner.patient)


async def _app(world: World, owner: Actor) -> Actor:
    return await world.app(owner, SCOPE)


async def _open_service(world: World, owner: Actor) -> Actor:
    return await world.service("user/*.cruds")


@pytest.mark.parametrize("asker", [_service, _app, _open_service])
async def test_a_device_is_seen_through_a_visible_measure_only(world: World, asker: Callable[..., Any]) -> None:
    owner = await world.patient()
    seen, unseen = [await owner.create(device(owner.patient)) for _ in range(2)]
    reading = await owner.create(measure(owner, seen))
    await owner.create(measure(owner, unseen, WEIGHT))
    who = await asker(world, owner)
    await open_devices(owner, who)
    one, other = f"Device/{seen['id']}", f"Device/{unseen['id']}"
    absent = f"Device/{unseen['id'][:-4]}zzzz"
    record = f"patient={owner.patient}"

    for path in ("", "/_history/1", "/_history"):
        assert (await who.get(one + path)).status_code == 200, path
        hidden, missing = await who.get(other + path), await who.get(absent + path)
        assert (hidden.status_code, hidden.content) == (404, missing.content), path
    assert ids(await who.search(f"Device?{record}")) == {seen["id"]}
    total = (await who.get(f"Device?{record}&_summary=count")).json()["total"]
    assert total == (await who.get(f"Device?{record}&_total=accurate")).json()["total"] == 1
    value = unseen["identifier"][0]["value"]
    assert await who.search(f"Device?{record}&identifier={value}") == []
    assert await who.search(f"Device?{record}&_id={unseen['id']}") == []
    assert ids(await who.search(f"Observation?{record}&_include=Observation:device")) == {seen["id"]}
    chained = f"Observation?{record}&device:Device.identifier="
    assert await who.search(chained + value) == []
    assert ids(await who.search(chained + seen["identifier"][0]["value"]), "Observation") == {reading["id"]}
    entries = [{"request": {"method": "GET", "url": url}} for url in (one, other, f"Device?{record}")]
    batch = (await who.post("", {"resourceType": "Bundle", "type": "batch", "entry": entries})).json()["entry"]
    assert [entry["response"]["status"][:3] for entry in batch] == ["200", "404", "200"]
    assert batch[2]["resource"]["total"] == 1

    assert ids(await owner.search(f"Device?{record}")) == {seen["id"], unseen["id"]}


async def test_it_goes_with_the_measure_and_comes_with_it(world: World) -> None:
    owner = await world.patient()
    sensor = await owner.create(device(owner.patient))
    who = await _service(world, owner)
    await open_devices(owner, who)
    path = f"Device/{sensor['id']}"
    assert (await who.get(path)).status_code == 404
    reading = await owner.create(measure(owner, sensor))
    assert (await who.get(path)).status_code == 200
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
    hidden = await owner.put(f"Observation/{reading['id']}", {**reading, "meta": {"security": [label]}})
    assert hidden.status_code == 200
    assert (await who.get(path)).status_code == 404
    shown = await owner.put(f"Observation/{reading['id']}", reading)
    assert shown.status_code == 200
    assert (await who.get(path)).status_code == 200
    assert (await owner.delete(f"Observation/{reading['id']}")).status_code in (200, 204)
    assert (await who.get(path)).status_code == 404
    assert await who.search(f"Device?patient={owner.patient}") == []


async def test_a_whole_record_has_it_only_with_its_measure(world: World) -> None:
    owner = await world.patient()
    seen, unseen = [await owner.create(device(owner.patient)) for _ in range(2)]
    reading = await owner.create(measure(owner, seen))
    await owner.create(measure(owner, unseen, WEIGHT))
    who = await _service(world, owner)
    await open_devices(owner, who)
    page = await who.search(f"Patient/{owner.patient}/$everything?_type=Observation,Device")
    assert {one["id"] for one in page} == {seen["id"], reading["id"]}


async def test_a_token_that_sees_no_measure_sees_no_device(world: World) -> None:
    owner = await world.patient()
    sensor = await owner.create(device(owner.patient))
    await owner.create(measure(owner, sensor))
    who = await world.service("patient/Device.rs", patient=owner.patient)
    await world.consent(owner, who, types=TYPES)
    assert (await who.get(f"Device/{sensor['id']}")).status_code == 404
    assert await who.search(f"Device?patient={owner.patient}") == []


async def test_what_is_not_seen_is_not_pointed_at_nor_found_nor_written(world: World) -> None:
    owner = await world.patient()
    seen, unseen = [await owner.create(device(owner.patient)) for _ in range(2)]
    await owner.create(measure(owner, seen))
    who = await _app(world, owner)
    await open_devices(owner, who)
    await world.consent(owner, who, "collect", TYPES)
    await world.consent(owner, who, "correct", TYPES)

    assert (await who.post("Observation", measure(owner, seen))).status_code == 201
    hidden, missing = [
        await who.post("Observation", measure(owner, {"id": i})) for i in (unseen["id"], unseen["id"][:-4] + "zzzz")
    ]
    assert (hidden.status_code, hidden.content) == (422, missing.content)
    for one, status in ((seen, 200), (unseen, 201)):
        identifier = one["identifier"][0]
        found = await who.post("Device", device(owner.patient), If_None_Exist=f"identifier={identifier['value']}")
        assert found.status_code == status, found.text
    answers = [await who.put(f"Device/{i}", device(owner.patient, id=i)) for i in (unseen["id"], unseen["id"][:-4] + "zzzz")]
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].content == answers[1].content
    assert (await who.put(f"Device/{seen['id']}", {**seen, "manufacturer": "M"})).status_code == 200


async def test_nobody_makes_a_device_seen_by_measures_of_their_own(world: World) -> None:
    owner = await world.patient()
    unseen = await owner.create(device(owner.patient))
    who = await _app(world, owner)
    for action in ("access", "collect", "correct"):
        await world.consent(owner, who, action, TYPES)
    path, reference = f"Device/{unseen['id']}", {"reference": f"Device/{unseen['id']}"}
    mine = await who.create(observation(owner.patient))
    identifier = {"identifier": unseen["identifier"][0]}
    tried = [
        await who.post("Observation", observation(owner.patient, device=reference)),
        await who.put(f"Observation/{mine['id']}", {**mine, "device": reference}),
        await who.send(
            "PATCH",
            f"Observation/{mine['id']}",
            json.dumps([{"op": "add", "path": "/device", "value": reference}]).encode(),
            Content_Type="application/json-patch+json",
        ),
        await who.post("Observation", observation(owner.patient, device=identifier)),
    ]
    assert [one.status_code for one in tried[:3]] == [422, 422, 422]
    assert (await who.get(path)).status_code == 404
    by_search = {"reference": f"Device?identifier={unseen['identifier'][0]['value']}"}
    entry = {"request": {"method": "POST", "url": "Observation"}, "resource": observation(owner.patient, device=by_search)}
    answer = await who.post("", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert answer.status_code == 412, answer.text
    assert (await who.get(path)).status_code == 404


async def test_an_app_writes_with_its_own_device_at_no_further_call(world: World) -> None:
    owner = await world.patient()
    who = await _app(world, owner)
    await world.consent(owner, who, "collect", TYPES)

    async def create() -> Any:
        answer = await who.post("Observation", measure(owner, sensor))
        assert answer.status_code == 201, answer.text
        return answer

    sensor = await who.create(device(owner.patient))
    without = await world.calls_of(create)
    await world.consent(owner, who, types=TYPES)
    assert await world.calls_of(create) == without
    assert (await who.get(f"Device/{sensor['id']}")).status_code == 200


async def test_hidden_and_absent_take_the_same_commands(world: World) -> None:
    owner = await world.patient()
    unseen = await owner.create(device(owner.patient))
    await owner.create(measure(owner, unseen, WEIGHT))
    who = await _service(world, owner)
    await open_devices(owner, who)
    absent = unseen["id"][:-4] + "zzzz"
    for path in ("", "/_history/1", "/_history"):
        hidden, missing = [await world.calls_of(lambda i=i, p=path: who.get(f"Device/{i}{p}")) for i in (unseen["id"], absent)]
        assert hidden == missing, path


PROVISIONS: list[dict[str, Any]] = [
    {},
    {"code": [concept(LOINC, GLUCOSE)]},
    {"code": [concept(LOINC, WEIGHT)]},
    {"dataPeriod": {"start": "2026-11-10"}},
    {"dataPeriod": {"end": "2026-11-10"}},
    {"code": [concept(LOINC, GLUCOSE)], "dataPeriod": {"end": "2026-11-10"}},
]


async def test_both_readers_agree_whatever_is_permitted(world: World) -> None:
    """What a search finds by MongoDB's reader, what is read by the one in memory, and what the visible measures name."""
    owner = await world.patient()
    devices = [await owner.create(device(owner.patient)) for _ in range(6)]
    cases = [(code, day) for code in (GLUCOSE, WEIGHT) for day in ("2026-11-05", "2026-11-15")]
    for n, sensor in enumerate(devices[:5]):
        for code, day in (cases[n % 4], cases[(n * 3) % 4]):
            await owner.create(measure(owner, sensor, code, effectiveDateTime=f"{day}T08:00:00Z"))
    seen: list[set[str]] = []
    for provision in PROVISIONS:
        who = await _service(world, owner)
        await owner.create(consent(owner, who, types=["Observation"], **provision))
        await owner.create(consent(owner, who, types=["Device"]))
        named = {
            o["device"]["reference"].removeprefix("Device/") for o in await who.search(f"Observation?patient={owner.patient}")
        }
        found = ids(await who.search(f"Device?patient={owner.patient}"))
        read = {one["id"] for one in devices if (await who.get(f"Device/{one['id']}")).status_code == 200}
        assert named == found == read, json.dumps(provision)
        seen.append(found)
    assert len({frozenset(one) for one in seen}) > 3
    assert all(devices[5]["id"] not in one for one in seen)
