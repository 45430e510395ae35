"""Who puts labels on and takes them off, until when one hides, and that the others stay (SEC-03, SEC-04, CON-009)."""

from datetime import timedelta
from typing import Any

import pytest

from gateway.exchange.labels import HIDDEN_UNTIL
from tests.documents.papers import deposited, pdf
from tests.security.test_labels_hide import A08, VISIBILITY
from tests.world import Actor, World, document, expression, instant, label, observation

PATCH = "application/json-patch+json"
MASKED, INVISIBLE = label("MASQUE_PS", VISIBILITY), label("INVISIBLE_PATIENT", VISIBILITY)
PARENTS = label("INVISIBLE_REPRESENTANTS_LEGAUX", VISIBILITY)


def bearing(*labels: dict[str, Any]) -> dict[str, Any]:
    return {"securityLabel": [{"coding": [one]} for one in labels]} if labels else {}


async def made(author: Actor, owner: Actor, *labels: dict[str, Any]) -> dict[str, Any]:
    return await author.create(document(owner.patient, **bearing(*labels)))


async def relabel(actor: Actor, stored: dict[str, Any], *labels: dict[str, Any]) -> int:
    """Put the document with these labels in place of the stored one; the status."""
    body = {name: value for name, value in stored.items() if name != "securityLabel"} | bearing(*labels)
    answer = await actor.put(f"DocumentReference/{stored['id']}", body)
    assert answer.status_code in (200, 405) or expression(answer) == "DocumentReference.securityLabel", answer.text
    return answer.status_code


async def team(world: World, owner: Actor) -> tuple[Actor, Actor, Actor]:
    """An author, another professional, and the treating doctor of a patient."""
    author, member, treating = [await world.professional() for _ in range(3)]
    for actor, code in ((author, "care-team"), (member, "care-team"), (treating, "treating-doctor")):
        await world.relation(owner, actor, code)
    return author, member, treating


@pytest.mark.requirement("CON-009")
async def test_who_masks_and_who_takes_the_mask_off(world: World) -> None:
    owner = await world.patient()
    author, member, treating = await team(world, owner)
    for actor, status in ((author, 200), (owner, 200), (await world.proxy(owner), 200), (treating, 200), (member, 403)):
        stored = await made(author, owner)
        assert await relabel(actor, stored, MASKED) == status
    stored = await made(author, owner, MASKED)
    assert await relabel(member, stored) == 405  # there is nothing to be seen
    for actor in (treating, owner, author):
        assert await relabel(actor, await made(author, owner, MASKED)) == 200
    assert (await member.get(f"DocumentReference/{stored['id']}")).status_code == 404
    assert await relabel(owner, stored) == 200
    assert (await member.get(f"DocumentReference/{stored['id']}")).status_code == 200


@pytest.mark.requirement("SEC-02")
async def test_professionals_alone_hide_something_from_the_patient(world: World) -> None:
    owner = await world.patient()
    author, member, _ = await team(world, owner)
    app = await world.app(owner, "patient/*.cruds")
    for actor in (owner, app):
        await world.consent(owner, app, "collect")
        answer = await actor.post("DocumentReference", document(owner.patient, **bearing(INVISIBLE)))
        assert (answer.status_code, expression(answer)) == (403, "DocumentReference.securityLabel"), answer.text
        answer = await actor.post("Observation", observation(owner.patient, meta={"security": [INVISIBLE]}))
        assert (answer.status_code, expression(answer)) == (403, "Observation.meta.security")
    proxy = await world.proxy(owner)
    stored = await made(owner, owner)
    assert await relabel(proxy, stored, PARENTS) == 403
    assert await relabel(owner, stored, PARENTS) == 200
    assert await relabel(proxy, stored) == 405
    told = await made(author, owner, INVISIBLE)
    assert await relabel(owner, told) == 405
    assert await relabel(member, told) == 200  # who told the patient
    assert (await owner.get(f"DocumentReference/{told['id']}")).status_code == 200


