"""Documents are submitted as IHE MHD and PDSm say (ITI-65): whole, checked, all or nothing, answered in their order."""

import copy
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway.fhir.xml_shape import Shapes
from gateway.fhir.xml_write import XmlWriter
from tests.documents.papers import binary, ids_of, pdf, sha1
from tests.documents.submissions import MHD, PDSM, fiche, folder, name, relation, submission, submission_set, superseding
from tests.world import World, bundle, entry, expression, issues, observation

KINDS = [
    f"{MHD}IHE.MHD.Minimal.ProvideBundle",
    f"{MHD}IHE.MHD.Comprehensive.ProvideBundle",
    f"{MHD}IHE.MHD.UnContained.Comprehensive.ProvideBundle",
    f"{PDSM}pdsm-comprehensive-provide-document-bundle",
]
NOTHING = ("List", "DocumentReference", "Binary", "contents")


async def stored(world: World, owner: str) -> dict[str, int]:
    """How much of a submission lies in a record."""
    return {one: len(await world.stored(one, patient=owner)) for one in NOTHING}


@pytest.mark.requirement("DOC-01")
@pytest.mark.parametrize("profile", KINDS)
@pytest.mark.parametrize("form", ["json", "xml"])
async def test_a_submission_is_stored_and_answered_in_its_order(world: World, profile: str, form: str) -> None:
    owner, doctor, content = await world.patient(), await world.professional(), pdf(30_000)
    sent: Any = submission(owner.patient, content, profile)
    if form == "xml":
        sent = XmlWriter(Shapes(world.gateway.registry.types)).write(json.dumps(sent).encode())
    answer = await doctor.post("", sent, Content_Type=f"application/fhir+{form}", Accept="application/fhir+json")
    made = ids_of(answer)
    assert answer.json()["type"] == "transaction-response"
    assert [one.partition("/")[0] for one in made] == ["List", "DocumentReference", "Binary"]
    assert [one["response"]["status"] for one in answer.json()["entry"]] == ["201 Created"] * 3
    assert all(one["response"]["etag"] == 'W/"1"' for one in answer.json()["entry"])
    assert (await owner.get(made[2])).content == content
    kept = (await owner.get(made[0])).json()
    assert [one["item"]["reference"] for one in kept["entry"]] == [made[1]]


def drop(*positions: int) -> Callable[[dict[str, Any]], None]:
    def change(sent: dict[str, Any]) -> None:
        sent["entry"] = [one for n, one in enumerate(sent["entry"]) if n not in positions]

    return change


def add(*entries: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda sent: sent["entry"].extend(copy.deepcopy([*entries]))


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no submission set": (drop(0), "Bundle.entry"),
    "no document": (drop(1, 2), "Bundle.entry"),
    "two submission sets": (
        add(entry("POST", "List", submission_set("x", "urn:uuid:1"), full_url="urn:uuid:2")),
        "Bundle.entry",
    ),
    "something else": (add(entry("POST", "Observation", observation("x"))), "Bundle.entry[3]"),
    "a read": (add(entry("GET", "Patient/1")), "Bundle.entry[3]"),
    "a deletion": (add(entry("DELETE", "Observation/1")), "Bundle.entry[3]"),
    "a list of nothing known": (
        add(entry("POST", "List", {"resourceType": "List", "status": "current", "mode": "working"})),
        "Bundle.entry[3]",
    ),
}


