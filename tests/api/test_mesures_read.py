"""The partner face, reading: its two modes, pages by number, and codes old and new that are found by each other."""

from typing import Any

import pytest

from tests.api.test_mesures import (
    FACE,
    LEGACY,
    OID,
    PATIENTS,
    SMT,
    TWO_WEEKS,
    Phone,
    blood,
    mean,
    measure,
    pair,
    place,
    sent,
    statuses,
    told,
    weight,
)
from tests.world import LOINC, UCUM, Actor, World, concept, issues, observation, unique

PERIOD = "date=ge2026-11-01&date=le2026-11-30"


@pytest.fixture
async def camille(world: World) -> Actor:
    return await world.patient(birthDate="1980-02-01")


@pytest.fixture
async def phone(world: World, camille: Actor) -> Phone:
    return await pair(world, camille, "collect", "access")


def day(number: int) -> str:
    return f"2026-11-{number:02}T07:45:00+01:00"


def read(answer: Any) -> tuple[list[Any], dict[str, str], int]:
    """The resources, the links by relation and the total."""
    assert answer.status_code == 200, answer.text
    found = answer.json()
    links = {link["relation"]: link["url"] for link in found["link"]}
    return [entry["resource"] for entry in found.get("entry", ())], links, found["total"]


def values(resources: list[Any]) -> list[float]:
    return [one["valueQuantity"]["value"] for one in resources if one["resourceType"] == "Observation"]


@pytest.mark.requirement("MES-07")
async def test_all_of_a_period_page_by_page(phone: Phone) -> None:
    device = unique("CG")
    for number in range(1, 6):
        assert (
            statuses(await phone.push(sent(weight(phone, 70 + number, effectiveDateTime=day(number)), device)))[0][:3] == "201"
        )
    first, links, total = read(await phone.get(f"code=29463-7&{PERIOD}&_count=2&_include=Observation.device"))
    assert (values(first), total, links.keys()) == ([75, 74], 5, {"self", "next"})
    assert [one["resourceType"] for one in first] == ["Observation", "Observation", "Device"]
    assert first[0]["subject"] == phone.subject()
    assert first[0]["device"]["reference"] == f"Device/{first[2]['id']}"
    second, links, _ = read(await phone.actor.get(links["next"]))
    assert (values(second), links.keys()) == ([73, 72], {"self", "next", "previous"})
    third, links, total = read(await phone.actor.get(links["next"]))
    assert (values(third), links.keys(), total) == ([71], {"self", "previous"}, 5)
    assert read(await phone.actor.get(links["previous"]))[0] == second
    beyond, _, total = read(await phone.get(f"code=29463-7&{PERIOD}&_offset=9"))
    assert (beyond, total) == ([], 5)
    some, _, _ = read(await phone.get("code=29463-7&date=gt2026-11-01&date=lt2026-11-03"))
    assert values(some) == [72]
    assert values(read(await phone.get(f"code={LOINC}%7C29463-7&date=2026-11-04"))[0]) == [74]


@pytest.mark.requirement("MES-07")
async def test_the_last_one(phone: Phone) -> None:
    for number in (3, 9, 5):
        await phone.push(sent(weight(phone, 70 + number, effectiveDateTime=day(number)), "CG-2"))
    found, links, _ = read(await phone.get("code=29463-7&_sort=-date&_count=1&_include=Observation:device"))
    assert (values(found), [one["resourceType"] for one in found][1:]) == ([79], ["Device"])
    assert links.keys() == {"self"}
    nothing, _, total = read(await phone.get("code=8302-2&_sort=-date&_count=1"))
    assert (nothing, total) == ([], 0)


LAST = "Sort parameter must be equals to -date (date DESC) with _count equals to 1 to retrieve last observation"
BOTH = "Paged search and search last cannot be requested concurrently"


