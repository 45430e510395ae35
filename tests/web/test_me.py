"""The page of a person: who may do what for them, and that taking it back ends it at once."""

import pytest

from gateway.exchange.redemption import InvalidGrant, end_pairing, refresh
from tests.decisions import (
    CALLBACK,
    PASSWORD,
    SITE,
    Request,
    account_of,
    allow,
    arrive,
    entry_of,
    paired,
    redeem,
    register_app,
    told,
)
from tests.person import Person
from tests.world import Actor, World, observation, related_person


@pytest.mark.requirement("EXT-06", "SEC-025")
async def test_what_is_taken_back_ends_at_once_and_leaves_nothing(world: World) -> None:
    owner, app, other = await world.patient(), await register_app(world), await register_app(world, name="CarbApp")
    await owner.create(observation(owner.patient))
    request, code = await paired(world, owner, app, "read-Observation", "write-Observation")
    issued = await redeem(world, await entry_of(world, app), code, CALLBACK, request.verifier)
    await paired(world, owner, other, "read-Device")
    camille = Person(world.http, SITE)
    page = await camille.log_in(await account_of(world, owner.reference), PASSWORD)
    for said in ("GlucoApp", "Measurements: see", "Measurements: add and change", "CarbApp", "Devices: see"):
        assert said in page.text
    form = next(form for form in page.forms if ("client", app.id) in form.fields)
    page = await camille.send(form)
    assert "It is taken back." in page.text
    assert "GlucoApp" not in page.text
    assert "CarbApp" in page.text
    bearer = Actor(world.http, issued.access_token, "")
    assert (await bearer.get(f"Observation?patient={owner.patient}")).status_code == 401
    with pytest.raises(InvalidGrant):
        await refresh(world.gateway, await entry_of(world, app), issued.refresh_token or "", None)
    states = {one["identifier"][0]["value"]: one["status"] for one in await owner.search("Consent")}
    assert states == {f"{app.id}/read": "inactive", f"{app.id}/write": "inactive", f"{other.id}/read-undated": "active"}
    page = await camille.send(form)  # once more, from a page that was left open
    assert page.status == 404


async def test_somebody_else_s_access_cannot_be_taken_back(world: World) -> None:
    owner, stranger, app = await world.patient(), await world.patient(), await register_app(world)
    await paired(world, owner, app, "read-Observation")
    mallory = Person(world.http, SITE)
    page = await mallory.log_in(await account_of(world, stranger.reference), PASSWORD)
    assert "Nobody." in page.text
    form = page.form("/logout")
    form.action = f"{SITE}/me/take-back"
    for role in (owner.reference, stranger.reference):
        assert (await mallory.send(form, role=role, client=app.id)).status == 404
    [approval] = await world.stored("approvals", client=app.id)
    assert approval["ended"] is None


async def test_who_acts_for_somebody_sees_and_takes_back_for_them(world: World) -> None:
    mother, app = await world.patient(name=[{"text": "Anne Durand"}]), await register_app(world)
    named = await world.operator.create(related_person(mother.patient))
    await paired(world, mother, app, "read-Observation")
    carer = Person(world.http, SITE, "fr")
    page = await carer.log_in(await account_of(world, f"RelatedPerson/{named['id']}"), PASSWORD)
    assert "Anne Durand" in page.text
    page = await carer.send(page.form("/me/take-back"))
    assert "C’est retiré." in page.text
    [consent] = await mother.search("Consent")
    assert consent["status"] == "inactive"


async def test_a_consent_withdrawn_elsewhere_is_listed_no_more(world: World) -> None:
    owner, app = await world.patient(), await register_app(world)
    login = await account_of(world, owner.reference)
    person, page = await arrive(world, login, Request(app.id))
    await allow(person, page, "read-Observation")
    assert "GlucoApp" in (await person.open("/me")).text
    [given] = await owner.search("Consent")
    await world.revoke(owner, given)
    assert "GlucoApp" not in (await person.open("/me")).text


async def test_what_an_app_gave_back_is_still_the_patient_s_to_take_back(world: World) -> None:
    owner, app = await world.patient(), await register_app(world)
    request, code = await paired(world, owner, app, "read-Observation")
    issued = await redeem(world, await entry_of(world, app), code, CALLBACK, request.verifier)
    await end_pairing(world.gateway, app.id, issued.refresh_token or "")
    camille = Person(world.http, SITE)
    page = await camille.log_in(await account_of(world, owner.reference), PASSWORD)
    assert "GlucoApp" in page.text  # its Consent is in force: a token it got otherwise would be good
    page = await camille.send(page.form("/me/take-back"))
    assert "GlucoApp" not in page.text
    [given] = await owner.search("Consent")
    assert given["status"] == "inactive"


async def test_a_professional_takes_back_what_software_may_do_as_them(world: World) -> None:
    doctor = await world.professional()
    software = await register_app(world, kind="software", category="care", name="MediSoft", write=[])
    request = Request(software.id)
    person, page = await arrive(
        world, await account_of(world, doctor.reference), request, scope="user/Observation.rs offline_access"
    )
    await person.send(page.form("/oauth/authorize/continue"), decision="allow")
    entry = await entry_of(world, software)
    issued = await redeem(world, entry, told(person)["code"], CALLBACK, request.verifier)
    page = await person.open("/me")
    assert "MediSoft" in page.text
    page = await person.send(page.form("/me/take-back"))
    assert "MediSoft" not in page.text
    assert (await Actor(world.http, issued.access_token, "").get("Observation")).status_code == 401
    with pytest.raises(InvalidGrant):
        await refresh(world.gateway, entry, issued.refresh_token or "", None)
