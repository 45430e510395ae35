"""What is sent again is known again: the same answer, nothing written, and what was deleted stays deleted."""

import json
from typing import Any

import pytest

from tests.world import Actor, World, bundle, device, entry, expression, issues, observation, unique

Resource = dict[str, Any]
UUID = "urn:uuid:8b8f0d4c-8a38-4a8e-8a1e-8b5e4a6f0001"


def day(owner: Actor, full_url: str = UUID, readings: int = 288) -> Resource:
    """A day as apps send it: a sensor, made unless it is there, and its readings."""
    sensor = device(owner.patient, identifier=[{"system": "urn:oid:1.2.3.9", "value": f"{owner.patient}-sensor"}])
    condition = f"identifier=urn:oid:1.2.3.9|{owner.patient}-sensor"
    return bundle(
        "transaction",
        entry("POST", "Device", sensor, full_url, ifNoneExist=condition),
        *(
            entry(
                "POST",
                "Observation",
                observation(
                    owner.patient,
                    identifier=[{"system": "https://app.example/readings", "value": f"{owner.patient}-{n}"}],
                    device={"reference": full_url},
                ),
            )
            for n in range(readings)
        ),
    )


def answers(found: Any) -> list[tuple[str, str]]:
    assert found.status_code == 200, found.text
    return [(e["response"]["status"][:3], e["response"]["location"]) for e in found.json()["entry"]]


