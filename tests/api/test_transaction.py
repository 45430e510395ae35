"""A transaction Bundle: the processing order, all or nothing, and what its entries answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.world import (
    BASE,
    World,
    bundle,
    concept,
    device,
    document,
    entry,
    expression,
    issues,
    observation,
    patient,
    related_person,
    unique,
)

UUID = "urn:uuid:8b8f0d4c-8a38-4a8e-8a1e-8b5e4a6f0001"
OTHER = "urn:uuid:8b8f0d4c-8a38-4a8e-8a1e-8b5e4a6f0002"


def statuses(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [found["response"]["status"] for found in answer.json()["entry"]]


def code_of(reading: dict[str, Any]) -> str:
    return str(reading["identifier"][0]["value"])


@pytest.mark.requirement("BUN-01")
async def test_entries_are_carried_out_as_delete_post_put_get_and_answered_as_asked(world: World) -> None:
    owner = await world.patient()
    old, kept = [await owner.create(observation(owner.patient)) for _ in range(2)]
    new = observation(owner.patient)
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("GET", f"Observation?patient={owner.patient}&_sort=_lastUpdated"),
            entry("PUT", f"Observation/{kept['id']}", kept | {"status": "amended"}),
            entry("POST", "Observation", new),
            entry("DELETE", f"Observation/{old['id']}"),
        ),
    )
    assert statuses(answer) == ["200 OK", "200 OK", "201 Created", "204 No Content"]
    found = [e["resource"] for e in answer.json()["entry"][0]["resource"]["entry"]]
    assert {(code_of(r), r["status"]) for r in found} == {(code_of(kept), "amended"), (code_of(new), "final")}
    assert answer.json()["type"] == "transaction-response"


@pytest.mark.requirement("BUN-01", "BUN-04", "BUN-05")
async def test_the_example_of_the_processing_order(world: World, specifications: Path) -> None:
    """It refers by search: while nobody is found it stores nothing."""
    path = specifications / "fhir-r4-core/derived-transactions/transaction-order-and-references.json"
    asked = json.loads(path.read_text(encoding="utf-8"))
    system, _, number = asked["entry"][1]["resource"]["subject"]["reference"].partition("=")[2].partition("|")
    owner = await world.patient(identifier=[{"system": system, "value": unique("other")}])
    before = await world.fingerprint()
    refused = await owner.post("", asked)
    assert (refused.status_code, expression(refused)) == (412, "Bundle.entry[1].resource.subject.reference")
    assert await world.fingerprint() == before
    owner = await world.patient(identifier=[{"system": system, "value": number}])
    old = await owner.create(observation(owner.patient, identifier=[{"system": "urn:oid:1.2.3", "value": "old-1"}]))
    answer = await owner.post("", asked)
    assert statuses(answer) == ["200 OK", "201 Created", "201 Created", "204 No Content"]
    search, created, sensor, _ = answer.json()["entry"]
    (found,) = (e["resource"] for e in search["resource"]["entry"])
    assert found["subject"] == {"reference": f"Patient/{owner.patient}"}
    assert created["response"]["location"] == f"Observation/{found['id']}/_history/1"
    assert sensor["response"]["location"] == f"{found['device']['reference']}/_history/1"
    assert (await owner.get(f"Observation/{old['id']}")).status_code == 410


@pytest.mark.requirement("BUN-01")
async def test_what_was_written_can_be_read_in_the_same_transaction_in_every_way(world: World) -> None:
    owner = await world.patient()
    kept = await owner.create(observation(owner.patient))
    gone = await owner.create(observation(owner.patient))
    address = f"Observation/{kept['id']}"
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("GET", address),
            entry("GET", f"{address}/_history"),
            entry("GET", f"{address}/_history/1"),
            entry("GET", f"Observation?patient={owner.patient}&_summary=count"),
            entry("PUT", address, kept | {"status": "amended"}),
            entry("DELETE", f"Observation/{gone['id']}"),
        ),
    )
    read, history, first, count, *_ = answer.json()["entry"]
    assert (read["resource"]["status"], read["resource"]["meta"]["versionId"]) == ("amended", "2")
    assert read["fullUrl"] == f"{BASE}/{address}"
    assert read["response"]["etag"] == 'W/"2"'
    assert [e["resource"]["meta"]["versionId"] for e in history["resource"]["entry"]] == ["2", "1"]
    assert first["resource"]["status"] == "final"
    assert count["resource"]["total"] == 1


async def test_an_entry_says_what_a_single_request_would_say(world: World) -> None:
    owner = await world.patient()
    kept = await owner.create(observation(owner.patient))
    new, again = observation(owner.patient), entry("PUT", f"Observation/{kept['id']}", kept)
    answer = await owner.post("", bundle("transaction", entry("POST", "Observation", new), again))
    created, updated = (e["response"] for e in answer.json()["entry"])
    stored = (await owner.search(f"Observation?identifier={new['identifier'][0]['system']}|{code_of(new)}"))[0]
    assert created == {
        "status": "201 Created",
        "location": f"Observation/{stored['id']}/_history/1",
        "etag": 'W/"1"',
        "lastModified": stored["meta"]["lastUpdated"],
    }
    assert (updated["status"], updated["etag"]) == ("200 OK", 'W/"2"')
    assert "location" not in updated


@pytest.mark.parametrize(
    ("prefer", "resources", "outcomes"),
    [("return=minimal", 0, 0), ("return=representation", 2, 0), ("return=OperationOutcome", 0, 2)],
)
async def test_entries_return_what_is_preferred(world: World, prefer: str, resources: int, outcomes: int) -> None:
    owner = await world.patient()
    entries = [entry("POST", "Observation", observation(owner.patient)) for _ in range(2)]
    answer = await owner.post("", bundle("transaction", *entries), Prefer=prefer)
    found = answer.json()["entry"]
    assert sum("resource" in e for e in found) == resources
    assert sum("outcome" in e["response"] for e in found) == outcomes


BAD: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "an unknown element": ({"colour": "red"}, 400, "structure", ".resource.colour"),
    "a missing element": ({"status": None}, 422, "required", ".resource.status"),
    "another's device": ({"device": {"reference": "Device/000-unknown"}}, 422, "not-found", ".resource.device"),
    "no subject": ({"subject": None}, 422, "required", ".resource.subject"),
    "another type": ({"resourceType": "Device"}, 400, "invalid", ".resource"),
}


@pytest.mark.requirement("BUN-02")
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("position", [0, 2])
async def test_one_bad_entry_and_nothing_is_stored(world: World, bad: str, position: int) -> None:
    change, status, code, place = BAD[bad]
    owner = await world.patient()
    kept = await owner.create(observation(owner.patient))
    wrong = {k: v for k, v in (observation(owner.patient) | change).items() if v is not None}
    entries = [
        entry("POST", "Device", device(owner.patient)),
        entry("PUT", f"Observation/{kept['id']}", kept | {"status": "amended"}),
    ]
    entries.insert(position, entry("POST", "Observation", wrong))
    before, audited = await world.fingerprint(), len(await world.stored("AuditEvent", patient=owner.patient))
    answer = await owner.post("", bundle("transaction", *entries))
    assert (answer.status_code, issues(answer)[0]["code"]) == (status, code), answer.text
    assert (expression(answer) or "").startswith(f"Bundle.entry[{position}]{place}")
    assert await world.fingerprint() == before
    events = await world.stored("AuditEvent", patient=owner.patient)
    assert len(events) == audited + 1


@pytest.mark.requirement("BUN-02")
async def test_a_reading_that_fails_takes_the_writes_with_it(world: World) -> None:
    owner = await world.patient()
    before = await world.fingerprint()
    answer = await owner.post(
        "",
        bundle("transaction", entry("POST", "Observation", observation(owner.patient)), entry("GET", "Observation/000-none")),
    )
    assert answer.status_code == 404
    assert expression(answer) == "Bundle.entry[1]"
    assert await world.fingerprint() == before


@pytest.mark.requirement("BUN-02")
@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("patient/Observation.r patient/Device.c", "Bundle.entry[1].resource"),
        ("patient/Observation.c", "Bundle.entry[0].resource"),
    ],
)
async def test_a_missing_scope_names_the_entry(world: World, scope: str, expected: str) -> None:
    owner = await world.patient()
    narrow = await world.patient_actor(owner.patient, scope)
    entries = [entry("POST", "Device", device(owner.patient)), entry("POST", "Observation", observation(owner.patient))]
    before = await world.fingerprint()
    answer = await narrow.post("", bundle("transaction", *entries))
    assert (answer.status_code, expression(answer)) == (403, expected)
    assert await world.fingerprint() == before


@pytest.mark.requirement("BUN-02")
async def test_a_failed_condition_takes_the_other_writes_with_it(world: World) -> None:
    owner = await world.patient()
    kept = await owner.create(observation(owner.patient))
    before = await world.fingerprint()
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Observation", observation(owner.patient)),
            entry("PUT", f"Observation/{kept['id']}", kept, ifMatch='W/"7"'),
        ),
    )
    assert (answer.status_code, issues(answer)[0]["code"]) == (412, "conflict")
    assert expression(answer) == "Bundle.entry[1].resource"
    assert await world.fingerprint() == before


@pytest.mark.requirement("BUN-02")
async def test_a_delete_that_fails_names_the_entry_and_no_element_of_it(world: World) -> None:
    owner = await world.patient()
    answer = await owner.post("", bundle("transaction", entry("DELETE", "Observation/000-none")))
    assert (answer.status_code, expression(answer)) == (404, "Bundle.entry[0]")


@pytest.mark.requirement("BUN-06")
@pytest.mark.parametrize("second", ["PUT", "DELETE"])
async def test_a_resource_is_touched_once(world: World, second: str) -> None:
    owner = await world.patient()
    kept = await owner.create(observation(owner.patient))
    address = f"Observation/{kept['id']}"
    before = await world.fingerprint()
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("PUT", address, kept),
            entry(second, f"{BASE}/{address}", kept if second == "PUT" else None),
        ),
    )
    assert (answer.status_code, issues(answer)[0]["code"]) == (400, "invalid")
    assert (expression(answer) or "").startswith("Bundle.entry[1]")
    assert await world.fingerprint() == before


@pytest.mark.requirement("BUN-06")
async def test_what_is_deleted_cannot_answer_a_condition_nor_be_referred_to(world: World) -> None:
    owner = await world.patient()
    token = unique("device")
    identifier = [{"system": "urn:oid:1.2.3.9", "value": token}]
    sensor = await owner.create(device(owner.patient, identifier=identifier))
    doomed = entry("DELETE", f"Device/{sensor['id']}")
    again = entry("POST", "Device", device(owner.patient), ifNoneExist=f"identifier=urn:oid:1.2.3.9|{token}")
    pointing = entry("POST", "Observation", observation(owner.patient, device={"reference": f"Device/{sensor['id']}"}))
    before = await world.fingerprint()
    matched = await owner.post("", bundle("transaction", again, doomed))
    assert (matched.status_code, expression(matched)) == (400, "Bundle.entry[0].request.ifNoneExist")
    dangling = await owner.post("", bundle("transaction", doomed, pointing))
    assert (dangling.status_code, expression(dangling)) == (422, "Bundle.entry[1].resource.device")
    assert await world.fingerprint() == before


@pytest.mark.requirement("BUN-03")
async def test_full_urls_are_replaced_wherever_they_stand(world: World) -> None:
    owner = await world.patient()
    absolute, oid = "https://app.example/fhir/Device/7", "urn:oid:1.2.3.4.5.6"
    div = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{UUID}">sensor</a><img src=\'{oid}\' alt="x"/></div>'
    reading = observation(
        owner.patient,
        text={"status": "additional", "div": div},
        contained=[
            {"resourceType": "Device", "id": "part", "parent": {"reference": UUID}},
            {
                "resourceType": "Observation",
                "id": "o",
                "status": "final",
                "code": {"text": "x"},
                "device": {"reference": absolute},
            },
        ],
        extension=[
            {"url": "https://app.example/e", "valueReference": {"reference": absolute}},
            {"url": UUID, "valueUri": UUID},
            {"url": "https://app.example/deep", "extension": [{"url": "https://app.example/in", "valueUrl": f"{UUID}#part"}]},
        ],
        device={"reference": UUID},
        derivedFrom=[{"reference": OTHER}],
    )
    paper = document(owner.patient, content=[{"attachment": {"contentType": "text/plain", "url": UUID}}])
    sensors = [entry("POST", "Device", device(owner.patient), url) for url in (UUID, absolute, oid)]
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Observation", reading, "urn:uuid:8b8f0d4c-8a38-4a8e-8a1e-8b5e4a6f0009"),
            entry("POST", "Observation", observation(owner.patient), OTHER),
            entry("POST", "DocumentReference", paper),
            *sensors,
        ),
    )
    assert statuses(answer) == ["201 Created"] * 6
    places = [e["response"]["location"].partition("/_history")[0] for e in answer.json()["entry"]]
    first, member, paper_at, by_uuid, by_url, by_oid = places
    raw = bytes((await world.stored("Observation", _id=first.partition("/")[2]))[0]["body"])
    stored = json.loads(raw)
    assert stored["device"]["reference"] == by_uuid
    assert stored["derivedFrom"][0]["reference"] == member
    assert [c.get("parent", c.get("device"))["reference"] for c in stored["contained"]] == [by_uuid, by_url]
    assert stored["extension"][0]["valueReference"]["reference"] == by_url
    assert stored["extension"][1] == {"url": UUID, "valueUri": by_uuid}  # the name of an extension points at nothing
    assert stored["extension"][2]["extension"][0]["valueUrl"] == f"{by_uuid}#part"
    assert f'<a href="{by_uuid}">' in stored["text"]["div"]
    assert f"<img src='{by_oid}'" in stored["text"]["div"]
    assert raw.count(b"urn:uuid") == 1
    attached = (await owner.get(paper_at)).json()["content"][0]["attachment"]
    assert attached["url"] == by_uuid


@pytest.mark.requirement("BUN-03")
async def test_references_resolve_against_the_base_of_the_entry_that_makes_them(world: World) -> None:
    """https://hl7.org/fhir/R4/bundle.html#references: an export of another server keeps its ids as relative references."""
    owner = await world.patient()
    there = "https://elsewhere.example/fhir"
    reading = observation(
        owner.patient, device={"reference": "Device/12"}, derivedFrom=[{"reference": "Observation/5/_history/3"}]
    )
    reading["subject"]["reference"] = f"{BASE}/Patient/{owner.patient}"
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Observation", reading, f"{there}/Observation/4"),
            entry("POST", "Observation", observation(owner.patient), f"{there}/Observation/5"),
            entry("POST", "Device", device(owner.patient), f"{there}/Device/12"),
        ),
    )
    assert statuses(answer) == ["201 Created"] * 3
    first, second, sensor = (e["response"]["location"].partition("/_history")[0] for e in answer.json()["entry"])
    stored = (await owner.get(first)).json()
    assert stored["device"]["reference"] == sensor
    assert stored["derivedFrom"][0]["reference"] == second


