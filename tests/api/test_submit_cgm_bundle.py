"""$submit-cgm-bundle: every entry gets its own receipt, in order, and what is wrong with one costs the others nothing."""

import json
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.store.contents import destroy_key
from tests.documents.papers import pdf
from tests.world import BASE, Actor, World, bundle, concept, device, entry, issues, observation, unique

Resource = dict[str, Any]
STAMP = "2026-11-25T12:00:00Z"
RECEIPT = "urn:fhir-document-gateway:StructureDefinition/receipt"
PROFILES = "http://hl7.org/fhir/uv/cgm/StructureDefinition/"


@pytest.fixture
async def camille(world: World) -> Actor:
    return await world.patient()


@pytest.fixture
async def app(world: World, camille: Actor) -> Actor:
    phone = await world.app(camille, "patient/*.cruds")
    await world.consent(camille, phone, "collect", ["Observation", "Device", "DiagnosticReport"])
    return phone


def submission(*entries: Resource, **elements: Any) -> Resource:
    found = bundle("transaction", *entries) if entries else {"resourceType": "Bundle", "type": "transaction"}
    return found | {"timestamp": STAMP} | elements


def reading(owner: Actor, name: str, value: float = 104, **elements: Any) -> Resource:
    quantity = {"value": value, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}
    named = {"identifier": [{"system": "https://app.example/readings", "value": name}]}
    return entry("POST", "Observation", observation(owner.patient, valueQuantity=quantity, **(named | elements)))


def receipts(answer: Any) -> list[tuple[str, str | None]]:
    """Status and receipt of every entry."""
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["resourceType"], found["type"]) == ("Bundle", "transaction-response")
    responses = [e["response"] for e in found.get("entry", ())]
    return [(r["status"][:3], _receipt(r)) for r in responses]


def _receipt(response: Mapping[str, Any]) -> str | None:
    return next((e["valueCode"] for e in response.get("extension", ()) if e["url"] == RECEIPT), None)


def told(answer: Any, position: int) -> tuple[str, str | None]:
    """Issue code and element of an entry that was refused."""
    issue = answer.json()["entry"][position]["response"]["outcome"]["issue"][0]
    return issue["code"], (issue.get("expression") or [None])[0]


def location(answer: Any, position: int = 0) -> str:
    return str(answer.json()["entry"][position]["response"]["location"])


CREATED, KNOWN, CORRECTED = ("201", "created"), ("200", "known"), ("200", "corrected")


@pytest.mark.requirement("CGM-01")
async def test_the_service_says_that_it_is_a_receiver(world: World) -> None:
    found = (await world.operator.get("metadata")).json()
    assert "http://hl7.org/fhir/uv/cgm/CapabilityStatement/cgm-data-receiver" in found["instantiates"]
    (rest,) = found["rest"]
    assert "submit-cgm-bundle" in {operation["name"] for operation in rest["operation"]}
    orders = next(r for r in rest["resource"] if r["type"] == "ServiceRequest")
    assert {"read", "search-type"} <= {i["code"] for i in orders["interaction"]}
    assert {"patient", "code"} <= {p["name"] for p in orders["searchParam"]}


@pytest.mark.requirement("CGM-02")
async def test_one_wrong_reading_costs_the_other_99_nothing(world: World, camille: Actor, app: Actor) -> None:
    name = unique("r")
    entries = [reading(camille, f"{name}-{n}") for n in range(100)]
    entries[40]["resource"]["status"] = "perhaps"
    answer = await app.post("$submit-cgm-bundle", submission(*entries))
    found = receipts(answer)
    assert [n for n, one in enumerate(found) if one != CREATED] == [40]
    assert found[40] == ("422", None)
    assert told(answer, 40) == ("code-invalid", "Bundle.entry[40].resource.status")
    assert len(await world.stored("Observation", patient=camille.patient)) == 99


