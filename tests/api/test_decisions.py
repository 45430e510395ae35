"""What a patient decides about a client is what the door then does: each choice, as a Consent, tried through the gateway."""

import hashlib
import itertools
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.access.decision import (
    Asker,
    Decision,
    Evidence,
    Item,
    build_consents,
    digest_of,
    end_of,
    identifier_of,
    items_of,
)
from gateway.access.scope import Scope, parse_scopes
from gateway.fhir.registry import Registry
from gateway.fhir.search import Reading
from tests.world import Actor, World, device, document, finding, observation

SITE = "https://gateway.example"
NOW = datetime(2026, 11, 30, 8, 30, tzinfo=UTC)
TREATMENT = "http://terminology.hl7.org/CodeSystem/v3-ActReason|TREAT"
TEXT = "GlucoApp asks to read your measurements."
ITEMS: tuple[Item, ...] = (("read", "Observation"), ("write", "Observation"), ("read", "Device"), ("write", "Device"))


def asker(app: Actor, purpose: str | None = None) -> Asker:
    return Asker("glucoapp", "GlucoApp", "GlucoApp SAS", app.reference, purpose)


def evidence(owner: Actor, moment: datetime = NOW) -> Evidence:
    return Evidence(TEXT, "en", owner.patient, owner.reference, moment, "password", SITE)


def decision(*allowed: Item, duration: Any = "unlimited", past: bool = True) -> Decision:
    return Decision(frozenset(allowed), duration, past)


async def decide(world: World, owner: Actor, app: Actor, decided: Decision, purpose: str | None = None) -> list[dict[str, Any]]:
    """Store the Consents of a decision of this moment, as the patient."""
    registry, now = world.gateway.registry, world.clock()
    built = build_consents(registry.resource_types, asker(app, purpose), decided, evidence(owner, now))
    return [await owner.create(consent) for consent in built.values()]


async def can(app: Actor, owner: Actor, item: Item, existing: dict[str, Any]) -> bool:
    """Whether an app can do this with data that is there."""
    direction, kind = item
    if direction == "read":
        found = await app.search(f"{kind}?patient={owner.patient}")
        seen = (await app.get(f"{kind}/{existing['id']}")).status_code == 200
        assert bool(found) is seen
        return seen
    body = observation(owner.patient) if kind == "Observation" else device(owner.patient)
    return (await app.post(kind, body)).status_code == 201


@pytest.mark.requirement("EXT-07")
@pytest.mark.parametrize("allowed", [c for n in (0, 1, 2, 4) for c in itertools.combinations(ITEMS, n)], ids=str)
async def test_what_is_ticked_is_permitted_and_nothing_else(world: World, allowed: tuple[Item, ...]) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    sensor = await owner.create({"resourceType": "Device", "patient": {"reference": owner.reference}, "status": "active"})
    reading = await owner.create(observation(owner.patient, device={"reference": f"Device/{sensor['id']}"}))
    await decide(world, owner, app, decision(*allowed))
    there = {"Observation": reading, "Device": sensor}
    # (A device is seen through its measures only.)
    visible = [item for item in allowed if item != ("read", "Device") or ("read", "Observation") in allowed]
    assert {item for item in ITEMS if item[0] == "read" and await can(app, owner, item, there[item[1]])} == {
        item for item in visible if item[0] == "read"
    }
    assert {item for item in ITEMS if item[0] == "write" and await can(app, owner, item, there[item[1]])} == {
        item for item in allowed if item[0] == "write"
    }