@pytest.mark.requirement("MES-07")
async def test_what_is_no_search_is_told_in_the_words_of_the_api(phone: Phone) -> None:
    for query, text in [
        (f"code=29463-7&{PERIOD}&_count=101", "Maximum page size allowed is 100. Actual : 101"),
        ("code=29463-7&_sort=date&_count=1", LAST),
        ("code=29463-7&_sort=-date", LAST),
        ("code=29463-7&_sort=-date&_count=2", LAST),
        (f"code=29463-7&_sort=-date&_count=1&{PERIOD}", BOTH),
        ("code=29463-7&_sort=-date&_count=1&_offset=0", BOTH),
        ("code=29463-7", "No search mode detected"),
        ("code=29463-7&_count=10", "No search mode detected"),
        ("code=29463-7&date=ge2026-11-01", "No search mode detected"),
        ("code=29463-7&date=ge2026-11-01&date=gt2026-11-02", "No search mode detected"),
    ]:
        assert told(await phone.get(query)) == (400, "invalid", text), query
    for query, where in [
        (PERIOD, "code"),
        (f"code=718-7&{PERIOD}", "code"),
        (f"code=29463-7&{PERIOD}&_offset=-1", "_offset"),
        (f"code=29463-7&{PERIOD}&_count=0", "_count"),
        (f"code=29463-7&{PERIOD}&_include=Observation:subject", "_include"),
        (f"code=29463-7&{PERIOD}&status=final", "status"),
        (f"code=29463-7&code=8302-2&{PERIOD}", "code"),
        ("code=29463-7&date=ge2026-13-01&date=le2026-11-30", "date"),
    ]:
        answer = await phone.get(query)
        assert (answer.status_code, issues(answer)[0]["expression"]) == (400, [where]), query
    for path in (f"?code=29463-7&{PERIOD}", f"?code=29463-7&{PERIOD}&subject.identifier=x"):
        assert told(await phone.actor.get(f"{FACE}/Observation{path}"))[0] == 400


@pytest.mark.requirement("MES-05", "MES-06")
async def test_reading_is_agreed_to_by_itself_and_of_one_patient(world: World, camille: Actor, phone: Phone) -> None:
    query = f"code=29463-7&{PERIOD}"
    refusal = (403, "forbidden", "Consent not given, access refused.")
    writer = await pair(world, camille, "collect")
    assert told(await writer.get(query)) == refusal
    reader = await pair(world, camille)
    given = await world.consent(camille, reader.actor, "access", ["Observation"])
    assert (await reader.get(query)).status_code == 200
    await world.revoke(camille, given)
    assert told(await reader.get(query)) == refusal
    narrow = await pair(world, camille, "access", scope="patient/Observation.c")
    assert told(await narrow.get(query)) == refusal
    for name in (f"{PATIENTS}%7Cother", f"1.2.3%7C{phone.idpe}", f"{OID}%7C{phone.idpe}"):
        answer = await phone.actor.get(f"{FACE}/Observation?subject.identifier={name}&{query}")
        assert told(answer) == (403, "forbidden", "idPe requested do not match authorized idPe.")
    assert (await world.http.get(f"{FACE}/Observation?{query}")).status_code == 401


@pytest.mark.requirement("MES-08")
async def test_old_and_new_codes_find_each_other_and_stay_as_they_were_sent(camille: Actor, phone: Phone) -> None:
    await phone.push(sent(mean(phone, concept(LEGACY, "MED-969"), 150, effectiveDateTime=day(1)), "CG-1"))
    await phone.push(sent(mean(phone, concept(LOINC, "99504-3"), 140, effectiveDateTime=day(2)), "CG-1"))
    index = measure(phone, concept(LEGACY, "MED-972"), 6.9, "%", extension=[TWO_WEEKS], meta={"profile": ["urn:x"]})
    await phone.push(sent({**index, "effectiveDateTime": day(3)}))
    await phone.push(sent({**index, "effectiveDateTime": day(4), "code": concept(SMT, "MED-972")}))
    old = "https://mos.esante.gouv.fr/NOS/TRE_A04-Loinc/FHIR/TRE-A04-Loinc"
    await phone.push(sent(blood(phone, 110, effectiveDateTime=day(5))))
    await phone.push(sent(blood(phone, 120, effectiveDateTime=day(6)) | {"code": concept(old, "2345-7")}))
    for codes, expected in [
        (("MED-969", f"{LEGACY}|MED-969", f"{LOINC}|99504-3", "99504-3"), [140, 150]),
        (("MED-972", f"{LEGACY}|MED-972", f"{SMT}|MED-972"), [6.9, 6.9]),
        (("2345-7", f"{LOINC}|2345-7", f"{old}|2345-7"), [120, 110]),
    ]:
        for code in codes:
            found, _, total = read(await phone.get(f"code={code.replace('|', '%7C')}&{PERIOD}"))
            assert (values(found), total) == (expected, 2), code
            on_fhir = await camille.search(f"Observation?patient={camille.patient}&code={code}&_sort=-date")
            assert values(on_fhir) == expected, code
    sent_codes = {one["code"]["coding"][0]["code"] for one in await camille.search(f"Observation?patient={camille.patient}")}
    assert sent_codes == {"MED-969", "99504-3", "MED-972", "2345-7"}


