"""Media types: what a client may ask for, what it may send, and what it is told otherwise."""

import json
from collections.abc import Mapping

import httpx
import pytest
from lxml import etree

from tests.world import BASE, Actor, World, bundle, entry, issues, observation

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


async def ask(camille: Actor, headers: list[tuple[str, str]], query: str = "") -> httpx.Response:
    """A search with exactly these headers (httpx's own `Accept: */*` is not sent)."""
    request = camille.http.build_request("GET", f"{BASE}/Observation{query}")
    del request.headers["accept"]
    sent = [*request.headers.multi_items(), ("Authorization", f"Bearer {camille.token}"), *headers]
    return await camille.http.send(httpx.Request("GET", request.url, headers=sent))


@pytest.mark.requirement("CORE-11", "CORE-12")
@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ([], 200),
        ([""], 200),
        (["application/fhir+json"], 200),
        (["application/FHIR+json"], 200),
        (["application/json"], 200),
        (["text/json"], 200),
        (["*/*"], 200),
        (["application/*"], 200),
        (["text/html, application/xhtml+xml, */*;q=0.8"], 200),
        (["text/html", "application/fhir+json"], 200),
        (["application/fhir+xml;q=0.1, application/fhir+json;q=0.2"], 200),
        (["application/fhir+xml, application/fhir+json"], 200),
        (["application/xml;q=0.5, */*"], 200),
        (["application/fhir+json; fhirVersion=4.0"], 200),
        (["application/fhir+json;fhirversion=4.0.1"], 200),
        (['application/fhir+json; fhirVersion="4.0"; charset=utf-8'], 200),
        (["application/fhir+json; fhirVersion=5.0, application/fhir+json; fhirVersion=4.0; q=0.5"], 200),
        (["application/fhir+json;q=0, application/json"], 200),
        (["text/turtle"], 406),
        (["text/*"], 406),
        (["json/application"], 406),
        (["application/fhir+json; fhirVersion=5.0"], 406),
        (["application/fhir+json; fhirVersion=3.0, application/fhir+xml; fhirVersion=5.0"], 406),
        (["application/fhir+xml;q=0"], 406),
        (["application/fhir+xml;q=0, application/fhir+json;q=0, */*"], 406),
        (["*/*; fhirVersion=5.0"], 406),
        (["application/fhir+json;q=0"], 406),
        (["application/fhir+json; Q=0.000"], 406),
        (["*/*;q=0"], 406),
        (["application/fhir+json;q=0, application/fhir+xml;q=0, */*"], 406),
        ([";"], 406),
    ],
)
async def test_accept(camille: Actor, accept: list[str], status: int) -> None:
    answer = await ask(camille, [("Accept", value) for value in accept])
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    if status == 406:
        assert issues(answer)[0]["code"] == "not-supported"


@pytest.mark.requirement("CORE-11", "CORE-12")
@pytest.mark.parametrize(
    "accept",
    [
        "application/fhir+xml",
        "application/FHIR+XML; charset=utf-8; fhirVersion=4.0",
        "application/xml",
        "text/xml",
        "application/fhir+xml;q=1.0, application/fhir+json;q=0.1",
        "application/fhir+json;q=0.5, text/xml;q=0.6",
        "application/fhir+json;q=0, application/*",
        "application/fhir+json;q=0, */*",
        "application/json;Q=0.1, application/*;q=0.5, */*;q=0",
        "application/fhir+json; fhirVersion=3.0, application/fhir+xml",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "application/fhir+xml;q=x, application/fhir+json;q=0.9",
    ],
)
async def test_accept_of_xml(camille: Actor, accept: str) -> None:
    answer = await ask(camille, [("Accept", accept)])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/fhir+xml; charset=utf-8"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert etree.fromstring(answer.content).tag == "{http://hl7.org/fhir}Bundle"


@pytest.mark.requirement("CORE-11")
@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("json", 200),
        ("application/fhir%2Bjson", 200),
        ("application/fhir+json", 200),
        ("application/json", 200),
        ("text/json", 200),
        ("application/fhir%2Bjson%3B%20fhirVersion%3D4.0", 200),
        ("xml", 200),
        ("application/fhir%2Bxml", 200),
        ("application/fhir+xml", 200),
        ("application/xml", 200),
        ("text/xml", 200),
        ("html", 406),
        ("application/fhir%2Bxml%3BfhirVersion%3D5.0", 406),
        ("application/fhir%2Bjson%3BfhirVersion%3D5.0", 406),
    ],
)
async def test_format_goes_before_accept(camille: Actor, asked: str, status: int) -> None:
    written = "xml" if status == 200 and "xml" in asked else "json"
    for accept in ("text/html", "application/fhir+json", "application/fhir+xml"):
        answer = await ask(camille, [("Accept", accept)], f"?_format={asked}")
        assert (answer.status_code, written_as(answer)) == (status, written)
        posted = await camille.http.post(
            f"{BASE}/Observation/_search",
            content=f"_format={asked}",
            headers={"Authorization": f"Bearer {camille.token}", "Accept": accept, "Content-Type": FORM},
        )
        assert (posted.status_code, written_as(posted)) == (status, written)


