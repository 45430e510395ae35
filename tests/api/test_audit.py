"""Every interaction, answered or refused, leaves an AuditEvent in each record it touched, which the patient alone can read."""

import json
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from tests.world import Actor, World, bundle, concept, document, entry, issues, observation, patient, unique

RESTFUL = "http://hl7.org/fhir/restful-interaction"


async def events(owner: Actor, request_id: str) -> list[dict[str, Any]]:
    """What the patient finds in their log of one request, oldest first."""
    found = await owner.search("AuditEvent?_sort=date&_count=200")
    return [e for e in found if e["entity"][0]["what"]["identifier"]["value"] == request_id]


async def only(owner: Actor, request_id: str) -> dict[str, Any]:
    found = await events(owner, request_id)
    assert len(found) == 1, found
    return found[0]


def references(event: dict[str, Any]) -> list[str]:
    """What was touched, by reference to the resource or the version."""
    return [e["what"]["reference"] for e in event["entity"] if e.get("role", {}).get("code") == "4" and "what" in e]


def raw_request(event: dict[str, Any]) -> str:
    return next(b64decode(e["query"]).decode() for e in event["entity"] if "query" in e)


def consents(event: dict[str, Any]) -> list[str]:
    return [e["what"]["reference"] for e in event["entity"] if e.get("type", {}).get("code") == "Consent"]


@pytest.mark.requirement("AUD-01", "AUD-001")
async def test_each_interaction_leaves_one_event(world: World) -> None:
    camille = await world.patient()
    made = await camille.create(observation(camille.patient), X_Request_Id=(create := unique("r")))
    place = f"Observation/{made['id']}"
    requests = [
        ("read", "R", "GET", place, None),
        ("vread", "R", "GET", f"{place}/_history/1", None),
        ("history-instance", "R", "GET", f"{place}/_history", None),
        ("search-type", "E", "GET", "Observation?_count=1", None),
        ("update", "U", "PUT", place, {**made, "status": "amended"}),
        ("delete", "D", "DELETE", place, None),
    ]
    expected = {create: ("create", "C")}
    for interaction, action, method, path, body in requests:
        request_id = unique("r")
        answer = await camille.send(method, path, body, X_Request_Id=request_id)
        assert answer.status_code in (200, 204), answer.text
        expected[request_id] = (interaction, action)
    for request_id, (interaction, action) in expected.items():
        event = await only(camille, request_id)
        AuditEvent.model_validate(event)
        assert event["subtype"] == [{"system": RESTFUL, "code": interaction}]
        assert (event["action"], event["outcome"]) == (action, "0")
        assert [r.partition("/_history")[0] for r in references(event)] == ([] if interaction == "search-type" else [place])
        client, server, user = event["agent"]
        assert client["network"] == {"address": "127.0.0.1", "type": "2"}
        assert client["who"]["identifier"]["value"] == "portal"
        assert server["network"]["address"] == server["who"]["identifier"]["value"] == world.gateway.settings.base_url
        assert user["who"] == {"reference": camille.reference}


@pytest.mark.requirement("AUD-01")
async def test_what_an_answer_says_is_recorded_before_it_is_sent(world: World) -> None:
    camille = await world.patient()
    before = await world.gateway.mongo.count("AuditEvent", {"patient": camille.patient})
    answer = await camille.get(f"Patient/{camille.patient}")
    assert answer.status_code == 200
    assert await world.gateway.mongo.count("AuditEvent", {"patient": camille.patient}) == before + 1


@pytest.mark.requirement("AUD-02")
async def test_a_search_is_kept_as_it_was_sent_inside_the_event_alone(world: World) -> None:
    camille = await world.patient()
    query = "code=http://loinc.org%7C99504-3&_count=7"
    await camille.get(f"Observation?{query}", X_Request_Id=(get := unique("r")))
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    answer = await camille.send("POST", "Observation/_search", query.encode(), **form, X_Request_Id=(post := unique("r")))
    assert answer.status_code == 200, answer.text
    assert raw_request(await only(camille, get)) == f"GET /fhir/Observation?{query}"
    line, _, body = raw_request(await only(camille, post)).partition("\n\n")
    assert line.rstrip("?") == "POST /fhir/Observation/_search"
    assert body == query
    for stored in await world.stored("AuditEvent", patient=camille.patient):
        stored["event"].pop("query", None)
        assert "99504" not in repr(stored)