@pytest.mark.requirement("BUN-03", "BUN-04", "MES-03")
async def test_an_entry_is_known_by_the_id_it_was_sent_with(world: World) -> None:
    """What measurement apps in the field send: no fullUrl, and a link by the id of the resource in the same Bundle."""
    owner = await world.patient()
    token = unique("sensor")
    sent = "3bc44de3-069d-442d-829b-f3ef68cae371"
    sensor = device(owner.patient, id=sent, identifier=[{"system": "urn:oid:1.2.3.9", "value": token}])
    found = []
    for _ in range(2):
        reading = observation(owner.patient, device={"reference": f"Device/{sent}"})
        answer = await owner.post(
            "",
            bundle(
                "transaction",
                entry("POST", "Device", sensor, ifNoneExist=f"identifier=urn:oid:1.2.3.9|{token}"),
                entry("POST", "Observation", reading, sent.replace("3bc", "4bc")),
            ),
        )
        made = [e["response"]["location"].partition("/_history")[0] for e in answer.json()["entry"]]
        assert (await owner.get(made[1])).json()["device"]["reference"] == made[0]
        found.append(made[0])
    assert found[0] == found[1]


@pytest.mark.requirement("BUN-03")
async def test_an_id_that_two_entries_were_sent_with_is_the_name_of_neither(world: World) -> None:
    owner = await world.patient()
    sensors = [entry("POST", "Device", device(owner.patient, id="sensor")) for _ in range(2)]
    reading = observation(owner.patient, device={"reference": "Device/sensor"})
    answer = await owner.post("", bundle("transaction", *sensors, entry("POST", "Observation", reading)))
    assert (answer.status_code, expression(answer)) == (422, "Bundle.entry[2].resource.device")


