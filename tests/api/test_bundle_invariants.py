"""What a Bundle must be before any of its entries is looked at: bdl-1 to bdl-12, its type, its size."""

import json
from typing import Any

import pytest

from tests.world import World, bundle, device, entry, expression, issues, observation, unique

UUID = "urn:uuid:8b8f0d4c-8a38-4a8e-8a1e-8b5e4a6f0001"


def _entry(**elements: Any) -> dict[str, Any]:
    return {**entry("GET", "Observation?patient=000-x"), **elements}


# What is wrong, and which element is named.
INVARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "bdl-1": ({"total": 1}, "Bundle.total"),
    "bdl-2": ({"entry": [_entry(search={"mode": "match"})]}, "Bundle.entry[0].search"),
    "bdl-3": ({"entry": [_entry(), {"resource": device()}]}, "Bundle.entry[1].request"),
    "bdl-4": ({"entry": [_entry(response={"status": "200"})]}, "Bundle.entry[0].response"),
    "bdl-5": ({"entry": [{"fullUrl": UUID}]}, "Bundle.entry[0].request"),
    "bdl-7": ({"entry": [_entry(fullUrl=UUID), _entry(fullUrl=UUID)]}, "Bundle.entry[1].fullUrl"),
    "bdl-8": ({"entry": [_entry(fullUrl="https://a.example/fhir/Device/1/_history/2")]}, "Bundle.entry[0].fullUrl"),
}


@pytest.mark.requirement("BUN-09")
@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("name", INVARIANTS)
async def test_a_bundle_that_breaks_an_invariant_is_refused_as_a_whole(world: World, kind: str, name: str) -> None:
    wrong, element = INVARIANTS[name]
    owner = await world.patient()
    good = entry("POST", "Observation", observation(owner.patient))
    asked = bundle(kind, good) | wrong
    before = await world.fingerprint()
    answer = await owner.post("", asked)
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, "invariant"), answer.text
    assert expression(answer) == element
    if name != "bdl-5":  # without a request either
        assert name in issues(answer)[0]["diagnostics"]
    assert await world.fingerprint() == before


@pytest.mark.requirement("BUN-09")
@pytest.mark.parametrize(
    "kind", ["document", "message", "history", "searchset", "collection", "batch-response", "transaction-response"]
)
async def test_other_kinds_of_bundle_are_not_accepted(world: World, kind: str) -> None:
    """bdl-9 to bdl-12 speak of documents and messages, which are not carried out."""
    owner = await world.patient()
    answer = await owner.post("", {"resourceType": "Bundle", "type": kind})
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (422, "value", "Bundle.type")


ENVELOPES: dict[str, tuple[bytes, int, str | None]] = {
    "not JSON": (b'{"resourceType":"Bundle","type":"batch"', 400, None),
    "another type": (b'{"resourceType":"Observation","status":"final","code":{"text":"x"}}', 400, "Bundle"),
    "an unknown element": (b'{"resourceType":"Bundle","type":"batch","colour":1}', 400, "Bundle.colour"),
    "an unknown type": (b'{"resourceType":"Bundle","type":"heap"}', 422, "Bundle.type"),
    "no type": (b'{"resourceType":"Bundle"}', 422, "Bundle.type"),
    "no method": (
        b'{"resourceType":"Bundle","type":"batch","entry":[{"request":{"url":"Device"}}]}',
        422,
        "Bundle.entry[0].request.method",
    ),
    "no url": (
        b'{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET"}}]}',
        422,
        "Bundle.entry[0].request.url",
    ),
    "a twice written key": (b'{"resourceType":"Bundle","type":"batch","type":"batch"}', 400, "Bundle.type"),
    "too deep": (b'{"resourceType":"Bundle","type":"batch","entry":' + b"[" * 100 + b"]" * 100 + b"}", 400, None),
}


@pytest.mark.requirement("BUN-09")
@pytest.mark.parametrize("name", ENVELOPES)
async def test_an_envelope_that_cannot_be_read_is_refused_and_audited(world: World, name: str) -> None:
    body, status, element = ENVELOPES[name]
    owner = await world.patient()
    before, audited = await world.fingerprint(), len(await world.stored("AuditEvent", patient=owner.patient))
    answer = await owner.post("", body)
    assert answer.status_code == status, answer.text
    if element is not None:
        assert expression(answer) == element
    assert await world.fingerprint() == before
    assert len(await world.stored("AuditEvent", patient=owner.patient)) == audited + 1


@pytest.mark.requirement("BUN-10")
@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_too_many_entries_are_refused_before_any_is_looked_at(world: World, kind: str) -> None:
    owner = await world.patient()
    entries = [entry("POST", "Observation", observation(owner.patient)) for _ in range(10_000)]
    before, calls = await world.fingerprint(), world.gateway.mongo.calls
    answer = await owner.post("", json.dumps(bundle(kind, *entries), separators=(",", ":")).encode())
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (413, "too-costly", "Bundle.entry")
    assert "1000" in issues(answer)[0]["diagnostics"]
    assert world.gateway.mongo.calls - calls < 10  # who it is, and the trace that they asked
    assert await world.fingerprint() == before