@pytest.mark.requirement("MES-12")
async def test_a_mean_and_a_reading_of_the_same_code_are_never_mixed(camille: Actor, phone: Phone) -> None:
    legacy = {"url": "http://esante.gouv.fr/ci-sis/fhir/StructureDefinition/ENS_NumberOfDays"}
    old_mean = mean(phone, concept(LOINC, "99504-3"), 200, extension=[{**TWO_WEEKS, **legacy}], effectiveDateTime=day(20))
    assert statuses(await phone.push(sent(old_mean))) == ["201 Created"]
    await phone.push(sent(mean(phone, concept(LEGACY, "MED-969"), 210, effectiveDateTime=day(20)), "CG-1"))
    for minute, value in ((0, 100), (5, 110)):
        await camille.create(
            observation(
                camille.patient,
                effectiveDateTime=f"2026-11-20T08:0{minute}:00+01:00",
                valueQuantity={"value": value, "unit": "mg/dL", "system": UCUM, "code": "mg/dL"},
            )
        )
    answer = await camille.get(f"Observation/$glucose-stats?patient={camille.patient}&start=2026-11-20&end=2026-11-21")
    (group,) = answer.json()["parameter"]
    summed = {part["name"]: part for part in group["part"]}
    assert (summed["count"]["valueInteger"], summed["mean"]["valueQuantity"]["value"]) == (2, 105)
    found, _, total = read(await phone.get(f"code=99504-3&{PERIOD}"))
    assert (sorted(values(found)), total) == ([200, 210], 2)
    last, _, _ = read(await phone.get("code=MED-969&_sort=-date&_count=1"))
    assert values(last)[0] in (200, 210)


@pytest.mark.requirement("MES-09")
async def test_the_body_mass_index_is_computed_when_it_is_read(camille: Actor, phone: Phone) -> None:
    assert read(await phone.get(f"code=39156-5&{PERIOD}"))[0] == []
    await phone.push(sent(weight(phone, 80, effectiveDateTime=day(1)), "CG-1"))
    assert read(await phone.get(f"code=39156-5&{PERIOD}"))[0] == []
    for number, height in ((2, 200), (8, 160)):
        body = measure(
            phone, concept(LOINC, "8302-2"), height, "cm", effectiveDateTime=day(number), meta={"profile": ["urn:x"]}
        )
        assert statuses(await phone.push(sent(body)))[0] == "201 Created"
    await phone.push(sent(weight(phone, 80, effectiveDateTime=day(5))))
    last = place(await phone.push(sent(weight(phone, 80, effectiveDateTime=day(9)))))
    found, _, total = read(await phone.get(f"code=39156-5&{PERIOD}&_include=Observation:device"))
    assert (values(found), total) == ([31.3, 20.0, 20.0], 3)  # with the height of their time; the first one, before any
    assert [one["resourceType"] for one in found][3:] == ["Device"]
    assert found[0]["derivedFrom"][0]["reference"] == last
    assert (found[0]["subject"], found[0]["code"]["coding"][0]["code"]) == (phone.subject(), "39156-5")
    newest, _, _ = read(await phone.get("code=39156-5&_sort=-date&_count=1"))
    assert values(newest) == [31.3]


async def test_what_was_read_stands_in_the_log_of_the_patient(camille: Actor, phone: Phone) -> None:
    await phone.push(sent(weight(phone), "CG-1"))
    await phone.get(f"code=29463-7&{PERIOD}")
    newest = (await camille.search("AuditEvent?_count=1"))[0]
    assert (newest["action"], newest["outcome"]) == ("E", "0")


async def test_labelled_and_denied_measures_are_not_there(world: World, camille: Actor, phone: Phone) -> None:
    kept = place(await phone.push(sent(weight(phone, 71, effectiveDateTime=day(1)))))
    await phone.push(sent(weight(phone, 72, effectiveDateTime=day(2))))
    assert (await camille.delete(kept)).status_code in (200, 204)
    found, _, total = read(await phone.get(f"code=29463-7&{PERIOD}"))
    assert (values(found), total) == ([72], 1)
    assert statuses(await phone.push(sent(weight(phone, 71, effectiveDateTime=day(1))))) == ["200 OK"]  # it stays deleted
    assert read(await phone.get(f"code=29463-7&{PERIOD}"))[2] == 1
