"""Conditional update, patch and delete: none, one or several matches, exact however many ask at the same time."""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.world import Actor, World, bundle, concept, consent, device, entry, expression, issues, observation, patient, unique

JSON_PATCH = "application/json-patch+json"
METHODS = ["PUT", "PATCH", "DELETE"]


@pytest.fixture
async def camille(world: World) -> Actor:
    return await world.patient()


def coded(owner: str, code: str, **elements: Any) -> dict[str, Any]:
    """A reading without a business identifier."""
    found = observation(owner, code=concept("urn:codes", code), **elements)
    del found["identifier"]
    return found


def amending() -> bytes:
    return b'[{"op":"replace","path":"/status","value":"amended"}]'


async def ask(actor: Actor, method: str, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    """A conditional PUT of this body, or a PATCH or DELETE of what it would have replaced."""
    if method == "PATCH":
        return await actor.send("PATCH", path, amending(), Content_Type=JSON_PATCH, **headers)
    return await actor.send(method, path, body if method == "PUT" else None, **headers)


@pytest.mark.requirement("CORE-08")
@pytest.mark.parametrize(("method", "status"), [("PUT", 200), ("PATCH", 200), ("DELETE", 204)])
async def test_one_match_is_changed(camille: Actor, method: str, status: int) -> None:
    code = unique("code")
    stored, other = [await camille.create(coded(camille.patient, c)) for c in (code, unique())]
    body = coded(camille.patient, code, status="amended")
    answer = await ask(camille, method, f"Observation?code={code}", body)
    assert (answer.status_code, answer.headers["etag"]) == (status, 'W/"2"'), answer.text
    found = await camille.get(f"Observation/{stored['id']}")
    assert found.status_code == (410 if method == "DELETE" else 200)
    if method != "DELETE":
        assert (found.json(), found.json()["status"], found.json()["id"]) == (answer.json(), "amended", stored["id"])
    assert (await camille.get(f"Observation/{other['id']}")).json() == other


@pytest.mark.requirement("CORE-08")
@pytest.mark.parametrize(("method", "status"), [("PUT", 201), ("PATCH", 404), ("DELETE", 204)])
async def test_no_match(world: World, camille: Actor, method: str, status: int) -> None:
    code = unique("code")
    answer = await ask(camille, method, f"Observation?code={code}", coded(camille.patient, code))
    assert answer.status_code == status, answer.text
    stored = await world.stored("Observation", patient=camille.patient)
    if method == "PUT":
        assert answer.headers["location"].endswith(f"/Observation/{stored[0]['_id']}/_history/1")
        assert answer.headers["etag"] == 'W/"1"'
    else:
        assert stored == []


@pytest.mark.requirement("CORE-08")
@pytest.mark.parametrize("method", METHODS)
async def test_several_matches_are_refused(world: World, camille: Actor, method: str) -> None:
    code = unique("code")
    for _ in range(2):
        await camille.create(coded(camille.patient, code))
    before = await world.fingerprint()
    answer = await ask(camille, method, f"Observation?code={code}", coded(camille.patient, code))
    assert (answer.status_code, issues(answer)[0]["code"]) == (412, "multiple-matches")
    assert await world.fingerprint() == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("query", "status", "code", "element"),
    [
        ("", 400, "invalid", None),
        ("?", 400, "invalid", None),
        ("?_format=json", 400, "invalid", None),
        ("?_count=1", 400, "invalid", None),
        ("?foo=bar", 400, "not-supported", "foo"),
        ("?code:near=x", 400, "not-supported", "code"),
        ("?date=yesterday", 400, "invalid", "date"),
        ("?code=%FF", 400, "invalid", None),
    ],
)
async def test_criteria_that_say_nothing_or_nothing_known(
    world: World, camille: Actor, method: str, query: str, status: int, code: str, element: str | None
) -> None:
    stored = await camille.create(coded(camille.patient, "x"))
    before = await world.fingerprint()
    answer = await ask(camille, method, f"Observation{query}", {**stored, "status": "amended"}, Prefer="handling=lenient")
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (status, code, element), answer.text
    assert await world.fingerprint() == before


