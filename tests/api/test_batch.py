"""A batch Bundle: each entry for itself, in the order asked, with rights and an audit event of its own."""

from typing import Any

import pytest

from tests.world import BASE, Actor, World, bundle, consent, device, document, entry, observation, unique

UUID = "urn:uuid:8b8f0d4c-8a38-4a8e-8a1e-8b5e4a6f0001"


async def send(actor: Actor, *entries: dict[str, Any], kind: str = "batch", **headers: str) -> list[dict[str, Any]]:
    answer = await actor.post("", bundle(kind, *entries), **headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["type"] == f"{kind}-response"
    return list(answer.json().get("entry", ()))


def statuses(found: list[dict[str, Any]]) -> list[str]:
    return [one["response"]["status"].split()[0] for one in found]


@pytest.mark.requirement("BUN-07")
async def test_each_entry_has_its_own_answer_in_order(world: World) -> None:
    owner = await world.patient()
    kept = await owner.create(observation(owner.patient))
    gone = await owner.create(observation(owner.patient))
    assert (await owner.delete(f"Observation/{gone['id']}")).status_code == 204
    new = observation(owner.patient)
    found = await send(
        owner,
        entry("GET", f"Observation/{kept['id']}"),
        entry("POST", "Observation", observation(owner.patient, colour="red")),
        entry("GET", f"Observation/{gone['id']}"),
        entry("POST", "Observation", new),
        entry("GET", "Observation/000-none"),
        entry("PUT", f"Observation/{kept['id']}", kept, ifMatch='W/"9"'),
        entry("PUT", f"Observation/{kept['id']}", kept | {"status": "amended"}, ifMatch='W/"1"'),
        entry("GET", f"Observation/{kept['id']}", ifNoneMatch='W/"2"'),
        entry("GET", "Observation?colour=red"),
        entry("DELETE", f"Observation/{kept['id']}"),
    )
    assert statuses(found) == ["200", "400", "410", "201", "404", "412", "200", "304", "400", "204"]
    assert found[0]["resource"] == kept
    outcomes = [one["response"].get("outcome", {}).get("issue", [{}])[0] for one in found]
    assert outcomes[1]["expression"] == ["Bundle.entry[1].resource.colour"]
    assert outcomes[2]["expression"] == ["Bundle.entry[2]"]
    assert outcomes[5]["expression"] == ["Bundle.entry[5].resource"]
    assert outcomes[8]["expression"] == ["Bundle.entry[8].request.url"]
    assert "colour" in outcomes[8]["diagnostics"]
    assert len(await world.stored("Observation", patient=owner.patient, deleted={"$exists": False})) == 1


@pytest.mark.requirement("BUN-07")
async def test_a_bad_entry_stores_nothing_and_stops_nobody(world: World) -> None:
    owner = await world.patient()
    good = [entry("POST", "Observation", observation(owner.patient)) for _ in range(3)]
    found = await send(owner, good[0], entry("POST", "Observation", observation(owner.patient, status="none")), *good[1:])
    assert statuses(found) == ["201", "422", "201", "201"]
    assert len(await owner.search("Observation")) == 3


@pytest.mark.requirement("BUN-07", "BUN-08")
@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_own_absolute_addresses_are_served(world: World, kind: str) -> None:
    owner = await world.patient()
    paper = await owner.create(document(owner.patient))
    found = await send(
        owner,
        entry("GET", f"{BASE}/DocumentReference/{paper['id']}"),
        entry("GET", f"{BASE}/DocumentReference?patient={owner.patient}"),
        entry("GET", f"/DocumentReference/{paper['id']}"),
        entry("GET", f"{BASE}?_type=DocumentReference,Device&patient={owner.patient}"),
        entry("POST", f"{BASE}/Observation", observation(owner.patient)),
        kind=kind,
    )
    assert statuses(found) == ["200", "200", "200", "200", "201"]
    for searched in (found[1], found[3]):
        assert [one["resource"] for one in searched["resource"]["entry"]] == [paper]


@pytest.mark.requirement("BUN-01", "BUN-07")
@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_head_answers_like_get_without_the_resource_and_leaves_the_same_trace(world: World, kind: str) -> None:
    owner = await world.patient()
    kept = await owner.create(observation(owner.patient))
    address = f"Observation/{kept['id']}"
    paths = [address, f"{address}/_history/1", f"{address}/_history?_count=1", f"Observation?_id={kept['id']}"]
    gets = await send(owner, *(entry("GET", path) for path in paths), kind=kind)
    heads = await send(owner, *(entry("HEAD", path) for path in paths), kind=kind)
    assert all("resource" in got for got in gets)
    assert heads == [{"response": got["response"]} for got in gets]
    assert heads[0]["response"] == {"status": "200 OK", "etag": 'W/"1"', "lastModified": kept["meta"]["lastUpdated"]}
    for interaction in ("read", "vread", "history-instance", "search-type"):
        events = await world.stored("AuditEvent", **{"patient": owner.patient, "event.interaction": interaction})
        assert len(events) == 2, interaction


async def test_head_says_of_what_is_not_there_or_known_what_get_does(world: World) -> None:
    owner, other = await world.patient(), await world.patient()
    kept, hidden = await owner.create(observation(owner.patient)), await other.create(observation(other.patient))
    known = entry("HEAD", f"Observation/{kept['id']}", ifNoneMatch='W/"1"')
    found, *nothing = [await send(owner, known, entry("HEAD", f"Observation/{i}")) for i in (hidden["id"], "abc-000")]
    assert statuses(found) == ["304", "404"]
    assert nothing == [found]


async def test_a_history_in_a_bundle_is_paged(world: World) -> None:
    owner = await world.patient()
    kept = await owner.create(observation(owner.patient))
    await owner.put(f"Observation/{kept['id']}", kept | {"status": "amended"})
    path = f"Observation/{kept['id']}/_history?_count=1"
    (found,) = await send(owner, entry("GET", path))
    assert found["resource"] == (await owner.get(path)).json()
    (refused,) = await send(owner, entry("GET", f"Observation/{kept['id']}/_history?_colour=red"))
    assert refused["response"]["status"].startswith("400")


@pytest.mark.requirement("BUN-03")
async def test_entries_of_a_batch_do_not_refer_to_each_other(world: World) -> None:
    owner = await world.patient()
    found = await send(
        owner,
        entry("POST", "Device", device(owner.patient), UUID),
        entry("POST", "Observation", observation(owner.patient, device={"reference": UUID})),
    )
    assert statuses(found) == ["201", "422"]


@pytest.mark.requirement("BUN-11")
async def test_rights_are_those_of_each_entry(world: World) -> None:
    mine, other = await world.patient(), await world.patient()
    theirs = await other.create(observation(other.patient))
    found = await send(
        mine,
        entry("GET", f"Observation/{theirs['id']}"),
        entry("GET", f"Observation/{theirs['id'][:4]}none"),
        entry("GET", f"Observation/{theirs['id']}/_history"),
        entry("GET", f"Observation?patient={other.patient}"),
        entry("POST", "Observation", observation(other.patient)),
        entry("POST", "Observation", observation(mine.patient)),
        entry("PUT", f"Observation/{theirs['id']}", theirs),
        entry("DELETE", f"Observation/{theirs['id']}"),
        entry("POST", "Consent", consent(other, mine)),
        entry("GET", "Organization?name=x"),
    )
    assert statuses(found) == ["404", "404", "404", "200", "422", "201", "405", "404", "422", "200"]
    assert (
        found[0]["response"]["outcome"]["issue"][0]["diagnostics"] == found[1]["response"]["outcome"]["issue"][0]["diagnostics"]
    )
    assert found[3]["resource"].get("entry", []) == []
    assert (await other.get(f"Observation/{theirs['id']}")).json() == theirs


@pytest.mark.requirement("BUN-11")
async def test_scopes_and_the_writers_table_hold_for_each_entry(world: World) -> None:
    owner = await world.patient()
    narrow = await world.patient_actor(owner.patient, "patient/Observation.cr patient/Patient.r")
    kept = await owner.create(observation(owner.patient))
    found = await send(
        narrow,
        entry("POST", "Observation", observation(owner.patient)),
        entry("PUT", f"Observation/{kept['id']}", kept),
        entry("DELETE", f"Observation/{kept['id']}"),
        entry("GET", f"Observation?patient={owner.patient}"),
        entry("POST", "Device", device(owner.patient)),
        entry("GET", f"Patient/{owner.patient}"),
        entry("POST", "AuditEvent", {"resourceType": "AuditEvent"}),
    )
    assert statuses(found) == ["201", "403", "403", "403", "403", "200", "405"]


@pytest.mark.requirement("BUN-11")
async def test_rights_over_one_record_are_none_over_the_next(world: World) -> None:
    shared, hidden = await world.patient(), await world.patient()
    doctor = await world.professional()
    await world.consent(shared, doctor)
    readings = [await owner.create(observation(owner.patient)) for owner in (shared, hidden)]
    found = await send(doctor, *(entry("GET", f"Observation/{r['id']}") for r in (*readings, readings[0])))
    assert statuses(found) == ["200", "404", "200"]


@pytest.mark.requirement("BUN-11")
async def test_each_entry_leaves_its_own_trace_in_the_record_it_is_about(world: World) -> None:
    shared, hidden = await world.patient(), await world.patient()
    doctor = await world.professional()
    await world.consent(shared, doctor)
    readings = [await owner.create(observation(owner.patient)) for owner in (shared, hidden)]
    before = [len(await world.stored("AuditEvent", patient=owner.patient)) for owner in (shared, hidden)]
    await send(doctor, *(entry("GET", f"Observation/{r['id']}") for r in readings))
    events = [await world.stored("AuditEvent", patient=owner.patient) for owner in (shared, hidden)]
    assert [len(found) - old for found, old in zip(events, before, strict=True)] == [1, 1]
    outcomes = [max(found, key=lambda e: e["n"])["event"] for found in events]
    assert outcomes[0] != outcomes[1]


async def test_a_batch_without_entries_is_answered(world: World) -> None:
    owner = await world.patient()
    answer = await owner.post("", {"resourceType": "Bundle", "type": "batch"})
    assert (answer.status_code, answer.json()) == (200, {"resourceType": "Bundle", "type": "batch-response"})


async def test_entries_return_what_is_preferred(world: World) -> None:
    owner = await world.patient()
    found = await send(owner, entry("POST", "Observation", observation(owner.patient)), Prefer="return=representation")
    assert found[0]["resource"]["subject"] == {"reference": f"Patient/{owner.patient}"}
    assert found[0]["fullUrl"] == f"{BASE}/Observation/{found[0]['resource']['id']}"
    quiet = await send(owner, entry("POST", "Observation", observation(owner.patient)), Prefer="return=minimal")
    assert "resource" not in quiet[0]


async def test_a_read_can_be_conditional_on_the_time(world: World) -> None:
    owner = await world.patient()
    kept = await owner.create(observation(owner.patient))
    address = f"Observation/{kept['id']}"
    found = await send(
        owner,
        entry("GET", address, ifModifiedSince=kept["meta"]["lastUpdated"]),
        entry("GET", address, ifModifiedSince="2020-01-01T00:00:00Z"),
    )
    assert statuses(found) == ["304", "200"]


async def test_lenient_handling_reaches_the_searches_of_a_batch(world: World) -> None:
    owner = await world.patient()
    search = entry("GET", f"Observation?patient={owner.patient}&colour=red")
    assert statuses(await send(owner, search)) == ["400"]
    assert statuses(await send(owner, search, Prefer="handling=lenient")) == ["200"]


@pytest.mark.requirement("BUN-07")
async def test_a_batch_of_conditional_creates_answers_each(world: World) -> None:
    owner = await world.patient()
    token = unique("sensor")
    sensor = device(owner.patient, identifier=[{"system": "urn:oid:1.2.3.9", "value": token}])
    one = entry("POST", "Device", sensor, ifNoneExist=f"identifier=urn:oid:1.2.3.9|{token}")
    found = await send(owner, one, one, entry("POST", "Device", sensor, ifNoneExist="_count=1"))
    assert statuses(found) == ["201", "200", "400"]
    assert found[0]["response"]["location"] == found[1]["response"]["location"]
    assert found[2]["response"]["outcome"]["issue"][0]["expression"] == ["Bundle.entry[2].request.ifNoneExist"]


@pytest.mark.requirement("BUN-07")
@pytest.mark.parametrize("conditional", [False, True])
async def test_entries_that_say_the_same_are_answered_in_their_order(world: World, conditional: bool) -> None:
    owner = await world.patient()
    readings = [observation(owner.patient) for _ in range(10)]
    entries = []
    for reading in readings:
        token = f"{reading['identifier'][0]['system']}|{reading['identifier'][0]['value']}"
        entries.append(entry("POST", "Observation", reading, **({"ifNoneExist": f"identifier={token}"} if conditional else {})))
    found = await send(owner, *entries, *entries)
    assert statuses(found) == ["201"] * 10 + ["200"] * 10
    locations = [one["response"]["location"] for one in found]
    assert locations[:10] == locations[10:]


async def test_creates_of_a_batch_share_calls_to_the_database(world: World) -> None:
    owner = await world.patient()
    entries = [entry("POST", "Observation", observation(owner.patient)) for _ in range(100)]
    before = world.gateway.mongo.calls
    assert statuses(await send(owner, *entries)) == ["201"] * 100
    assert world.gateway.mongo.calls - before < 50


async def test_a_client_finds_in_a_batch_what_it_wrote_before(world: World) -> None:
    owner = await world.patient()
    kept = await owner.create(observation(owner.patient))
    address = f"Observation/{kept['id']}"
    found = await send(
        owner,
        entry("PUT", address, kept | {"status": "amended"}),
        entry("GET", address),
        entry("DELETE", address),
        entry("GET", address),
    )
    assert statuses(found) == ["200", "200", "204", "410"]
    assert found[1]["resource"]["status"] == "amended"
