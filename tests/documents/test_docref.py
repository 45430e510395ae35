"""DocumentReference/$docref finds a patient's current documents by time of care and type, under the door of every search."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.world import Actor, World, concept, document, expression, label

LETTER, REPORT = "http://loinc.org|11488-4", "http://loinc.org|11502-2"


@pytest.fixture
async def camille(world: World) -> Actor:
    owner = await world.patient()
    for code, month in (("11488-4", "09"), ("11502-2", "10")):
        period = {"start": f"2026-{month}-01T08:00:00Z", "end": f"2026-{month}-02T08:00:00Z"}
        await owner.create(document(owner.patient, type=concept("http://loinc.org", code), context={"period": period}))
    await owner.create(document(owner.patient, status="superseded"))
    return owner


async def months(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    assert (answer.json()["resourceType"], answer.json()["type"]) == ("Bundle", "searchset")
    found = [entry["resource"] for entry in answer.json().get("entry", ())]
    return sorted(one["context"]["period"]["start"][5:7] for one in found)


ASKED: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["09", "10"]),
    ({"start": "2026-09-15"}, ["10"]),
    ({"end": "2026-09-15T00:00:00Z"}, ["09"]),
    ({"start": "2026-08-01T00:00:00+02:00", "end": "2026-11-01T00:00:00+01:00"}, ["09", "10"]),
    ({"type": LETTER}, ["09"]),
    ({"type": f"{LETTER},{REPORT}"}, ["09", "10"]),
    ({"type": "http://loinc.org|1-8"}, []),
    ({"on-demand": "false"}, ["09", "10"]),
    ({"on-demand": "true"}, []),
]


@pytest.mark.requirement("SRCH-11")
@pytest.mark.parametrize(("given", "expected"), ASKED)
async def test_documents_by_time_of_care_and_type(camille: Actor, given: dict[str, Any], expected: list[str]) -> None:
    query = "".join(f"&{name}={quote(value)}" for name, value in given.items())
    assert await months(await camille.get(f"DocumentReference/$docref?patient={camille.patient}{query}")) == expected
    parameters: list[dict[str, Any]] = [{"name": "patient", "valueId": camille.patient}]
    for name, value in given.items():
        for one in value.split(","):
            system, _, code = one.partition("|")
            said = {
                "type": {"valueCoding": {"system": system, "code": code}},
                "on-demand": {"valueBoolean": value == "true"},
            }.get(name, {"valueDateTime": value})
            parameters.append({"name": name, **said})
    body = {"resourceType": "Parameters", "parameter": parameters}
    assert await months(await camille.post("DocumentReference/$docref", body)) == expected


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("", "patient"),
        ("patient=x&start=then", "start"),
        ("patient=x&end=2026-13-01", "end"),
        ("patient=x&on-demand=maybe", "on-demand"),
        ("patient=x&profile=urn:x", "profile"),
        ("patient=x&colour=red", "colour"),
        ("patient=x&patient=y", "patient"),
    ],
)
async def test_what_is_wrong_is_named(camille: Actor, query: str, where: str) -> None:
    answer = await camille.get(f"DocumentReference/$docref?{query}")
    assert (answer.status_code, expression(answer)) == (400, where)


@pytest.mark.requirement("SRCH-11")
async def test_hidden_and_absent_are_alike(world: World, camille: Actor) -> None:
    doctor = await world.professional()
    pages = [(await doctor.get(f"DocumentReference/$docref?patient={one}")).json() for one in (camille.patient, "nobody")]
    for page in pages:
        assert page.pop("link")[0]["relation"] == "self"
        assert "entry" not in page
        page.pop("meta")
    assert pages[0] == pages[1]
    given = await world.consent(camille, doctor)
    await camille.create(
        document(camille.patient, securityLabel=[{"coding": [label("R")]}], context={"period": {"start": "2026"}})
    )
    assert len(await months(await doctor.get(f"DocumentReference/$docref?patient={camille.patient}"))) == 3
    await world.revoke(camille, given)
    assert await months(await doctor.get(f"DocumentReference/$docref?patient={camille.patient}")) == []


async def test_its_pages_are_those_of_a_search(camille: Actor) -> None:
    page = (await camille.get(f"DocumentReference/$docref?patient={camille.patient}&_count=1")).json()
    (following,) = (link["url"] for link in page["link"] if link["relation"] == "next")
    rest = (await camille.get(following)).json()
    assert len(page["entry"]) == len(rest["entry"]) == 1
    assert page["entry"] != rest["entry"]
    assert [link["relation"] for link in rest["link"]] == ["self"]