@pytest.mark.requirement("CGM-03", "BUN-03")
async def test_the_example_of_a_cgm_submission_is_stored_with_its_links(world: World, specifications: Path) -> None:
    owner = await world.patient()
    text = (specifications / "hl7-cgm/examples-json/Bundle-cgmDataSubmissionBundle.json").read_text(encoding="utf-8")
    asked = json.loads(text.replace("Patient/patientExample", f"Patient/{owner.patient}"))
    answer = await owner.post("", asked)
    assert set(statuses(answer)) == {"201 Created"}
    made = {e["response"]["location"].partition("/_history")[0] for e in answer.json()["entry"]}
    stored = [r for name in ("Observation", "DiagnosticReport") for r in await world.stored(name, patient=owner.patient)]
    summaries = [json.loads(r["body"]) for r in stored if b"hasMember" in r["body"]]
    members = [m["reference"] for summary in summaries for m in summary["hasMember"]]
    assert members
    assert set(members) <= made


@pytest.mark.requirement("BUN-03")
async def test_an_updated_resource_is_known_by_its_full_url_too(world: World) -> None:
    owner = await world.patient()
    sensor = await owner.create(device(owner.patient))
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Observation", observation(owner.patient, device={"reference": UUID})),
            entry("PUT", f"Device/{sensor['id']}", sensor | {"status": "inactive"}, UUID),
        ),
    )
    assert statuses(answer) == ["201 Created", "200 OK"]
    reading = (await owner.get(answer.json()["entry"][0]["response"]["location"])).json()
    assert reading["device"]["reference"] == f"Device/{sensor['id']}"


