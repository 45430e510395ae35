"""A POST or PATCH that is sent again with its `Idempotency-Key` is done once, and answered under the rights of now."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import pytest

from gateway.access.access import Access
from gateway.exchange.standing import authenticate
from gateway.store.mongo import Session
from gateway.store.receipts import Done, Once
from gateway.store.schema import RECEIPTS
from gateway.store.standing import About
from tests.examples import TYPES, prepare, writer_of
from tests.world import BASE, Actor, World, bundle, consent, entry, expression, issues, label, observation, unique

Asked = tuple[str, str, Any, dict[str, str]]  # method, path, body, headers
PATCH = {"Content_Type": "application/json-patch+json"}
CANCEL = [{"op": "test", "path": "/status", "value": "final"}, {"op": "replace", "path": "/status", "value": "cancelled"}]


def nameless(owner: Actor) -> dict[str, Any]:
    """A reading that nothing but a key keeps from being stored twice."""
    return {name: value for name, value in observation(owner.patient).items() if name != "identifier"}


async def create(owner: Actor) -> Asked:
    return "POST", "Observation", nameless(owner), {}


async def create_known(owner: Actor) -> Asked:
    return "POST", "Observation", observation(owner.patient), {}


async def create_conditionally(owner: Actor) -> Asked:
    return "POST", "Observation", nameless(owner), {"If_None_Exist": "code=99504-3"}


async def patch(owner: Actor) -> Asked:
    stored = await owner.create(nameless(owner))
    return "PATCH", f"Observation/{stored['id']}", CANCEL, PATCH | {"If_Match": 'W/"1"'}


async def patch_by_criteria(owner: Actor) -> Asked:
    await owner.create(nameless(owner))
    return "PATCH", f"Observation?patient={owner.patient}&code=99504-3", CANCEL, PATCH


async def transaction(owner: Actor) -> Asked:
    former, gone = await owner.create(nameless(owner)), await owner.create(nameless(owner))
    update = entry("PUT", f"Observation/{former['id']}", {**former, "status": "amended"}, ifMatch='W/"1"')
    delete = entry("DELETE", f"Observation/{gone['id']}", ifMatch='W/"1"')
    creates = [entry("POST", "Observation", nameless(owner)), entry("POST", "Observation", observation(owner.patient))]
    return "POST", "", bundle("transaction", *creates, update, delete), {}


async def batch(owner: Actor) -> Asked:
    _, _, sent, headers = await transaction(owner)
    return "POST", "", sent | {"type": "batch"}, headers


async def resend(owner: Actor) -> Asked:
    reading = observation(owner.patient)
    await owner.create(reading)
    return "POST", "Observation", reading, {}


async def delete_nothing(owner: Actor) -> Asked:
    return "POST", "", bundle("transaction", entry("DELETE", f"Observation?patient={owner.patient}&code=none")), {}


WAYS = (create, create_known, create_conditionally, patch, patch_by_criteria, transaction, batch, resend, delete_nothing)
MADE = {transaction: 4, batch: 4, resend: 0, delete_nothing: 0}  # versions; one by all others
Way = Callable[[Actor], Awaitable[Asked]]
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


async def send(actor: Actor, asked: Asked, key: str, **headers: str) -> httpx.Response:
    method, path, body, more = asked
    return await actor.send(method, path, body, Idempotency_Key=key, **(more | headers))


def said(answer: httpx.Response) -> tuple[Any, ...]:
    """What a replay repeats."""
    return answer.status_code, *map(answer.headers.get, ("location", "etag", "last-modified")), answer.content


def is_replay(answer: httpx.Response) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


async def versions(world: World, owner: Actor) -> int:
    """How many versions of readings there are in a record."""
    return sum([len(await world.stored(name, patient=owner.patient)) for name in ("Observation", "Observation_history")])


@pytest.mark.requirement("REL-002", "REL-007")
@each_way
@pytest.mark.parametrize("prefer", ["return=minimal", "return=representation", "return=OperationOutcome"])
async def test_it_is_answered_again_and_nothing_is_written_but_the_audit(world: World, way: Way, prefer: str) -> None:
    owner = await world.patient()
    assert "Idempotency-Key" in (await world.http.get(f"{BASE}/metadata")).json()["rest"][0]["documentation"]
    asked, key = await way(owner), unique()
    first = await send(owner, asked, key, Prefer=prefer)
    assert first.is_success, first.text
    assert not is_replay(first)
    before = await world.fingerprint()
    events = len(await world.stored("AuditEvent", patient=owner.patient))
    again = await send(owner, asked, key, Prefer=prefer)
    assert is_replay(again)
    assert said(again) == said(first)
    assert await world.fingerprint() == before
    assert len(await world.stored("AuditEvent", patient=owner.patient)) > events


@pytest.mark.requirement("REL-002", "REL-007")
@each_way
async def test_any_number_at_once_by_two_gateways_is_done_once(world: World, peer: World, way: Way) -> None:
    owner = await world.patient()
    asked, key = await way(owner), unique()
    there = await versions(world, owner)
    at = [owner, peer.bearer(owner)]
    answers = await asyncio.gather(*(send(at[n % 2], asked, key) for n in range(12)))
    assert {said(answer) for answer in answers} == {said(answers[0])}
    assert answers[0].is_success, answers[0].text
    assert await versions(world, owner) - there == MADE.get(way, 1)
    if way is not batch:  # two batches may take their entries in turn
        assert [is_replay(answer) for answer in answers].count(False) == 1


@pytest.mark.requirement("REL-007")
@each_way
async def test_what_was_done_between_look_and_plan_is_answered(
    world: World, peer: World, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await world.patient()
    asked, key = await way(owner), unique()
    find, first = world.gateway.receipts.find, []

    async def look_and_let_the_other_run(access: Access, once: Once) -> list[Done] | None:
        found = await find(access, once)
        if not first:
            first.append(await send(peer.bearer(owner), asked, key))
        return found

    monkeypatch.setattr(world.gateway.receipts, "find", look_and_let_the_other_run)
    again = await send(owner, asked, key)
    assert (said(again), is_replay(again), is_replay(first[0])) == (said(first[0]), True, False)


@pytest.mark.requirement("REL-007")
async def test_of_different_requests_at_once_with_one_key_one_is_done(world: World, peer: World) -> None:
    owner = await world.patient()
    key, at = unique(), [owner, peer.bearer(owner)]
    asked = [await create(owner) for _ in range(8)]
    for n, (_, _, reading, _) in enumerate(asked):
        reading["valueQuantity"]["value"] = n
    answers = await asyncio.gather(*(send(at[n % 2], one, key) for n, one in enumerate(asked)))
    assert sorted(answer.status_code for answer in answers) == [201] + 7 * [422]
    assert len(await world.stored("Observation", patient=owner.patient)) == 1


@pytest.mark.requirement("REL-007")
@pytest.mark.parametrize("type_name", TYPES)
async def test_each_type_is_created_once(world: World, type_name: str) -> None:
    kind = world.gateway.registry[type_name]
    if "create" not in kind.interactions:
        pytest.skip("written by the server alone")
    owner = await world.patient()
    writer = writer_of(world, kind, owner)
    asked: Asked = ("POST", type_name, await prepare(world, type_name, owner), {})
    key = unique()
    first, again = [await send(writer, asked, key) for _ in range(2)]
    assert first.status_code == 201, first.text
    assert (said(again), is_replay(again)) == (said(first), True)


@pytest.mark.requirement("REL-007")
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_it_is_the_version_that_was_made_whatever_became_of_it(world: World, method: str) -> None:
    owner = await world.patient()
    asked, key = await create(owner), unique()
    first = await send(owner, asked, key)
    stored = first.json()
    body = {**stored, "status": "amended"} if method == "PUT" else None
    assert (await owner.send(method, f"Observation/{stored['id']}", body)).is_success
    assert said(await send(owner, asked, key)) == said(first)


OTHERS: Mapping[str, Callable[[Asked], Asked]] = {
    "body": lambda a: (a[0], a[1], {**a[2], "status": "amended"}, a[3]),
    "spelling": lambda a: (a[0], a[1], dict(reversed(a[2].items())), a[3]),
    "condition": lambda a: (a[0], a[1], a[2], {"If_None_Exist": "code=x"}),
    "method": lambda a: ("PATCH", "Observation?code=x", CANCEL, PATCH),
    "path": lambda a: (a[0], "DiagnosticReport", a[2], a[3]),
    "batch": lambda a: (a[0], "", bundle("batch", entry("POST", "Observation", a[2])), a[3]),
    "transaction": lambda a: (a[0], "", bundle("transaction", entry("POST", "Observation", a[2])), a[3]),
}


@pytest.mark.requirement("REL-007")
@pytest.mark.parametrize("other", OTHERS)
async def test_a_key_that_came_with_something_else_is_refused(world: World, other: str) -> None:
    owner = await world.patient()
    asked, key = await create(owner), unique()
    for known, unknown in ((asked, OTHERS[other](asked)), (OTHERS["batch"](asked), asked)):
        assert (await send(owner, known, key)).is_success
        before = await world.fingerprint()
        answer = await send(owner, unknown, key)
        assert (answer.status_code, issues(answer)[0]["code"]) == (422, "invalid"), answer.text
        assert expression(answer) == "Idempotency-Key"
        assert await world.fingerprint() == before
        key = unique()


@pytest.mark.requirement("REL-007")
@pytest.mark.parametrize(
    "key",
    ["", '""', '"', "a b", '"a', 'a"b', "a,b", '"a", "b"', '"a";q=1', "é".encode(), "a" * 256, '"a\\"b"', '"a\tb"'],
)
async def test_what_is_no_key_is_refused_by_the_name_of_its_header(world: World, key: Any) -> None:
    owner = await world.patient()
    for way in (create, patch, transaction):
        answer = await send(owner, await way(owner), key)
        assert (answer.status_code, expression(answer)) == (400, "Idempotency-Key")
        assert "Idempotency-Key" in issues(answer)[0]["diagnostics"]
    assert not [one for one in await world.stored("Observation", patient=owner.patient) if one["version"] > 1]


async def test_a_key_stands_once_in_a_request(world: World) -> None:
    owner = await world.patient()
    sent = [("Authorization", f"Bearer {owner.token}"), ("Content-Type", "application/fhir+json")]
    sent += [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    answer = await world.http.post(f"{BASE}/Observation", json=nameless(owner), headers=sent)
    assert (answer.status_code, expression(answer)) == (400, "Idempotency-Key")


@pytest.mark.parametrize("spelling", ['"{}"', "{}"])
async def test_quotes_are_no_part_of_a_key(world: World, spelling: str) -> None:
    owner = await world.patient()
    asked, key = await create(owner), unique("8e03978e-40d5-43dd-bc93-6894a57f9324/+=")
    first = await send(owner, asked, f'"{key}"')
    assert said(await send(owner, asked, spelling.format(key))) == said(first)


@pytest.mark.requirement("REL-007")
async def test_a_key_is_its_clients_and_its_subjects_own(world: World) -> None:
    owner, other = await world.patient(), await world.patient()
    app = await world.app(owner)
    await world.consent(owner, app, "collect")
    asked, key = await create(owner), unique()
    first = await send(owner, asked, key)
    by_app = await send(app, asked, key)
    assert (first.status_code, by_app.status_code, is_replay(by_app)) == (201, 201, False)
    elsewhere = await send(other, await create(other), key)  # the same client, the portal
    assert (elsewhere.status_code, is_replay(elsewhere)) == (201, False)
    renewed = await world.patient_actor(owner.patient)
    assert said(await send(renewed, asked, key)) == said(first)


@pytest.mark.requirement("REL-007")
async def test_what_was_refused_is_not_kept(world: World) -> None:
    owner = await world.patient()
    key, (method, path, reading, headers) = unique(), await create(owner)
    wrong = {name: value for name, value in reading.items() if name != "status"}
    assert (await send(owner, (method, path, wrong, headers), key)).status_code == 422
    assert (await send(owner, (method, path, reading, headers), key)).status_code == 201


async def test_a_batch_does_what_is_left(world: World) -> None:
    """Each entry is done once, those that were refused are tried again."""
    owner = await world.patient()
    app = await world.app(owner)
    given = await world.consent(owner, app, "collect", ["Observation"])
    sensor = {"resourceType": "Device", "patient": {"reference": f"Patient/{owner.patient}"}}
    sent = bundle("batch", entry("POST", "Observation", nameless(owner)), entry("POST", "Device", sensor))
    asked, key = ("POST", "", sent, {}), unique()

    async def statuses() -> list[str]:
        return [item["response"]["status"][:3] for item in (await send(app, asked, key)).json()["entry"]]

    assert await statuses() == ["201", "403"]
    await world.revoke(owner, given)
    await world.consent(owner, app, "collect", ["Observation", "Device"])
    assert await statuses() == ["201", "201"]
    assert len(await world.stored("Observation", patient=owner.patient)) == 1


@pytest.mark.requirement("REL-007")
@pytest.mark.parametrize("way", [create, create_known, transaction, batch], ids=lambda way: way.__name__)
async def test_who_may_no_longer_write_it_is_answered_as_for_the_first_time(world: World, way: Way) -> None:
    owner = await world.patient()
    app = await world.app(owner)
    given = await world.consent(owner, app, "collect")
    asked, key = await way(app), unique()
    assert (await send(app, asked, key)).is_success
    await world.revoke(owner, given)
    again, fresh = await send(app, asked, key), await send(app, asked, unique())
    assert not is_replay(again)
    assert "withdrawn" in again.text
    if way is batch:  # what it deleted is not there for a fresh call, which says no more than that
        refused = [item["response"]["status"][:3] for item in again.json()["entry"]]
        assert refused == ["403"] * 4
    elif way is transaction:  # which of its entries is named is another matter
        reasons = [
            (answer.status_code, issues(answer)[0]["code"], issues(answer)[0]["diagnostics"]) for answer in (again, fresh)
        ]
        assert reasons[0] == reasons[1]
    else:
        assert said(again) == said(fresh)
    assert (await world.stored("AuditEvent", patient=owner.patient))[-1]["event"]["outcome"] == "8"


async def test_a_token_of_less_scope_gets_what_it_may_have(world: World) -> None:
    owner = await world.patient()
    asked, key = await create(owner), unique()
    await send(owner, asked, key)
    reader = await world.patient_actor(owner.patient, "patient/*.rs")
    again, fresh = await send(reader, asked, key), await send(reader, asked, unique())
    assert (again.status_code, said(again)) == (403, said(fresh))


@pytest.mark.requirement("REL-007")
async def test_who_only_writes_is_shown_what_they_sent_and_no_more(world: World) -> None:
    """An app without the right to read: its own reading, until the patient hides it or somebody else's words are in it."""
    owner = await world.patient()
    app = await world.app(owner)
    labelled = {"securityLabel": [label("N")]}
    await owner.create(consent(owner, app, "collect", ["Observation"], **labelled))
    reading = {**nameless(owner), "meta": {"security": [label("N")]}}
    key = unique()
    first = await send(app, ("POST", "Observation", reading, {}), key)
    assert first.status_code == 201, first.text
    stored = first.json()
    assert (await app.get(f"Observation/{stored['id']}")).status_code == 404
    hide = [{"op": "add", "path": "/valueQuantity/comparator", "value": "<"}]
    asked, patch_key = ("PATCH", f"Observation/{stored['id']}", hide, PATCH), unique()
    patched = await send(app, asked, patch_key)
    assert patched.status_code == 200, patched.text
    assert said(await send(app, asked, patch_key)) == said(patched)
    assert (await owner.put(f"Observation/{stored['id']}", {**stored, "status": "amended"})).status_code == 200
    assert said(await send(app, ("POST", "Observation", reading, {}), key)) == said(first)
    again, fresh = await send(app, asked, patch_key), await send(app, asked, unique())
    assert (again.status_code, said(again)) == (404, said(fresh))  # a patch tells what is there
    masked = {**stored, "meta": {"security": [label("R")]}}
    assert (await owner.put(f"Observation/{stored['id']}", masked)).status_code == 200
    refused = await send(app, ("POST", "Observation", reading, {}), key)
    assert (refused.status_code, expression(refused)) == (403, "Observation.subject"), refused.text


