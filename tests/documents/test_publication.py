"""A document that comes alone with its content (IHE MHD ITI-105) becomes what a submission of it would be."""

from typing import Any

import pytest

from tests.documents.papers import PDF, binary, pdf, sha1
from tests.documents.submissions import MHD, PDSM, fiche
from tests.world import World, expression, issues

PROFILES = [f"{MHD}IHE.MHD.SimplifiedPublish.DocumentReference", f"{PDSM}pdsm-simplified-publish"]


def publication(owner: str, content: bytes, profile: str, **elements: Any) -> dict[str, Any]:
    """A DocumentReference with its content in it."""
    found = fiche(owner, "", content, meta={"profile": [profile]}, **elements)
    attachment = found["content"][0]["attachment"]
    del attachment["url"]
    attachment["data"] = binary(content)["data"]
    return found


@pytest.mark.requirement("DOC-16")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("size", [200, 60_000])
async def test_it_becomes_content_a_fiche_and_a_submission_set(world: World, profile: str, size: int) -> None:
    owner, doctor, content = await world.patient(), await world.professional(), pdf(size)
    answer = await doctor.post("DocumentReference", publication(owner.patient, content, profile))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"].endswith(f"/DocumentReference/{made['id']}/_history/1")
    attachment = made["content"][0]["attachment"]
    assert "data" not in attachment
    assert (attachment["size"], attachment["hash"]) == (size, sha1(content))
    raw = await owner.get(attachment["url"])
    assert (raw.headers["content-type"], raw.content) == (PDF, content)
    (sent,) = await owner.search(f"List?patient={owner.patient}")
    assert sent["code"]["coding"][0]["code"] == "submissionset"
    assert [one["item"]["reference"] for one in sent["entry"]] == [f"DocumentReference/{made['id']}"]
    assert sent["subject"] == {"reference": f"Patient/{owner.patient}"}
    for resource in (made, sent):
        outcome = (await owner.post(f"{resource['resourceType']}/$validate", resource)).json()
        assert [issue["severity"] for issue in outcome["issue"]] == ["information"], outcome


@pytest.mark.requirement("DOC-18")
async def test_it_is_known_when_it_comes_again(world: World) -> None:
    owner, doctor, content = await world.patient(), await world.professional(), pdf()
    sent = publication(owner.patient, content, PROFILES[1])
    first = await doctor.post("DocumentReference", sent)
    before = await world.fingerprint()
    for again in (sent, {**sent, "language": None}):
        again = {name: value for name, value in sorted(again.items()) if value is not None}
        answer = await doctor.post("DocumentReference", again)
        assert (answer.status_code, answer.headers["location"]) == (200, first.headers["location"])
    other = await doctor.post("DocumentReference", sent | {"description": "another"})
    assert (other.status_code, expression(other)) == (409, "DocumentReference.masterIdentifier")
    assert await world.fingerprint() == before


@pytest.mark.requirement("DOC-16")
async def test_what_it_must_say_is_missed_by_its_name(world: World) -> None:
    owner, doctor, content = await world.patient(), await world.professional(), pdf()
    for name in ("masterIdentifier", "custodian", "date", "author"):
        sent = publication(owner.patient, content, PROFILES[1])
        del sent[name]
        answer = await doctor.post("DocumentReference", sent)
        assert (answer.status_code, str(expression(answer)).startswith(f"DocumentReference.{name}")) == (422, True), answer.text
    wrong = publication(owner.patient, content, PROFILES[1])
    wrong["content"][0]["attachment"]["hash"] = sha1(b"another")
    answer = await doctor.post("DocumentReference", wrong)
    assert (answer.status_code, expression(answer)) == (422, "DocumentReference.content[0].attachment.hash")
    for one in ("DocumentReference", "Binary", "List", "contents"):
        assert await world.stored(one, patient=owner.patient) == []


@pytest.mark.requirement("DOC-16")
async def test_it_may_replace_and_name_its_patient_by_identifier(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    first = await doctor.create(publication(owner.patient, pdf(), PROFILES[0]))
    token = (await owner.get(f"Patient/{owner.patient}")).json()["identifier"][0]
    relates = [{"code": "replaces", "target": {"reference": f"DocumentReference/{first['id']}"}}]
    sent = publication(owner.patient, pdf(), PROFILES[0], relatesTo=relates)
    sent["subject"] = {"reference": f"Patient?identifier={token['system']}|{token['value']}"}
    second = await doctor.create(sent)
    assert second["subject"] == {"reference": f"Patient/{owner.patient}"}
    assert (await owner.get(f"DocumentReference/{first['id']}")).json()["status"] == "superseded"
    sent["subject"]["reference"] += "0"
    answer = await doctor.post("DocumentReference", sent)
    assert (answer.status_code, issues(answer)[0]["code"]) == (412, "not-found")


async def test_the_submission_set_takes_the_scope_to_make_it(world: World) -> None:
    owner = await world.patient()
    doctor = await world.professional("user/DocumentReference.c")
    answer = await doctor.post("DocumentReference", publication(owner.patient, pdf(), PROFILES[0]))
    assert (answer.status_code, issues(answer)[0]["code"]) == (403, "forbidden")
    assert await world.stored("DocumentReference", patient=owner.patient) == []


@pytest.mark.requirement("DOC-20")
@pytest.mark.parametrize("profile", PROFILES)
async def test_its_author_withdraws_it_whatever_profile_it_claims(world: World, profile: str) -> None:
    """The profiles know current and superseded alone; that it is withdrawn is said all the same, and of nothing new."""
    owner, doctor = await world.patient(), await world.professional()
    made = await doctor.create(publication(owner.patient, pdf(), profile))
    path = f"DocumentReference/{made['id']}"
    gone = [{"op": "replace", "path": "/status", "value": "entered-in-error"}]
    answers = [await one.send("PATCH", path, gone, Content_Type="application/json-patch+json") for one in (owner, doctor)]
    assert [answer.status_code for answer in answers] == [403, 200], answers[1].text
    assert [(await one.get(path)).status_code for one in (owner, doctor)] == [410, 410]
    wrong = publication(owner.patient, pdf(), profile) | {"status": "entered-in-error"}
    assert (await doctor.post("DocumentReference", wrong)).status_code == 422
