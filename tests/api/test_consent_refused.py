"""Holds storing a Consent to this: what could not be enforced as it reads is refused with 422 and the element's name."""

from typing import Any

import pytest

from tests.world import Actor, World, concept, consent, device, expression, label, observation

TYPES = "http://hl7.org/fhir/resource-types"
UNKNOWN = [{"url": "urn:x:unknown", "valueBoolean": True}]
NOT_TOLD = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}
ROLE = concept("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "IRCP")


def actor(reference: Any, role: Any = ROLE) -> list[dict[str, Any]]:
    return [{"role": role, "reference": reference if isinstance(reference, dict) else {"reference": reference}}]


def nested(depth: int) -> dict[str, Any]:
    """A provision with others in it, so many below it."""
    return {"type": "deny", **({"provision": [nested(depth - 1)]} if depth else {})}


PROVISION = "Consent.provision"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("action unknown", {"action": [concept(None, "erase")]}, f"{PROVISION}.action[0]"),
    ("action of another system", {"action": [concept("urn:x", "access")]}, f"{PROVISION}.action[0]"),
    ("action without coding", {"action": [{"text": "all"}]}, f"{PROVISION}.action[0]"),
    ("class not served", {"class": [{"system": TYPES, "code": "Encounter"}]}, f"{PROVISION}.class[0]"),
    ("class of another system", {"class": [{"system": "urn:x", "code": "Observation"}]}, f"{PROVISION}.class[0]"),
    ("code without coding", {"code": [{"text": "glucose"}]}, f"{PROVISION}.code[0].coding"),
    ("code without system", {"code": [concept(None, "x")]}, f"{PROVISION}.code[0].coding[0]"),
    ("label without code", {"securityLabel": [{"system": "urn:x"}]}, f"{PROVISION}.securityLabel[0]"),
    ("purpose without system", {"purpose": [{"code": "TREAT"}]}, f"{PROVISION}.purpose[0]"),
    ("actor of a kind nobody is", {"actor": actor("Group/x")}, f"{PROVISION}.actor[0].reference"),
    ("actor by identifier alone", {"actor": actor({"identifier": {"value": "x"}})}, f"{PROVISION}.actor[0].reference"),
    ("actor who is not there", {"actor": actor("Device/000-nobody")}, f"{PROVISION}.actor[0].reference"),
    ("actor elsewhere", {"actor": actor("https://elsewhere.example/Device/1")}, f"{PROVISION}.actor[0].reference"),
    ("actor in the role of a witness", {"actor": actor("Device/x", concept(None, "WIT"))}, f"{PROVISION}.actor[0].role"),
    (
        "data that is not there",
        {"data": [{"meaning": "instance", "reference": {"reference": "List/000-x"}}]},
        "data[0].reference",
    ),
    ("data contained", {"data": [{"meaning": "instance", "reference": {"reference": "#x"}}]}, "data[0].reference"),
    ("nested without type", {"provision": [{"code": [concept("s", "a")]}]}, f"{PROVISION}.provision[0].type"),
    ("nested six deep", {"provision": [nested(4)]}, ".provision[0]" * 5),
    ("more than 200", {"provision": [{"type": "deny"}] * 200}, PROVISION),
    ("no type and no rule", {"type": None}, f"{PROVISION}.type"),
    ("an unknown modifier", {"modifierExtension": UNKNOWN}, f"{PROVISION}.modifierExtension[0]"),
    (
        "a modified nested one",
        {"provision": [{"type": "deny", "modifierExtension": UNKNOWN}]},
        ".provision[0].modifierExtension[0]",
    ),
    ("a period backwards", {"period": {"start": "2026-11-20", "end": "2026-11-19"}}, f"{PROVISION}.period"),
    ("an end that is not told", {"period": {"_end": NOT_TOLD}}, f"{PROVISION}.period.end"),
    ("a data period backwards", {"dataPeriod": {"start": "2026-11-20", "end": "2026-11-19"}}, f"{PROVISION}.dataPeriod"),
    *(
        (f"data by {meaning}", {"data": [{"meaning": meaning, "reference": {"reference": "List/x"}}]}, "data[0].meaning")
        for meaning in ("related", "dependents", "authoredby")
    ),
]
ROOT: list[tuple[str, dict[str, Any], str]] = [
    ("no provision", {"provision": None}, "Consent.provision"),
    ("another scope", {"scope": concept("http://terminology.hl7.org/CodeSystem/consentscope", "research")}, "Consent.scope"),
    ("an unknown modifier", {"modifierExtension": UNKNOWN}, "Consent.modifierExtension"),
    ("rules told elsewhere", {"implicitRules": "https://rules.example"}, "Consent.implicitRules"),
    ("a modified policy", {"policy": [{"uri": "urn:x", "modifierExtension": UNKNOWN}]}, "Consent.policy[0].modifierExtension"),
    (
        "a modified proof",
        {"verification": [{"verified": True, "modifierExtension": UNKNOWN}]},
        "verification[0].modifierExtension",
    ),
    ("signed by a stranger", {"performer": [{"reference": "Practitioner/x"}]}, "Consent.performer[0]"),
]