def end_of(stored: dict[str, Any]) -> str:
    [coding] = [coding for one in stored["securityLabel"] for coding in one["coding"] if coding["code"] == "INVISIBLE_PATIENT"]
    [extension] = coding["extension"]
    assert extension["url"] == HIDDEN_UNTIL
    return str(extension["valueDateTime"])


def until(moment: str) -> dict[str, Any]:
    return {**INVISIBLE, "extension": [{"url": HIDDEN_UNTIL, "valueDateTime": moment}]}


@pytest.mark.requirement("SEC-02")
@pytest.mark.parametrize("days", [None, 2])
async def test_what_is_not_yet_for_the_patient_is_one_day(world: World, days: int | None) -> None:
    owner = await world.patient()
    author, member, _ = await team(world, owner)
    coding = INVISIBLE if days is None else until(instant(world.clock() + timedelta(days=days)))
    address, raw = await deposited(author, owner.patient, pdf(), **bearing(label("N"), coding))
    stored = (await author.get(address)).json()
    hidden = timedelta(days=days or 90)
    bounds = [instant(world.clock() + hidden - early)[:19] for early in (timedelta(minutes=5), timedelta())]
    assert bounds[0] < end_of(stored)[:19] <= bounds[1]
    # The official patch of the DMP says no end, and loses none.
    patch = b'[{"op":"replace","path":"/status","value":"superseded"}]'
    changed = await author.send("PATCH", address, patch, Content_Type=PATCH)
    assert end_of(changed.json()) == end_of(stored)
    bare = {**changed.json(), **bearing(label("N"), INVISIBLE)}
    assert end_of((await member.put(address, bare)).json())[:19] == end_of(stored)[:19]
    assert [(await owner.get(path)).status_code for path in (address, raw)] == [404, 404]
    assert await owner.search(f"DocumentReference?patient={owner.patient}") == []
    world.clock.ahead += hidden - timedelta(minutes=5)
    there = await world.patient_actor(owner.patient)
    assert [(await there.get(path)).status_code for path in (address, raw)] == [404, 404]
    world.clock.ahead += timedelta(minutes=6)
    assert [(await there.get(path)).status_code for path in (address, raw)] == [200, 200]
    assert (await there.get(f"DocumentReference?patient={owner.patient}&_summary=count")).json()["total"] == 1


@pytest.mark.parametrize("end", ["later", "2090-01-01T00:00:00Z", "two", "none"])
async def test_an_end_that_is_none_is_refused(world: World, end: str) -> None:
    owner = await world.patient()
    author, *_ = await team(world, owner)
    coding = until(instant(world.clock() + timedelta(days=91)) if end == "later" else end)
    if end == "two":
        coding = until("2026-12-01T00:00:00Z")
        coding["extension"] *= 2
    if end == "none":
        coding["extension"] = [{"url": HIDDEN_UNTIL, "valueString": "never"}]
    before = await world.fingerprint()
    answer = await author.post("DocumentReference", document(owner.patient, **bearing(coding)))
    assert (answer.status_code, expression(answer)) == (422, "DocumentReference.securityLabel"), answer.text
    assert await world.fingerprint() == before


async def test_what_is_sent_again_is_known_by_what_it_says(world: World) -> None:
    owner = await world.patient()
    author, *_ = await team(world, owner)
    body = observation(owner.patient, meta={"security": [INVISIBLE]})
    first = await author.post("Observation", body)
    again = await author.post("Observation", dict(reversed(body.items())))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["location"] == first.headers["location"]


@pytest.mark.requirement("SEC-03")
async def test_unmasking_keeps_the_other_labels(world: World) -> None:
    owner = await world.patient()
    author, member, _ = await team(world, owner)
    stored = await made(author, owner, label("R"), MASKED)
    address = f"DocumentReference/{stored['id']}"
    patch = (
        b'[{"op":"test","path":"/securityLabel/1/coding/0/code","value":"MASQUE_PS"},{"op":"remove","path":"/securityLabel/1"}]'
    )
    changed = (await owner.send("PATCH", address, patch, Content_Type=PATCH)).json()
    assert [one["coding"][0]["code"] for one in changed["securityLabel"]] == ["R"]
    adding = b'[{"op":"add","path":"/securityLabel/-","value":{"coding":[%s]}}]'
    masked = str(MASKED).replace("'", '"').encode()
    assert len((await owner.send("PATCH", address, adding % masked, Content_Type=PATCH)).json()["securityLabel"]) == 2
    # The published body replaces the first label, whichever that is: not by who may not take it off.
    plain = await made(author, owner, label("R"))
    body = b'[{"op":"replace","path":"/securityLabel/0","value":{"coding":[%s]}}]' % str(label("N")).replace("'", '"').encode()
    answer = await member.send("PATCH", f"DocumentReference/{plain['id']}", body, Content_Type=PATCH)
    assert (answer.status_code, expression(answer)) == (403, "DocumentReference.securityLabel")


