"""A search over several types answers as the searches of each would, on pages of one order, through the same doors."""

from typing import Any

import pytest

from tests.api.test_audit import events, raw_request
from tests.api.test_includes import ask, modes, name_of, to
from tests.api.test_paging import next_link, push
from tests.world import (
    BASE,
    LOINC,
    Actor,
    World,
    bundle,
    concept,
    device,
    document,
    entry,
    expression,
    issues,
    observation,
    unique,
)

FORM = "application/x-www-form-urlencoded"


async def walk(actor: Actor, url: str) -> list[list[str]]:
    """The matches of each page."""
    pages: list[list[str]] = []
    following: str | None = url
    while following:
        page = await ask(actor, following)
        pages.append(modes(page)["match"])
        following = next_link(page)
    return pages


async def bring(owner: Actor) -> list[str]:
    """A resource of three types in turn, in the order of their creation."""
    made: list[str] = []
    for _ in range(3):
        made.append(name_of(await owner.create(observation(owner.patient))))
        made.append(name_of(await owner.create(document(owner.patient))))
        made.append(name_of(await owner.create(device(owner.patient))))
    return made


@pytest.mark.parametrize("count", [1, 2, 4, 9, 50])
async def test_pages_run_over_the_types_in_one_order(world: World, count: int) -> None:
    owner = await world.patient()
    made = await bring(owner)
    path = f"?_type=Observation,DocumentReference,Device&patient={owner.patient}&_count={count}"
    newest_first = await walk(owner, path)
    assert [one for page in newest_first for one in page] == made[::-1]
    assert {len(page) for page in newest_first[:-1]} <= {count}
    oldest_first = await walk(owner, f"{path}&_sort=_lastUpdated")
    assert [one for page in oldest_first for one in page] == made
    by_id = await walk(owner, f"{path}&_sort=_id")
    assert [one for page in by_id for one in page] == sorted(made, key=lambda name: name.partition("/")[2])


async def test_what_was_stored_in_one_moment_is_paged_whole(world: World) -> None:
    owner = await world.patient()
    subject = {"reference": f"Patient/{owner.patient}"}
    readings = [observation(owner.patient) for _ in range(7)]
    reports = [{"resourceType": "DiagnosticReport", "status": "final", "code": concept(LOINC, "1"), "subject": subject}] * 7
    sent = [entry("POST", one["resourceType"], one) for one in (*readings, *reports)]
    assert (await owner.post("", bundle("transaction", *sent))).status_code == 200
    for sort in ("_lastUpdated", "-_lastUpdated", "date", "-date"):
        pages = await walk(owner, f"?_type=Observation,DiagnosticReport&_count=3&_sort={sort}")
        found = [one for page in pages for one in page]
        assert (len(found), len(set(found))) == (14, 14), sort


async def test_new_readings_do_not_disturb_a_page_to_come(world: World) -> None:
    owner = await world.patient()
    made = await bring(owner)
    page = await ask(owner, f"?_type=Observation,Device&patient={owner.patient}&_count=2")
    await push(owner, 3)
    rest = await walk(owner, next_link(page) or "")
    expected = [one for one in made[::-1] if not one.startswith("DocumentReference")]
    assert [*modes(page)["match"], *(one for found in rest for one in found)] == expected


@pytest.mark.requirement("SRCH-01")
async def test_get_and_post_answer_alike_and_say_what_was_asked(world: World) -> None:
    owner = await world.patient()
    await bring(owner)
    query = f"_type=Observation,Device&patient={owner.patient}&_count=3"
    by_url = await ask(owner, f"?{query}")
    without_slash = await owner.get(f"{BASE}?{query}")
    by_form = await owner.send("POST", "_search", query.encode(), Content_Type=FORM)
    assert by_form.status_code == without_slash.status_code == 200
    for one in (by_form.json(), without_slash.json()):
        assert (one["entry"], one["link"][0]) == (by_url["entry"], by_url["link"][0])
    assert by_url["link"][0]["url"] == f"{BASE}?_type=Observation%2CDevice&patient={owner.patient}&_count=3"
    assert (next_link(by_url) or "").startswith(f"{BASE}?_cursor=")
    for kind in ("batch", "transaction"):
        asked = bundle(kind, entry("GET", f"?{query}"), entry("POST", f"_search?{query}"))
        for answer in (await owner.post("", asked)).json()["entry"]:
            assert answer["resource"]["entry"] == by_url["entry"]


