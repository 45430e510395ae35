"""What a professional must know at once (SEC-08): declared with a reason, for an hour, and said by every event of it."""

from datetime import timedelta
from typing import Any

import pytest

from tests.documents.papers import deposited, pdf
from tests.world import Actor, World, care_team, consent, expression, label, observation

pytestmark = pytest.mark.requirement("SEC-08")
VISIBILITY = "https://mos.esante.gouv.fr/NOS/TRE_A07-StatutVisibiliteDocument/FHIR/TRE-A07-StatutVisibiliteDocument"
WHY = [{"text": "found unconscious, no relative reached"}]
HALF_AN_HOUR = 1 / 48


def declared(world: World, owner: Actor, to: Actor, **elements: Any) -> dict[str, Any]:
    told = {"reasonCode": WHY, **elements}
    return care_team(owner.patient, to.reference, world.clock(), "emergency", HALF_AN_HOUR, **told)


async def test_it_opens_what_is_masked_and_not_what_is_very_restricted(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    plain, raw = await deposited(owner, owner.patient, pdf())
    masked, _ = await deposited(owner, owner.patient, pdf(), securityLabel=[{"coding": [label("MASQUE_PS", VISIBILITY)]}])
    secret, _ = await deposited(owner, owner.patient, pdf(), securityLabel=[{"coding": [label("V")]}])
    paths = (plain, raw, masked, secret)
    assert [(await doctor.get(path)).status_code for path in paths] == [404] * 4
    team = await doctor.create(declared(world, owner, doctor))
    assert [(await doctor.get(path)).status_code for path in paths] == [200, 200, 200, 404]
    assert (await owner.get(f"CareTeam/{team['id']}")).json()["reasonCode"] == WHY
    world.clock.ahead += timedelta(minutes=30)
    assert [(await doctor.get(path)).status_code for path in paths] == [404] * 4


async def test_every_access_says_that_it_was_one(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    stored = await owner.create(observation(owner.patient))
    await doctor.create(declared(world, owner, doctor))
    await doctor.get(f"Observation/{stored['id']}")
    await doctor.get(f"Observation?patient={owner.patient}")
    events = await owner.search(f"AuditEvent?patient={owner.patient}&_count=50")
    flagged = [event for event in events if event.get("purposeOfEvent")]
    assert {event["purposeOfEvent"][0]["coding"][0]["code"] for event in flagged} == {"BTG"}
    assert {event["subtype"][0]["code"] for event in flagged} >= {"read", "search-type"}


@pytest.mark.parametrize(
    ("elements", "place"),
    [
        ({"reasonCode": []}, "CareTeam.reasonCode.text"),
        ({"reasonCode": [{"text": "urgent"}]}, "CareTeam.reasonCode.text"),
        ({"participant": "organization"}, "CareTeam.participant"),
        ({"period": "long"}, "CareTeam.period.end"),
    ],
)
async def test_without_a_reason_or_for_others_it_is_not_declared(world: World, elements: dict[str, Any], place: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent = declared(world, owner, doctor)
    if elements.get("participant"):
        elements = {"participant": [*sent["participant"], *sent["participant"]]}
    if elements.get("period"):
        elements = {"period": care_team(owner.patient, doctor.reference, world.clock(), "emergency", 0.1)["period"]}
    sent = {name: value for name, value in {**sent, **elements}.items() if value}
    answer = await doctor.post("CareTeam", sent)
    assert answer.status_code in (403, 422), answer.text
    assert expression(answer) == place
    assert (await doctor.get(f"Patient/{owner.patient}")).status_code == 404


async def test_what_the_patient_denies_stays_denied_and_nothing_of_others_is_changed(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    stored = await owner.create(observation(owner.patient))
    await doctor.create(declared(world, owner, doctor))
    path = f"Observation/{stored['id']}"
    found = (await doctor.get(path)).json()
    assert (await doctor.put(path, found)).status_code == 422
    assert (await doctor.post("Observation", observation(owner.patient))).status_code == 201
    await owner.create(consent(owner, doctor, type="deny"))
    assert (await doctor.get(path)).status_code == 404
    for other in (await world.service(), await world.app(owner, "patient/*.cruds")):
        assert (await other.post("CareTeam", declared(world, owner, other))).status_code == 403