@pytest.mark.requirement("BUN-03")
async def test_escapes_in_the_json_hide_no_reference(world: World) -> None:
    owner = await world.patient()
    reading = observation(owner.patient, device={"reference": UUID})
    asked = bundle("transaction", entry("POST", "Observation", reading), entry("POST", "Device", device(owner.patient), UUID))
    body = json.dumps(asked).encode().replace(b'"reference": "urn:uuid:', b'"reference": "urn\\u003auuid:')
    answer = await owner.post("", body)
    assert statuses(answer) == ["201 Created"] * 2
    stored = (await owner.get(answer.json()["entry"][0]["response"]["location"])).json()
    assert stored["device"]["reference"].startswith("Device/")


@pytest.mark.requirement("BUN-03")
async def test_references_may_go_in_circles_and_to_later_entries(world: World) -> None:
    owner = await world.patient()
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Observation", observation(owner.patient, derivedFrom=[{"reference": OTHER}]), UUID),
            entry("POST", "Observation", observation(owner.patient, hasMember=[{"reference": UUID}]), OTHER),
        ),
    )
    assert statuses(answer) == ["201 Created"] * 2
    one, other = (e["response"]["location"].partition("/_history")[0] for e in answer.json()["entry"])
    assert (await owner.get(one)).json()["derivedFrom"] == [{"reference": other}]
    assert (await owner.get(other)).json()["hasMember"] == [{"reference": one}]


