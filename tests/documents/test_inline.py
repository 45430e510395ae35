"""Data in a resource is content like any other, however short: sealed with the patient's key, and gone with it."""

import json
from base64 import b64encode
from typing import Any

import pytest

from tests.documents.papers import PDF, attaching, binary, pdf, sha1
from tests.world import Actor, World, bundle, concept, document, entry, expression, issues

SECRET = b"HIV positive, says nobody but this"
PATCH = "application/json-patch+json"


def note(content: bytes = SECRET, **elements: Any) -> dict[str, Any]:
    return {"contentType": "text/plain", "data": b64encode(content).decode(), **elements}


def report(owner: Actor, *attachments: dict[str, Any], **elements: Any) -> dict[str, Any]:
    return {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": concept("http://loinc.org", "11502-2"),
        "subject": {"reference": f"Patient/{owner.patient}"},
        **({"presentedForm": list(attachments)} if attachments else {}),
        **elements,
    }


async def lies_nowhere(world: World, content: bytes = SECRET) -> None:
    """No collection has these bytes, as they are or in base64."""
    for name in await world.gateway.mongo.collections():
        for stored in await world.stored(name):
            whole = b"".join(bytes(v) if isinstance(v, bytes) else repr(v).encode() for v in stored.values())
            assert content not in whole, name
            assert b64encode(content)[:40] not in whole, name


async def shown(owner: Actor, resource: dict[str, Any]) -> bytes:
    """What the first attachment of a resource gives."""
    attachment = resource["content"][0]["attachment"] if "content" in resource else resource["presentedForm"][0]
    assert "data" not in attachment
    answer = await owner.get(attachment["url"])
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_short_data_is_sealed_however_it_comes(world: World) -> None:
    owner = await world.patient()
    single = await owner.create(document(owner.patient, content=[{"attachment": note(size=len(SECRET), hash=sha1(SECRET))}]))
    made = await owner.create(report(owner))
    path = f"DiagnosticReport/{made['id']}"
    renewed = await owner.put(path, {**made, "presentedForm": [note(SECRET + b"1")]})
    assert renewed.status_code == 200, renewed.text
    patch = [{"op": "replace", "path": "/presentedForm/0", "value": note(SECRET + b"2")}]
    assert (await owner.get(f"{path}/_history/1")).status_code == 200
    patched = await owner.send("PATCH", path, patch, Content_Type=PATCH)
    assert patched.status_code == 200, patched.text
    batch = bundle("batch", entry("POST", "DiagnosticReport", report(owner, note(SECRET + b"3"))))
    answered = (await owner.send("POST", "", batch, Prefer="return=representation")).json()["entry"][0]
    escaped = json.dumps(report(owner, note(SECRET + b"4"))).replace('"data"', '"d\\u0061ta"')
    strange = (await owner.send("POST", "DiagnosticReport", escaped.encode())).json()
    await lies_nowhere(world)
    assert await shown(owner, single) == SECRET
    assert await shown(owner, renewed.json()) == SECRET + b"1"
    assert await shown(owner, patched.json()) == SECRET + b"2"
    assert await shown(owner, answered["resource"]) == SECRET + b"3"
    assert await shown(owner, strange) == SECRET + b"4"
    found = (await owner.get(f"DiagnosticReport?patient={owner.patient}&_id={made['id']}")).json()["entry"][0]["resource"]
    assert await shown(owner, found) == SECRET + b"2"
    former = (await owner.get(f"{path}/_history/2")).json()
    assert await shown(owner, former) == SECRET + b"1"


async def test_the_same_again_is_known(world: World) -> None:
    owner = await world.patient()
    named = {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.3.4.5.6"}
    sent = document(owner.patient, masterIdentifier=named, content=[{"attachment": note()}])
    statuses = [(await owner.post("DocumentReference", one)).status_code for one in (sent, sent, {**sent, "language": "fr"})]
    respelt = json.dumps(sent, indent=3).encode()
    statuses.append((await owner.send("POST", "DocumentReference", respelt)).status_code)
    assert statuses == [201, 200, 409, 200]
    assert len(await world.stored("Binary", patient=owner.patient)) == 1


async def test_what_a_version_attached_is_read_with_it_as_long_as_rights_to_it_are_the_same(world: World) -> None:
    owner = await world.patient()
    made = await owner.create(report(owner, note()))
    url = made["presentedForm"][0]["url"]
    answer = await owner.put(f"DiagnosticReport/{made['id']}", {**made, "presentedForm": [note(b"corrected")]})
    assert (await owner.get(url)).content == SECRET
    other = {**answer.json(), "code": concept("http://loinc.org", "18842-5")}
    assert (await owner.put(f"DiagnosticReport/{made['id']}", other)).status_code == 200
    assert (await owner.get(url)).status_code == 404
    assert (await owner.get(answer.json()["presentedForm"][0]["url"])).content == b"corrected"


@pytest.mark.requirement("DOC-06")
async def test_a_profile_that_forbids_data_is_held_to_before_it_is_moved(world: World) -> None:
    owner = await world.patient()
    minimal = "https://profiles.ihe.net/ITI/MHD/StructureDefinition/IHE.MHD.Minimal.DocumentReference"
    for content in (SECRET, pdf(40_000)):
        attachment = {**note(content), "contentType": PDF if content[:4] == b"%PDF" else "text/plain"}
        sent = document(owner.patient, meta={"profile": [minimal]}, content=[{"attachment": attachment}])
        answer = await owner.post("DocumentReference", sent)
        assert answer.status_code == 422
        assert expression(answer) == "DocumentReference.content.attachment.data"
    assert await world.stored("Binary", patient=owner.patient) == []


@pytest.mark.parametrize("contained", [binary(SECRET, "text/plain"), attaching("x", "x", None)], ids=["Binary", "attached"])
async def test_no_content_lies_in_what_is_contained(world: World, contained: dict[str, Any]) -> None:
    owner = await world.patient()
    inner = {**contained, "id": "inner"}
    if "content" in inner:
        inner["content"] = [{"attachment": note()}]
        inner["subject"] = {"reference": f"Patient/{owner.patient}"}
    sent = report(owner, contained=[inner], extension=[{"url": "urn:x", "valueReference": {"reference": "#inner"}}])
    for path in ("DiagnosticReport", "DiagnosticReport/$validate"):
        answer = await owner.post(path, sent)
        assert "DiagnosticReport.contained[0]" in [one for i in issues(answer) for one in i.get("expression", ())], answer.text
    assert await world.stored("DiagnosticReport", patient=owner.patient) == []
