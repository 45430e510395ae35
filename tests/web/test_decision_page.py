"""The page on which a patient decides about a client: nothing is ticked beforehand; what is decided is kept and enforced."""

import asyncio
from base64 import b64decode
from datetime import timedelta
from typing import Any

import pytest

from gateway.access.decision import digest_of
from gateway.exchange.catalogue import change_client
from gateway.exchange.redemption import InvalidGrant
from gateway.store.approvals import put_authorization, take_authorization
from tests.clients import Registered, register
from tests.decisions import (
    CALLBACK,
    PASSWORD,
    SITE,
    Request,
    account_of,
    allow,
    arrive,
    entry_of,
    medisoft,
    paired,
    redeem,
    register_app,
    told,
)
from tests.person import Page, Person
from tests.world import Actor, World, observation, practitioner, related_person, unique

FORM = "/oauth/authorize/continue"


async def token_of(world: World, app: Registered, request: Request, code: str) -> Actor:
    """The app, with the token that a code stands for."""
    issued = await redeem(world, await entry_of(world, app), code, CALLBACK, request.verifier)
    return Actor(world.http, issued.access_token, app.reference, str(issued.approval["patient"]))


async def consents(world: World, owner: Actor) -> list[dict[str, Any]]:
    """The patient's Consents by the last part of their identifiers, those in force first."""
    found = await owner.search("Consent?_sort=-_lastUpdated")
    return sorted(found, key=lambda one: (one["status"], one["identifier"][0]["value"]))


def boxes(page: Page) -> list[str]:
    return [value for name, value in page.form(FORM).choices if name == "allow"]


@pytest.mark.requirement("SEC-029")
async def test_everything_asked_for_is_shown_and_nothing_is_ticked(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world)
    _, page = await arrive(world, await account_of(world, owner.reference), Request(app.id))
    assert page.status == 200
    form = page.form(FORM)
    assert [name for name, _ in form.fields] == ["form_token"]
    assert boxes(page) == ["read-Device", "read-Observation", "write-Observation"]
    assert [value for name, value in form.choices if name == "duration"] == ["once", "months", "year", "unlimited"]
    assert [value for name, value in form.choices if name == "past"] == ["yes"]
    for said in (
        "GlucoApp asks for access to your health record",
        "To show your glucose to you.",
        "GlucoApp SAS",
        "privacy@glucoapp.example",
        "This is about your own record, Camille Durand.",
        "It may also do this while you are not using it.",
        "It is told who you are here.",
        "patient/Observation.rs",
    ):
        assert said in page.text
    assert page.answer.headers["content-security-policy"].endswith("form-action 'self' https://app.example")


async def test_a_wildcard_is_shown_as_the_types_that_the_client_may_have(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world, read=["Observation", "Patient"], write=[])
    _, page = await arrive(world, await account_of(world, owner.reference), Request(app.id), scope="patient/*.cruds")
    assert boxes(page) == ["read-Observation", "read-Patient"]


async def test_a_part_of_a_type_is_told_as_a_part(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world, read=["Observation", "DocumentReference"])
    scope = (
        "patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory "
        "patient/Observation.rs?category=vital-signs patient/DocumentReference.rs?type=1 patient/DocumentReference.r"
    )
    _, page = await arrive(world, await account_of(world, owner.reference), Request(app.id), scope=scope)
    for said in ("Only: laboratory results.", "Only: vital signs, such as weight, blood pressure and pulse."):
        assert said in page.text
    assert "of the type 1" not in page.text  # reading single ones is asked for whatever their type


async def test_who_else_gets_the_data_and_how_long_it_is_kept_is_what_the_catalogue_says(world: World) -> None:
    owner = await world.patient()
    login = await account_of(world, owner.reference)
    app = await register_app(
        world, recipients={"fr": "L’hébergeur Exemple."}, retention={"en": "Two years.", "fr": "Deux ans."}
    )
    _, page = await arrive(world, login, Request(app.id))
    for said in ("L’hébergeur Exemple.", "Two years."):
        assert said in page.text
    assert "nobody else" not in page.text


