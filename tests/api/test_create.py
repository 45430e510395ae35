"""create: what is new is stored as sent, what is known is answered, what is wrong is refused and leaves nothing behind."""

import asyncio
import json
from typing import Any

import pytest

from tests.world import BASE, LOINC, READINGS, Actor, World, concept, device, document, expression, issues, observation, unique


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


async def stored_count(world: World, owner: Actor) -> int:
    return len(await world.stored("Observation", patient=owner.patient))


@pytest.mark.requirement("CORE-03", "CORE-19")
async def test_a_create_answers_with_what_was_stored_and_where(world: World, camille: Actor) -> None:
    sent = observation(camille.patient, id="mine", meta={"versionId": "7", "lastUpdated": "2001-01-01T00:00:00Z"})
    answer = await camille.post("Observation", sent)
    assert answer.status_code == 201
    stored = answer.json()
    assert stored["id"] != "mine"
    assert answer.headers["location"] == f"{BASE}/Observation/{stored['id']}/_history/1"
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    assert (stored["meta"]["versionId"], stored["meta"]["lastUpdated"] > "2026") == ("1", True)
    got = await camille.get(answer.headers["location"])
    assert (got.json(), got.headers["last-modified"]) == (stored, answer.headers["last-modified"])
    assert (await camille.get("Observation/mine")).status_code == 404
    # What the client says of itself stays.
    assert {name: stored[name] for name in sent if name not in ("id", "meta")} == {
        name: value for name, value in sent.items() if name not in ("id", "meta")
    }


@pytest.mark.requirement("CORE-19")
async def test_the_rest_of_meta_is_the_clients(camille: Actor) -> None:
    meta = {
        "source": "https://app.example/v3",
        "profile": ["https://app.example/StructureDefinition/reading"],
        "tag": [{"system": "https://app.example/tags", "code": "night"}],
        "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "N"}],
    }
    server_only = {"versionId": "99", "lastUpdated": "2001-01-01T00:00:00Z", "_lastUpdated": {"id": "x"}}
    stored = await camille.create(observation(camille.patient, meta={**meta, **server_only}))
    assert {**meta, "versionId": "1", "lastUpdated": stored["meta"]["lastUpdated"]} == stored["meta"]
    changed = await camille.put(f"Observation/{stored['id']}", {**stored, "meta": {**meta, **server_only}})
    assert changed.json()["meta"] == {**meta, "versionId": "2", "lastUpdated": changed.json()["meta"]["lastUpdated"]}


@pytest.mark.requirement("CORE-18")
@pytest.mark.parametrize(
    "number", ["6.50", "0.0", "5.10", "100", "1.000000000000000001", "-0.0001", "0.50", "123456789012345678"]
)
async def test_a_decimal_keeps_value_and_precision(camille: Actor, number: str) -> None:
    of_nothing_known = observation(camille.patient, code=concept("http://loinc.org", "3141-9"))
    sent = json.dumps(of_nothing_known).replace("104", number).encode()
    answer = await camille.post("Observation", sent)
    assert answer.status_code == 201, answer.text
    for body in (answer.text, (await camille.get(answer.headers["location"])).text):
        assert f'"value":{number},' in body
    page = await camille.get(f"Observation?_id={answer.json()['id']}")
    assert f'"value":{number},' in page.text


@pytest.mark.requirement("CORE-18")
@pytest.mark.parametrize(
    "moment",
    ["2026", "2026-11", "2026-11-20", "2026-11-20T08:00:00+05:30", "2026-11-20T08:00:00Z", "2026-11-20T08:00:00.120-03:00"],
)
async def test_a_date_keeps_offset_and_precision(camille: Actor, moment: str) -> None:
    stored = await camille.create(observation(camille.patient, effectiveDateTime=moment))
    assert stored["effectiveDateTime"] == moment
    assert (await camille.get(f"Observation/{stored['id']}")).json()["effectiveDateTime"] == moment


@pytest.mark.requirement("CORE-04")
async def test_if_none_exist_with_no_one_and_several_matches(world: World) -> None:
    owner = await world.patient()
    tag = unique("code")
    condition = f"code={LOINC}|{tag}"

    def sent() -> dict[str, Any]:
        return observation(owner.patient, code=concept(LOINC, tag))

    first = await owner.post("Observation", sent(), If_None_Exist=condition)
    assert first.status_code == 201
    second = await owner.post("Observation", sent(), If_None_Exist=condition)
    assert (second.status_code, second.headers["location"]) == (200, first.headers["location"])
    assert (second.headers["etag"], second.headers["last-modified"]) == ('W/"1"', first.headers["last-modified"])
    assert await stored_count(world, owner) == 1
    assert (await owner.post("Observation", sent())).status_code == 201
    third = await owner.post("Observation", sent(), If_None_Exist=condition)
    assert (third.status_code, issues(third)[0]["code"]) == (412, "multiple-matches")
    assert await stored_count(world, owner) == 2