@pytest.mark.requirement("BUN-10")
async def test_as_many_entries_as_allowed_are_carried_out(world: World) -> None:
    owner = await world.patient()
    most = world.gateway.limits.bundle_entries
    entries = [entry("POST", "Observation", observation(owner.patient)) for _ in range(most)]
    answer = await owner.post("", bundle("transaction", *entries))
    assert {e["response"]["status"] for e in answer.json()["entry"]} == {"201 Created"}
    assert len(answer.json()["entry"]) == most
    refused = await owner.post("", bundle("transaction", *entries, entries[0]))
    assert refused.status_code == 413


REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "a Bundle": (entry("POST", "Bundle", bundle("batch")), ".request.url"),
    "a Bundle to the base": (entry("POST", "/", bundle("batch")), ".request.url"),
    "another server": (entry("GET", "https://canary.example/fhir/Patient/1"), ".request.url"),
    "another server without scheme": (entry("GET", "//canary.example/fhir"), ".request.url"),
    "our name on another server": (entry("GET", "http://gateway.test.evil.example/fhir/Patient/1"), ".request.url"),
    "a file": (entry("GET", "file:///etc/passwd"), ".request.url"),
    "HEAD of another server": (entry("HEAD", "https://canary.example/fhir/Patient/1"), ".request.url"),
    "HEAD of a form": (entry("HEAD", "Observation/_search/x"), ".request"),
    "another port": (entry("GET", "http://gateway.test:8080/fhir/Patient/1"), ".request.url"),
    "our name as a user": (entry("GET", "http://gateway.test@canary.example/fhir/Patient/1"), ".request.url"),
    "beside our address": (entry("GET", "http://gateway.test/fhirs/Patient/1"), ".request.url"),
    "an operation": (entry("GET", "Patient/000-x/$everything"), ".request"),
    "a POST without resource": (entry("POST", "Observation"), ".resource"),
    "a PUT without resource": (entry("PUT", "Observation/000-x"), ".resource"),
    "a PATCH without resource": (entry("PATCH", "Observation/000-x"), ".resource"),
}


@pytest.mark.requirement("BUN-08")
@pytest.mark.parametrize("name", REQUESTS)
async def test_what_is_not_served_in_a_bundle_is_said_at_its_place(world: World, name: str) -> None:
    asked, element = REQUESTS[name]
    owner = await world.patient()
    code = "required" if element == ".resource" else "not-supported"
    before = await world.fingerprint()
    answer = await owner.post("", bundle("transaction", entry("POST", "Observation", observation(owner.patient)), asked))
    assert answer.status_code in (400, 422), answer.text
    assert expression(answer) == f"Bundle.entry[1]{element}"
    assert issues(answer)[0]["code"] in (code, "value")
    assert await world.fingerprint() == before

    batch = await owner.post("", bundle("batch", asked, entry("POST", "Observation", observation(owner.patient))))
    assert batch.status_code == 200
    refused, done = (e["response"] for e in batch.json()["entry"])
    assert refused["status"].startswith(str(answer.status_code))
    assert refused["outcome"]["issue"][0]["expression"] == [f"Bundle.entry[0]{element}"]
    assert done["status"] == "201 Created"


@pytest.mark.requirement("SEC-030")
@pytest.mark.parametrize("query", ["code=%ff", "code=a&access_token={token}", "&".join(["code=a"] * 1_001)])
async def test_parameters_are_decoded_as_strictly_as_those_of_a_request(world: World, query: str) -> None:
    owner = await world.patient()
    query = query.format(token=owner.token)
    searched = entry("GET", f"Observation?{query}")
    conditional = entry("POST", "Observation", observation(owner.patient), ifNoneExist=query)
    for asked, place in ((searched, "request.url"), (conditional, "request.ifNoneExist")):
        answer = await owner.post("", bundle("transaction", asked))
        assert (answer.status_code, expression(answer)) == (400, f"Bundle.entry[0].{place}"), answer.text
        assert issues(answer)[0]["code"] == "invalid"
        batch = await owner.post("", bundle("batch", asked))
        assert batch.json()["entry"][0]["response"]["outcome"] == answer.json()
    assert owner.token not in str(await world.stored("AuditEvent", patient=owner.patient))
    assert await world.stored("Observation", patient=owner.patient) == []


async def test_a_condition_has_no_more_parameters_than_a_search(world: World) -> None:
    owner = await world.patient()
    condition = "&".join(["status=final"] * (world.gateway.limits.parameters + 1))
    answer = await owner.post("Observation", observation(owner.patient), If_None_Exist=condition)
    assert (answer.status_code, issues(answer)[0]["code"]) == (400, "too-costly")


async def test_a_type_that_is_not_served_is_said_at_its_place(world: World) -> None:
    owner = await world.patient()
    wrong = entry("GET", f"Immunization/{unique()}")
    answer = await owner.post("", bundle("transaction", wrong))
    assert (answer.status_code, expression(answer)) == (404, "Bundle.entry[0]")