@pytest.mark.requirement("SEC-011", "CON-001")
async def test_what_is_ticked_is_granted_and_nothing_else(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world)
    request = Request(app.id)
    person, page = await arrive(world, await account_of(world, owner.reference), request)
    answer = await allow(person, page, "read-Observation", "write-Device", "read-Patient", past="yes")
    assert (answer["state"], answer["iss"], set(answer)) == (request.state, SITE, {"code", "state", "iss"})
    [approval] = await world.stored("approvals", client=app.id)
    assert approval["scope"] == "patient/Observation.rs"  # what was not asked for cannot be ticked
    [consent] = await consents(world, owner)
    assert [c["code"] for c in consent["provision"]["class"]] == ["Observation"]
    bearer = await token_of(world, app, request, answer["code"])
    reading = await owner.create(observation(owner.patient))
    assert (await bearer.get(f"Observation/{reading['id']}")).status_code == 200
    assert (await bearer.get(f"Device?patient={owner.patient}")).status_code == 403
    assert (await bearer.post("Observation", observation(owner.patient))).status_code == 403


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"duration": "year"}, ["read-Device"]),
        ({"allow": "read-Observation"}, ["duration-once"]),
        ({"allow": "read-Patient", "duration": "for ever"}, ["read-Device", "duration-once"]),
    ],
)
async def test_what_is_missing_is_led_to_and_what_was_ticked_stays(
    world: World, fields: dict[str, str], missing: list[str]
) -> None:
    owner = await world.patient()
    app = await register_app(world)
    person, page = await arrive(world, await account_of(world, owner.reference), Request(app.id))
    page = await person.send(page.form(FORM), decision="allow", past="yes", **fields)
    assert page.status == 400
    links = [tag["href"] for name, tag in page.tags if name == "a" and tag["href"].startswith("#")]
    assert links == [f"#{one}" for one in missing]
    assert {tag.get("id") for _, tag in page.tags} >= set(missing)
    assert ("past", "yes") in page.form(FORM).fields
    assert (("allow", "read-Observation") in page.form(FORM).fields) is (fields.get("allow") == "read-Observation")
    assert await world.stored("approvals", client=app.id) == []


async def test_refusing_everything_is_told_to_the_client_and_leaves_a_trace(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world)
    request = Request(app.id)
    person, page = await arrive(world, await account_of(world, owner.reference), request)
    await person.send(page.form(FORM), decision="refuse", allow="read-Observation", duration="year")
    assert told(person) == {
        "error": "access_denied",
        "error_description": "the person has refused this",
        "state": request.state,
        "iss": SITE,
    }
    assert await owner.search("Consent") == []
    [event] = await owner.search("AuditEvent?subtype=AuthZ-Consent")
    assert (event["outcome"], event["outcomeDesc"]) == ("8", f"{app.id}: refused by the person")


@pytest.mark.requirement("CON-014")
@pytest.mark.parametrize("language", ["en", "fr"])
async def test_the_exact_text_is_kept_and_enters_the_audit(world: World, language: str) -> None:
    owner = await world.patient()
    app = await register_app(world)
    person, page = await arrive(world, await account_of(world, owner.reference), Request(app.id), language)
    await allow(person, page, "read-Observation", "write-Observation")
    found = await consents(world, owner)
    assert len(found) == 2
    [text] = {b64decode(one["sourceAttachment"]["data"]).decode() for one in found}
    assert {one["sourceAttachment"]["language"] for one in found} == {language}
    shown = " ".join(page.text.split())
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    for line in lines:
        for part in line.removeprefix("[x] ").removeprefix("[ ] ").replace(": ", "\0").split("\0"):
            sentence = part.split(" (")[0].split(". ")[0].rstrip(".")
            assert sentence.split(" · ")[0].split(" launch")[0].split(" patient/")[0] in shown, line
    assert text.count("[x]") == 2
    assert text.count("[ ]") == 6  # Device, past data, four parts of Observation
    [event] = await owner.search("AuditEvent?subtype=AuthZ-Consent")
    assert digest_of(text) in event["outcomeDesc"]
    assert "password" in event["outcomeDesc"]
    named = {e["what"]["reference"] for e in event["entity"] if "reference" in e.get("what", {})}
    assert named >= {f"Consent/{one['id']}/_history/1" for one in found}