@pytest.mark.requirement("CGM-03")
async def test_what_is_sent_again_is_known_and_writes_nothing(world: World, camille: Actor, app: Actor) -> None:
    name = unique("r")
    sent = submission(*(reading(camille, f"{name}-{n}") for n in range(3)))
    first = await app.post("$submit-cgm-bundle", sent)
    assert receipts(first) == [CREATED] * 3
    before = await world.fingerprint()
    again = await app.post("$submit-cgm-bundle", sent)
    assert receipts(again) == [KNOWN] * 3
    assert [location(again, n) for n in range(3)] == [location(first, n) for n in range(3)]
    assert await world.fingerprint() == before


@pytest.mark.requirement("CGM-03")
async def test_a_conditional_create_finds_none_one_or_too_many(world: World, camille: Actor, app: Actor) -> None:
    name = unique("sensor")
    sensor = device(camille.patient, identifier=[{"system": "urn:oid:1.2.3", "value": name}])
    sent = submission(entry("POST", "Device", sensor, ifNoneExist=f"identifier=urn:oid:1.2.3|{name}"))
    first, again = [await app.post("$submit-cgm-bundle", sent) for _ in range(2)]
    assert (receipts(first), receipts(again)) == ([CREATED], [KNOWN])
    assert location(first) == location(again)
    await app.create(observation(camille.patient))
    await app.create(observation(camille.patient))
    many = reading(camille, unique("r"))
    many["request"]["ifNoneExist"] = "status=final"
    answer = await app.post("$submit-cgm-bundle", submission(many, reading(camille, unique("r"))))
    assert receipts(answer) == [("412", None), CREATED]
    assert told(answer, 0) == ("multiple-matches", "Bundle.entry[0].request.ifNoneExist")


@pytest.mark.requirement("CGM-06")
async def test_what_was_submitted_is_found_at_once(camille: Actor, app: Actor) -> None:
    for value in (104, 98):
        name = unique("r")
        await app.post("$submit-cgm-bundle", submission(reading(camille, name, value)))
        paths = [f"Observation?identifier=https://app.example/readings|{name}"]
        paths += ["Observation/$lastn?code=http://loinc.org|99504-3&max=2", "Observation?_sort=-_lastUpdated&_count=1"]
        for path in paths:
            found = (await camille.get(path)).json()["entry"]
            assert value in [one["resource"]["valueQuantity"]["value"] for one in found], path


async def test_another_value_of_the_same_sender_is_a_new_version(camille: Actor, app: Actor) -> None:
    name = unique("r")
    (first,) = [await app.post("$submit-cgm-bundle", submission(reading(camille, name, 104)))]
    corrected = await app.post("$submit-cgm-bundle", submission(reading(camille, name, 98)))
    assert receipts(corrected) == [CORRECTED]
    assert location(corrected) == location(first).replace("/_history/1", "/_history/2")
    again = await app.post("$submit-cgm-bundle", submission(reading(camille, name, 98)))
    assert (receipts(again), location(again)) == ([KNOWN], location(corrected))
    values = [(await camille.get(place)).json()["valueQuantity"]["value"] for place in (location(first), location(corrected))]
    assert values == [104, 98]


async def test_another_sender_never_overwrites(world: World, camille: Actor, app: Actor) -> None:
    other = await world.app(camille, "patient/*.cruds")
    await world.consent(camille, other, "collect", ["Observation"])
    name = unique("r")
    one = await app.post("$submit-cgm-bundle", submission(reading(camille, name, 104)))
    two = await other.post("$submit-cgm-bundle", submission(reading(camille, name, 98)))
    assert (receipts(one), receipts(two)) == ([CREATED], [CREATED])
    assert len(await world.stored("Observation", patient=camille.patient)) == 2


