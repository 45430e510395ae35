"""Security labels: anybody who may update a resource may add one, only the patient and the depositor take one off (CON-009)."""

import pytest

from tests.world import World, expression, issues, label, observation


@pytest.mark.requirement("CON-009")
async def test_a_label_is_taken_off_by_the_patient_and_the_depositor_alone(world: World) -> None:
    camille, depositor, other = await world.patient(), await world.professional(), await world.professional()
    for doctor in (depositor, other):
        await world.consent(camille, doctor, "access", ["Observation"])
        await world.consent(camille, doctor, "correct", ["Observation"])
    stored = await depositor.create(observation(camille.patient, meta={"security": [label("N")]}))
    path = f"Observation/{stored['id']}"

    both = {**stored, "meta": {"security": [label("N"), label("R")]}}
    assert (await other.put(path, both)).status_code == 200
    refused = await other.put(path, stored)
    assert (refused.status_code, expression(refused)) == (403, "Observation.meta.security")
    assert issues(refused)[0]["code"] == "forbidden"
    assert len((await camille.get(path)).json()["meta"]["security"]) == 2

    assert (await depositor.put(path, stored)).status_code == 200
    bare = {name: value for name, value in stored.items() if name != "meta"}
    assert (await camille.put(path, bare)).status_code == 200
    assert "security" not in (await other.get(path)).json()["meta"]