@pytest.mark.requirement("CORE-04")
async def test_a_condition_finds_only_what_its_sender_may_find(world: World, camille: Actor) -> None:
    stranger = await world.patient()
    tag = unique("code")
    await camille.create(observation(camille.patient, code=concept(LOINC, tag)))
    answer = await stranger.post(
        "Observation", observation(stranger.patient, code=concept(LOINC, tag)), If_None_Exist=f"code={LOINC}|{tag}"
    )
    assert answer.status_code == 201
    assert await stored_count(world, stranger) == 1


@pytest.mark.requirement("CORE-04")
@pytest.mark.parametrize(
    ("condition", "status"),
    [("", 400), ("foo=bar", 400), ("_count=1", 400), ("date=never", 400), ("code", 400), ("?code=%FF", 400)],
)
async def test_a_condition_that_says_nothing_or_is_not_understood(world: World, condition: str, status: int) -> None:
    owner = await world.patient()
    answer = await owner.post("Observation", observation(owner.patient), If_None_Exist=condition)
    assert answer.status_code == status
    assert issues(answer)[0]["code"] in ("invalid", "not-supported")
    assert await stored_count(world, owner) == 0


@pytest.mark.requirement("CORE-04", "MES-11")
async def test_a_reading_sent_again_is_the_same_reading(world: World) -> None:
    owner = await world.patient()
    sent = observation(owner.patient)
    first = await owner.post("Observation", sent)
    other_bytes = json.dumps(sent, indent=2).encode()
    for body in (sent, other_bytes):
        again = await owner.post("Observation", body)
        assert (again.status_code, again.headers["location"]) == (200, first.headers["location"])
        assert (again.headers["etag"], again.headers["last-modified"]) == ('W/"1"', first.headers["last-modified"])
    changed = await owner.post("Observation", {**sent, "status": "amended"})
    assert (changed.status_code, issues(changed)[0]["code"], expression(changed)) == (
        409,
        "duplicate",
        "Observation.identifier",
    )
    assert await stored_count(world, owner) == 1
    assert (await owner.get(first.headers["location"])).json()["status"] == "final"


@pytest.mark.requirement("CORE-04")
async def test_a_deleted_reading_stays_deleted_when_it_is_sent_again(world: World) -> None:
    owner = await world.patient()
    sent = observation(owner.patient)
    first = await owner.create(sent)
    await owner.delete(f"Observation/{first['id']}")
    again = await owner.post("Observation", sent)
    assert again.status_code == 200
    assert (await owner.get(f"Observation/{first['id']}")).status_code == 410
    assert await owner.search(f"Observation?patient={owner.patient}") == []