async def test_what_a_bundle_reads_is_read_anew(world: World) -> None:
    owner = await world.patient()
    doctor = await world.professional()
    given = await world.consent(owner, doctor, "access", ["Observation"])
    await world.consent(owner, doctor, "collect", ["Observation"])
    theirs = await owner.create(observation(owner.patient))
    reads = entry("GET", f"Observation?patient={owner.patient}&_id={theirs['id']}")
    for kind in ("transaction", "batch"):
        asked, key = ("POST", "", bundle(kind, entry("POST", "Observation", nameless(owner)), reads), {}), unique()
        first = await send(doctor, asked, key)
        assert first.json()["entry"][1]["resource"]["entry"], first.text
        await world.revoke(owner, given)
        again = (await send(doctor, asked, key)).json()["entry"]
        assert again[0] == first.json()["entry"][0]
        assert "entry" not in again[1]["resource"]
        given = await world.consent(owner, doctor, "access", ["Observation"])


@pytest.mark.requirement("REL-007")
async def test_what_still_runs_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """409 where that takes too long; when it has ended without effect, the key is free."""
    owner = await world.patient()
    asked, key = await create(owner), unique()
    committer = world.gateway.committer
    first = await send(owner, asked, unique())
    digest = (await world.stored(RECEIPTS, written=[["create", 201, "Observation", first.json()["id"], 1]]))[0]["request"]
    access = await authenticate(world.gateway, owner.token, About())
    receipt = world.gateway.receipts.document(access, Once(key, bytes(digest)), [])
    written, ended = asyncio.Event(), asyncio.Event()

    async def work(session: Session) -> None:
        await world.gateway.mongo.insert(RECEIPTS, [receipt], session)
        written.set()
        await ended.wait()
        raise asyncio.CancelledError

    running = asyncio.create_task(world.gateway.mongo.transaction(work, seconds=30))
    await written.wait()
    monkeypatch.setattr(committer, "_seconds", 0.3)
    answer = await send(owner, asked, key)
    assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (409, "conflict", "Idempotency-Key")
    assert answer.headers["retry-after"]
    monkeypatch.setattr(committer, "_seconds", 15)
    waiting = asyncio.create_task(send(owner, asked, key))
    ended.set()
    await asyncio.wait([running])
    assert (await waiting).status_code == 201
    assert is_replay(await send(owner, asked, key))


