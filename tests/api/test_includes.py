"""`_include` and `_revinclude`: what comes with the matches comes once, through its own door, or is not there at all."""

from typing import Any

import pytest

from gateway.fhir.include import followed
from tests.api.test_audit import events
from tests.api.test_paging import next_link, push
from tests.examples import TYPES, bring
from tests.security.scene import plant
from tests.world import (
    BASE,
    Actor,
    World,
    consent,
    device,
    document,
    expression,
    issues,
    label,
    observation,
    practitioner,
    unique,
)

DEVICES = "patient/Observation.cruds patient/Device.cruds"


async def ask(actor: Actor, path: str, **headers: str) -> dict[str, Any]:
    answer = await actor.get(path, **headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def modes(page: dict[str, Any]) -> dict[str, list[str]]:
    """What is on a page: `Type/id`, by its search mode."""
    found: dict[str, list[str]] = {"match": [], "include": []}
    for one in page.get("entry", ()):
        assert one["fullUrl"] == f"{BASE}/{one['resource']['resourceType']}/{one['resource']['id']}"
        found[one["search"]["mode"]].append(one["fullUrl"].removeprefix(f"{BASE}/"))
    return found


def name_of(resource: dict[str, Any]) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def to(resource: dict[str, Any]) -> dict[str, str]:
    return {"reference": name_of(resource)}


async def read_with(owner: Actor, meter: dict[str, Any], count: int, **elements: Any) -> list[str]:
    return [name_of(await owner.create(observation(owner.patient, device=to(meter), **elements))) for _ in range(count)]


@pytest.mark.requirement("SRCH-08")
@pytest.mark.parametrize("value", ["Observation:device", "Observation:device:Device", "Observation.device"])
async def test_two_readings_of_one_device_bring_it_once(world: World, value: str) -> None:
    owner = await world.patient()
    meter = await owner.create(device(owner.patient))
    readings = await read_with(owner, meter, 2)
    page = await ask(owner, f"Observation?patient={owner.patient}&_include={value}")
    found = modes(page)
    assert (sorted(found["match"]), found["include"]) == (sorted(readings), [name_of(meter)])
    assert page["total"] == 2
    assert page["entry"][-1]["resource"] == meter
    assert {"relation": "self", "url": page["link"][0]["url"]} == page["link"][0]
    assert "_include=" in page["link"][0]["url"]


@pytest.mark.requirement("SRCH-08", "SRCH-02")
async def test_each_page_has_its_own_and_the_next_link_keeps_them(world: World) -> None:
    owner = await world.patient()
    meters = [await owner.create(device(owner.patient)) for _ in range(2)]
    for n, day in enumerate(("21", "20", "19")):
        await read_with(owner, meters[n > 1], 1, effectiveDateTime=f"2026-11-{day}T08:00:00Z")
    url: str | None = f"Observation?patient={owner.patient}&_sort=-date&_count=1&_total=accurate&_include=Observation:device"
    included: list[list[str]] = []
    while url:
        page = await ask(owner, url)
        assert page["total"] == 3
        included.append(modes(page)["include"])
        url = next_link(page)
    assert included == [[name_of(meters[0])], [name_of(meters[0])], [name_of(meters[1])]]


async def test_what_matches_is_not_included_as_well(world: World) -> None:
    owner = await world.patient()
    part = await owner.create(observation(owner.patient))
    whole = await owner.create(observation(owner.patient, hasMember=[to(part)]))
    every = f"Observation?patient={owner.patient}&_include=Observation:has-member&_revinclude=Observation:has-member"
    assert modes(await ask(owner, every))["include"] == []
    one = modes(await ask(owner, f"Observation?_id={whole['id']}&_include=Observation:has-member"))
    assert one == {"match": [name_of(whole)], "include": [name_of(part)]}
    back = modes(await ask(owner, f"Observation?_id={part['id']}&_revinclude=Observation:has-member"))
    assert back == {"match": [name_of(part)], "include": [name_of(whole)]}


async def test_everything_referred_to_comes_by_a_star_and_nothing_from_elsewhere_does(world: World) -> None:
    owner = await world.patient()
    doctor = await world.operator.create(practitioner())
    meter = await owner.create(device(owner.patient))
    performers = [to(doctor), {"reference": "https://other.example/fhir/Practitioner/1"}, {"identifier": {"value": "1"}}]
    held = {"resourceType": "Practitioner", "id": "p"}
    reading = observation(owner.patient, device=to(meter), performer=[*performers, {"reference": "#p"}], contained=[held])
    made = await owner.create(reading)
    expected = sorted([name_of(doctor), name_of(meter), f"Patient/{owner.patient}"])
    for star in ("*", "Observation:*"):
        found = modes(await ask(owner, f"Observation?_id={made['id']}&_include={star}"))
        assert sorted(found["include"]) == expected
    narrow = modes(await ask(owner, f"Observation?_id={made['id']}&_include=Observation:performer:Organization"))
    assert narrow["include"] == []


async def test_what_comes_leads_further_only_by_iterate(world: World) -> None:
    owner = await world.patient()
    doctor = await world.operator.create(practitioner())
    role = await world.operator.create({"resourceType": "PractitionerRole", "practitioner": to(doctor)})
    made = await owner.create(document(owner.patient, author=[to(role)]))
    base = f"DocumentReference?_id={made['id']}&_include=DocumentReference:author"
    further = "PractitionerRole:practitioner"
    assert modes(await ask(owner, base))["include"] == [name_of(role)]
    assert modes(await ask(owner, f"{base}&_include:iterate={further}"))["include"] == [name_of(role), name_of(doctor)]
    refused = await owner.get(f"{base}&_include={further}")
    assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (400, "not-supported", "_include")


async def test_a_chain_is_followed_as_far_as_the_limit_and_a_circle_ends(world: World) -> None:
    owner = await world.patient()
    link = await owner.create(observation(owner.patient))
    links = [link]
    for _ in range(4):
        links.append(await owner.create(observation(owner.patient, hasMember=[to(links[-1])])))
    circle = await owner.put(f"Observation/{link['id']}", {**link, "hasMember": [to(links[1])]})
    assert circle.status_code == 200
    steps = f"_include:iterate=Observation:has-member&_id={links[-1]['id']}"
    found = modes(await ask(owner, f"Observation?{steps}"))
    assert found["include"] == [name_of(one) for one in links[-2:0:-1]]
    assert len(found["include"]) == world.gateway.limits.include_rounds
    two = modes(await ask(owner, f"Observation?_id={link['id']}&_include:iterate=Observation:has-member"))
    assert two["include"] == [name_of(links[1])]


@pytest.mark.requirement("ATK-T04", "SRCH-11")
async def test_a_target_that_may_not_be_seen_is_not_there(world: World) -> None:
    owner = await world.patient()
    doctor = await world.professional()
    await world.consent(owner, doctor, types=["Observation"])
    meter = await owner.create(device(owner.patient))
    (reading,) = await read_with(owner, meter, 1)
    path = f"Observation?patient={owner.patient}&_include=*&_revinclude:iterate=Observation:device"
    assert modes(await ask(doctor, path)) == {"match": [reading], "include": []}
    narrow = await world.patient_actor(owner.patient, "patient/Observation.rs")
    assert modes(await ask(narrow, path))["include"] == []
    finds_only = await world.patient_actor(owner.patient, "patient/Observation.rs patient/Device.s")
    assert modes(await ask(finds_only, path))["include"] == []
    assert sorted(modes(await ask(owner, path))["include"]) == sorted([f"Patient/{owner.patient}", name_of(meter)])


@pytest.mark.requirement("ATK-T04")
async def test_nobody_comes_to_another_record_over_what_both_refer_to(world: World) -> None:
    doctor = await world.professional()
    mine, other = await world.patient(), await world.patient()
    own = await mine.create(observation(mine.patient, performer=[{"reference": doctor.reference}]))
    await other.create(observation(other.patient, performer=[{"reference": doctor.reference}]))
    identifier = doctor.reference.partition("/")[2]
    back = await ask(mine, f"Practitioner?_id={identifier}&_revinclude=Observation:performer&_revinclude=Observation:*")
    assert modes(back)["include"] == [name_of(own)]
    path = f"Observation?_id={own['id']}&_include=Observation:performer&_revinclude:iterate=Observation:performer"
    assert modes(await ask(mine, path))["include"] == [doctor.reference]
    assert modes(await ask(doctor, f"Practitioner?_id={identifier}&_revinclude=Observation:*"))["include"] == []


@pytest.mark.requirement("ATK-T04")
async def test_a_hidden_target_costs_as_many_calls_as_one_that_was_deleted(world: World) -> None:
    owner = await world.patient()
    readings: list[str] = []
    for code in ("R", "N"):
        part = await owner.create(observation(owner.patient, meta={"security": [label(code)]}))
        whole = await owner.create(observation(owner.patient, hasMember=[to(part)]))
        readings.append(whole["id"])
        if code == "N":
            assert (await owner.delete(name_of(part))).status_code == 204
    doctor = await world.professional()
    await world.consent(owner, doctor)
    await owner.create(consent(owner, doctor, type="deny", securityLabel=[label("R")]))

    pages: list[dict[str, Any]] = []

    async def cost(identifier: str) -> int:
        path = f"Observation?patient={owner.patient}&_id={identifier}&_include=Observation:has-member"

        async def read() -> None:
            pages.append(await ask(doctor, path))

        return await world.calls_of(read)

    hidden, deleted = [await cost(identifier) for identifier in readings]
    assert hidden == deleted
    assert {(len(modes(page)["match"]), len(modes(page)["include"])) for page in pages} == {(1, 0)}


async def test_calls_do_not_grow_with_what_is_included(world: World) -> None:
    owner = await world.patient()

    async def calls(count: int) -> int:
        for _ in range(count):
            await read_with(owner, await owner.create(device(owner.patient)), 1)

        async def read() -> None:
            page = await ask(owner, f"Observation?patient={owner.patient}&_count=100&_include=Observation:device")
            assert len(modes(page)["include"]) == len(modes(page)["match"]) >= count

        return await world.calls_of(read)

    assert await calls(1) == await calls(8)


async def test_too_much_is_refused_by_name(world: World) -> None:
    owner = await world.patient()
    part = await owner.create(observation(owner.patient))
    most = world.gateway.limits.included
    pushed = await push(owner, most, hasMember=[to(part)])
    back = f"Observation?_id={part['id']}&_revinclude=Observation:has-member"
    assert len(modes(await ask(owner, back))["include"]) == most
    pushed += await push(owner, 1, hasMember=[to(part)])
    items = [{"item": {"reference": f"Observation/{one}"}} for one in pushed]
    subject = {"reference": f"Patient/{owner.patient}"}
    held = await owner.create(
        {"resourceType": "List", "status": "current", "mode": "working", "subject": subject, "entry": items}
    )
    five = "&".join(f"_include=Observation:{name}" for name in ("device", "performer", "focus", "subject", "patient"))
    assert (await owner.get(f"Observation?{five}")).status_code == 200
    for path in (back, f"List?_id={held['id']}&_include=List:item", f"Observation?{five}&_include=Observation:part-of"):
        refused = await owner.get(path)
        name = "_revinclude" if path == back else "_include"
        assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (400, "too-costly", name), path


@pytest.mark.requirement("SRCH-10")
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("_include=", "invalid"),
        ("_include=Observation", "invalid"),
        ("_include=Observation:", "invalid"),
        ("_include=Observation:device:", "invalid"),
        ("_include=Observation:device:Device:x", "invalid"),
        ("_include=:device", "invalid"),
        ("_include=Observation:$where", "invalid"),
        ("_include=Nothing:device", "not-supported"),
        ("_include=Observation:code", "not-supported"),
        ("_include=Observation:nothing", "not-supported"),
        ("_include=Observation:specimen", "not-supported"),
        ("_include=Observation:device:Patient", "not-supported"),
        ("_include=Device:patient", "not-supported"),
        ("_revinclude=*", "invalid"),
        ("_include:iterate=*", "invalid"),
        ("_revinclude=DocumentReference:custodian", "not-supported"),
        ("_revinclude=Observation:device", "not-supported"),
        ("_include:recurse=Observation:device", "not-supported"),
    ],
)
async def test_what_is_not_understood_is_refused_by_name(world: World, query: str, code: str) -> None:
    owner = await world.patient()
    answer = await owner.get(f"Observation?patient={owner.patient}&{query}")
    assert answer.status_code == 400
    assert (issues(answer)[0]["code"], expression(answer)) == (code, query.partition("=")[0].removesuffix(":recurse"))
    lenient = await owner.get(f"Observation?patient={owner.patient}&{query}", Prefer="handling=lenient")
    assert lenient.status_code == (200 if code == "not-supported" else 400)
    if code == "not-supported":
        assert "include" not in lenient.json()["link"][0]["url"]


