"""Content under attack: what lies in the database is noise, changed bytes never leave, cut-off uploads leave nothing."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.exchange.contents import CHUNK
from gateway.jobs.sweep import sweep_once
from gateway.problem import Problem
from gateway.store.contents import destroy_key
from tests.documents.papers import PDF, attaching, binary, deposit, deposited, pdf, send_raw
from tests.world import Actor, World, bundle, concept, entry, expression, issues


async def big(owner: Actor, size: int = 2 * CHUNK + 500) -> tuple[str, bytes]:
    """A content of three chunks, attached: Binary/id and bytes."""
    content = pdf(size)
    made = await send_raw(owner, content)
    raw = f"Binary/{made.json()['id']}"
    await owner.create(attaching(owner.patient, raw))
    return raw, content


async def test_what_lies_in_the_database_is_noise(world: World) -> None:
    owner = await world.patient()
    for size in (1_000, CHUNK + 1_000):
        content = pdf(size)
        _, raw = await deposited(owner, owner.patient, content)
        (resource,) = await world.stored("Binary", _id=raw.partition("/")[2])
        (kept,) = await world.stored("contents", _id=resource["content"])
        sealed = [kept.get("data", b"")] + [c["data"] for c in await world.stored("content_chunks", bucket=kept["bucket"])]
        assert not any(content[:50] in bytes(one) or content[500:600] in bytes(one) for one in sealed)
    (key,) = await world.stored("patient_keys", _id=owner.patient)
    assert len(bytes(key["wrapped"])) == 32 + 12 + 16


async def test_equal_files_of_two_people_never_meet(world: World) -> None:
    one, two, content = await world.patient(), await world.patient(), pdf()
    raws = [(await deposited(owner, owner.patient, content))[1] for owner in (one, two)]
    kept = [(await world.stored("contents", patient=owner.patient))[0] for owner in (one, two)]
    assert kept[0]["address"] != kept[1]["address"]
    assert kept[0]["data"] != kept[1]["data"]
    await destroy_key(world.gateway.mongo, one.patient, world.clock())
    assert (await one.get(raws[0])).status_code == 410
    assert (await two.get(raws[1])).content == content


async def test_without_its_key_content_is_gone_and_none_comes_again(world: World) -> None:
    owner, stranger = await world.patient(), await world.patient()
    _, raw = await deposited(owner, owner.patient, pdf())
    await destroy_key(world.gateway.mongo, owner.patient, world.clock())
    for accept in ("*/*", "application/fhir+json"):
        assert (await owner.get(raw, Accept=accept)).status_code == 410
    assert (await stranger.get(raw)).status_code == 404
    for answer in (await owner.post("", deposit(owner.patient, pdf())), await send_raw(owner, pdf(CHUNK + 9))):
        assert (answer.status_code, issues(answer)[0]["code"]) == (422, "business-rule")


async def told(actor: Actor, path: str) -> tuple[int, bytes, bool]:
    """Status and bytes of an answer, and whether it came to its end: what a server would have sent."""
    messages: list[Any] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/fhir/{path}",
        "raw_path": f"/fhir/{path}".encode(),
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {actor.token}".encode())],
        "client": ("127.0.0.1", 1),
    }

    asked = iter([None])

    async def receive() -> dict[str, Any]:
        if next(asked, "gone on") is not None:
            await asyncio.Event().wait()  # nothing more comes, and nobody goes away
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    with suppress(Problem):
        await actor.http._transport.app(scope, receive, send)  # type: ignore[attr-defined]
    start, *bodies = messages
    return start["status"], b"".join(one["body"] for one in bodies), not bodies[-1].get("more_body")


def alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.CRITICAL]


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_changed_chunk_never_leaves(world: World, caplog: pytest.LogCaptureFixture, number: int) -> None:
    owner = await world.patient()
    raw, content = await big(owner)
    (resource,) = await world.stored("Binary", _id=raw.partition("/")[2])
    name = f"{resource['content']}/{number:06}"
    (chunk,) = await world.stored("content_chunks", _id=name)
    changed = bytearray(chunk["data"])
    changed[len(changed) // 2] ^= 1
    await world.gateway.mongo.change("content_chunks", {"_id": name}, {"$set": {"data": bytes(changed)}})
    caplog.clear()
    status, got, is_complete = await told(owner, raw)
    assert (status, is_complete) == ((500, True) if number == 0 else (200, False))
    got = got if status == 200 else b""
    assert got == content[: number * CHUNK]
    assert alarms(caplog) == ["content.damaged"]
    (alarm,) = (record for record in caplog.records if record.getMessage() == "content.damaged")
    events = await owner.search(f"AuditEvent?patient={owner.patient}&outcome=12")
    requests = {one["entity"][0]["what"]["identifier"]["value"]: one for one in events}
    (found,) = requests.items()
    assert found[0] == alarm.fields["request_id"]  # type: ignore[attr-defined]
    assert raw in [one["what"].get("reference") for one in found[1]["entity"]]
    sound = await owner.get(raw, Range=f"bytes={CHUNK * ((number + 1) % 3)}-{CHUNK * ((number + 1) % 3) + 9}")
    assert sound.status_code == 206


async def test_chunks_open_in_their_own_place_only(world: World) -> None:
    owner = await world.patient()
    raw, _ = await big(owner)
    (resource,) = await world.stored("Binary", _id=raw.partition("/")[2])
    first, second = (f"{resource['content']}/{n:06}" for n in (0, 1))
    (chunk,) = await world.stored("content_chunks", _id=second)
    await world.gateway.mongo.change("content_chunks", {"_id": first}, {"$set": {"data": chunk["data"]}})
    assert (await owner.get(raw)).status_code == 500
    other, _ = await big(owner, CHUNK + 9)
    (swapped,) = await world.stored("Binary", _id=other.partition("/")[2])
    (foreign,) = await world.stored("content_chunks", _id=f"{swapped['content']}/000000")
    await world.gateway.mongo.change("content_chunks", {"_id": first}, {"$set": {"data": foreign["data"]}})
    assert (await owner.get(raw)).status_code == 500


async def test_a_content_that_was_cut_short_is_not_taken_for_whole(world: World) -> None:
    owner = await world.patient()
    raw, _ = await big(owner)
    await world.gateway.mongo.change("Binary", {"_id": raw.partition("/")[2]}, {"$set": {"size": CHUNK}})
    assert (await owner.get(raw)).status_code == 500


async def pieces(content: bytes, *, breaks: bool) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), 65_536):
        yield content[begin : begin + 65_536]
    if breaks:
        raise ConnectionResetError


async def test_an_upload_that_breaks_off_leaves_nothing(world: World) -> None:
    owner = await world.patient()
    answer = await send_raw(owner, pieces(pdf(2 * CHUNK), breaks=True))
    assert answer.status_code == 500
    assert await world.stored("contents", patient=owner.patient) == []
    assert await world.stored("Binary", patient=owner.patient) == []
    known = {one["_id"] for one in await world.stored("contents")}
    left = [c for c in await world.stored("content_chunks") if c["_id"].partition("/")[0] not in known]
    assert left == []


async def test_an_upload_that_is_too_long_is_refused_and_leaves_nothing(world: World) -> None:
    owner = await world.patient()
    most = world.gateway.limits.content_bytes
    answer = await send_raw(owner, b"", Content_Length=str(most + 1))
    assert (answer.status_code, issues(answer)[0]["code"]) == (413, "too-long")


async def test_a_long_body_is_taken_from_nobody_who_may_not_deposit(world: World) -> None:
    owner, service = await world.patient(), await world.service()
    taken = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b"%PDF-" + bytes(65_536)

    answer = await send_raw(service, counted(), X_Security_Context=f"Patient/{owner.patient}")
    assert answer.status_code == 422
    assert taken <= 1
    narrow = await world.patient_actor(owner.patient, "patient/Observation.cruds")
    assert (await send_raw(narrow, counted())).status_code == 403
    assert taken <= 2
    assert await world.stored("contents", patient=owner.patient) == []


async def test_what_no_resource_names_is_swept_after_a_day(world: World) -> None:
    owner = await world.patient()
    kept, content = await big(owner)
    (named,) = await world.stored("contents", patient=owner.patient)
    bucket = owner.patient[:3]
    orphan = f"{bucket}-orphan"
    await world.gateway.mongo.insert("contents", [{"_id": orphan, "bucket": bucket, "pending": world.clock()}])
    await world.gateway.mongo.insert("content_chunks", [{"_id": f"{orphan}/000000", "bucket": bucket}])
    await sweep_once(world.gateway)
    assert await world.stored("contents", _id=orphan)
    world.clock.ahead = timedelta(hours=25)
    await sweep_once(world.gateway)
    assert await world.stored("contents", _id=orphan) == []
    assert await world.stored("content_chunks", _id=f"{orphan}/000000") == []
    assert (await world.stored("contents", patient=owner.patient)) == [named]
    assert (await owner.get(kept)).content == content


async def test_a_transaction_that_is_refused_leaves_no_content(world: World) -> None:
    owner = await world.patient()
    sent = deposit(owner.patient, pdf())
    sent["entry"].append(entry("POST", "Observation", {"resourceType": "Observation"}))
    assert (await owner.post("", sent)).status_code == 422
    assert await world.stored("contents", patient=owner.patient) == []


async def test_one_content_of_two_types_in_one_transaction_is_stored_once(world: World) -> None:
    owner, content = await world.patient(), b"<note/>"
    sent = bundle("transaction", *(entry("POST", "Binary", binary(content, m)) for m in ("text/xml", "application/xml")))
    answer = await owner.post("", sent)
    assert answer.status_code == 200, answer.text
    assert len(await world.stored("contents", patient=owner.patient)) == 1
    assert len(await world.stored("Binary", patient=owner.patient)) == 2


async def test_a_report_attaches_content_too(world: World) -> None:
    owner, doctor, content = await world.patient(), await world.professional(), pdf()
    raw = f"Binary/{(await send_raw(owner, content)).json()['id']}"
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": concept("http://loinc.org", "11502-2"),
        "subject": {"reference": f"Patient/{owner.patient}"},
        "presentedForm": [{"contentType": PDF, "url": raw, "size": len(content)}],
    }
    wrong = await owner.post("DiagnosticReport", {**report, "presentedForm": [{"url": raw, "size": 1}]})
    assert expression(wrong) == "DiagnosticReport.presentedForm[0].size"
    await owner.create(report)
    assert (await owner.get(raw)).content == content
    await world.consent(owner, doctor, types=["DocumentReference"])
    assert (await doctor.get(raw)).status_code == 404
    await world.consent(owner, doctor, types=["DiagnosticReport"])
    assert (await doctor.get(raw)).content == content


async def test_a_patch_that_brings_data_must_be_allowed_to_bring_content(world: World) -> None:
    """It lies sealed, like any other, whatever its length; what is not what it says is refused at its element."""
    owner = await world.patient()
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": concept("http://loinc.org", "11502-2"),
        "subject": {"reference": f"Patient/{owner.patient}"},
        "presentedForm": [{"contentType": PDF, "data": binary(pdf())["data"]}],
    }
    made = await owner.create(report)
    where, patch_type = f"DiagnosticReport/{made['id']}", "application/json-patch+json"
    for content, status in ((pdf(9_000), 200), (pdf(60_000), 200), (b"<html>", 422)):
        patch = [{"op": "add", "path": "/presentedForm/0/data", "value": binary(content)["data"]}]
        answer = await owner.send(
            "PATCH", where, [{"op": "remove", "path": "/presentedForm/0/url"}, *patch], Content_Type=patch_type
        )
        assert answer.status_code == status, answer.text
    assert expression(answer) == "DiagnosticReport.presentedForm[0].contentType"
    assert len(await world.stored("contents", patient=owner.patient)) == 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.from_regex(r"(bytes|Bytes|x)? ?=? ?[0-9]{0,20}-?[0-9]{0,20}(,[0-9]{0,3}-[0-9]{0,3}){0,3}", fullmatch=True))
async def test_no_range_gives_anything_but_the_content(fuzzed: tuple[Actor, str, bytes], asked: str) -> None:
    owner, raw, content = fuzzed
    answer = await owner.get(raw, Range=asked)
    assert answer.status_code in (200, 206, 416)
    if answer.status_code == 200:
        assert answer.content == content
    elif answer.status_code == 206:
        first, _, last = answer.headers["content-range"].removeprefix("bytes ").partition("/")[0].partition("-")
        assert answer.content == content[int(first) : int(last) + 1] != b""


@pytest.fixture(scope="session")
async def fuzzed(session_world: World) -> tuple[Actor, str, bytes]:
    owner = await session_world.patient()
    raw, content = await big(owner, CHUNK + 100)
    return owner, raw, content