@pytest.mark.requirement("REL-007")
async def test_a_receipt_holds_nothing_of_what_was_written_and_goes_after_two_days(world: World) -> None:
    owner = await world.patient()
    asked, key = await create(owner), unique("a-key-of-its-own")
    stored = (await send(owner, asked, key)).json()
    written = [["create", 201, "Observation", stored["id"], 1]]
    (receipt,) = await world.stored(RECEIPTS, written=written)
    assert receipt.keys() == {"_id", "at", "request", "written"}
    assert key.encode() not in receipt["_id"]
    assert (len(receipt["_id"]), len(receipt["request"])) == (23, 32)
    index = (await world.gateway.mongo.indexes(RECEIPTS))["at"]
    assert (index["key"], index["expireAfterSeconds"]) == ([("at", 1)], 48 * 3_600)


async def test_it_costs_one_look_and_one_write_and_nothing_without_a_key(world: World) -> None:
    owner = await world.patient()
    method, path, _, _ = await create(owner)

    async def without() -> None:
        await owner.send(method, path, nameless(owner))

    async def with_key() -> None:
        await send(owner, await create(owner), unique())

    assert await world.calls_of(with_key) - await world.calls_of(without) == 2


async def test_it_is_answered_again_in_the_format_asked_for(world: World) -> None:
    owner = await world.patient()
    sent = (
        f'<Observation xmlns="http://hl7.org/fhir"><status value="final"/><code><text value="x"/></code>'
        f'<subject><reference value="Patient/{owner.patient}"/></subject></Observation>'
    ).encode()
    asked: Asked = ("POST", "Observation", sent, {"Content_Type": "application/fhir+xml", "Accept": "application/fhir+xml"})
    key = unique()
    first, again = [await send(owner, asked, key) for _ in range(2)]
    assert (first.status_code, said(again), is_replay(again)) == (201, said(first), True)
    as_json = await send(owner, asked, key, Accept="application/fhir+json")
    assert (as_json.json()["code"], is_replay(as_json)) == ({"text": "x"}, True)


@pytest.mark.parametrize("name", ["Prefer", "X-Request-Id"])
async def test_how_it_is_to_be_answered_is_no_other_request(world: World, name: str) -> None:
    owner = await world.patient()
    asked, key = await create(owner), unique()
    first = await send(owner, asked, key)
    again = await send(owner, asked, key, **{name: "return=minimal"})
    assert (again.status_code, again.headers["location"]) == (201, first.headers["location"])
    assert again.content == (b"" if name == "Prefer" else first.content)


async def test_where_nothing_can_be_done_twice_no_key_is_looked_at(world: World) -> None:
    owner = await world.patient()
    stored = await owner.create(nameless(owner))
    address = f"Observation/{stored['id']}"
    for method, path, body in (("GET", address, None), ("PUT", address, stored), ("POST", "Observation/$validate", stored)):
        for _ in range(2):
            answer = await owner.send(method, path, body, Idempotency_Key="")
            assert answer.status_code == 200, answer.text
            assert not is_replay(answer)
