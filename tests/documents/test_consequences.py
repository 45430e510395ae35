"""A submission set is hidden and seen with its documents; no List goes on naming what was withdrawn."""

from datetime import timedelta
from typing import Any

import pytest

from tests.documents.papers import binary, ids_of, pdf
from tests.documents.submissions import fiche, name, submission, submission_set
from tests.world import Actor, World, bundle, concept, document, entry

VISIBILITY = "https://mos.esante.gouv.fr/NOS/TRE_A07-StatutVisibiliteDocument/FHIR/TRE-A07-StatutVisibiliteDocument"
MASK = concept(VISIBILITY, "MASQUE_PS")
PATCH = "application/json-patch+json"


async def mask(actor: Actor, made: str, *operations: dict[str, Any]) -> None:
    asked = [*operations] or [{"op": "add", "path": "/securityLabel/-", "value": MASK}]
    answer = await actor.send("PATCH", made, asked, Content_Type=PATCH)
    assert answer.status_code == 200, answer.text


async def sets_seen(actor: Actor, owner: Actor) -> int:
    return len(await actor.search(f"List?patient={owner.patient}&code=submissionset"))


@pytest.mark.requirement("SEC-01")
async def test_a_label_put_on_later_hides_the_submission_set_too(world: World) -> None:
    owner, author, reader = await world.patient(), await world.professional(), await world.professional()
    await world.relation(owner, reader)
    sent, made, _ = ids_of(await author.post("", submission(owner.patient, pdf())))
    assert await sets_seen(reader, owner) == 1
    app = await world.patient_actor(owner.patient, "patient/DocumentReference.cruds")  # not one for Lists
    await mask(app, made)
    assert [(await reader.get(one)).status_code for one in (made, sent, f"{sent}/_history/1")] == [404] * 3
    assert await sets_seen(reader, owner) == 0
    assert (await author.get(sent)).status_code == 200
    found = (await owner.get(sent)).json()
    assert found["meta"]["security"] == MASK["coding"]
    await mask(app, made, {"op": "remove", "path": "/securityLabel/1"})
    assert [(await reader.get(one)).status_code for one in (made, sent)] == [200, 200]
    assert "security" not in (await owner.get(sent)).json()["meta"]
    events = await owner.search(f"AuditEvent?patient={owner.patient}&action=U&_count=100")
    assert sum(sent in [one["what"].get("reference") for one in event["entity"] if "what" in one] for event in events) == 2


def of_two_documents(owner: Actor) -> dict[str, Any]:
    """A submission: its set, and two documents with their contents."""
    parts: list[dict[str, Any]] = []
    names = [name(), name()]
    for one in names:
        content, raw = pdf(), name()
        parts.append(entry("POST", "DocumentReference", fiche(owner.patient, raw, content), full_url=one))
        parts.append(entry("POST", "Binary", binary(content), full_url=raw))
    return bundle("transaction", entry("POST", "List", submission_set(owner.patient, *names)), *parts)


async def test_it_is_seen_again_with_the_last_of_its_documents(world: World) -> None:
    owner, author, reader = await world.patient(), await world.professional(), await world.professional()
    await world.relation(owner, reader)
    first, one, _, other, _ = ids_of(await author.post("", of_two_documents(owner)))
    await mask(owner, one)
    await mask(owner, other)
    await mask(owner, one, {"op": "remove", "path": "/securityLabel/1"})
    assert (await reader.get(first)).status_code == 404
    await mask(owner, other, {"op": "remove", "path": "/securityLabel/1"})
    assert (await reader.get(first)).status_code == 200


async def test_what_is_not_yet_for_the_patient_is_told_by_no_set_and_no_log(world: World) -> None:
    """Put on two documents of one submission, a day apart; what the patient knew before is all that they know."""
    owner, author = await world.patient(), await world.professional()
    await world.relation(owner, author)
    sent, one, _, other, _ = ids_of(await author.post("", of_two_documents(owner)))
    later = {"op": "add", "path": "/securityLabel/-", "value": concept(VISIBILITY, "INVISIBLE_PATIENT")}
    await mask(author, one, later)
    assert (await owner.get(sent)).status_code == 404
    world.clock.ahead += timedelta(days=1)
    await mask(author, other, later)
    assert [(await owner.get(path)).status_code for path in (sent, one, other)] == [404] * 3
    told = (await owner.get(f"AuditEvent?patient={owner.patient}&_count=100&action=U")).text
    assert not [path for path in (sent, one, other) if path in told]
    world.clock.ahead += timedelta(days=90)
    assert (await (await world.patient_actor(owner.patient)).get(one)).status_code == 200


async def test_no_list_of_anybody_names_what_was_withdrawn(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await world.relation(owner, doctor)
    sent, made, _ = ids_of(await doctor.post("", submission(owner.patient, pdf(), description="of somebody else")))
    kept = await doctor.create(document(owner.patient))

    def listing(*items: str) -> dict[str, Any]:
        found = submission_set(owner.patient, *items, code=concept("urn:x", "mine"), title="Mine")
        found["entry"][0]["item"]["display"] = "of somebody else"
        return found

    mine = await owner.create(listing(made, f"DocumentReference/{kept['id']}"))
    path = f"List/{mine['id']}"
    assert (await owner.put(path, {**mine, "title": "Mine still"})).status_code == 200
    alone = await owner.create(listing(made))
    assert (await doctor.post(f"{made}/$withdraw", None)).status_code == 200
    assert (await owner.get(sent)).status_code == 404
    found = (await owner.get(path)).json()
    assert (found["title"], found["meta"]["versionId"]) == ("Mine still", "3")
    assert [one["item"]["reference"] for one in found["entry"]] == [f"DocumentReference/{kept['id']}"]
    assert "entry" not in (await owner.get(f"List/{alone['id']}")).json()
    history = (await owner.get(f"{path}/_history")).json()
    assert [one["resource"]["meta"]["versionId"] for one in history["entry"]] == ["3"]
    assert (await owner.get(f"{path}/_history/1")).status_code == 404
    assert await owner.search(f"List?patient={owner.patient}&item={made}") == []
    for collection in await world.gateway.mongo.collections():
        for stored in await world.stored(collection, bucket=owner.patient[:3]):
            assert "of somebody else" not in repr(stored), collection
    assert (await owner.put(path, {**found, "title": "Mine again"})).status_code == 200