async def test_the_right_to_create_corrects_what_is_its_senders_alone(world: World, camille: Actor, app: Actor) -> None:
    client, name = unique("app"), unique("r")
    phone = await world.actor("app", "patient/Observation.c", client, app.reference, patient=camille.patient)
    first = await phone.post("$submit-cgm-bundle", submission(reading(camille, name, 104)))
    corrected = await phone.post("$submit-cgm-bundle", submission(reading(camille, name, 98)))
    assert (receipts(first), receipts(corrected)) == ([CREATED], [CORRECTED])
    there = location(first).partition("/_history")[0]
    amended = (await camille.get(there)).json() | {"status": "amended"}
    assert (await camille.put(there, amended)).status_code == 200
    refused = await phone.post("$submit-cgm-bundle", submission(reading(camille, name, 97)))
    assert receipts(refused) == [("403", None)]
    again = await app.post("$submit-cgm-bundle", submission(reading(camille, name, 97)))
    assert receipts(again) == [CREATED]  # of another sender: a reading of its own
    wider = await world.actor("app", "patient/Observation.cu", client, app.reference, patient=camille.patient)
    assert receipts(await wider.post("$submit-cgm-bundle", submission(reading(camille, name, 97)))) == [CORRECTED]


async def test_two_values_for_one_reading_in_one_bundle(world: World, camille: Actor, app: Actor) -> None:
    name = unique("r")
    sent = submission(reading(camille, name, 104), reading(camille, name, 104), reading(camille, name, 98))
    answer = await app.post("$submit-cgm-bundle", sent)
    assert receipts(answer) == [CREATED, KNOWN, ("409", None)]
    assert told(answer, 2) == ("duplicate", "Bundle.entry[2].resource.identifier")
    assert len(await world.stored("Observation", patient=camille.patient)) == 1


@pytest.mark.requirement("CGM-04")
async def test_only_what_a_sensor_brings_and_only_of_its_wearer(world: World, camille: Actor, app: Actor) -> None:
    other = await world.patient()
    known = await camille.create(observation(camille.patient))
    entries = [
        entry("DELETE", f"Observation/{known['id']}"),
        entry("POST", "Condition", {"resourceType": "Condition"}),
        entry("GET", f"Observation/{known['id']}"),
        reading(other, unique("r")),
        reading(camille, unique("r")),
        entry("POST", "Observation/_search", observation(camille.patient)),
    ]
    answer = await app.post("$submit-cgm-bundle", submission(*entries))
    assert [status for status, _ in receipts(answer)] == ["422", "422", "422", "422", "201", "422"]
    assert [told(answer, n) for n in (0, 1, 3, 5)] == [
        ("not-supported", "Bundle.entry[0].request.method"),
        ("not-supported", "Bundle.entry[1].request.url"),
        ("not-found", "Bundle.entry[3].resource.subject"),
        ("not-supported", "Bundle.entry[5].request.url"),
    ]
    assert await world.stored("Observation", patient=other.patient) == []


async def test_what_refers_to_what_was_refused_is_refused(camille: Actor, app: Actor) -> None:
    sensor = entry("POST", "Device", device(camille.patient, status="broken"), "urn:uuid:6c1c5d8e-0000-4000-8000-000000000001")
    of_it = reading(camille, unique("r"), device={"reference": sensor["fullUrl"]})
    answer = await app.post("$submit-cgm-bundle", submission(sensor, of_it, reading(camille, unique("r"))))
    assert receipts(answer) == [("422", None), ("422", None), CREATED]
    assert told(answer, 1) == ("not-found", "Bundle.entry[1].resource.device")


async def test_who_may_not_write_gets_every_entry_refused(world: World, camille: Actor) -> None:
    stranger = await world.app(camille)
    before = await world.stored("Observation", patient=camille.patient)
    answer = await stranger.post("$submit-cgm-bundle", submission(reading(camille, unique("r"))))
    assert receipts(answer) == [("422", None)]
    reader = await world.app(camille, "patient/Observation.rs")
    assert receipts(await reader.post("$submit-cgm-bundle", submission(reading(camille, unique("r"))))) == [("403", None)]
    assert await world.stored("Observation", patient=camille.patient) == before


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        (b"{", 400, None),
        (b"", 400, "Bundle"),
        ({"resourceType": "Observation"}, 400, "Bundle"),
        ({"resourceType": "Bundle", "type": "transaction"}, 422, "Bundle.timestamp"),
        (submission(type="batch"), 422, "Bundle.type"),
        (submission({"resource": {"resourceType": "Device"}}), 422, "Bundle.entry[0].request"),
    ],
)
async def test_what_is_no_submission_fails_as_a_whole(app: Actor, body: Any, status: int, where: str | None) -> None:
    answer = await app.post("$submit-cgm-bundle", body)
    assert (answer.status_code, answer.json()["resourceType"]) == (status, "OperationOutcome")
    assert (issues(answer)[0].get("expression") or [None])[0] == where