@pytest.mark.requirement("EXT-07")
@pytest.mark.parametrize("past", [True, False])
async def test_past_data_is_seen_only_where_that_was_ticked(world: World, past: bool) -> None:
    owner = await world.patient()
    app = await world.app(owner, "patient/*.rs")
    before = await owner.create(observation(owner.patient, effectiveDateTime="2020-01-01T08:00:00Z"))
    allowed: list[Item] = [("read", name) for name in ("Observation", "Device", "Patient")]
    await decide(world, owner, app, decision(*allowed, past=past))
    later = (world.clock() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    after = await owner.create(finding(owner.patient, effectiveDateTime=later))
    found = await app.search(f"Observation?patient={owner.patient}")
    assert {one["id"] for one in found} == ({before["id"], after["id"]} if past else {after["id"]})
    assert (await app.get(f"Observation/{before['id']}")).status_code == (200 if past else 404)
    assert (await app.get(f"Patient/{owner.patient}")).status_code == 200  # which has no date


@pytest.mark.requirement("EXT-07")
@pytest.mark.parametrize(
    ("duration", "still", "over"),
    [
        ("once", timedelta(minutes=59), timedelta(hours=1, seconds=2)),
        ("months", timedelta(days=89), timedelta(days=93)),
        ("year", timedelta(days=364), timedelta(days=367)),
        ("unlimited", timedelta(days=20), None),
    ],
)
async def test_a_decision_lasts_as_long_as_was_chosen(
    world: World, duration: Any, still: timedelta, over: timedelta | None
) -> None:
    owner = await world.patient()
    app = await world.app(owner, lifetime=timedelta(days=1_000))
    reading = await owner.create(observation(owner.patient))
    await decide(world, owner, app, decision(("read", "Observation"), duration=duration))
    world.clock.ahead += still
    assert (await app.get(f"Observation/{reading['id']}")).status_code == 200
    if over is not None:
        world.clock.ahead += over - still
        assert (await app.get(f"Observation/{reading['id']}")).status_code == 404


async def test_it_permits_for_the_purpose_that_was_told_only(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    treating = await world.actor("app", "patient/*.rs", None, app.reference, patient=owner.patient, purpose=TREATMENT)
    reading = await owner.create(observation(owner.patient))
    await decide(world, owner, app, decision(("read", "Observation")), purpose=TREATMENT)
    assert (await app.get(f"Observation/{reading['id']}")).status_code == 404
    assert (await treating.get(f"Observation/{reading['id']}")).status_code == 200


async def test_two_decisions_about_one_actor_add_up_and_a_denial_goes_before_them(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner, "patient/*.rs")
    reading, letter = await owner.create(observation(owner.patient)), await owner.create(document(owner.patient))
    await decide(world, owner, app, decision(("read", "Observation")))
    await decide(world, owner, app, decision(("read", "DocumentReference")))
    assert (await app.get(f"Observation/{reading['id']}")).status_code == 200
    assert (await app.get(f"DocumentReference/{letter['id']}")).status_code == 200
    [denial] = build_consents(
        world.gateway.registry.resource_types, asker(app), decision(("read", "Observation")), evidence(owner)
    ).values()
    denial["provision"] = {"type": "deny", "class": denial["provision"]["class"]}
    await owner.create(denial)
    assert (await app.get(f"Observation/{reading['id']}")).status_code == 404
    assert (await app.get(f"DocumentReference/{letter['id']}")).status_code == 200


@pytest.mark.requirement("CON-014")
async def test_the_consent_keeps_what_was_shown_and_to_whom(world: World) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    stored = await decide(world, owner, app, decision(*ITEMS, past=False))
    assert [one["identifier"][0]["value"] for one in stored] == ["glucoapp/read", "glucoapp/read-undated", "glucoapp/write"]
    for one in stored:
        assert b64decode(one["sourceAttachment"]["data"]).decode() == TEXT
        assert one["sourceAttachment"]["language"] == "en"
        assert one["performer"] == [{"reference": owner.reference}]
        assert one["organization"] == [{"display": "GlucoApp SAS"}]
        assert one["extension"][0]["valueCode"] == "password"
        assert one["provision"]["type"] == "permit"
        assert "provision" not in one["provision"]
    assert digest_of(TEXT) == f"sha256:{hashlib.sha256(TEXT.encode()).hexdigest()}"


@pytest.mark.parametrize(
    ("moment", "duration", "end"),
    [
        (NOW, "once", datetime(2026, 11, 30, 9, 30, tzinfo=UTC)),
        (NOW, "months", datetime(2027, 2, 28, 8, 30, tzinfo=UTC)),
        (datetime(2023, 11, 30, tzinfo=UTC), "months", datetime(2024, 2, 29, tzinfo=UTC)),
        (datetime(2024, 2, 29, tzinfo=UTC), "year", datetime(2025, 2, 28, tzinfo=UTC)),
        (NOW, "unlimited", None),
    ],
)
def test_the_end_of_a_decision(moment: datetime, duration: Any, end: datetime | None) -> None:
    assert end_of(duration, moment) == end


def scopes(registry: Registry, text: str) -> tuple[Scope, ...]:
    return parse_scopes(registry, text, Reading(now=NOW, or_values=10, patients={}))


@pytest.mark.parametrize(
    ("asked", "items"),
    [
        ("patient/Observation.rs", ["read Observation"]),
        ("patient/Observation.read patient/Observation.write", ["read Observation", "write Observation"]),
        ("patient/Device.c patient/Observation.cruds", ["write Device", "read Observation", "write Observation"]),
        (
            "patient/Observation.s?category=laboratory patient/Observation.r?code=1",
            ["read Observation?category=laboratory", "read Observation?code=1"],
        ),
        ("patient/Observation.s?category=laboratory patient/Observation.r", ["read Observation"]),
        ("launch/patient openid", []),
    ],
)
def test_what_there_is_to_decide(registry: Registry, asked: str, items: list[str]) -> None:
    assert [" ".join(item) for item in items_of(registry, scopes(registry, asked))] == items


def test_a_wildcard_is_every_type_there_is(registry: Registry) -> None:
    found = items_of(registry, scopes(registry, "patient/*.rs"))
    assert found == [("read", name) for name in sorted(registry.resource_types) if name != "Binary"]


def test_a_site_names_its_parts(registry: Registry) -> None:
    assert identifier_of(SITE, "glucoapp", "read") == (f"{SITE}/consent", "glucoapp/read")
    built = build_consents(
        registry.resource_types,
        Asker("a", "A", "B", "Device/1", None),
        replace(decision(("read", "Device")), past=False),
        Evidence("t", "fr", "p", "Patient/p", NOW, "password", SITE),
    )
    assert list(built) == ["read-undated"]
    assert "dataPeriod" not in built["read-undated"]["provision"]
