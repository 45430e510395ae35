"""What a search may cost: every shape the registry allows is explained on a real mongod and looks at little more than it
finds, or is refused."""

import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest

from gateway.fhir.include import declared_includes, declared_revincludes, followed, served_targets
from gateway.fhir.registry import ResourceType
from gateway.fhir.search import implied_parameters, modifiers_of
from gateway.store.mongo import Document
from tests.conftest import make_settings, packaged, running_world
from tests.examples import TYPES, bring
from tests.searches import any_value
from tests.world import (
    READINGS,
    Actor,
    World,
    bundle,
    consent,
    entry,
    expression,
    issues,
    label,
    observation,
    practitioner,
    unique,
)

REGISTRY = packaged().registry
DECOYS, MORE = 300, 60  # how many lie beside what is searched, and how many of them may be looked at in vain
PREFIXES = ("", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
MODIFIED = {"missing": ("true", "false"), "of-type": ("a|b|c",), "above": ("http://x/y",), "below": ("http://x/y",)}


def shapes(kind: ResourceType) -> list[str]:
    """Every parameter with every modifier and prefix it takes, and every order."""
    found = []
    for parameter in (*implied_parameters(kind), *kind.search.values()):
        plain = any_value(kind, parameter.name, parameter.type)
        prefixes = PREFIXES if parameter.type in ("date", "number", "quantity") else ("",)
        found += [f"{parameter.name}={prefix}{quote(plain)}" for prefix in prefixes]
        for modifier in modifiers_of(parameter):
            values = MODIFIED.get(modifier, (plain,))
            found += [f"{parameter.name}:{modifier}={quote(value)}" for value in values]
    found += [f"_lastUpdated={prefix}2020" for prefix in PREFIXES]
    found += ["_security=x", "_security:not=x", "_security:missing=true", f"_id={'abc-0000000000000000'}", ""]
    found += [f"_sort={sign}{key}" for key in (*kind.sort, "_id") for sign in ("", "-")]
    found += [f"_sort={','.join(keys)}" for keys in itertools.permutations((*kind.sort, "_id"), 2)]
    return found


@pytest.fixture(scope="module")
async def crowd(mongo_url: str) -> AsyncIterator[World]:
    """A gateway of its own, with many resources of other people."""
    async for world in running_world(make_settings(mongo_url)):
        yield world


@pytest.fixture(scope="module")
async def owner(crowd: World) -> Actor:
    """A patient with one resource of every type among those."""
    owner = await crowd.patient()
    mongo = crowd.gateway.mongo
    for name in TYPES:
        where = {"_id": (await bring(crowd, name, owner))["id"]} if name not in ("AuditEvent", "Provenance") else {}
        [model, *_] = await mongo.find(name, where, limit=1) or [{"updated": crowd.clock(), "search": {}}]
        await mongo.insert(name, [decoy(model, n) for n in range(DECOYS)])
    return owner


def decoy(model: Document, n: int) -> Document:
    """A resource like this one, of somebody else."""
    bucket = f"{n:03x}"
    found = {key: value for key, value in model.items() if key not in ("key", "digest", "writer", "n")}
    # (the writer is for AuditEvents, whose numbers are unique)
    found |= {"_id": f"{bucket}-decoy{n}", "bucket": bucket, "writer": "decoy", "n": n}
    return found | ({"patient": f"{bucket}-nobody"} if "patient" in model else {})


Asked = tuple[str, Document, dict[str, Any]]  # what is searched where, and how


@asynccontextmanager
async def heard(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Asked]]:
    """The finds and counts of resources that go to the server meanwhile."""
    mongo, asked = world.gateway.mongo, []
    find, count = mongo.find, mongo.count

    async def finding(collection: str, where: Document, fields: Any = None, **options: Any) -> list[Document]:
        if collection in TYPES:
            asked.append((collection, where, options))
        return await find(collection, where, fields, **options)

    async def counting(collection: str, where: Document, **options: Any) -> int:
        asked.append((collection, where, {}))
        return await count(collection, where, **options)

    with monkeypatch.context() as patch:
        patch.setattr(mongo, "find", finding)
        patch.setattr(mongo, "count", counting)
        yield asked


