"""Whatever a search says: who may see a part of a record finds what its owner finds, less what is hidden, in the same order."""

from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.fhir.include import declared_includes, declared_revincludes
from gateway.fhir.registry import SearchParameter
from gateway.fhir.search import implied_parameters, modifiers_of
from tests.conftest import packaged
from tests.world import LOINC, Actor, World, concept, consent, device, document, label, observation

REGISTRY = packaged().registry
TYPES = ("Observation", "DocumentReference", "Device")
HIDDEN = [label("R")]
DATES = ["2026-11-20T08:00:00Z", "2026-11-20", "2026-11", "2026-11-21", "2020"]
PLAIN = {"missing": ["true", "false"], "of-type": ["urn:t|MR|1"], "above": ["http://x/y"], "below": ["http://x"]}
WORDS = {
    "token": ["99504-3", f"{LOINC}|", f"{LOINC}|11502-2", "final", "current", "|none", "R", "urn:s|a", "a", "glucose"],
    "reference": ["Device/{meter}", "Device/{masked}", "Patient/{patient}", "{masked}", "Observation/{reading}"],
    "date": [f"{prefix}{date}" for prefix in ("", "ne", "ge", "lt", "sa", "ap") for date in DATES],
    "string": ["after", "meal", "glucoapp", "x"],
    "quantity": ["104", "gt100", "le90", "ne104"],
    "number": ["1"],
    "uri": ["http://x/y"],
}


@pytest.fixture(scope="module")
async def seen(session_world: World) -> tuple[Actor, dict[str, Actor], dict[str, str], set[str]]:
    """The owner of a record, who reads it by consent but for what is labelled, what there is in it, and what is not hidden."""
    world = session_world
    owner = await world.patient()
    readers = {
        "professional": await world.professional(),
        "service": await world.service(),
        "app": await world.app(owner, "patient/*.rs"),
    }
    meter, masked = [await owner.create(device(owner.patient, **more)) for more in ({}, {"meta": {"security": HIDDEN}})]
    names = {"patient": owner.patient, "meter": meter["id"], "masked": masked["id"]}
    bodies: list[dict[str, Any]] = []
    for n, date in enumerate([*DATES, None]):
        more: dict[str, Any] = {"effectiveDateTime": date} if date else {}
        more["device"] = {"reference": f"Device/{(meter, masked)[n % 2]['id']}"}
        more["code"] = concept(LOINC, ("99504-3", "14745-4")[n % 3 == 0]) | {"text": ("Glucose", "After meal")[n % 2]}
        more["valueQuantity"] = {"value": 90 + 7 * n, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}
        found = observation(owner.patient, **more)
        if date is None:
            del found["effectiveDateTime"]
        bodies += [found, document(owner.patient, description="After a meal", type=concept("urn:s", "ab"[n % 2]))]
    visible = {meter["id"]}
    for n, body in enumerate(bodies):
        for is_hidden in (False, True) if n % 3 else (True,):
            one = {**body, "identifier": [{"system": "urn:s", "value": f"a{n}{is_hidden}"}]}
            stored = await owner.create({**one, "meta": {"security": HIDDEN}} if is_hidden else one)
            visible |= set() if is_hidden else {stored["id"]}
            names["reading"] = stored["id"] if body["resourceType"] == "Observation" else names.get("reading", "")
    for reader in readers.values():
        await owner.create(consent(owner, reader, "access", list(TYPES)))
        await owner.create(consent(owner, reader, type="deny", securityLabel=HIDDEN))
    return owner, readers, names, visible


def values(name: str, parameter: SearchParameter, modifier: str | None) -> list[str]:
    if modifier in PLAIN and not (parameter.type == "token" and modifier in ("above", "below")):
        return PLAIN[modifier]
    if parameter.type != "composite":
        return WORDS[parameter.type]
    parts = parameter.of or REGISTRY[name].search[parameter.any_of[0]].of
    pools = [WORDS[REGISTRY[name].search[part].type] for part in parts]
    return ["$".join(pool[n % len(pool)] for pool in pools) for n in range(6)]