@pytest.mark.requirement("BUN-03")
@pytest.mark.parametrize("url", [UUID, "urn:oid:1.2.3.4.99"])
async def test_a_urn_that_names_no_entry_is_refused(world: World, url: str) -> None:
    owner = await world.patient()
    before = await world.fingerprint()
    answer = await owner.post(
        "", bundle("transaction", entry("POST", "Observation", observation(owner.patient, device={"reference": url})))
    )
    assert (answer.status_code, expression(answer)) == (422, "Bundle.entry[0].resource.device")
    assert await world.fingerprint() == before


@pytest.mark.requirement("BUN-04")
async def test_a_reference_to_an_entry_that_was_there_already_leads_to_what_was_there(world: World) -> None:
    owner = await world.patient()
    token = unique("sensor")
    sensor = device(owner.patient, identifier=[{"system": "urn:oid:1.2.3.9", "value": token}])
    devices, references = [], []
    for _ in range(2):
        reading = observation(owner.patient, device={"reference": UUID}, note=[{"text": unique()}])
        answer = await owner.post(
            "",
            bundle(
                "transaction",
                entry("POST", "Observation", reading),
                entry("POST", "Device", sensor, UUID, ifNoneExist=f"identifier=urn:oid:1.2.3.9|{token}"),
            ),
        )
        made, found = answer.json()["entry"]
        devices.append((found["response"]["status"], found["response"]["location"]))
        references.append((await owner.get(made["response"]["location"])).json()["device"]["reference"])
    assert [status for status, _ in devices] == ["201 Created", "200 OK"]
    assert devices[0][1] == devices[1][1]
    assert references == [devices[0][1].partition("/_history")[0]] * 2


