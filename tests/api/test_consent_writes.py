"""Holds writes to the consents of the patient: refused with a reason to whom they named, and like a stranger to all others."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from tests.world import BASE, Actor, World, bundle, concept, consent, entry, expression, issues, observation

KETONES = concept("http://loinc.org", "53060-9")
Row = dict[str, Any]


def provision(built: Row, changes: Row) -> Row:
    """The Consent with elements of its provision put in place."""
    return {**built, "provision": {**built["provision"], **changes}}


REASONS: dict[str, tuple[Row, Row, str]] = {
    "withdrawn": ({"status": "inactive"}, {}, "has withdrawn the consent"),
    "over": ({}, {"period": {"end": "2026-01-01"}}, "is not running"),
    "not begun": ({}, {"period": {"start": "2099-01-01"}}, "is not running"),
    "reading only": ({}, {"action": [concept(None, "access")]}, "does not include writing"),
    "a denial": ({}, {"type": "deny"}, "has refused this service access"),
    "other data": ({}, {"code": [KETONES]}, "does not cover this data"),
}


@pytest.mark.requirement("MES-06")
@pytest.mark.parametrize("name", REASONS)
async def test_an_app_that_the_patient_named_is_told_why(world: World, name: str) -> None:
    root, changes, reason = REASONS[name]
    owner = await world.patient()
    app = await world.app(owner)
    await owner.create({**provision(consent(owner, app, "collect"), changes), **root})
    answer = await app.post("Observation", observation(owner.patient))
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (403, "forbidden", "Observation.subject")
    assert reason in issues(answer)[0]["diagnostics"]
    assert await world.stored("Observation", patient=owner.patient) == []


async def test_a_deleted_consent_is_one_withdrawn(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    given = await world.consent(owner, app, "collect")
    assert (await owner.delete(f"Consent/{given['id']}")).status_code == 204
    answer = await app.post("Observation", observation(owner.patient))
    assert (answer.status_code, "withdrawn" in issues(answer)[0]["diagnostics"]) == (403, True)


@pytest.mark.requirement("MES-06")
async def test_everybody_else_is_answered_as_for_a_patient_who_is_not_there(world: World) -> None:
    owner, other = await world.patient(), await world.patient()
    named = owner.patient
    reading = observation(named)
    identifier = (await owner.get(f"Patient/{named}")).json()["identifier"][0]
    by_identifier = {**reading, "subject": {"identifier": identifier}}
    unknown = {**reading, "subject": {"identifier": {**identifier, "value": "0000000000000"}}}
    writers = {
        "never paired": (await world.app(other), by_identifier, unknown),
        "an unnamed service": (await world.service(), by_identifier, unknown),
        "another patient": (other, by_identifier, unknown),
        "by id": (await world.service(), reading, observation("000-nobody", identifier=reading["identifier"])),
        "an app, by id": (await world.app(other), reading, observation("000-nobody", identifier=reading["identifier"])),
        "a professional, by id of nobody": (await world.professional(), None, observation("000-nobody")),
    }
    for name, (writer, known, nobody) in writers.items():
        answers = [await writer.post("Observation", body) for body in (known, nobody) if body is not None]
        assert [answer.status_code for answer in answers] == [422] * len(answers), (name, answers[0].text)
        bodies = [str(answer.json()).replace("Observation.subject.identifier", "Observation.subject") for answer in answers]
        assert len(set(bodies)) == 1, (name, bodies)
    assert await world.stored("Observation", patient=named) == []


async def test_a_mixed_token_tells_no_more(world: World) -> None:
    """Scopes of two levels must not tell a record that is there from one that is not."""
    me, other = await world.patient(), await world.patient()
    app = await world.app(me, "patient/Observation.c user/Observation.rs")
    bodies = [observation(target, identifier=[]) for target in (other.patient, "000-nobody")]
    for body in bodies:
        del body["identifier"]
    known, nobody = [await app.post("Observation", body) for body in bodies]
    assert (known.status_code, known.json()) == (nobody.status_code, nobody.json())


async def test_an_update_needs_consent_for_the_old_and_the_new_version(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    glucose = provision(consent(owner, app, "collect"), {"code": [concept("http://loinc.org", "99504-3")]})
    await owner.create(glucose)
    await world.consent(owner, app, "access")
    mine = await app.create(observation(owner.patient))
    theirs = await owner.create(observation(owner.patient, code=KETONES))
    for stored, code in ((mine, KETONES), (theirs, mine["code"])):
        answer = await app.put(f"Observation/{stored['id']}", {**stored, "code": code})
        assert (answer.status_code, issues(answer)[0]["code"]) == (403, "forbidden")
        assert (await owner.get(f"Observation/{stored['id']}")).json() == stored
    assert (await app.delete(f"Observation/{theirs['id']}")).status_code == 403
    assert (await app.put(f"Observation/{mine['id']}", {**mine, "status": "amended"})).status_code == 200


@pytest.mark.requirement("CON-005", "MES-06", "EXT-06")
async def test_after_a_revocation_every_write_is_refused(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    given = await world.consent(owner, app, "collect")
    reading = observation(owner.patient)
    stored = await app.create(reading)
    path, key = f"Observation/{stored['id']}", reading["identifier"][0]
    criteria = f"identifier={key['system']}|{key['value']}"
    await world.revoke(owner, given)
    day = bundle("transaction", entry("POST", "Observation", observation(owner.patient)))
    answers = {
        "create": await app.post("Observation", observation(owner.patient)),
        "create again": await app.post("Observation", reading),
        "conditional create": await app.post("Observation", reading, If_None_Exist=criteria),
        "conditional create with representation": await app.post(
            "Observation", reading, If_None_Exist=criteria, Prefer="return=representation"
        ),
        "transaction": await app.post("", day),
        "update": await app.put(path, {**stored, "status": "amended"}),
        "update of another version": await app.put(path, {**stored, "status": "amended"}, If_Match='W/"7"'),
        "delete": await app.delete(path),
    }
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 403)
    batch = bundle("batch", entry("POST", "Observation", observation(owner.patient)), entry("GET", path))
    statuses = [e["response"]["status"][:3] for e in (await app.post("", batch)).json()["entry"]]
    assert statuses == ["403", "404"]
    assert (await owner.get(path)).json() == stored
    assert len(await world.stored("Observation", patient=owner.patient)) == 1


@pytest.fixture
async def second(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Another gateway over the same database."""
    app = create_app(world.gateway.settings, world.clock)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            yield http


