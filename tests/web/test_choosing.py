"""Software of professionals that needs a patient, without a launch: whoever logs in names one whom they may see."""

import pytest

from tests.clients import Registered
from tests.decisions import CALLBACK, PASSWORD, SITE, Request, account_of, arrive, entry_of, medisoft, redeem, told
from tests.person import Page, Person
from tests.world import Actor, World, consent, observation, organization, patient, practitioner

FORM, DECIDE = "/oauth/authorize/patient", "/oauth/authorize/continue"
SCOPE = "launch/patient openid fhirUser patient/Observation.rs user/Patient.r"


async def treated(world: World, doctor: Actor) -> tuple[Actor, str]:
    """A patient whom this professional treats, and the identifier on their card."""
    owner = await world.patient(generalPractitioner=[{"reference": doctor.reference}], name=[{"text": "Anne Morel"}])
    return owner, await identifier_of(world, owner)


async def identifier_of(world: World, owner: Actor) -> str:
    return str((await world.operator.get(f"Patient/{owner.patient}")).json()["identifier"][0]["value"])


def said(page: Page) -> tuple[int, str]:
    """Status and text of a page, without what names the request."""
    return page.status, page.text


async def at_work(world: World, scope: str = SCOPE) -> tuple[Actor, Registered, Request, Person, Page]:
    """A professional who was sent by their software and has logged in."""
    doctor, app = await world.professional(), await medisoft(world, [CALLBACK])
    request = Request(app.id)
    person, page = await arrive(world, await account_of(world, doctor.reference), request, scope=scope)
    return doctor, app, request, person, page


@pytest.mark.requirement("SEC-015")
async def test_a_professional_chooses_a_patient_and_the_token_is_about_that_one(world: World) -> None:
    doctor, app, request, person, page = await at_work(world)
    assert page.answer.url.path == FORM
    assert "Which patient?" in page.text
    owner, number = await treated(world, doctor)
    reading = await owner.create(observation(owner.patient))
    page = await person.send(page.form(FORM), identifier=f" {number[:5]} {number[5:]} ")
    assert page.answer.url.path == DECIDE
    assert "It opens on the record of Anne Morel." in page.text
    await person.send(page.form(DECIDE), decision="allow")
    issued = await redeem(world, await entry_of(world, app), told(person)["code"], CALLBACK, request.verifier)
    assert issued.approval["patient"] == owner.patient
    assert issued.scope == "launch/patient openid fhirUser patient/Observation.rs user/Patient.r"
    bearer = Actor(world.http, issued.access_token, "")
    assert (await bearer.get(f"Observation/{reading['id']}")).status_code == 200
    other, _ = await treated(world, doctor)
    theirs = await other.create(observation(other.patient))
    assert (await bearer.get(f"Observation/{theirs['id']}")).status_code == 404
    events = await owner.search("AuditEvent?subtype=read")
    assert any(doctor.reference == agent.get("who", {}).get("reference") for one in events for agent in one["agent"])


