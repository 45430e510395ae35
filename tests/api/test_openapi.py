"""The OpenAPI description says of every address what it answers: schemathesis holds a running gateway to it."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from gateway.api.operation import operation
from gateway.api.routes import ROUTES
from gateway.exchange.control import CONTROLS
from tests.examples import TYPES, bring
from tests.process import process_world
from tests.world import BASE, World

TAGS = [*TYPES, "Bundle", "system"]
CHECKS: Any = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass
class Served:
    """A running gateway, a patient's token, and the ids of what the patient may see."""

    description: dict[str, Any]
    token: str
    ids: dict[str, str]


@pytest.fixture(scope="module")
async def served(mongo_url: str) -> AsyncIterator[Served]:
    async with process_world(mongo_url) as world:
        owner = await world.patient()
        ids = {"Patient": owner.patient}
        for name in TYPES:
            if name not in ("Patient", "AuditEvent", "Provenance"):
                ids[name] = (await bring(world, name, owner))["id"]
        ids["AuditEvent"] = (await owner.search("AuditEvent?_count=1"))[0]["id"]
        answer = await world.http.get(f"{BASE}/openapi.json")
        assert answer.headers["content-type"] == "application/json"
        yield Served(answer.json(), owner.token, ids)


@pytest.fixture(scope="module")
async def description(session_world: World) -> dict[str, Any]:
    answer = await session_world.http.get(f"{BASE}/openapi.json")
    assert answer.status_code == 200
    return dict(answer.json())


def examine(served: Served, tag: str, examples: int, **options: Any) -> None:
    """Ask for everything under a tag, `examples` times each, and hold every answer against the description."""
    schema = schemathesis.openapi.from_dict(served.description)
    schema.config.update(base_url=served.description["servers"][0]["url"])
    asked = 0
    for found in schema.get_all_operations():
        each = found.ok()
        if tag not in (each.tags or ()):
            continue
        asked += 1

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
            **options,
        )
        @given(case=each.as_strategy(), is_there=st.booleans())
        def ask(case: schemathesis.Case, is_there: bool) -> None:
            if is_there and "id" in case.path_parameters:
                case.path_parameters["id"] = served.ids.get(tag, "000-x")
            case.call_and_validate(headers={"Authorization": f"Bearer {served.token}"}, checks=CHECKS)

        ask()
    assert asked


async def test_it_is_open_to_everybody_and_takes_no_parameters(world: World, description: dict[str, Any]) -> None:
    answer = await world.http.get(f"{BASE}/openapi.json", headers={"Authorization": "Bearer wrong"})
    assert (answer.status_code, answer.json()) == (200, description)
    assert (await world.http.get(f"{BASE}/openapi.json?x=y")).status_code == 400
    assert description["servers"] == [{"url": BASE}]
    schemathesis.openapi.from_dict(description).validate()


def test_every_route_is_described(world: World, description: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, item in description["paths"].items() for method in item}
    assert len(described) == len({item["operationId"] for path in description["paths"].values() for item in path.values()})
    for method, path, endpoint in ROUTES:
        if path.startswith("/fhir") and endpoint is not operation:
            pattern = path.removeprefix("/fhir") or "/"
            assert any((method, pattern.replace("{type}", name)) in described for name in TYPES), path


@pytest.mark.requirement("CORE-02")
@pytest.mark.parametrize("type_name", TYPES)
async def test_a_type_is_described_as_its_file_says(world: World, description: dict[str, Any], type_name: str) -> None:
    kind, paths = world.gateway.registry[type_name], description["paths"]
    (rest,) = (await world.http.get(f"{BASE}/metadata")).json()["rest"]
    (declared,) = (r for r in rest["resource"] if r["type"] == type_name)
    place = f"/{type_name}/{{id}}"
    addresses = {
        "read": ("get", place),
        "vread": ("get", f"{place}/_history/{{version}}"),
        "history-instance": ("get", f"{place}/_history"),
        "history-type": ("get", f"/{type_name}/_history"),
        "create": ("post", f"/{type_name}"),
        "update": ("put", place),
        "patch": ("patch", place),
        "delete": ("delete", place),
        "search-type": ("get", f"/{type_name}"),
    }
    found = {code for code, (method, path) in addresses.items() if method in paths.get(path, {})}
    assert found == kind.interactions & addresses.keys()
    searched = paths[f"/{type_name}"]["get"]
    names = [p["name"] for p in searched["parameters"] if p["in"] == "query"]
    assert len(names) == len(set(names))
    selecting = {p["name"] for p in declared["searchParam"]}
    including = {n for n, key in (("_include", "searchInclude"), ("_revinclude", "searchRevInclude")) if key in declared}
    assert set(names) == selecting | including | set(CONTROLS)
    (form,) = paths[f"/{type_name}/_search"]["post"]["requestBody"]["content"].values()
    assert set(form["schema"]["properties"]) == set(names) - {"_format", "_pretty"}
    operations = {path.rpartition("$")[2] for path in paths if re.match(rf"/{type_name}/.*\$", path)}
    assert operations == {operation["name"] for operation in declared["operation"]}
    assert {"200", "401", "403", "404", "422"} <= searched["responses"].keys()
    assert "500" not in searched["responses"]


def test_a_key_is_taken_where_something_could_be_done_twice(description: dict[str, Any]) -> None:
    every = {(method, path): found for path, methods in description["paths"].items() for method, found in methods.items()}
    takes = {at for at, found in every.items() if "Idempotency-Key" in {p["name"] for p in found["parameters"]}}
    writes = {at for at in every if at[0] in ("post", "patch") and "_search" not in at[1] and "$" not in at[1]}
    assert takes == writes | {("post", "/$submit-cgm-bundle")}
    for at in takes:
        responses = every[at]["responses"]
        assert {"400", "409", "422"} <= responses.keys()
        assert all("Idempotency-Replayed" in responses[done]["headers"] for done in ("200", "201") if done in responses)


@pytest.mark.requirement("CORE-13")
@pytest.mark.parametrize("tag", TAGS)
def test_every_answer_is_one_that_is_declared(served: Served, tag: str) -> None:
    examine(served, tag, 3, derandomize=True)


@pytest.mark.slow
@pytest.mark.requirement("CORE-13")
@pytest.mark.parametrize("tag", TAGS)
def test_every_answer_is_one_that_is_declared_at_length(served: Served, tag: str) -> None:
    examine(served, tag, 100)