@pytest.mark.requirement("AUD-03")
async def test_a_search_over_three_records_leaves_an_event_in_each(world: World) -> None:
    name = unique("Name").replace("-", "")
    people = [await world.patient(name=[{"family": name}]) for _ in range(3)]
    request_id = unique("r")
    answer = await world.operator.get(f"Patient?family={name}", X_Request_Id=request_id)
    assert answer.json()["total"] == 3
    for person in people:
        event = await only(person, request_id)
        about = [e["what"]["reference"] for e in event["entity"] if e.get("type", {}).get("code") == "1"]
        assert about == [f"Patient/{person.patient}"]
        assert event["agent"][0]["requestor"] is True  # no user: the client itself asked
    stored = await world.stored("AuditEvent", **{"event.request_id": request_id})
    assert [("patient" in d, "query" in d["event"]) for d in stored if "patient" not in d] == [(False, True)]
    assert len(stored) == 4


async def test_a_search_that_finds_nobody_leaves_an_event_of_nobody(world: World) -> None:
    request_id = unique("r")
    await world.operator.get(f"Patient?family={unique('Nobody')}", X_Request_Id=request_id)
    [stored] = await world.stored("AuditEvent", **{"event.request_id": request_id})
    assert "patient" not in stored
    assert stored["event"]["outcome"] == "0"


@pytest.mark.parametrize("named", ["abc-nothing", "x" * 60])
async def test_a_search_for_somebody_unknown_belongs_to_no_record(world: World, named: str) -> None:
    doctor = await world.professional()
    answer = await doctor.get(f"Observation?patient={named}", X_Request_Id=(request_id := unique("r")))
    assert answer.status_code == 200, answer.text
    [stored] = await world.stored("AuditEvent", **{"event.request_id": request_id})
    assert "patient" not in stored


async def test_a_search_beyond_the_record_of_the_token_is_in_that_record_alone(world: World) -> None:
    camille, noe = await world.patient(), await world.patient()
    answer = await camille.get(f"Observation?patient={noe.patient}", X_Request_Id=(request_id := unique("r")))
    assert answer.status_code == 200
    assert await events(noe, request_id) == []
    assert raw_request(await only(camille, request_id)).endswith(f"patient={noe.patient}")


@pytest.mark.requirement("AUD-04")
async def test_of_a_token_only_the_beginning_of_its_hash_is_kept(world: World) -> None:
    camille = await world.patient()
    await camille.get(f"Patient/{camille.patient}", X_Request_Id=(request_id := unique("r")))
    event = await only(camille, request_id)
    prefix = sha256(camille.token.encode()).hexdigest()[:16]
    assert event["agent"][2]["policy"] == [f"urn:ietf:params:oauth:jti:{prefix}"]
    stored = repr(await world.stored("AuditEvent", patient=camille.patient))
    assert camille.token not in stored
    assert sha256(camille.token.encode()).hexdigest() not in stored


async def _search_without_right(other: Actor, owner: str, request_id: str) -> Any:
    return await other.get(f"Observation?patient={owner}", X_Request_Id=request_id)


async def _read_without_right(other: Actor, owner: str, request_id: str) -> Any:
    return await other.get(f"Patient/{owner}", X_Request_Id=request_id)


async def _write_without_right(other: Actor, owner: str, request_id: str) -> Any:
    return await other.post("Observation", observation(owner), X_Request_Id=request_id)


async def _write_in_a_batch(other: Actor, owner: str, request_id: str) -> Any:
    return await other.post("", bundle("batch", entry("POST", "Observation", observation(owner))), X_Request_Id=request_id)


