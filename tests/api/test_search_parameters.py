"""Searches on a real MongoDB find what the FHIR R4 search page says: the tables of `tests/searches.py`, over HTTP."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import pymongo
import pytest

from gateway.exchange.standing import authenticate
from gateway.fhir.clause import every
from gateway.fhir.search import Reading, read_parameters
from gateway.store.filter import LIVE, to_filter
from gateway.store.order import Key, Order, choose_index
from gateway.store.standing import About
from tests.searches import DATES, LOINC, QUANTITIES, STRINGS, TOKENS, UCUM
from tests.world import (
    BASE,
    Actor,
    World,
    bundle,
    concept,
    device,
    document,
    entry,
    finding,
    issues,
    observation,
    patient,
    unique,
)


async def store(owner: Actor, resources: Mapping[Any, dict[str, Any]]) -> dict[Any, str]:
    """Create these in one transaction; their ids by the same names."""
    posted = [entry("POST", resource["resourceType"], resource) for resource in resources.values()]
    answer = await owner.post("", bundle("transaction", *posted))
    assert answer.status_code == 200, answer.text
    locations = (e["response"]["location"] for e in answer.json()["entry"])
    return {
        name: location.split("/_history")[0].rpartition("/")[2] for name, location in zip(resources, locations, strict=True)
    }


async def find_all(owner: Actor, queries: Iterable[str]) -> list[set[str]]:
    """The ids that each of these searches finds on its only page."""
    answer = await owner.post("", bundle("batch", *(entry("GET", query) for query in queries)))
    assert answer.status_code == 200, answer.text
    found = []
    for item in answer.json()["entry"]:
        assert item["response"]["status"].startswith("200"), item
        assert len(item["resource"]["link"]) == 1
        found.append({e["resource"]["id"] for e in item["resource"].get("entry", ())})
    return found


def with_date(owner: Actor, text: str) -> dict[str, Any]:
    start, slash, end = text.partition("/")
    resource = finding(owner.patient)
    if slash:
        del resource["effectiveDateTime"]
        resource["effectivePeriod"] = {name: value for name, value in {"start": start, "end": end}.items() if value}
    else:
        resource["effectiveDateTime"] = text
    return resource


@pytest.mark.requirement("SRCH-04")
@pytest.mark.parametrize("spans", ["days and moments", "periods as well"])
async def test_dates(world: World, spans: str) -> None:
    """Twice, because a record without periods is searched by bounds that one with periods cannot have."""
    owner = await world.patient()
    common = spans == "days and moments"
    cases = [case for case in DATES if not common or ("/" not in case[0] and len(case[0]) >= 10)]
    ids = await store(owner, {text: with_date(owner, text) for text in dict.fromkeys(stored for stored, _, _ in cases)})
    queries = [f"Observation?patient={owner.patient}&_count=200&date={quote(asked)}" for _, asked, _ in cases]
    for (stored, asked, expected), found in zip(cases, await find_all(owner, queries), strict=True):
        assert (ids[stored] in found) is expected, (stored, asked)


async def test_the_ends_of_time_and_a_leap_second(world: World) -> None:
    owner = await world.patient()
    texts = ["0001", "0001-01-01T00:00:00+14:00", "9999-12-31", "9999-12-31T23:59:59.999-12:00", "2016-12-31T23:59:60Z"]
    ids = await store(owner, {text: with_date(owner, text) for text in texts})
    asked = {"lt0002": texts[:2], "gt9998": texts[2:4], "0001": texts[:2], "9999-12-31": texts[2:4], "2016-12-31": texts[4:]}
    queries = [f"Observation?patient={owner.patient}&date={date}" for date in asked]
    for expected, found in zip(asked.values(), await find_all(owner, queries), strict=True):
        assert found == {ids[text] for text in expected}


@pytest.mark.requirement("SRCH-05")
async def test_tokens(world: World) -> None:
    owner = await world.patient()
    stored = dict.fromkeys((system, code) for _, system, code, _ in TOKENS)
    ids = await store(owner, {(s, c): observation(owner.patient, code=concept(s, c)) for s, c in stored})
    queries = [f"Observation?patient={owner.patient}&code={quote(asked)}" for asked, _, _, _ in TOKENS]
    denied = [query.replace("&code=", "&code:not=") for query in queries]
    answers, rest = await find_all(owner, queries), await find_all(owner, denied)
    for (asked, system, code, expected), found, others in zip(TOKENS, answers, rest, strict=True):
        assert (ids[system, code] in found) is expected, (asked, system, code)
        assert found | others == set(ids.values())
        assert not found & others


async def test_strings(world: World) -> None:
    owner = await world.patient()
    texts = dict.fromkeys(stored for _, stored, _ in STRINGS)
    plain = observation(owner.patient)
    del plain["valueQuantity"]
    ids = await store(
        owner, {t: plain | {"valueString": t, "identifier": [{"system": "urn:s", "value": unique()}]} for t in texts}
    )
    queries = []
    for suffix, _, _ in STRINGS:
        name, _, value = suffix.partition("=")
        queries.append(f"Observation?patient={owner.patient}&value-string{name}={quote(value)}")
    for (asked, text, expected), found in zip(STRINGS, await find_all(owner, queries), strict=True):
        assert (ids[text] in found) is expected, (asked, text)


async def test_quantities(world: World) -> None:
    owner = await world.patient()
    unit = {"unit": "milligram per decilitre", "system": UCUM, "code": "mg/dL"}
    numbers = dict.fromkeys(value for _, value, _ in QUANTITIES)
    ids = await store(owner, {n: finding(owner.patient, valueQuantity={"value": n, **unit}) for n in numbers})
    queries = [f"Observation?patient={owner.patient}&value-quantity={quote(asked)}" for asked, _, _ in QUANTITIES]
    for (asked, number, expected), found in zip(QUANTITIES, await find_all(owner, queries), strict=True):
        assert (ids[number] in found) is expected, (asked, number)


async def test_a_component_is_compared_as_a_whole(world: World) -> None:
    """The number of one component and the unit of another do not make a match."""
    owner = await world.patient()
    parts = [
        {"code": concept(LOINC, "a"), "valueQuantity": {"value": 5, "system": UCUM, "code": "mg/dL"}},
        {"code": concept(LOINC, "b"), "valueQuantity": {"value": 90, "system": UCUM, "code": "%"}},
    ]
    resource = observation(owner.patient, component=parts)
    stored = await owner.create(resource)
    asked = [f"5|{UCUM}|mg/dL", f"90|{UCUM}|%", f"5|{UCUM}|%", f"90|{UCUM}|mg/dL"]
    queries = [f"Observation?patient={owner.patient}&component-value-quantity={quote(value)}" for value in asked]
    queries.append(f"Observation?patient={owner.patient}&combo-value-quantity=90")
    assert await find_all(owner, queries) == [{stored["id"]}, {stored["id"]}, set(), set(), {stored["id"]}]


async def test_references(world: World) -> None:
    owner, other = await world.patient(), await world.patient()
    sensor = await owner.create(device(owner.patient))
    foreign = "https://other.example/fhir/Device/7"
    ids = await store(
        owner,
        {
            "own": observation(owner.patient, device={"reference": f"Device/{sensor['id']}"}),
            "absolute": observation(owner.patient, device={"reference": f"{BASE}/Device/{sensor['id']}"}),
            "foreign": observation(owner.patient, device={"reference": foreign}),
            "logical": observation(owner.patient, device={"identifier": {"system": "urn:serial", "value": "42"}}),
            "none": observation(owner.patient),
        },
    )
    own, every = {"own", "absolute"}, set(ids)
    asked = {
        f"device=Device/{sensor['id']}": own,
        f"device={sensor['id']}": own,
        f"device:Device={sensor['id']}": own,
        f"device={BASE}/Device/{sensor['id']}": own,
        f"device=Device/{sensor['id']}/_history/1": own,
        f"device={sensor['id']},{foreign}": own | {"foreign"},
        f"device:DeviceMetric={sensor['id']}": set(),
        f"device={foreign}": {"foreign"},
        "device=7": set(),
        "device:identifier=urn:serial|42": {"logical"},
        "device:identifier=42": {"logical"},
        "device:identifier=urn:other|42": set(),
        "device:missing=true": {"logical", "none"},
        "device:missing=false": own | {"foreign"},
        f"subject=Patient/{owner.patient}": every,
        f"subject:Patient={owner.patient}": every,
        f"subject={BASE}/Patient/{owner.patient}": every,
        f"subject=Patient/{other.patient}": set(),
        f"subject=Device/{sensor['id']}": set(),
    }
    queries = [f"Observation?patient={owner.patient}&{query}" for query in asked]
    for (query, expected), found in zip(asked.items(), await find_all(owner, queries), strict=True):
        assert found == {ids[name] for name in expected}, query


@pytest.mark.requirement("SRCH-06")
async def test_a_patient_is_named_in_every_way(world: World) -> None:
    owner = await world.patient()
    (identifier,) = (await owner.get(f"Patient/{owner.patient}")).json()["identifier"]
    token = f"{identifier['system']}|{identifier['value']}"
    literal = await owner.create(observation(owner.patient))
    logical = await owner.create(observation("", subject={"identifier": identifier}))
    names = ["patient.identifier", "patient:identifier", "subject.identifier", "subject:identifier"]
    queries = [f"Observation?{name}={quote(value)}" for name in names for value in (token, identifier["value"])]
    queries += [f"Observation?{name}={owner.patient}" for name in ("patient", "subject")]
    for query, found in zip(queries, await find_all(owner, queries), strict=True):
        assert found == {literal["id"], logical["id"]}, query
    assert await find_all(owner, [f"Observation?{name}={quote(token)}x" for name in names]) == [set()] * 4


@pytest.mark.requirement("SRCH-12")
async def test_documents_are_found_by_each_of_their_identifiers(world: World) -> None:
    owner = await world.patient()
    master, plain = {"system": "urn:m", "value": unique()}, {"system": "urn:p", "value": unique()}
    stored = await owner.create(document(owner.patient, masterIdentifier=master, identifier=[plain]))
    queries = [f"DocumentReference?identifier={quote(i['system'] + '|' + i['value'])}" for i in (master, plain)]
    queries += [f"DocumentReference?identifier={quote('urn:m|' + plain['value'])}"]
    assert await find_all(owner, queries) == [{stored["id"]}, {stored["id"]}, set()]


VALUES = {
    "value-concept": ({"valueCodeableConcept": concept("urn:c", "high")}, "urn:c|high", "urn:c|low"),
    "value-date": ({"valueDateTime": "2026-11-20"}, "2026-11-20", "2026-11-21"),
    "value-string": ({"valueString": "Après le repas"}, "apres", "avant"),
    "data-absent-reason": ({"dataAbsentReason": concept("urn:d", "error")}, "error", "unknown"),
    "combo-value-concept": ({"valueCodeableConcept": concept("urn:c", "high")}, "high", "low"),
    "combo-data-absent-reason": ({"dataAbsentReason": concept("urn:d", "error")}, "urn:d|error", "urn:d|"),
}


@pytest.mark.requirement("CORE-02")
@pytest.mark.parametrize("name", VALUES)
async def test_the_other_types_of_a_value(world: World, name: str) -> None:
    elements, right, wrong = VALUES[name]
    owner = await world.patient()
    resource = observation(owner.patient)
    del resource["valueQuantity"]
    stored = await owner.create(resource | elements)
    without = await owner.create(observation(owner.patient))
    within = f"Observation?patient={owner.patient}&{name}"
    queries = [f"{within}={quote(right)}", f"{within}={quote(wrong)}", f"{within}:missing=false", f"{within}:missing=true"]
    expected = [{stored["id"]}, set(), {stored["id"]}, {without["id"]}]
    if name == "combo-data-absent-reason":
        expected[1] = {stored["id"]}  # any code of that system
    assert await find_all(owner, queries) == expected


@pytest.mark.requirement("CORE-02")
async def test_a_list_says_why_it_is_empty(world: World) -> None:
    owner = await world.patient()
    resource = {
        "resourceType": "List",
        "status": "current",
        "mode": "snapshot",
        "code": concept(LOINC, "1"),
        "date": "2026-11-20",
        "subject": {"reference": f"Patient/{owner.patient}"},
        "emptyReason": concept("urn:e", "nilknown"),
    }
    stored = await owner.create(resource)
    within = f"List?patient={owner.patient}&empty-reason"
    assert await find_all(owner, [f"{within}=urn:e|nilknown", f"{within}=urn:e|withheld"]) == [{stored["id"]}, set()]


@pytest.mark.requirement("CORE-02")
async def test_events_are_found_by_every_parameter_they_declare(world: World) -> None:
    owner = await world.patient()
    doctor = await world.professional()
    await world.consent(owner, doctor, "access", ["Observation"])
    stored = await owner.create(observation(owner.patient))
    assert (await doctor.get(f"Observation/{stored['id']}")).status_code == 200
    events = await owner.search(f"AuditEvent?patient={owner.patient}&action=R&agent={doctor.reference}")
    (event,) = events
    asked = {
        "action": ("R", "D"),
        "agent": (doctor.reference, "Practitioner/nobody"),
        "date": (event["recorded"], "2020"),
        "outcome": ("0", "8"),
        "patient": (owner.patient, "nobody"),
        "subtype": ("http://hl7.org/fhir/restful-interaction|read", "http://hl7.org/fhir/restful-interaction|vread"),
        "_id": (event["id"], f"{event['id']}x"),
        "_lastUpdated": ("ge2020", "lt2020"),
    }
    assert set(asked) >= set(world.gateway.registry["AuditEvent"].search)
    for name, (right, wrong) in asked.items():
        within = f"AuditEvent?patient={owner.patient}&action=R&agent={doctor.reference}&{name}="
        found, missed = await owner.search(within + quote(right or "")), await owner.search(within + quote(wrong))
        assert [e["id"] for e in found] == [event["id"]], name
        assert missed == [], name


@pytest.mark.requirement("SRCH-13")
@pytest.mark.parametrize(
    "text", ['{"$ne": ""}', "$where", "$exists", ".*", "^.", "(a+)+$", "'; return true; //", "a.b", "[$gt]", "\0"]
)
async def test_operators_are_literals(world: World, text: str) -> None:
    owner = await world.patient()
    await owner.create(observation(owner.patient, note=[{"text": "there"}]))
    literal = text.replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|").replace("$", "\\$")
    names = [
        "code",
        "identifier",
        "status",
        "performer",
        "value-string",
        "value-string:exact",
        "_security",
        "device:identifier",
    ]
    queries = [f"Observation?{urlencode({'patient': owner.patient, name: literal})}" for name in names]
    queries.append(f"Observation?{urlencode({'patient': literal})}")
    queries.append(f"Observation?{urlencode({'_id': literal})}")
    assert await find_all(owner, queries) == [set()] * len(queries)
    if text != "\0":
        stored = await owner.create(observation(owner.patient, code=concept("urn:x", text)))
        query = f"Observation?{urlencode({'patient': owner.patient, 'code': f'urn:x|{literal}'})}"
        assert await find_all(owner, [query]) == [{stored["id"]}]


@pytest.mark.requirement("SRCH-13")
@pytest.mark.parametrize(
    "name", ["$where", "patient[$ne]", "code.$gt", "search.code", "_id[$exists]", "body", "bucket", "code%00"]
)
async def test_operators_are_no_parameters(world: World, name: str) -> None:
    owner = await world.patient()
    answer = await owner.get(f"Observation?{name}=1")
    assert answer.status_code == 400
    assert issues(answer)[0]["code"] == "not-supported"


async def test_an_unknown_label_cannot_be_searched_for_as_such(world: World) -> None:
    owner = await world.patient()
    labels = [{"system": "urn:unknown-labels", "code": "x"}]
    stored = await owner.create(observation(owner.patient, meta={"security": labels}))
    within = f"Observation?patient={owner.patient}&_security"
    queries = [f"{within}={quote(text)}" for text in ("?", "\\?", "\\\\?", "urn:unknown-labels|x")]
    assert await find_all(owner, queries) == [set(), set(), set(), {stored["id"]}]


async def test_numbers_beyond_measure_are_answered(world: World) -> None:
    owner = await world.patient()
    await owner.create(observation(owner.patient))
    asked = ["1e999", "-1e999", "gt1e999", "1e-999", "ap1e308", "lt1e999"]
    found = await find_all(owner, [f"Observation?patient={owner.patient}&value-quantity={number}" for number in asked])
    assert [len(ids) for ids in found] == [0, 0, 0, 0, 0, 1]


async def test_a_directory_is_found_by_name_in_any_spelling(world: World) -> None:
    family = unique("Lefèvre")
    stored = await world.operator.create(patient(name=[{"family": family, "given": ["Zoë", "Anne"]}]))
    queries = [
        f"Patient?family={family.upper()}",
        f"Patient?family={family}&given=zoe",
        f"Patient?name={family.lower()}&given=anne",
        f"Patient?family:exact={family}",
        f"Patient?family:exact={family.lower()}",
        f"Patient?family={family}&given=bob",
    ]
    hit: set[str] = {stored["id"]}
    assert await find_all(world.operator, queries) == [hit, hit, hit, hit, set(), set()]


@pytest.mark.requirement("SRCH-10")
@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("date=2026-13", "date"),
        ("date=yesterday", "date"),
        ("value-quantity=many", "value-quantity"),
        ("code=", "code"),
        ("code:missing=maybe", "code:missing"),
        ("code:above=x", "code"),
        ("_include=Observation:code", "_include"),
        ("_has:Provenance:target:agent=x", "_has"),
        ("_elements=codes", "_elements"),
        ("foo=bar", "foo"),
    ],
)
async def test_what_is_malformed_is_refused_by_name(world: World, query: str, named: str) -> None:
    owner = await world.patient()
    answer = await owner.get(f"Observation?patient={owner.patient}&{query}")
    assert answer.status_code == 400
    assert issues(answer)[0]["expression"] == [named]


@pytest.mark.parametrize("query", ["Device?", "Device?manufacturer=sen", "Device?identifier=urn:x|1", "Device?_id=abc-1"])
async def test_a_search_for_what_belongs_to_nobody_scans_no_collection(world: World, mongo_url: str, query: str) -> None:
    """The catalogue's devices lie among the sensors of all patients."""
    owner = await world.patient()
    access = await authenticate(world.gateway, owner.token, About(patient=owner.patient))
    kind = world.gateway.registry["Device"]
    reading = Reading(world.gateway.clock(), 10, {})
    pairs = [tuple(pair.split("=")) for pair in query.partition("?")[2].split("&") if pair]
    clause = every(read_parameters(kind, [(name, value) for name, value in pairs], reading), access.clause(kind, "search-type"))
    order = Order((Key("_lastUpdated", descending=True),))
    command = {"find": "Device", "filter": to_filter(clause) | LIVE, "sort": {"updated": -1, "_id": 1}, "limit": 51}
    hint = choose_index(kind, clause, order)
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        explained = client[world.gateway.settings.mongo_database].command(
            {"explain": command | ({"hint": hint} if hint else {}), "verbosity": "queryPlanner"}
        )
    plan = str(explained["queryPlanner"]["winningPlan"])
    assert "IXSCAN" in plan or "IDHACK" in plan
    assert "COLLSCAN" not in plan
