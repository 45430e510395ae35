"""Every served type, from its TOML file and its example alone: each declared interaction and search parameter works."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.fhir.registry import ResourceType
from tests.examples import CONTENT, TYPES, a_change, bring, prepare, read_example, writer_of
from tests.searches import other_value, search_value
from tests.world import Actor, World, bundle, entry, issues

WRITTEN = tuple(name for name in TYPES if name not in ("AuditEvent", "Provenance"))

# Parameters that no example can have a value for beside its others, because a reason stands only where what it excuses does
# not (lst-1, obs-6). `tests/api/test_search_parameters.py` searches by them, and by the other types of choice elements.
ELSEWHERE = {"List": {"empty-reason"}, "Observation": {"data-absent-reason"}}

pytestmark = pytest.mark.requirement("CORE-02")


@pytest.fixture(params=WRITTEN)
def kind(request: pytest.FixtureRequest, world: World) -> ResourceType:
    return world.gateway.registry[request.param]


async def arrange(world: World, kind: ResourceType) -> tuple[Actor, Actor, dict[str, Any]]:
    """A patient, who writes this type, and the example as it is to be sent."""
    owner = await world.patient()
    return owner, writer_of(world, kind, owner), await prepare(world, kind.name, owner)


async def reader_of(world: World, kind: ResourceType, owner: Actor, stored: dict[str, Any]) -> Actor:
    return await world.patient_actor(stored["id"]) if kind.is_patient else owner


def content(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource without what the server says of it."""
    found = {name: value for name, value in resource.items() if name not in ("id", "meta")}
    meta = {k: v for k, v in resource.get("meta", {}).items() if k not in ("versionId", "lastUpdated")}
    return found | ({"meta": meta} if meta else {})


def test_every_served_type_has_an_example(world: World) -> None:
    assert {*TYPES, *CONTENT} == set(world.gateway.registry.resource_types)
    assert all(read_example(name)["resourceType"] == name for name in (*TYPES, *CONTENT))


@pytest.mark.requirement("CORE-03", "CORE-09", "CORE-18")
async def test_a_resource_lives_from_create_to_delete(world: World, kind: ResourceType) -> None:
    owner, writer, sent = await arrange(world, kind)
    created = await writer.post(kind.name, {**sent, "id": "mine"})
    assert created.status_code == 201, created.text
    stored = created.json()
    address = f"{kind.name}/{stored['id']}"
    assert stored["id"] != "mine"
    assert created.headers["location"].endswith(f"/{address}/_history/1")
    assert created.headers["etag"] == 'W/"1"'
    assert content(stored) == sent
    reader = await reader_of(world, kind, owner, stored)
    assert (await reader.get(address)).json() == stored

    updated = await writer.put(address, {**stored, **a_change(kind)})
    assert updated.status_code == 200, updated.text
    assert content(updated.json()) == {**sent, **a_change(kind)}
    assert (await reader.get(f"{address}/_history/1")).json() == stored
    assert (await reader.get(f"{address}/_history/2")).json() == updated.json() == (await reader.get(address)).json()
    history = (await reader.get(f"{address}/_history")).json()
    assert [e["resource"] for e in history["entry"]] == [updated.json(), stored]

    deleted = await writer.delete(address)
    if "delete" not in kind.interactions:
        assert deleted.status_code == 405
        assert (await reader.get(address)).json() == updated.json()
        return
    assert deleted.status_code == 204, deleted.text
    assert (await reader.get(address)).status_code == 410
    assert (await reader.get(f"{address}/_history/1")).json() == stored
    assert await reader.search(f"{kind.name}?_id={stored['id']}") == []
    methods = [e["request"]["method"] for e in (await reader.get(f"{address}/_history")).json()["entry"]]
    assert methods == ["DELETE", "PUT", "POST"]


