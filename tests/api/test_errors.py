"""Errors: every status says what is wrong in a valid OperationOutcome, and nothing about anybody."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest
from fhir.resources.R4B.operationoutcome import OperationOutcome
from pymongo.errors import AutoReconnect, OperationFailure

from gateway.api.edge import Edge
from gateway.exchange import read as reading
from gateway.metrics import Metrics
from gateway.problem import STATUS, Problem
from gateway.store import resources as store
from gateway.store.audit import AuditWriter
from tests.world import BASE, Actor, World, bundle, consent, device, entry, issues, observation, unique

CANARY = "Canari-4711"

Provoke = Callable[[World, Actor], Awaitable[httpx.Response]]


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


# --- every status of the table ---------------------------------------------------------------------------------------------


async def gone(_: World, camille: Actor) -> httpx.Response:
    stored = await camille.create(observation(camille.patient))
    await camille.delete(f"Observation/{stored['id']}")
    return await camille.get(f"Observation/{stored['id']}")


async def taken(_: World, camille: Actor) -> httpx.Response:
    sent = observation(camille.patient)
    await camille.create(sent)
    return await camille.post("Observation", {**sent, "status": "amended"})


async def stale(_: World, camille: Actor) -> httpx.Response:
    stored = await camille.create(observation(camille.patient))
    return await camille.put(f"Observation/{stored['id']}", stored, If_Match='W/"7"')


async def ambiguous(_: World, camille: Actor) -> httpx.Response:
    for _n in range(2):
        await camille.create(observation(camille.patient))
    return await camille.post("Observation", observation(camille.patient), If_None_Exist="status=final")


async def no_scope(world: World, camille: Actor) -> httpx.Response:
    narrow = await world.patient_actor(camille.patient, "patient/Device.rs")
    return await narrow.get(f"Observation?patient={camille.patient}")


async def not_theirs_to_write(_: World, camille: Actor) -> httpx.Response:
    return await camille.post("Organization", {"resourceType": "Organization", "name": "x"})


def asking(method: str, path: str, body: Any = None, **headers: str) -> Provoke:
    async def ask(_: World, camille: Actor) -> httpx.Response:
        return await camille.send(method, path, body, **headers)

    return ask


def creating(**elements: Any) -> Provoke:
    async def create(_: World, camille: Actor) -> httpx.Response:
        sent = observation(camille.patient, **elements)
        return await camille.post("Observation", {name: value for name, value in sent.items() if value is not None})

    return create


async def anonymous(world: World, _: Actor) -> httpx.Response:
    return await world.http.get(f"{BASE}/Observation")


PROVOKED: dict[str, tuple[Provoke, int, str]] = {
    "not JSON": (asking("POST", "Observation", b"{"), 400, "structure"),
    "unknown element": (creating(foo=1), 400, "structure"),
    "wrong parameter": (asking("GET", "Observation?date=x"), 400, "invalid"),
    "unknown parameter": (asking("GET", "Observation?foo=x"), 400, "not-supported"),
    "no token": (anonymous, 401, "login"),
    "unknown token": (asking("GET", "Observation", Authorization="Bearer x"), 401, "unknown"),
    "no scope": (no_scope, 403, "forbidden"),
    "not theirs to write": (not_theirs_to_write, 403, "forbidden"),
    "unknown resource": (asking("GET", "Observation/abc-1"), 404, "not-found"),
    "unknown type": (asking("GET", "Foo/abc-1"), 404, "not-supported"),
    "unknown address": (asking("GET", "a/b/c/d/e"), 404, "not-found"),
    "unknown method": (asking("POST", "Observation/abc-1"), 405, "not-supported"),
    "unknown interaction": (asking("DELETE", "AuditEvent/abc-1"), 405, "not-supported"),
    "not acceptable": (asking("GET", "Observation", Accept="text/turtle"), 406, "not-supported"),
    "taken": (taken, 409, "duplicate"),
    "gone": (gone, 410, "deleted"),
    "stale": (stale, 412, "conflict"),
    "ambiguous": (ambiguous, 412, "multiple-matches"),
    "too long": (asking("POST", "Observation", b"{}", Content_Length="99999999999"), 413, "too-long"),
    "too many entries": (asking("POST", "", bundle("batch", *[entry("GET", "Patient/x")] * 1_001)), 413, "too-costly"),
    "long URL": (asking("GET", f"Observation?code={'x' * 9_000}"), 414, "too-long"),
    "no FHIR": (asking("POST", "Observation", b"x", Content_Type="text/plain"), 415, "not-supported"),
    "missing element": (creating(code=None), 422, "required"),
    "wrong code": (creating(status="done"), 422, "code-invalid"),
    "wrong value": (creating(effectiveDateTime="x"), 422, "value"),
    "dangling reference": (creating(device={"reference": "Device/abc-1"}), 422, "not-found"),
    "long headers": (asking("GET", "Observation", X_Big="x" * 20_000), 431, "too-long"),
}


@pytest.mark.requirement("CORE-13")
@pytest.mark.parametrize("name", PROVOKED)
async def test_an_error_is_a_valid_operation_outcome(world: World, camille: Actor, name: str) -> None:
    provoke, status, code = PROVOKED[name]
    answer = await provoke(world, camille)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-length"] == str(len(answer.content))
    outcome = OperationOutcome.model_validate_json(answer.content)
    assert code in [issue.code for issue in outcome.issue]
    assert all(issue.severity == "error" and issue.diagnostics for issue in outcome.issue)


@pytest.mark.requirement("CORE-13")
def test_every_status_of_the_table_is_provoked_here_or_below() -> None:
    below = {500, 503, 504}
    elsewhere = {429}  # test_throttle.py
    assert {status for _, status, _ in PROVOKED.values()} | below | elsewhere >= set(STATUS.values())


# --- what fails inside -----------------------------------------------------------------------------------------------------


class Heard(logging.Handler):
    """Every log record, as it would be written and as it is."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("httpx"):
            return  # the client of the tests
        self.lines.append(f"{record.getMessage()} {record.__dict__}")
        self.events.append((record.getMessage(), getattr(record, "fields", {})))


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What the gateway and everything below it logs."""
    handler = Heard()
    loggers = [(logging.getLogger(name), level) for name, level in (("gateway", logging.DEBUG), ("", logging.INFO))]
    before = [logger.level for logger, _ in loggers]
    for logger, level in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
    yield handler
    for (logger, _), level in zip(loggers, before, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


FAILURES: list[tuple[object, str, Exception, int, str]] = [
    (store, "read", ValueError(CANARY), 500, "exception"),
    (store, "read", KeyError(CANARY), 500, "exception"),
    (store, "read", RecursionError(CANARY), 500, "exception"),
    (store, "read", MemoryError(CANARY), 500, "exception"),
    (store, "read", UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY), 500, "exception"),
    (reading, "body_of", RuntimeError(CANARY), 500, "exception"),
    (store, "read", TimeoutError(CANARY), 504, "timeout"),
    (store, "read", Problem("transient", "the store cannot be reached at the moment"), 503, "transient"),
]


@pytest.mark.requirement("ATK-T37", "AUD-006", "AUD-05")
@pytest.mark.parametrize(("module", "name", "error", "status", "code"), FAILURES)
async def test_what_fails_inside_says_nothing_of_itself(
    world: World,
    camille: Actor,
    monkeypatch: pytest.MonkeyPatch,
    heard: Heard,
    module: object,
    name: str,
    error: Exception,
    status: int,
    code: str,
) -> None:
    stored = await camille.create(observation(camille.patient))

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, name, fail)
    request_id = unique("r")
    answer = await camille.get(f"Observation/{stored['id']}", X_Request_Id=request_id)
    assert (answer.status_code, issues(answer)[0]["code"]) == (status, code)
    assert answer.headers["x-request-id"] == request_id
    if status == 500:
        expected = {"severity": "error", "code": "exception", "diagnostics": f"Internal error (request {request_id})"}
        assert answer.json() == {"resourceType": "OperationOutcome", "issue": [expected]}
    assert CANARY not in answer.text
    [(_, fields)] = [event for event in heard.events if event[0] == "request.failed"]
    assert fields["request_id"] == request_id
    assert fields["detail"].startswith(f"{type(error).__name__} at ")
    secrets = (CANARY, stored["id"], camille.token, camille.patient)
    assert [line for line in heard.lines if any(secret in line for secret in secrets)] == []
    [event] = [e for e in await world.stored("AuditEvent", patient=camille.patient) if e["event"]["request_id"] == request_id]
    assert (event["event"]["outcome"], CANARY in str(event)) == ("12", False)


@pytest.mark.requirement("ATK-T37", "AUD-006", "AUD-05")
@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("error", [ValueError(CANARY), Problem("exception", CANARY)])
async def test_what_fails_inside_an_entry_is_recorded_and_says_nothing_of_itself(
    world: World, monkeypatch: pytest.MonkeyPatch, heard: Heard, kind: str, error: Exception
) -> None:
    owner = await world.patient()
    stored = await owner.create(observation(owner.patient))

    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store, "read", fail)
    asked = bundle(kind, entry("GET", f"Observation/{stored['id']}"), entry("GET", f"Observation?patient={owner.patient}"))
    request_id = unique("r")
    answer = await owner.post("", asked, X_Request_Id=request_id)
    expected = {"severity": "error", "code": "exception", "diagnostics": f"Internal error (request {request_id})"}
    if kind == "batch":
        failed, found = answer.json()["entry"]
        assert failed["response"]["status"] == "500 Internal Server Error"
        assert failed["response"]["outcome"]["issue"] == [expected | {"expression": ["Bundle.entry[0]"]}]
        assert found["resource"]["total"] == 1
    else:
        assert (answer.status_code, issues(answer)) == (500, [expected])
    assert CANARY not in answer.text
    [(_, fields)] = [event for event in heard.events if event[0] == "request.failed"]
    assert (fields["request_id"], CANARY in str(heard.lines)) == (request_id, False)
    events = [e["event"] for e in await world.stored("AuditEvent", patient=owner.patient)]
    recorded = sorted((e["interaction"], e["outcome"]) for e in events if e["request_id"] == request_id)
    assert recorded == ([("read", "12"), ("search-type", "0")] if kind == "batch" else [("transaction", "12")])


@pytest.mark.requirement("ATK-T37", "AUD-006", "LIM-004")
@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (OperationFailure(CANARY, 9_999), 500, "Internal error (request r-2)"),
        (AutoReconnect(CANARY), 503, "the store cannot be reached at the moment"),
    ],
)
async def test_the_words_of_the_database_are_not_passed_on(
    world: World, camille: Actor, monkeypatch: pytest.MonkeyPatch, heard: Heard, error: Exception, status: int, text: str
) -> None:
    class Broken:
        delegate = property(lambda self: self)  # what Motor wraps

        def find(self, *_: object, **__: object) -> Any:
            raise error

    monkeypatch.setitem(world.gateway.mongo._collections, "Observation", Broken())
    answer = await camille.get(f"Observation?code={CANARY}", X_Request_Id="r-2")
    assert (answer.status_code, issues(answer)[0]["diagnostics"]) == (status, text)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert [line for line in heard.lines if CANARY in line or camille.token in line] == []


@pytest.mark.requirement("AUD-08")
@pytest.mark.parametrize("path", ["Observation/{id}", "Observation?_id={id}", "Observation/{id}/_history", "Observation/abc-1"])
async def test_what_cannot_be_recorded_is_not_answered(camille: Actor, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    stored = await camille.create(observation(camille.patient, note=[{"text": CANARY}]))

    async def fail(*_: object) -> None:
        raise Problem("transient", "the access cannot be recorded, so it is not given", headers={"Retry-After": "2"})

    monkeypatch.setattr(AuditWriter, "record", fail)
    answer = await camille.get(path.format(id=stored["id"]))
    assert (answer.status_code, issues(answer)[0]["code"], answer.headers["retry-after"]) == (503, "transient", "2")
    assert CANARY not in answer.text


async def test_a_request_that_takes_too_long_is_ended(world: World) -> None:
    async def endless(*_: object) -> None:
        await asyncio.Event().wait()

    hasty = msgspec.structs.replace(world.gateway.limits, request_seconds=0.01)
    edge = Edge(endless, hasty, Metrics({}), lambda _: "/fhir", lambda _: False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(edge)) as http:
        answer = await http.get(f"{BASE}/metadata")
    assert (answer.status_code, issues(answer)[0]["code"]) == (504, "timeout")


# --- nothing of anybody ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("AUD-006", "OPS-04", "ATK-T36")
async def test_errors_and_logs_hold_no_value_of_anything_that_was_sent(world: World, camille: Actor, heard: Heard) -> None:
    known = {"identifier": [{"system": "urn:x", "value": f"{CANARY}-{unique()}"}]}
    stored = await camille.create(observation(camille.patient, **known))
    doctor = await world.professional()
    bodies: list[Any] = [
        observation(CANARY),
        observation(camille.patient, status=CANARY),
        observation(camille.patient, effectiveDateTime=CANARY),
        observation(camille.patient, device={"reference": f"Device/{CANARY}"}),
        observation(camille.patient, device={"reference": CANARY}),
        observation(camille.patient, valueQuantity={"value": CANARY}),
        observation(camille.patient, text={"status": "generated", "div": f"<div><script>{CANARY}</script></div>"}),
        observation(camille.patient, note=[{"text": CANARY}, {"time": CANARY}]),
        observation(camille.patient, contained=[{"resourceType": "Patient", "id": CANARY, "gender": CANARY}]),
        {**observation(camille.patient, **known), "status": "amended"},
        {"resourceType": CANARY},
        consent(camille, doctor, CANARY),
        f'{{"resourceType":"Observation","status":"{CANARY}"'.encode(),
        CANARY.encode(),
    ]
    answers = [await camille.post("Observation", body) for body in bodies]
    answers += [
        await camille.put(f"Observation/{stored['id']}", {**stored, "id": CANARY}),
        await camille.put(f"Observation/{CANARY}", {**stored, "id": CANARY}),
        await camille.put(f"Observation/{stored['id']}", stored, If_Match=CANARY),
        await camille.get(f"Observation/{CANARY}"),
        await camille.get(f"{CANARY}/x"),
        await camille.get(f"Observation/{CANARY}/_history/{CANARY}"),
        await camille.get(f"Observation/{stored['id']}/_history?_count={CANARY}"),
        await camille.post("Observation", observation(camille.patient), If_None_Exist=f"date={CANARY}"),
        await camille.post("Observation", b"{}", Content_Type=CANARY),
        await camille.get("Observation", Accept=CANARY),
        await camille.get("Observation", Authorization=f"Bearer {CANARY}"),
        await camille.get(f"Observation?_cursor={CANARY}"),
        await doctor.get(f"Observation/{stored['id']}"),
        await doctor.post("Device", device(CANARY)),
    ]
    for name in (
        "date",
        "_lastUpdated",
        "value-quantity",
        "code:missing",
        "_sort",
        "_count",
        "_summary",
        "_total",
        "patient:of",
    ):
        answers.append(await camille.get(f"Observation?{name}={CANARY}"))
    answers.append(await camille.post("", bundle("transaction", *(entry("POST", "Observation", body) for body in bodies[:9]))))
    answers.append(
        await camille.post("", bundle("batch", entry("GET", f"Observation/{CANARY}"), entry("GET", f"{CANARY}?{CANARY}")))
    )
    for answer in answers:
        assert answer.status_code >= 400 or answer.json()["type"] == "batch-response", answer.text
        assert CANARY not in answer.text, answer.text
        assert camille.patient not in answer.text
    secrets = (CANARY, stored["id"], camille.token, doctor.token, camille.patient, "Durand")
    assert [line for line in heard.lines if any(secret in line for secret in secrets)] == []
    routes = {fields["route"] for event, fields in heard.events if event == "request"}
    assert routes <= {
        "/fhir",
        "/fhir/Observation",
        "/fhir/Observation/{id}",
        "/fhir/{type}/{id}",
        "/fhir/Device",
        "/fhir/Practitioner",
    } | {
        "/fhir/Observation/{id}/_history",
        "/fhir/Observation/{id}/_history/{version}",
    }
