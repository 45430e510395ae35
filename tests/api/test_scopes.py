"""Holds scopes to their ceiling over HTTP: level × letter × interaction, granular scopes on reads, searches and writes."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from gateway.problem import Problem
from tests.world import JSON, Actor, World, bundle, concept, entry, issues, observation

SYSTEM = "http://terminology.hl7.org/CodeSystem/observation-category"
LABORATORY, VITAL = [concept(SYSTEM, "laboratory")], [concept(SYSTEM, "vital-signs")]
Do = Callable[[Actor, dict[str, Any]], Awaitable[httpx.Response]]


async def post_search(actor: Actor, one: dict[str, Any]) -> httpx.Response:
    body = f"patient={actor.patient or one['subject']['reference'].removeprefix('Patient/')}".encode()
    return await actor.send("POST", "Observation/_search", body, Content_Type="application/x-www-form-urlencoded")


def new(one: dict[str, Any], **elements: Any) -> dict[str, Any]:
    return observation(one["subject"]["reference"].removeprefix("Patient/"), **elements)


def only(one: dict[str, Any]) -> str:
    """The search that finds this one alone."""
    return f"Observation?patient={one['subject']['reference']}&_id={one['id']}"


# Interaction → what it needs (all of it), how it is asked, what it answers.
INTERACTIONS: dict[str, tuple[str, Do, int]] = {
    "read": ("r", lambda a, o: a.get(f"Observation/{o['id']}"), 200),
    "vread": ("r", lambda a, o: a.get(f"Observation/{o['id']}/_history/1"), 200),
    "history": ("r", lambda a, o: a.get(f"Observation/{o['id']}/_history"), 200),
    "search": ("s", lambda a, o: a.get(f"Observation?patient={o['subject']['reference']}"), 200),
    "count": ("s", lambda a, o: a.get(f"Observation?patient={o['subject']['reference']}&_summary=count"), 200),
    "POST search": ("s", post_search, 200),
    "create": ("c", lambda a, o: a.post("Observation", new(o)), 201),
    "conditional create": ("cs", lambda a, o: a.post("Observation", new(o), If_None_Exist="identifier=nothing|none"), 201),
    "update": ("u", lambda a, o: a.put(f"Observation/{o['id']}", o), 200),
    "conditional update": ("us", lambda a, o: a.put(only(o), {n: v for n, v in o.items() if n != "id"}), 200),
    "conditional delete": ("ds", lambda a, o: a.delete(only(o)), 204),
    "delete": ("d", lambda a, o: a.delete(f"Observation/{o['id']}"), 204),
}


@pytest.fixture(scope="module")
async def owner(session_world: World) -> Actor:
    doctor = await session_world.professional()
    person = {"generalPractitioner": [{"reference": doctor.reference}]}
    made = await session_world.patient(**person)
    made.reference = doctor.reference  # of whom the team consists
    return made


@pytest.mark.requirement("SEC-014")
@pytest.mark.parametrize("level", ["patient", "user", "system"])
@pytest.mark.parametrize("name", INTERACTIONS)
async def test_each_interaction_needs_its_letters(world: World, owner: Actor, level: str, name: str) -> None:
    needed, do, status = INTERACTIONS[name]
    for granted in ("c", "r", "u", "d", "s", "cs", "us", "ds", "cruds", "read", "write", "*"):
        letters = {"read": "rs", "write": "cud", "*": "cruds"}.get(granted, granted)
        scope = f"{level}/Observation.{granted}"
        if level == "patient":
            actor = await world.patient_actor(owner.patient, scope)
        else:
            actor = await world.actor("professional", scope, reference=owner.reference)
        patient = await world.patient_actor(owner.patient)
        stored = await patient.create(observation(owner.patient))
        answer = await do(actor, stored)
        if set(needed) <= set(letters):
            assert answer.status_code == status, (granted, answer.text)
        else:
            assert (answer.status_code, issues(answer)[0]["code"]) == (403, "forbidden"), granted
            challenge = answer.headers["WWW-Authenticate"]
            missing = {f'scope="patient/Observation.{letter}"' for letter in needed if letter not in letters}
            assert challenge.startswith('Bearer realm="fhir", error="insufficient_scope", ')
            assert any(one in challenge for one in missing), challenge
            assert (await patient.get(f"Observation/{stored['id']}")).json() == stored


async def test_a_scope_of_another_type_is_none(world: World) -> None:
    owner = await world.patient()
    actor = await world.patient_actor(owner.patient, "patient/Device.cruds openid fhirUser")
    for path in ("Observation/000-x", f"Observation?patient={owner.patient}", "Patient/000-x", "Practitioner"):
        assert (await actor.get(path)).status_code == 403, path


async def test_entries_are_checked_each_as_if_sent_alone(world: World) -> None:
    owner = await world.patient()
    actor = await world.patient_actor(owner.patient, "patient/Observation.rs patient/Device.c")
    entries = [
        entry("GET", f"Observation?patient={owner.patient}"),
        entry("POST", "Observation", observation(owner.patient)),
    ]
    batch = await actor.post("", bundle("batch", *entries))
    assert [e["response"]["status"][:3] for e in batch.json()["entry"]] == ["200", "403"]
    assert (await actor.post("", bundle("transaction", *entries))).status_code == 403
    assert await world.stored("Observation", patient=owner.patient) == []


async def test_several_scopes_add_up(world: World) -> None:
    owner = await world.patient()
    actor = await world.patient_actor(owner.patient, "patient/Observation.c patient/Observation.s")
    answer = await actor.post("Observation", observation(owner.patient), If_None_Exist="identifier=nothing|none")
    assert answer.status_code == 201


GRANULAR = f"patient/Observation.cruds?category={SYSTEM}|laboratory"


@pytest.mark.requirement("SRCH-11", "SEC-013")
async def test_a_granular_scope_filters_reads_and_searches(world: World) -> None:
    owner = await world.patient()
    me = owner.patient
    inside, outside = [await owner.create(observation(me, category=category)) for category in (LABORATORY, VITAL)]
    actor = await world.patient_actor(me, GRANULAR)
    for suffix in ("", "/_history", "/_history/1"):
        assert (await actor.get(f"Observation/{inside['id']}{suffix}")).status_code == 200
        hidden = await actor.get(f"Observation/{outside['id']}{suffix}")
        assert (hidden.status_code, hidden.json()) == (404, (await actor.get(f"Observation/000-x{suffix}")).json())
    assert [o["id"] for o in await actor.search(f"Observation?patient={me}")] == [inside["id"]]
    assert (await actor.get("Observation?_summary=count")).json()["total"] == 1
    assert (await actor.get(f"Observation?_id={outside['id']}&_total=accurate")).json()["total"] == 0


@pytest.mark.requirement("SEC-013")
async def test_a_granular_scope_filters_writes_by_old_and_new_version(world: World) -> None:
    owner = await world.patient()
    me = owner.patient
    inside, outside = [await owner.create(observation(me, category=category)) for category in (LABORATORY, VITAL)]
    actor = await world.patient_actor(me, GRANULAR)
    path = f"Observation/{inside['id']}"
    assert (await actor.post("Observation", observation(me, category=LABORATORY))).status_code == 201
    refused = {
        "create": await actor.post("Observation", observation(me, category=VITAL)),
        "create without": await actor.post("Observation", observation(me)),
        "new version": await actor.put(path, {**inside, "category": VITAL}),
        "old version": await actor.put(f"Observation/{outside['id']}", {**outside, "category": LABORATORY}),
        "delete": await actor.delete(f"Observation/{outside['id']}"),
    }
    for name, answer in refused.items():
        assert (answer.status_code, issues(answer)[0]["code"]) == (403, "forbidden"), name
    assert (await owner.get(path)).json() == inside
    assert (await owner.get(f"Observation/{outside['id']}")).json() == outside
    assert (await actor.put(path, {**inside, "status": "amended"})).status_code == 200
    assert (await actor.delete(path)).status_code == 204


async def test_a_condition_finds_only_what_a_granular_scope_shows(world: World) -> None:
    owner = await world.patient()
    me = owner.patient
    inside, outside = [await owner.create(observation(me, category=category)) for category in (LABORATORY, VITAL)]
    actor = await world.patient_actor(me, GRANULAR)
    statuses = []
    for stored in (inside, outside):
        found = f"_id={stored['id']}"
        answer = await actor.post("Observation", observation(me, category=LABORATORY), If_None_Exist=found)
        statuses.append((answer.status_code, answer.headers["Location"].split("/")[-3] == stored["id"]))
    assert statuses == [(200, True), (201, False)]


async def test_parameters_of_a_granular_scope_are_all_required(world: World) -> None:
    owner = await world.patient()
    me = owner.patient
    for category, code in ((LABORATORY, "99504-3"), (LABORATORY, "53060-9"), (VITAL, "99504-3")):
        await owner.create(observation(me, category=category, code=concept("http://loinc.org", code)))
    both = await world.patient_actor(me, "patient/Observation.s?category=laboratory&code=http://loinc.org|99504-3")
    either = await world.patient_actor(
        me, "patient/Observation.s?category=laboratory patient/Observation.s?code=http://loinc.org|99504-3"
    )
    assert (await both.get("Observation?_summary=count")).json()["total"] == 1
    assert (await either.get("Observation?_summary=count")).json()["total"] == 3


async def test_a_token_with_a_wrong_scope_is_not_issued(world: World) -> None:
    owner = await world.patient()
    for scope in ("patient/Observation.sr", "patient/Nope.rs", "openid", "", "patient/Observation.rs?status=final"):
        with pytest.raises(Problem):
            await world.patient_actor(owner.patient, scope)


@pytest.mark.requirement("EXT-06")
async def test_without_or_with_an_unknown_token_nothing_is_told(world: World) -> None:
    none = await world.http.get("Observation", headers={"Accept": JSON})
    assert (none.status_code, none.headers["WWW-Authenticate"]) == (401, 'Bearer realm="fhir"')
    actor = await world.patient()
    await world.forget(actor)
    gone = await actor.get("Observation")
    assert (gone.status_code, 'error="invalid_token"' in gone.headers["WWW-Authenticate"]) == (401, True)