async def test_an_id_in_the_body_is_that_of_the_match_or_refused(camille: Actor) -> None:
    code = unique("code")
    body = coded(camille.patient, code)
    new = await camille.put(f"Observation?code={code}", {**body, "id": "mine"})
    assert (new.status_code, issues(new)[0]["code"], expression(new)) == (405, "not-supported", "Observation.id")
    stored = await camille.create(body)
    assert (await camille.put(f"Observation?code={code}", {**body, "id": stored["id"]})).status_code == 200
    other = await camille.put(f"Observation?code={code}", {**body, "id": "mine"})
    assert (other.status_code, issues(other)[0]["code"], expression(other)) == (400, "invalid", "Observation.id")


@pytest.mark.requirement("CORE-05")
@pytest.mark.parametrize("method", METHODS)
async def test_if_match_is_honoured(camille: Actor, method: str) -> None:
    code = unique("code")
    body = coded(camille.patient, code)
    nothing = await ask(camille, method, f"Observation?code={code}", body, If_Match='W/"1"')
    assert nothing.status_code == {"PUT": 412, "PATCH": 404, "DELETE": 204}[method]
    stored = await camille.create(body)
    assert (await ask(camille, method, f"Observation?code={code}", body, If_Match='W/"2"')).status_code == 412
    assert (await camille.get(f"Observation/{stored['id']}")).json() == stored
    assert (await ask(camille, method, f"Observation?code={code}", body, If_Match='W/"1"')).status_code in (200, 204)


@pytest.mark.parametrize("method", METHODS)
async def test_what_may_not_be_seen_matches_nothing(world: World, camille: Actor, method: str) -> None:
    doctor, other = await world.professional(), await world.patient()
    await camille.create(consent(camille, doctor, "access", type="deny"))
    code = unique("code")
    hidden = [await owner.create(coded(owner.patient, code)) for owner in (camille, camille, other)]
    answers = []
    for owner in (camille.patient, "000-nobody"):
        body = coded(camille.patient, code)
        answer = await ask(doctor, method, f"Observation?patient={owner}&code={code}", body)
        answers.append((answer.status_code, answer.text if method != "PUT" else ""))
    assert answers[0] == answers[1]
    assert answers[0][0] == {"PUT": 201, "PATCH": 404, "DELETE": 204}[method]
    for stored, owner in zip(hidden, (camille, camille, other), strict=True):
        assert (await owner.get(f"Observation/{stored['id']}")).json() == stored


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_whose_record_is_meant_must_be_said(world: World, method: str) -> None:
    doctor = await world.professional()
    answer = await ask(doctor, method, "Observation?code=x", {})
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (400, "required", "patient")


@pytest.mark.parametrize(
    ("scope", "statuses"),
    [
        ("cruds", [201, 200, 200, 204]),
        ("crud", [403, 403, 403, 403]),
        ("ruds", [403, 404, 404, 204]),
        ("crds", [403, 403, 403, 204]),
    ],
)
async def test_which_scopes_it_takes(world: World, scope: str, statuses: list[int]) -> None:
    owner = await world.patient(f"patient/Observation.{scope}")
    code, found = unique("code"), []
    for method in ("PUT", "PUT", "PATCH", "DELETE"):
        body = coded(owner.patient, code)
        found.append((await ask(owner, method, f"Observation?code={code}", body)).status_code)
    # (without the right to create nothing is ever there)
    assert found[0] == statuses[0]
    assert found[2:] == statuses[2:]


async def test_what_is_read_and_not_written_is_no_match_to_write_to(world: World, camille: Actor) -> None:
    doctor, code = await world.professional(), unique("code")
    await world.consent(camille, doctor, "access", ["Observation"])
    await camille.create(consent(camille, doctor, "correct", type="deny"))
    stored = await camille.create(coded(camille.patient, code))
    for method in METHODS:
        answer = await ask(doctor, method, f"Observation?patient={camille.patient}&code={code}", coded(camille.patient, code))
        assert answer.status_code == 422, (method, answer.text)
    assert (await camille.get(f"Observation/{stored['id']}")).json() == stored


