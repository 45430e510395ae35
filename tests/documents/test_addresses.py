"""Where content lies is told as an address at which it can be fetched, wherever a document is shown."""

import pytest

from tests.documents.papers import attaching, deposited, pdf
from tests.world import BASE, World, bundle, entry

pytestmark = pytest.mark.requirement("DOC-13")


async def test_every_way_of_reading_gives_the_whole_address(world: World) -> None:
    owner, content = await world.patient(), pdf()
    document, raw = await deposited(owner, owner.patient, content)
    whole = f"{BASE}/{raw}"
    shown = [(await owner.get(path)).json() for path in (document, f"{document}/_history/1", f"{document}?_elements=content")]
    shown += [one["resource"] for one in (await owner.get(f"{document}/_history")).json()["entry"]]
    for search in ("", "&_elements=content", "&_summary=data"):
        shown += await owner.search(f"DocumentReference?patient={owner.patient}{search}")
    shown += await owner.search(f"?_type=DocumentReference,Observation&patient={owner.patient}")
    listed = await owner.create(
        {
            "resourceType": "List",
            "status": "current",
            "mode": "working",
            "subject": {"reference": f"Patient/{owner.patient}"},
            "entry": [{"item": {"reference": document}}],
        }
    )
    included = await owner.search(f"List?_id={listed['id']}&_include=List:item")
    shown += [one for one in included if one["resourceType"] == "DocumentReference"]
    batch = await owner.post("", bundle("batch", entry("GET", document)))
    shown.append(batch.json()["entry"][0]["resource"])
    assert [one["content"][0]["attachment"]["url"] for one in shown] == [whole] * 10
    assert (await owner.get(whole)).content == content
    assert f'"{raw}"' in str([bytes(one["body"]) for one in await world.stored("DocumentReference", patient=owner.patient)])


async def test_every_way_of_writing_answers_with_it(world: World) -> None:
    owner, content = await world.patient(), pdf()
    document, raw = await deposited(owner, owner.patient, content)
    whole, key = f"{BASE}/{raw}", '"a-key-of-this-test"'
    sent = attaching(owner.patient, raw)
    created = [await owner.post("DocumentReference", sent, Idempotency_Key=key) for _ in range(2)]
    assert created[1].headers["idempotency-replayed"] == "true"
    stored = (await owner.get(document)).json()
    updated = await owner.put(document, {**stored, "status": "superseded"})
    known = await owner.post("DocumentReference", {**sent, "masterIdentifier": {"system": "urn:x", "value": whole}})
    again = await owner.post(
        "DocumentReference", {**sent, "masterIdentifier": {"system": "urn:x", "value": whole}}, Prefer="return=representation"
    )
    for answer in (*created, updated, known, again):
        assert answer.is_success, answer.text
        assert answer.json()["content"][0]["attachment"]["url"] == whole


async def test_what_was_sent_as_the_whole_address_is_stored_without_it_and_found_by_both(world: World) -> None:
    owner = await world.patient()
    _, raw = await deposited(owner, owner.patient, pdf())
    await owner.create(attaching(owner.patient, f"{BASE}/{raw}"))
    for url in (raw, f"{BASE}/{raw}"):
        assert len(await owner.search(f"DocumentReference?patient={owner.patient}&location={url}")) == 2


async def test_no_other_element_is_touched(world: World) -> None:
    owner = await world.patient()
    _, raw = await deposited(owner, owner.patient, pdf())
    text = f'"url":"{raw}'
    sent = attaching(owner.patient, raw, description=text, extension=[{"url": "https://x.example/e", "valueString": raw}])
    created = await owner.create(sent)
    assert (created["description"], created["extension"]) == (text, sent["extension"])
