"""Content of documents comes back as it was sent: as bytes, as a resource, in parts, with headers that make it harmless."""

import json
from base64 import b64decode

import pytest

from gateway.exchange.contents import CHUNK
from tests.documents.papers import PDF, attaching, binary, deposit, deposited, pdf, send_raw, sha1
from tests.world import BASE, World, bundle, document, entry, expression, issues

pytestmark = pytest.mark.requirement("DOC-14")


@pytest.mark.parametrize("size", [1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7])
async def test_what_was_streamed_in_is_streamed_out(world: World, size: int) -> None:
    owner = await world.patient()
    content = (b"x" if size < 9 else b"") + (pdf(size) if size >= 40 else b"y" * (size - 1))
    media = PDF if content.startswith(b"%PDF") else "text/plain"
    made = await send_raw(owner, content, media)
    assert made.status_code == 201, made.text
    raw = f"Binary/{made.json()['id']}"
    await owner.create(attaching(owner.patient, raw))
    answer = await owner.get(raw)
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-type"].partition(";")[0] == media
    assert answer.headers["content-length"] == str(len(content))
    resource = await owner.get(raw, Accept="application/fhir+json")
    assert b64decode(resource.json()["data"]) == content
    assert resource.headers["content-length"] == str(len(resource.content))


async def test_a_transaction_deposits_content_with_what_attaches_it(world: World) -> None:
    owner, content = await world.patient(), pdf(150_000)
    made, raw = await deposited(owner, owner.patient, content)
    stored = (await owner.get(made)).json()
    assert stored["content"][0]["attachment"]["url"] == f"{BASE}/{raw}"
    assert (await owner.get(raw)).content == content
    resource = (await owner.get(raw, Accept="application/fhir+json")).json()
    assert resource["securityContext"] == {"reference": f"Patient/{owner.patient}"}
    assert (resource["contentType"], b64decode(resource["data"])) == (PDF, content)


async def test_long_data_of_an_attachment_becomes_content(world: World) -> None:
    owner, content = await world.patient(), pdf(200_000)
    data = binary(content)["data"]
    sent = document(owner.patient, content=[{"attachment": {"contentType": PDF, "data": data, "hash": sha1(content)}}])
    stored = await owner.create(sent)
    attachment = stored["content"][0]["attachment"]
    assert attachment.keys() == {"contentType", "url", "hash"}
    assert (await owner.get(attachment["url"])).content == content


async def test_content_that_is_sent_again_is_known_by_its_bytes(world: World) -> None:
    owner, content = await world.patient(), pdf(CHUNK + 9)
    made = await send_raw(owner, content)
    for again in (await send_raw(owner, content), await owner.post("Binary", binary(content))):
        assert (again.status_code, again.headers["location"]) == (200, made.headers["location"])
    kept = await world.stored("contents", patient=owner.patient)
    chunks = await world.stored("content_chunks", bucket=owner.patient[:3])
    assert len(kept) == 1
    assert "pending" not in kept[0]
    assert {chunk["_id"].partition("/")[0] for chunk in chunks if chunk["_id"].startswith(kept[0]["_id"])} == {kept[0]["_id"]}


ACCEPTS = {
    "": "raw",
    "*/*": "raw",
    PDF: "raw",
    "application/*": "raw",
    "application/fhir+json": "json",
    "application/json": "json",
    "application/fhir+xml": "xml",
    "application/fhir+json, */*;q=0.1": "json",
    "application/pdf;q=0.5, application/fhir+xml": "xml",
    "image/png": None,
    "application/pdf;q=0": None,
}


@pytest.mark.parametrize("accept", ACCEPTS)
async def test_the_form_is_the_one_that_is_asked_for(world: World, accept: str) -> None:
    owner, content = await world.patient(), pdf()
    _, raw = await deposited(owner, owner.patient, content)
    answer = await owner.get(raw, Accept=accept)
    expected = ACCEPTS[accept]
    assert answer.status_code == (406 if expected is None else 200)
    types = {"raw": PDF, "json": "application/fhir+json", "xml": "application/fhir+xml", None: "application/fhir+json"}
    assert answer.headers["content-type"].partition(";")[0] == types[expected]
    if expected == "xml":
        assert f'<data value="{binary(content)["data"]}"/>' in answer.text
    assert (await owner.get(f"{raw}?_format=json")).json()["contentType"] == PDF


