"""Patient/$everything gives all of a record that the caller may see, page after page, each type through its own door."""

from collections import Counter
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest

from tests.examples import bring
from tests.world import Actor, World, document, expression, label, observation

OF_RECORDS = ["Observation", "DocumentReference", "List", "DiagnosticReport", "MedicationStatement", "ServiceRequest", "Device"]


async def pages_of(actor: Actor, path: str) -> list[dict[str, Any]]:
    """All pages of an answer."""
    pages: list[dict[str, Any]] = []
    following: str | None = path
    while following is not None:
        answer = await actor.get(following)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json())
        following = next((link["url"] for link in pages[-1]["link"] if link["relation"] == "next"), None)
    return pages


def types_of(pages: list[dict[str, Any]]) -> list[str]:
    return [entry["resource"]["resourceType"] for page in pages for entry in page.get("entry", ())]


def ids_of(pages: list[dict[str, Any]]) -> list[str]:
    return [entry["resource"]["id"] for page in pages for entry in page.get("entry", ())]


@pytest.fixture
async def camille(world: World) -> Actor:
    owner = await world.patient()
    for name in OF_RECORDS:
        await bring(world, name, owner)
    for _ in range(3):
        await owner.create(observation(owner.patient, effectiveDateTime="2020-05-05T08:00:00Z"))
    return owner


@pytest.mark.requirement("SRCH-02")
@pytest.mark.parametrize("size", [1, 2, 4, 200])
async def test_all_of_a_record_comes_once_the_patient_first(world: World, camille: Actor, size: int) -> None:
    for path in (f"Patient/{camille.patient}/$everything", "Patient/$everything"):
        pages = await pages_of(camille, f"{path}?_count={size}")
        found = ids_of(pages)
        assert len(found) == len(set(found))
        assert types_of(pages)[0] == "Patient"
        assert {*types_of(pages)} >= {"Patient", *OF_RECORDS}
        assert all(len(page["entry"]) == size for page in pages[:-1])
        assert [page.get("total") for page in pages] == ([len(found)] if len(pages) == 1 else [None] * len(pages))
    for name in OF_RECORDS:
        stored = await world.stored(name, patient=camille.patient)
        assert {one["_id"] for one in stored} <= set(found)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("_type=Patient", {"Patient": 1}),
        ("_type=DocumentReference,List", {"DocumentReference": 1, "List": 1}),
        ("_type=DocumentReference&_type=List", {"DocumentReference": 1, "List": 1}),
        ("_type=Observation&start=2020-01-01&end=2020-12-31", {"Observation": 3}),
        ("_type=Observation&end=2020", {"Observation": 3}),
        ("_type=Observation&start=2099", {}),
        ("_type=Patient,Observation&start=2099", {"Patient": 1}),
        ("_type=Observation&_since=2099-01-01T00:00:00Z", {}),
    ],
)
async def test_types_and_times(camille: Actor, query: str, expected: dict[str, int]) -> None:
    pages = await pages_of(camille, f"Patient/{camille.patient}/$everything?_count=2&{query}")
    assert Counter(types_of(pages)) == expected


async def test_since_gives_what_has_changed(camille: Actor) -> None:
    (first,) = await pages_of(camille, "Patient/$everything?_count=200")
    last = max(datetime.fromisoformat(entry["resource"]["meta"]["lastUpdated"]) for entry in first["entry"])
    made = await camille.create(observation(camille.patient))
    since = quote(last.isoformat(timespec="milliseconds"))
    found = ids_of(await pages_of(camille, f"Patient/$everything?_since={since}"))
    assert made["id"] in found
    assert len(found) == 2  # what has that very time is there too


@pytest.mark.requirement("SRCH-11")
async def test_each_type_has_its_door(world: World, camille: Actor) -> None:
    doctor, stranger = await world.professional(), await world.professional()
    sealed = await camille.create(document(camille.patient, securityLabel=[{"coding": [label("R")]}]))
    path = f"Patient/{camille.patient}/$everything?_count=200"
    assert types_of(await pages_of(doctor, path)) == []
    await world.consent(camille, doctor, types=["Observation"])
    assert {*types_of(await pages_of(doctor, path))} == {"Observation"}
    given = await world.consent(camille, doctor, types=["DocumentReference"])
    assert sealed["id"] in ids_of(await pages_of(doctor, path))
    await world.revoke(camille, given)
    assert {*types_of(await pages_of(doctor, path))} == {"Observation"}
    hidden, missing = [
        (await stranger.get(f"Patient/{one}/$everything")).json() for one in (camille.patient, f"{camille.patient[:3]}-none")
    ]
    assert [page.pop("link")[0]["relation"] for page in (hidden, missing)] == ["self", "self"]
    assert hidden == missing
    calls = [
        await world.calls_of(lambda one=one: stranger.get(f"Patient/{one}/$everything"))
        for one in (camille.patient, f"{camille.patient[:3]}-none")
    ]
    assert calls[0] == calls[1]


async def test_scopes_narrow_it_and_a_cursor_gives_no_right(world: World, camille: Actor) -> None:
    narrow = await world.patient_actor(camille.patient, "patient/Patient.rs patient/Observation.rs")
    assert {*types_of(await pages_of(narrow, "Patient/$everything"))} == {"Patient", "Observation"}
    answer = await narrow.get("Patient/$everything?_type=DocumentReference")
    assert answer.status_code == 403
    (first, *_) = await pages_of(camille, f"Patient/{camille.patient}/$everything?_count=2")
    (following,) = (link["url"] for link in first["link"] if link["relation"] == "next")
    stranger = await world.professional()
    assert ids_of(await pages_of(stranger, following)) == []
    assert "total" not in (await stranger.get(following)).json()


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("_type=Organization", "_type"),
        ("_type=AuditEvent", "_type"),
        ("_type=Binary", "_type"),
        ("_count=0", "_count"),
        ("_count=many", "_count"),
        ("start=soon", "start"),
        ("_since=yesterday", "_since"),
        ("_cursor=x", "_cursor"),
        ("_cursor=x&_count=2", "_cursor"),
        ("_offset=2", "_offset"),
    ],
)
async def test_what_is_wrong_is_named(camille: Actor, query: str, where: str) -> None:
    answer = await camille.get(f"Patient/$everything?{query}")
    assert (answer.status_code, expression(answer)) == (400, where)


async def test_whoever_is_bound_to_nobody_says_whose(world: World) -> None:
    doctor = await world.professional()
    answer = await doctor.get("Patient/$everything")
    assert (answer.status_code, expression(answer)) == (400, "Patient")
