"""What is hidden is not told by what is made beside it, by how often the database is asked, or by asking after what is gone."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.api.long_binary import LongBinary
from gateway.problem import Problem
from tests.documents.papers import ids_of, pdf
from tests.documents.submissions import submission
from tests.documents.test_publication import PROFILES, publication
from tests.world import World, concept, consent, document

VISIBILITY = "https://mos.esante.gouv.fr/NOS/TRE_A07-StatutVisibiliteDocument/FHIR/TRE-A07-StatutVisibiliteDocument"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"


@pytest.mark.parametrize("where", ["securityLabel", "meta"])
async def test_the_set_made_for_a_document_is_hidden_with_it(world: World, where: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    label: dict[str, Any] = concept(VISIBILITY, "INVISIBLE_PATIENT")
    sent = publication(owner.patient, pdf(), PROFILES[0], securityLabel=[concept(CONFIDENTIALITY, "N")])
    if where == "meta":
        sent["meta"]["security"] = label["coding"]
    else:
        sent["securityLabel"].append(label)
    made = await doctor.create(sent)
    assert (await owner.get(f"DocumentReference/{made['id']}")).status_code == 404
    assert await owner.search(f"List?patient={owner.patient}") == []
    assert len(await doctor.search(f"List?patient={owner.patient}")) == 1


async def test_a_set_is_hidden_by_a_label_without_a_code(world: World) -> None:
    owner, doctor, service = await world.patient(), await world.professional(), await world.service()
    await world.consent(owner, service)
    await doctor.create(publication(owner.patient, pdf(), PROFILES[0], securityLabel=[{"text": "ask first"}]))
    assert await service.search(f"List?patient={owner.patient}") == []
    assert len(await owner.search(f"List?patient={owner.patient}")) == 1


@pytest.mark.parametrize(
    "path",
    [
        "Observation/$glucose-series?patient={}",
        "Observation/$glucose-stats?patient={}&start=2026-01-01&end=2026-01-02",
        "Observation/$lastn?patient={}&code=a,b,c",
        "?_type=Observation,DocumentReference,List&patient={}",
    ],
)
async def test_who_is_not_here_is_looked_for_as_often_as_who_may_not_be_seen(world: World, path: str) -> None:
    owner, stranger = await world.patient(), await world.professional()
    nobody = owner.patient[:-1] + ("0" if owner.patient[-1] != "0" else "1")
    hidden, absent = [await world.calls_of(lambda one=one: stranger.get(path.format(one))) for one in (owner.patient, nobody)]
    assert hidden == absent


async def test_of_what_another_organization_withdrew_nobody_is_told(world: World) -> None:
    """Two organizations, the same software, systems that act by themselves."""
    owner, reader = await world.patient(), await world.professional()
    await world.relation(owner, reader)
    here, there = [(await world.service()).reference for _ in range(2)]
    one, other = [await world.actor("professional", "system/*.cruds", "same-software", each) for each in (here, there)]
    made = await one.create(document(owner.patient))
    await reader.get(f"DocumentReference/{made['id']}")
    path = f"DocumentReference/{made['id']}/$withdraw"
    assert (await one.post(path, None)).status_code == 200
    assert (await other.post(path, None)).status_code == 404
    assert "opened" in (await one.post(path, None)).text


async def test_of_what_an_app_withdrew_elsewhere_it_is_not_told_on_another_phone(world: World) -> None:
    owner, other = await world.patient(), await world.patient()
    scope = "patient/DocumentReference.cruds"
    paired = await world.app(owner, scope)
    phone, another = [
        await world.actor("app", scope, "app-of-many", paired.reference, patient=one.patient) for one in (owner, other)
    ]
    for action in ("access", "collect", "correct"):
        await world.consent(owner, phone, action)
    made = await phone.create(document(owner.patient))
    path = f"DocumentReference/{made['id']}/$withdraw"
    assert (await phone.post(path, None)).status_code == 200
    assert (await another.post(path, None)).status_code == 404
    assert (await phone.post(path, None)).status_code == 200


async def test_bytes_that_come_one_by_one_cost_no_more() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"a":[' + b"," * 30_000
        for _ in range(2_000):
            yield b","

    begun = time.process_time()
    with pytest.raises(Problem):
        await LongBinary(pieces()).begin()
    assert time.process_time() - begun < 2  # (looked at each time, it would be half a minute)


async def test_the_set_that_a_producer_sends_is_hidden_with_its_document(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    hiding = [concept(CONFIDENTIALITY, "N"), concept(VISIBILITY, "INVISIBLE_PATIENT")]
    sent = submission(owner.patient, securityLabel=hiding)
    made = ids_of(await doctor.post("", sent))
    for path in (*made, f"List?patient={owner.patient}", f"Patient/{owner.patient}/$everything?_type=List,DocumentReference"):
        answer = await owner.get(path)
        assert answer.status_code == 404 or answer.json()["total"] == 0, (path, answer.text)
    [found] = await doctor.search(f"List?patient={owner.patient}")
    assert [one["code"] for one in found["meta"]["security"]] == ["INVISIBLE_PATIENT"]
    outcome = (await doctor.post("List/$validate", found)).json()
    assert [issue["severity"] for issue in outcome["issue"]] == ["information"], outcome
    # It is known when it comes again, in whatever bytes.
    before = await world.fingerprint()
    for again in (sent, json.loads(json.dumps(sent, sort_keys=True))):
        answer = await doctor.post("", again)
        assert [one["response"]["status"][:3] for one in answer.json()["entry"]] == ["200"] * 3, answer.text
    assert await world.fingerprint() == before


async def test_a_set_of_documents_that_nothing_hides_is_as_it_was_sent(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await doctor.post("", submission(owner.patient))
    [found] = await owner.search(f"List?patient={owner.patient}")
    assert "security" not in found["meta"]


@pytest.mark.parametrize("kind", ["DocumentReference", "Observation"])
async def test_a_feed_does_not_tell_strangers_that_they_are_refused(world: World, kind: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    begun = await doctor.get(f"{kind}/$changes?patient={owner.patient}")
    following = begun.json()["link"][1]["url"]
    refusal = await owner.create(consent(owner, doctor, type="deny"))
    assert (await doctor.get(following)).status_code == 200
    await world.revoke(owner, refusal)
    await world.relation(owner, doctor)
    assert (await doctor.get(following)).status_code == 410  # now there may be something older
