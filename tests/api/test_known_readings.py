"""What a Bundle brings that is stored already is answered before anything is planned, just as planning would answer it."""

import json
import random
from typing import Any

import pytest

from gateway.exchange import apart
from gateway.store import resources as store
from tests.world import BASE, Actor, World, bundle, device, entry, observation, unique

Resource = dict[str, Any]
RECEIPT = "urn:fhir-document-gateway:StructureDefinition/receipt"


@pytest.fixture
async def camille(world: World) -> Actor:
    return await world.patient()


async def an_app(world: World, owner: Actor, scope: str = "patient/*.cruds") -> Actor:
    phone = await world.app(owner, scope)
    await world.consent(owner, phone, "collect", ["Observation", "Device", "DiagnosticReport"])
    return phone


def submission(*entries: Resource) -> Resource:
    return bundle("transaction", *entries) | {"timestamp": "2026-11-25T12:00:00Z"}


def reading(owner: Actor, name: str | None, value: float = 104, url: str | None = None, **elements: Any) -> Resource:
    quantity = {"value": value, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}
    named = {"identifier": [{"system": "https://app.example/readings", "value": name}]} if name else {}
    return entry("POST", "Observation", observation(owner.patient, valueQuantity=quantity, **(named | elements)), url)


def told(answer: Any) -> list[tuple[str, str | None, str | None, str | None]]:
    """Of each entry status, receipt, version and refusal."""
    assert answer.status_code == 200, answer.text
    found = []
    for one in (e["response"] for e in answer.json().get("entry", ())):
        receipt = next((e["valueCode"] for e in one.get("extension", ()) if e["url"] == RECEIPT), None)
        issue = one.get("outcome", {}).get("issue", [{}])[0]
        version = one["location"].rpartition("/")[2] if "location" in one else None
        found.append((one["status"], receipt, version, issue.get("diagnostics")))
    return found


@pytest.fixture
def no_planning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("what is known was planned")

    monkeypatch.setattr(apart, "make_plan", refuse)