async def _write_in_a_transaction(other: Actor, owner: str, request_id: str) -> Any:
    body = bundle("transaction", entry("POST", "Observation", observation(owner)))
    return await other.post("", body, X_Request_Id=request_id)


@pytest.mark.requirement("AUD-05")
@pytest.mark.parametrize(
    ("attempt", "status", "subtype"),
    [
        (_search_without_right, 200, "search-type"),
        (_read_without_right, 404, "read"),
        (_write_without_right, 422, "create"),
        (_write_in_a_batch, 200, "create"),
        (_write_in_a_transaction, 422, "transaction"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_the_patient_sees_what_others_tried_in_vain(world: World, attempt: Any, status: int, subtype: str) -> None:
    camille, service = await world.patient(), await world.service()
    request_id = unique("r")
    answer = await attempt(service, camille.patient, request_id)
    assert answer.status_code == status, answer.text
    event = await only(camille, request_id)
    assert (event["outcome"], event["subtype"][0]["code"]) == ("8", subtype)
    assert event["outcomeDesc"]
    assert event["agent"][0]["who"]["identifier"]["value"].startswith("service")


@pytest.mark.requirement("AUD-05")
async def test_a_refusal_names_the_consents_that_were_weighed(world: World) -> None:
    camille = await world.patient()
    app = await world.app(camille)
    given = await world.consent(camille, app, "access", ["Observation"])
    answer = await app.post("Observation", observation(camille.patient), X_Request_Id=(request_id := unique("r")))
    assert answer.status_code == 403
    event = await only(camille, request_id)
    assert event["outcome"] == "8"
    assert event["outcomeDesc"] == issues(answer)[0]["diagnostics"]
    assert consents(event) == [f"Consent/{given['id']}/_history/1"]


@pytest.mark.requirement("AUD-05")
@pytest.mark.parametrize(
    ("method", "path", "status", "outcome"),
    [
        ("PUT", "AuditEvent/{id}", 405, "4"),
        ("DELETE", "Provenance/{id}", 405, "4"),
        ("GET", "Observation?nonsense=1", 400, "4"),
        ("GET", "Observation/{id}", 404, "8"),
    ],
)
async def test_what_fails_is_recorded_as_failed(world: World, method: str, path: str, status: int, outcome: str) -> None:
    camille = await world.patient()
    body = {"resourceType": path.partition("/")[0]} if method == "PUT" else None
    path = path.format(id=f"{camille.patient[:3]}-nothing")
    answer = await camille.send(method, path, body, X_Request_Id=(request_id := unique("r")))
    assert answer.status_code == status, answer.text
    assert (await only(camille, request_id))["outcome"] == outcome


async def test_a_scope_that_is_not_enough_is_recorded(world: World) -> None:
    camille = await world.patient("patient/*.rs")
    body = observation(camille.patient)
    answer = await camille.post("Observation", body, X_Request_Id=(request_id := unique("r")))
    assert answer.status_code == 403
    event = await only(camille, request_id)
    assert event["outcome"] == "8"
    assert "scope" in event["outcomeDesc"]


@pytest.mark.parametrize("token", [None, "gwat_nobody_issued_this"])
async def test_a_request_of_nobody_leaves_no_event(world: World, token: str | None) -> None:
    stranger = Actor(world.http, token or "", "")
    request_id = unique("r")
    answer = await stranger.get("Patient/abc-someone", X_Request_Id=request_id)
    assert answer.status_code == 401
    assert answer.headers["x-request-id"] == request_id
    assert await world.gateway.mongo.count("AuditEvent", {"event.request_id": request_id}) == 0


@pytest.mark.requirement("AUD-01")
async def test_the_entries_of_a_batch_are_recorded_one_by_one(world: World) -> None:
    camille, other = await world.patient(), await world.patient()
    made = await camille.create(observation(camille.patient))
    request_id = unique("r")
    asked = bundle(
        "batch",
        entry("GET", f"Observation/{made['id']}"),
        entry("GET", "Observation?_count=1"),
        entry("POST", "Observation", observation(camille.patient)),
        entry("GET", f"Patient/{other.patient}"),
        entry("GET", "Nonsense/abc-1"),
    )
    answer = await camille.post("", asked, X_Request_Id=request_id)
    statuses = [e["response"]["status"][:3] for e in answer.json()["entry"]]
    assert statuses == ["200", "200", "201", "404", "404"]
    found = await events(camille, request_id)
    kinds = sorted((e["subtype"][0]["code"], e["outcome"]) for e in found)
    assert kinds == [("create", "0"), ("read", "0"), ("read", "8"), ("read", "8"), ("search-type", "0")]
    assert raw_request(next(e for e in found if e["action"] == "E")) == "GET Observation?_count=1"
    assert await events(other, request_id) == []  # a token for one record cannot even ask for another


@pytest.mark.requirement("AUD-01", "AUD-03")
async def test_a_transaction_is_recorded_by_record_type_and_interaction(world: World) -> None:
    camille = await world.patient()
    given = await camille.create(document(camille.patient))
    request_id = unique("r")
    asked = bundle(
        "transaction",
        *(entry("POST", "Observation", observation(camille.patient)) for _ in range(12)),
        entry("PUT", f"DocumentReference/{given['id']}", {**given, "status": "superseded"}),
        entry("GET", f"Patient/{camille.patient}"),
    )
    answer = await camille.post("", asked, X_Request_Id=request_id)
    assert answer.status_code == 200, answer.text
    found = {e["subtype"][0]["code"]: e for e in await events(camille, request_id)}
    assert found.keys() == {"create", "update", "read"}
    made = [e["response"]["location"].partition("/_history")[0] for e in answer.json()["entry"][:12]]
    assert references(found["create"])[:10] == made[:10]
    [rest] = [e["description"] for e in found["create"]["entity"] if "description" in e]
    assert rest == "and 2 more Observation resources of the same request"
    assert references(found["update"]) == [f"DocumentReference/{given['id']}"]
    assert references(found["read"]) == [f"Patient/{camille.patient}/_history/1"]
    [stored] = await world.stored("AuditEvent", **{"event.request_id": request_id, "event.interaction": "create"})
    assert (
        await world.gateway.mongo.count("Observation", {"commit": stored["event"]["commit"], "patient": camille.patient}) == 12
    )


async def test_what_was_there_already_is_told_apart_from_what_was_written(world: World) -> None:
    camille = await world.patient()
    known, new = observation(camille.patient), observation(camille.patient)
    await camille.create(known)
    request_id = unique("r")
    both = bundle("transaction", entry("POST", "Observation", known), entry("POST", "Observation", new))
    await camille.post("", both, X_Request_Id=request_id)
    stored = await world.stored("AuditEvent", **{"event.request_id": request_id})
    assert sorted("commit" in s["event"] for s in stored) == [False, True]


@pytest.mark.requirement("AUD-07", "AUD-004")
async def test_the_log_is_the_patients_own(world: World) -> None:
    camille, noe = await world.patient(), await world.patient()
    doctor, proxy = await world.professional(), await world.proxy(camille)
    app = await world.app(camille, "patient/*.cruds")
    for actor in (doctor, app):
        await world.consent(camille, actor, "access")
    await doctor.get(f"Patient/{camille.patient}", X_Request_Id=(request_id := unique("r")))
    event = await only(camille, request_id)
    assert event["agent"][2]["who"] == {"reference": doctor.reference}
    place = f"AuditEvent/{event['id']}"
    assert (await camille.get(place)).json() == event
    assert (await proxy.get(place)).json() == event
    for actor in (noe, doctor, app, world.operator):
        assert (await actor.get(place)).status_code == 404
        found = await actor.get(f"AuditEvent?patient={camille.patient}")
        assert "entry" not in found.json()


@pytest.mark.requirement("AUD-07")
async def test_the_log_is_searched_by_who_what_and_when(world: World) -> None:
    camille, doctor = await world.patient(), await world.professional()
    await doctor.get(f"Patient/{camille.patient}", X_Request_Id=(refused := unique("r")))
    await world.consent(camille, doctor, "access")
    await doctor.get(f"Patient/{camille.patient}", X_Request_Id=(answered := unique("r")))
    client = (await only(camille, answered))["agent"][0]["who"]["identifier"]
    searches = {
        f"agent={doctor.reference}": {refused, answered},
        f"agent={doctor.reference}&outcome=8": {refused},
        f"agent={doctor.reference}&outcome=http://hl7.org/fhir/audit-event-outcome|0": {answered},
        f"agent:identifier={client['system']}|{client['value']}": {refused, answered},
        f"agent={doctor.reference}&action=R&subtype={RESTFUL}|read": {refused, answered},
        f"agent={doctor.reference}&action=D": set(),
        f"agent={doctor.reference}&date=lt2020-01-01": set(),
    }
    for query, expected in searches.items():
        found = await camille.search(f"AuditEvent?{query}")
        assert {e["entity"][0]["what"]["identifier"]["value"] for e in found} == expected, query


@pytest.mark.requirement("AUD-07", "AUD-005")
@pytest.mark.parametrize("who", ["patient", "operator"])
@pytest.mark.parametrize(("method", "with_id"), [("POST", False), ("PUT", True), ("DELETE", True)])
async def test_nobody_writes_the_log(world: World, who: str, method: str, with_id: bool) -> None:
    camille = await world.patient()
    await camille.get(f"Patient/{camille.patient}", X_Request_Id=(request_id := unique("r")))
    event = await only(camille, request_id)
    actor = camille if who == "patient" else world.operator
    body = None if method == "DELETE" else {**event, "outcome": "0"}
    place = f"AuditEvent/{event['id']}" if with_id else "AuditEvent"
    assert (await actor.send(method, place, body)).status_code == 405
    url = f"AuditEvent/{event['id']}" if with_id else "AuditEvent"
    answer = await actor.post("", bundle("transaction", entry(method, url, body)))
    assert answer.status_code == 405, answer.text
    assert await only(camille, request_id) == event


async def test_creating_a_patient_is_in_the_new_record(world: World) -> None:
    request_id = unique("r")
    made = await world.operator.create(patient(), X_Request_Id=request_id)
    event = await only(await world.patient_actor(made["id"]), request_id)
    assert references(event) == [f"Patient/{made['id']}"]
    assert event["subtype"][0]["code"] == "create"


async def test_no_event_repeats_what_a_resource_says(world: World) -> None:
    camille = await world.patient()
    secret = unique("secret")
    await camille.create(observation(camille.patient, note=[{"text": secret}]))
    broken = observation(camille.patient, code=concept("http://loinc.org", "1"), status=secret)
    assert (await camille.post("Observation", broken)).status_code in (400, 422)
    assert secret not in repr(await world.stored("AuditEvent", patient=camille.patient))


async def test_a_search_over_two_records_does_not_tell_one_patient_of_the_other(world: World) -> None:
    one, other, doctor = await world.patient(), await world.patient(), await world.professional()
    await world.consent(one, doctor, "access", ["Observation"])
    asked = f"Observation?patient={one.patient},{other.patient}&_count=7"
    assert await doctor.search(asked) == []

    for actor, stranger, outcome in ((one, other, "0"), (other, one, "8")):
        event = (await actor.search("AuditEvent?_sort=-date&_count=10"))[:1]
        assert [(e["outcome"], e["subtype"][0]["code"]) for e in event] == [(outcome, "search-type")]
        text = json.dumps(await actor.search("AuditEvent?_count=50"))
        assert stranger.patient not in text
        assert "query" not in event[0]["entity"][-1]
    raw = b64encode(f"GET /fhir/{asked}".encode()).decode()
    whole = await world.stored("AuditEvent", **{"event.query": raw})
    assert [("patient" in document, document["event"]["outcome"]) for document in whole] == [(False, "0")]
