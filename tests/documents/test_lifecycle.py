"""What becomes of documents: replaced, related, masked, archived, withdrawn; all else of them stays as it was."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.documents.papers import ids_of
from tests.documents.submissions import ARCHIVED, PDSM, relation, submission, superseding
from tests.world import Actor, World, bundle, concept, entry, expression, issues

JSON_PATCH = "application/json-patch+json"
VISIBILITY = "https://mos.esante.gouv.fr/NOS/TRE_A07-StatutVisibiliteDocument/FHIR/TRE-A07-StatutVisibiliteDocument"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"


async def submitted(actor: Actor, owner: str, **elements: Any) -> tuple[str, str]:
    """Submit a document; returns DocumentReference/id and Binary/id."""
    _, document, raw = ids_of(await actor.post("", submission(owner, **elements)))
    return document, raw


async def patched(actor: Actor, url: str, *operations: dict[str, Any], **headers: str) -> httpx.Response:
    return await actor.send("PATCH", url, json.dumps(operations).encode(), Content_Type=JSON_PATCH, **headers)


def fhirpath(kind: str, path: str, value: dict[str, Any]) -> dict[str, Any]:
    parts = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}, {"name": "value", **value}]
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}


def status(code: str) -> dict[str, Any]:
    return {"op": "replace", "path": "/status", "value": code}


async def status_of(actor: Actor, document: str) -> str:
    return str((await actor.get(document)).json()["status"])


@pytest.mark.requirement("DOC-08")
@pytest.mark.parametrize("says_so", [True, False])
async def test_what_is_replaced_is_superseded_in_the_same_transaction(world: World, says_so: bool) -> None:
    owner, doctor = await world.patient(), await world.professional()
    old, content = await submitted(doctor, owner.patient)
    sent = submission(owner.patient, relatesTo=[relation("replaces", old)])
    if says_so:
        sent["entry"].insert(2, superseding(old))
    answer = await doctor.post("", sent)
    assert answer.status_code == 200, answer.text
    statuses = [one["response"]["status"] for one in answer.json()["entry"]]
    assert statuses == ["201 Created", "201 Created", *(["200 OK"] if says_so else []), "201 Created"]
    kept = (await owner.get(old)).json()
    assert (kept["status"], kept["meta"]["versionId"]) == ("superseded", "2")
    assert (await owner.get(content)).status_code == 200  # superseded is no secret
    found = await owner.search(f"DocumentReference?patient={owner.patient}&relatesto={old}")
    assert [one["status"] for one in found] == ["current"]
    events = [one["event"] for one in await world.stored("AuditEvent", patient=owner.patient)]
    assert [one["entities"] for one in events if one["interaction"] == "patch"] == [[old]]
    again = await doctor.post("", sent)
    assert {one["response"]["status"] for one in again.json()["entry"]} == {"200 OK"}, again.text
    assert (await owner.get(old)).json()["meta"]["versionId"] == "2"


@pytest.mark.requirement("DOC-08")
@pytest.mark.parametrize("state", ["superseded", "entered-in-error", "another patient's", "nobody's", "in the same Bundle"])
async def test_only_what_is_current_and_of_the_same_patient_is_replaced(world: World, state: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    of = await world.patient() if state == "another patient's" else owner
    old, _ = await submitted(doctor, of.patient)
    if state in ("superseded", "entered-in-error"):
        assert (await patched(doctor, old, status(state))).status_code == 200
    if state == "nobody's":
        old = f"DocumentReference/{world.gateway.ids.new(owner.patient[:3])}"
    before = await world.fingerprint()
    sent = submission(owner.patient, relatesTo=[relation("replaces", old)])
    if state == "in the same Bundle":
        other = submission(owner.patient)
        sent["entry"][1]["resource"]["relatesTo"] = [relation("replaces", other["entry"][1]["fullUrl"])]
        sent["entry"] += other["entry"][1:]
    answer = await doctor.post("", sent)
    where = "Bundle.entry[1].resource.relatesTo[0].target"
    assert (answer.status_code, expression(answer)) == (422, where), answer.text
    assert await world.fingerprint() == before


@pytest.mark.requirement("DOC-08")
async def test_of_two_who_replace_the_same_at_the_same_time_one_does(world: World, peer: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    old, _ = await submitted(doctor, owner.patient)
    others = [doctor, peer.bearer(doctor)] * 3
    sent = [submission(owner.patient, relatesTo=[relation("replaces", old)]) for _ in others]
    answers = await asyncio.gather(*(one.post("", what) for one, what in zip(others, sent, strict=True)))
    assert sorted(answer.status_code for answer in answers) == [200, *[422] * 5], [answer.text for answer in answers]
    found = await owner.search(f"DocumentReference?patient={owner.patient}")
    assert sorted(one["status"] for one in found) == ["current", "superseded"]


async def test_replacing_takes_the_right_to_change(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    old, _ = await submitted(doctor, owner.patient)
    depositor = await world.actor("professional", "user/*.c", doctor.reference, doctor.reference, user=doctor.reference)
    answer = await depositor.post("", submission(owner.patient, relatesTo=[relation("replaces", old)]))
    assert answer.status_code in (403, 422), answer.text
    assert await status_of(owner, old) == "current"


@pytest.mark.requirement("DOC-09")
@pytest.mark.parametrize("code", ["appends", "transforms", "signs"])
async def test_other_relations_change_nothing_of_what_they_are_to(world: World, code: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    old, _ = await submitted(doctor, owner.patient)
    answer = await doctor.post("", submission(owner.patient, relatesTo=[relation(code, old)]))
    assert all("outcome" not in one["response"] for one in answer.json()["entry"])
    assert await status_of(owner, old) == "current"
    found = await owner.search(f"DocumentReference?patient={owner.patient}&relationship={old}${code}")
    assert [one["relatesTo"] for one in found] == [[relation(code, old)]]


MASK = concept(VISIBILITY, "MASQUE_PS")
ALLOWED: dict[str, dict[str, Any]] = {
    "status": status("superseded"),
    "securityLabel": {"op": "add", "path": "/securityLabel/-", "value": MASK},
    "isArchived": {"op": "add", "path": "/extension", "value": [{"url": ARCHIVED, "valueBoolean": True}]},
}


@pytest.mark.requirement("DOC-11")
@pytest.mark.parametrize("what", ALLOWED)
async def test_a_patch_answers_with_the_new_version(world: World, what: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    document, _ = await submitted(doctor, owner.patient)
    before = (await owner.get(document)).json()
    unique = before["masterIdentifier"]
    url = f"DocumentReference?patient={owner.patient}&identifier={unique['system']}|{unique['value']}"
    answer = await patched(doctor, url, ALLOWED[what])
    assert (answer.status_code, answer.headers["etag"]) == (200, 'W/"2"'), answer.text
    after = answer.json()
    assert (after["id"], after["meta"]["versionId"]) == (before["id"], "2")
    assert after["meta"]["lastUpdated"] > before["meta"]["lastUpdated"]
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    assert changed == {"meta", {"isArchived": "extension"}.get(what, what)}
    assert (await owner.get(f"{document}/_history/1")).json() == before
    stored = (await owner.get(document)).json()
    again = await owner.put(document, stored)
    assert again.status_code == 200, again.text


FORBIDDEN: dict[str, tuple[str, Any]] = {
    "description": ("/description", "another"),
    "type": ("/type", concept("http://loinc.org", "34133-9")),
    "masterIdentifier": ("/masterIdentifier", {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.3"}),
    "date": ("/date", "2026-06-12T11:00:00+02:00"),
    "content": ("/content/0/attachment/title", "another"),
    "author": ("/author", [{"reference": "#author"}, {"reference": "#author"}]),
    "contained": ("/contained/0/name", [{"family": "Autre"}]),
    "context": ("/context/period/start", "2026-06-12T08:00:00+02:00"),
    "relatesTo": ("/relatesTo", [relation("appends", "https://elsewhere.example/fhir/DocumentReference/1")]),
    "extension": ("/extension", [{"url": "https://x.example/other", "valueBoolean": True}]),
    "meta": ("/meta/profile", [f"{PDSM}other"]),
    "text": ("/text", {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}),
}


@pytest.mark.requirement("DOC-10")
@pytest.mark.parametrize("element", FORBIDDEN)
@pytest.mark.parametrize("way", ["json", "put", "conditional", "transaction"])
async def test_nothing_else_of_a_document_changes(world: World, element: str, way: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    document, _ = await submitted(doctor, owner.patient)
    path, value = FORBIDDEN[element]
    is_there = element in ("type", "masterIdentifier", "date", "content", "author", "contained", "context")
    operation = {"op": "replace" if is_there else "add", "path": path, "value": value}
    before = (await owner.get(document)).json()
    unique = before["masterIdentifier"]
    url = f"DocumentReference?patient={owner.patient}&identifier={unique['system']}|{unique['value']}"
    if way == "json":
        answer = await patched(doctor, document, operation, ALLOWED["securityLabel"])
    elif way == "conditional":
        answer = await patched(doctor, url, operation)
    elif way == "transaction":
        answer = await doctor.post("", bundle("transaction", entry("PUT", document, changed(before, path, value))))
    else:
        answer = await doctor.put(document, changed(before, path, value))
    assert (answer.status_code, issues(answer)[0]["code"]) == (405, "not-supported"), answer.text
    assert "PATCH" in answer.headers["allow"]
    assert str(expression(answer)).endswith(element)
    assert (await owner.get(document)).json() == before


def changed(resource: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a JSON pointer."""
    copy = json.loads(json.dumps(resource))
    *way, last = path.strip("/").split("/")
    at: Any = copy
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    return dict(copy)