@pytest.mark.requirement("CON-015")
async def test_a_later_decision_holds_in_place_of_the_one_before_and_inherits_nothing(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world)
    login = await account_of(world, owner.reference)
    request, code = await paired(world, owner, app, "read-Observation", "write-Observation")
    first = await token_of(world, app, request, code)
    await owner.create(observation(owner.patient))
    again = Request(app.id)
    person, page = await arrive(world, login, again, scope="patient/Observation.rs patient/DocumentReference.rs")
    assert boxes(page) == ["read-DocumentReference", "read-Observation"]
    assert ("allow", "read-Observation") not in page.form(FORM).fields  # asked again
    answer = await allow(person, page, "read-DocumentReference")
    second = await token_of(world, app, again, answer["code"])
    assert [
        (one["identifier"][0]["value"], one["status"], one["meta"]["versionId"]) for one in await consents(world, owner)
    ] == [
        (f"{app.id}/read", "active", "2"),
        (f"{app.id}/write", "inactive", "2"),
    ]
    assert (await second.get(f"DocumentReference?patient={owner.patient}")).status_code == 200
    assert (await second.get(f"Observation?patient={owner.patient}")).status_code == 403
    assert (await first.get(f"Observation?patient={owner.patient}")).json()["total"] == 0
    assert (await first.post("Observation", observation(owner.patient))).status_code == 403


async def test_of_decisions_at_the_same_moment_on_one_request_one_counts(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world)
    person, page = await arrive(world, await account_of(world, owner.reference), Request(app.id))
    twins = [Person(world.http, SITE) for _ in range(8)]
    for twin in twins:
        twin.cookies = dict(person.cookies)
    sent = [twin.send(page.form(FORM), decision="allow", allow="read-Observation", duration="year") for twin in twins]
    answers = await asyncio.gather(*sent)
    assert {one.status for one in answers} == {303}
    assert len({one.answer.headers["location"] for one in answers}) == 1  # who clicks twice gets to the same place
    assert len(await world.stored("approvals", client=app.id)) == 1
    assert len(await world.stored("codes", client=app.id)) == 1
    assert [one["version"] for one in await world.stored("Consent", patient=owner.patient)] == [1]


async def test_of_different_decisions_at_the_same_moment_on_one_request_one_counts(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world)
    person, page = await arrive(world, await account_of(world, owner.reference), Request(app.id))
    twins = [Person(world.http, SITE) for _ in range(4)]
    for twin in twins:
        twin.cookies = dict(person.cookies)
    ticks = ("read-Observation", "read-Device", "write-Observation", "read-Observation")
    sent = [
        twin.send(page.form(FORM), decision="allow", allow=tick, duration="year")
        for twin, tick in zip(twins, ticks, strict=True)
    ]
    answers = await asyncio.gather(*sent)
    assert {one.status for one in answers} == {303, 410}
    assert len({one.answer.headers["location"] for one in answers if one.status == 303}) == 1
    assert len(await world.stored("approvals", client=app.id)) == 1


