"""/metadata, /livez and /readyz: open to everybody, and true."""

from typing import Any

import pytest
from fhir.resources.R4B.capabilitystatement import CapabilityStatement

from gateway.problem import Problem
from tests.world import BASE, Actor, World, issues, observation, related_person


@pytest.fixture(scope="module")
async def statement(session_world: World) -> dict[str, Any]:
    answer = await session_world.http.get(f"{BASE}/metadata")
    assert answer.status_code == 200
    return dict(answer.json())


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


@pytest.mark.requirement("CORE-01")
async def test_it_is_valid_and_says_what_this_is(world: World, statement: dict[str, Any]) -> None:
    found = CapabilityStatement.model_validate(statement)
    assert (found.status, found.kind, found.fhirVersion) == ("active", "instance", "4.0.1")
    assert set(found.format) <= {"json", "application/fhir+json"}
    assert found.implementation.url == BASE
    [rest] = found.rest
    assert rest.mode == "server"
    assert {resource.type for resource in rest.resource} == set(world.gateway.registry.resource_types)
    assert {interaction.code for interaction in rest.interaction} == {"transaction", "batch"}


@pytest.mark.requirement("CORE-01")
async def test_a_token_changes_nothing_about_it(world: World, camille: Actor, statement: dict[str, Any]) -> None:
    for authorization in (f"Bearer {camille.token}", "Bearer wrong", "Basic x"):
        answer = await camille.get("metadata", Authorization=authorization)
        assert (answer.status_code, answer.json()) == (200, statement)
    answer = await world.http.get(f"{BASE}/metadata")
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"


@pytest.mark.requirement("CORE-01")
@pytest.mark.parametrize(
    ("query", "status"),
    [("_format=json", 200), ("mode=full", 200), ("mode=terminology", 400), ("foo=bar", 400), ("access_token=x", 400)],
)
async def test_its_parameters(world: World, query: str, status: int) -> None:
    answer = await world.http.get(f"{BASE}/metadata?{query}")
    assert answer.status_code == status
    if status == 400:
        assert issues(answer)[0]["expression"] == [query.partition("=")[0]]


@pytest.mark.requirement("CORE-01")
async def test_every_interaction_it_declares_is_there_and_no_other(
    world: World, camille: Actor, statement: dict[str, Any]
) -> None:
    for resource in statement["rest"][0]["resource"]:
        declared = {interaction["code"] for interaction in resource["interaction"]}
        path = f"{resource['type']}/abc-0000"
        body = {"resourceType": resource["type"], "id": "abc-0000"}
        asked = {
            "read": await camille.get(path),
            "vread": await camille.get(f"{path}/_history/1"),
            "history-instance": await camille.get(f"{path}/_history"),
            "create": await camille.post(resource["type"], body),
            "update": await camille.put(path, body),
            "patch": await camille.send("PATCH", path, [], Content_Type="application/json-patch+json"),
            "delete": await camille.delete(path),
            "search-type": await camille.get(f"{resource['type']}?_id=abc-0000"),
        }
        absent = {
            code
            for code, answer in asked.items()
            if answer.status_code == 405 and "no interaction" in issues(answer)[0]["diagnostics"]
        }
        assert declared == asked.keys() - absent, resource["type"]
        assert asked["search-type"].status_code == 200
        assert asked["read"].status_code == 404


@pytest.mark.requirement("CORE-02")
async def test_every_search_parameter_it_declares_works(world: World, statement: dict[str, Any]) -> None:
    owner = await world.patient("patient/*.rs")
    value = {
        "date": "2026",
        "number": "1",
        "quantity": "1",
        "token": "x",
        "string": "x",
        "reference": "Device/abc-1",
        "uri": "urn:x",
    }
    for resource in statement["rest"][0]["resource"]:
        for parameter in resource["searchParam"]:
            assert parameter["definition"].startswith("http://hl7.org/fhir/SearchParameter/")
            name = parameter["name"]
            answer = await owner.get(f"{resource['type']}?{name}={value[parameter['type']]}&{name}:missing=true")
            assert (answer.status_code, answer.json()["total"]) == (200, 0), (resource["type"], name, answer.text)


async def test_it_declares_no_search_parameter_twice(statement: dict[str, Any]) -> None:
    for resource in statement["rest"][0]["resource"]:
        names = [parameter["name"] for parameter in resource["searchParam"]]
        assert len(names) == len(set(names)), resource["type"]


@pytest.mark.requirement("CORE-01")
async def test_conditional_create_and_read_are_as_declared(world: World, camille: Actor, statement: dict[str, Any]) -> None:
    declared = {resource["type"]: resource for resource in statement["rest"][0]["resource"]}
    assert declared["AuditEvent"]["conditionalCreate"] is False
    reading = await camille.create(observation(camille.patient))
    assert declared["Observation"]["conditionalCreate"] is True
    again = await camille.post("Observation", observation(camille.patient), If_None_Exist=f"_id={reading['id']}")
    assert again.status_code == 200
    assert declared["Observation"]["conditionalRead"] == "full-support"
    modified = (await camille.get(f"Observation/{reading['id']}")).headers["last-modified"]
    for headers in ({"If_None_Match": 'W/"1"'}, {"If_Modified_Since": modified}):
        assert (await camille.get(f"Observation/{reading['id']}", **headers)).status_code == 304
    assert declared["Observation"]["updateCreate"] is False
    assert (await camille.put("Observation/abc-1", observation(camille.patient, id="abc-1"))).status_code == 405
    assert all(resource["conditionalUpdate"] is False for resource in declared.values())
    assert all(resource["conditionalDelete"] == "not-supported" for resource in declared.values())
    kept = await world.operator.create(related_person(camille.patient))
    assert declared["RelatedPerson"]["versioning"] == "versioned"
    assert (await world.operator.put(f"RelatedPerson/{kept['id']}", kept, If_Match='W/"2"')).status_code == 412


@pytest.mark.parametrize(("path", "body"), [("livez", {"status": "live"}), ("readyz", {"status": "ready"})])
async def test_health(world: World, path: str, body: dict[str, str]) -> None:
    url = BASE.removesuffix("fhir") + path
    answer = await world.http.get(url)
    assert (answer.status_code, answer.json()) == (200, body)
    assert (await world.http.head(url)).status_code == 200
    assert (await world.http.post(url)).status_code == 405


@pytest.mark.requirement("REL-016")
async def test_readiness_follows_the_store_and_liveness_does_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    root = BASE.removesuffix("fhir")

    async def down(_: object) -> None:
        raise Problem("transient", "the store cannot be reached at the moment")

    async def secondary(_: object) -> dict[str, Any]:
        return {"isWritablePrimary": False, "secondary": True}

    for state in (down, secondary):
        monkeypatch.setattr(type(world.gateway.mongo), "command", lambda _, command, state=state: state(command))
        answer = await world.http.get(f"{root}readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})
        assert (await world.http.get(f"{root}livez")).status_code == 200