@pytest.mark.requirement("DOC-10")
@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("DocumentReference.status", {"valueCode": "superseded"}, 200),
        ("DocumentReference.description", {"valueString": "another"}, 405),
        ("DocumentReference.type", {"valueCodeableConcept": concept("http://loinc.org", "34133-9")}, 405),
    ],
)
async def test_a_fhirpath_patch_is_held_to_the_same(world: World, path: str, value: dict[str, Any], expected: int) -> None:
    owner, doctor = await world.patient(), await world.professional()
    document, _ = await submitted(doctor, owner.patient, description="one")
    answer = await doctor.send("PATCH", document, fhirpath("replace", path, value))
    assert answer.status_code == expected, answer.text


@pytest.mark.requirement("DOC-20")
async def test_nothing_of_a_document_is_deleted(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    document, _ = await submitted(doctor, owner.patient)
    for actor in (owner, doctor):
        answer = await actor.delete(document)
        assert (answer.status_code, issues(answer)[0]["code"]) == (405, "not-supported")
    assert await status_of(owner, document) == "current"


@pytest.mark.requirement("DOC-20")
@pytest.mark.parametrize("way", ["json", "fhirpath", "put"])
async def test_who_deposited_withdraws_and_nobody_reads_it_any_more(world: World, way: str) -> None:
    owner, doctor, other = await world.patient(), await world.professional(), await world.professional()
    await world.consent(owner, other, "access")
    document, raw = await submitted(doctor, owner.patient)
    await patched(doctor, document, {**ALLOWED["securityLabel"], "value": concept(CONFIDENTIALITY, "R")})
    whole = (await owner.get(document)).json()
    for stranger in (owner, other):
        answer = await patched(stranger, document, status("entered-in-error"))
        assert (answer.status_code, expression(answer)) == (403, "DocumentReference.status"), answer.text
    if way == "json":
        answer = await patched(doctor, document, status("entered-in-error"))
    elif way == "fhirpath":
        answer = await doctor.send(
            "PATCH", document, fhirpath("replace", "DocumentReference.status", {"valueCode": "entered-in-error"})
        )
    else:
        answer = await doctor.put(document, {**whole, "status": "entered-in-error"})
    assert (answer.status_code, answer.json()["status"]) == (200, "entered-in-error"), answer.text
    for place in (document, f"{document}/_history/1", f"{document}/_history/3"):
        assert (await owner.get(place)).status_code == 410
        assert (await other.get(place)).status_code == 410
        assert (await world.bearer(await world.professional()).get(place)).status_code == 404
    assert (await owner.get(raw)).status_code == 410
    assert await owner.search(f"DocumentReference?patient={owner.patient}") == []
    history = (await owner.get(f"{document}/_history")).json()
    assert [one.get("resource") for one in history["entry"]] == [None]
    assert (await patched(doctor, document, status("current"))).status_code == 410
    kept = await world.stored("DocumentReference", patient=owner.patient)
    assert len(kept) == 1
    assert b"entered-in-error" in bytes(kept[0]["body"])  # nothing is lost
    assert len(await world.stored("DocumentReference_history", patient=owner.patient)) == 2


@pytest.mark.requirement("DOC-20")
async def test_what_was_withdrawn_is_not_brought_back_by_sending_it_again(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent = submission(owner.patient)
    made = ids_of(await doctor.post("", sent))
    assert (await patched(doctor, made[1], status("entered-in-error"))).status_code == 200
    again = await doctor.post("", sent)
    assert [one["response"]["status"] for one in again.json()["entry"]] == ["200 OK"] * 3
    assert (await owner.get(made[1])).status_code == 410


@pytest.mark.requirement("DOC-20")
async def test_software_of_several_doctors_withdraws_for_the_one_who_deposited(world: World) -> None:
    owner = await world.patient()
    client = "their-software"
    one, other = [
        await world.actor("professional", "user/*.cruds", client, who.reference, user=who.reference)
        for who in (await world.professional(), await world.professional())
    ]
    document, _ = await submitted(one, owner.patient)
    assert (await patched(other, document, status("entered-in-error"))).status_code == 404
    await world.relation(owner, other)
    assert (await patched(other, document, status("entered-in-error"))).status_code == 403
    assert (await patched(one, document, status("entered-in-error"))).status_code == 200


async def test_nothing_is_deposited_as_withdrawn(world: World) -> None:
    owner = await world.patient()
    document = submission(owner.patient)["entry"][1]["resource"] | {"status": "entered-in-error"}
    document["content"] = [{"attachment": {"contentType": "text/plain", "data": "SGVsbG8="}}]
    answer = await owner.post("DocumentReference", document)
    assert (answer.status_code, expression(answer)) == (422, "DocumentReference.status"), answer.text


@pytest.mark.requirement("SEC-03")
async def test_labels_stand_side_by_side(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    restricted = concept(CONFIDENTIALITY, "R")
    document, _ = await submitted(doctor, owner.patient, securityLabel=[restricted])
    assert (await patched(doctor, document, ALLOWED["securityLabel"])).json()["securityLabel"] == [restricted, MASK]
    back = await patched(
        owner,
        document,
        {"op": "test", "path": "/securityLabel/1", "value": MASK},
        {"op": "remove", "path": "/securityLabel/1"},
    )
    assert back.json()["securityLabel"] == [restricted]


async def test_a_patch_that_changes_nothing_writes_nothing(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    document, _ = await submitted(doctor, owner.patient)
    answer = await patched(doctor, document, status("current"))
    assert (answer.status_code, answer.headers["etag"], answer.json()["status"]) == (200, 'W/"1"', "current")
    assert len(await world.stored("DocumentReference_history", patient=owner.patient)) == 0


async def test_superseded_is_made_current_again_by_who_deposited_it(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    document, _ = await submitted(doctor, owner.patient)
    await patched(doctor, document, status("superseded"))
    assert (await patched(owner, document, status("current"))).status_code == 403
    assert (await patched(doctor, document, status("current"))).status_code == 200


@pytest.mark.requirement("DOC-20")
@pytest.mark.parametrize("whose", ["mine", "theirs", "replaced again"])
async def test_what_a_withdrawn_document_took_the_place_of_is_current_again(world: World, whose: str) -> None:
    owner, doctor, other = await world.patient(), await world.professional(), await world.professional()
    await world.consent(owner, doctor)
    old, _ = await submitted(doctor if whose != "theirs" else other, owner.patient)
    new, _ = await submitted(doctor, owner.patient, relatesTo=[relation("replaces", old)])
    if whose == "replaced again":
        assert (await patched(doctor, old, status("current"))).status_code == 200
        await submitted(doctor, owner.patient, relatesTo=[relation("replaces", old)])
    assert await status_of(owner, old) == "superseded"
    answer = await patched(doctor, new, status("entered-in-error"))
    assert answer.status_code == 200, answer.text
    assert await status_of(owner, old) == ("current" if whose == "mine" else "superseded")