@pytest.mark.requirement("CORE-04")
async def test_the_same_reading_sent_twenty_times_at_once_is_stored_once(world: World) -> None:
    owner = await world.patient()
    for headers in ({}, {"If_None_Exist": f"identifier={READINGS}|{unique('no')}"}):
        sent = observation(owner.patient)
        if headers:
            headers = {"If_None_Exist": f"identifier={READINGS}|{sent['identifier'][0]['value']}"}
        answers = await asyncio.gather(*(owner.post("Observation", sent, **headers) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
        assert len({answer.headers["location"] for answer in answers}) == 1
    assert await stored_count(world, owner) == 2


MALFORMED: dict[str, tuple[bytes, int, str]] = {
    "no body": (b"", 400, "structure"),
    "white space": (b"   ", 400, "structure"),
    "not JSON": (b"resourceType=Observation", 400, "structure"),
    "cut off": (b'{"resourceType": "Observation", "status": "fi', 400, "structure"),
    "not UTF-8": (json.dumps(observation("abc-1")).encode().replace(b"final", b"\xff"), 400, "structure"),
    "not UTF-8 in a text": (
        json.dumps(observation("abc-1", note=[{"text": "here"}])).encode().replace(b"here", b"\xff"),
        400,
        "structure",
    ),
    "UTF-16": ('{"resourceType": "Observation"}'.encode("utf-16"), 400, "structure"),
    "XML": (b"<Observation xmlns='http://hl7.org/fhir'/>", 400, "structure"),
    "a list": (b'[{"resourceType": "Observation"}]', 400, "structure"),
    "a text": (b'"Observation"', 400, "structure"),
    "null": (b"null", 400, "structure"),
    "two resources": (b'{"resourceType":"Observation"}{"resourceType":"Observation"}', 400, "structure"),
    "no type": (b'{"status": "final"}', 400, "structure"),
    "type null": (b'{"resourceType": null}', 400, "structure"),
    "another type": (b'{"resourceType": "Patient"}', 400, "invalid"),
    "no R4 type": (b'{"resourceType": "Reading"}', 400, "invalid"),
    "NaN": (b'{"resourceType": "Observation", "valueInteger": NaN}', 400, "structure"),
}


@pytest.mark.requirement("CORE-16")
@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_resource_is_refused(world: World, name: str) -> None:
    body, status, code = MALFORMED[name]
    owner = await world.patient()
    answer = await owner.post("Observation", body)
    assert (answer.status_code, issues(answer)[0]["code"]) == (status, code)
    assert await stored_count(world, owner) == 0


@pytest.mark.requirement("CORE-16")
@pytest.mark.parametrize(
    ("change", "status", "code", "element"),
    [
        ({"status": None}, None, None, "Observation.status"),
        ({"note": None}, 400, "structure", "Observation.note"),
        ({"foo": "bar"}, 400, "structure", "Observation.foo"),
        ({"code": "99504-3"}, None, None, "Observation.code"),
        ({"code": {"coding": {"code": "x"}}}, 400, "structure", "Observation.code.coding"),
        ({"code": {"coding": []}}, None, None, "Observation.code.coding"),
        ({"code": {}}, None, None, "Observation.code"),
        ({"status": "finished"}, 422, "code-invalid", "Observation.status"),
        ({"effectiveDateTime": "yesterday"}, 422, "value", "Observation.effectiveDateTime"),
        ({"effectiveDateTime": "2026-02-30"}, 422, "value", "Observation.effectiveDateTime"),
        ({"valueString": "two values"}, None, None, "Observation"),
        ({"valueQuantity": {"value": "104"}}, 400, "structure", "Observation.valueQuantity.value"),
        ({"valueQuantity": {"value": 104, "unit": ""}}, 422, "value", "Observation.valueQuantity.unit"),
        ({"subject": {"reference": "Practitioner/x"}}, 422, None, "Observation.subject.reference"),
        ({"device": {"reference": "Device/abc-none"}}, 422, "not-found", "Observation.device"),
    ],
)
async def test_what_is_wrong_is_named(
    world: World, change: dict[str, Any], status: int | None, code: str | None, element: str
) -> None:
    owner = await world.patient()
    answer = await owner.post("Observation", observation(owner.patient) | change)
    assert answer.status_code in ((status,) if status else (400, 422)), answer.text
    found = [issue for issue in issues(answer) if issue["expression"][0].startswith(element)]
    assert found, answer.text
    assert code is None or code in [issue["code"] for issue in found]
    assert await stored_count(world, owner) == 0


@pytest.mark.requirement("CORE-16")
@pytest.mark.parametrize(
    ("find", "put"),
    [
        ('"status": "final"', '"status": "final", "status": "amended"'),
        ('"value": 104', '"value": 104, "value": 105'),
        ('"resourceType": "Observation"', '"resourceType": "Observation", "resourceType": "Observation"'),
    ],
)
async def test_a_key_that_stands_twice_is_refused(world: World, find: str, put: str) -> None:
    owner = await world.patient()
    body = json.dumps(observation(owner.patient)).replace(find, put, 1).encode()
    answer = await owner.post("Observation", body)
    assert (answer.status_code, issues(answer)[0]["code"]) == (400, "structure")
    assert await stored_count(world, owner) == 0


@pytest.mark.requirement("CORE-16")
async def test_every_error_of_a_resource_is_listed(world: World) -> None:
    owner = await world.patient()
    wrong = observation(owner.patient, status=7, foo=1, effectiveDateTime="never")
    answer = await owner.post("Observation", wrong)
    assert {"Observation.status", "Observation.foo", "Observation.effectiveDateTime"} <= {
        issue["expression"][0] for issue in issues(answer)
    }


@pytest.mark.requirement("CORE-03")
async def test_a_create_takes_no_parameters(camille: Actor) -> None:
    answer = await camille.post("Observation?_elements=code", observation(camille.patient))
    assert (answer.status_code, expression(answer)) == (400, "_elements")


async def test_a_type_that_is_not_served_cannot_be_created(camille: Actor) -> None:
    for type_name in ("Bundle", "Condition", "Foo", "patient"):
        answer = await camille.post(type_name, {"resourceType": type_name})
        assert (answer.status_code, issues(answer)[0]["code"]) == (404, "not-supported")


async def test_a_create_in_somebody_elses_record_is_refused_like_in_nobodys(world: World, camille: Actor) -> None:
    other = await world.patient()
    answers = [await camille.post("Observation", observation(owner)) for owner in (other.patient, "abc-0000000000000000")]
    assert (answers[0].status_code, issues(answers[0])[0]["code"]) == (422, "not-found")
    assert expression(answers[0]) == "Observation.subject"
    assert answers[0].content == answers[1].content
    assert await stored_count(world, other) == 0


@pytest.mark.requirement("CORE-03")
async def test_other_types_are_created_the_same_way(world: World, camille: Actor) -> None:
    for sent in (document(camille.patient), device(camille.patient)):
        answer = await camille.post(sent["resourceType"], sent)
        assert answer.status_code == 201, answer.text
        stored = answer.json()
        assert answer.headers["location"] == f"{BASE}/{stored['resourceType']}/{stored['id']}/_history/1"
