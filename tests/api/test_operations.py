"""$validate and $meta: what a create would refuse is listed whole, what is said of a resource is told to its readers alone."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import read_schemas
from gateway.schemas import SchemaError, find_schemas
from tests.examples import TYPES, bring, prepare, read_example
from tests.world import Actor, World, bundle, concept, consent, entry, issues, label, observation, unique

MASS = "http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-sensor-reading-mass-per-volume"
ALL_OK = {"severity": "information", "code": "informational", "diagnostics": "All OK"}


@pytest.fixture
async def camille(world: World) -> Actor:
    return await world.patient()


def parameters(**values: Any) -> dict[str, Any]:
    """A Parameters resource: `resource`, and codes or uris by name."""
    found: list[dict[str, Any]] = []
    for name, value in values.items():
        element = "resource" if isinstance(value, dict) else "valueUri" if name == "profile" else "valueCode"
        found.append({"name": name, element: value})
    return {"resourceType": "Parameters", "parameter": found}


def listed(answer: httpx.Response) -> set[tuple[str, str, str | None]]:
    """Severity, code and element of every issue of an answer that must be one of $validate."""
    assert answer.status_code == 200, answer.text
    return {(i["severity"], i["code"], (i.get("expression") or [None])[0]) for i in issues(answer)}


@pytest.mark.parametrize("type_name", TYPES)
async def test_every_example_is_valid_and_stays_unstored(world: World, camille: Actor, type_name: str) -> None:
    kind = world.gateway.registry[type_name]
    sent = await prepare(world, type_name, camille) if "create" in kind.interactions else read_example(type_name)
    before = await world.fingerprint()
    for body in (sent, parameters(resource=sent)):
        answer = await camille.post(f"{type_name}/$validate", body)
        assert answer.status_code == 200
        assert issues(answer) == [ALL_OK]
    assert await world.fingerprint() == before


async def test_every_error_is_listed_with_its_path(camille: Actor) -> None:
    broken = observation(camille.patient, status=1, issued="yesterday", colour="red", valueQuantity={"valeu": 104})
    del broken["code"]
    answer = await camille.post("Observation/$validate", broken)
    assert {where for _, _, where in listed(answer)} == {
        f"Observation.{name}" for name in ("code", "status", "issued", "colour", "valueQuantity.valeu")
    }
    assert {severity for severity, _, _ in listed(answer)} == {"error"}


@pytest.mark.parametrize(
    ("elements", "code", "where"),
    [
        ({"status": "perhaps"}, "code-invalid", "Observation.status"),
        ({"value": None}, "structure", "Observation.value"),
        ({"performer": [{"reference": "Device/x"}]}, "value", "Observation.performer[0]"),
        ({"performer": [{"reference": "somebody"}]}, "value", "Observation.performer[0]"),
        (
            {"performer": [{"reference": "urn:uuid:5b3c6c0e-0000-4000-8000-000000000000"}]},
            "not-found",
            "Observation.performer[0]",
        ),
        ({"performer": [{"reference": "#nobody"}]}, "invariant", "Observation.performer[0]"),
        ({"specimen": {"reference": "Specimen/x"}}, "not-found", "Observation.specimen"),
        ({"subject": {"display": "somebody"}}, "required", "Observation.subject"),
        ({"dataAbsentReason": concept(None, "unknown")}, "invariant", "Observation"),
        ({"text": {"status": "generated", "div": "<div>x</div>"}}, "invariant", "Observation.text.div"),
    ],
)
async def test_it_finds_what_a_create_would_refuse(camille: Actor, elements: dict[str, Any], code: str, where: str) -> None:
    sent = observation(camille.patient, **elements)
    assert listed(await camille.post("Observation/$validate", sent)) == {("error", code, where)}
    refused = await camille.post("Observation", sent)
    assert (refused.status_code // 100, issues(refused)[0]["code"]) == (4, code)


async def test_errors_of_several_kinds_are_listed_together(camille: Actor) -> None:
    sent = observation(
        camille.patient,
        meta={"profile": [MASS]},
        code=concept(None, "glucose"),
        performer=[{"reference": "Device/x"}, {"reference": "nobody"}],
    )
    found = listed(await camille.post("Observation/$validate", sent))
    assert {where for _, _, where in found} == {"Observation.code", "Observation.performer[0]", "Observation.performer[1]"}


async def test_a_consent_that_could_not_be_enforced(world: World, camille: Actor) -> None:
    app = await world.app(camille)
    sent = consent(camille, app)
    sent["scope"] = concept(None, "research")
    assert listed(await camille.post("Consent/$validate", sent)) == {("error", "business-rule", "Consent.scope")}


@pytest.mark.requirement("CGM-05")
async def test_a_profile_is_held_against_what_does_not_claim_it(camille: Actor) -> None:
    wrong = observation(camille.patient, code=concept(None, "glucose"))
    assert issues(await camille.post("Observation/$validate", wrong)) == [ALL_OK]
    for answer in (
        await camille.post(f"Observation/$validate?profile={MASS}", wrong),
        await camille.post("Observation/$validate", parameters(resource=wrong, profile=MASS)),
        await camille.post("Observation/$validate", parameters(resource=wrong, profile=MASS, mode="profile")),
    ):
        assert listed(answer) == {("error", "code-invalid", "Observation.code")}
    right = observation(camille.patient)
    assert issues(await camille.post(f"Observation/$validate?profile={MASS}", right)) == [ALL_OK]


async def test_a_profile_that_is_not_known_is_never_passed_over(camille: Actor) -> None:
    url = f"https://profiles.example/{unique()}"
    sent = observation(camille.patient, meta={"profile": [url]})
    warned = listed(await camille.post("Observation/$validate", sent))
    assert warned == {("warning", "not-supported", "Observation.meta.profile[0]")}
    asked = listed(await camille.post(f"Observation/$validate?profile={url}", sent))
    assert asked == {("error", "not-supported", "profile")}
    of_another_type = listed(await camille.post(f"Device/$validate?profile={MASS}", read_example("Device")))
    assert of_another_type == {("error", "not-supported", "profile")}


@pytest.mark.parametrize(
    ("path", "body", "status", "where"),
    [
        ("Observation/$validate", b"{", 400, None),
        ("Observation/$validate", b"[]", 400, None),
        ("Observation/$validate", b"[" * 100 + b"]" * 100, 400, None),
        ("Observation/$validate", b"", 400, "resource"),
        ("Observation/$validate", {"resourceType": "Parameters"}, 400, "resource"),
        ("Observation/$validate", parameters(mode="create"), 400, "resource"),
        ("Observation/$validate", parameters(colour="red"), 400, "Parameters.parameter[0]"),
        ("Observation/$validate", parameters(resource={"x": 1}, mode="destroy"), 400, "mode"),
        ("Observation/$validate", parameters(resource={"x": 1}, mode="update"), 400, "mode"),
        ("Observation/$validate", parameters(resource={"x": 1}, mode="profile"), 400, "profile"),
        ("Observation/$validate?mode=create&mode=create", {"resourceType": "Observation"}, 400, "mode"),
        ("Observation/$validate?colour=red", {"resourceType": "Observation"}, 400, "colour"),
        ("Observation/$validate?mode=create", parameters(mode="create"), 400, "Parameters.parameter[0]"),
        (
            "Observation/$validate",
            {"resourceType": "Parameters", "parameter": [{"name": "mode"}]},
            400,
            "Parameters.parameter[0]",
        ),
        ("Observation/$validate", {"resourceType": "Parameters", "parameter": [{}]}, 422, "Parameters.parameter[0].name"),
        ("Observation/$invent", {"resourceType": "Observation"}, 404, None),
        ("Encounter/$validate", {"resourceType": "Encounter"}, 404, None),
        ("Observation/$meta", None, 404, None),
        ("Bundle/abc-1/$validate", bundle("batch"), 404, None),
    ],
)
async def test_what_cannot_be_asked(camille: Actor, path: str, body: Any, status: int, where: str | None) -> None:
    answer = await camille.post(path, body)
    assert answer.status_code == status, answer.text
    assert (issues(answer)[0].get("expression") or [None])[0] == where


async def test_another_resource_than_the_type_is_said_to_be_one(camille: Actor) -> None:
    answer = await camille.post("Device/$validate", observation(camille.patient))
    assert listed(answer) == {("error", "invalid", "Device")}


async def test_a_mode_says_whether_the_interaction_would_be_refused(world: World, camille: Actor) -> None:
    sent = observation(camille.patient)
    assert issues(await camille.post("Observation/$validate?mode=create", sent)) == [ALL_OK]
    reader = await world.patient_actor(camille.patient, "patient/*.rs")
    assert listed(await reader.post("Observation/$validate?mode=create", sent)) == {("error", "forbidden", None)}
    event = await prepare(world, "AuditEvent", camille)
    assert listed(await camille.post("AuditEvent/$validate?mode=create", event)) == {("error", "not-supported", None)}
    stored = await camille.create(sent)
    place = f"Observation/{stored['id']}/$validate"
    assert issues(await camille.post(f"{place}?mode=update", stored)) == [ALL_OK]
    assert issues(await camille.post(f"{place}?mode=delete", b"")) == [ALL_OK]
    moved = listed(await camille.post(f"{place}?mode=update", {**stored, "id": "other"}))
    assert moved == {("error", "invalid", "Observation.id")}
    other = await world.service("user/*.cruds")
    await world.consent(camille, other)  # to read, not to write
    assert {code for _, code, _ in listed(await other.post(f"{place}?mode=delete", b""))} == {"forbidden"}
    assert (await camille.get(f"Observation/{stored['id']}")).json() == stored


@pytest.mark.parametrize("operation", ["$validate", "$meta"])
async def test_an_instance_that_may_not_be_seen_is_none(world: World, camille: Actor, operation: str) -> None:
    stored = await camille.create(observation(camille.patient))
    stranger = await world.professional()
    answers = [
        await stranger.post(f"Observation/{identifier}/{operation}", stored if operation == "$validate" else b"")
        for identifier in (stored["id"], f"{stored['id'][:4]}{'0' * 16}")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert answers[0].json() == answers[1].json()
    assert "etag" not in answers[0].headers
    narrow = await world.patient_actor(camille.patient, "patient/Device.rs")
    assert (await narrow.post(f"Observation/{stored['id']}/{operation}", stored)).status_code in (400, 403)
    assert (await world.http.post(f"http://gateway.test/fhir/Observation/{stored['id']}/{operation}")).status_code == 401
    await camille.delete(f"Observation/{stored['id']}")
    assert (await camille.post(f"Observation/{stored['id']}/{operation}", stored)).status_code in (400, 410)


@pytest.mark.requirement("BUN-09")
async def test_a_bundle_is_validated_with_all_its_entries(camille: Actor) -> None:
    reading, url = observation(camille.patient), "urn:uuid:5b3c6c0e-0000-4000-8000-000000000001"
    sensor = {**read_example("Device"), "patient": {"reference": f"Patient/{camille.patient}"}}
    sound = bundle(
        "transaction",
        entry("POST", "Device", sensor, url),
        entry("POST", "Observation", {**reading, "device": {"reference": url}}),
        entry("POST", "Observation", {**reading, "device": {"reference": "Device?identifier=x"}}),
        entry("GET", "Observation?_count=1"),
        entry("HEAD", f"Patient/{camille.patient}"),
        entry("GET", "?_type=Observation"),
        entry("GET", "_history"),
    )
    assert issues(await camille.post("Bundle/$validate", sound)) == [ALL_OK]
    broken = bundle(
        "transaction",
        entry("POST", "Observation", {**reading, "status": "perhaps", "colour": "red"}),
        entry("POST", "Observation", {**reading, "meta": {"profile": [MASS]}, "code": concept(None, "x")}),
        entry("POST", "Device", reading),
        entry("POST", "Encounter", {"resourceType": "Encounter"}),
        entry("TRACE", "Observation"),
        {"resource": {**reading, "status": "perhaps"}},
        entry("POST", "Observation", {**reading, "device": {"reference": url}}),
        entry("POST", "Observation", {**reading, "device": {"reference": "DeviceMetric?identifier=x"}}),
    )
    broken["entry"][4]["request"]["method"] = "GET"
    broken["entry"][4]["request"]["url"] = "https://elsewhere.example/Observation"
    assert {where for _, _, where in listed(await camille.post("Bundle/$validate", broken))} == {
        "Bundle.entry[0].resource.status",
        "Bundle.entry[0].resource.colour",
        "Bundle.entry[1].resource.code",
        "Bundle.entry[2].resource",
        "Bundle.entry[3].resource",
        "Bundle.entry[3].resource.status",
        "Bundle.entry[3].resource.class",
        "Bundle.entry[4].request.url",
        "Bundle.entry[5].request",
        "Bundle.entry[5].resource.status",
        "Bundle.entry[6].resource.device",
        "Bundle.entry[7].resource.device",
    }


async def test_a_bundle_of_another_type_is_read_and_warned_of(camille: Actor) -> None:
    reading = observation(camille.patient)
    sent = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": reading}]}
    assert listed(await camille.post("Bundle/$validate", sent)) == {("warning", "not-supported", "Bundle.type")}
    sent["entry"][0]["resource"]["status"] = "perhaps"  # type: ignore[index]
    found = listed(await camille.post("Bundle/$validate", sent))
    assert ("error", "code-invalid", "Bundle.entry[0].resource.status") in found


async def test_an_answer_is_for_reading(world: World, camille: Actor) -> None:
    wrong = {"resourceType": "Observation", "status": "perhaps"}
    sent = bundle("batch", *(entry("POST", "Observation", wrong) for _ in range(900)))
    answer = await camille.post("Bundle/$validate", sent)
    assert len(issues(answer)) == 100
    many = bundle("batch", *(entry("GET", "Observation") for _ in range(world.gateway.limits.bundle_entries + 1)))
    assert (await camille.post("Bundle/$validate", many)).status_code == 413


async def test_meta_tells_what_a_read_would(world: World, camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient, meta={"security": [label("R")], "profile": [MASS]}))
    place = f"Observation/{stored['id']}"
    for answer in (await camille.get(f"{place}/$meta"), await camille.post(f"{place}/$meta", b"")):
        assert answer.status_code == 200, answer.text
        assert answer.json() == {
            "resourceType": "Parameters",
            "parameter": [{"name": "return", "valueMeta": stored["meta"]}],
        }
        assert answer.headers["etag"] == 'W/"1"'
    assert (await camille.get(f"{place}/$meta", If_None_Match='W/"1"')).status_code == 304
    for operation in ("$meta-add", "$meta-delete"):
        assert (await camille.post(f"{place}/{operation}", parameters())).status_code == 404
    assert (await camille.get(f"{place}/$meta?colour=red")).status_code == 400
    assert (await camille.get(f"{place}/$meta?_pretty=true&_format=json")).text.startswith("{\n")
    assert (await camille.post(f"{place}/$meta", stored)).status_code == 400
    assert (await camille.get(place)).json() == stored


async def test_every_type_tells_its_meta(world: World, camille: Actor) -> None:
    for type_name in ("Organization", "Device", "Consent"):
        stored = await bring(world, type_name, camille)
        answer = await camille.get(f"{type_name}/{stored['id']}/$meta")
        assert answer.json()["parameter"][0]["valueMeta"] == stored["meta"]
    [event] = await camille.search("AuditEvent?_count=1")
    answer = await camille.get(f"AuditEvent/{event['id']}/$meta")
    assert answer.json()["parameter"][0]["valueMeta"] == event["meta"]


@pytest.mark.parametrize(("method", "path"), [("GET", "Observation/$validate"), ("GET", "Observation/x/$validate")])
async def test_an_operation_is_asked_by_its_own_methods(camille: Actor, method: str, path: str) -> None:
    answer = await camille.send(method, path)
    assert (answer.status_code, answer.headers["allow"], issues(answer)[0]["code"]) == (405, "POST", "not-supported")


@pytest.mark.requirement("AUD-01")
async def test_operations_leave_events(world: World, camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    place, told = f"Observation/{stored['id']}", []
    for operation, body in (("$meta", b""), ("$validate", stored)):
        request_id = unique("r")
        assert (await camille.post(f"{place}/{operation}", body, X_Request_Id=request_id)).status_code == 200
        [event] = [
            e
            for e in await camille.search("AuditEvent?subtype=operation&_count=200")
            if e["entity"][0]["what"]["identifier"]["value"] == request_id
        ]
        assert (event["action"], event["outcome"]) == ("E", "0")
        assert event["subtype"] == [{"system": "http://hl7.org/fhir/restful-interaction", "code": "operation"}]
        assert "profile" not in event["meta"]
        told.append(event["entity"][0]["detail"])
        assert f"{place}/_history/1" in {e.get("what", {}).get("reference") for e in event["entity"]}
        assert issues(await camille.post("AuditEvent/$validate", event)) == [ALL_OK]
    assert told == [[{"type": "operation", "valueString": name}] for name in ("$meta", "$validate")]
    request_id = unique("r")
    await camille.post("Observation/$validate", {**stored, "status": "perhaps"}, X_Request_Id=request_id)
    [kept] = await world.stored("AuditEvent", **{"event.request_id": request_id})
    assert "patient" not in kept
    assert "perhaps" not in repr(kept)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("meta", ('code = "meta"', 'code = "mata"'), "code: 'mata' does not match the file's name"),
        ("meta", ('"GET", "POST"', '"PUT"'), "methods[0]: Invalid enum value 'PUT'"),
        ("meta", ('["GET", "POST"]', "[]"), "methods: is empty"),
        ("meta", ('"*"', '"Dragon"'), "types: 'Dragon' is not an R4 resource type"),
        ("meta", ('"*"', '"Encounter"'), "types: 'Encounter' is not served: no right to it can be needed"),
        ("meta", ('"read"', '"behold"'), "needs.instance: 'behold' is no interaction"),
        ("meta", ("instance =", "galaxy ="), "needs: Invalid enum value 'galaxy'"),
        ("validate", ('mode = "code"', 'mode = "Resource"'), "parameters: takes one resource at most"),
        ("validate", ('"uri"', '"novel"'), "parameters"),
        ("invent", ("", ""), "code: is no operation that is served here"),
    ],
)
def test_a_mistake_in_a_file_stops_the_start(tmp_path: Path, name: str, change: tuple[str, str], said: str) -> None:
    shutil.copytree(find_schemas(), tmp_path / "schemas")
    folder = tmp_path / "schemas" / "operations"
    if name == "invent":
        (folder / "invent.toml").write_text((folder / "meta.toml").read_text().replace('"meta"', '"invent"'))
    else:
        text = (folder / f"{name}.toml").read_text()
        assert change[0] in text
        (folder / f"{name}.toml").write_text(text.replace(*change))
    with pytest.raises(SchemaError) as refused:
        read_schemas(tmp_path / "schemas")
    assert str(refused.value).startswith(f"{folder / name}.toml: {said}")
