"""Whatever is done in JSON is done in XML as well: every type, every interaction, every refusal; and it is the same data."""

import json
from typing import Any

import httpx
import pytest
from lxml import etree

from gateway.fhir.xml_read import XmlReader
from gateway.fhir.xml_shape import Shapes
from gateway.fhir.xml_write import XmlWriter
from tests.examples import TYPES, a_change, bring, prepare, writer_of
from tests.unit.fhir.test_codec import parse
from tests.world import BASE, Actor, World, bundle, device, entry, observation, unique

XML = "application/fhir+xml"
FHIR = "{http://hl7.org/fhir}"
NAMESPACE = 'xmlns="http://hl7.org/fhir"'


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


class Client:
    """A client that speaks XML alone."""

    def __init__(self, world: World, actor: Actor) -> None:
        shapes = Shapes(world.gateway.registry.types)
        self._reader, self._writer, self._actor = XmlReader(shapes, 64), XmlWriter(shapes), actor

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """A request in XML, whose answer must be in XML. `body`: JSON-ready, or a document as it is."""
        if body is not None:
            headers["Content_Type"] = XML
            body = body.encode() if isinstance(body, str) else self.write(body)
        answer = await self._actor.send(method, path, body, Accept=XML, **headers)
        assert answer.headers.get("content-type", f"{XML}; charset=utf-8") == f"{XML}; charset=utf-8"
        return answer

    async def done(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """What a request that must succeed gives, as JSON with exact numbers."""
        answer = await self.send(method, path, body, **headers)
        assert answer.is_success, answer.text
        return self.read(answer)

    def write(self, resource: Any) -> bytes:
        """The document of a resource."""
        return self._writer.write(json.dumps(resource).encode())

    def read(self, answer: httpx.Response) -> Any:
        """What an answer says."""
        return parse(self._reader.read(answer.content))

    def refusal(self, answer: httpx.Response) -> tuple[int, str, str | None]:
        """Status, code and expression of an answer that must be an OperationOutcome."""
        issue = self.read(answer)["issue"][0]
        return answer.status_code, issue["code"], (issue.get("expression") or [None])[0]


@pytest.fixture(scope="module")
def xml(session_world: World, camille: Actor) -> Client:
    return Client(session_world, camille)


@pytest.mark.requirement("CORE-11")
@pytest.mark.parametrize("name", [name for name in TYPES if name not in ("AuditEvent", "Provenance")])
async def test_every_type_is_written_and_found(world: World, name: str) -> None:
    owner = await world.patient()
    kind = world.gateway.registry[name]
    client = Client(world, writer_of(world, kind, owner))
    sent = await prepare(world, name, owner)
    created = await client.done("POST", name, sent)
    path = f"{name}/{created['id']}"
    plain = await writer_of(world, kind, owner).get(path)
    assert parse(plain.content) == created
    assert without_meta(created) == without_meta(parse(json.dumps(sent).encode()))
    assert await client.done("GET", path) == created
    assert await client.done("GET", f"{path}/_history/1") == created
    assert (await client.done("GET", f"{path}/_history"))["entry"][0]["resource"] == created
    (found,) = (await client.done("GET", f"{name}?_id={created['id']}"))["entry"]
    assert found["resource"] == created
    updated = await client.done("PUT", path, {**json.loads(plain.content), **a_change(kind)}, If_Match='W/"1"')
    assert updated == updated | a_change(kind)
    assert updated["meta"]["versionId"] == "2"
    listed = await client.done("POST", "", bundle("batch", entry("GET", path)))
    assert listed["entry"][0]["resource"] == updated


@pytest.mark.parametrize("name", ["AuditEvent", "Provenance"])
async def test_every_type_that_is_read_alone(world: World, name: str) -> None:
    owner = await world.patient()
    await bring(world, "DocumentReference", owner)
    plain = (await owner.get(f"{name}?_count=5")).json()
    found = await Client(world, owner).done("GET", f"{name}?_count=5")
    assert found["type"] == plain["type"] == "searchset"
    for one in plain.get("entry", ()):
        assert await Client(world, owner).done("GET", f"{name}/{one['resource']['id']}") == parse(
            json.dumps(one["resource"]).encode()
        )


def without_meta(resource: Any) -> Any:
    return {name: value for name, value in resource.items() if name not in ("id", "meta")}


async def test_digits_and_narrative_are_kept(xml: Client, camille: Actor) -> None:
    div = '<div xmlns="http://www.w3.org/1999/xhtml"><p>Glucose: <b>5.10</b> &lt; 6</p></div>'
    document = f"""<?xml version="1.0" encoding="UTF-8"?>
        <Observation {NAMESPACE}>
          <text><status value="generated"/>{div}</text>
          <identifier><value value="{unique("r")}"/></identifier>
          <status id="s" value="final"/>
          <code><text value="Glucose &amp; &quot;more&quot;"/></code>
          <subject><reference value="Patient/{camille.patient}"/></subject>
          <effectiveDateTime value="2026-11-20T08:00:00+01:00"/>
          <valueQuantity><value value="5.10"/><unit value="mmol/L"/></valueQuantity>
        </Observation>"""
    created = await xml.done("POST", "Observation", document)
    plain = await camille.get(f"Observation/{created['id']}")
    assert b'"value":5.10' in plain.content
    assert plain.json()["text"]["div"] == div
    assert plain.json()["_status"] == {"id": "s"}
    answer = await xml.send("GET", f"Observation/{created['id']}")
    root = etree.fromstring(answer.content)
    assert root.find(f".//{FHIR}valueQuantity/{FHIR}value").get("value") == "5.10"
    assert root.find(f"{FHIR}text/{{http://www.w3.org/1999/xhtml}}div") is not None
    assert (await xml.send("GET", f"Observation/{created['id']}")).content == answer.content


async def test_a_reading_is_known_again_in_the_other_format(xml: Client, camille: Actor) -> None:
    sent = observation(camille.patient)
    first = await camille.post("Observation", sent)
    again = await xml.send("POST", "Observation", sent)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["location"] == first.headers["location"]


async def test_an_etag_is_of_the_version_not_of_the_format(xml: Client, camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    path = f"Observation/{stored['id']}"
    plain, other = await camille.get(path), await xml.send("GET", path)
    for name in ("etag", "last-modified"):
        assert plain.headers[name] == other.headers[name]
    unchanged = await xml.send("GET", path, If_None_Match=plain.headers["etag"])
    assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_a_transaction(xml: Client, camille: Actor) -> None:
    urn = "urn:uuid:0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0"
    reading = observation(camille.patient, device={"reference": urn})
    sent = bundle("transaction", entry("POST", "Observation", reading), entry("POST", "Device", device(camille.patient), urn))
    answer = await xml.done("POST", "", sent, Prefer="return=representation")
    assert [one["response"]["status"] for one in answer["entry"]] == ["201 Created"] * 2
    created, sensor = (one["resource"] for one in answer["entry"])
    assert created["device"]["reference"] == f"Device/{sensor['id']}"


async def test_a_refused_entry_names_its_element(xml: Client, camille: Actor) -> None:
    sent = observation(camille.patient)
    wrong = {name: value for name, value in observation(camille.patient).items() if name != "status"}
    answer = await xml.send(
        "POST", "", bundle("transaction", entry("POST", "Observation", sent), entry("POST", "Observation", wrong))
    )
    assert xml.refusal(answer)[2] == "Bundle.entry[1].resource.status"
    held = "<resource><Observation><nick/></Observation></resource>"
    document = f'<Bundle {NAMESPACE}><type value="batch"/><entry>{held}</entry></Bundle>'
    assert xml.refusal(await xml.send("POST", "", document)) == (400, "structure", "Bundle.entry[0].resource.nick")


@pytest.mark.requirement("CORE-08")
async def test_a_patch(xml: Client, camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    parts = [
        {"name": "type", "valueCode": "replace"},
        {"name": "path", "valueString": "Observation.status"},
        {"name": "value", "valueCode": "amended"},
    ]
    sent = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    patched = await xml.done("PATCH", f"Observation/{stored['id']}", sent)
    assert (patched["status"], patched["meta"]["versionId"]) == ("amended", "2")
    by_json = await camille.send(
        "PATCH",
        f"Observation/{stored['id']}",
        [{"op": "replace", "path": "/status", "value": "final"}],
        Content_Type="application/json-patch+json",
        Accept=XML,
    )
    assert (xml.read(by_json)["status"], by_json.status_code) == ("final", 200)


async def test_operations(xml: Client, camille: Actor) -> None:
    resource = observation(camille.patient, status="unknown-code")
    for sent in (resource, {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": resource}]}):
        outcome = await xml.done("POST", "Observation/$validate", sent)
        assert outcome["issue"][0]["expression"] == ["Observation.status"]
    stored = await camille.create(observation(camille.patient))
    assert (await xml.done("GET", f"Observation/{stored['id']}/$meta"))["resourceType"] == "Parameters"
    document = f"<Parameters {NAMESPACE}><parameter><nick/></parameter></Parameters>"
    answer = await xml.send("POST", "Observation/$validate", document)
    assert xml.refusal(answer) == (400, "structure", "Parameters.parameter[0].nick")


async def test_a_body_in_xml_is_answered_in_xml_unless_json_is_asked_for(xml: Client, camille: Actor) -> None:
    for media_type in (XML, "application/xml", "text/xml; charset=UTF-8"):
        for accept, expected in (("*/*", "xml"), ("application/fhir+json", "json"), ("application/json;q=0.1, */*", "xml")):
            document = xml.write(observation(camille.patient))
            answer = await camille.send("POST", "Observation", document, Content_Type=media_type, Accept=accept)
            assert answer.headers["content-type"] == f"application/fhir+{expected}; charset=utf-8"
    sent = observation(camille.patient)
    assert (await camille.post("Observation", sent)).headers["content-type"] == "application/fhir+json; charset=utf-8"


async def test_pretty_leaves_the_narrative_as_it_is(camille: Actor) -> None:
    div = '<div xmlns="http://www.w3.org/1999/xhtml"><b>a</b><i>b</i></div>'
    stored = await camille.create(observation(camille.patient, text={"status": "generated", "div": div}))
    answer = await camille.get(f"Observation/{stored['id']}?_format=xml&_pretty=true")
    assert answer.headers["content-type"] == f"{XML}; charset=utf-8"
    assert f'\n    {div}\n  </text>\n  <identifier>\n    <system value="' in answer.text


@pytest.mark.requirement("CORE-16")
@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "Observation/abc-nobody", {}, 404),
        ("GET", "Observation?nick=a", {}, 400),
        ("GET", "Nothing", {}, 404),
        ("OPTIONS", "Observation", {}, 405),
        ("GET", "Observation?_count=1" + "&code=x" * 2_000, {}, 414),
        ("GET", "Observation", {"Authorization": "Bearer wrong"}, 401),
        ("GET", "Observation", {"Content_Length": "x"}, 400),
        ("GET", "Observation", {"X_Long": "x" * 20_000}, 431),
        ("GET", "Observation", {"Content_Encoding": "gzip"}, 415),
        ("POST", "Observation", {"Content_Type": "text/plain"}, 415),
        ("GET", "Observation?access_token=x", {}, 400),
        ("GET", "no/such/address/at/all", {}, 404),
    ],
)
async def test_every_refusal_is_in_the_format_that_was_asked_for(
    xml: Client, camille: Actor, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    body = b"{}" if method == "POST" else None
    for asked in ({"Accept": XML}, {} if "?" in path else {"_format": "xml"}):
        query = "?_format=xml" if "_format" in asked else "&_format=xml" if not asked else ""
        sent = headers | ({"Accept": XML} if "Accept" in asked else {})
        answer = await camille.send(method, path + query, body, **sent)
        assert (answer.status_code, answer.headers["content-type"]) == (status, f"{XML}; charset=utf-8")
        plain = await camille.send(method, path, body, **headers)
        assert plain.headers["content-type"] == "application/fhir+json; charset=utf-8"
        assert xml.read(answer)["issue"][0]["code"] == plain.json()["issue"][0]["code"]


async def test_a_preferred_outcome_is_in_xml_and_a_minimal_answer_is_empty(xml: Client, camille: Actor) -> None:
    outcome = await xml.done("POST", "Observation", observation(camille.patient), Prefer="return=OperationOutcome")
    assert outcome["resourceType"] == "OperationOutcome"
    minimal = await xml.send("POST", "Observation", observation(camille.patient), Prefer="return=minimal")
    assert (minimal.status_code, minimal.content) == (201, b"")


async def test_the_head_of_an_answer_says_how_long_it_would_be(xml: Client, camille: Actor) -> None:
    stored = await camille.create(observation(camille.patient))
    head, whole = await xml.send("HEAD", f"Observation/{stored['id']}"), await xml.send("GET", f"Observation/{stored['id']}")
    assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    ("inside", "code", "place"),
    [
        ("<nick/>", "structure", "Observation.nick"),
        ('<status value="final"/><status value="final"/>', "structure", "Observation.status"),
        ('<code><text value="a"/></code><status value="final"/>', "structure", "Observation.status"),
        ('<status value="nonsense"/><code><text value="a"/></code>{subject}', "code-invalid", "Observation.status"),
        ('<status value=""/><code><text value="a"/></code>{subject}', "code-invalid", "Observation.status"),
        ('<code><text value="a"/></code>{subject}', "required", "Observation.status"),
        ('<status value="final"/><code><text value=""/></code>{subject}', "value", "Observation.code.text"),
        ('<status value="final"/><code><text value="&x;"/></code>', "structure", None),
        ("<!DOCTYPE x>", "structure", None),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_stored(
    world: World, xml: Client, camille: Actor, inside: str, code: str, place: str | None
) -> None:
    before = await world.fingerprint()
    inside = inside.replace("{subject}", f'<subject><reference value="Patient/{camille.patient}"/></subject>')
    answer = await xml.send("POST", "Observation", f"<Observation {NAMESPACE}>{inside}</Observation>")
    status, found, expression = xml.refusal(answer)
    assert (status in (400, 422), found, expression) == (True, code, place)
    assert await world.fingerprint() == before


@pytest.mark.requirement("AUD-01")
async def test_a_document_that_is_refused_leaves_its_event(world: World, xml: Client, camille: Actor) -> None:
    for path in ("Observation", ""):
        request_id = unique("request")
        answer = await xml.send("POST", path, "<!DOCTYPE x><x/>", X_Request_ID=request_id)
        assert answer.status_code == 400
        assert len(await world.stored("AuditEvent", **{"event.request_id": request_id})) == 1


async def test_nobody_without_a_token_has_a_document_read(world: World) -> None:
    answer = await world.http.post(f"{BASE}/Observation", content=b"<!DOCTYPE x><x/>", headers={"Content-Type": XML})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == f"{XML}; charset=utf-8"


@pytest.mark.requirement("CORE-11")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_links_of_a_page_lead_on_in_its_format(world: World, method: str) -> None:
    owner = await world.patient()
    for _ in range(3):
        stored = await owner.create(observation(owner.patient))
    await owner.put(f"Observation/{stored['id']}", {**stored, "status": "amended"})
    client, seen = Client(world, owner), 0
    first = {
        "GET": ("Observation?code=99504-3&_count=2&_format=xml", None),
        "POST": ("Observation/_search", b"code=99504-3&_count=2&_format=xml"),
    }[method]
    url, form = first
    while url:
        answer = await owner.send(method if form else "GET", url, form, Content_Type="application/x-www-form-urlencoded")
        assert answer.headers["content-type"] == f"{XML}; charset=utf-8"
        page, form = client.read(answer), None
        links = {link["relation"]: link["url"] for link in page["link"]}
        assert "_format=xml" in links["self"]
        seen, url = seen + len(page["entry"]), links.get("next", "")
    assert seen == 3
    history = await owner.get(f"Observation/{stored['id']}/_history?_count=1&_format=xml")
    following = client.read(history)["link"][1]["url"]
    assert client.read(await owner.get(following))["entry"][0]["resource"]["status"] == "final"


async def test_what_is_to_be_done_once_is_answered_again_in_the_format_that_is_asked_for(xml: Client, camille: Actor) -> None:
    sent, key = observation(camille.patient), unique("key")
    first = await xml.send("POST", "Observation", sent, Idempotency_Key=key)
    again = await xml.send("POST", "Observation", sent, Idempotency_Key=key)
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    plain = await camille.post("Observation", xml.write(sent), Content_Type=XML, Accept="application/json", Idempotency_Key=key)
    assert (plain.status_code, parse(plain.content)) == (201, xml.read(first))
