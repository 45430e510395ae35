"""Looking up on behalf of writes: what a caller may not see is not there, whatever a limit has to look at to tell."""

from typing import Any

import pytest

from tests.world import Actor, World, bundle, concept, consent, document, entry, issues, label, observation

RESTRICTED = [label("R")]


@pytest.fixture
async def doctor(world: World) -> Actor:
    return await world.professional()


@pytest.fixture
async def owner(world: World, doctor: Actor) -> Actor:
    """A patient treated by the doctor."""
    return await world.patient(generalPractitioner=[{"reference": doctor.reference}])


async def refer(actor: Actor, way: str, *targets: dict[str, Any]) -> Any:
    """A create of an Observation that is derived from these, alone or in a transaction."""
    subject = targets[0]["subject"]["reference"].removeprefix("Patient/")
    links = [{"reference": f"{target['resourceType']}/{target['id']}"} for target in targets]
    reading = observation(subject, derivedFrom=links)
    if way == "create":
        return await actor.post("Observation", reading)
    return await actor.post("", bundle("transaction", entry("POST", "Observation", reading)))


@pytest.mark.parametrize("way", ["create", "transaction"])
async def test_what_a_label_denies_cannot_be_referred_to(world: World, owner: Actor, doctor: Actor, way: str) -> None:
    plain = await owner.create(document(owner.patient or ""))
    masked = await owner.create(document(owner.patient or "", securityLabel=[{"coding": RESTRICTED}]))
    assert (await refer(doctor, way, masked)).status_code in (200, 201)
    await owner.create(consent(owner, doctor, type="deny", securityLabel=RESTRICTED))
    assert (await refer(doctor, way, plain)).status_code in (200, 201)
    answer = await refer(doctor, way, plain, masked)
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "not-found")
    assert issues(answer)[0]["expression"][0].endswith("derivedFrom[1]")


@pytest.mark.parametrize("how", ["identifier", "condition"])
async def test_a_refusal_of_what_is_known_looks_at_the_limits_of_reading_too(
    world: World, owner: Actor, doctor: Actor, how: str
) -> None:
    """Writing is denied altogether, and reading by a code: what is stored must be there to be held against both."""
    reading = observation(owner.patient or "")
    token = f"{reading['identifier'][0]['system']}|{reading['identifier'][0]['value']}"
    condition = {"ifNoneExist": f"identifier={token}"} if how == "condition" else {}
    again = bundle("transaction", entry("POST", "Observation", reading, **condition))
    assert (await doctor.post("", again)).status_code == 200
    await owner.create(consent(owner, doctor, type="deny", code=[concept("http://loinc.org", "1-8")]))
    await owner.create(consent(owner, doctor, "collect", type="deny"))
    answer = await doctor.post("", again)
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "not-found")
