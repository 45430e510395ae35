"""Which profession reads which documents of those it treats: a table, and every way to a document (SEC-06)."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.schemas import find_schemas
from tests.clients import ask, asked_with, assertion
from tests.conftest import make_settings, running_world
from tests.documents.papers import deposited, pdf
from tests.oauth.test_statements import clinic_of, doctor_of, stating
from tests.world import LOINC, PROFESSIONS, Actor, World, bundle, concept, consent, document, entry, observation, practitioner

pytestmark = pytest.mark.requirement("SEC-06")
PRESCRIPTION, IMAGING, STRANGE = "57833-6", "18748-4", "99999-0"
LEGACY = "https://mos.esante.gouv.fr/NOS/TRE_A04-Loinc/FHIR/TRE-A04-Loinc"
DOCTOR, NURSE, PHYSIOTHERAPIST = "10", "60", "70"


async def professional(world: World, *professions: str, **elements: Any) -> Actor:
    """A professional of these professions by their qualifications."""
    qualification = [{"code": concept(PROFESSIONS, code)} for code in professions]
    body = practitioner(**({"qualification": qualification} | elements))
    if not body["qualification"]:
        del body["qualification"]
    reference = f"Practitioner/{(await world.operator.create(body))['id']}"
    return await world.actor("professional", "user/*.cruds", reference=reference, user=reference)


async def treated_by(world: World, actor: Actor) -> tuple[Actor, dict[str, tuple[str, str]]]:
    """A patient of theirs with a document of each type; each with its content."""
    owner = await world.patient()
    made = {
        code: await deposited(owner, owner.patient, pdf(), type=concept(system, code))
        for code, system in ((PRESCRIPTION, LEGACY), (IMAGING, LOINC), (STRANGE, LOINC))
    }
    await world.relation(owner, actor)
    return owner, made


async def read_by(actor: Actor, owner: Actor, made: dict[str, tuple[str, str]]) -> set[str]:
    """The types of documents that they read: the same by every way."""
    found = {code for code, (path, _) in made.items() if (await actor.get(path)).status_code == 200}
    query = f"DocumentReference?patient={owner.patient}"
    searched = {f"DocumentReference/{one['id']}" for one in await actor.search(query)}
    assert {code for code, (path, _) in made.items() if path in searched} == found
    assert (await actor.get(f"{query}&_summary=count")).json()["total"] == len(found)
    asked = [entry("GET", path) for pair in made.values() for path in (*pair, f"{pair[0]}/_history", f"{pair[0]}/_history/1")]
    answers = (await actor.post("", bundle("batch", *asked))).json()["entry"]
    for n, code in enumerate(made):
        statuses = {one["response"]["status"][:3] for one in answers[4 * n : 4 * n + 4]}
        assert statuses == ({"200"} if code in found else {"404"}), code
    return found


@pytest.mark.parametrize(
    ("professions", "reads"),
    [
        ((DOCTOR,), {PRESCRIPTION, IMAGING, STRANGE}),
        ((NURSE,), {PRESCRIPTION}),
        ((PHYSIOTHERAPIST,), {IMAGING}),
        ((NURSE, PHYSIOTHERAPIST), {PRESCRIPTION, IMAGING}),
        ((), set()),
        (("77",), set()),
    ],
)
async def test_a_profession_reads_what_the_table_says(world: World, professions: tuple[str, ...], reads: set[str]) -> None:
    actor = await professional(world, *professions)
    owner, made = await treated_by(world, actor)
    assert await read_by(actor, owner, made) == reads
    reading = await owner.create(observation(owner.patient))
    assert (await actor.get(f"Observation/{reading['id']}")).status_code == 200  # the table is about documents


async def test_a_consent_opens_whatever_the_table_says(world: World) -> None:
    actor = await professional(world, NURSE)
    owner, made = await treated_by(world, actor)
    given = await owner.create(consent(owner, actor, "access", ["DocumentReference"]))
    assert await read_by(actor, owner, made) == {PRESCRIPTION, IMAGING, STRANGE}
    await world.revoke(owner, given)
    assert await read_by(actor, owner, made) == {PRESCRIPTION}


async def test_a_profession_is_of_a_role_or_of_a_qualification_that_is_valid(world: World) -> None:
    over = [{"code": concept(PROFESSIONS, DOCTOR), "period": {"end": "2020-01-01"}}]
    actor = await professional(world, qualification=over)
    owner, made = await treated_by(world, actor)
    assert await read_by(actor, owner, made) == set()
    role = {"resourceType": "PractitionerRole", "active": True, "practitioner": {"reference": actor.reference}}
    stored = await world.operator.create({**role, "code": [concept("urn:oid:1.2.250.1.71.1.2.7", NURSE)]})
    again = await world.actor("professional", "user/*.cruds", reference=actor.reference, user=actor.reference)
    assert await read_by(again, owner, made) == {PRESCRIPTION}
    assert (await world.operator.put(f"PractitionerRole/{stored['id']}", {**stored, "active": False})).status_code == 200
    retired = await world.actor("professional", "user/*.cruds", reference=actor.reference, user=actor.reference)
    assert await read_by(retired, owner, made) == set()


@pytest.mark.parametrize(("role", "reads"), [(None, {PRESCRIPTION, IMAGING, STRANGE}), (NURSE, {PRESCRIPTION})])
async def test_an_establishment_states_the_profession(world: World, role: str | None, reads: set[str]) -> None:
    clinic = await clinic_of(world, read=["DocumentReference", "Observation", "Patient"])
    doctor, number = await doctor_of(world)
    stated = {"system": "urn:oid:1.2.250.1.213.1.1.5.5", "code": role} if role else {"system": "urn:x", "code": "y"}
    signed = assertion(clinic.id, world.clock(), **stating(number, subject_role=[stated]))
    scope = "system/DocumentReference.rs system/Observation.r"
    answer = await ask(world, asked_with(signed, grant_type="client_credentials", scope=scope))
    actor = Actor(world.http, answer.json()["access_token"], doctor)
    named = await world.actor("professional", "user/*.cruds", reference=doctor, user=doctor)
    owner, made = await treated_by(world, named)
    assert await read_by(actor, owner, made) == reads


@pytest.fixture
async def edited(world: World, tmp_path: Path) -> AsyncIterator[World]:
    """Another process at the same database, with another table."""
    folder = tmp_path / "schemas"
    shutil.copytree(find_schemas(), folder)
    file = folder / "entitlements.toml"
    text = file.read_text("utf-8")
    assert '\n60 = ["summaries"' in text
    file.write_text(text.replace('\n60 = ["summaries"', '\n60 = ["imaging"', 1), "utf-8")
    settings = world.gateway.settings
    async for other in running_world(make_settings(settings.mongo_url, mongo_database=settings.mongo_database, schemas=folder)):
        yield other


async def test_another_table_is_another_right(world: World, edited: World) -> None:
    actor = await professional(world, NURSE)
    owner, made = await treated_by(world, actor)
    assert await read_by(actor, owner, made) == {PRESCRIPTION}
    assert await read_by(edited.bearer(actor), owner, made) == {PRESCRIPTION, IMAGING}


async def test_who_is_named_by_the_patient_reads_by_the_table_too(world: World) -> None:
    actor = await professional(world, NURSE)
    owner = await world.patient(generalPractitioner=[{"reference": actor.reference}])
    await owner.create(document(owner.patient, type=concept(LOINC, IMAGING)))
    assert await actor.search(f"DocumentReference?patient={owner.patient}") == []


async def test_a_treating_doctor_is_a_doctor(world: World) -> None:
    owner = await world.patient()
    nurse, doctor = await professional(world, NURSE), await professional(world, DOCTOR)
    body = {**(await world.relation(owner, doctor, "treating-doctor", days=900))}
    assert body["status"] == "active"
    del body["id"], body["meta"]
    answer = await nurse.post("CareTeam", {**body, "participant": [{"member": {"reference": nurse.reference}}]})
    assert (answer.status_code, answer.json()["issue"][0]["expression"]) == (403, ["CareTeam.category"])
