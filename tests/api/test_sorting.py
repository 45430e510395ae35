"""Sorting: every declared key of every type, both ways, page by page, whatever has no value or a wide one."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.fhir.dates import read_span
from tests.conftest import packaged
from tests.world import (
    LOINC,
    Actor,
    World,
    bundle,
    care_team,
    concept,
    consent,
    device,
    document,
    entry,
    expression,
    finding,
    instant,
    issues,
    observation,
    organization,
    patient,
    practitioner,
    related_person,
    unique,
)

REGISTRY = packaged().registry
SEARCHED = {name: kind for name, kind in REGISTRY.resource_types.items() if "search-type" in kind.interactions}
SORTS = [(name, f"{minus}{key}") for name, kind in SEARCHED.items() for key in (*kind.sort, "_id") for minus in ("", "-")]
# Every two keys of a type, each both ways, the id among them.
SEVERAL = [
    (name, f"{one}{first},{other}{second}")
    for name, kind in SEARCHED.items()
    for first, second in itertools.permutations((*kind.sort, "_id"), 2)
    if first != "_id"
    for one, other in itertools.product(("", "-"), repeat=2)
]
# What stands where a type's resources sort by something else than when they were stored.
DATES: list[Any] = [
    "2026-03-01",
    None,
    "2026-02",
    "2026-03-01T08:00:00Z",
    "2026-03-01T08:00:00.500Z",
    None,
    "2025",
    "2026-03-01",
]


def clinical(kind: str, owner: str, date: str | None) -> dict[str, Any]:
    """A resource of a clinical type with this date, or with none."""
    subject = {"reference": f"Patient/{owner}"}
    code = concept(LOINC, "11502-2")
    match kind:
        case "Observation":
            found = observation(owner)
            del found["effectiveDateTime"]
            return found | ({"effectiveDateTime": date} if date else {})
        case "DocumentReference":
            found = document(owner, context={"period": {"start": date}} if date else {"sourcePatientInfo": subject})
            del found["date"]
            return found | ({"date": f"{date[:10]}T00:00:00Z"} if date and len(date) >= 10 else {})
        case "List":
            found = {"status": "current", "mode": "working", "code": code, "subject": subject}
            return {"resourceType": kind, **found} | ({"date": date} if date else {})
        case "DiagnosticReport":
            found = {"status": "final", "code": code, "subject": subject}
            return {"resourceType": kind, **found} | ({"effectiveDateTime": date} if date else {})
        case "ServiceRequest":
            found = {"status": "active", "intent": "order", "code": code, "subject": subject}
            return {"resourceType": kind, **found} | ({"authoredOn": date} if date else {})
        case "MedicationStatement":
            found = {"status": "active", "medicationCodeableConcept": code, "subject": subject}
            return {"resourceType": kind, **found} | ({"effectiveDateTime": date} if date else {})
        case _:
            raise AssertionError(f"this test knows no {kind}: teach it")


async def fill(world: World, owner: Actor, kind: str) -> tuple[Actor, str, int]:
    """Bring resources of a type; who searches them, by what, and how many there are."""
    if kind == "Provenance":  # only the server makes them, and does not yet
        return owner, f"{kind}?patient={owner.patient}", 0
    if kind == "AuditEvent":
        for _ in range(5):
            await owner.get("Observation/abc-1")
        return owner, "AuditEvent?subtype=read", 5
    if kind == "Consent":
        doctor = await world.professional()
        for date in DATES:
            sent = consent(owner, doctor, "access", ["Observation"])
            sent.pop("dateTime", None)
            await owner.create(sent | ({"dateTime": date} if date else {}))
        return owner, f"Consent?patient={owner.patient}", len(DATES)
    if kind == "CareTeam":
        for days in (1, 3, 2, 3, 5):
            now, doctor = world.clock(), await world.professional()
            period = {"start": instant(now - timedelta(days=days)), "end": instant(now + timedelta(days=1))}
            await owner.create(care_team(owner.patient, doctor.reference, now, period=period))
        return owner, f"CareTeam?patient={owner.patient}", 5
    if REGISTRY[kind].group == "clinical":
        for date in DATES:
            await owner.create(clinical(kind, owner.patient, date))
        return owner, f"{kind}?patient={owner.patient}", len(DATES)
    tag = unique("tag")
    made = {
        "Patient": patient,
        "Practitioner": practitioner,
        "Organization": organization,
        "Device": lambda **more: device(owner.patient, **more),
        "RelatedPerson": lambda **more: related_person(owner.patient, **more),
        "PractitionerRole": lambda **more: {"resourceType": "PractitionerRole", **more},
    }[kind]
    keeper = owner if kind == "Device" else world.operator
    for _ in range(5):
        await keeper.create(made(identifier=[{"system": f"urn:{tag}", "value": unique()}]))
    return keeper, f"{kind}?identifier=urn:{tag}|", 5


async def pages(actor: Actor, search: str, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    url: str | None = f"{search}&_count={count}"
    while url:
        answer = await actor.get(url)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page.get("entry", ())) <= count
        found += [one["resource"] for one in page.get("entry", ())]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    return found


@pytest.fixture(scope="module")
async def filled(session_world: World) -> dict[str, tuple[Actor, str, int]]:
    """One record with resources of every type."""
    owner = await session_world.patient()
    return {name: await fill(session_world, owner, name) for name in SEARCHED}


def ids(resources: list[dict[str, Any]]) -> list[str]:
    return [resource["id"] for resource in resources]


@pytest.mark.requirement("SRCH-09", "SRCH-02")
@pytest.mark.parametrize(("kind", "sort"), SORTS)
async def test_every_key_of_every_type_sorts_and_pages_both_ways(
    filled: dict[str, tuple[Actor, str, int]], kind: str, sort: str
) -> None:
    actor, search, count = filled[kind]
    whole = await pages(actor, f"{search}&_sort={sort}", 100)
    assert len(whole) == count
    for size in (1, 3):
        assert ids(await pages(actor, f"{search}&_sort={sort}", size)) == ids(whole)
    other_way = sort[1:] if sort[0] == "-" else f"-{sort}"
    assert ids(await pages(actor, f"{search}&_sort={other_way}", 100)) == ids(whole)[::-1]
    keys = [key_of(kind, sort.lstrip("-"), resource) for resource in whole]
    present = [key for key in keys if key is not None]
    assert present == sorted(present, reverse=sort[0] == "-")
    # What has no value comes first, or last when the order is turned round.
    assert keys == ([None] * (count - len(present)) + present if sort[0] != "-" else present + [None] * (count - len(present)))


@pytest.mark.requirement("SRCH-09", "SRCH-02")
@pytest.mark.parametrize(("kind", "sort"), SEVERAL)
async def test_the_next_key_decides_where_the_first_does_not(
    filled: dict[str, tuple[Actor, str, int]], kind: str, sort: str
) -> None:
    actor, search, count = filled[kind]
    whole = await pages(actor, f"{search}&_sort={sort}", 100)
    expected = await pages(actor, f"{search}&_sort=_id", 100)
    for part in reversed(sort.split(",")):
        name = part.lstrip("-")
        keys = {r["id"]: (key is not None, key or 0) for r in expected for key in [key_of(kind, name, r)]}
        expected.sort(key=lambda r, keys=keys: keys[r["id"]], reverse=part[0] == "-")  # type: ignore[misc]
    named = [part.lstrip("-") for part in sort.split(",")]
    assert [[key_of(kind, name, r) for name in named] for r in whole] == [
        [key_of(kind, name, r) for name in named] for r in expected
    ]
    assert len(set(ids(whole))) == count
    for size in (1, 3):
        assert ids(await pages(actor, f"{search}&_sort={sort}", size)) == ids(whole)


@pytest.mark.requirement("SRCH-09")
async def test_an_id_leaves_nothing_for_the_keys_behind_it(filled: dict[str, tuple[Actor, str, int]]) -> None:
    actor, search, _ = filled["Observation"]
    alone = ids(await pages(actor, f"{search}&_sort=-_id", 3))
    assert ids(await pages(actor, f"{search}&_sort=-_id,date", 3)) == alone


def key_of(kind: str, name: str, resource: dict[str, Any]) -> Any:
    """By what a resource is sorted, read from the resource itself."""
    if name == "_id":
        return resource["id"]
    text = resource["meta"]["lastUpdated"] if name == "_lastUpdated" else None
    if kind == "DocumentReference" and name == "period":
        text = resource["context"].get("period", {}).get("start")
    elif kind == "CareTeam" and name == "date":
        text = resource["period"]["start"]
    elif text is None:
        named = {"AuditEvent": "recorded", "Consent": "dateTime", "ServiceRequest": "authoredOn", "Provenance": "recorded"}
        text = resource.get(named.get(kind, "date"), resource.get("effectiveDateTime"))
    return read_span(text).low if text else None


@pytest.mark.requirement("SRCH-09")
@pytest.mark.parametrize("kind", list(SEARCHED))
async def test_without_sort_the_newest_comes_first(filled: dict[str, tuple[Actor, str, int]], kind: str) -> None:
    actor, search, _ = filled[kind]
    first = REGISTRY[kind].sort[0]
    assert ids(await pages(actor, search, 2)) == ids(await pages(actor, f"{search}&_sort=-{first}", 100))


@pytest.mark.requirement("SRCH-10")
@pytest.mark.parametrize("kind", list(SEARCHED))
async def test_any_other_key_is_refused(filled: dict[str, tuple[Actor, str, int]], kind: str) -> None:
    actor, search, _ = filled[kind]
    for key in ("foo", "-foo", "_score", "DATE", "date ", "$natural", "patient", "_id,foo", ","):
        answer = await actor.get(f"{search}&_sort={key}")
        assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (400, "not-supported", "_sort")


# Moments, days, months, years and open periods, some of them equal.
EFFECTIVE = st.one_of(
    st.none(),
    st.sampled_from(["2026-03-01T08:00:00Z", "2026-03-01", "2026-03", "2026", "2025", "2026-02-28T23:59:59.999Z"]),
    st.tuples(st.sampled_from(["2025-12-31", "2026-03-01"]), st.sampled_from([None, "2026-03-01", "2027"])),
    st.sampled_from([(None, "2026-03-01")]),
)
SEARCHES = [
    "",
    "&date=2026-03-01",
    "&date=ge2026-03-01",
    "&date=lt2026-03-01",
    "&date=ne2026",
    "&date=ap2026-03",
    "&date=gt2025-12-31",
]


@pytest.mark.requirement("SRCH-02", "SRCH-04")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(effective=st.lists(EFFECTIVE, min_size=1, max_size=12), size=st.integers(1, 4), search=st.sampled_from(SEARCHES))
async def test_wide_and_common_spans_in_one_record_page_as_one(
    world: World, effective: list[Any], size: int, search: str
) -> None:
    owner = await world.patient()
    readings = [with_effective(owner.patient, one) for one in effective]
    answer = await owner.post("", bundle("transaction", *(entry("POST", "Observation", one) for one in readings)))
    assert answer.status_code == 200, answer.text
    by_owner = f"Observation?patient={owner.patient}{search}"
    alone = {resource["id"] for resource in await pages(owner, f"Observation?code=3141-9{search}", 100)}
    for sort in ("date", "-date", "_lastUpdated", "-_id", "date,_id", "-date,_lastUpdated", "-_lastUpdated,date,-_id"):
        whole = ids(await pages(owner, f"{by_owner}&_sort={sort}", 100))
        assert ids(await pages(owner, f"{by_owner}&_sort={sort}", size)) == whole
        assert len(whole) == len(set(whole))
        assert set(whole) == alone
    total = (await owner.get(f"{by_owner}&_summary=count")).json()["total"]
    assert total == len(alone)
    if not search:
        assert total == len(effective)


def with_effective(owner: str, effective: Any) -> dict[str, Any]:
    found = finding(owner)
    del found["effectiveDateTime"]
    if isinstance(effective, tuple):
        start, end = effective
        period = {name: value for name, value in (("start", start), ("end", end)) if value}
        return found | {"effectivePeriod": period}
    return found | ({"effectiveDateTime": effective} if effective else {})


@pytest.mark.parametrize(
    "moment", ["0001-01-01", "0001", "9999-12-31", "9999", "9999-12-31T23:59:59.999-12:00", "1969-12-31T23:59:59.999Z"]
)
async def test_dates_at_the_ends_of_time_sort_and_page(world: World, moment: str) -> None:
    owner = await world.patient()
    for date in (moment, "2026-03-01", moment):
        answer = await owner.post("Observation", finding(owner.patient, effectiveDateTime=date))
        assert answer.status_code == 201, answer.text
    for sort in ("date", "-date"):
        whole = await pages(owner, f"Observation?patient={owner.patient}&_sort={sort}", 100)
        assert len(whole) == 3
        assert ids(await pages(owner, f"Observation?patient={owner.patient}&_sort={sort}", 1)) == ids(whole)
    is_early = read_span(moment).low < datetime(2026, 1, 1, tzinfo=UTC)
    found = await pages(owner, f"Observation?patient={owner.patient}&date={'lt' if is_early else 'gt'}2026-03-01", 100)
    assert [resource["effectiveDateTime"] for resource in found] == [moment] * 2
