"""patch: what comes out is checked like an update, in both languages; who may not know what is there cannot patch it."""

import asyncio
import base64
import json
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.world import (
    BASE,
    JSON,
    Actor,
    World,
    bundle,
    concept,
    consent,
    document,
    entry,
    expression,
    issues,
    label,
    observation,
    unique,
)

JSON_PATCH = "application/json-patch+json"

pytestmark = pytest.mark.requirement("CORE-07")


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


async def patch(actor: Actor, path: str, *operations: Any, **headers: str) -> httpx.Response:
    return await actor.send("PATCH", path, list(operations), Content_Type=JSON_PATCH, **headers)


def replacing(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}


def adding(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def parameters(kind: str, path: str, **value: Any) -> dict[str, Any]:
    """A FHIRPath Patch of one operation."""
    parts = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    found = [{"name": "value", **value}] if value else []
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": [*parts, *found]}]}


def binary(*operations: Any) -> dict[str, Any]:
    """A JSON Patch as it stands in a Bundle."""
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"resourceType": "Binary", "contentType": JSON_PATCH, "data": data}


@pytest.mark.requirement("DOC-11")
@pytest.mark.parametrize("language", ["json", "fhirpath"])
async def test_a_patch_makes_the_next_version(world: World, camille: Actor, language: str) -> None:
    stored = await camille.create(observation(camille.patient))
    address = f"Observation/{stored['id']}"
    if language == "json":
        answer = await patch(camille, address, replacing("/status", "amended"))
    else:
        answer = await camille.send("PATCH", address, parameters("replace", "Observation.status", valueCode="amended"))
    assert answer.status_code == 200, answer.text
    changed = answer.json()
    assert answer.headers["etag"] == 'W/"2"'
    assert changed == {**stored, "status": "amended", "meta": changed["meta"]}
    assert (changed["meta"]["versionId"], await version_of(camille, address)) == ("2", changed)
    assert (await camille.get(f"{address}/_history/1")).json() == stored
    assert [r["id"] for r in await camille.search(f"Observation?patient={camille.patient}&status=amended&_id={stored['id']}")]


async def version_of(actor: Actor, address: str) -> dict[str, Any]:
    return dict((await actor.get(address)).json())


@pytest.mark.requirement("CORE-18")
async def test_every_digit_is_kept(camille: Actor) -> None:
    quantity = b'{"value":5.10,"unit":"mmol/L","system":"http://unitsofmeasure.org","code":"mmol/L"}'
    sent = (
        json.dumps(observation(camille.patient, valueQuantity=1))
        .encode()
        .replace(b'"valueQuantity": 1', b'"valueQuantity":%b' % quantity)
    )
    stored = (await camille.post("Observation", sent)).json()
    answer = await camille.send(
        "PATCH",
        f"Observation/{stored['id']}",
        b'[{"op":"add","path":"/referenceRange","value":[{"high":{"value":10.00}}]}]',
        Content_Type=JSON_PATCH,
    )
    assert answer.status_code == 200, answer.text
    assert b'"value":5.10,' in answer.content
    assert b'"value":10.00}' in answer.content


UNSOUND: dict[str, tuple[list[Any], str, str]] = {
    "a required element": ([{"op": "remove", "path": "/status"}], "required", "Observation.status"),
    "an unknown code": ([replacing("/status", "done")], "code-invalid", "Observation.status"),
    "an unknown element": ([adding("/colour", "red")], "structure", "Observation.colour"),
    "null": ([adding("/issued", None)], "structure", "Observation.issued"),
    "a choice made twice": ([adding("/valueString", "x")], "structure", "Observation.value"),
    "a number as text": ([replacing("/valueQuantity/value", "104")], "structure", "Observation.valueQuantity.value"),
    "an empty text": (
        [adding("/component", [{"code": {"text": "x"}, "valueString": ""}])],
        "value",
        "Observation.component[0].valueString",
    ),
    "another patient": ([replacing("/subject/reference", "Patient/000-x")], "business-rule", "Observation.subject"),
    "nobody": ([{"op": "remove", "path": "/subject"}], "required", "Observation.subject"),
    "a reference to nothing": ([adding("/device", {"reference": "Device/000-x"})], "not-found", "Observation.device"),
    "its id": ([replacing("/id", "mine")], "business-rule", "Observation.id"),
    "no id": ([{"op": "remove", "path": "/id"}], "business-rule", "Observation.id"),
    "its version": ([replacing("/meta/versionId", "9")], "business-rule", "Observation.meta.versionId"),
    "its time": ([{"op": "remove", "path": "/meta/lastUpdated"}], "business-rule", "Observation.meta.lastUpdated"),
    "its type": ([replacing("/resourceType", "Device")], "business-rule", "Observation.resourceType"),
    "no resource": ([replacing("", [])], "business-rule", "Observation.resourceType"),
    "a profile": (
        [
            adding("/meta/profile", ["http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-sensor-reading-mass-per-volume"]),
            replacing("/code", {"text": "x"}),
        ],
        "value",
        "Observation.code",
    ),
}