RANGES = {
    "bytes=0-0": (0, 1),
    "bytes=0-9": (0, 10),
    f"bytes={CHUNK - 1}-{CHUNK}": (CHUNK - 1, CHUNK + 1),
    f"bytes={CHUNK}-": (CHUNK, CHUNK + 500),
    "bytes=-1": (CHUNK + 499, CHUNK + 500),
    "bytes=-99999999": (0, CHUNK + 500),
    "bytes=5-99999999": (5, CHUNK + 500),
}


@pytest.mark.parametrize("asked", RANGES)
async def test_a_range_is_cut_out(world: World, asked: str) -> None:
    owner, content = await world.patient(), pdf(CHUNK + 500, seed="ranges")
    _, raw = await deposited(owner, owner.patient, content)
    first, end = RANGES[asked]
    answer = await owner.get(raw, Range=asked)
    assert (answer.status_code, answer.content) == (206, content[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(content)}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,1-2", "bytes=" + ",".join(["0-"] * 200), "bytes=9-3", "lines=0-1", "bytes=-", "bytes=a-b"]
)
async def test_what_is_no_single_range_is_not_taken_for_one(world: World, asked: str) -> None:
    owner, content = await world.patient(), pdf()
    _, raw = await deposited(owner, owner.patient, content)
    answer = await owner.get(raw, Range=asked)
    assert (answer.status_code, answer.content) == (200, content)


@pytest.mark.parametrize("asked", ["bytes=1000-", "bytes=99999999-999999999", "bytes=-0"])
async def test_a_range_behind_the_end_is_refused(world: World, asked: str) -> None:
    owner = await world.patient()
    _, raw = await deposited(owner, owner.patient, pdf(1_000))
    answer = await owner.get(raw, Range=asked)
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */1000")
    assert expression(answer) == "Range"


async def test_who_has_it_already_is_told_so(world: World) -> None:
    owner = await world.patient()
    _, raw = await deposited(owner, owner.patient, pdf())
    etag = (await owner.get(raw)).headers["etag"]
    same = await owner.get(raw, If_None_Match=etag)
    assert (same.status_code, same.content) == (304, b"")
    assert (await owner.get(raw, If_None_Match='"2"')).status_code == 200
    assert (await owner.get(raw, Range="bytes=0-3", If_Range=etag)).status_code == 206
    assert (await owner.get(raw, Range="bytes=0-3", If_Range='"other"')).status_code == 200


async def test_head_says_what_get_would_give(world: World) -> None:
    owner, content = await world.patient(), pdf()
    _, raw = await deposited(owner, owner.patient, content)
    head, whole = await owner.send("HEAD", raw), await owner.get(raw)
    assert head.content == b""
    volatile = {"x-request-id", "date"}
    assert {k: v for k, v in head.headers.items() if k not in volatile} == {
        k: v for k, v in whole.headers.items() if k not in volatile
    }


EVIL = {
    "text/html": b"<html><script>alert(document.cookie)</script></html>",
    "image/svg+xml": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
}


@pytest.mark.parametrize("media", EVIL)
async def test_markup_is_served_so_that_no_browser_runs_it(world: World, media: str) -> None:
    owner = await world.patient()
    made = (await send_raw(owner, EVIL[media], media)).json()
    raw = f"Binary/{made['id']}"
    await owner.create(attaching(owner.patient, raw))
    headers = (await owner.get(raw, Accept="text/html,*/*;q=0.8")).headers
    assert headers["content-disposition"].startswith('attachment; filename="')
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