async def test_it_is_asked_of_the_system_by_post_with_a_token(world: World, app: Actor) -> None:
    for path in ("Observation/$submit-cgm-bundle", "$colour"):
        assert (await app.post(path, submission())).status_code == 404
    assert (await app.get("$submit-cgm-bundle")).status_code in (404, 405)
    assert (await world.http.post("/$submit-cgm-bundle", json=submission())).status_code == 401
    assert receipts(await app.post("$submit-cgm-bundle", submission())) == []


async def test_a_key_answers_the_same_again_entry_by_entry(world: World, camille: Actor, app: Actor) -> None:
    unnamed = entry("POST", "Observation", observation(camille.patient))
    name = unique("r")
    wrong = reading(camille, unique("r"), status="perhaps")
    await app.post("$submit-cgm-bundle", submission(reading(camille, name, 104)))
    sent = submission(unnamed, wrong, reading(camille, name, 98))
    first = await app.post("$submit-cgm-bundle", sent, Idempotency_Key="k-1")
    assert receipts(first) == [CREATED, ("422", None), CORRECTED]
    before = await world.fingerprint()
    again = await app.post("$submit-cgm-bundle", sent, Idempotency_Key="k-1")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    assert await world.fingerprint() == before
    other = await app.post("$submit-cgm-bundle", submission(unnamed), Idempotency_Key="k-1")
    assert (other.status_code, issues(other)[0]["expression"]) == (422, ["Idempotency-Key"])


async def test_the_patient_sees_what_was_refused_once_for_all_alike(world: World, camille: Actor, app: Actor) -> None:
    wrong = [reading(camille, unique("r"), status="perhaps") for _ in range(20)]
    await app.post("$submit-cgm-bundle", submission(*wrong))
    events = [e for e in await camille.search("AuditEvent?_count=50") if e["outcome"] != "0"]
    assert len(events) == 1


DAYS = "https://interop.esante.gouv.fr/ig/fhir/mesures/StructureDefinition/mesures-number-of-days"


def bare(owner: Actor, sensor: str, value: float = 104, **elements: Any) -> Resource:
    """A reading without an identifier, by its sensor."""
    found = reading(owner, "x", value, device={"reference": sensor}, **elements)
    del found["resource"]["identifier"]
    return found


@pytest.mark.requirement("MES-11")
async def test_what_has_no_identifier_is_known_by_its_sensor_code_and_instant(camille: Actor, app: Actor) -> None:
    url, name = "urn:uuid:6c1c5d8e-0000-4000-8000-000000000002", unique("sensor")
    sensor = entry("POST", "Device", device(camille.patient, identifier=[{"system": "urn:oid:1.2.3", "value": name}]), url)
    first = await app.post("$submit-cgm-bundle", submission(sensor, bare(camille, url)))
    assert receipts(first) == [CREATED, CREATED]
    there = location(first).partition("/_history")[0]
    week = {"extension": [{"url": DAYS, "valueCodeableConcept": concept("urn:oid:1.2.4", "GEN-275")}]}
    moments = ("2026-11-20T07:00:00Z", "2026-11-20T08:00:01+01:00", "2026-11-20")
    sent = [
        bare(camille, there, effectiveDateTime=moments[0]),  # the same instant, written otherwise
        bare(camille, there, 98),
        bare(camille, there, effectiveDateTime=moments[1]),
        bare(camille, there, 120, **week),  # a mean is none of its readings
    ]
    found = [await app.post("$submit-cgm-bundle", submission(one)) for one in sent]
    assert [receipts(one)[0] for one in found] == [CORRECTED, CORRECTED, CREATED, CREATED]
    again = await app.post("$submit-cgm-bundle", submission(sent[1], sent[2], sent[3]))
    assert receipts(again) == [KNOWN] * 3
    whole_day = bare(camille, there, effectiveDateTime=moments[2])
    assert receipts(await app.post("$submit-cgm-bundle", submission(whole_day, whole_day))) == [CREATED] * 2


