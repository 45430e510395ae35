"""Conditional create: what is there already is answered, never written, however many ask at once."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from gateway.store import conditions
from tests.world import (
    READINGS,
    Actor,
    World,
    bundle,
    device,
    document,
    entry,
    expression,
    issues,
    observation,
    patient,
    unique,
)

SYSTEM = "urn:oid:1.2.3.9"


def known_as(token: str) -> list[dict[str, str]]:
    return [{"system": SYSTEM, "value": token}]


# A type with a unique key, and one without, where only the order of commits keeps two from being made.
RESOURCES = {"Device": device, "DocumentReference": document}


@pytest.mark.requirement("CORE-04")
@pytest.mark.parametrize("type_name", RESOURCES)
async def test_none_is_created_one_is_answered_and_several_are_refused(world: World, type_name: str) -> None:
    owner = await world.patient()
    token = unique("c")
    resource = RESOURCES[type_name](owner.patient, identifier=known_as(token))
    condition = {"If-None-Exist": f"identifier={SYSTEM}|{token}"}

    created = await owner.post(type_name, resource, **condition)
    assert created.status_code == 201
    before = await world.fingerprint()
    matched = await owner.post(type_name, resource | {"language": "fr"}, **condition)
    assert (matched.status_code, matched.headers["Location"]) == (200, created.headers["Location"])
    assert matched.headers["ETag"] == 'W/"1"'
    assert matched.headers["Last-Modified"] == created.headers["Last-Modified"]
    assert await world.fingerprint() == before

    await owner.create(resource | {"identifier": [*known_as(unique("first")), *known_as(token)]})
    before = await world.fingerprint()
    refused = await owner.post(type_name, resource, **condition)
    assert (refused.status_code, issues(refused)[0]["code"]) == (412, "multiple-matches")
    assert await world.fingerprint() == before


@pytest.mark.requirement("CORE-04")
async def test_a_match_can_be_returned(world: World) -> None:
    owner = await world.patient()
    token = unique("c")
    kept = await owner.create(document(owner.patient, identifier=known_as(token)))
    headers = {"If-None-Exist": f"identifier={SYSTEM}|{token}", "Prefer": "return=representation"}
    answer = await owner.post("DocumentReference", document(owner.patient), **headers)
    assert (answer.status_code, answer.json()) == (200, kept)


@pytest.mark.requirement("CORE-04")
async def test_a_match_in_a_bundle_is_the_same(world: World) -> None:
    owner = await world.patient()
    token = unique("c")
    kept = [await owner.create(document(owner.patient, identifier=known_as(t))) for t in (token, token + "2", token + "2")]
    one = entry("POST", "DocumentReference", document(owner.patient), ifNoneExist=f"identifier={SYSTEM}|{token}")
    many = entry("POST", "DocumentReference", document(owner.patient), ifNoneExist=f"identifier={SYSTEM}|{token}2")
    before = await world.fingerprint()
    answer = await owner.post("", bundle("transaction", one))
    assert answer.json()["entry"][0]["response"]["location"] == f"DocumentReference/{kept[0]['id']}/_history/1"
    refused = await owner.post("", bundle("transaction", one, many))
    assert (refused.status_code, expression(refused)) == (412, "Bundle.entry[1].request.ifNoneExist")
    batch = await owner.post("", bundle("batch", one, many))
    assert [e["response"]["status"][:3] for e in batch.json()["entry"]] == ["200", "412"]
    assert await world.fingerprint() == before


@pytest.mark.requirement("CORE-04")
@pytest.mark.parametrize("condition", ["", "_count=1", "colour=red", "identifier", "date=yesterday", "%ff=1"])
async def test_a_condition_that_says_nothing_or_is_not_understood_is_refused(world: World, condition: str) -> None:
    owner = await world.patient()
    before = await world.fingerprint()
    answer = await owner.post("DocumentReference", document(owner.patient), **{"If-None-Exist": condition})
    assert answer.status_code == 400, answer.text
    assert await world.fingerprint() == before


@pytest.mark.requirement("CORE-04")
async def test_what_was_deleted_meets_no_condition(world: World) -> None:
    owner = await world.patient()
    token = unique("c")
    paper = document(owner.patient, identifier=known_as(token))
    kept = await owner.create(paper)
    gone = await owner.put(f"DocumentReference/{kept['id']}", {**kept, "status": "entered-in-error"})
    assert gone.status_code == 200
    again = await owner.post("DocumentReference", paper, **{"If-None-Exist": f"identifier={SYSTEM}|{token}"})
    assert again.status_code == 201
    assert again.json()["id"] != kept["id"]


@pytest.mark.requirement("CORE-04")
async def test_a_condition_finds_nothing_in_another_record(world: World) -> None:
    """Also where the writer may see both: what it found there could be neither answered nor referred to."""
    token = unique("c")
    doctor = await world.professional()
    owners = [await world.patient() for _ in range(2)]
    for owner in owners:
        await world.consent(owner, doctor)
    sensors = [
        entry(
            "POST",
            "Device",
            device(owner.patient, identifier=known_as(token)),
            f"urn:uuid:8b8f0d4c-8a38-4a8e-8a1e-8b5e4a6f000{n}",
            ifNoneExist=f"identifier={SYSTEM}|{token}",
        )
        for n, owner in enumerate(owners)
    ]
    answer = await doctor.post("", bundle("transaction", *sensors))
    assert [e["response"]["status"] for e in answer.json()["entry"]] == ["201 Created"] * 2
    again = await doctor.post("", bundle("transaction", *reversed(sensors)))
    places = [[e["response"]["location"] for e in found.json()["entry"]] for found in (answer, again)]
    assert places[0] == places[1][::-1]


async def test_a_condition_tells_nobody_what_they_may_not_see(world: World) -> None:
    owner, stranger = await world.patient(), await world.professional()
    token = unique("c")
    await owner.create(document(owner.patient, identifier=known_as(token)))
    for asked in (token, unique("none")):
        answer = await stranger.post(
            "DocumentReference",
            document(owner.patient, identifier=known_as(unique())),
            **{"If-None-Exist": f"identifier={SYSTEM}|{asked}"},
        )
        assert answer.status_code == 201, answer.text


async def test_the_scope_to_search_is_needed_to_ask_a_condition(world: World) -> None:
    owner = await world.patient()
    narrow = await world.patient_actor(owner.patient, "patient/DocumentReference.c")
    answer = await narrow.post("DocumentReference", document(owner.patient), **{"If-None-Exist": "status=current"})
    assert answer.status_code == 403
    assert "DocumentReference.s" in answer.text


async def _race(
    actors: list[Actor], resource: dict[str, Any], condition: str | None, many: int = 64
) -> Counter[tuple[int, str]]:
    headers = {"If-None-Exist": condition} if condition else {}
    type_name = str(resource["resourceType"])
    asked = (actors[n % len(actors)].post(type_name, resource, **headers) for n in range(many))
    answers = await asyncio.gather(*asked)
    assert {a.status_code for a in answers} <= {200, 201}, Counter(a.text for a in answers if a.status_code >= 300)
    return Counter((a.status_code, a.headers["Location"]) for a in answers)


@pytest.mark.requirement("CORE-04", "REL-002")
@pytest.mark.parametrize("type_name", ["Device", "DocumentReference", "List"])
async def test_64_equal_conditional_creates_at_two_gateways_make_one(world: World, peer: World, type_name: str) -> None:
    owner = await world.patient()
    token = unique("race")
    resource: dict[str, Any] = {
        "Device": device(owner.patient, identifier=known_as(token)),
        "DocumentReference": document(owner.patient, identifier=known_as(token)),
        "List": {
            "resourceType": "List",
            "status": "current",
            "mode": "working",
            "title": token,
            "subject": {"reference": f"Patient/{owner.patient}"},
        },
    }[type_name]
    condition = f"title={token}" if type_name == "List" else f"identifier={SYSTEM}|{token}"
    found = await _race([owner, peer.bearer(owner)], resource, condition)
    assert sum(found.values()) == 64
    assert sum(n for (status, _), n in found.items() if status == 201) == 1
    assert len({location for _, location in found}) == 1
    assert len(await world.stored(type_name, patient=owner.patient)) == 1


@pytest.mark.requirement("CORE-04", "REL-002")
@pytest.mark.parametrize("with_key", [True, False])
async def test_64_equal_conditional_creates_of_a_patient_make_one(world: World, peer: World, with_key: bool) -> None:
    """A Patient has no record yet whose head could keep two from being made."""
    family, number = unique("Family"), unique("number")
    system = {"system": "urn:x"} if with_key else {}  # without one it is no business key
    resource = patient(name=[{"family": family}], identifier=[{**system, "value": number}])
    found = await _race([world.operator, peer.bearer(world.operator)], resource, f"identifier={number}")
    assert sum(n for (status, _), n in found.items() if status == 201) == 1
    assert len({location for _, location in found}) == 1
    assert len(await world.stored("Patient", **{"search.family": {"$elemMatch": {"$regex": family}}})) == 1


@pytest.mark.requirement("REL-002")
@pytest.mark.parametrize("type_name", ["Device", "Observation"])
async def test_64_equal_creates_with_one_business_identifier_make_one(world: World, peer: World, type_name: str) -> None:
    owner = await world.patient()
    make = {"Device": device, "Observation": observation}[type_name]
    resource = make(owner.patient, identifier=known_as(unique("race")))
    found = await _race([owner, peer.bearer(owner)], resource, None)
    assert sum(n for (status, _), n in found.items() if status == 201) == 1
    assert len({location for _, location in found}) == 1
    assert len(await world.stored(type_name, patient=owner.patient)) == 1


@pytest.mark.requirement("REL-002")
async def test_bundles_that_share_a_sensor_make_it_once(world: World, peer: World) -> None:
    owner = await world.patient()
    token = unique("race")
    actors = [owner, peer.bearer(owner)]
    full_url = "urn:uuid:8b8f0d4c-8a38-4a8e-8a1e-8b5e4a6f0001"
    sensor = entry(
        "POST",
        "Device",
        device(owner.patient, identifier=known_as(token)),
        full_url,
        ifNoneExist=f"identifier={SYSTEM}|{token}",
    )

    async def push(n: int) -> httpx.Response:
        reading = observation(owner.patient, device={"reference": full_url})
        return await actors[n % 2].post("", bundle("transaction", entry("POST", "Observation", reading), sensor))

    answers = await asyncio.gather(*(push(n) for n in range(16)))
    assert {a.status_code for a in answers} == {200}
    assert len({a.json()["entry"][1]["response"]["location"] for a in answers}) == 1
    devices = {str(r["search"]["device"]) for r in await world.stored("Observation", patient=owner.patient)}
    assert len(devices) == 1
    assert len(await world.stored("Observation", patient=owner.patient)) == 16


@pytest.mark.parametrize("together", [True, False])
async def test_each_condition_of_a_bundle_finds_its_own(world: World, monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    """Asked together, or one by one where too much meets them."""
    monkeypatch.setattr(conditions, "_MANY", 1_000 if together else 2)
    owner = await world.patient()
    tokens = [unique("c") for _ in range(4)]
    papers = [document(owner.patient, identifier=known_as(t), date=f"2026-0{n}-01T00:00:00Z") for n, t in enumerate(tokens, 1)]
    kept = [await owner.create(paper) for paper in papers]
    asked = {
        f"identifier={SYSTEM}|{tokens[2]}": kept[2],
        "date=2026-02-01T00:00:00Z": kept[1],
        f"identifier={SYSTEM}|{unique('none')}": None,
        f"_id={kept[0]['id']}": kept[0],
        "date=gt2026-03-15&status=current": kept[3],
        "date=gt2027": None,
    }
    entries = [entry("POST", "DocumentReference", document(owner.patient), ifNoneExist=query) for query in asked]
    answer = await owner.post("", bundle("transaction", *entries))
    assert answer.status_code == 200, answer.text
    found = [e["response"]["location"].split("/")[1] for e in answer.json()["entry"]]
    for identifier, expected in zip(found, asked.values(), strict=True):
        assert (expected is None) or identifier == expected["id"]
    statuses = [e["response"]["status"][:3] for e in answer.json()["entry"]]
    assert statuses == ["200" if expected else "201" for expected in asked.values()]


async def test_a_day_of_conditional_creates_takes_a_constant_number_of_database_calls(world: World) -> None:
    owner = await world.patient()
    readings = [observation(owner.patient) for _ in range(100)]
    conditions_ = [f"identifier={READINGS}|{reading['identifier'][0]['value']}" for reading in readings]
    pairs = zip(readings, conditions_, strict=True)
    asked = bundle("transaction", *(entry("POST", "Observation", one, ifNoneExist=query) for one, query in pairs))
    for status in ("201 Created", "200 OK"):
        before = world.gateway.mongo.calls
        answer = await owner.post("", asked)
        assert {e["response"]["status"] for e in answer.json()["entry"]} == {status}
        assert world.gateway.mongo.calls - before < 20  # those of the jobs beside it included