async def test_nothing_is_planned_of_what_is_known(
    world: World, camille: Actor, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    app = await an_app(world, camille)
    sensor = await app.create(device(camille.patient))
    named = [reading(camille, unique("r"), url=f"urn:uuid:{n}") for n in range(4)]
    bare = [
        reading(camille, None, device={"reference": f"Device/{sensor['id']}"}, effectiveDateTime=f"2026-11-20T0{n}:00:00Z")
        for n in range(4)
    ]
    elsewhere = reading(camille, unique("r"), url="https://phone.example/fhir/Observation/7")
    sent = submission(*named, *bare, named[0] | {"fullUrl": "urn:uuid:again"}, elsewhere)
    first = await app.post("$submit-cgm-bundle", sent)
    request.getfixturevalue("no_planning")
    before = await world.fingerprint()
    again = await app.post("$submit-cgm-bundle", sent)
    assert told(again) == [("200 OK", "known", "1", None)] * 10
    places = [[e["response"]["location"] for e in answer.json()["entry"]] for answer in (first, again)]
    assert places[0] == places[1]
    assert await world.fingerprint() == before
    events = [e for e in await camille.search("AuditEvent?_count=50") if "commit" not in json.dumps(e)]
    assert any(places[1][0].partition("/_history")[0] in json.dumps(e) for e in events)


async def test_its_own_address_names_the_same_patient(world: World, camille: Actor, request: pytest.FixtureRequest) -> None:
    app = await an_app(world, camille)
    one = reading(camille, unique("r"), subject={"reference": f"{BASE}/Patient/{camille.patient}"})
    one["request"]["url"] = f"{BASE}/Observation"
    await app.post("$submit-cgm-bundle", submission(one))
    request.getfixturevalue("no_planning")
    assert told(await app.post("$submit-cgm-bundle", submission(one)))[0][1] == "known"


async def test_who_may_no_longer_write_is_told_nothing(world: World, camille: Actor) -> None:
    source = unique("source")
    app = await world.app(camille, source=source)
    given = await world.consent(camille, app, "collect", ["Observation"])
    sent = submission(reading(camille, unique("r")))
    assert told(await app.post("$submit-cgm-bundle", sent))[0][1] == "created"
    await world.revoke(camille, given)
    status, receipt, version, why = told(await app.post("$submit-cgm-bundle", sent))[0]
    assert (status[:3], receipt, version) == ("403", None, None)
    assert "withdrawn" in (why or "")
    weaker = await world.actor("app", "patient/Device.c", None, app.reference, patient=camille.patient, source=source)
    assert told(await weaker.post("$submit-cgm-bundle", sent))[0][:2] == ("403 Forbidden", None)


async def test_another_senders_is_not_known(world: World, camille: Actor) -> None:
    one, other = [await an_app(world, camille) for _ in range(2)]
    sent = submission(reading(camille, unique("r")))
    assert [told(await app.post("$submit-cgm-bundle", sent))[0][1] for app in (one, other)] == ["created", "created"]


async def test_what_refers_to_what_is_known_finds_it(world: World, camille: Actor) -> None:
    app = await an_app(world, camille, "patient/*.c")
    url = "urn:uuid:6c1c5d8e-0000-4000-8000-00000000000a"
    known = reading(camille, unique("r"), url=url)
    await app.post("$submit-cgm-bundle", submission(known))
    new = reading(camille, unique("r"), derivedFrom=[{"reference": url}])
    answer = await app.post("$submit-cgm-bundle", submission(known, new))
    assert [one[1] for one in told(answer)] == ["known", "created"]
    places = [e["response"]["location"].partition("/_history")[0] for e in answer.json()["entry"]]
    assert (await camille.get(places[1])).json()["derivedFrom"] == [{"reference": places[0]}]


async def test_an_id_that_another_entry_links_by_leaves_all_to_planning(world: World, camille: Actor) -> None:
    app = await an_app(world, camille)
    known = reading(camille, unique("r"))
    known["resource"]["id"] = "mine"
    await app.post("$submit-cgm-bundle", submission(known))
    new = reading(camille, unique("r"), derivedFrom=[{"reference": "Observation/mine"}])
    assert [one[1] for one in told(await app.post("$submit-cgm-bundle", submission(known, new)))] == ["known", "created"]


@pytest.mark.parametrize("seed", range(12))
async def test_every_entry_is_answered_as_planning_answers_it(world: World, seed: int) -> None:
    """Two people with the same past send the same: what has a key is planned entry by entry, the other is not."""
    dice = random.Random(seed)
    twins = [await world.patient() for _ in range(2)]
    apps = [await an_app(world, owner) for owner in twins]
    names = [f"r{n}" for n in range(6)]
    past = submission_of(twins, names, 100)
    corrected = submission_of(twins, names[1:3], 90)
    for owner, app, one, two in zip(twins, apps, past, corrected, strict=True):
        created = (await app.post("$submit-cgm-bundle", one)).json()["entry"]
        await app.post("$submit-cgm-bundle", two)
        await app.delete(created[3]["response"]["location"].partition("/_history")[0])
        assert len(await world.stored("Observation", patient=owner.patient)) == len(names)
    for _ in range(3):
        drawn = [draw(dice, names) for _ in range(dice.randint(1, 6))]
        sent = [submission(*(make(owner) for make in drawn)) for owner in twins]
        answers = [
            await apps[0].post("$submit-cgm-bundle", sent[0]),
            await apps[1].post("$submit-cgm-bundle", sent[1], Idempotency_Key=unique("k")),
        ]
        assert told(answers[0]) == told(answers[1])
    states = [await world.stored("Observation", patient=owner.patient) for owner in twins]
    counts = [sorted((one["version"], bool(one.get("deleted"))) for one in state) for state in states]
    assert counts[0] == counts[1]


async def test_what_another_request_corrected_meanwhile_is_answered_as_it_is(
    world: World, camille: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was lost, the request is still under way, and the app sends it again: both are told one version."""
    app = await an_app(world, camille)
    name = unique("r")
    await app.post("$submit-cgm-bundle", submission(reading(camille, name, 104)))
    corrected = submission(reading(camille, name, 98))
    original, first = store.find_for_change, list[Any]()

    async def find_for_change(*given: Any) -> Any:
        if not first:
            first.append(None)
            first.append(await app.post("$submit-cgm-bundle", corrected))
        return await original(*given)

    monkeypatch.setattr(store, "find_for_change", find_for_change)
    again = await app.post("$submit-cgm-bundle", corrected)
    assert [told(one)[0][1:3] for one in (first[1], again)] == [("corrected", "2"), ("known", "2")]
    there = again.json()["entry"][0]["response"]
    assert there["lastModified"] == first[1].json()["entry"][0]["response"]["lastModified"]
    assert (await camille.get(there["location"])).json()["valueQuantity"]["value"] == 98


def submission_of(owners: list[Actor], names: list[str], value: float) -> list[Resource]:
    return [submission(*(reading(owner, name, value) for name in names)) for owner in owners]


def draw(dice: random.Random, names: list[str]) -> Any:
    """One entry, for whoever it will be of: known as it is, in other bytes, corrected, wrong, or new."""
    name, value = dice.choice(names), dice.choice([100, 100, 100, 90, 80])
    new, url = unique("n"), f"urn:uuid:{dice.randrange(10**9)}"
    what = dice.randrange(9)
    wrong = dice.choice([{"status": "perhaps"}, {"subject": {"reference": "Patient/000-nobody"}}, {"code": None}])

    def make(owner: Actor) -> Resource:
        match what:
            case 0:
                found = reading(owner, new, value)
            case 1:
                found = reading(owner, name, value, **wrong)
                found["resource"] = {k: v for k, v in found["resource"].items() if v is not None}
            case 2:
                found = reading(owner, name, value)
                found["resource"] = dict(reversed(found["resource"].items()))  # the same content in other bytes
            case 3:
                found = reading(owner, name, value)
                found["request"]["ifNoneExist"] = f"identifier=https://app.example/readings|{name}"
            case 4:
                found = reading(owner, name, value, method={"text": 'with "quotes"'})
            case 5:
                found = reading(owner, name, value)
                found["request"]["method"] = "PUT"
            case _:
                found = reading(owner, name, value)
        return found | {"fullUrl": url} if what % 2 else found

    return make