@pytest.mark.requirement("CORE-06")
async def test_updates_at_the_same_time_create_once_and_lose_nothing(world: World, peer: World, camille: Actor) -> None:
    code = unique("code")
    actors = (camille, peer.bearer(camille))
    asked = (
        actors[n % 2].put(f"Observation?code={code}", coded(camille.patient, code, issued=None) | note(n)) for n in range(12)
    )
    answers = await asyncio.gather(*asked)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 11}
    (stored,) = await world.stored("Observation", patient=camille.patient)
    assert stored["version"] == 12
    versions = await world.stored("Observation_history", id=stored["_id"])
    texts = {json.loads(d["body"])["note"][0]["text"] for d in (*versions, stored)}
    assert texts == {str(n) for n in range(12)}


def note(number: int) -> dict[str, Any]:
    return {"note": [{"text": str(number)}], "issued": "2026-11-20T08:00:00Z"}


async def test_updates_of_what_belongs_to_nobody_create_once(world: World, peer: World) -> None:
    for build, name in ((patient, "identifier"), (device, "device-name")):
        text = unique("Name")
        # (Without a system it is no business key: nothing but the criteria tells that it is there.)
        body = (
            patient(identifier=[{"value": text}]) if build is patient else device(deviceName=[{"name": text, "type": "other"}])
        )
        bodies = [{k: v for k, v in body.items() if k != "identifier" or build is patient} for _ in range(8)]
        actors = (world.operator, peer.bearer(world.operator))
        asked = (actors[n % 2].put(f"{b['resourceType']}?{name}={text}", b) for n, b in enumerate(bodies))
        answers = await asyncio.gather(*asked)
        assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 7}, [a.text for a in answers]


async def test_changes_and_deletions_at_the_same_time(world: World, peer: World, camille: Actor) -> None:
    """However they interleave: there is never more than one, and whatever was acknowledged is a version of something."""
    code = unique("code")
    actors = (camille, peer.bearer(camille))
    methods = [METHODS[n % 3] for n in range(18)]
    asked = (ask(actors[n % 2], m, f"Observation?code={code}", coded(camille.patient, code)) for n, m in enumerate(methods))
    answers = await asyncio.gather(*asked)
    told = Counter((method, answer.status_code) for method, answer in zip(methods, answers, strict=True))
    assert set(told) <= {("PUT", 200), ("PUT", 201), ("PATCH", 200), ("PATCH", 404), ("DELETE", 204)}, told
    stored = await world.stored("Observation", patient=camille.patient)
    assert len([d for d in stored if "deleted" not in d]) <= 1
    assert len(stored) == told["PUT", 201]
    changes = told["PUT", 201] + told["PUT", 200] + told["PATCH", 200]
    written = [*stored, *[v for s in stored for v in await world.stored("Observation_history", id=s["_id"])]]
    assert len([d for d in written if "body" in d]) == changes


@pytest.mark.requirement("BUN-01")
@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_entries_with_criteria(world: World, camille: Actor, kind: str) -> None:
    new, changed, gone = unique("new"), unique("changed"), unique("gone")
    stored = {code: await camille.create(coded(camille.patient, code)) for code in (changed, gone)}
    parts = [
        {"name": "type", "valueCode": "replace"},
        {"name": "path", "valueString": "Observation.status"},
        {"name": "value", "valueCode": "amended"},
    ]
    patching = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    entries = [
        entry("PUT", f"Observation?code={new}", coded(camille.patient, new)),
        entry("PATCH", f"Observation?code={changed}&patient={camille.patient}", patching),
        entry("DELETE", f"Observation?code={gone}"),
        entry("DELETE", f"Observation?code={unique('nothing')}"),
        entry("GET", f"Observation?patient={camille.patient}"),
    ]
    answer = await camille.post("", bundle(kind, *entries))
    assert answer.status_code == 200, answer.text
    found = answer.json()["entry"]
    assert [e["response"]["status"][:3] for e in found] == ["201", "200", "204", "204", "200"]
    assert found[1]["response"]["etag"] == 'W/"2"'
    there = {e["resource"]["code"]["coding"][0]["code"]: e["resource"]["status"] for e in found[4]["resource"]["entry"]}
    assert there == {new: "final", changed: "amended"}
    assert (await camille.get(f"Observation/{stored[gone]['id']}")).status_code == 410