async def examined(world: World, name: str, where: Document, options: dict[str, Any]) -> tuple[int, str]:
    """How many documents or keys the server looked at, and its plan."""
    command: dict[str, Any] = {"limit": options["limit"]} if options.get("limit") else {}
    if options.get("sort"):
        command["sort"] = dict(options["sort"])
    if options.get("hint"):
        command["hint"] = options["hint"]
    explained = await world.gateway.mongo.explain(name, where, **command)
    found = explained["executionStats"]
    return max(found["totalDocsExamined"], found["totalKeysExamined"]), str(explained["queryPlanner"]["winningPlan"])


async def is_refused(world: World, monkeypatch: pytest.MonkeyPatch, actor: Actor, query: str, *searched: str) -> bool:
    """Ask: either an index leads to what is found, or it is refused before any of the types `searched` is asked for."""
    async with heard(world, monkeypatch) as asked:
        answer = await actor.get(query)
    if answer.status_code == 200 or "would be included" in answer.text:
        await require_cheap(world, asked, query, actor.patient)
        return False
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "too-costly"), (query, answer.text)
    assert [name for name, _, _ in asked if name in searched] == [], query
    named = re.split("[:=]", expression(answer) or "")[0]
    assert named == "_sort" or re.search(rf"[?&]{re.escape(named)}[.:=]", query), (query, named)
    return True


async def require_cheap(world: World, asked: list[Asked], query: str, patient: str) -> None:
    """Hardly more is looked at than is found, or than the record holds."""
    for name, where, options in asked:
        looked, plan = await examined(world, name, where, options)
        assert "COLLSCAN" not in plan, (query, plan)
        if looked > MORE:
            matching = await world.gateway.mongo.count(name, where)
            held = await world.gateway.mongo.count(name, {"patient": patient}) if patient else 0
            assert looked <= max(matching, held) + MORE, (query, looked, matching, plan)


async def refused_of(
    world: World, monkeypatch: pytest.MonkeyPatch, actor: Actor, name: str, within: str, every: int = 1
) -> set[str]:
    """Ask each shape (or one of so many); returns those that were refused."""
    asked = shapes(REGISTRY[name])[::every]
    queries = {shape: f"{name}?{'&'.join(filter(None, (within, shape)))}" for shape in asked}
    return {shape for shape, query in queries.items() if await is_refused(world, monkeypatch, actor, query, name)}