@pytest.mark.parametrize("type_name", TYPES)
async def test_each_example_brings_what_it_refers_to_and_comes_with_it(world: World, type_name: str) -> None:
    registry, owner = world.gateway.registry, await world.patient()
    kind = registry[type_name]
    if "create" not in kind.interactions:
        pytest.skip("only the gateway writes it")
    stored = await bring(world, type_name, owner)
    reader = await world.patient_actor(stored["id"]) if kind.is_patient else owner
    (lying,) = await world.stored(type_name, _id=stored["id"])
    for name, parameter in followed(registry, kind).items():
        for reference in lying["search"].get(name, ()) if parameter.field is None else [f"Patient/{owner.patient}"]:
            target_type, _, identifier = reference.partition("/")
            if registry.find(target_type):
                path = f"{type_name}?_id={stored['id']}&_include={type_name}:{name}:{target_type}"
                assert modes(await ask(reader, path))["include"] == [reference], name
                back = await ask(reader, f"{target_type}?_id={identifier}&_revinclude={type_name}:{name}")
                assert name_of(stored) in modes(back)["include"], name


@pytest.mark.requirement("AUD-001")
async def test_the_record_of_what_was_included_learns_of_it(world: World) -> None:
    owner = await world.patient()
    doctor = await world.professional()
    await owner.create(observation(owner.patient, performer=[{"reference": doctor.reference}]))
    request = unique("r")
    identifier = doctor.reference.partition("/")[2]
    page = await ask(owner, f"Practitioner?_id={identifier}&_revinclude=Observation:performer", X_Request_Id=request)
    assert len(modes(page)["include"]) == 1
    (event,) = await events(owner, request)
    assert event["outcome"] == "0"
    assert event["subtype"][0]["code"] == "search-type"


