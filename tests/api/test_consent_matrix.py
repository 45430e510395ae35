"""Holds every element of a provision to its effect: actor × provision × data × interaction, over HTTP (CON-001…004)."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from tests.world import LOINC, Actor, World, concept, consent, document, label, observation, organization

pytestmark = pytest.mark.requirement("CON-001", "CON-002", "SRCH-11")

REASONS = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
TREAT = f"{REASONS}|TREAT"
GLUCOSE, KETONES, SUMMARY = concept(LOINC, "99504-3"), concept(LOINC, "53060-9"), concept(LOINC, "11502-2")
Row = dict[str, Any]


@dataclass(slots=True)
class Scene:
    """A patient with data of every sort, by name; the references stay the same for all rows."""

    world: World
    owner: Actor
    data: dict[str, str]

    def instance(self, name: str) -> list[Row]:
        return [{"meaning": "instance", "reference": {"reference": self.data[name]}}]


@pytest.fixture(scope="module")
async def scene(session_world: World) -> Scene:
    owner = await session_world.patient()
    me = owner.patient
    month = {"start": "2026-10-15", "end": "2026-11-15"}
    data = {
        "plain": observation(me),
        "old": observation(me, effectiveDateTime="2024-01-01"),
        "month": observation(me, effectivePeriod=month, effectiveDateTime=None),
        "undated": observation(me, effectiveDateTime=None),
        "ketones": observation(me, code=KETONES),
        "uncoded": observation(me, code={"text": "glucose"}),
        "normal": observation(me, meta={"security": [label("N")]}),
        "restricted": observation(me, meta={"security": [label("R")]}),
        "strange": observation(me, meta={"security": [label("X", "https://labels.example")]}),
        "mixed": observation(me, meta={"security": [label("N"), label("X", "https://labels.example")]}),
        "document": document(me),
    }
    made: dict[str, str] = {}
    for name, body in data.items():
        stored = await owner.create({element: value for element, value in body.items() if value is not None})
        made[name] = f"{stored['resourceType']}/{stored['id']}"
    return Scene(session_world, owner, made)


async def seen(scene: Scene, reader: Actor) -> set[str]:
    """The names of what a reader finds; the number is of these alone, and what is not found cannot be read either."""
    found: set[str] = set()
    for kind in ("Observation", "DocumentReference"):
        listed = (await reader.get(f"{kind}?patient={scene.owner.patient}&_total=accurate")).json()
        assert listed["total"] == len(listed.get("entry", ()))
        found |= {f"{kind}/{entry['resource']['id']}" for entry in listed.get("entry", ())}
    for name in ("plain", "restricted", "document"):
        assert ((await reader.get(scene.data[name])).status_code == 200) is (scene.data[name] in found)
    return {name for name, reference in scene.data.items() if reference in found}


async def check_every_way(scene: Scene, reader: Actor, visible: frozenset[str]) -> None:
    """Every interaction must say the same of each resource; what is hidden answers like what is not there."""
    for name, reference in scene.data.items():
        kind, _, identifier = reference.partition("/")
        search = f"{kind}?patient={scene.owner.patient}&_id={identifier}"
        answers = [await reader.get(path) for path in (reference, f"{reference}/_history/1", f"{reference}/_history")]
        conditional = await reader.get(reference, If_None_Match='W/"1"')
        count = (await reader.get(f"{search}&_summary=count")).json()["total"]
        said = (*(answer.status_code for answer in answers), conditional.status_code, count)
        assert said == ((200, 200, 200, 304, 1) if name in visible else (404, 404, 404, 404, 0)), name
        if name not in visible:
            assert answers[0].json() == (await reader.get(f"{kind}/000-nothing")).json()


ALL = frozenset(
    {"plain", "old", "month", "undated", "ketones", "uncoded", "normal", "restricted", "strange", "mixed", "document"}
)
OBSERVATIONS = ALL - {"document"}
CLASS = [{"system": "http://hl7.org/fhir/resource-types", "code": "Observation"}]
SINCE = {"start": "2025-01-01"}
NOVEMBER = {"start": "2026-11-01", "end": "2026-11-30"}

# Provision → what it covers when it permits, and what it covers when it denies.
COVERS: dict[str, tuple[Row, frozenset[str], frozenset[str]]] = {
    "everything": ({}, ALL, ALL),
    "a class": ({"class": CLASS}, OBSERVATIONS, OBSERVATIONS),
    "a code": ({"code": [GLUCOSE]}, OBSERVATIONS - {"ketones", "uncoded"}, OBSERVATIONS - {"ketones"}),
    "codes": ({"code": [KETONES, SUMMARY]}, frozenset({"ketones", "document"}), frozenset({"ketones", "uncoded", "document"})),
    "data since": ({"dataPeriod": SINCE}, ALL - {"old", "undated"}, ALL - {"old"}),
    "data of a month": ({"dataPeriod": NOVEMBER}, ALL - {"old", "undated", "month"}, ALL - {"old"}),
    "label R": (
        {"securityLabel": [label("R")]},
        frozenset({"restricted"}),
        frozenset({"restricted", "strange", "mixed"}),
    ),
    "label N": ({"securityLabel": [label("N")]}, ALL - {"restricted", "strange", "mixed"}, ALL - {"restricted"}),
    "purpose": ({"purpose": [{"system": REASONS, "code": "TREAT"}]}, ALL, ALL),
    "another purpose": ({"purpose": [{"system": REASONS, "code": "HRESCH"}]}, frozenset(), frozenset()),
    "class and code": ({"class": CLASS, "code": [KETONES]}, frozenset({"ketones"}), frozenset({"ketones", "uncoded"})),
    "use": ({"action": [concept(None, "use")]}, ALL, ALL),
    "writing": ({"action": [concept(None, "correct")]}, frozenset(), frozenset()),
    "not yet": ({"period": {"start": "2099-01-01"}}, frozenset(), frozenset()),
    "no longer": ({"period": {"end": "2020-01-01"}}, frozenset(), frozenset()),
    "all but ketones": (
        {"provision": [{"type": "deny", "code": [KETONES]}]},
        ALL - {"ketones", "uncoded"},
        ALL,
    ),
}


def provision(built: Row, changes: Row) -> Row:
    """The Consent with elements of its provision put in place."""
    return {**built, "provision": {**built["provision"], **changes}}


@pytest.mark.parametrize("name", COVERS)
async def test_what_a_provision_permits(scene: Scene, name: str) -> None:
    changes, permitted, _ = COVERS[name]
    doctor = await scene.world.professional(purpose=TREAT)
    assert await seen(scene, doctor) == set()
    await scene.owner.create(provision(consent(scene.owner, doctor), changes))
    assert await seen(scene, doctor) == permitted
    if name in ("everything", "codes", "label N", "data of a month"):
        await check_every_way(scene, doctor, permitted)
    stranger = await scene.world.professional(purpose=TREAT)
    assert (await stranger.get(scene.data["plain"])).status_code == 404


@pytest.mark.requirement("CON-003")
@pytest.mark.parametrize("name", [name for name in COVERS if name != "all but ketones"])
async def test_what_a_provision_denies_whatever_another_permits(scene: Scene, name: str) -> None:
    changes, _, denied = COVERS[name]
    doctor = await scene.world.professional(purpose=TREAT)
    await scene.owner.create(consent(scene.owner, doctor))
    await scene.owner.create(provision(consent(scene.owner, doctor), {**changes, "type": "deny"}))
    assert await seen(scene, doctor) == ALL - denied


@pytest.mark.parametrize("name", ["document", "ketones"])
async def test_single_resources(scene: Scene, name: str) -> None:
    doctor, other = await scene.world.professional(), await scene.world.professional()
    await scene.owner.create(provision(consent(scene.owner, doctor), {"data": scene.instance(name)}))
    assert await seen(scene, doctor) == {name}
    await scene.owner.create(consent(scene.owner, other))
    await scene.owner.create(provision(consent(scene.owner, other), {"type": "deny", "data": scene.instance(name)}))
    assert await seen(scene, other) == ALL - {name}


async def test_the_deepest_matching_provision_decides(scene: Scene) -> None:
    """permit ⊃ deny (observations) ⊃ permit (glucose) ⊃ deny (old) ⊃ permit (that one)."""
    doctor = await scene.world.professional()
    inner: Row = {"type": "permit", "data": scene.instance("old")}
    for changes in (
        {"type": "deny", "dataPeriod": {"end": "2024-12-31"}},
        {"type": "permit", "code": [GLUCOSE]},
        {"type": "deny", "class": CLASS},
    ):
        inner = {**changes, "provision": [inner]}
    await scene.owner.create(provision(consent(scene.owner, doctor), {"provision": [inner]}))
    assert await seen(scene, doctor) == ALL - {"ketones", "uncoded", "undated"}


@pytest.mark.parametrize(("rule", "visible"), [("OPTIN", ALL - {"ketones"}), ("OPTOUT", frozenset({"ketones"}))])
async def test_a_root_without_type_is_ruled_by_the_policy_rule(scene: Scene, rule: str, visible: frozenset[str]) -> None:
    doctor = await scene.world.professional()
    opposite = "deny" if rule == "OPTIN" else "permit"
    built = provision(consent(scene.owner, doctor), {"provision": [{"type": opposite, "data": scene.instance("ketones")}]})
    del built["provision"]["type"]
    await scene.owner.create({**built, "policyRule": concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", rule)})
    assert await seen(scene, doctor) == visible


@pytest.mark.requirement("CON-004")
@pytest.mark.parametrize("status", ["draft", "proposed", "rejected", "inactive", "entered-in-error"])
async def test_only_an_active_consent_has_an_effect(scene: Scene, status: str) -> None:
    doctor = await scene.world.professional()
    await scene.owner.create({**consent(scene.owner, doctor), "status": status})
    assert (await doctor.get(scene.data["plain"])).status_code == 404


@pytest.mark.requirement("CON-004")
async def test_a_period_holds_to_the_second(scene: Scene) -> None:
    world = scene.world
    now = world.clock().replace(microsecond=0)
    start, end = now + timedelta(hours=1), now + timedelta(hours=2)
    doctor = await world.professional()
    period = {"start": start.isoformat(), "end": end.isoformat()}
    await scene.owner.create(provision(consent(scene.owner, doctor), {"period": period}))
    fixed = world.gateway.clock
    try:
        for moment, status in (
            (start - timedelta(milliseconds=1), 404),
            (start, 200),
            (end + timedelta(milliseconds=999), 200),  # an end includes all of what it names
            (end + timedelta(seconds=1), 404),
        ):
            object.__setattr__(world.gateway, "clock", lambda moment=moment: moment)
            assert (await doctor.get(scene.data["plain"])).status_code == status, moment
    finally:
        object.__setattr__(world.gateway, "clock", fixed)


async def test_actors_are_whoever_a_token_stands_for(scene: Scene) -> None:
    """A Consent may name the person, the role or the organization; software alone is named only by denials."""
    world = scene.world
    clinic = f"Organization/{(await world.operator.create(organization()))['id']}"
    person = await world.professional()
    role = {"resourceType": "PractitionerRole", "practitioner": {"reference": person.reference}}
    role_reference = f"PractitionerRole/{(await world.operator.create(role))['id']}"
    app = await world.app(scene.owner)
    named = (person.reference, role_reference, clinic)
    for reference in named:
        whom = Actor(world.http, "", reference)
        member = await world.actor("professional", "user/*.rs", actors=(reference,), software=(app.reference,))
        await scene.owner.create(consent(scene.owner, whom))
        assert (await member.get(scene.data["plain"])).status_code == 200, reference
    user = await world.professional(software=(app.reference,))
    await scene.owner.create(consent(scene.owner, app))
    assert (await user.get(scene.data["plain"])).status_code == 404
    await scene.owner.create(consent(scene.owner, user))
    assert (await user.get(scene.data["plain"])).status_code == 200
    denial = await scene.owner.create(provision(consent(scene.owner, app), {"type": "deny"}))
    assert (await user.get(scene.data["plain"])).status_code == 404
    await scene.world.revoke(scene.owner, denial)


async def test_a_purpose_that_is_not_stated_is_never_permitted_and_always_denied(scene: Scene) -> None:
    purpose = {"purpose": [{"system": REASONS, "code": "TREAT"}]}
    doctor, other = await scene.world.professional(), await scene.world.professional()
    await scene.owner.create(provision(consent(scene.owner, doctor), purpose))
    assert await seen(scene, doctor) == set()
    await scene.owner.create(consent(scene.owner, other))
    await scene.owner.create(provision(consent(scene.owner, other), {**purpose, "type": "deny"}))
    assert await seen(scene, other) == set()


async def test_no_consent_opens_consents_and_the_audit(scene: Scene) -> None:
    doctor = await scene.world.professional()
    given = await scene.owner.create(consent(scene.owner, doctor))
    assert (await doctor.get(f"Consent/{given['id']}")).status_code == 404
    for kind in ("Consent", "AuditEvent", "Provenance"):
        assert await doctor.search(f"{kind}?patient={scene.owner.patient}") == []