async def test_format_is_understood_everywhere(camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    path = f"Observation/{stored['id']}"
    for rest in ("", "/_history", "/_history/1"):
        for name in ("json", "xml"):
            answer = await camille.get(f"{path}{rest}?_format={name}")
            assert (answer.status_code, written_as(answer)) == (200, name)
        assert (await camille.get(f"{path}{rest}?_format=ttl")).status_code == 406
    for name in ("json", "xml"):
        assert written_as(await camille.get(f"metadata?_format={name}")) == name
    assert (await camille.get("metadata?_format=ttl")).status_code == 406
    assert (await camille.put(f"{path}?_format=xml", stored)).status_code == 200
    assert (await camille.put(f"{path}?_format=ttl", stored)).status_code == 406
    assert (await camille.delete(f"{path}?_format=ttl")).status_code == 406
    assert (await camille.get(path)).headers["etag"] == 'W/"2"'


@pytest.mark.requirement("CORE-11", "CORE-16")
@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/fhir+json", 201),
        ("application/fhir+json; charset=UTF-8", 201),
        ('application/fhir+json; charset="utf-8"; fhirVersion=4.0', 201),
        ("application/json", 201),
        ("Application/JSON", 201),
        ("text/plain", 415),
        ("application/fhir+xml; charset=utf-16", 415),
        ("application/fhir+xml; fhirVersion=5.0", 415),
        ("text/html", 415),
        ("application/json-patch+json", 415),
        ("application/fhir+json; charset=iso-8859-1", 415),
        ("application/fhir+json; fhirVersion=5.0", 415),
        (FORM, 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
    ],
)
async def test_content_type_of_a_create(world: World, camille: Actor, content_type: str, status: int) -> None:
    sent = observation(camille.patient)
    answer = await camille.post("Observation", sent, Content_Type=content_type)
    assert answer.status_code == status
    if status == 415:
        assert issues(answer)[0]["code"] == "not-supported"
    assert len(await world.stored("Observation", **stored_with(sent))) == (status == 201)


@pytest.mark.requirement("CORE-11")
async def test_a_write_whose_answer_nobody_would_accept_is_not_made(world: World, camille: Actor) -> None:
    known = await camille.create(observation(camille.patient))
    sent = observation(camille.patient)
    path = f"Observation/{known['id']}"
    answers = [
        await camille.post("Observation", sent, Accept="text/turtle"),
        await camille.put(path, {**known, "status": "amended"}, Accept="text/turtle"),
        await camille.delete(path, Accept="text/turtle"),
        await camille.post("", bundle("transaction", entry("POST", "Observation", sent)), Accept="text/turtle"),
    ]
    assert [answer.status_code for answer in answers] == [406] * 4
    assert await world.stored("Observation", **stored_with(sent)) == []
    assert (await camille.get(path)).json() == known


@pytest.mark.requirement("CORE-11")
async def test_no_content_type_is_none_of_ours(camille: Actor) -> None:
    sent = json.dumps(observation(camille.patient)).encode()
    answer = await camille.http.post(f"{BASE}/Observation", content=sent, headers={"Authorization": f"Bearer {camille.token}"})
    assert answer.status_code == 415


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity"])
async def test_compressed_bodies_are_refused(world: World, camille: Actor, encoding: str) -> None:
    sent = observation(camille.patient)
    answer = await camille.post("Observation", sent, Content_Encoding=encoding)
    assert (answer.status_code, issues(answer)[0]["code"]) == (415, "not-supported")
    assert await world.stored("Observation", **stored_with(sent)) == []


