"""A document that was deposited for the wrong patient leaves every view at once; its depositor is told who has seen it."""

import asyncio
import json
from base64 import b64encode
from functools import partial
from typing import Any

from gateway.exchange.contents import CHUNK
from tests.documents.papers import attaching, deposit, deposited, ids_of, pdf, send_raw
from tests.documents.submissions import submission
from tests.world import Actor, World, bundle, consent, document, entry, issues, unique

SECRET = "Monsieur Quelqu'un d'autre"


async def told(actor: Actor, made: str) -> dict[str, list[Any]]:
    """The parameters of the answer to a withdrawal, by name."""
    answer = await actor.post(f"{made}/$withdraw", None)
    assert answer.status_code == 200, answer.text
    found: dict[str, list[Any]] = {}
    for parameter in answer.json()["parameter"]:
        value = parameter.get("part") or next(v for name, v in parameter.items() if name.startswith("value"))
        found.setdefault(parameter["name"], []).append(value)
    return found


def parts(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {part["name"]: next(v for name, v in part.items() if name.startswith("value")) for part in found}


async def wrong_one(world: World, **elements: Any) -> tuple[Actor, Actor, str, str]:
    """A patient, who deposited for them what is of somebody else, the document and its content."""
    owner, doctor = await world.patient(), await world.professional()
    made, raw = await deposited(doctor, owner.patient, pdf(), description=SECRET, **elements)
    return owner, doctor, made, raw


async def views(owner: Actor, made: str, raw: str) -> list[tuple[int, Any]]:
    """What every way to look at a document says."""
    _, identifier = made.split("/")
    ghost = "x" * len(identifier)
    paths = [
        made,
        f"{made}/_history",
        f"{made}/_history/1",
        f"{made}/_history/2",
        f"{made}/$meta",
        raw,
        f"{raw}/_history/1",
        f"DocumentReference?_id={identifier}",
        f"DocumentReference?patient={owner.patient}",
        f"DocumentReference?patient={owner.patient}&_summary=count",
        f"DocumentReference?patient={owner.patient}&_lastUpdated=gt2020-01-01",
        f"DocumentReference?patient={owner.patient}&description=Monsieur",
        f"List?patient={owner.patient}&_include=List:item",
        f"List?patient={owner.patient}&item=DocumentReference/{identifier}",
        f"?_type=DocumentReference,List&patient={owner.patient}",
        f"DocumentReference/$docref?patient={owner.patient}",
        f"Patient/{owner.patient}/$everything?_type=DocumentReference,List",
        f"DocumentReference/$changes?patient={owner.patient}&count=100",
    ]
    found = []
    for path in paths:
        answer = await owner.get(path)
        text = answer.text.replace(identifier, ghost).replace(raw.split("/")[1], ghost).replace(owner.patient, ghost)
        body = json.loads(text)
        for name in ("meta", "id", *(["link"] if "$" in path else [])):  # (a cursor is never twice the same)
            body.pop(name, None)
        found.append((answer.status_code, body))
    return found


async def test_it_is_as_if_it_had_never_been_there(world: World) -> None:
    owner, doctor, made, raw = await wrong_one(world)
    empty = await world.patient()
    await owner.put(made, {**(await owner.get(made)).json(), "status": "superseded"})
    assert len((await owner.get(f"{made}/_history")).json()["entry"]) == 2
    found = await told(doctor, made)
    assert {one["reference"] for one in found["withdrawn"]} == {made, raw}
    ghosts = [f"{name}/{world.gateway.ids.new(empty.patient[:3])}" for name in ("DocumentReference", "Binary")]
    assert await views(owner, made, raw) == await views(empty, *ghosts)
    for change in (owner.delete(made), owner.put(made, {**document(owner.patient), "id": made.split("/")[1]})):
        assert (await change).status_code in (404, 405)


async def test_others_cannot_tell_it_from_what_never_was(world: World) -> None:
    owner, doctor, made, raw = await wrong_one(world)
    await told(doctor, made)
    for actor in (owner, doctor, await world.professional(), await world.app(owner, "patient/*.rs")):
        for one in (made, raw):
            ghost = f"{one.split('/')[0]}/{world.gateway.ids.new(owner.patient[:3])}"
            answers = [await actor.get(each) for each in (one, ghost)]
            assert [answer.status_code for answer in answers] == [answers[0].status_code] * 2
            assert answers[0].content == answers[1].content
            calls = [min([await world.calls_of(partial(actor.get, each)) for _ in range(2)]) for each in (one, ghost)]
            assert calls[0] == calls[1]


async def test_nothing_that_it_said_lies_anywhere(world: World) -> None:
    owner, doctor, made, _ = await wrong_one(world, identifier=[{"system": "urn:x", "value": "nss-of-another"}])
    await told(doctor, made)
    for name in await world.gateway.mongo.collections():
        for stored in await world.stored(name, bucket=owner.patient[:3]):
            text = repr(stored)
            assert SECRET not in text, name
            assert "nss-of-another" not in text, name
    (stone,) = await world.stored("DocumentReference", _id=made.split("/")[1])
    assert stone.keys() == {"_id", "bucket", "version", "updated", "source", "commit", "search", "withdrawn", "deleted"}
    assert stone["search"] == {}


async def test_its_depositor_is_told_who_has_seen_it(world: World) -> None:
    owner, doctor, made, raw = await wrong_one(world)
    reader, lister, feeder, stranger = [await world.professional() for _ in range(4)]
    proxy = await world.proxy(owner)
    for actor in (reader, lister, feeder):
        await world.consent(owner, actor)
    await reader.get(raw)
    await reader.get(made)
    await lister.get(f"DocumentReference?patient={owner.patient}")
    await feeder.get(f"DocumentReference/$changes?patient={owner.patient}")
    await stranger.get(made)
    await stranger.get(f"DocumentReference?patient={owner.patient}")
    await proxy.get(f"{made}/_history")
    await owner.get("Observation")
    found = await told(doctor, made)
    opened = {parts(one)["kind"]: parts(one) for one in found["opened"]}
    assert opened.keys() == {"professional", "proxy"}
    assert opened["professional"]["user"] == {"reference": reader.reference, "display": "Ana Martin"}
    assert opened["professional"]["times"] == 2
    assert opened["professional"]["first"] <= opened["professional"]["last"]
    assert opened["proxy"].keys() == {"kind", "first", "last", "times"}
    assert {parts(one)["user"]["reference"] for one in found["listed"]} == {lister.reference, feeder.reference}
    told_of = json.dumps(found)
    for nobody in (stranger.reference, proxy.reference, owner.patient, "Durand"):
        assert nobody not in told_of


async def test_who_searched_and_was_not_shown_it_is_not_told(world: World) -> None:
    """That somebody looked for other documents is theirs and the patient's, not the depositor's."""
    owner, doctor, made, _ = await wrong_one(world)
    seekers = [await world.professional() for _ in range(4)]
    for actor in seekers:
        await world.consent(owner, actor)
    shown, other, paged, whole = seekers
    patient = owner.patient
    await shown.get(f"DocumentReference?patient={patient}")
    await other.get(f"DocumentReference?patient={patient}&type=http://loinc.org|18842-5")
    await other.get(f"List?patient={patient}&_include=List:item")
    await owner.create(attaching(patient, "https://elsewhere.example/a", date="2031-01-01T00:00:00Z"))
    await paged.get(f"DocumentReference?patient={patient}&_sort=-date&_count=1")
    await whole.get(f"Patient/{patient}/$everything?_type=DocumentReference")
    found = await told(doctor, made)
    seen = {parts(one)["user"]["reference"] for one in found["listed"]}
    assert seen == {shown.reference, whole.reference}


async def test_who_asks_again_is_told_again(world: World) -> None:
    owner, doctor, made, _ = await wrong_one(world)
    await owner.get(made)
    first = await told(doctor, made)
    assert await told(doctor, made) == first
    assert [parts(one)["kind"] for one in first["opened"]] == ["patient"]
    colleague = await world.professional()
    assert (await colleague.post(f"{made}/$withdraw", None)).status_code == 404


async def test_only_who_deposited_it_withdraws_it(world: World) -> None:
    """Nor does a colleague with the same software, nor the patient whose record it is in."""
    owner = await world.patient()
    software = unique("software")
    created = [(await world.professional()).reference for _ in range(2)]
    doctor, colleague = [
        await world.actor("professional", "user/*.cruds", software, reference, user=reference) for reference in created
    ]
    made, raw = await deposited(doctor, owner.patient, pdf())
    assert (await colleague.post(f"{made}/$withdraw", None)).status_code == 404
    assert (await owner.post(f"{made}/$withdraw", None)).status_code == 403
    await world.consent(owner, colleague)
    refused = await colleague.post(f"{made}/$withdraw", None)
    assert (refused.status_code, issues(refused)[0]["code"]) == (403, "forbidden")
    assert (await owner.get(raw)).status_code == 200
    narrow = await world.actor("professional", "user/*.crds", software, created[0], user=created[0])
    assert (await narrow.post(f"{made}/$withdraw", None)).status_code == 403
    elsewhere = await world.actor("professional", "user/*.cruds", None, created[0], user=created[0])
    assert "opened" in await told(elsewhere, made)  # the same person, with other software
    assert (await owner.get(raw)).status_code == 404


async def test_it_does_not_hang_on_what_the_patient_permits_by_now(world: World) -> None:
    owner, doctor, made, _ = await wrong_one(world)
    await owner.create(consent(owner, doctor, "collect", None, type="deny"))
    assert (await doctor.post("DocumentReference", document(owner.patient))).status_code == 422
    await told(doctor, made)
    assert (await owner.get(made)).status_code == 404


async def test_the_record_s_log_says_so_without_saying_what(world: World) -> None:
    owner, doctor, made, raw = await wrong_one(world)
    await told(doctor, made)
    events = await owner.search(f"AuditEvent?action=D&patient={owner.patient}")
    (withdrawal,) = events
    assert {e["what"].get("reference") for e in withdrawal["entity"]} >= {made, raw}
    assert any(a.get("who", {}).get("reference") == doctor.reference for a in withdrawal["agent"])
    assert SECRET not in json.dumps(await owner.search(f"AuditEvent?patient={owner.patient}&_count=100"))


async def test_content_that_something_else_attaches_stays(world: World) -> None:
    owner, doctor, made, raw = await wrong_one(world)
    other = await doctor.create(attaching(owner.patient, raw))
    found = await told(doctor, made)
    assert [one["reference"] for one in found["withdrawn"]] == [made]
    assert (await owner.get(raw)).status_code == 200
    assert {one["reference"] for one in (await told(doctor, f"DocumentReference/{other['id']}"))["withdrawn"]} == {
        f"DocumentReference/{other['id']}",
        raw,
    }
    assert (await owner.get(raw)).status_code == 404


async def test_the_list_that_came_with_it_goes_too(world: World) -> None:
    owner, doctor, made, _ = await wrong_one(world)
    other = await doctor.create(document(owner.patient))

    def listing(*items: str) -> dict[str, Any]:
        entries = [{"item": {"reference": one}} for one in items]
        subject = {"reference": f"Patient/{owner.patient}"}
        return {"resourceType": "List", "status": "current", "mode": "working", "subject": subject, "entry": entries}

    alone = await doctor.create(listing(made))
    both = await doctor.create(listing(made, f"DocumentReference/{other['id']}"))
    of_another = await owner.create(listing(made))
    found = await told(doctor, made)
    assert f"List/{alone['id']}" in {one["reference"] for one in found["withdrawn"]}
    states = [(await owner.get(f"List/{one['id']}")).status_code for one in (alone, both, of_another)]
    assert states == [404, 200, 200]


async def test_it_is_not_taken_for_the_same_patient_again_but_for_the_right_one(world: World) -> None:
    owner, right, doctor = await world.patient(), await world.patient(), await world.professional()
    content = pdf()
    sent = deposit(owner.patient, content)
    made = (await doctor.post("", sent)).json()["entry"][0]["response"]["location"].partition("/_history")[0]
    await told(doctor, made)
    again = await doctor.post("", sent)
    assert (again.status_code, issues(again)[0]["code"]) == (422, "business-rule")
    _, raw = await deposited(doctor, right.patient, content)
    assert (await right.get(raw)).content == content


def replacing(owner: str, target: str) -> dict[str, Any]:
    return document(owner, relatesTo=[{"code": "replaces", "target": {"reference": target}}])


async def superseded(world: World, doctor: Actor, owner: Actor, made: str) -> str:
    """A document that takes the place of another, as a depositor replaces it."""
    patch = [{"op": "replace", "path": "/status", "value": "superseded"}]
    binary = {"contentType": "application/json-patch+json", "data": b64encode(json.dumps(patch).encode()).decode()}
    parts = [
        entry("POST", "DocumentReference", replacing(owner.patient, made)),
        entry("PATCH", made, {"resourceType": "Binary", **binary}),
    ]
    answer = await doctor.post("", bundle("transaction", *parts))
    assert answer.status_code == 200, answer.text
    assert (await owner.get(made)).json()["status"] == "superseded"
    return str(answer.json()["entry"][0]["response"]["location"].partition("/_history")[0])


async def test_what_it_took_the_place_of_is_current_again(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    right = f"DocumentReference/{(await doctor.create(document(owner.patient)))['id']}"
    wrong = await superseded(world, doctor, owner, right)
    found = await told(doctor, wrong)
    assert found["restored"] == [{"reference": right}]
    assert (await owner.get(right)).json()["status"] == "current"
    assert [d["id"] for d in await owner.search(f"DocumentReference?patient={owner.patient}&status=current")] == [right[18:]]
    assert "restored" in await told(doctor, wrong)


async def test_what_another_took_the_place_of_too_stays_superseded(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    right = f"DocumentReference/{(await doctor.create(document(owner.patient)))['id']}"
    wrong = await superseded(world, doctor, owner, right)
    (stored,) = await world.stored("DocumentReference", _id=wrong[18:])
    other = await owner.create(document(owner.patient))
    relation = {"search.relationship": stored["search"]["relationship"]}
    await world.gateway.mongo.change("DocumentReference", {"_id": other["id"]}, {"$set": relation})
    found = await told(doctor, wrong)
    assert "restored" not in found
    assert (await owner.get(right)).json()["status"] == "superseded"


async def test_a_scope_that_lets_change_documents_is_enough(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional("user/DocumentReference.cu user/Binary.c")
    made, raw = await deposited(doctor, owner.patient, pdf())
    assert {one["reference"] for one in (await told(doctor, made))["withdrawn"]} == {made, raw}
    assert (await owner.get(raw)).status_code == 404


async def test_what_was_declared_a_mistake_before_is_withdrawn_too(world: World) -> None:
    owner, doctor, made, raw = await wrong_one(world)
    patch = [{"op": "replace", "path": "/status", "value": "entered-in-error"}]
    done = await doctor.send("PATCH", made, patch, Content_Type="application/json-patch+json")
    assert done.status_code == 200, done.text
    assert (await owner.get(made)).status_code == 410
    await told(doctor, made)
    assert [(await owner.get(one)).status_code for one in (made, raw)] == [404, 404]
    for name in await world.gateway.mongo.collections():
        assert SECRET not in repr(await world.stored(name, bucket=owner.patient[:3])), name


async def test_a_whole_submission_goes_and_is_not_taken_again(world: World) -> None:
    owner, doctor, right = await world.patient(), await world.professional(), await world.patient()
    sent = submission(owner.patient, description=SECRET)
    made = ids_of(await doctor.post("", sent))
    found = await told(doctor, next(one for one in made if one.startswith("DocumentReference/")))
    assert {one["reference"] for one in found["withdrawn"]} == set(made)
    assert {(await owner.get(one)).status_code for one in made} == {404}
    again = await doctor.post("", sent)
    assert (again.status_code, issues(again)[0]["code"]) == (422, "business-rule")
    assert await owner.search(f"List?patient={owner.patient}") == []
    elsewhere = submission(right.patient, masterIdentifier=sent["entry"][1]["resource"]["masterIdentifier"])
    assert len(ids_of(await doctor.post("", elsewhere))) == len(made)


async def test_a_long_content_goes_as_well(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent = await send_raw(doctor, pdf(2 * CHUNK), X_Security_Context=f"Patient/{owner.patient}")
    raw = f"Binary/{sent.json()['id']}"
    made = f"DocumentReference/{(await doctor.create(attaching(owner.patient, raw)))['id']}"
    await told(doctor, made)
    assert (await owner.get(raw)).status_code == 404


async def test_of_many_at_once_one_withdraws_and_all_are_told(world: World) -> None:
    owner, doctor, made, _ = await wrong_one(world)
    stored = (await owner.get(made)).json()
    changes = [owner.put(made, {**stored, "description": f"{n}"}) for n in range(4)]
    withdrawals = [doctor.post(f"{made}/$withdraw", None) for _ in range(4)]
    answers = await asyncio.gather(*changes, *withdrawals)
    assert {answer.status_code for answer in answers[4:]} == {200}
    assert {answer.status_code for answer in answers[:4]} <= {200, 404, 405}
    assert (await owner.get(made)).status_code == 404
    assert await world.stored("DocumentReference_history", id=made.split("/")[1]) == []
    events = await owner.search(f"AuditEvent?action=D&patient={owner.patient}")
    assert len(events) == 4


async def test_a_reader_of_another_system_names_its_role_and_place(world: World) -> None:
    owner, doctor, made, _ = await wrong_one(world)
    clinic = (await world.service()).reference
    reader = (await world.professional()).reference
    role = "urn:oid:1.2.250.1.213.1.1.5.5|10"
    system = await world.actor("professional", "user/*.rs", None, reader, user=reader, roles=(role,), organization=clinic)
    await world.consent(owner, system)
    assert (await system.get(made)).status_code == 200
    (opened,) = map(parts, (await told(doctor, made))["opened"])
    assert opened["role"] == {"system": "urn:oid:1.2.250.1.213.1.1.5.5", "code": "10"}
    assert opened["organization"] == {"reference": clinic, "display": "Clinic"}


async def test_a_key_that_was_used_for_it_brings_nothing_back(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await world.consent(owner, doctor)
    sent, key = {**document(owner.patient), "description": SECRET}, unique()
    first = await doctor.post("DocumentReference", sent, Idempotency_Key=key)
    await told(doctor, f"DocumentReference/{first.json()['id']}")
    again = await doctor.post("DocumentReference", sent, Idempotency_Key=key)
    assert SECRET not in again.text
    assert await owner.search(f"DocumentReference?patient={owner.patient}") == []