@pytest.mark.requirement("CON-005", "MES-06", "EXT-06")
async def test_nothing_succeeds_that_began_after_a_revocation_was_acknowledged(world: World, second: httpx.AsyncClient) -> None:
    """Readers and writers at two gateways, while the patient takes back what she gave, three times."""
    owner = await world.patient()
    doctor, app = await world.professional(), await world.app(owner)
    reading = await owner.create(observation(owner.patient))
    revoked, enough = False, 30
    done: list[tuple[bool, int]] = []
    under_way = asyncio.Event()

    async def act(actor: Actor, http: httpx.AsyncClient, *, writes: bool) -> None:
        there = Actor(http, actor.token, actor.reference, actor.patient)
        while True:
            began_after = revoked
            if writes:
                answer = await there.post("Observation", observation(owner.patient))
            else:
                answer = await there.get(f"Observation/{reading['id']}")
            done.append((began_after, answer.status_code))
            if len(done) >= enough:
                under_way.set()
            if began_after:
                return

    for _ in range(3):
        revoked, enough = False, len(done) + 30
        under_way.clear()
        given = [await world.consent(owner, doctor, "access"), await world.consent(owner, app, "collect")]
        first = len(done)
        async with asyncio.TaskGroup() as group:
            for http in (world.http, second):
                for _ in range(4):
                    group.create_task(act(doctor, http, writes=False))
                group.create_task(act(app, http, writes=True))
            await under_way.wait()
            for one in given:
                await world.revoke(owner, one)
            revoked = True
        after = [status for began_after, status in done[first:] if began_after]
        before = [status for began_after, status in done[first:] if not began_after]
        assert len(after) == 10
        assert set(after) == {403, 404}
        assert set(before) >= {200, 201}


@pytest.mark.requirement("EXT-06")
async def test_a_page_that_was_begun_is_not_finished_after_a_revocation(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    for _ in range(3):
        await owner.create(observation(owner.patient))
    given = await world.consent(owner, doctor, "access")
    page = (await doctor.get(f"Observation?patient={owner.patient}&_count=1")).json()
    following = next(link["url"] for link in page["link"] if link["relation"] == "next")
    assert len((await doctor.get(following)).json()["entry"]) == 1
    await world.revoke(owner, given)
    answer = (await doctor.get(following)).json()
    assert "entry" not in answer
    assert not [link for link in answer["link"] if link["relation"] == "next"]


async def test_a_consent_whose_time_has_come_needs_no_write(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    soon = (world.clock() + timedelta(hours=1)).replace(microsecond=0).isoformat()
    await owner.create(provision(consent(owner, app, "collect"), {"period": {"start": soon}}))
    assert (await app.post("Observation", observation(owner.patient))).status_code == 403
    world.clock.ahead += timedelta(hours=1, seconds=1)
    assert (await app.post("Observation", observation(owner.patient))).status_code == 201