@pytest.mark.parametrize("content_type", ["application/json", "application/fhir+json", "text/plain", ""])
async def test_a_posted_search_is_a_form(camille: Actor, content_type: str) -> None:
    answer = await camille.send("POST", "Observation/_search", b"code=x", Content_Type=content_type)
    assert (answer.status_code, issues(answer)[0]["code"]) == (415, "not-supported")


async def test_a_base_with_a_slash_is_the_base(camille: Actor) -> None:
    sent = {"resourceType": "Bundle", "type": "batch"}
    headers = {"Authorization": f"Bearer {camille.token}", "Content-Type": "application/fhir+json"}
    for url in (BASE, f"{BASE}/"):
        answer = await camille.http.post(url, content=json.dumps(sent), headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (200, "batch-response")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "Observation/abc-1", "DELETE, GET, HEAD, PATCH, PUT"),
        ("POST", "Observation/abc-1", "DELETE, GET, HEAD, PATCH, PUT"),
        ("OPTIONS", "Observation", "DELETE, GET, HEAD, PATCH, POST, PUT"),
        ("TRACE", "Observation", "DELETE, GET, HEAD, PATCH, POST, PUT"),
        ("DELETE", "Observation/abc-1/_history", "GET, HEAD"),
        ("PUT", "Observation/abc-1/_history/1", "GET, HEAD"),
        ("PUT", "", "GET, HEAD, POST"),
    ],
)
async def test_methods_an_address_does_not_have(camille: Actor, method: str, path: str, allowed: str) -> None:
    answer = await camille.send(method, path, b"{}")
    assert answer.status_code == 405
    assert issues(answer)[0]["code"] == "not-supported"
    assert answer.headers["allow"] == allowed


@pytest.mark.requirement("AUD-07")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "AuditEvent", "GET, HEAD"),
        ("PUT", "AuditEvent/abc-1", "GET, HEAD"),
        ("DELETE", "AuditEvent/abc-1", "GET, HEAD"),
        ("GET", "AuditEvent/abc-1/_history", ""),
        ("POST", "Provenance", "GET, HEAD"),
        ("DELETE", "Patient", "GET, HEAD, POST, PUT, PATCH"),
        ("DELETE", "Patient/abc-1", "GET, HEAD, PUT, PATCH"),
    ],
)
async def test_interactions_a_type_does_not_have(camille: Actor, method: str, path: str, allowed: str) -> None:
    sent = {"resourceType": path.partition("/")[0], "id": "abc-1"}
    answer = await camille.send(method, path, sent if method in ("POST", "PUT") else None)
    assert (answer.status_code, issues(answer)[0]["code"]) == (405, "not-supported")
    assert answer.headers["allow"] == allowed


async def test_a_method_is_not_overridden_by_a_header(camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    path = f"Observation/{stored['id']}"
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        assert (await camille.get(path, **{name: "DELETE"})).status_code == 200
    assert (await camille.get(path)).json() == stored


async def test_addresses_come_from_the_settings_not_from_the_request(camille: Actor) -> None:
    spoofed = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example;proto=https"}
    answer = await camille.post("Observation", observation(camille.patient), **spoofed)
    assert answer.headers["location"].startswith(f"{BASE}/Observation/")
    page = (await camille.get(f"Observation?patient={camille.patient}&_count=1", **spoofed)).json()
    urls = [link["url"] for link in page["link"]] + [page["entry"][0]["fullUrl"]]
    assert all(url.startswith(f"{BASE}/Observation") for url in urls)


def written_as(answer: httpx.Response) -> str:
    """The format an answer says it is in, and is."""
    media_type, _, charset = answer.headers["content-type"].partition("; ")
    assert (media_type.rpartition("+")[0], charset) == ("application/fhir", "charset=utf-8")
    assert answer.content.startswith(b"<?xml" if media_type.endswith("xml") else b"{")
    return str(media_type.rpartition("+")[2])


def stored_with(sent: Mapping[str, object]) -> dict[str, str]:
    """Where a resource is stored, if it is, by its identifier."""
    return {"search.identifier": sent["identifier"][0]["value"]}  # type: ignore[index]