def searches(kind: ResourceType, resource: Any, within: str) -> Iterator[tuple[str, str, str]]:
    """For each declared parameter that this resource has a value for: its name, a search that finds it, one that does not."""
    for parameter in kind.search.values():
        if parameter.type == "composite":  # see tests/api/test_composites.py
            continue
        parts = [kind.search[name] for name in parameter.any_of] or [parameter]
        branches = [branch for part in parts for branch, _ in part.readers] or list(kind.patient)
        values = [(branch.type, value) for branch in branches for value in branch.read(resource)]
        if values:
            right, wrong = search_value(parameter.type, *values[0]), other_value(parameter.type, *values[0])
            yield parameter.name, f"{within}&{parameter.name}={right}", f"{within}&{parameter.name}={wrong}"


def other_choices(world: World, kind: ResourceType, resource: Any) -> set[str]:
    """The parameters of choice elements that this resource uses with another type."""
    elements = world.gateway.registry.types.elements(kind.name)
    used = {e.choice for e in elements if e.choice and getattr(resource, e.attribute) is not None}
    absent = {e.attribute for e in elements if e.choice in used and getattr(resource, e.attribute) is None}
    return {p.name for p in kind.search.values() if p.readers and {branch.first for branch, _ in p.readers} <= absent}


async def test_every_declared_parameter_finds_and_tells_apart(world: World, kind: ResourceType) -> None:
    owner = await world.patient()
    stored = await bring(world, kind.name, owner)
    reader = await reader_of(world, kind, owner, stored)
    # (a record holds nothing else of this type, so it needs no id to find just this one)
    within = f"patient={owner.patient}" if kind.patient else f"_id={stored['id']}"
    resource = world.gateway.codec.decode(kind.name, json.dumps(stored).encode())
    asked = list(searches(kind, resource, within))
    excused = ELSEWHERE.get(kind.name, set()) | other_choices(world, kind, resource)
    assert {name for name, _, _ in asked} == {name for name, p in kind.search.items() if p.type != "composite"} - excused
    queries = [f"{kind.name}?{query}" for _, right, wrong in asked for query in (right, wrong)]
    answers = (await reader.post("", bundle("batch", *(entry("GET", query) for query in queries)))).json()["entry"]
    for n, (name, _, _) in enumerate(asked):
        found, missed = answers[2 * n], answers[2 * n + 1]
        assert found["response"]["status"].startswith("200"), (name, found)
        assert [e["resource"]["id"] for e in found["resource"].get("entry", ())] == [stored["id"]], (name, queries[2 * n])
        assert missed["resource"].get("entry", []) == [], (name, queries[2 * n + 1])


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("_id={id}", "_id={other}"),
        ("_lastUpdated=ge2020-01-01", "_lastUpdated=lt2020-01-01"),
        ("_security=N", "_security=V"),
        ("_security:not=V", "_security:missing=true"),
    ],
)
async def test_the_parameters_of_all_types(world: World, kind: ResourceType, right: str, wrong: str) -> None:
    owner, writer, sent = await arrange(world, kind)
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "N"}
    stored = await writer.create({**sent, "meta": {"security": [label]}})
    reader = await reader_of(world, kind, owner, stored)
    within = f"{kind.name}?patient={owner.patient}&" if kind.patient else f"{kind.name}?_id={stored['id']}&"
    names = {"id": stored["id"], "other": f"{stored['id'][:-1]}!"}
    assert [r["id"] for r in await reader.search(within + right.format(**names))] == [stored["id"]]
    assert await reader.search(within + wrong.format(**names)) == []


@pytest.mark.parametrize("type_name", sorted(set(TYPES) - set(WRITTEN)))
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_what_only_the_server_writes_is_refused_to_everybody(world: World, type_name: str, method: str) -> None:
    owner = await world.patient()
    body = await prepare(world, type_name, owner)
    path = type_name if method == "POST" else f"{type_name}/{owner.patient[:3]}-x"
    for actor in (owner, world.operator, await world.app(owner), await world.professional()):
        answer = await actor.send(method, path, {**body, "id": path.rpartition("/")[2]} if method != "DELETE" else None)
        assert answer.status_code in (403, 405), answer.text
        assert issues(answer)[0]["code"] in ("forbidden", "not-supported")
    assert [d for d in await world.stored(type_name, patient=owner.patient) if "body" in d] == []