async def test_a_transaction_of_updates_finds_the_patient_it_brings(world: World) -> None:
    feed = world.operator
    number = unique("1")
    person = patient(identifier=[{"system": "urn:ins", "value": number}])
    carer = {"resourceType": "RelatedPerson", "patient": {"reference": "urn:uuid:8b7f9d7c-0000-4000-8000-000000000001"}}
    criteria = f"Patient?identifier=urn:ins|{number}"
    entries = [
        entry("PUT", f"RelatedPerson?patient.identifier=urn:ins|{number}", carer),
        entry("PUT", criteria, person, "urn:uuid:8b7f9d7c-0000-4000-8000-000000000001"),
    ]
    for expected in (["201", "201"], ["200", "200"]):
        answer = await feed.post("", bundle("transaction", *entries))
        assert answer.status_code == 200, answer.text
        assert [e["response"]["status"][:3] for e in answer.json()["entry"]] == expected
    assert len(await world.stored("Patient", **{"search.identifier": f"urn:ins|{number}"})) == 1


@pytest.mark.requirement("BUN-02", "BUN-06")
@pytest.mark.parametrize("name", ["several", "no patch", "unknown", "twice", "twice one", "and by id"])
async def test_a_transaction_fails_as_a_whole_and_names_the_criteria(world: World, camille: Actor, name: str) -> None:
    code, one = unique("code"), unique("one")
    for _ in range(2):
        await camille.create(coded(camille.patient, code))
    kept = await camille.create(coded(camille.patient, one))
    amended = coded(camille.patient, one, status="amended")
    entries, status, place = {
        "several": ([entry("PUT", f"Observation?code={code}", coded(camille.patient, code))], 412, "[1].request.url"),
        "no patch": ([entry("DELETE", f"Observation?code={code}")], 412, "[1].request.url"),
        "unknown": ([entry("DELETE", "Observation?foo=x")], 400, "[1].request.url"),
        "twice": ([entry("PUT", "Observation?code=n", amended)] * 2, 400, "[2].request.url"),
        "twice one": (
            [entry("PUT", f"Observation?code={one}", amended), entry("DELETE", f"Observation?code={one}&status=final")],
            400,
            "[2]",
        ),
        "and by id": (
            [entry("PUT", f"Observation/{kept['id']}", kept), entry("PUT", f"Observation?code={one}", amended)],
            400,
            "[2].resource",
        ),
    }[name]
    before = await world.fingerprint()
    answer = await camille.post("", bundle("transaction", entry("POST", "Observation", observation(camille.patient)), *entries))
    assert (answer.status_code, expression(answer)) == (status, f"Bundle.entry{place}"), answer.text
    assert await world.fingerprint() == before


@pytest.mark.requirement("AUD-01")
async def test_the_audit_says_what_was_done(world: World, camille: Actor) -> None:
    code = unique("code")
    for method in ("PUT", "PUT", "PATCH", "DELETE", "DELETE"):
        await ask(camille, method, f"Observation?code={code}", coded(camille.patient, code))
    events = [e for e in await camille.search("AuditEvent?_count=50") if e["action"] in "CUD"][:5]
    assert [e["subtype"][0]["code"] for e in events] == ["delete", "delete", "patch", "update", "create"]
    touched = ["Observation/" in json.dumps(e["entity"]) for e in events]
    assert touched == [False, True, True, True, True]