async def test_the_answer_of_a_decision_is_for_who_made_it_and_until_it_is_used(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world)
    login = await account_of(world, owner.reference)
    request = Request(app.id)
    person, page = await arrive(world, login, request)
    form = page.form(FORM)
    first = await allow(person, page, "read-Observation")
    assert await allow(person, page, "read-Observation") == first
    [stored] = await world.stored("authorizations", client=app.id)
    assert first["code"] not in str(stored)
    other = Person(world.http, SITE)
    await other.log_in(login, PASSWORD)
    here = (await other.open("/me")).forms[0].fields  # their own token for forms
    form_token = dict(here)["form_token"]
    sent = {"decision": "allow", "allow": "read-Observation", "duration": "year", "form_token": form_token}
    assert (await other.send(form, **sent)).status == 410
    assert (await person.send(form, decision="refuse")).status == 410
    assert (await person.send(form, decision="allow", duration="year")).status == 410
    assert (await person.open(form.action)).status == 410
    await token_of(world, app, request, first["code"])
    page = await person.send(form, decision="allow", allow="read-Observation", duration="year")
    assert page.status == 410
    assert len(await world.stored("tokens", client=app.id)) == 1  # and what the code gave holds on


@pytest.mark.requirement("AUD-002")
@pytest.mark.parametrize("kind", ["app", "software"])
async def test_what_could_not_be_stored_can_be_decided_again(world: World, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    app = await register_app(world) if kind == "app" else await medisoft(world, [CALLBACK])
    who, scope = (owner.reference, None) if kind == "app" else (doctor.reference, "user/Observation.rs")
    asked = {} if scope is None else {"scope": scope}
    person, page = await arrive(world, await account_of(world, who), Request(app.id), **asked)
    step = type(world.gateway.audit).step

    def too_large(self: Any, documents: list[Any]) -> Any:
        return step(self, [{**document, "x": b"x" * 17_000_000} for document in documents])  # the server refuses it

    sent = {"decision": "allow", "allow": "read-Observation", "duration": "year"}
    monkeypatch.setattr(type(world.gateway.audit), "step", too_large)
    failed = await person.send(page.form(FORM), **sent)
    assert (failed.status, failed.answer.headers["retry-after"]) == (503, "2")
    monkeypatch.undo()
    assert await world.stored("approvals", client=app.id) == []
    assert await world.stored("codes", client=app.id) == []
    await person.send(page.form(FORM), **sent)
    assert told(person)["code"]
    assert len(await world.stored("approvals", client=app.id)) == 1


async def test_refusing_twice_is_refusing_once(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world)
    person, page = await arrive(world, await account_of(world, owner.reference), Request(app.id))
    await person.send(page.form(FORM), decision="refuse")
    first = told(person)
    await person.send(page.form(FORM), decision="refuse")
    assert told(person) == first
    assert len(await owner.search("AuditEvent?subtype=AuthZ-Consent")) == 1


async def test_who_acts_for_others_chooses_whose_record(world: World) -> None:
    carer, mother = await world.patient(), await world.patient(name=[{"text": "Anne Durand"}])
    named = await world.operator.create(related_person(mother.patient))
    app = await register_app(world)
    request = Request(app.id)
    login = await account_of(world, carer.reference, f"RelatedPerson/{named['id']}")
    person, page = await arrive(world, login, request)
    assert "Anne Durand" in page.text
    page = await person.send(page.form(FORM), decision="allow", allow="read-Observation", duration="year")
    assert page.status == 400
    assert "Choose whose record this is about" in page.text
    answer = await allow(person, page, "read-Observation", role=f"RelatedPerson/{named['id']}")
    bearer = await token_of(world, app, request, answer["code"])
    assert bearer.patient == mother.patient
    assert await consents(world, carer) == []
    [consent] = await consents(world, mother)
    assert consent["performer"] == [{"reference": f"RelatedPerson/{named['id']}"}]


@pytest.mark.parametrize(
    "changes", [{"active": False}, {"period": {"end": "2020-01-01"}}, {"period": {"start": "2099-01-01"}}], ids=str
)
async def test_who_acts_for_somebody_no_longer_decides_nothing_for_them(world: World, changes: dict[str, Any]) -> None:
    mother = await world.patient()
    named = await world.operator.create(related_person(mother.patient))
    app = await register_app(world)
    login = await account_of(world, f"RelatedPerson/{named['id']}")
    await world.operator.put(f"RelatedPerson/{named['id']}", {**named, **changes})
    person, page = await arrive(world, login, Request(app.id))
    assert "cannot decide about GlucoApp" in page.text
    page = await person.send(page.form(FORM), decision="allow", allow="read-Observation", duration="year")
    assert page.status == 403
    person, page = await arrive(world, login, Request(app.id))
    await person.send(page.form(FORM), decision="refuse")
    assert told(person)["error"] == "access_denied"


async def test_a_professional_decides_about_software_as_themselves_and_stores_no_consent(world: World) -> None:
    doctor = await world.operator.create(practitioner())
    software = await register(
        world,
        kind="software",
        category="care",
        name="MediSoft",
        authentication="client_secret_basic",
        grants=["authorization_code"],
        keys=[],
        redirect_uris=[CALLBACK],
        read=["Observation"],
        write=[],
    )
    request = Request(software.id)
    login = await account_of(world, f"Practitioner/{doctor['id']}")
    person, page = await arrive(world, login, request, scope="user/Observation.rs openid")
    assert boxes(page) == []
    assert "MediSoft asks to work with your rights" in page.text
    assert "It will work with your own rights, and no others." in page.text
    assert "ticked" not in page.text
    await person.send(page.form(FORM), decision="allow")
    issued = await redeem(world, await entry_of(world, software), told(person)["code"], CALLBACK, request.verifier)
    [token] = await world.stored("tokens", client=software.id)
    assert (token["kind"], token["actors"], token["software"]) == (
        "professional", [f"Practitioner/{doctor['id']}"], [software.reference],
    )  # fmt: skip
    assert issued.scope == "openid user/Observation.rs"
    assert issued.refresh_token is None


async def test_a_patient_cannot_decide_for_professionals_nor_they_for_patients(world: World) -> None:
    doctor = await world.operator.create(practitioner())
    app = await register_app(world)
    _, page = await arrive(world, await account_of(world, f"Practitioner/{doctor['id']}"), Request(app.id))
    assert "cannot decide about GlucoApp" in page.text


async def test_other_terms_of_a_client_end_what_is_being_decided(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world)
    person, page = await arrive(world, await account_of(world, owner.reference), Request(app.id))
    changed = {**{name: getattr(app.client, name) for name in app.client.__struct_fields__}, "purpose": {"en": "To sell it."}}
    await change_client(world.gateway, type(app.client)(**changed))
    page = await person.send(page.form(FORM), decision="allow", allow="read-Observation", duration="year")
    assert page.status == 410


async def test_once_gives_no_refresh_token_and_ends_after_an_hour(world: World) -> None:
    owner = await world.patient()
    app = await register_app(world)
    request, code = await paired(world, owner, app, "read-Observation", duration="once")
    issued = await redeem(world, await entry_of(world, app), code, CALLBACK, request.verifier)
    assert issued.refresh_token is None
    [approval] = await world.stored("approvals", client=app.id)
    assert approval["until"] - approval["began"] == timedelta(hours=1)
    other, late = await paired(world, owner, app, "read-Observation")
    world.clock.ahead += timedelta(seconds=61)
    with pytest.raises(InvalidGrant):
        await redeem(world, await entry_of(world, app), late, CALLBACK, other.verifier)


async def test_a_request_that_was_decided_on_is_closed_for_who_came_a_moment_before(world: World) -> None:
    mongo, now, handle = world.gateway.mongo, world.clock(), unique("handle")
    await put_authorization(mongo, handle, {"expires": now + timedelta(minutes=1)})
    answer, until = {"said": "x"}, now + timedelta(minutes=1)
    assert await take_authorization(mongo, handle, now, answer, until)
    assert not await take_authorization(mongo, handle, now - timedelta(milliseconds=5), answer, until)
