"""Establishments deposit by themselves and read for a person whom they name in a statement that they sign (IHE IUA)."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.exchange.client import read_client
from gateway.schemas import SchemaError
from tests.clients import Registered, ask, asked_with, assertion, error_of, register, write_file
from tests.conftest import packaged
from tests.world import Actor, World, observation, organization, practitioner, unique

RPPS = "https://rpps.esante.gouv.fr"
REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
PROFESSIONS = "urn:oid:1.2.250.1.213.1.1.5.5"
ROLE = {"system": PROFESSIONS, "code": "10"}
TREAT = {"system": REASON, "code": "TREAT"}


async def clinic_of(world: World, **changes: Any) -> Registered:
    described: dict[str, Any] = {
        "kind": "establishment",
        "category": "care",
        "read": ["Observation", "Patient"],
        "write": ["Observation"],
        "staff": RPPS,
    }
    return await register(world, **described | changes)


async def doctor_of(world: World, **elements: Any) -> tuple[str, str]:
    """The reference of a Practitioner, and the number of theirs."""
    created = await world.operator.create(practitioner(**elements))
    return f"Practitioner/{created['id']}", created["identifier"][0]["value"]


def stating(number: str, **changes: Any) -> dict[str, Any]:
    """What an establishment says of who stands behind a call; a change to None leaves a member out."""
    said = {
        "subject_name": "Dr Ana Martin",
        "national_provider_identifier": number,
        "subject_role": [ROLE],
        "purpose_of_use": [TREAT],
        **changes,
    }
    return {"extensions": {"ihe_iua": {name: value for name, value in said.items() if value is not None}}}


async def ask_stating(
    world: World, clinic: Registered, statement: Any, scope: str = "system/Observation.crs system/Patient.r"
) -> httpx.Response:
    signed = assertion(clinic.id, world.clock(), **statement)
    return await ask(world, asked_with(signed, grant_type="client_credentials", scope=scope))


async def behind(world: World, clinic: Registered, number: str, **changes: Any) -> Actor:
    """The establishment, with a token for this person."""
    answer = await ask_stating(world, clinic, stating(number, **changes))
    assert answer.status_code == 200, answer.text
    return Actor(world.http, answer.json()["access_token"], clinic.reference)


@pytest.mark.requirement("SEC-07", "CON-001", "CON-010")
@pytest.mark.parametrize("opened_by", ["nobody", "consent to the person", "consent to the clinic", "the care team", "blocked"])
async def test_who_is_behind_the_call_reads_what_they_may(world: World, opened_by: str) -> None:
    clinic, (doctor, number) = await clinic_of(world), await doctor_of(world)
    treating = {"generalPractitioner": [{"reference": doctor}]} if opened_by in ("the care team", "blocked") else {}
    owner = await world.patient(**treating)
    reading = await owner.create(observation(owner.patient))
    actor = await behind(world, clinic, number)
    who = {"consent to the person": doctor, "consent to the clinic": clinic.reference}
    if opened_by in who:
        given = await world.consent(owner, Actor(world.http, "", who[opened_by]))
    if opened_by == "blocked":
        blocking = Actor(world.http, "", clinic.reference)
        given = await owner.create(_deny(await world.consent(owner, blocking)))
    sees = [] if opened_by in ("nobody", "blocked") else [reading["id"]]
    search = f"Observation?patient={owner.patient}"
    assert [found["id"] for found in await actor.search(search)] == sees
    assert (await actor.get(f"Observation/{reading['id']}")).status_code == (200 if sees else 404)
    if opened_by in who:
        await world.revoke(owner, given)
        assert await actor.search(search) == []


def _deny(given: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in given.items() if k not in ("id", "meta")} | {"provision": {**given["provision"], "type": "deny"}}


@pytest.mark.requirement("AUD-001", "AUD-004", "ID-03")
async def test_the_patient_reads_who_it_was_as_what_where_and_why(world: World) -> None:
    clinic, (doctor, number) = await clinic_of(world), await doctor_of(world)
    owner = await world.patient(generalPractitioner=[{"reference": doctor}])
    reading = await owner.create(observation(owner.patient))
    actor = await behind(world, clinic, number)
    forged = {"X_Purpose_Of_Use": f"{REASON}|BTG", "X_User": "Practitioner/000-somebody", "X_Subject_Role": "60"}
    assert (await actor.get(f"Observation/{reading['id']}", **forged)).status_code == 200
    assert (await actor.get(f"Patient/{(await world.patient()).patient}", **forged)).status_code == 404
    [event] = await owner.search("AuditEvent?subtype=read")
    client, _, place, user = event["agent"]
    assert client["who"]["identifier"]["value"] == clinic.id
    assert place["who"] == {"reference": clinic.reference}
    assert (user["who"], user["requestor"]) == ({"reference": doctor}, True)
    assert user["role"] == [{"coding": [ROLE]}]
    assert user["purposeOfUse"] == event["purposeOfEvent"] == [{"coding": [TREAT]}]
    for reference in (doctor, clinic.reference):
        assert len(await owner.search(f"AuditEvent?subtype=read&agent={reference}")) == 1


@pytest.mark.requirement("SEC-07")
async def test_without_a_statement_it_deposits_and_reads_nothing(world: World) -> None:
    clinic, (doctor, _) = await clinic_of(world), await doctor_of(world)
    owner = await world.patient(generalPractitioner=[{"reference": doctor}])
    answer = await ask_stating(world, clinic, {})
    assert answer.json()["scope"] == "system/Observation.c"
    actor = Actor(world.http, answer.json()["access_token"], clinic.reference)
    await world.consent(owner, actor)
    created = await actor.post("Observation", observation(owner.patient))
    assert created.status_code == 201
    place = created.headers["location"].partition("/fhir/")[2].partition("/_history")[0]
    for path in (place, f"Observation?patient={owner.patient}", f"Patient/{owner.patient}"):
        assert (await actor.get(path)).status_code == 403
    assert error_of(await ask_stating(world, clinic, {}, "system/Observation.rs")) == (400, "invalid_scope")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nobody": ({"national_provider_identifier": None}, "ihe_iua"),
    "somebody unknown": ({"national_provider_identifier": "0"}, "ihe_iua.national_provider_identifier"),
    "a pattern": ({"national_provider_identifier": {"$gt": ""}}, "ihe_iua.national_provider_identifier"),
    "no name": ({"subject_name": ""}, "ihe_iua.subject_name"),
    "no role": ({"subject_role": []}, "ihe_iua.subject_role"),
    "a role without system": ({"subject_role": [{"code": "10"}]}, "ihe_iua.subject_role[0]"),
    "a role in words": ({"subject_role": "doctor"}, "ihe_iua.subject_role"),
    "no purpose": ({"purpose_of_use": None}, "ihe_iua"),
    "several purposes": ({"purpose_of_use": [TREAT, TREAT]}, "ihe_iua.purpose_of_use"),
    "a purpose that opens more": ({"purpose_of_use": [{"system": REASON, "code": "BTG"}]}, "ihe_iua.purpose_of_use"),
    "a purpose that is none": ({"purpose_of_use": [{"system": REASON, "code": "HMARKT"}]}, "ihe_iua.purpose_of_use"),
    "another organization": ({"subject_organization_id": "somebody-else"}, "ihe_iua.subject_organization_id"),
}


@pytest.mark.requirement("ID-03")
@pytest.mark.parametrize(("changes", "member"), WRONG.values(), ids=WRONG)
async def test_a_statement_that_does_not_say_who_as_what_where_and_why_is_refused(
    world: World, changes: dict[str, Any], member: str
) -> None:
    clinic, (_, number) = await clinic_of(world), await doctor_of(world)
    answer = await ask_stating(world, clinic, stating(number, **changes))
    assert error_of(answer) == (400, "invalid_grant")
    assert answer.json()["error_description"].startswith(f"{member}: ")
    assert await world.stored("tokens", client=clinic.id) == []


async def test_the_organization_is_the_client_s_own(world: World) -> None:
    number = unique("1FINESS")
    created = await world.operator.create(organization(identifier=[{"system": "urn:oid:1.2.250.1.71.4.2.2", "value": number}]))
    clinic, (_, doctor) = await clinic_of(world, actor=f"Organization/{created['id']}"), await doctor_of(world)
    assert (await ask_stating(world, clinic, stating(doctor, subject_organization_id=number))).status_code == 200


async def test_whoever_is_not_active_stands_behind_nothing(world: World) -> None:
    clinic, (_, number) = await clinic_of(world), await doctor_of(world, active=False)
    assert error_of(await ask_stating(world, clinic, stating(number))) == (400, "invalid_grant")


@pytest.mark.parametrize("changes", [{"kind": "service", "staff": None, "write": []}, {"staff": None}])
async def test_who_does_not_read_by_statements_states_nobody(world: World, changes: dict[str, Any]) -> None:
    system, (_, number) = await clinic_of(world, **changes), await doctor_of(world)
    assert error_of(await ask_stating(world, system, stating(number))) == (400, "invalid_grant")


@pytest.mark.requirement("SEC-019", "ATK-T29")
async def test_a_statement_is_good_once_and_ends_with_its_five_minutes(world: World) -> None:
    clinic, (doctor, number) = await clinic_of(world), await doctor_of(world)
    owner = await world.patient(generalPractitioner=[{"reference": doctor}])
    signed = assertion(clinic.id, world.clock(), **stating(number))
    form = asked_with(signed, grant_type="client_credentials", scope="system/Observation.rs")
    answer = await ask(world, form)
    assert error_of(await ask(world, form)) == (400, "invalid_client")
    assert answer.json()["expires_in"] == 300
    actor = Actor(world.http, answer.json()["access_token"], clinic.reference)
    assert (await actor.get(f"Observation?patient={owner.patient}")).status_code == 200
    tampered = ".".join([*signed.split(".")[:2], "AAAA"])
    assert error_of(await ask(world, {**form, "client_assertion": tampered})) == (400, "invalid_client")


@pytest.mark.parametrize("changes", [{"kind": "service"}, {"kind": "establishment", "actor": "Device/000-machine"}])
def test_staff_is_named_by_organizations_that_read_by_statements(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = write_file(tmp_path, staff=RPPS, **changes)
    with pytest.raises(SchemaError, match="staff: is for whoever reads by statements"):
        read_client(file, packaged().registry, packaged().policy)


async def test_the_professional_s_roles_at_that_place_are_theirs(world: World) -> None:
    clinic, (doctor, number) = await clinic_of(world), await doctor_of(world)
    other = await world.operator.create(organization())
    roles = []
    for place, active in ((clinic.reference, True), (clinic.reference, False), (f"Organization/{other['id']}", True)):
        role = {
            "resourceType": "PractitionerRole",
            "identifier": [{"system": "https://roles.example", "value": unique("role")}],
            "active": active,
            "practitioner": {"reference": doctor},
            "organization": {"reference": place},
        }
        roles.append(f"PractitionerRole/{(await world.operator.create(role))['id']}")
    await behind(world, clinic, number)
    [stored] = await world.stored("tokens", client=clinic.id)
    assert (stored["actors"], stored["user"], stored["kind"]) == ([doctor, roles[0], clinic.reference], doctor, "professional")