@pytest.mark.requirement("CGM-03", "REL-002")
async def test_a_day_sent_again_is_answered_alike_and_writes_nothing_but_audit(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    await world.consent(owner, app, "collect", ["Observation", "Device"])
    asked = day(owner)
    first = answers(await app.post("", asked))
    assert {status for status, _ in first} == {"201"}
    before, audited = await world.fingerprint(), await world.stored("AuditEvent", patient=owner.patient)
    calls = world.gateway.mongo.calls
    again = answers(await app.post("", asked))
    assert again == [("200", location) for _, location in first]
    assert await world.fingerprint() == before
    assert world.gateway.mongo.calls - calls < 20  # those of the jobs beside it included
    events = await world.stored("AuditEvent", patient=owner.patient)
    assert len(events) == len(audited) + 2  # one for each type


@pytest.mark.requirement("REL-002")
async def test_a_day_sent_again_under_new_full_urls_is_known_too(world: World) -> None:
    owner = await world.patient()
    first = answers(await owner.post("", day(owner, readings=20)))
    before = await world.fingerprint()
    again = answers(await owner.post("", day(owner, "urn:uuid:8b8f0d4c-8a38-4a8e-8a1e-8b5e4a6f0099", readings=20)))
    assert again == [("200", location) for _, location in first]
    assert await world.fingerprint() == before


@pytest.mark.requirement("REL-002")
async def test_what_is_new_in_a_day_sent_again_is_added(world: World) -> None:
    owner = await world.patient()
    await owner.post("", day(owner, readings=5))
    again = answers(await owner.post("", day(owner, readings=8)))
    assert [status for status, _ in again] == ["200"] * 6 + ["201"] * 3
    assert len(await world.stored("Observation", patient=owner.patient)) == 8


SPELLINGS = {
    "the same bytes": lambda r: json.dumps(r),
    "other white space": lambda r: json.dumps(r, indent=2),
    "another order of keys": lambda r: json.dumps(dict(reversed(list(r.items())))),
    "escapes": lambda r: json.dumps(r).replace("/", "\\/"),
    "an id and a version of its own": lambda r: json.dumps(r | {"id": "mine", "meta": {"versionId": "7"}}),
}


@pytest.mark.requirement("REL-002")
@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("way", ["single", "transaction", "batch"])
async def test_it_is_the_content_that_is_known_not_the_spelling(world: World, name: str, way: str) -> None:
    owner = await world.patient()
    reading = observation(owner.patient)
    made = await owner.create(reading)
    before = await world.fingerprint()
    body = SPELLINGS[name](reading)
    if way == "single":
        answer = await owner.post("Observation", body.encode())
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["Location"].endswith(f"Observation/{made['id']}/_history/1")
    else:
        asked = json.dumps(bundle(way, entry("POST", "Observation", {"x": 1}))).replace('{"x": 1}', body)
        assert answers(await owner.post("", asked.encode())) == [("200", f"Observation/{made['id']}/_history/1")]
    assert await world.fingerprint() == before


async def test_what_is_known_is_returned_where_that_is_preferred(world: World) -> None:
    owner = await world.patient()
    reading = observation(owner.patient)
    made = await owner.create(reading)
    answer = await owner.post("Observation", reading, Prefer="return=representation")
    assert (answer.status_code, answer.json()) == (200, made)


@pytest.mark.requirement("REL-002")
@pytest.mark.parametrize("way", ["single", "transaction", "batch"])
@pytest.mark.parametrize("changed", [False, True])
async def test_a_deleted_reading_stays_deleted_when_it_is_sent_again(world: World, way: str, changed: bool) -> None:
    """It was received once and is answered so; where it leads says that it is gone."""
    owner = await world.patient()
    reading = observation(owner.patient)
    made = await owner.create(reading)
    assert (await owner.delete(f"Observation/{made['id']}")).status_code == 204
    before = await world.fingerprint()
    if changed:
        reading["status"] = "amended"
    if way == "single":
        answer = await owner.post("Observation", reading)
        assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"2"')
        assert answer.headers["Location"].endswith(f"Observation/{made['id']}/_history/2")
    else:
        found = answers(await owner.post("", bundle(way, entry("POST", "Observation", reading))))
        assert found == [("200", f"Observation/{made['id']}/_history/2")]
    assert await world.fingerprint() == before
    assert (await owner.get(f"Observation/{made['id']}")).status_code == 410
    assert await owner.search(f"Observation?patient={owner.patient}") == []


@pytest.mark.requirement("REL-002")
async def test_one_deleted_reading_of_a_day_stays_deleted_when_the_day_is_sent_again(world: World) -> None:
    owner = await world.patient()
    asked = day(owner, readings=10)
    first = answers(await owner.post("", asked))
    gone = first[4][1].partition("/_history")[0]
    await owner.delete(gone)
    before = await world.fingerprint()
    again = answers(await owner.post("", asked))
    assert [status for status, _ in again] == ["200"] * 11
    assert again[4][1] == f"{gone}/_history/2"
    assert await world.fingerprint() == before
    assert len(await owner.search(f"Observation?patient={owner.patient}")) == 9


@pytest.mark.requirement("REL-002")
async def test_a_condition_does_not_bring_a_deleted_reading_back(world: World) -> None:
    owner = await world.patient()
    reading = observation(owner.patient)
    made = await owner.create(reading)
    await owner.delete(f"Observation/{made['id']}")
    token = f"{reading['identifier'][0]['system']}|{reading['identifier'][0]['value']}"
    answer = await owner.post("Observation", reading, **{"If-None-Exist": f"identifier={token}"})
    assert answer.status_code == 200
    assert len(await world.stored("Observation", patient=owner.patient)) == 1


@pytest.mark.requirement("REL-002")
@pytest.mark.parametrize("way", ["single", "transaction"])
async def test_a_corrected_reading_stays_corrected_when_the_first_one_is_sent_again(world: World, way: str) -> None:
    owner = await world.patient()
    reading = observation(owner.patient)
    made = await owner.create(reading)
    corrected = (await owner.put(f"Observation/{made['id']}", made | {"status": "corrected"})).json()
    before = await world.fingerprint()
    for body in (reading, {k: v for k, v in corrected.items() if k not in ("id", "meta")}):
        if way == "single":
            answer = await owner.post("Observation", body)
            assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"2"')
        else:
            found = answers(await owner.post("", bundle(way, entry("POST", "Observation", body))))
            assert found == [("200", f"Observation/{made['id']}/_history/2")]
    assert await world.fingerprint() == before


@pytest.mark.requirement("REL-002")
async def test_other_content_under_a_known_identifier_is_refused(world: World) -> None:
    owner = await world.patient()
    reading = observation(owner.patient)
    await owner.create(reading)
    other = reading | {"valueQuantity": reading["valueQuantity"] | {"value": 105}}
    before = await world.fingerprint()
    single = await owner.post("Observation", other)
    assert (single.status_code, issues(single)[0]["code"], expression(single)) == (409, "duplicate", "Observation.identifier")
    fresh = entry("POST", "Observation", observation(owner.patient))
    whole = await owner.post("", bundle("transaction", fresh, entry("POST", "Observation", other)))
    assert (whole.status_code, expression(whole)) == (409, "Bundle.entry[1].resource.identifier")
    assert await world.fingerprint() == before
    batch = await owner.post("", bundle("batch", fresh, entry("POST", "Observation", other)))
    assert [e["response"]["status"][:3] for e in batch.json()["entry"]] == ["201", "409"]


@pytest.mark.requirement("REL-002")
async def test_a_number_with_other_digits_is_other_content(world: World) -> None:
    owner = await world.patient()
    body = json.dumps(observation(owner.patient)).replace('"value": 104', '"value": 5.10')
    assert (await owner.post("Observation", body.encode())).status_code == 201
    answer = await owner.post("Observation", body.replace("5.10", "5.1").encode())
    assert answer.status_code == 409


@pytest.mark.requirement("REL-002")
async def test_without_consent_nothing_is_known(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    given = await world.consent(owner, app, "collect", ["Observation"])
    reading = observation(owner.patient)
    await app.create(reading)
    await world.revoke(owner, given)
    answers_ = [await app.post("Observation", body) for body in (reading, observation(owner.patient))]
    assert {a.status_code for a in answers_} == {403}
    assert answers_[0].text == answers_[1].text


@pytest.mark.requirement("REL-002")
@pytest.mark.parametrize("way", ["same bytes", "same content", "other content"])
async def test_one_identifier_twice_in_a_bundle(world: World, way: str) -> None:
    owner = await world.patient()
    reading = observation(owner.patient)
    second = {
        "same bytes": reading,
        "same content": dict(reversed(list(reading.items()))),
        "other content": reading | {"status": "amended"},
    }[way]
    before = await world.fingerprint()
    answer = await owner.post(
        "", bundle("transaction", entry("POST", "Observation", reading), entry("POST", "Observation", second))
    )
    if way == "other content":
        assert (answer.status_code, expression(answer)) == (409, "Bundle.entry[1].resource.identifier")
        assert await world.fingerprint() == before
        return
    found = answers(answer)
    assert [status for status, _ in found] == ["201", "200"]
    assert found[0][1] == found[1][1]
    assert len(await world.stored("Observation", patient=owner.patient)) == 1


async def test_readings_without_identifier_are_never_the_same(world: World) -> None:
    owner = await world.patient()
    reading = {k: v for k, v in observation(owner.patient).items() if k != "identifier"}
    without_system = observation(owner.patient, identifier=[{"value": unique()}])
    for body in (reading, without_system):
        made = [await owner.create(body) for _ in range(2)]
        assert made[0]["id"] != made[1]["id"]