@pytest.mark.requirement("DOC-02")
@pytest.mark.parametrize("case", WRONG)
async def test_what_is_no_submission_is_refused_as_a_whole(world: World, case: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent = submission(owner.patient)
    change, where = WRONG[case]
    change(sent)
    answer = await doctor.post("", sent)
    assert (answer.status_code, expression(answer)) == (422, where), answer.text
    assert set((await stored(world, owner.patient)).values()) == {0}


async def test_a_bundle_without_profile_is_a_submission_by_its_list(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent = submission(owner.patient)
    del sent["meta"]
    sent["entry"][1]["resource"]["docStatus"] = "final"
    answer = await doctor.post("", sent)
    assert (answer.status_code, expression(answer)) == (422, "Bundle.entry[1].resource.docStatus")
    del sent["entry"][1]["resource"]["docStatus"]
    ids_of(await doctor.post("", sent))


@pytest.mark.requirement("DOC-03")
@pytest.mark.parametrize("url", ["urn:uuid:nowhere", "https://elsewhere.example/fhir/Binary/1", "Binary/000-none", "data.pdf"])
async def test_content_that_is_not_submitted_is_refused(world: World, url: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent = submission(owner.patient)
    sent["entry"][1]["resource"]["content"][0]["attachment"]["url"] = url
    answer = await doctor.post("", sent)
    assert (answer.status_code, expression(answer)) == (422, "Bundle.entry[1].resource.content[0].attachment.url")
    assert set((await stored(world, owner.patient)).values()) == {0}


async def test_content_that_its_sender_deposited_before_is_submitted(world: World) -> None:
    """What is larger than a Bundle comes as it is, before."""
    owner, doctor, content = await world.patient(), await world.professional(), pdf()
    raw = await doctor.create(binary(content) | {"securityContext": {"reference": f"Patient/{owner.patient}"}})
    sent = submission(owner.patient, content)
    sent["entry"][1]["resource"]["content"][0]["attachment"]["url"] = f"Binary/{raw['id']}"
    drop(2)(sent)
    ids_of(await doctor.post("", sent))


@pytest.mark.requirement("DOC-04")
@pytest.mark.parametrize(("claim", "value"), [("size", 7), ("hash", sha1(b"another"))])
async def test_size_and_hash_are_those_of_the_bytes(world: World, claim: str, value: Any) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent = submission(owner.patient)
    sent["entry"][1]["resource"]["content"][0]["attachment"][claim] = value
    answer = await doctor.post("", sent)
    assert (answer.status_code, expression(answer)) == (422, f"Bundle.entry[1].resource.content[0].attachment.{claim}")
    assert set((await stored(world, owner.patient)).values()) == {0}


# What PDSm requires (StructureDefinitions 3.1.1): without it the submission is refused, naming it.
REQUIRED = {
    1: [
        "contained", "masterIdentifier", "type", "category", "date", "author", "custodian", "securityLabel", "content.format",
        "content.attachment.contentType", "content.attachment.language", "content.attachment.url", "content.attachment.size",
        "content.attachment.hash", "content.attachment.title", "content.attachment.creation", "context", "context.period",
        "context.period.start", "context.facilityType", "context.practiceSetting", "context.sourcePatientInfo",
    ],
    0: ["contained", "date", "source", "subject", "extension"],
}  # fmt: skip


def without(resource: dict[str, Any], path: str) -> None:
    """Remove an element (of the first item, where there are several)."""
    *way, last = path.split(".")
    for step in way:
        resource = resource[step][0] if isinstance(resource[step], list) else resource[step]
    del resource[last]


@pytest.mark.requirement("DOC-05")
@pytest.mark.parametrize(("position", "path"), [(n, path) for n, paths in REQUIRED.items() for path in paths])
async def test_each_required_element_is_missed_by_its_name(world: World, position: int, path: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent = submission(owner.patient)
    resource = sent["entry"][position]["resource"]
    without(resource, path)
    if path == "contained":  # then nothing refers to it either
        for element in ("author", "authenticator", "source"):
            resource.pop(element, None)
        resource.get("context", {}).pop("sourcePatientInfo", None)
    answer = await doctor.post("", sent)
    named = [expression for issue in issues(answer) for expression in issue["expression"]]
    assert answer.status_code == 422, answer.text
    assert any(one.startswith(f"Bundle.entry[{position}].resource.{path}") for one in named), named
    assert set((await stored(world, owner.patient)).values()) == {0}


FORBIDDEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "docStatus": lambda one: one.update(docStatus="final"),
    "modifierExtension": lambda one: one.update(modifierExtension=[{"url": "https://x.example/m", "valueBoolean": True}]),
    "content.attachment.data": lambda one: one["content"][0]["attachment"].update(data="SGVsbG8="),
    "content": lambda one: one["content"].append(one["content"][0]),
    "category": lambda one: one["category"].append(one["category"][0]),
    "author": lambda one: one.update(author=[{"display": "Dr Martin"}]),
}


@pytest.mark.requirement("DOC-06")
@pytest.mark.parametrize("path", FORBIDDEN)
async def test_what_the_profile_forbids_is_refused_by_its_name(world: World, path: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent = submission(owner.patient)
    FORBIDDEN[path](sent["entry"][1]["resource"])
    answer = await doctor.post("", sent)
    assert (answer.status_code, f"Bundle.entry[1].resource.{path}") == (422, expression(answer)), answer.text


@pytest.mark.requirement("DOC-07")
@pytest.mark.parametrize("where", ["document", "set", "source"])
async def test_all_of_a_submission_is_of_one_patient(world: World, where: str) -> None:
    owner, other, doctor = await world.patient(), await world.patient(), await world.professional()
    sent = submission(owner.patient)
    reference = {"reference": f"Patient/{other.patient}"}
    if where == "source":
        sent["entry"][1]["resource"]["context"]["sourcePatientInfo"] = reference
        sent["meta"]["profile"] = [f"{MHD}IHE.MHD.UnContained.Comprehensive.ProvideBundle"]
    else:
        sent["entry"][1 if where == "document" else 0]["resource"]["subject"] = reference
    answer = await doctor.post("", sent)
    assert answer.status_code == 422, answer.text
    for one in (owner, other):
        assert set((await stored(world, one.patient)).values()) == {0}


@pytest.mark.requirement("DOC-07")
async def test_a_patient_who_is_contained_is_the_one_of_the_record(world: World) -> None:
    owner, other, doctor = await world.patient(), await world.patient(), await world.professional()
    mine, theirs = [(await one.get(f"Patient/{one.patient}")).json()["identifier"] for one in (owner, other)]
    source = {"resourceType": "Patient", "id": "source", "name": [{"family": "Durant"}]}
    sent = submission(owner.patient)
    contained = sent["entry"][1]["resource"]["contained"]
    contained[1] = source | {"identifier": theirs}
    answer = await doctor.post("", sent)
    where = "Bundle.entry[1].resource.context.sourcePatientInfo"
    assert (answer.status_code, expression(answer)) == (422, where), answer.text
    contained[1] = source | {"identifier": [*mine, {"system": "urn:oid:1.2.3.9", "value": "local"}]}
    ids_of(await doctor.post("", sent))
    assert (await owner.get(f"Patient/{owner.patient}")).json()["name"] == [{"family": "Durand", "given": ["Camille"]}]


async def test_folders_are_kept_and_added_to(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent = submission(owner.patient)
    document, place = sent["entry"][1]["fullUrl"], name()
    sent["entry"].insert(1, entry("POST", "List", folder(owner.patient, document), full_url=place))
    sent["entry"][0]["resource"]["entry"].append({"item": {"reference": place}})
    made = ids_of(await doctor.post("", sent))
    kept = (await owner.get(made[1])).json()
    assert [one["item"]["reference"] for one in kept["entry"]] == [made[2]]
    again = submission(owner.patient)
    larger = folder(owner.patient, made[2], again["entry"][1]["fullUrl"], identifier=kept["identifier"])
    again["entry"].append(entry("PUT", made[1], larger | {"id": made[1].partition("/")[2]}))
    answer = await doctor.post("", again)
    assert [one["response"]["status"][:3] for one in answer.json()["entry"]] == ["201", "201", "201", "200"], answer.text
    assert len((await owner.get(made[1])).json()["entry"]) == 2
    del larger["title"], larger["entry"][1]
    again = submission(owner.patient)
    again["entry"].append(entry("PUT", made[1], larger | {"id": made[1].partition("/")[2]}))
    answer = await doctor.post("", again)
    assert (answer.status_code, expression(answer)) == (422, "Bundle.entry[3].resource.title")


def fhir_document(owner: str) -> dict[str, Any]:
    composition = {
        "resourceType": "Composition",
        "status": "final",
        "type": {"coding": [{"system": "http://loinc.org", "code": "60591-5"}]},
        "subject": {"reference": "urn:uuid:p"},
        "date": "2026-06-12T10:00:00+02:00",
        "author": [{"display": "Dr Martin"}],
        "title": "Synthèse",
    }
    patient = {"resourceType": "Patient", "name": [{"family": owner}]}
    entries = [{"fullUrl": "urn:uuid:c", "resource": composition}, {"fullUrl": "urn:uuid:p", "resource": patient}]
    identifier = {"system": "urn:ietf:rfc:3986", "value": name()}
    return {
        "resourceType": "Bundle", "type": "document", "identifier": identifier, "timestamp": "2026-06-12T10:00:00+02:00",
        "entry": entries,
    }  # fmt: skip


async def submit_document(world: World, document: dict[str, Any], owner: str) -> tuple[httpx.Response, bytes]:
    doctor = await world.professional()
    content = json.dumps(document, ensure_ascii=False).encode()
    sent = submission(owner, content)
    sent["entry"][1]["resource"]["content"][0]["attachment"]["contentType"] = "application/fhir+json"
    sent["entry"][2] = entry("POST", "Bundle", document, full_url=sent["entry"][2]["fullUrl"])
    return await doctor.post("", json.dumps(sent, ensure_ascii=False).encode()), content


@pytest.mark.requirement("DOC-23")
async def test_a_fhir_document_comes_back_as_it_was(world: World) -> None:
    owner = await world.patient()
    answer, content = await submit_document(world, fhir_document("x"), owner.patient)
    made = ids_of(answer)
    assert made[2].startswith("Binary/")
    url = (await owner.get(made[1])).json()["content"][0]["attachment"]["url"]
    for accept in ("*/*", "application/fhir+json"):
        answer = await owner.get(url, Accept=accept)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-type"].startswith("application/fhir+json")
    assert "Synthèse" not in str(await world.stored("contents", patient=owner.patient))


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no identifier": (lambda one: one.pop("identifier"), ".resource.identifier"),
    "no timestamp": (lambda one: one.pop("timestamp"), ".resource.timestamp"),
    "no Composition": (lambda one: one["entry"].pop(0), ".resource.entry"),
    "no document": (lambda one: one.update(type="collection"), ".request.url"),
}


@pytest.mark.requirement("DOC-23")
@pytest.mark.parametrize("case", BROKEN)
async def test_a_bundle_that_is_no_document_is_no_content(world: World, case: str) -> None:
    owner, document = await world.patient(), fhir_document("x")
    change, where = BROKEN[case]
    change(document)
    answer, _ = await submit_document(world, document, owner.patient)
    assert (answer.status_code, expression(answer)) == (400 if case == "no document" else 422, f"Bundle.entry[2]{where}")
    assert set((await stored(world, owner.patient)).values()) == {0}


@pytest.mark.requirement("DOC-09")
async def test_what_has_no_consequences_is_said_beside(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    elsewhere = "https://elsewhere.example/fhir/DocumentReference/1"
    relations = [relation(code, elsewhere) for code in ("replaces", "transforms", "appends", "signs")]
    sent = submission(owner.patient, relatesTo=relations)
    recipient = {"url": f"{PDSM}pdsm-ext-intended-recipient", "valueReference": {"reference": "#author"}}
    sent["entry"][0]["resource"]["extension"].append(recipient)
    answer = await doctor.post("", sent)
    made = ids_of(answer)
    told = [one["response"].get("outcome", {"issue": []})["issue"] for one in answer.json()["entry"]]
    texts = [[issue["diagnostics"] for issue in one if issue["severity"] == "warning"] for one in told]
    partial = [f"Partial{what}ContentNotProcessed" for what in ("Replace", "Transform", "Append")]
    assert texts == [["UnavailableRecipient"], partial, []]
    assert (await owner.get(made[1])).json()["relatesTo"] == relations
    found = await owner.search(f"DocumentReference?patient={owner.patient}&relation=appends")
    assert [one["id"] for one in found] == [made[1].partition("/")[2]]


async def test_a_depositor_who_may_not_read_names_the_patient_by_identifier(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    token = (await owner.get(f"Patient/{owner.patient}")).json()["identifier"][0]
    reference = {"reference": f"Patient?identifier={token['system']}|{token['value']}"}
    sent = submission(owner.patient)
    for n in (0, 1):
        sent["entry"][n]["resource"]["subject"] = reference
    made = ids_of(await doctor.post("", sent))
    assert (await owner.get(made[1])).json()["subject"] == {"reference": f"Patient/{owner.patient}"}
    assert (await doctor.get(f"Patient/{owner.patient}")).status_code == 404
    reference["reference"] += "0"
    answer = await doctor.post("", sent)
    assert (answer.status_code, issues(answer)[0]["code"]) == (412, "not-found")


@pytest.mark.requirement("DOC-18")
@pytest.mark.parametrize("has_identifier", [True, False])
async def test_a_submission_sent_again_writes_nothing(world: World, has_identifier: bool) -> None:
    owner, doctor, content = await world.patient(), await world.professional(), pdf()
    sent = submission(owner.patient, content)
    if not has_identifier:
        del sent["entry"][0]["resource"]["identifier"]
    first = ids_of(await doctor.post("", sent))
    before = await world.fingerprint()
    renamed = json.loads(
        json.dumps(sent).replace(sent["entry"][2]["fullUrl"], name()).replace(sent["entry"][1]["fullUrl"], name())
    )
    for again in (sent, renamed):
        answer = await doctor.post("", again)
        assert ids_of(answer) == first
        assert [one["response"]["status"] for one in answer.json()["entry"]] == ["200 OK"] * 3
    assert await world.fingerprint() == before


@pytest.mark.requirement("DOC-18")
async def test_another_document_of_the_same_unique_id_is_refused(world: World) -> None:
    owner, other, doctor = await world.patient(), await world.patient(), await world.professional()
    sent = submission(owner.patient)
    ids_of(await doctor.post("", sent))
    before = await stored(world, owner.patient)
    unique = {"masterIdentifier": sent["entry"][1]["resource"]["masterIdentifier"]}
    for altered in (submission(owner.patient, **unique), {**sent, "entry": copy.deepcopy(sent["entry"])}):
        altered["entry"][1]["resource"]["description"] = "something else"
        answer = await doctor.post("", altered)
        where = "Bundle.entry[1].resource.masterIdentifier"
        assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (409, "duplicate", where)
    assert await stored(world, owner.patient) == before
    ids_of(await doctor.post("", submission(other.patient, **unique)))
    twice = bundle("transaction", *(entry("POST", "DocumentReference", one) for one in twins(owner.patient)))
    assert (await doctor.post("", twice)).status_code == 409


def twins(owner: str) -> list[dict[str, Any]]:
    """Two documents of one uniqueId in one Bundle."""
    one = fiche(owner, "https://elsewhere.example/1", b"")
    del one["content"][0]["attachment"]["size"], one["content"][0]["attachment"]["hash"]
    return [one, one | {"description": "another"}]


@pytest.mark.requirement("DOC-18")
async def test_a_unique_id_is_of_one_document_whoever_sends_it_if_they_may_read_it(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    other, stranger = await world.professional(), await world.professional()
    await world.consent(owner, other)
    sent = submission(owner.patient)
    made = ids_of(await doctor.post("", sent))
    same = await other.post("", sent)
    assert ids_of(same)[1] == made[1]
    assert same.json()["entry"][1]["response"]["status"] == "200 OK"
    altered = submission(owner.patient, masterIdentifier=sent["entry"][1]["resource"]["masterIdentifier"])
    refused = await other.post("", altered)
    assert (refused.status_code, expression(refused)) == (409, "Bundle.entry[1].resource.masterIdentifier")
    alone = await other.post("DocumentReference", altered["entry"][1]["resource"] | {"content": INLINE})
    assert (alone.status_code, expression(alone)) == (409, "DocumentReference.masterIdentifier")
    hidden = await stranger.post("", altered)  # who may not read it is not told that it is there
    assert ids_of(hidden)[1] != made[1]


INLINE = [{"attachment": {"contentType": "text/plain", "data": "SGVsbG8="}}]


async def test_validate_says_what_a_submission_would_be_refused_for(world: World) -> None:
    owner = await world.patient()
    sent = submission(owner.patient)
    sent["entry"].insert(2, superseding("DocumentReference/000-x"))
    sent["entry"][3] = entry("POST", "Bundle", fhir_document("x"), full_url=sent["entry"][3]["fullUrl"])
    sound = (await owner.post("Bundle/$validate", sent)).json()
    assert [issue["severity"] for issue in sound["issue"]] == ["information"], sound
    del sent["entry"][1]["resource"]["custodian"], sent["entry"][0]["resource"]["source"]
    wrong = (await owner.post("Bundle/$validate", sent)).json()
    told = [issue["expression"][0] for issue in wrong["issue"]]
    assert told == ["Bundle.entry[0].resource.source", "Bundle.entry[1].resource.custodian"]
    drop(0)(sent)
    none = (await owner.post("Bundle/$validate", sent)).json()
    assert none["issue"][0]["expression"] == ["Bundle.entry"]