async def test_without_a_submission_nothing_is_corrected(world: World, camille: Actor, app: Actor) -> None:
    made = await app.create(device(camille.patient))
    one, other = (bare(camille, f"Device/{made['id']}", value)["resource"] for value in (104, 98))
    first, again = [await app.post("Observation", one) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 200)
    refused = await app.post("Observation", other)
    assert (refused.status_code, issues(refused)[0]["expression"]) == (409, ["Observation"])
    whole = await app.post("", bundle("transaction", entry("POST", "Observation", other)))
    assert (whole.status_code, issues(whole)[0]["expression"]) == (409, ["Bundle.entry[0].resource"])
    assert len(await world.stored("Observation", patient=camille.patient)) == 1


# -- the official examples -----------------------------------------------------------------------------------------------------


def official(specifications: Path, owner: Actor) -> dict[str, Resource]:
    """Every example resource of HL7 CGM by its file's name, of this patient."""
    found = {}
    for file in sorted((specifications / "hl7-cgm" / "examples-json").glob("*.json")):
        text = file.read_text("utf-8").replace("Patient/patientExample", f"Patient/{owner.patient}")
        found[file.stem] = json.loads(text)
    return found


@pytest.mark.requirement("CGM-02")
async def test_the_official_bundle_is_taken_whole(world: World, camille: Actor, app: Actor, specifications: Path) -> None:
    sent = official(specifications, camille)["Bundle-cgmDataSubmissionBundle"]
    answer = await app.post("$submit-cgm-bundle", sent)
    assert receipts(answer) == [CREATED] * 9
    report = (await camille.get(location(answer))).json()
    summary = (await camille.get(location(answer, 1))).json()
    assert report["result"][0]["reference"] == location(answer, 1).partition("/_history")[0]
    members = {m["reference"] for m in summary["hasMember"]}
    assert members == {location(answer, n).partition("/_history")[0] for n in range(2, 8)}
    found = await camille.search(f"Observation?patient={camille.patient}&code=http://loinc.org|107931-8")
    assert [one["id"] for one in found] == [summary["id"]]


PRIMARY = (
    "Device-cgmDeviceExample",
    "DiagnosticReport-cgmSummaryPDFExample",
    "Observation-cgmSensorReadingMassPerVolumeExample",
    "Observation-cgmSensorReadingMolesPerVolumeExample",
    "Observation-cgmSummaryCoefficientOfVariationExample",
    "Observation-cgmSummaryDaysOfWearExample",
    "Observation-cgmSummaryExample",
    "Observation-cgmSummaryGMIExample",
    "Observation-cgmSummaryMeanGlucoseMassPerVolumeExample",
    "Observation-cgmSummaryMeanGlucoseMolesPerVolumeExample",
    "Observation-cgmSummarySensorActivePercentageExample",
    "Observation-cgmSummaryTimesInRangesExample",
    "ServiceRequest-cgmDataSubmissionOneTimeOrder30DayExample",
    "ServiceRequest-cgmDataSubmissionOneTimeOrderExample",
    "ServiceRequest-cgmDataSubmissionStandingOrderExample",
)
# What breaks an example, by an element that only some of them have.
SPOILT: tuple[tuple[str, Any], ...] = (
    ("code", concept("http://loinc.org", "1-8")),
    ("valueQuantity", {"value": 5, "system": "http://unitsofmeasure.org", "code": "kg"}),
    ("effectivePeriod", {"start": "2024-05-01"}),
    ("hasMember", [{"reference": "Observation/x"}] * 5),
    ("component", []),
    ("presentedForm", [{"contentType": "text/plain", "data": "eA=="}]),
    ("deviceName", [{"name": "Acme", "type": "model-name"}]),
    ("identifier", []),
    ("intent", "plan"),
    ("extension", []),
)