@pytest.mark.requirement("DOC-24")
@pytest.mark.parametrize(
    ("media", "content"),
    [
        (PDF, b"<html><body>%PDF-1.7</body></html>"),
        (PDF, b"MZ\x90\x00%PDF-1.7"),
        (PDF, b" %PDF-1.7"),
        ("text/plain", b"%PDF-1.7 in plain clothes"),
        ("text/plain", b"\n  <!DOCTYPE HTML><script>alert(1)</script>"),
        ("text/plain", b"GIF89a\x00\x01"),
        ("text/plain", b"caf\xe9 au lait"),
        ("image/png", b"\xff\xd8\xff\xe0"),
        ("text/xml", b"%PDF-1.4"),
    ],
)
async def test_content_that_is_not_what_it_says_is_refused(world: World, media: str, content: bytes) -> None:
    owner = await world.patient()
    for answer in (await send_raw(owner, content, media), await owner.post("Binary", binary(content, media))):
        assert (answer.status_code, expression(answer)) == (422, "Binary.contentType")
    inline = document(owner.patient, content=[{"attachment": {"contentType": media, "data": binary(content)["data"]}}])
    answer = await owner.post("DocumentReference", inline)
    assert (answer.status_code, expression(answer)) == (422, "DocumentReference.content[0].attachment.contentType")
    assert await world.stored("Binary", patient=owner.patient) == []
    assert await world.stored("contents", patient=owner.patient) == []


@pytest.mark.parametrize("media", ["application/x-msdownload", "application/gzip", "application/javascript", ""])
async def test_a_type_that_is_not_listed_is_not_taken(world: World, media: str) -> None:
    owner = await world.patient()
    answer = await send_raw(owner, b"\x1f\x8b\x08\x00", media)
    assert (answer.status_code, issues(answer)[0]["code"]) == (415, "not-supported")
    assert "application/pdf" in issues(answer)[0]["diagnostics"], "it says what is taken"
    if media:
        answer = await owner.post("Binary", binary(b"\x1f\x8b\x08\x00", media))
        assert (answer.status_code, expression(answer)) == (422, "Binary.contentType")


async def test_compressed_bodies_are_not_taken(world: World) -> None:
    owner = await world.patient()
    assert (await send_raw(owner, b"\x1f\x8b\x08\x00", PDF, Content_Encoding="gzip")).status_code == 415


@pytest.mark.parametrize("size", [1_000, 60_000])
async def test_data_in_a_bundle_is_read_alike_whatever_its_length(world: World, size: int) -> None:
    """Long data is set apart before the rest is looked at; what is wrong is told at its own place, and nothing is stored."""
    owner, content = await world.patient(), pdf(size)
    text, sent = binary(content)["data"], deposit(owner.patient, content)
    body = json.dumps(sent, indent=1)
    twice = body.replace(f'"data": "{text}"', f'"data": "{text}", "data": "{text}"')
    wrong = body.replace(text, text[:-8] + "!" + text[-7:])
    for broken, status in ((twice, 400), (wrong, 422)):
        answer = await owner.send("POST", "", broken.encode())
        assert (answer.status_code, expression(answer)) == (status, "Bundle.entry[1].resource.data"), answer.text
    answer = await owner.send("POST", "", body[:-9].encode())
    assert answer.status_code == 400
    assert issues(answer)[0]["diagnostics"].startswith("not JSON")
    assert await world.stored("contents", patient=owner.patient) == []
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": f"Patient/{owner.patient}"},
        "presentedForm": [{"contentType": PDF, "data": binary(content + b"x")["data"], "hash": sha1(content + b"x")}],
    }
    both = bundle("batch", entry("POST", "DiagnosticReport", report), *sent["entry"][1:])
    both["entry"].append(entry("POST", "Binary", binary(content)))
    both["entry"][1]["resource"]["securityContext"] = both["entry"][2]["resource"]["securityContext"] = report["subject"]
    statuses = [one["response"]["status"] for one in (await owner.post("", both)).json()["entry"]]
    assert [status[:3] for status in statuses] == ["201", "201", "200"]