@pytest.mark.requirement("BUN-04")
async def test_the_same_condition_twice_in_a_bundle_makes_one_resource(world: World) -> None:
    owner = await world.patient()
    query = f"identifier=urn:oid:1.2.3.9|{unique('sensor')}"
    identifier = [{"system": "urn:oid:1.2.3.9", "value": query.rpartition("|")[2]}]
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Device", device(owner.patient, identifier=identifier), UUID, ifNoneExist=query),
            entry("POST", "Device", device(owner.patient, identifier=identifier, status="active"), OTHER, ifNoneExist=query),
            entry("POST", "Observation", observation(owner.patient, device={"reference": OTHER})),
        ),
    )
    assert statuses(answer) == ["201 Created", "200 OK", "201 Created"]
    first, second, reading = (e["response"]["location"] for e in answer.json()["entry"])
    assert first == second
    assert (await owner.get(reading)).json()["device"]["reference"] == first.partition("/_history")[0]


@pytest.mark.requirement("BUN-04")
async def test_the_same_condition_on_two_types_is_two_conditions(world: World) -> None:
    owner = await world.patient()
    query = f"identifier=urn:oid:1.2.3.9|{unique('same')}"
    identifier = [{"system": "urn:oid:1.2.3.9", "value": query.rpartition("|")[2]}]
    answer = await owner.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Device", device(owner.patient, identifier=identifier), ifNoneExist=query),
            entry("POST", "Observation", observation(owner.patient, identifier=identifier), ifNoneExist=query),
        ),
    )
    assert statuses(answer) == ["201 Created"] * 2
    assert [e["response"]["location"].split("/")[0] for e in answer.json()["entry"]] == ["Device", "Observation"]


@pytest.mark.requirement("BUN-11")
async def test_rights_are_checked_for_each_entry_of_a_transaction(world: World) -> None:
    mine, other = await world.patient(), await world.patient()
    theirs = await other.create(observation(other.patient))
    writes = {
        "POST": entry("POST", "Observation", observation(other.patient)),
        "PUT": entry("PUT", f"Observation/{theirs['id']}", theirs),
        "DELETE": entry("DELETE", f"Observation/{theirs['id']}"),
        "GET": entry("GET", f"Observation/{theirs['id']}"),
    }
    before = await world.fingerprint()
    expected = {"POST": 422, "PUT": 405, "DELETE": 404, "GET": 404}
    for method, wrong in writes.items():
        answer = await mine.post("", bundle("transaction", entry("POST", "Observation", observation(mine.patient)), wrong))
        assert answer.status_code == expected[method], method
        assert (expression(answer) or "").startswith("Bundle.entry[1]")
    assert await world.fingerprint() == before


async def test_several_records_in_one_transaction_are_all_written(world: World) -> None:
    owners = [await world.patient() for _ in range(3)]
    doctor = await world.professional()
    entries = [entry("POST", "Observation", observation(owner.patient)) for owner in owners for _ in range(2)]
    answer = await doctor.post("", bundle("transaction", *entries))
    assert statuses(answer) == ["201 Created"] * 6
    for owner in owners:
        assert len(await owner.search("Observation")) == 2


async def test_a_new_patient_and_who_acts_for_them_come_in_one_transaction(world: World) -> None:
    relation = related_person("x", patient={"reference": UUID})
    answer = await world.operator.post(
        "", bundle("transaction", entry("POST", "RelatedPerson", relation), entry("POST", "Patient", patient(), UUID))
    )
    assert statuses(answer) == ["201 Created"] * 2
    person, owner = (e["response"]["location"].split("/")[1] for e in answer.json()["entry"])
    assert (await world.stored("RelatedPerson", _id=person))[0]["patient"] == owner
    assert person[:3] == owner[:3]


async def test_a_transaction_without_entries_is_answered(world: World) -> None:
    owner = await world.patient()
    answer = await owner.post("", {"resourceType": "Bundle", "type": "transaction"})
    assert (answer.status_code, answer.json()) == (200, {"resourceType": "Bundle", "type": "transaction-response"})


async def test_a_day_of_readings_takes_a_constant_number_of_database_calls(world: World) -> None:
    owner = await world.patient()
    entries = [entry("POST", "Observation", observation(owner.patient)) for _ in range(288)]
    before = world.gateway.mongo.calls
    assert statuses(await owner.post("", bundle("transaction", *entries))) == ["201 Created"] * 288
    assert world.gateway.mongo.calls - before < 20  # those of the jobs beside it included


async def test_decimals_and_codes_pass_through_unchanged(world: World) -> None:
    owner = await world.patient()
    reading = observation(owner.patient, code=concept("http://loinc.org", "15074-8"))
    body = json.dumps(bundle("transaction", entry("POST", "Observation", reading))).replace('"value": 104', '"value": 5.10')
    answer = await owner.post("", body.encode(), Prefer="return=representation")
    assert '"value":5.10' in answer.text