async def test_a_parameter_that_all_types_have_narrows_them_all(world: World) -> None:
    owner = await world.patient()
    value = unique("same")
    identifier = [{"system": "urn:same", "value": value}]
    reading = await owner.create(observation(owner.patient, identifier=identifier))
    meter = await owner.create(device(owner.patient, identifier=identifier))
    await bring(owner)
    path = f"?_type=Observation,Device&patient={owner.patient}"  # (catalogue devices of other tests are nobody's)
    found = await walk(owner, f"{path}&identifier=urn:same|{value}")
    assert found == [[name_of(meter), name_of(reading)]]
    assert await walk(owner, f"{path}&_id={reading['id']}") == [[name_of(reading)]]
    assert await walk(owner, f"{path}&_lastUpdated=lt2020") == [[]]
    page = await ask(owner, f"{path}&identifier=urn:same|{value}&_summary=count")
    assert (page["total"], page.get("entry")) == (2, None)
    assert (await ask(owner, f"{path}&_total=accurate&_count=1"))["total"] == 8
    assert (await ask(owner, f"{path}&_count=50"))["total"] == 8


async def test_includes_and_parts_work_over_types(world: World) -> None:
    owner = await world.patient()
    meter = await owner.create(device(owner.patient))
    reading = await owner.create(observation(owner.patient, device=to(meter)))
    made = await owner.create(document(owner.patient))
    path = f"?_type=Observation,DocumentReference&patient={owner.patient}&_include=Observation:device"
    page = await ask(owner, f"{path}&_elements=status")
    assert modes(page) == {"match": [name_of(made), name_of(reading)], "include": [name_of(meter)]}
    first, second, included = (one["resource"] for one in page["entry"])
    assert [name in first for name in ("status", "type", "content")] == [True, False, True]  # (content is mandatory)
    assert [name in second for name in ("status", "code", "device")] == [True, True, False]
    assert included == meter
    both = await ask(owner, f"?_type=Observation,Device&patient={owner.patient}&_include=Observation:device")
    assert modes(both) == {"match": [name_of(reading), name_of(meter)], "include": []}


@pytest.mark.requirement("SRCH-11")
async def test_each_type_keeps_its_own_door(world: World) -> None:
    owner = await world.patient()
    made = await bring(owner)
    doctor = await world.professional()
    await world.consent(owner, doctor, types=["Observation"])
    path = f"?_type=Observation,DocumentReference&patient={owner.patient}"
    readings = [one for one in made[::-1] if one.startswith("Observation")]
    page = await ask(doctor, f"{path}&_total=accurate")
    assert (modes(page)["match"], page["total"]) == (readings, 3)
    narrow = await world.patient_actor(owner.patient, "patient/Observation.rs")
    refused = await narrow.get(path)
    assert (refused.status_code, issues(refused)[0]["code"]) == (403, "forbidden")
    assert "DocumentReference.s" in issues(refused)[0]["diagnostics"]
    stranger = await world.professional()
    assert modes(await ask(stranger, path))["match"] == []
    refused = await doctor.get("?_type=Observation,DocumentReference")
    assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (400, "required", "patient")


