"""Chained parameters find by what is said of a reference's target, if the caller may find that target too."""

from typing import Any

import pytest

from tests.api.test_includes import ask, modes, name_of, to
from tests.api.test_paging import next_link, push
from tests.world import Actor, World, consent, device, document, expression, issues, label, observation, practitioner, unique


async def scene(world: World) -> tuple[Actor, dict[str, Any], dict[str, Any], str]:
    """A patient, their meter and its reading, and the value of the meter's identifier."""
    owner = await world.patient(name=[{"family": "Lefèvre", "given": ["Zoé"]}], birthDate="1971-03-05")
    value = unique("meter")
    meter = await owner.create(device(owner.patient, identifier=[{"system": "urn:meters", "value": value}]))
    reading = await owner.create(observation(owner.patient, device=to(meter)))
    await owner.create(observation(owner.patient))
    return owner, meter, reading, value


async def found(actor: Actor, path: str) -> list[str]:
    return [name_of(resource) for resource in await actor.search(path)]


@pytest.mark.parametrize(
    "chain",
    [
        "device.identifier=urn:meters|{value}",
        "device.identifier={value}",
        "device:Device.identifier={value}",
        "device:Device.identifier=other,{value}",
        "device.patient={patient}&device.identifier={value}",
        "device.device-name=gluco",
        "device._id={meter}",
    ],
)
async def test_a_reading_is_found_by_its_meter(world: World, chain: str) -> None:
    owner, meter, reading, value = await scene(world)
    names = {"value": value, "patient": owner.patient, "meter": meter["id"]}
    assert await found(owner, f"Observation?{chain.format(**names)}") == [name_of(reading)]
    page = await ask(owner, f"Observation?{chain.format(**names)}&_summary=count")
    assert page["total"] == 1


@pytest.mark.parametrize(
    ("chain", "count"),
    [
        ("patient.name=lef", 2),
        ("patient.family=LEFEVRE&patient.birthdate=1971-03-05", 2),
        ("subject:Patient.name=zoe", 2),
        ("subject.birthdate=1971", 2),
        ("subject.birthdate=lt1971", 0),
        ("patient.name:exact=Lefevre", 0),
        ("patient.name=nobody", 0),
        ("device.identifier=nothing", 0),
        ("device.identifier:not=nothing", 1),
        ("device.patient:missing=true", 0),
    ],
)
async def test_what_is_said_of_the_target_decides(world: World, chain: str, count: int) -> None:
    owner, *_ = await scene(world)
    assert len(await found(owner, f"Observation?{chain}")) == count


@pytest.mark.requirement("SRCH-06")
async def test_a_patient_is_named_by_identifier_with_or_without_type(world: World) -> None:
    number = unique("ins")
    owner = await world.patient(identifier=[{"system": "urn:ins", "value": number}])
    reading = await owner.create(observation(owner.patient))
    doctor = await world.professional("user/Observation.s")
    await world.consent(owner, doctor)
    for name in ("patient.identifier", "subject.identifier", "subject:Patient.identifier", "patient:Patient.identifier"):
        assert await found(doctor, f"Observation?{name}=urn:ins|{number}") == [name_of(reading)], name


async def test_a_document_is_found_by_its_author_whichever_type_that_is(world: World) -> None:
    owner = await world.patient()
    family, value = unique("Auteur"), unique("rpps")
    known = practitioner(name=[{"family": family, "given": ["Eva"]}], identifier=[{"system": "urn:rpps", "value": value}])
    doctor = await world.operator.create(known)
    held = {"resourceType": "Practitioner", "id": "a", "name": [{"family": family, "given": ["Max"]}]}
    by_doctor = name_of(await owner.create(document(owner.patient, author=[to(doctor)])))
    by_held = name_of(await owner.create(document(owner.patient, author=[{"reference": "#a"}], contained=[held])))
    other = {**held, "name": [{"family": "Autre"}]}
    await owner.create(document(owner.patient, author=[{"reference": "#a"}], contained=[other]))
    # (who is contained without being the author makes no difference)
    authenticated = document(owner.patient, authenticator={"reference": "#a"}, contained=[held])
    await owner.create(authenticated)
    both = sorted([by_doctor, by_held])
    assert sorted(await found(owner, f"DocumentReference?patient={owner.patient}&author.family={family.lower()}")) == both
    assert sorted(await found(owner, f"DocumentReference?patient={owner.patient}&author:Practitioner.family={family}")) == both
    assert await found(owner, f"DocumentReference?patient={owner.patient}&author:Patient.family={family}") == []
    assert await found(owner, f"DocumentReference?patient={owner.patient}&author.family={family}&author.given=max") == [by_held]
    assert await found(owner, f"DocumentReference?patient={owner.patient}&author.family={family}&author.given=eva") == [
        by_doctor
    ]
    assert await found(owner, f"DocumentReference?patient={owner.patient}&author.identifier=urn:rpps|{value}") == [by_doctor]
    assert await found(
        owner, f"DocumentReference?patient={owner.patient}&author.family:exact={family}&author.given:exact=Max"
    ) == [by_held]


async def test_a_list_is_found_by_its_contained_source(world: World) -> None:
    owner = await world.patient()
    held = {"resourceType": "Practitioner", "id": "s", "name": [{"family": "Source"}]}
    subject = {"reference": f"Patient/{owner.patient}"}
    base = {"resourceType": "List", "status": "current", "mode": "working", "subject": subject}
    made = await owner.create({**base, "source": {"reference": "#s"}, "contained": [held]})
    await owner.create(base)
    assert await found(owner, f"List?patient={owner.patient}&source.family=sour") == [name_of(made)]
    assert await found(owner, f"List?patient={owner.patient}&source.family=other") == []


