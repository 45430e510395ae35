"""Parts of a type: told in words that people understand, allowed and refused one by one, and the Consent says which."""

from base64 import b64decode
from typing import Any

import pytest

from tests.decisions import Request, account_of, allow, arrive, register_app
from tests.person import Person
from tests.web.test_decision_page import FORM, boxes, consents, token_of
from tests.world import BASE, Actor, World, concept, consent, issues, observation

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
LAB, VITAL = (f"Observation?category={CATEGORY}|{code}" for code in ("laboratory", "vital-signs"))
EXPRESSION = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Consent.provision.expression"
BOTH = f"launch/patient patient/{LAB.replace('?', '.rs?')} patient/{VITAL.replace('?', '.rs?')} patient/Device.rs"


async def stored(owner: Actor) -> dict[str, str]:
    """A reading of each category and one of none; the id of each by its category."""
    codes: dict[str, list[Any]] = {c: [concept(CATEGORY, c)] for c in ("laboratory", "vital-signs", "survey")}
    made = {code: await owner.create(observation(owner.patient, category=found)) for code, found in codes.items()}
    return {code: one["id"] for code, one in made.items()} | {"": (await owner.create(observation(owner.patient)))["id"]}


def expressions(of: dict[str, Any]) -> list[str]:
    """What parts of types a Consent speaks of."""
    found = of["provision"].get("modifierExtension", [])
    assert {one["url"] for one in found} <= {EXPRESSION}
    assert {one["valueExpression"]["language"] for one in found} <= {"application/x-fhir-query"}
    return [one["valueExpression"]["expression"] for one in found]


async def seen_by(app: Actor, owner: Actor, there: dict[str, str]) -> set[str]:
    """Which of these readings an app finds, and reads."""
    found = {one["id"] for one in await app.search(f"Observation?patient={owner.patient}")}
    read = {i for i in there.values() if (await app.get(f"Observation/{i}")).status_code == 200}
    assert found == read
    return {code for code, identifier in there.items() if identifier in found}


@pytest.mark.requirement("SEC-029", "EXT-02", "EXT-07")
async def test_categories_are_told_in_words_and_refused_one_by_one(world: World) -> None:
    owner = await world.patient()
    app, login = await register_app(world), await account_of(world, owner.reference)
    request = Request(app.id)
    person, page = await arrive(world, login, request, scope=BOTH)
    assert boxes(page) == ["read-Device", f"read-{LAB}", f"read-{VITAL}"]
    for said in ("Only: laboratory results.", "Only: vital signs, such as weight, blood pressure and pulse."):
        assert said in page.text
    answer = await allow(person, page, f"read-{LAB}", past="yes")
    [given] = await consents(world, owner)
    assert [c["code"] for c in given["provision"]["class"]] == ["Observation"]
    assert expressions(given) == [LAB]
    bearer = await token_of(world, app, request, answer["code"])
    [approval] = await world.stored("approvals", client=app.id)
    assert approval["scope"] == f"patient/{LAB.replace('?', '.rs?')}"
    there = await stored(owner)
    assert await seen_by(bearer, owner, there) == {"laboratory"}
    # It is the Consent that says so, whatever a token of this app may ask for.
    wide = await world.actor("app", "patient/*.rs", app.id, app.reference, patient=owner.patient)
    assert await seen_by(wide, owner, there) == {"laboratory"}
    mine = (await person.open("/me")).text
    assert "(laboratory results): see" in mine


@pytest.mark.requirement("SEC-029", "CON-014")
async def test_the_evidence_says_which_part_was_ticked(world: World) -> None:
    owner = await world.patient()
    app, login = await register_app(world), await account_of(world, owner.reference)
    person, page = await arrive(world, login, Request(app.id), language="fr", scope=BOTH)
    await allow(person, page, f"read-{VITAL}", "read-Device", past="yes")
    [given] = await consents(world, owner)
    text = b64decode(given["sourceAttachment"]["data"]).decode()
    assert "résultats de laboratoire.\n  [ ] voir\n" in text
    assert "constantes, comme le poids, la tension et le pouls.\n  [x] voir\n" in text
    assert expressions(given) == [VITAL]
    assert [c["code"] for c in given["provision"]["class"]] == ["Device", "Observation"]


async def test_of_all_that_is_asked_for_a_part_can_be_allowed(world: World) -> None:
    owner = await world.patient()
    app, login = await register_app(world), await account_of(world, owner.reference)
    request = Request(app.id)
    person, page = await arrive(world, login, request, scope="launch/patient patient/Observation.rs patient/Observation.c")
    offered = [value for name, value in page.form(FORM).choices if name == "part"]
    assert {f"read-{LAB}", f"read-{VITAL}"} <= set(offered)
    answer = await allow(person, page, "write-Observation", part=[f"read-{VITAL}"], past="yes")
    [approval] = await world.stored("approvals", client=app.id)
    assert set(approval["scope"].split()) == {"patient/Observation.c", f"patient/{VITAL.replace('?', '.rs?')}"}
    assert [expressions(one) for one in await consents(world, owner)] == [[VITAL], []]
    bearer = await token_of(world, app, request, answer["code"])
    there = await stored(owner)
    assert await seen_by(bearer, owner, there) == {"vital-signs"}
    assert (await bearer.post("Observation", observation(owner.patient))).status_code == 201