@pytest.mark.requirement("CON-009")
async def test_a_level_makes_room_for_a_stricter_one_only(world: World) -> None:
    owner = await world.patient()
    author, member, _ = await team(world, owner)
    assert await relabel(member, await made(author, owner, label("N")), label("R")) == 200
    assert await relabel(member, await made(author, owner, label("N")), label("R", A08)) == 200
    assert await relabel(member, await made(author, owner, label("R")), label("N")) == 403
    assert await relabel(member, await made(author, owner, label("R")), label("R", A08)) == 200  # the same, otherwise spelled
    assert await relabel(author, await made(author, owner, label("R")), label("N")) == 200


@pytest.mark.requirement("SEC-04")
@pytest.mark.parametrize("system", ["http://terminology.hl7.org/CodeSystem/v3-Confidentiality", A08])
async def test_a_label_is_found_in_each_system_of_its_codes(world: World, system: str) -> None:
    owner = await world.patient()
    stored = [
        await made(owner, owner, label("R", one)) for one in (A08, "http://terminology.hl7.org/CodeSystem/v3-Confidentiality")
    ]
    await made(owner, owner, label("N", A08))
    for parameter in ("security-label", "_security"):
        found = await owner.search(f"DocumentReference?patient={owner.patient}&{parameter}={system}|R")
        assert {one["id"] for one in found} == {one["id"] for one in stored}, parameter
        assert (await owner.search(f"DocumentReference?patient={owner.patient}&{parameter}:not={system}|R"))[0]["id"]


async def test_that_a_label_ends_is_news_to_who_asks_for_changes(world: World) -> None:
    """Nothing is written then, so nothing has a time: a feed begins anew, and a search says that there may be more."""
    owner = await world.patient()
    author, *_ = await team(world, owner)
    feed = f"DocumentReference/$changes?patient={owner.patient}"

    async def resyncs(actor: Actor, since: str) -> bool:
        answer = await actor.get(f"DocumentReference?patient={owner.patient}&_lastUpdated=gt{since}")
        return "resync" in answer.text

    await made(owner, owner)
    stored = await made(author, owner, until(instant(world.clock() + timedelta(hours=1))))
    readers = {"patient": owner, "proxy": await world.proxy(owner)}
    cursors = {}
    for name, actor in readers.items():
        page = (await actor.get(feed)).json()
        assert len(page["entry"]) == 1
        cursors[name] = page["link"][-1]["url"]
        again = await actor.get(cursors[name])
        assert (again.status_code, again.json().get("entry", [])) == (200, [])
    world.clock.ahead += timedelta(minutes=30)
    before = instant(world.clock()).replace("+00:00", "Z")
    for name, actor in readers.items():
        assert (await actor.get(cursors[name])).status_code == 200
        assert not await resyncs(actor, before)
    world.clock.ahead += timedelta(hours=1)
    for name, actor in readers.items():
        assert (await actor.get(cursors[name])).status_code == 410
        assert len((await actor.get(feed)).json()["entry"]) == 2
        assert await resyncs(actor, before)
        assert not await resyncs(actor, instant(world.clock()).replace("+00:00", "Z"))
    assert not await resyncs(author, before)  # who saw it all the time
    [head] = await world.stored("heads", _id=owner.patient)
    assert [*head["ends"]] == [stored["id"]]
    assert await relabel(author, stored) == 200
    [head] = await world.stored("heads", _id=owner.patient)
    assert head["ends"] == {}