@pytest.mark.requirement("SRCH-11", "ATK-T04")
async def test_a_target_that_may_not_be_found_finds_nothing(world: World) -> None:
    owner, meter, reading, value = await scene(world)
    doctor = await world.professional()
    await world.consent(owner, doctor, types=["Observation"])
    path = f"Observation?patient={owner.patient}&device.identifier="
    assert await found(doctor, f"Observation?_id={reading['id']}&patient={owner.patient}") == [name_of(reading)]
    answers: list[dict[str, Any]] = []

    async def cost(identifier: str) -> int:
        async def read() -> None:
            answers.append(await ask(doctor, path + identifier))

        return await world.calls_of(read)

    assert await cost(value) == await cost(unique("nothing"))
    assert all((page["total"], page.get("entry")) == (0, None) for page in answers)
    await world.consent(owner, doctor)
    assert await found(doctor, path + value) == [name_of(reading)]
    await owner.create(consent(owner, doctor, type="deny", securityLabel=[label("R")]))
    marked = {**meter, "meta": {"security": [label("R")]}}
    assert (await owner.put(name_of(meter), marked)).status_code == 200
    assert await found(doctor, path + value) == []


async def test_a_chain_needs_a_scope_for_what_it_leads_to(world: World) -> None:
    owner, _, reading, value = await scene(world)
    for scope, status in (("patient/Observation.rs", 403), ("patient/Observation.rs patient/Device.r", 403)):
        narrow = await world.patient_actor(owner.patient, scope)
        refused = await narrow.get(f"Observation?device.identifier={value}")
        assert (refused.status_code, issues(refused)[0]["code"]) == (status, "forbidden")
        assert "Device.s" in issues(refused)[0]["diagnostics"]
    wide = await world.patient_actor(owner.patient, "patient/Observation.rs patient/Device.s")
    assert await found(wide, f"Observation?device.identifier={value}") == [name_of(reading)]


async def test_nobody_searches_records_by_what_is_said_of_patients(world: World) -> None:
    owner, *_ = await scene(world)
    doctor = await world.professional()
    await world.consent(owner, doctor)
    refused = await doctor.get("Observation?patient.name=lef")
    assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (400, "required", "patient")
    stranger = await world.patient()
    assert await found(stranger, "Observation?patient.family=lefevre") == []


async def test_a_chain_is_paged_and_brings_includes(world: World) -> None:
    owner, meter, _, value = await scene(world)
    await push(owner, 3, device=to(meter))
    url: str | None = f"Observation?device.identifier={value}&_count=2&_include=Observation:device"
    pages = []
    while url:
        page = await ask(owner, url)
        pages.append((len(modes(page)["match"]), modes(page)["include"]))
        url = next_link(page)
    assert pages == [(2, [name_of(meter)]), (2, [name_of(meter)])]


async def test_too_many_targets_are_refused(world: World) -> None:
    owner = await world.patient()
    part = unique("part")
    most = world.gateway.limits.chain_targets
    await push(owner, most, code={"text": "part", "coding": [{"code": part}]})
    assert await found(owner, f"DiagnosticReport?result.code={part}") == []
    await push(owner, 1, code={"text": "part", "coding": [{"code": part}]})
    refused = await owner.get(f"DiagnosticReport?result.code={part}")
    assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (400, "too-costly", "result.code")
    chains = "&".join(["result.code=x"] * (world.gateway.limits.chains + 1))
    refused = await owner.get(f"DiagnosticReport?{chains}")
    assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (400, "too-costly", "result.code")


@pytest.mark.requirement("SRCH-10")
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("code.name=x", "not-supported"),
        ("nothing.name=x", "not-supported"),
        ("device.nothing=x", "not-supported"),
        ("device.=x", "not-supported"),
        (".identifier=x", "not-supported"),
        ("device.identifier:below=x", "not-supported"),
        ("device.patient.name=x", "not-supported"),
        ("device.patient:identifier=x", "not-supported"),
        ("specimen.identifier=x", "not-supported"),
        ("device:Patient.name=x", "not-supported"),
        ("focus._id=x", "not-supported"),
        ("patient.birthdate=yesterday", "invalid"),
        ("device.identifier=", "invalid"),
        ("device.$where=x", "not-supported"),
    ],
)
async def test_what_is_not_understood_is_refused_by_name(world: World, query: str, code: str) -> None:
    owner = await world.patient()
    await owner.create(observation(owner.patient))
    refused = await owner.get(f"Observation?{query}")
    assert (refused.status_code, issues(refused)[0]["code"]) == (400, code), refused.text
    assert expression(refused) == query.partition("=")[0]
    lenient = await owner.get(f"Observation?{query}", Prefer="handling=lenient")
    assert lenient.status_code == (200 if code == "not-supported" else 400)
    if code == "not-supported":
        assert lenient.json()["total"] == 1


async def test_a_condition_takes_no_chain(world: World) -> None:
    owner, _, _, value = await scene(world)
    refused = await owner.post("Observation", observation(owner.patient), If_None_Exist=f"device.identifier={value}")
    assert (refused.status_code, issues(refused)[0]["code"]) == (400, "not-supported")