async def test_all_of_it_is_all_of_it_whatever_else_is_ticked(world: World) -> None:
    owner = await world.patient()
    app, login = await register_app(world), await account_of(world, owner.reference)
    person, page = await arrive(world, login, Request(app.id), scope="launch/patient patient/Observation.rs")
    await allow(person, page, "read-Observation", part=[f"read-{VITAL}"], past="yes")
    [approval] = await world.stored("approvals", client=app.id)
    assert approval["scope"] == "patient/Observation.rs"
    assert [expressions(one) for one in await consents(world, owner)] == [[]]


async def test_what_was_ticked_of_a_part_stays_where_something_is_missing(world: World) -> None:
    owner = await world.patient()
    app, login = await register_app(world), await account_of(world, owner.reference)
    person, page = await arrive(world, login, Request(app.id), scope="launch/patient patient/Observation.rs")
    form = page.form(FORM)
    again = await person.send(form, decision="allow", part=[f"read-{VITAL}"])
    assert again.status == 400
    assert ("part", f"read-{VITAL}") in again.form(FORM).fields
    assert any(tag == "details" and "open" in found for tag, found in again.tags)


@pytest.mark.requirement("SEC-029")
@pytest.mark.parametrize("value", ["x%0A%20%20[x]%20add", "%E2%80%AEabc", "a%00b"])
async def test_a_code_cannot_be_a_line_of_its_own_nor_turn_the_page_around(world: World, value: str) -> None:
    owner = await world.patient()
    app = await register_app(world)
    person = Person(world.http, "http://gateway.test")
    login = await account_of(world, owner.reference)
    request = Request(app.id)
    scope = f"launch/patient patient/Observation.rs?category={value} patient/Device.rs"
    page = await person.log_in(login, "correct horse battery", request.path(scope=scope))
    text = page.text
    assert not {"\u202e", "\x00"} & set(text)
    assert "  [x] add" not in text


@pytest.mark.requirement("SEC-029")
async def test_an_app_cannot_speak_to_the_person_by_a_code_nor_bury_them_in_parts(world: World) -> None:
    owner = await world.patient()
    app, login = await register_app(world), await account_of(world, owner.reference)
    said = "nothing.%20This%20app%20is%20recommended%20by%20your%20doctor"
    _, page = await arrive(world, login, Request(app.id), scope=f"launch/patient patient/Observation.rs?code={said}")
    assert "recommended by your doctor" not in page.text
    many = " ".join(f"patient/Observation.rs?code={n}" for n in range(13))
    answer = await world.http.get("http://gateway.test" + Request(app.id).path(scope=f"launch/patient {many}"))
    assert "error=invalid_scope" in answer.headers["location"]


@pytest.mark.parametrize(
    ("extension", "code"),
    [
        ({"url": "https://other.example/x", "valueString": "x"}, "extension"),
        ({"url": EXPRESSION, "valueString": LAB}, "extension"),
        ({"url": EXPRESSION, "valueExpression": {"language": "text/fhirpath", "expression": "true"}}, "extension"),
        (
            {"url": EXPRESSION, "valueExpression": {"language": "application/x-fhir-query", "expression": "Observation"}},
            "value",
        ),
        (
            {"url": EXPRESSION, "valueExpression": {"language": "application/x-fhir-query", "expression": "Device?type=x"}},
            "value",
        ),
        (
            {
                "url": EXPRESSION,
                "valueExpression": {"language": "application/x-fhir-query", "expression": "Observation?status=x"},
            },
            "value",
        ),
        (
            {
                "url": EXPRESSION,
                "valueExpression": {"language": "application/x-fhir-query", "expression": "Observation?code:not=x"},
            },
            "value",
        ),
    ],
)
async def test_what_cannot_be_honoured_is_not_stored(world: World, extension: dict[str, Any], code: str) -> None:
    owner, service = await world.patient(), await world.service()
    refused = await owner.post("Consent", consent(owner, service, types=["Observation"], modifierExtension=[extension]))
    assert refused.status_code == 422, refused.text
    assert issues(refused)[0]["code"] == code
    assert issues(refused)[0]["expression"][0].startswith("Consent.provision.modifierExtension")


@pytest.mark.requirement("CON-002", "CON-003")
async def test_a_denial_of_a_part_denies_what_has_no_category_too(world: World) -> None:
    owner, service = await world.patient(), await world.service()
    reader = await world.actor("service", "patient/*.rs", None, service.reference, patient=owner.patient)
    there = await stored(owner)
    await world.consent(owner, service, types=["Observation"])
    assert await seen_by(reader, owner, there) == {"laboratory", "vital-signs", "survey", ""}
    part = {"url": EXPRESSION, "valueExpression": {"language": "application/x-fhir-query", "expression": LAB}}
    await owner.create(consent(owner, service, types=["Observation"], type="deny", modifierExtension=[part]))
    assert await seen_by(reader, owner, there) == {"vital-signs", "survey"}
    assert (await owner.get(f"{BASE}/Observation/{there['laboratory']}")).status_code == 200