async def test_no_matches_bring_nothing_and_a_count_brings_nothing(world: World) -> None:
    owner = await world.patient()
    meter = await owner.create(device(owner.patient))
    await read_with(owner, meter, 1)
    for more in ("_summary=count", "_count=0"):
        page = await ask(owner, f"Observation?patient={owner.patient}&_include=Observation:device&{more}")
        assert (page["total"], page.get("entry", [])) == (1, [])
    page = await ask(owner, "Observation?code=x&_include=Observation:device")
    assert (page["total"], page.get("entry", [])) == (0, [])


async def test_a_part_is_cut_out_of_the_matches_alone_and_no_texts_are_mixed_with_includes(world: World) -> None:
    owner = await world.patient()
    meter = await owner.create(device(owner.patient))
    await read_with(owner, meter, 1)
    path = f"Observation?patient={owner.patient}&_include=Observation:device"
    reading, included = (one["resource"] for one in (await ask(owner, f"{path}&_elements=status"))["entry"])
    assert "device" not in reading
    assert included == meter
    refused = await owner.get(f"{path}&_summary=text")
    assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (400, "invalid", "_summary")


async def test_a_search_in_a_bundle_brings_them_too(world: World) -> None:
    owner = await world.patient()
    meter = await owner.create(device(owner.patient))
    (reading,) = await read_with(owner, meter, 1)
    url = f"Observation?patient={owner.patient}&_include=Observation:device"
    for kind in ("batch", "transaction"):
        asked = {"resourceType": "Bundle", "type": kind, "entry": [{"request": {"method": "GET", "url": url}}]}
        answer = await owner.post("", asked)
        assert modes(answer.json()["entry"][0]["resource"]) == {"match": [reading], "include": [name_of(meter)]}


async def test_a_provenance_comes_with_whatever_it_is_of(world: World) -> None:
    owner = await world.patient()
    made, other = [await owner.create(observation(owner.patient)) for _ in range(2)]
    resource = {
        "resourceType": "Provenance",
        "target": [{"reference": f"Patient/{owner.patient}"}, to(made)],
        "recorded": "2026-11-20T08:00:00Z",
        "agent": [{"who": {"display": "the gateway"}}],
    }
    identifier = await plant(world, world.gateway.registry["Provenance"], owner.patient, resource)
    for one, expected in ((made, [f"Provenance/{identifier}"]), (other, [])):
        page = await ask(owner, f"Observation?_id={one['id']}&_revinclude=Provenance:target")
        assert modes(page)["include"] == expected
    assert [one["id"] for one in await owner.search(f"Provenance?target={name_of(made)}")] == [identifier]
    assert [one["id"] for one in await owner.search(f"Provenance?patient={owner.patient}")] == [identifier]