@pytest.mark.requirement("CGM-05")
@pytest.mark.parametrize("name", PRIMARY)
async def test_every_official_example_is_valid_and_none_is_when_spoilt(camille: Actor, specifications: Path, name: str) -> None:
    sent = official(specifications, camille)[name]
    type_name, profile = sent["resourceType"], sent["meta"]["profile"][0]
    path = f"{type_name}/$validate?profile={profile}"
    sound = issues(await camille.post(path, sent))
    assert {i["severity"] for i in sound} == {"information"}, sound
    spoilt = [(element, value) for element, value in SPOILT if element in sent]
    assert spoilt
    for element, value in spoilt:
        broken = {k: v for k, v in sent.items() if k != element} | ({element: value} if value else {})
        found = issues(await camille.post(path, broken))
        assert {i["severity"] for i in found} == {"error"}, (element, found)


@pytest.mark.requirement("CGM-05")
async def test_a_band_that_stands_twice_or_is_missing(camille: Actor, specifications: Path) -> None:
    sent = official(specifications, camille)["Observation-cgmSummaryTimesInRangesExample"]
    bands = sent["component"]
    for wrong in (bands[:4], [*bands[:4], bands[0]], [*bands, bands[0]]):
        found = issues(await camille.post("Observation/$validate", sent | {"component": wrong}))
        assert found[0]["expression"] == ["Observation.component.code"]


def report(owner: Actor, content: bytes, **elements: Any) -> Resource:
    """A summary as PDF."""
    attachment = {"contentType": "application/pdf", "data": b64encode(content).decode(), **elements}
    return entry(
        "POST",
        "DiagnosticReport",
        {
            "resourceType": "DiagnosticReport",
            "identifier": [{"system": "https://app.example/reports", "value": unique("report")}],
            "status": "final",
            "code": concept("http://loinc.org", "11502-2"),
            "subject": {"reference": f"Patient/{owner.patient}"},
            "presentedForm": [attachment],
        },
    )


async def test_a_long_report_is_content_like_any_other(world: World, camille: Actor, app: Actor) -> None:
    """Sealed, and stored once; a wrong one costs nothing but itself, and leaves none."""
    content = pdf(60_000)
    wrong = [report(camille, pdf(50_000), hash="2jmj7l5rSw0yVb/vlWAYkK/YBwk="), report(camille, b"<html>" + pdf(40_000))]
    unstated = report(camille, pdf(30_000))
    unstated["resource"]["status"] = "perhaps"
    good, first = report(camille, content), reading(camille, unique())
    sent = submission(first, wrong[0], good, unstated, wrong[1])
    answer = await app.post("$submit-cgm-bundle", sent, Idempotency_Key=unique())
    assert [status for status, _ in receipts(answer)] == ["201", "422", "201", "422", "422"]
    assert told(answer, 1)[1] == "Bundle.entry[1].resource.presentedForm[0].hash"
    assert told(answer, 4)[1] == "Bundle.entry[4].resource.presentedForm[0].contentType"
    (raw,) = await world.stored("Binary", patient=camille.patient)
    assert len(await world.stored("contents", patient=camille.patient)) == 1
    made = (await camille.get(location(answer, 2).partition("/_history")[0])).json()
    assert made["presentedForm"] == [{"contentType": "application/pdf", "url": f"{BASE}/Binary/{raw['_id']}"}]
    assert (await camille.get(f"Binary/{raw['_id']}")).content == content
    again = await app.post("$submit-cgm-bundle", sent)
    assert receipts(again)[0] == KNOWN
    assert len(await world.stored("Binary", patient=camille.patient)) == 1  # known by its bytes


async def test_reports_of_a_record_whose_contents_were_erased_are_refused_each_for_itself(
    world: World, camille: Actor, app: Actor
) -> None:
    await destroy_key(world.gateway.mongo, camille.patient, world.clock())
    answer = await app.post("$submit-cgm-bundle", submission(report(camille, pdf(60_000))))
    assert answer.status_code in (200, 422), answer.text
    assert await world.stored("DiagnosticReport", patient=camille.patient) == []