@st.composite
def criteria(draw: st.DrawFn, name: str) -> tuple[str, str]:
    kind = REGISTRY[name]
    parameter = draw(st.sampled_from([*implied_parameters(kind), *kind.search.values()]))
    modifier = draw(st.sampled_from([None, *modifiers_of(parameter)]))
    asked = draw(st.lists(st.sampled_from(values(name, parameter, modifier)), min_size=1, max_size=2))
    text = asked[0] if modifier == "missing" else ",".join(asked)
    return (f"{parameter.name}:{modifier}" if modifier else parameter.name), text


SEARCHES = st.sampled_from(TYPES).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.lists(criteria(name) | st.tuples(st.sampled_from(["_security", "_security:not"]), st.just("R")), max_size=3),
        st.sampled_from([f"{sign}{key}" for sign in ("", "-") for key in (*REGISTRY[name].sort, "_id")]),
    )
)


async def walk(actor: Actor, name: str, query: str) -> tuple[list[str], set[int]] | int:
    """The ids on all pages and the totals they state; the status of a refusal."""
    found: list[str] = []
    totals: set[int] = set()
    url: str | None = f"{name}?{query}&_count=3&_total=accurate"
    while url:
        answer = await actor.get(url)
        if answer.status_code != 200:
            return answer.status_code
        page = answer.json()
        found += [one["resource"]["id"] for one in page.get("entry", ())]
        totals.add(page["total"])
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    return found, totals


@pytest.mark.requirement("SRCH-11")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=SEARCHES, kind=st.sampled_from(["professional", "service", "app"]))
async def test_who_sees_a_part_finds_what_the_owner_finds_less_what_is_hidden(
    seen: tuple[Actor, dict[str, Actor], dict[str, str], set[str]], asked: tuple[str, list[tuple[str, str]], str], kind: str
) -> None:
    owner, readers, names, visible = seen
    name, pairs, sort = asked
    told = [(key, value.format_map(names)) for key, value in pairs]
    query = urlencode([("patient", owner.patient), *told, ("_sort", sort)])
    whole, part = [await walk(actor, name, query) for actor in (owner, readers[kind])]
    if isinstance(whole, int) or isinstance(part, int):
        assert whole == part == 400, (query, whole, part)
        return
    expected = [one for one in whole[0] if one in visible]
    assert part == (expected, {len(expected)}), query
    assert whole[1] == {len(whole[0])}, query


INCLUDES = st.sampled_from(TYPES).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.lists(
            st.sampled_from(
                [
                    *(("_include", value) for value in declared_includes(REGISTRY, REGISTRY[name])),
                    *(("_revinclude", value) for value in declared_revincludes(REGISTRY, REGISTRY[name])),
                ]
            ),
            min_size=1,
            max_size=3,
            unique=True,
        ),
    )
)


async def comes_along(actor: Actor, query: str) -> tuple[set[str], set[str]]:
    """What matches and what is included."""
    answer = await actor.get(query)
    assert answer.status_code == 200, (query, answer.text)
    found: dict[str, set[str]] = {"match": set(), "include": set()}
    for one in answer.json().get("entry", ()):
        found[one["search"]["mode"]].add(f"{one['resource']['resourceType']}/{one['resource']['id']}")
    assert answer.json()["total"] == len(found["match"])
    return found["match"], found["include"]


@pytest.mark.requirement("SRCH-08", "SRCH-11")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=INCLUDES, kind=st.sampled_from(["professional", "service", "app"]))
async def test_what_comes_along_is_what_comes_for_the_owner_less_what_is_hidden(
    seen: tuple[Actor, dict[str, Actor], dict[str, str], set[str]], asked: tuple[str, list[tuple[str, str]]], kind: str
) -> None:
    owner, readers, _, visible = seen
    name, pairs = asked
    logged = [pair for pair in pairs if not pair[1].startswith(("AuditEvent", "Provenance"))]  # each reading adds to them
    query = urlencode([("patient", owner.patient), ("_id", ",".join(sorted(visible))), ("_count", "200"), *logged])
    whole, part = [await comes_along(actor, f"{name}?{query}") for actor in (owner, readers[kind])]
    assert part[0] == whole[0]
    readable = {one for one in whole[1] if one.partition("/")[2] in visible or not one.startswith(TYPES)}
    for one in [*readable]:
        if not one.startswith(TYPES) and (await readers[kind].get(one)).status_code != 200:
            readable.discard(one)
    assert part[1] == readable, query