async def test_the_token_response_names_the_patient_and_wants_a_banner(world: World) -> None:  # g10_patient_context
    doctor, app, request, person, page = await at_work(world)
    owner, number = await treated(world, doctor)
    page = await person.send(page.form(FORM), identifier=number)
    await person.send(page.form(DECIDE), decision="allow")
    fields = {
        "grant_type": "authorization_code",
        "code": told(person)["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": request.verifier,
        "client_id": app.id,
    }
    body = (await world.http.post(f"{SITE}/oauth/token", data=fields)).json()
    assert (body["patient"], body["need_patient_banner"]) == (owner.patient, True)


async def test_whom_one_may_not_see_is_answered_like_nobody(world: World) -> None:
    doctor, app, _, person, page = await at_work(world)
    stranger = await world.patient()
    hidden = await person.send(page.form(FORM), identifier=await identifier_of(world, stranger))
    unknown = await person.send(page.form(FORM), identifier="9999999999999")
    assert said(hidden) == said(unknown)
    assert hidden.status == 400
    assert "No patient whose record you may see has this identifier" in hidden.text
    twice = "7777777777777"
    for system in ("urn:oid:1.2.3", "urn:oid:1.2.4"):
        named = {"identifier": [{"system": system, "value": twice}]}
        await world.operator.create(patient(generalPractitioner=[{"reference": doctor.reference}], **named))
    assert said(await person.send(page.form(FORM), identifier=twice)) == said(unknown)  # it tells nobody apart
    assert said(await person.send(page.form(FORM), identifier="x" * 5_000)) == said(unknown)
    empty = await person.send(page.form(FORM), identifier="  ")
    assert (empty.status, "Enter the patient’s identifier" in empty.text) == (400, True)
    [tried] = await stranger.search("AuditEvent?outcome=8")  # the patient sees who tried
    assert any(agent.get("who", {}).get("reference") == doctor.reference for agent in tried["agent"])
    assert (await person.open(page.answer.url.raw_path.decode().replace(FORM, DECIDE))).answer.url.path == FORM
    page = await person.send(page.form(DECIDE), decision="allow")
    assert page.answer.url.path == FORM  # nothing is decided before it is known about whom
    assert await world.stored("approvals", client=app.id) == []


async def test_a_consent_for_the_professional_or_the_place_they_work_at_opens_a_patient(world: World) -> None:
    doctor, _, _, person, page = await at_work(world)
    owner = await world.patient()
    number = await identifier_of(world, owner)
    assert (await person.send(page.form(FORM), identifier=number)).status == 400
    await owner.create(consent(owner, doctor, types=["Patient", "Observation"]))
    assert (await person.send(page.form(FORM), identifier=number)).answer.url.path == DECIDE
    mother = await world.patient()
    clinic = await world.operator.create(organization())
    place = Actor(world.http, "", f"Organization/{clinic['id']}")
    await mother.create(consent(mother, place, types=["Patient"]))
    assert (await person.send(page.form(FORM), identifier=await identifier_of(world, mother))).status == 400
    [session] = await world.stored("sessions", references=doctor.reference)
    at_place = {"$set": {"workplaces": [place.reference]}}  # as a provider says of those who log in there
    await world.gateway.mongo.change("sessions", {"_id": session["_id"]}, at_place)
    page = await person.send(page.form(FORM), identifier=await identifier_of(world, mother))
    assert page.answer.url.path == DECIDE


async def test_another_patient_can_be_chosen_until_it_is_decided(world: World) -> None:
    doctor, app, request, person, page = await at_work(world)
    first, number = await treated(world, doctor)
    second, other = await treated(world, doctor)
    decide = await person.send(page.form(FORM), identifier=number)
    [link] = [tag["href"] for name, tag in decide.tags if name == "a" and tag["href"].startswith(FORM)]
    page = await person.open(link)
    page = await person.send(page.form(FORM), identifier=other)
    await person.send(page.form(DECIDE), decision="allow")
    issued = await redeem(world, await entry_of(world, app), told(person)["code"], CALLBACK, request.verifier)
    assert issued.approval["patient"] == second.patient != first.patient
    assert (await person.send(page.form(DECIDE), decision="refuse")).status == 410
    assert (await person.open(link)).status == 410


async def test_a_choice_is_of_who_made_it(world: World) -> None:
    doctor, _, _, person, page = await at_work(world)
    _, number = await treated(world, doctor)
    decide = await person.send(page.form(FORM), identifier=number)
    colleague = await world.operator.create(practitioner())
    other = Person(world.http, SITE)
    path = decide.answer.url.raw_path.decode()
    page = await other.log_in(await account_of(world, f"Practitioner/{colleague['id']}"), PASSWORD, path)
    assert page.answer.url.path == FORM
    assert "Anne Morel" not in page.text


async def test_nobody_is_asked_who_needs_not_be_and_one_can_go_back(world: World) -> None:
    _, _, _, _, page = await at_work(world, "user/Observation.rs openid")
    assert page.answer.url.path == DECIDE
    _, _, request, person, page = await at_work(world)
    await person.send(page.form(DECIDE), decision="refuse")
    assert (told(person)["error"], told(person)["state"]) == ("access_denied", request.state)
    owner, app = await world.patient(), await medisoft(world, [CALLBACK])
    _, page = await arrive(world, await account_of(world, owner.reference), Request(app.id), scope=SCOPE)
    assert "cannot decide about MediSoft" in page.text


async def test_the_page_is_told_in_french_and_says_what_is_wrong_where_it_is(world: World) -> None:
    doctor, app = await world.professional(), await medisoft(world, [CALLBACK])
    login = await account_of(world, doctor.reference)
    person, page = await arrive(world, login, Request(app.id), "fr", scope=SCOPE)
    assert "Quel patient" in page.text
    page = await person.send(page.form(FORM), identifier="")
    [field] = [tag for name, tag in page.tags if name == "input" and tag.get("id") == "identifier"]
    assert field["aria-invalid"] == "true"
    assert {tag.get("id") for _, tag in page.tags} >= set(field["aria-describedby"].split())
    assert [tag["href"] for name, tag in page.tags if name == "a" and tag["href"].startswith("#")] == ["#identifier"]