async def test_a_cursor_is_of_this_search_alone_and_carries_no_right(world: World) -> None:
    owner = await world.patient()
    await bring(owner)
    following = next_link(await ask(owner, f"?_type=Observation,Device&patient={owner.patient}&_count=2")) or ""
    cursor = following.partition("_cursor=")[2]
    for path in (f"Observation?_cursor={cursor}", f"?_type=Observation&_cursor={cursor}"):
        refused = await owner.get(path)
        assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (400, "invalid", "_cursor")
    narrow = await world.patient_actor(owner.patient, "patient/Observation.rs")
    assert (await narrow.get(following)).status_code == 403
    other = await world.patient()
    assert modes(await ask(other, following))["match"] == []


@pytest.mark.requirement("SRCH-10")
@pytest.mark.parametrize(
    ("query", "code", "name"),
    [
        ("", "required", "_type"),
        ("_id=x", "required", "_type"),
        ("_type=", "not-supported", "_type"),
        ("_type=Nothing", "not-supported", "_type"),
        ("_type=Observation,Nothing", "not-supported", "_type"),
        ("_type=Observation&_type=Device", "required", "_type"),
        ("_type=Observation,Device&code=x", "not-supported", "code"),
        ("_type=Observation,Device&_sort=date", "not-supported", "_sort"),
        ("_type=Observation,Device&_include=List:item", "not-supported", "_include"),
        ("_type=Observation,Device&foo=x", "not-supported", "foo"),
    ],
)
async def test_what_is_not_understood_is_refused_by_name(world: World, query: str, code: str, name: str) -> None:
    owner = await world.patient()
    refused = await owner.get(f"?{query}")
    assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (400, code, name)


async def test_what_one_type_does_not_have_is_left_out_for_the_lenient(world: World) -> None:
    owner = await world.patient()
    await bring(owner)
    page = await ask(
        owner, f"?_type=Observation,Device&patient={owner.patient}&code=nothing&_count=9", Prefer="handling=lenient"
    )
    assert len(modes(page)["match"]) == 6
    assert page["link"][0]["url"] == f"{BASE}?_type=Observation%2CDevice&patient={owner.patient}&_count=9"


async def test_too_many_types_are_refused(world: World) -> None:
    owner = await world.patient()
    kinds = world.gateway.registry.resource_types.values()
    names = [kind.name for kind in kinds if kind.in_compartment and "search-type" in kind.interactions]
    most = world.gateway.limits.system_types
    assert len(names) > most
    assert (await owner.get(f"?_type={','.join(names[:most])}")).status_code == 200
    refused = await owner.get(f"?_type={','.join(names[: most + 1])}")
    assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (400, "too-costly", "_type")


@pytest.mark.requirement("AUD-001")
async def test_it_leaves_one_event_in_each_record(world: World) -> None:
    owner = await world.patient()
    await bring(owner)
    doctor = await world.professional()
    await world.consent(owner, doctor)
    stranger = await world.professional()
    for actor, outcome in ((doctor, "0"), (owner, "0"), (stranger, "8")):
        request = unique("r")
        await ask(actor, f"?_type=Observation,Device&patient={owner.patient}", X_Request_Id=request)
        (event,) = await events(owner, request)
        assert (event["outcome"], event["action"], event["subtype"][0]["code"]) == (outcome, "E", "search-system")
        assert raw_request(event).startswith("GET /fhir/?_type=")
    await ask(stranger, f"Device?patient={owner.patient}", X_Request_Id=(request := unique("r")))
    (event,) = await events(owner, request)
    assert event["outcome"] == "8"


async def test_events_and_resources_come_in_one_order(world: World) -> None:
    owner = await world.patient()
    await bring(owner)
    pages: list[dict[str, Any]] = []
    url: str | None = "?_type=AuditEvent,Observation&_count=4"
    while url and len(pages) < 5:
        pages.append(await ask(owner, url))
        url = next_link(pages[-1])
    found = [one["resource"] for page in pages for one in page["entry"]]
    assert {one["resourceType"] for one in found} == {"AuditEvent", "Observation"}
    assert len({name_of(one) for one in found}) == len(found)
    moments = [one.get("recorded") or one["meta"]["lastUpdated"] for one in found]
    assert moments == sorted(moments, reverse=True)