@pytest.mark.parametrize("name", UNSOUND)
async def test_what_comes_out_is_validated_before_anything_is_stored(world: World, camille: Actor, name: str) -> None:
    operations, code, element = UNSOUND[name]
    stored = await camille.create(observation(camille.patient))
    before = await world.fingerprint()
    answer = await patch(camille, f"Observation/{stored['id']}", *operations)
    assert answer.status_code == 422, answer.text
    found = {i["expression"][0]: i["code"] for i in issues(answer)}
    assert element in found or any(place.startswith(element) for place in found), found
    assert code in found.values() or name == "a profile", found
    assert await world.fingerprint() == before


REFUSED: dict[str, tuple[bytes, str, int, str, str]] = {
    "no JSON": (b"{", JSON_PATCH, 400, "structure", ""),
    "no list": (b"{}", JSON_PATCH, 400, "structure", "$this"),
    "an unknown operation": (b'[{"op":"x","path":""}]', JSON_PATCH, 400, "structure", "$this[0].op"),
    "nothing there": (b'[{"op":"remove","path":"/issued"}]', JSON_PATCH, 422, "value", "$this[0].path"),
    "a failing test": (b'[{"op":"test","path":"/status","value":"x"}]', JSON_PATCH, 409, "conflict", "$this[0].value"),
    "too many": (
        json.dumps([{"op": "test", "path": "/status", "value": "final"}] * 201).encode(),
        JSON_PATCH,
        422,
        "too-costly",
        "$this",
    ),
    "no Parameters": (b'{"resourceType":"Observation"}', JSON, 400, "invalid", "Parameters"),
    "no value": (
        json.dumps(parameters("replace", "Observation.status")).encode(),
        JSON,
        422,
        "required",
        "Parameters.parameter[0].part",
    ),
    "another language": (
        json.dumps(parameters("delete", "Observation.iif(1)")).encode(),
        JSON,
        422,
        "value",
        "Parameters.parameter[0].part[1]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_patch_is_refused_at_its_place(world: World, camille: Actor, name: str) -> None:
    body, media_type, status, code, place = REFUSED[name]
    stored = await camille.create(observation(camille.patient))
    answer = await camille.send("PATCH", f"Observation/{stored['id']}", body, Content_Type=media_type)
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer) or "") == (status, code, place), answer.text
    assert await version_of(camille, f"Observation/{stored['id']}") == stored


@pytest.mark.requirement("CORE-11")
@pytest.mark.parametrize("media_type", ["application/xml-patch+xml", "application/merge-patch+json", "text/plain", ""])
async def test_other_media_types_are_refused_with_those_that_are_not(camille: Actor, media_type: str) -> None:
    answer = await camille.send("PATCH", "Observation/000-x", b"[]", Content_Type=media_type)
    assert (answer.status_code, issues(answer)[0]["code"]) == (415, "not-supported")
    assert answer.headers["accept-patch"] == f"{JSON_PATCH}, {JSON}, application/fhir+xml"


async def test_a_list_that_loses_its_last_item_is_left_out(camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient, category=[concept(None, "x")]))
    answer = await patch(camille, f"Observation/{stored['id']}", {"op": "remove", "path": "/category/0"})
    assert answer.status_code == 200, answer.text
    assert "category" not in answer.json()


@pytest.mark.requirement("CORE-05")
async def test_if_match_is_honoured(camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    address = f"Observation/{stored['id']}"
    assert (await patch(camille, address, replacing("/status", "amended"), If_Match='W/"1"')).status_code == 200
    stale = await patch(camille, address, replacing("/status", "cancelled"), If_Match='W/"1"')
    assert (stale.status_code, issues(stale)[0]["code"]) == (412, "conflict")
    assert (await version_of(camille, address))["status"] == "amended"


@pytest.mark.requirement("CORE-06")
async def test_patches_at_the_same_time_are_all_kept(world: World, peer: World, camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient, note=[{"text": "0"}]))
    address, actors = f"Observation/{stored['id']}", (camille, peer.bearer(camille))
    answers = await asyncio.gather(*(patch(actors[n % 2], address, adding("/note/-", {"text": str(n)})) for n in range(1, 13)))
    assert Counter(answer.status_code for answer in answers) == {200: 12}
    found = await version_of(camille, address)
    assert sorted(int(note["text"]) for note in found["note"]) == list(range(13))
    assert found["meta"]["versionId"] == "13"


