"""The main job: readings in, consent checked, stored, served, and gone at the next request when consent is taken back."""

from tests.world import World, bundle, entry, observation


async def test_a_day_of_readings_is_read_until_consent_is_taken_back(world: World) -> None:
    camille = await world.patient()
    app, doctor = await world.app(camille), await world.professional()
    await world.consent(camille, app, "collect", ["Observation"])
    given = await world.consent(camille, doctor, "access", ["Observation"])
    day = [entry("POST", "Observation", observation(camille.patient)) for _ in range(288)]
    pushed = await app.post("", bundle("transaction", *day))
    assert pushed.status_code == 200, pushed.text
    assert {e["response"]["status"] for e in pushed.json()["entry"]} == {"201 Created"}

    page = f"Observation?patient={camille.patient}&code=http://loinc.org|99504-3&_count=100"
    assert len(await doctor.search(page)) == 100
    await world.revoke(camille, given)
    assert await doctor.search(page) == []