async def refuse(owner: Actor, world: World, body: dict[str, Any], place: str) -> None:
    """The Consent is refused at this place, and nothing is stored."""
    answer = await owner.post("Consent", body)
    assert answer.status_code == 422, answer.text
    assert (expression(answer) or "").endswith(place), answer.text
    assert await world.stored("Consent", patient=owner.patient) == []


@pytest.mark.requirement("CON-003", "CON-017")
@pytest.mark.parametrize(("changes", "place"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_a_provision_that_cannot_be_honoured(world: World, changes: dict[str, Any], place: str) -> None:
    owner = await world.patient()
    body = consent(owner, None)
    body["provision"] = {name: value for name, value in {**body["provision"], **changes}.items() if value is not None}
    await refuse(owner, world, body, place)


@pytest.mark.requirement("CON-017")
@pytest.mark.parametrize(("changes", "place"), [row[1:] for row in ROOT], ids=[row[0] for row in ROOT])
async def test_a_consent_that_cannot_be_honoured(world: World, changes: dict[str, Any], place: str) -> None:
    owner = await world.patient()
    body = {name: value for name, value in {**consent(owner, None), **changes}.items() if value is not None}
    await refuse(owner, world, body, place)


async def test_contradicting_policy_rules_say_nothing(world: World) -> None:
    owner = await world.patient()
    system = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
    rule = {"coding": [{"system": system, "code": code} for code in ("OPTIN", "OPTOUT")]}
    await refuse(owner, world, {**consent(owner, None, type=None), "policyRule": rule}, "Consent.provision.type")


async def test_actors_are_of_the_catalogue(world: World) -> None:
    """Neither a patient nor a patient's sensor bears a token that a Consent could speak of."""
    owner, other = await world.patient(), await world.patient()
    sensor = await owner.create(device(owner.patient))
    for reference in (owner.reference, other.reference, f"Device/{sensor['id']}"):
        await refuse(owner, world, consent(owner, None, actor=actor(reference)), "Consent.provision.actor[0].reference")


async def test_data_of_another_patient_is_as_unknown_as_data_that_is_not_there(world: World) -> None:
    owner, other = await world.patient(), await world.patient()
    foreign = await other.create(observation(other.patient))
    answers = []
    for reference in (f"Observation/{foreign['id']}", "Observation/000-nothing"):
        data = [{"meaning": "instance", "reference": {"reference": reference}}]
        answers.append(await owner.post("Consent", consent(owner, None, data=data)))
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json() == answers[1].json()


async def test_an_update_is_held_to_the_same(world: World) -> None:
    owner = await world.patient()
    given = await owner.create(consent(owner, None))
    worse = {**given, "provision": {**given["provision"], "class": [{"system": TYPES, "code": "Encounter"}]}}
    answer = await owner.put(f"Consent/{given['id']}", worse)
    assert (answer.status_code, expression(answer)) == (422, "Consent.provision.class[0]")
    assert (await owner.get(f"Consent/{given['id']}")).json() == given


async def test_what_can_be_honoured_is_stored(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    reading = await owner.create(observation(owner.patient))
    data = [{"meaning": "instance", "reference": {"reference": f"Observation/{reading['id']}"}}]
    everything = consent(
        owner,
        doctor,
        types=["Observation"],
        period={"start": "2026-01-01"},
        dataPeriod={"end": "2026-12-31"},
        code=[concept("http://loinc.org", "99504-3")],
        securityLabel=[label("N")],
        purpose=[{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "TREAT"}],
        data=data,
        provision=[nested(3)],
    )
    assert (await owner.create(everything))["provision"] == everything["provision"]
    for status in ("draft", "proposed", "rejected", "inactive", "entered-in-error"):
        assert (await owner.create({**consent(owner, doctor), "status": status}))["status"] == status