async def test_one_of_those_who_patch_the_same_version_wins(world: World, peer: World, camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    actors = (camille, peer.bearer(camille))
    asked = (
        patch(actors[n % 2], f"Observation/{stored['id']}", replacing("/status", "amended"), If_Match='W/"1"') for n in range(8)
    )
    assert Counter(answer.status_code for answer in await asyncio.gather(*asked)) == {200: 1, 412: 7}


@pytest.mark.requirement("CORE-09")
async def test_what_was_deleted_and_what_never_was(world: World, camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    assert (await camille.delete(f"Observation/{stored['id']}")).status_code == 204
    assert (await patch(camille, f"Observation/{stored['id']}", replacing("/status", "final"))).status_code == 410
    stranger = await world.patient()
    answers = [
        await patch(actor, f"Observation/{identifier}", replacing("/status", "final"))
        for actor, identifier in ((stranger, stored["id"]), (stranger, "000-x"), (camille, f"{camille.patient[:3]}-x"))
    ]
    assert {(a.status_code, a.text) for a in answers} == {(404, answers[0].text)}


async def test_consents_are_asked_of_the_old_and_the_new_version(world: World, camille: Actor) -> None:
    doctor = await world.professional()
    await world.consent(camille, doctor, "access", ["Observation"])
    for action in ("access", "correct"):
        await camille.create(consent(camille, doctor, action, type="deny", securityLabel=[label("R")]))
    stored = await camille.create(observation(camille.patient, meta={"security": [label("N")]}))
    address = f"Observation/{stored['id']}"
    assert (await patch(doctor, address, replacing("/status", "amended"))).status_code == 200
    refused = await patch(doctor, address, adding("/meta/security/-", label("R")))
    assert refused.status_code in (403, 422), refused.text
    gone = await patch(doctor, address, {"op": "remove", "path": "/meta/security/0"})
    assert (gone.status_code, expression(gone)) == (403, "Observation.meta.security")
    assert (await patch(camille, address, adding("/meta/security/-", label("R")))).status_code == 200
    assert (await patch(doctor, address, replacing("/status", "final"))).status_code == 404


async def test_who_deposits_and_does_not_read_patches_only_what_nobody_else_has_written_to(world: World) -> None:
    owner, doctor, other = await world.patient(), await world.professional(), await world.professional()
    mine = await doctor.create(document(owner.patient))
    address = f"DocumentReference/{mine['id']}"
    await owner.create(consent(owner, doctor, "access", type="deny"))
    assert (await doctor.get(address)).status_code == 404
    changed = await patch(doctor, address, replacing("/status", "superseded"))
    assert (changed.status_code, changed.json()["status"]) == (200, "superseded")
    nothing = await patch(other, address, replacing("/status", "current"))
    assert (nothing.status_code, nothing.text) == (404, (await patch(other, "DocumentReference/000-x")).text)
    written = {**mine, "status": "superseded"}
    assert (await owner.put(address, written)).status_code == 200
    probed = await patch(doctor, address, {"op": "test", "path": "/status", "value": "superseded"})
    assert (probed.status_code, probed.text) == (404, nothing.text)


@pytest.mark.parametrize(("scope", "status"), [("cu", 200), ("cru", 200), ("crds", 403), ("r", 403)])
async def test_which_scopes_it_takes(world: World, scope: str, status: int) -> None:
    owner = await world.patient()
    app = await world.app(owner, f"patient/Observation.{scope}")
    for action in ("access", "collect"):
        await world.consent(owner, app, action)
    stored = await (app if "c" in scope else owner).create(observation(owner.patient)) if scope != "r" else {"id": "000-x"}
    answer = await patch(app, f"Observation/{stored['id']}", replacing("/status", "amended"))
    assert answer.status_code == status, answer.text


async def test_a_token_that_may_not_read_learns_nothing_by_patching(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner, "patient/Observation.cu")
    for action in ("access", "collect"):
        await world.consent(owner, app, action)
    stored = await owner.create(observation(owner.patient))
    assert (await patch(app, f"Observation/{stored['id']}", replacing("/status", "amended"))).status_code == 404


async def test_a_patch_with_the_preferred_answer(camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    address = f"Observation/{stored['id']}"
    short = await patch(camille, address, replacing("/status", "amended"), Prefer="return=minimal")
    assert (short.status_code, short.content, short.headers["etag"]) == (200, b"", 'W/"2"')
    told = await patch(camille, address, replacing("/status", "final"), Prefer="return=OperationOutcome")
    assert told.json()["resourceType"] == "OperationOutcome"


@pytest.mark.requirement("AUD-01")
async def test_a_patch_leaves_its_event(world: World) -> None:
    owner = await world.patient()
    stored = await owner.create(observation(owner.patient))
    await patch(owner, f"Observation/{stored['id']}", replacing("/status", "amended"))
    await patch(owner, f"Observation/{stored['id']}", replacing("/status", "nonsense"))
    events = [e for e in await owner.search("AuditEvent?_count=50") if e["subtype"][0]["code"] == "patch"]
    assert [(e["action"], e["outcome"]) for e in events] == [("U", "8"), ("U", "0")]
    assert all(f"Observation/{stored['id']}" in json.dumps(e["entity"]) for e in events)


@pytest.mark.requirement("BUN-01")
@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_entries_patch_in_both_languages(world: World, kind: str) -> None:
    owner = await world.patient()
    one, two = [await owner.create(document(owner.patient)) for _ in range(2)]
    entries = [
        entry("GET", f"DocumentReference/{one['id']}"),
        entry(
            "PATCH", f"DocumentReference/{one['id']}", parameters("replace", "DocumentReference.status", valueCode="superseded")
        ),
        entry("PATCH", f"DocumentReference/{two['id']}", binary(replacing("/status", "superseded")), ifMatch='W/"1"'),
        entry("GET", f"DocumentReference/{two['id']}"),
    ]
    found = (await owner.post("", bundle(kind, *entries))).json()["entry"]
    assert [e["response"]["status"] for e in found] == ["200 OK"] * 4
    assert [e["response"]["etag"] for e in found[1:]] == ['W/"2"'] * 3
    assert found[3]["resource"]["status"] == "superseded"
    assert (found[0]["resource"]["status"] == "superseded") is (kind == "transaction")


IN_BUNDLES: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "an operation": (parameters("delete", "Observation.foo"), 422, "value", ".resource.parameter[0].part[1]"),
    "an operation of JSON": (binary(replacing("/foo", 1)), 422, "value", ".resource.data"),
    "no list": ({**binary(), "data": "e30="}, 400, "structure", ".resource.data"),
    "another media type": ({**binary(), "contentType": "text/plain"}, 415, "not-supported", ".resource.contentType"),
    "no patch": ({"resourceType": "Device"}, 400, "invalid", ".resource"),
    "what comes out": (binary({"op": "remove", "path": "/code"}), 422, "required", ".resource.code"),
}


@pytest.mark.parametrize("name", IN_BUNDLES)
@pytest.mark.requirement("BUN-02")
async def test_a_patch_that_cannot_be_done_fails_the_transaction(world: World, name: str) -> None:
    patching, status, code, place = IN_BUNDLES[name]
    owner = await world.patient()
    stored = await owner.create(observation(owner.patient))
    before = await world.fingerprint()
    entries = [
        entry("POST", "Observation", observation(owner.patient)),
        entry("PATCH", f"Observation/{stored['id']}", patching),
    ]
    answer = await owner.post("", bundle("transaction", *entries))
    assert (answer.status_code, issues(answer)[0]["code"]) == (status, code), answer.text
    assert expression(answer) == f"Bundle.entry[1]{place}"
    assert await world.fingerprint() == before
    alone = (await owner.post("", bundle("batch", *entries))).json()["entry"]
    assert [e["response"]["status"][:3] for e in alone] == ["201", str(status)]


@pytest.mark.requirement("BUN-06")
async def test_a_transaction_does_not_update_and_patch_the_same_resource(world: World) -> None:
    owner = await world.patient()
    stored = await owner.create(observation(owner.patient))
    address = f"Observation/{stored['id']}"
    twice = [entry("PUT", address, stored), entry("PATCH", address, binary(replacing("/status", "amended")))]
    answer = await owner.post("", bundle("transaction", *twice))
    assert (answer.status_code, expression(answer)) == (400, "Bundle.entry[1].resource")
    assert await version_of(owner, address) == stored


async def test_nobody_patches_without_a_token(world: World) -> None:
    answer = await world.http.patch(f"{BASE}/Observation/000-{unique()}", json=[], headers={"Content-Type": JSON_PATCH})
    assert (answer.status_code, issues(answer)[0]["code"]) == (401, "login")
