"""FHIR over HTTP: the interactions of a resource, their headers and their errors.

Knows: https://hl7.org/fhir/R4/http.html. Must not know: whose server it is.
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from gateway.conformance.rule import rule
from gateway.conformance.server import Server, moment, not_applicable, reference_of
from gateway.conformance.wire import FHIR_JSON, JSON_PATCH, Caller

TYPE = "Observation"


def refused(answer: httpx.Response, *statuses: int) -> None:
    """Assert that it was refused with one of these, and that an OperationOutcome says why."""
    assert answer.status_code in statuses, f"a refusal with {' or '.join(map(str, statuses))}, not {answer.status_code}"
    outcome = answer.json()
    assert outcome.get("resourceType") == "OperationOutcome", "a refusal carries an OperationOutcome"
    assert outcome.get("issue"), "an OperationOutcome has an issue"
    for issue in outcome["issue"]:
        assert {"severity", "code"} <= issue.keys(), "an issue has a severity and a code"


def links(answer: httpx.Response) -> dict[str, str]:
    """The links of a Bundle, by relation."""
    return {link["relation"]: link["url"] for link in answer.json().get("link", [])}


@rule(
    "CORE-01",
    "SHALL",
    "The CapabilityStatement is answered without a token and says what the server is.",
    "FHIR R4 http",
    "#capabilities",
)
def check_metadata(server: Server) -> None:
    """GET metadata."""
    answer = server.anonymous().get("metadata")
    assert answer.status_code == 200, "the CapabilityStatement is there for everybody"
    told = answer.json()
    assert told["resourceType"] == "CapabilityStatement", "metadata is a CapabilityStatement"
    assert told["fhirVersion"].startswith("4.0"), "the version of FHIR is 4.0"
    assert told["kind"] in ("instance", "capability"), "kind is instance for a server"
    assert told.get("format"), "the formats are listed"
    assert any(rest["mode"] == "server" for rest in told["rest"]), "rest has the mode server"


@rule("CORE-02", "SHALL", "Every search parameter that is declared works.", "FHIR R4 http", "#capabilities")
def check_declared_parameters(server: Server, owner: Caller) -> None:
    """One search for each declared parameter of Observation."""
    server.needs(TYPE, "search-type")
    values = {
        "date": "2026-01-01",
        "number": "1",
        "quantity": "72",
        "uri": "urn:x",
        "reference": "Patient/x",
        "composite": "a$b",
    }
    parts = {"date": "x$2026-01-01", "quantity": "x$72"}
    for parameter in server.types[TYPE].get("searchParam", []):
        name, kind = parameter["name"], parameter["type"]
        value = parts.get(name.rpartition("-")[2], "x$y") if kind == "composite" else values.get(kind, "x")
        if name in ("_summary", "_count", "_sort", "_total", "_include", "_revinclude", "_format", "_elements", "_contained"):
            continue
        answer = owner.get(TYPE, **({"patient": server.patient} | {name: value}))
        assert answer.status_code == 200, f"the declared parameter '{name}' is answered with 200"


@rule(
    "CORE-03",
    "SHALL",
    "A create is answered with 201, Location, ETag and Last-Modified; the id of the body is ignored.",
    "FHIR R4 http",
    "#create",
)
def check_create(server: Server, owner: Caller) -> None:
    """POST with an id of our own."""
    server.needs(TYPE, "create")
    answer = owner.create(server.heart_rate(id="chosen-by-the-kit"), {"prefer": "return=representation"})
    assert answer.status_code == 201, "a create is answered with 201"
    location = answer.headers.get("location", "")
    assert re.search(rf"{TYPE}/[A-Za-z0-9.-]+/_history/[^/]+$", location), "Location names the new version"
    assert re.fullmatch(r'W/"[^"]+"', answer.headers.get("etag", "")), "ETag is weak and holds the version"
    assert answer.headers.get("last-modified"), "Last-Modified is there"
    assert answer.json()["id"] != "chosen-by-the-kit", "the server chooses the id"
    assert f"{TYPE}/{answer.json()['id']}/" in location, "Location and body name the same id"


@rule(
    "CORE-04",
    "SHALL",
    "If-None-Exist: nothing found creates (201), one found writes nothing (200), several are refused (412).",
    "FHIR R4 http",
    "#ccreate",
)
def check_conditional_create(server: Server, owner: Caller) -> None:
    """The three states."""
    server.needs_of_type(TYPE, "conditionalCreate")
    resource = server.heart_rate()
    one = resource["identifier"][0]
    condition = {"if-none-exist": f"identifier={one['system']}|{one['value']}"}
    assert owner.create(resource, condition).status_code == 201, "what is not there is created"
    before = server.count(owner)
    again = owner.create({**resource, "valueQuantity": {**resource["valueQuantity"], "value": 80}}, condition)
    assert again.status_code == 200, "what is there is answered with 200"
    assert server.count(owner) == before, "nothing is created"
    server.made_by(owner, server.heart_rate())
    several = owner.create(resource, {"if-none-exist": f"identifier={server.system}|"})
    refused(several, 412)


@rule(
    "CORE-05",
    "SHALL",
    "An update with another id in the body is refused (400), one of a stale version too (412 or 409).",
    "FHIR R4 http",
    "#update",
)
def check_update(server: Server, owner: Caller) -> None:
    """Two updates of one version."""
    server.needs(TYPE, "create", "update")
    stored = server.made_by(owner, server.heart_rate())
    path = reference_of(stored)
    refused(owner.ask("PUT", path, {**stored, "id": "another"}), 400, 422)
    condition = {"if-match": f'W/"{stored["meta"]["versionId"]}"'}
    first = owner.ask("PUT", path, {**stored, "status": "amended"}, headers=condition)
    assert first.status_code == 200, "an update of the current version is answered with 200"
    refused(owner.ask("PUT", path, {**stored, "status": "corrected"}, headers=condition), 412, 409)
    assert owner.get(path).json()["status"] == "amended", "what was refused is not stored"


@rule("CORE-06", "SHALL", "Of many updates of one version at once, exactly one is done.", "FHIR R4 http", "#concurrency")
def check_concurrent_updates(server: Server, owner: Caller) -> None:
    """Ten at a time."""
    server.needs(TYPE, "create", "update")
    stored = server.made_by(owner, server.heart_rate())
    condition = {"if-match": f'W/"{stored["meta"]["versionId"]}"'}

    def update(n: int) -> int:
        changed = {**stored, "valueQuantity": {**stored["valueQuantity"], "value": 60 + n}}
        return owner.ask("PUT", reference_of(stored), changed, headers=condition).status_code

    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(update, range(10)))
    assert statuses.count(200) == 1, f"one update wins; they were answered {sorted(statuses)}"


@rule(
    "CORE-07",
    "SHALL",
    "JSON Patch changes what it names; what would make the resource invalid changes nothing.",
    "FHIR R4 http",
    "#patch",
)
def check_patch(server: Server, owner: Caller) -> None:
    """A good patch and one that takes the code away."""
    server.needs(TYPE, "create", "patch")
    stored = server.made_by(owner, server.heart_rate())
    done = owner.ask(
        "PATCH", reference_of(stored), [{"op": "replace", "path": "/status", "value": "amended"}], headers=JSON_PATCH
    )
    assert done.status_code == 200, "a patch is answered with 200"
    refused(owner.ask("PATCH", reference_of(stored), [{"op": "remove", "path": "/code"}], headers=JSON_PATCH), 422, 400)
    now = owner.get(reference_of(stored)).json()
    assert (now["status"], "code" in now) == ("amended", True), "only the good patch is stored"


@rule(
    "CORE-09",
    "SHALL",
    "What never was is 404, what was deleted 410; its versions stay, newest first.",
    "FHIR R4 http",
    "#delete",
)
def check_delete(server: Server, owner: Caller) -> None:
    """Create, change, delete, look."""
    server.needs(TYPE, "create", "update", "delete", "read")
    refused(owner.get(f"{TYPE}/kit-0-never"), 404)
    stored = server.made_by(owner, server.heart_rate())
    path = reference_of(stored)
    changed = owner.ask("PUT", path, {**stored, "status": "amended"})
    assert changed.status_code == 200, "an update is answered with 200"
    assert owner.ask("DELETE", path).status_code in (200, 202, 204), "a delete is answered with 200, 202 or 204"
    refused(owner.get(path), 410)
    if server.declares(TYPE, "vread"):
        old = owner.get(f"{path}/_history/{stored['meta']['versionId']}")
        assert old.status_code == 200, "an earlier version can still be read"
        assert old.json()["status"] == "final", "an earlier version is as it was"
    if server.declares(TYPE, "history-instance"):
        entries = owner.get(f"{path}/_history").json()["entry"]
        told = [entry["resource"]["status"] for entry in entries if "resource" in entry]
        assert told == ["amended", "final"], "history lists the versions, newest first"


@rule("CORE-10", "SHOULD", "A read of a version that one has is answered with 304.", "FHIR R4 http", "#cread")
def check_conditional_read(server: Server, owner: Caller) -> None:
    """If-None-Match."""
    server.needs(TYPE, "create", "read")
    stored = server.made_by(owner, server.heart_rate())
    etag = owner.get(reference_of(stored)).headers.get("etag", "")
    assert etag, "a read tells the version in ETag"
    assert owner.get(reference_of(stored), {"if-none-match": etag}).status_code == 304, "304: it has not changed"
    assert owner.get(reference_of(stored), {"if-none-match": 'W/"kit"'}).status_code == 200, "another version is answered"


@rule(
    "CORE-11",
    "SHALL",
    "The format is chosen by Accept or _format; what cannot be given is 406, what cannot be read 415.",
    "FHIR R4 http",
    "#mime-type",
)
def check_formats(server: Server, owner: Caller) -> None:
    """Formats in and out."""
    server.needs(TYPE, "create", "read")
    path = reference_of(server.made_by(owner, server.heart_rate()))
    kind = owner.get(path, {"accept": FHIR_JSON}).headers.get("content-type", "")
    assert kind.startswith(FHIR_JSON), "FHIR JSON is labelled application/fhir+json"
    assert owner.get(path, {"accept": "application/xml"}, _format="json").status_code == 200, "_format wins over Accept"
    assert owner.get(path, {"accept": "application/x-kit"}).status_code == 406, "what cannot be given is 406"
    sent = owner.ask("POST", TYPE, json.dumps(server.heart_rate()), headers={"content-type": "text/plain"})
    assert sent.status_code == 415, "what cannot be read is 415"


@rule("CORE-12", "SHOULD", "Another version of FHIR than the server's is 406.", "FHIR R4 http", "#version-parameter")
def check_fhir_version(server: Server, owner: Caller) -> None:
    """fhirVersion in Accept."""
    path = reference_of(server.made_by(owner, server.heart_rate()))
    assert owner.get(path, {"accept": f"{FHIR_JSON}; fhirVersion=4.0"}).status_code == 200, "its own version is answered"
    assert owner.get(path, {"accept": f"{FHIR_JSON}; fhirVersion=5.0"}).status_code == 406, "another is 406"


@rule("CORE-13", "SHALL", "Every refusal carries an OperationOutcome.", "FHIR R4 http", "#Status-Codes")
def check_outcomes(owner: Caller) -> None:
    """Several ways of being wrong."""
    refused(owner.get(f"{TYPE}/kit-0-never"), 404)
    refused(owner.get("Kitten/1"), 404, 400)
    refused(owner.ask("POST", TYPE, "{"), 400, 422)
    refused(owner.ask("POST", TYPE, {"resourceType": TYPE, "status": "final"}), 400, 422)


@rule("CORE-14", "SHALL", "Prefer: return says what a write is answered with.", "FHIR R4 http", "#ops")
@pytest.mark.parametrize("wanted", ["minimal", "representation", "OperationOutcome"])
def check_prefer(server: Server, owner: Caller, wanted: str) -> None:
    """The three ways."""
    server.needs(TYPE, "create")
    answer = owner.create(server.heart_rate(), {"prefer": f"return={wanted}"})
    assert answer.status_code == 201, "a create is answered with 201"
    told = answer.json()["resourceType"] if answer.content else None
    assert told == {"minimal": None, "representation": TYPE, "OperationOutcome": "OperationOutcome"}[wanted], "as asked"


@rule(
    "CORE-15",
    "SHOULD",
    "A parameter that is not known is refused by name; with Prefer: handling=lenient it is left out.",
    "FHIR R4 search",
    "#errors",
)
def check_unknown_parameter(server: Server, owner: Caller) -> None:
    """A typing error must not return everything."""
    server.needs(TYPE, "search-type")
    refused(owner.get(TYPE, patient=server.patient, kitten="1"), 400)
    lenient = owner.get(TYPE, {"prefer": "handling=lenient"}, patient=server.patient, kitten="1")
    assert lenient.status_code == 200, "lenient is answered"
    assert "kitten" not in links(lenient).get("self", ""), "the self link lists what was applied only"


BROKEN = {
    "no JSON": '{"resourceType": "Observation", ',
    "another type": '{"resourceType": "Patient"}',
    "an unknown element": '{"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "kitten": 1}',
    "a required element missing": '{"resourceType": "Observation", "status": "final"}',
    "an unknown code": '{"resourceType": "Observation", "status": "purring", "code": {"text": "x"}}',
    "a list for an object": '{"resourceType": "Observation", "status": "final", "code": [{"text": "x"}]}',
    "an empty list": '{"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "category": []}',
}


@rule("CORE-16", "SHALL", "What is no valid resource is refused, and nothing is stored.", "FHIR R4 json")
@pytest.mark.parametrize("what", BROKEN)
def check_broken(server: Server, owner: Caller, what: str) -> None:
    """One way of being broken each."""
    server.needs(TYPE, "create")
    text = BROKEN[what]
    subject = f', "subject": {{"reference": "Patient/{server.patient}"}}}}'
    sent = text if what in ("no JSON", "another type") else text[:-1] + subject
    answer = owner.ask("POST", TYPE, sent)
    if answer.status_code == 201:
        owner.remember(answer.headers.get("location", ""))
    refused(answer, 400, 422)


@rule("CORE-17", "SHOULD", "The X-Request-Id of a request is in its answer.", "FHIR R4 http", "#custom")
def check_request_id(server: Server) -> None:
    """It is how two logs are brought together."""
    answer = server.anonymous().get("metadata", {"x-request-id": "kit-4711"})
    assert answer.headers.get("x-request-id") == "kit-4711", "the id comes back"


@rule("CORE-18", "SHALL", "Decimals keep their digits, times their offset and precision.", "FHIR R4 datatypes", "#decimal")
def check_precision(server: Server, owner: Caller) -> None:
    """6.50 stays 6.50."""
    server.needs(TYPE, "create", "read")
    text = json.dumps(server.heart_rate(effectiveDateTime="2026-03-01T08:30:00.50+02:00")).replace(
        '"value": 72', '"value": 72.50'
    )
    answer = owner.ask("POST", TYPE, text)
    assert answer.status_code == 201, "a create is answered with 201"
    owner.remember(answer.headers.get("location", ""))
    stored = owner.get(owner.made[-1][1]).text
    assert re.search(r'"value"\s*:\s*72\.50\b', stored), "72.50 is not 72.5"
    assert "2026-03-01T08:30:00.50+02:00" in stored, "the offset and the fraction are as they were sent"


@rule(
    "CORE-19",
    "SHALL",
    "versionId and lastUpdated are the server's; what a client says of them is ignored.",
    "FHIR R4 http",
    "#create",
)
def check_meta(server: Server, owner: Caller) -> None:
    """A create with a meta of our own."""
    server.needs(TYPE, "create")
    tag = {"system": "urn:oid:2.16.840.1.113883.4.642.3.1", "code": "kit"}
    meta = {"versionId": "99", "lastUpdated": "2001-01-01T00:00:00Z", "tag": [tag]}
    stored = server.made_by(owner, server.heart_rate(meta=meta))
    assert stored["meta"]["versionId"] != "99", "the version is the server's"
    assert stored["meta"]["lastUpdated"] > moment(1), "the time is the server's"
    assert stored["meta"].get("tag") == [tag], "tags are kept"


@rule("CORE-20", "SHOULD", "HEAD answers as GET does, without a body.", "RFC 9110", "#name-head")
def check_head(server: Server, owner: Caller) -> None:
    """HEAD of what GET gives."""
    server.needs(TYPE, "create", "read")
    path = reference_of(server.made_by(owner, server.heart_rate()))
    got, head = owner.get(path), owner.ask("HEAD", path)
    if head.status_code == 405:
        not_applicable("the server has no HEAD")
    assert head.status_code == got.status_code, "the same status"
    assert head.headers.get("etag") == got.headers.get("etag"), "the same ETag"
    assert not head.content, "no body"


@rule("CORE-08", "SHALL", "A conditional patch of nothing is 404, of many 412; of one it is done.", "FHIR R4 http", "#patch")
def check_conditional_patch(server: Server, owner: Caller) -> None:
    """None, two, one."""
    server.needs(TYPE, "create", "patch")
    server.needs_of_type(TYPE, "conditionalUpdate")  # (R4 has no word for patches)
    where = f"{TYPE}?patient={server.patient}&identifier={server.system}|"
    patch = [{"op": "replace", "path": "/status", "value": "amended"}]
    assert owner.ask("PATCH", where, patch, JSON_PATCH).status_code == 404, "none: 404"
    one, other = (server.made_by(owner, server.heart_rate()) for _ in range(2))
    assert owner.ask("PATCH", where, patch, JSON_PATCH).status_code == 412, "two: 412"
    assert owner.ask("PATCH", where + one["identifier"][0]["value"], patch, JSON_PATCH).status_code == 200, "one: 200"
    states = [owner.get(reference_of(stored)).json()["status"] for stored in (one, other)]
    assert states == ["amended", "final"], "that one has changed"


@rule("SEC-022", "SHALL", "What is nested without end is refused, and nothing breaks.", "house")
def check_nested(server: Server, owner: Caller) -> None:
    """Two thousand levels."""
    server.needs(TYPE, "create")
    depth = 2_000
    alone = {"connection": "close"}  # (whatever becomes of it: nothing else is said there)
    answer = owner.ask("POST", TYPE, '{"resourceType": "Observation", "extension": ' + "[{" * depth, alone)
    assert 400 <= answer.status_code < 500, f"it is refused, not {answer.status_code}"
    closed = "".join('[{"url": "x", "extension": ' for _ in range(depth)) + "[]" + "}]" * depth
    answer = owner.ask("POST", TYPE, f'{{"resourceType": "Observation", "status": "final", "extension": {closed}}}', alone)
    assert 400 <= answer.status_code < 500, f"it is refused, not {answer.status_code}"


@rule("SEC-048", "SHALL", "Nobody's headers say who the server is: addresses in answers are its own.", "house")
def check_forged_host(server: Server, owner: Caller) -> None:
    """X-Forwarded-Host, X-Forwarded-Prefix, Forwarded."""
    server.needs(TYPE, "create", "search-type")
    forged = {"x-forwarded-host": "kit.example", "x-forwarded-prefix": "/kit.example", "forwarded": "host=kit.example"}
    answer = owner.create(server.heart_rate(), forged)
    assert answer.status_code == 201, "a create is answered with 201"
    assert "kit.example" not in answer.headers.get("location", ""), "Location is the server's own"
    searched = owner.get(TYPE, forged, patient=server.patient, _count="1")
    assert "kit.example" not in str(links(searched)), "links are the server's own"