@pytest.mark.parametrize("name", TYPES)
async def test_every_search_of_a_record_stays_in_it(
    crowd: World, owner: Actor, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kind = REGISTRY[name]
    within = f"patient={owner.patient}" if kind.patient else f"_id={owner.patient}"
    assert await refused_of(crowd, monkeypatch, owner, name, within) == set()


@pytest.fixture(scope="module")
async def readers(crowd: World, owner: Actor) -> dict[str, Actor]:
    """Those who read by the patient's consent, most of it or some of it."""
    found = {"app": await crowd.app(owner, "patient/*.rs"), "professional": await crowd.professional("user/*.rs")}
    found["service"] = await crowd.service("user/*.rs")
    for reader in found.values():
        await crowd.consent(owner, reader)
        await owner.create(consent(owner, reader, types=["Observation"], dataPeriod={"start": "2026-01-01"}))
        await owner.create(consent(owner, reader, type="deny", securityLabel=[label("R")]))
    return found


@pytest.mark.parametrize("reader", ["app", "professional", "service"])
@pytest.mark.parametrize("name", [name for name in TYPES if REGISTRY[name].in_compartment])
async def test_who_reads_by_consent_stays_in_the_record_too(
    crowd: World, owner: Actor, readers: dict[str, Actor], monkeypatch: pytest.MonkeyPatch, name: str, reader: str
) -> None:
    named = f"_id={owner.patient}" if name == "Patient" else f"patient={owner.patient}"
    # An app is bound to the patient without saying so, where that need not be said in any case.
    within = "" if reader == "app" and not REGISTRY[name].requires else named
    assert await refused_of(crowd, monkeypatch, readers[reader], name, within, every=4) == set()


# What operators find without naming anybody, by types whose resources they may see or that belong to nobody.
FOUND: dict[str, set[str]] = {
    "Patient": {"", "identifier=x", "family=x", "name=x", "birthdate=2026", "_sort=-_lastUpdated", "_lastUpdated=gt2020"},
    "RelatedPerson": {"identifier=x"},
    "Device": {"identifier=x"},
    "Organization": {"", "identifier=x", "name=x", "partof=Device/x", "_sort=_id"},
    "Practitioner": {"", "identifier=x", "family=x", "given=x", "name=x", "name:exact=x"},
    "PractitionerRole": {"", "identifier=x", "practitioner=Device/x", "specialty=x"},
}
REFUSED: dict[str, set[str]] = {
    "Patient": {
        "gender=x",
        "family:contains=x",
        "_security=x",
        "birthdate=ne2026",
        "birthdate=ap2026",
        "birthdate:missing=true",
        "identifier:missing=false",
        "gender:not=x",
    },
    "Organization": {"active=x", "name:contains=x", "_sort=_lastUpdated,_id"},
    "Practitioner": {"_security:not=x", "gender=x"},
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("kind", ["operator", "feed"])
async def test_what_names_nobody_is_bounded_by_an_index_or_refused(
    crowd: World, owner: Actor, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    actor = crowd.operator if kind == "operator" else await crowd.actor("feed", "system/*.rs")
    every = 1 if name in FOUND and kind == "operator" else 9
    within = f"patient={owner.patient}" if REGISTRY[name].requires else ""
    refused = await refused_of(crowd, monkeypatch, actor, name, within, every)
    assert not refused & FOUND.get(name, set())
    if every == 1:
        assert refused >= REFUSED.get(name, set())
    if name not in FOUND:
        assert refused == set()  # there is nothing for them, which costs nothing


def chains(kind: ResourceType) -> list[tuple[str, str]]:
    """Chains of a type and what they lead to: of each reference a few parameters of each type."""
    found = []
    for parameter in followed(REGISTRY, kind).values():
        for target in sorted(served_targets(REGISTRY, parameter)):
            names = [p for p in REGISTRY[target].search.values() if p.type in ("token", "string", "date")]
            inner = [names[0], names[len(names) // 2], names[-1]] if names else []  # (a Binary has none)
            found += [
                (f"{parameter.name}:{target}.{one.name}={any_value(REGISTRY[target], one.name, one.type)}", target)
                for one in inner
            ]
    return found


@pytest.mark.parametrize("name", [name for name in TYPES if chains(REGISTRY[name])])
async def test_every_chain_is_bounded_at_both_ends_or_refused(
    crowd: World, owner: Actor, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    within = f"patient={owner.patient}&" if REGISTRY[name].patient else ""
    refused = set()
    for chain, target in chains(REGISTRY[name]):
        if await is_refused(crowd, monkeypatch, owner, f"{name}?{within}{chain}", target, name):
            refused.add(target)
    if within:
        assert {target for target in refused if REGISTRY[target].in_compartment} == set()


@pytest.mark.parametrize("name", TYPES)
async def test_whatever_comes_along_is_led_to_by_an_index_or_refused(
    crowd: World, owner: Actor, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    [one] = await crowd.gateway.mongo.find(name, {"patient": owner.patient} if REGISTRY[name].patient else {}, limit=1) or [{}]
    found = [("_include", value) for value in declared_includes(REGISTRY, REGISTRY[name])]
    found += [("_revinclude", value) for value in declared_revincludes(REGISTRY, REGISTRY[name])]
    for how, value in found:
        query = f"{name}?_id={one.get('_id', 'abc-1')}&{how}={value}"
        assert not await is_refused(crowd, monkeypatch, owner, query), query
        if await is_refused(crowd, monkeypatch, crowd.operator, query, name):
            assert (how, value.partition(":")[0]) in {("_revinclude", "Patient"), ("_revinclude", "RelatedPerson")}


async def test_a_search_over_types_is_weighed_as_a_whole(crowd: World, owner: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    for query in ("identifier=x", f"_id={owner.patient}", "_lastUpdated=gt2020", ""):
        assert not await is_refused(crowd, monkeypatch, crowd.operator, f"?_type=Practitioner,Organization&{query}")
    for query in ("active=x", "name=x&active=x", "address-city=x"):
        types = "Organization,Practitioner"
        refused = await is_refused(crowd, monkeypatch, crowd.operator, f"?_type={types}&{query}", *types.split(","))
        assert refused is ("name" not in query)
    assert not await is_refused(crowd, monkeypatch, owner, "?_type=Observation,DocumentReference&status=final")
    # What the first of them would find is not looked for.
    assert await is_refused(crowd, monkeypatch, crowd.operator, "?_type=Device,Organization&type=x", "Device", "Organization")


async def test_a_condition_is_weighed_like_a_search(crowd: World, owner: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {"Practitioner": practitioner(), "Observation": observation(owner.patient)}
    for name, actor, condition, status in (
        ("Practitioner", crowd.operator, "identifier=urn:x|new", 201),
        ("Practitioner", crowd.operator, "gender=other", 422),
        ("Observation", owner, "status=cancelled", 201),
    ):
        for method, path, headers in (("POST", name, {"If_None_Exist": condition}), ("PUT", f"{name}?{condition}", {})):
            body = {**sent[name], "identifier": [{"system": "urn:x", "value": unique()}]}
            async with heard(crowd, monkeypatch) as asked:
                answer = await actor.send(method, path, body, **headers)
            assert answer.status_code == status, answer.text
            if status == 422:
                assert (issues(answer)[0]["code"], expression(answer)) == ("too-costly", "gender")
                assert [one for one, _, _ in asked if one == name] == []
            await require_cheap(crowd, asked, condition, actor.patient)
    sought = entry("POST", "Observation", observation(owner.patient, performer=[{"reference": "Practitioner?gender=x"}]))
    answer = await owner.post("", bundle("transaction", sought))
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "too-costly")
    assert expression(answer) == "Bundle.entry[0].resource.performer[0].reference"


async def test_one_of_many_readings_of_a_record_is_found_by_its_identifier(
    crowd: World, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await owner.create(observation(owner.patient))
    token, mongo = f"{READINGS}|{one['identifier'][0]['value']}", crowd.gateway.mongo
    [model] = await mongo.find("Observation", {"_id": one["id"]})
    others = [decoy(model, n) | {"bucket": model["bucket"], "patient": model["patient"]} for n in range(DECOYS)]
    for n, other in enumerate(others):
        other["_id"], other["search"] = f"{model['bucket']}-twin{n}", {**model["search"], "identifier": [f"urn:x|{n}", str(n)]}
    await mongo.insert("Observation", others)
    for within in ("", f"patient={owner.patient}&", f"code=99504-3&patient={owner.patient}&", "date=2026-11-20&"):
        for value in (token, token.partition("|")[2], f"{token},urn:y|z"):
            async with heard(crowd, monkeypatch) as asked:
                answer = await owner.get(f"Observation?{within}identifier={value}&_total=accurate")
            assert [found["resource"]["id"] for found in answer.json()["entry"]] == [one["id"]]
            assert max([(await examined(crowd, *each))[0] for each in asked]) <= 4
    reading = observation(owner.patient)
    sent = [entry("POST", "Observation", reading, ifNoneExist=f"identifier={value}") for value in (token, "urn:x|5")]
    async with heard(crowd, monkeypatch) as asked:
        answer = await owner.post("", bundle("transaction", *sent))
    assert [item["response"]["status"] for item in answer.json()["entry"]] == ["200 OK", "200 OK"]
    assert max([(await examined(crowd, *each))[0] for each in asked if each[0] == "Observation"]) <= 4


async def test_a_refusal_says_what_to_add(crowd: World) -> None:
    answer = await crowd.operator.get("Practitioner?gender=female&_count=1")
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (422, "too-costly", "gender")
    assert issues(answer)[0]["diagnostics"].endswith("add one of _id, identifier, family, given, name, _lastUpdated")
    counted = await crowd.operator.get("Practitioner?gender=female&_summary=count")
    assert (counted.status_code, issues(counted)[0]["code"]) == (422, "too-costly")
    batch = (await crowd.operator.post("", bundle("batch", entry("GET", "Practitioner?gender=female")))).json()["entry"]
    assert batch[0]["response"]["status"].startswith("422")
    assert (await crowd.operator.get("Practitioner?gender=female&name=x")).status_code == 200
