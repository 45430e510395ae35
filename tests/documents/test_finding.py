"""Documents, and the lots they came in, are found by every parameter of IHE MHD (ITI-66, ITI-67) and PDSm."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from gateway.exchange import addressed
from gateway.store.schema import HEADS
from tests.documents.papers import PDF, deposited, pdf, sha1
from tests.world import Actor, World, concept, expression, issues, organization, practitioner, unique

IHE = "https://profiles.ihe.net/ITI/MHD/StructureDefinition"
ARCHIVED = "https://interop.esante.gouv.fr/ig/fhir/pdsm/StructureDefinition/pdsm-ext-is-archived"
KINDS = "https://profiles.ihe.net/ITI/MHD/CodeSystem/MHDlistTypes"


def archived(value: bool = True) -> dict[str, Any]:
    return {"url": ARCHIVED, "valueBoolean": value}


def author() -> list[dict[str, Any]]:
    """A role and who has it, one within the other, as PDSm has authors."""
    return [
        {"resourceType": "PractitionerRole", "id": "role", "practitioner": {"reference": "#person"}},
        {"resourceType": "Practitioner", "id": "person", "name": [{"family": "Leclerc", "given": ["Sophie"]}]},
        {"resourceType": "Organization", "id": "place", "name": "Clinique du Port"},
    ]


def paper(owner: Actor, master: str) -> dict[str, Any]:
    """A DocumentReference with everything that MHD and PDSm search by."""
    return {
        "resourceType": "DocumentReference",
        "contained": author(),
        "extension": [archived()],
        "masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": master},
        "identifier": [{"system": "urn:logical", "value": master}],
        "status": "current",
        "type": concept("http://loinc.org", "34133-9"),
        "category": [concept("urn:classes", "10")],
        "subject": {"reference": f"Patient/{owner.patient}"},
        "date": "2026-11-20T08:00:00.000Z",
        "author": [{"reference": "#role"}],
        "relatesTo": [{"code": "appends", "target": {"reference": "https://other.example/fhir/DocumentReference/1"}}],
        "securityLabel": [concept("http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "R")],
        "content": [
            {
                "attachment": {
                    "contentType": "text/plain",
                    "data": "SGVsbG8=",
                    "creation": "2026-11-19T10:00:00Z",
                    "language": "fr-FR",
                },
                "format": {"system": "urn:formats", "code": "text"},
            }
        ],
        "context": {
            "event": [concept("urn:events", "visit")],
            "period": {"start": "2026-11-10T08:00:00Z", "end": "2026-11-12T18:00:00Z"},
            "facilityType": concept("urn:facilities", "SA01"),
            "practiceSetting": concept("urn:settings", "ETABLISSEMENT"),
            "related": [{"reference": "https://other.example/fhir/ServiceRequest/1"}],
        },
    }


def lot(owner: Actor, master: str, code: str = "submissionset") -> dict[str, Any]:
    """A submission set or folder with everything that MHD and PDSm search by."""
    return {
        "resourceType": "List",
        "contained": author(),
        "extension": [
            {"url": f"{IHE}/ihe-designationType", "valueCodeableConcept": concept("urn:designations", "SA05")},
            {"url": f"{IHE}/ihe-sourceId", "valueIdentifier": {"system": "urn:sources", "value": "SRC-01"}},
            archived(),
        ],
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": master}],
        "status": "current",
        "mode": "working",
        "title": "Suivi post-opératoire",
        "code": concept(KINDS, code),
        "subject": {"reference": f"Patient/{owner.patient}"},
        "date": "2026-11-20T08:00:00Z",
        "source": {
            "extension": [{"url": f"{IHE}/ihe-authorOrg", "valueReference": {"reference": "#place"}}],
            "reference": "#role",
        },
    }


# What finds the document, and what does not.
DOCUMENTS = {
    "status": ("current", "superseded"),
    "date": ("2026-11-20", "gt2026-11-20"),
    "creation": ("2026-11-19", "2026-11-20"),
    "author.given": ("sophie", "anne"),
    "author.family": ("Leclerc", "Nobody"),
    "author:Practitioner.family": ("lecl", "nobo"),
    "category": ("urn:classes|10", "urn:classes|11"),
    "type": ("http://loinc.org|34133-9,http://loinc.org|11502-2", "http://loinc.org|11502-2"),
    "setting": ("urn:settings|ETABLISSEMENT", "urn:settings|CABINET"),
    "facility": ("urn:facilities|SA01", "SA02"),
    "event": ("urn:events|visit", "urn:events|scan"),
    "period": ("ge2026-11-11", "lt2026-11-10"),
    "period-start": ("2026-11-10", "2026-11-12"),
    "PDSm_DocumentReference_period-start": ("le2026-11-10", "gt2026-11-10"),
    "period-end": ("2026-11-12", "2026-11-10"),
    "PDSm_DocumentReference_period-end": ("ge2026-11-12", "lt2026-11-12"),
    "security-label": ("http://terminology.hl7.org/CodeSystem/v3-Confidentiality|R", "V"),
    "format": ("urn:formats|text", "urn:formats|cda"),
    "relatesto": ("https://other.example/fhir/DocumentReference/1", "https://other.example/fhir/DocumentReference/2"),
    "related": ("https://other.example/fhir/ServiceRequest/1", "https://other.example/fhir/ServiceRequest/2"),
    "isArchived": ("true", "false"),
    "PDSm_isArchived": ("true", "false"),
    "isArchived:not": ("false", "true"),
    "_lastUpdated": ("ge2026", "lt2026"),
}
LISTS = {
    "code": (f"{KINDS}|submissionset", f"{KINDS}|folder"),
    "status": ("current", "retired"),
    "date": ("2026-11-20", "2026-11-21"),
    "title": ("suivi", "bilan"),
    "designationType": ("urn:designations|SA05", "urn:designations|SA06"),
    "DesignationType": ("SA05", "SA06"),
    "sourceId": ("urn:sources|SRC-01", "urn:sources|SRC-02"),
    "SourceId": ("SRC-01", "SRC-02"),
    "source.given": ("sophie", "anne"),
    "source.family": ("Leclerc", "Nobody"),
    "PDSm_List_PractitionerRoleAsSource.family": ("Leclerc", "Nobody"),
    "authorOrg.name": ("clinique", "hôpital"),
    "PDSm_authorOrg.name": ("clinique", "hôpital"),
    "isArchived": ("true", "false"),
    "PDSm_isArchived": ("true", "false"),
    "_lastUpdated": ("ge2026", "lt2026"),
}


async def found(actor: Actor, path: str, pairs: list[tuple[str, str]]) -> list[str]:
    """The ids that a search finds, by GET and by POST alike."""
    by_get = [one["id"] for one in await actor.search(f"{path}?{urlencode(pairs)}")]
    form = "application/x-www-form-urlencoded"
    answer = await actor.post(f"{path}/_search", urlencode(pairs).encode(), Content_Type=form)
    assert answer.status_code == 200, answer.text
    assert [one["resource"]["id"] for one in answer.json().get("entry", ())] == by_get
    return by_get


@pytest.mark.requirement("DOC-13", "SRCH-01")
async def test_a_document_is_found_by_every_parameter_of_mhd_and_pdsm(world: World) -> None:
    owner = await world.patient()
    master = f"urn:oid:1.2.3.{unique('1').replace('-', '.')}"
    stored = await owner.create(paper(owner, master))
    (named,) = (await owner.get(f"Patient/{owner.patient}")).json()["identifier"]
    whose = f"{named['system']}|{named['value']}"
    named_so = (f"urn:ietf:rfc:3986|{master}", "urn:ietf:rfc:3986|urn:oid:1.2.3")
    asked = {**DOCUMENTS, "_id": (stored["id"], "none"), "identifier": named_so}
    for name, (right, wrong) in asked.items():
        for spelled in (("patient", owner.patient), ("patient.identifier", whose), ("patient:identifier", whose)):
            assert await found(owner, "DocumentReference", [spelled, (name, right)]) == [stored["id"]], name
            assert await found(owner, "DocumentReference", [spelled, (name, wrong)]) == [], name


@pytest.mark.requirement("DOC-12", "SRCH-01")
async def test_a_lot_is_found_by_every_parameter_of_mhd_and_pdsm(world: World) -> None:
    owner = await world.patient()
    stored = await owner.create(lot(owner, unique("urn:lot")))
    (named,) = (await owner.get(f"Patient/{owner.patient}")).json()["identifier"]
    whose = f"{named['system']}|{named['value']}"
    master = stored["identifier"][0]["value"]
    for name, (right, wrong) in {**LISTS, "_id": (stored["id"], "none"), "identifier": (master, f"{master}x")}.items():
        for spelled in (("patient", owner.patient), ("patient.identifier", whose), ("patient:identifier", whose)):
            assert await found(owner, "List", [spelled, (name, right)]) == [stored["id"]], name
            assert await found(owner, "List", [spelled, (name, wrong)]) == [], name


@pytest.mark.requirement("DOC-12")
async def test_folders_and_submission_sets_are_told_apart(world: World) -> None:
    owner = await world.patient()
    made = {code: (await owner.create(lot(owner, unique("urn:lot"), code)))["id"] for code in ("submissionset", "folder")}
    for code, identifier in made.items():
        assert await found(owner, "List", [("patient", owner.patient), ("code", code), ("status", "current")]) == [identifier]


@pytest.mark.requirement("DOC-12", "DOC-13")
async def test_an_organization_of_the_directory_is_found_as_such(world: World) -> None:
    owner = await world.patient()
    place = await world.operator.create(organization())
    person = await world.operator.create(practitioner())
    sent = lot(owner, unique("urn:lot"))
    sent["source"] = {
        "extension": [{"url": f"{IHE}/ihe-authorOrg", "valueReference": {"reference": f"Organization/{place['id']}"}}],
        "reference": f"Practitioner/{person['id']}",
    }
    stored = await owner.create(sent)
    for name in ("authorOrg", "PDSm_authorOrg"):
        assert await found(owner, "List", [("patient", owner.patient), (name, f"Organization/{place['id']}")]) == [stored["id"]]
        assert await found(owner, "List", [("patient", owner.patient), (name, "Organization/none")]) == []


@pytest.mark.requirement("DOC-19")
@pytest.mark.parametrize("kind", ["DocumentReference", "List"])
async def test_archived_or_not_or_both(world: World, kind: str) -> None:
    owner = await world.patient()
    build = paper if kind == "DocumentReference" else lot
    made: dict[str, str] = {}
    for name, said in (("true", [archived()]), ("false", [archived(False)]), ("unsaid", [])):
        sent = {element: value for element, value in build(owner, unique("urn:made")).items() if element != "extension"}
        sent |= {"extension": said} if said else {}
        made[name] = (await owner.create(sent))["id"]
    whose = ("patient", owner.patient)
    for spelled in ("isArchived", "PDSm_isArchived"):
        assert await found(owner, kind, [whose, (spelled, "true")]) == [made["true"]]
        assert set(await found(owner, kind, [whose, (spelled, "false")])) == {made["false"], made["unsaid"]}
        assert set(await found(owner, kind, [whose, (spelled, "true,false")])) == {*made.values()}
    assert set(await found(owner, kind, [whose])) == {*made.values()}


@pytest.mark.requirement("DOC-12", "DOC-13")
@pytest.mark.parametrize("kind", ["DocumentReference", "List"])
async def test_a_search_names_a_patient_or_what_is_known_of_the_document(world: World, kind: str) -> None:
    """Whoever asks; a status is not needed, and no help."""
    owner, doctor = await world.patient(), await world.professional()
    await world.consent(owner, doctor)
    stored = await owner.create((paper if kind == "DocumentReference" else lot)(owner, unique("urn:made")))
    known = quote(stored["identifier"][0]["value"])
    for actor in (owner, doctor):
        for query in ("", "?status=current", "?_lastUpdated=gt2026", "?date=2026", "?_count=1"):
            answer = await actor.get(f"{kind}{query}")
            assert (answer.status_code, expression(answer)) == (400, "patient"), query
        for query in (
            f"patient={owner.patient}",
            f"identifier={known}",
            f"_id={stored['id']}",
            f"subject=Patient/{owner.patient}",
        ):
            assert [one["id"] for one in await actor.search(f"{kind}?{query}")] == [stored["id"]], query
    assert await doctor.search(f"{kind}?patient=nobody") == []


@pytest.mark.requirement("DOC-13", "SRCH-11")
@pytest.mark.parametrize("name", ["identifier", "_id"])
async def test_a_document_named_alone_is_hidden_like_one_that_is_not_there(world: World, name: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    stored = await owner.create(paper(owner, unique("urn:made")))
    there = stored["id"] if name == "_id" else stored["masterIdentifier"]["value"]
    missing = f"{owner.patient[:3]}-none" if name == "_id" else unique("urn:none")
    answers = [await doctor.get(f"DocumentReference?{name}={quote(value)}") for value in (there, missing)]
    bodies = [answer.json() for answer in answers]
    assert [body.pop("link")[0]["relation"] for body in bodies] == ["self", "self"]
    assert all(body.pop("meta").keys() == {"lastUpdated"} for body in bodies)  # (the time of each answer, less a minute)
    assert bodies[0] == bodies[1]
    calls = [
        await world.calls_of(lambda value=value: doctor.get(f"DocumentReference?{name}={quote(value)}"))
        for value in (there, missing)
    ]
    assert calls[0] == calls[1]


@asynccontextmanager
async def crowded(world: World, model: dict[str, Any], count: int, records: int) -> AsyncIterator[None]:
    """As many documents with the same identifiers in so many records of others, found before this one."""
    mongo, others = world.gateway.mongo, [f"000-crowd{n}" for n in range(records)]
    [lying] = await mongo.find("DocumentReference", {"_id": model["id"]})
    [head] = await mongo.find(HEADS, {"_id": lying["patient"]})
    copied = {name: value for name, value in lying.items() if name not in ("key", "digest")}
    copied |= {"bucket": "000", "source": "crowd", "depositor": "Practitioner/crowd"}
    await mongo.insert(HEADS, [head | {"_id": other} for other in others])
    papers = [copied | {"_id": f"000-{n:05}", "patient": others[n % records]} for n in range(count)]
    papers[500]["patient"] = lying["patient"]  # (where nobody looks for it: its record is met twice)
    await mongo.insert("DocumentReference", papers)
    try:
        yield
    finally:
        await mongo._database[HEADS].delete_many({"_id": {"$in": others}})
        await mongo._database["DocumentReference"].delete_many({"_id": {"$in": [one["_id"] for one in papers]}})


@pytest.mark.requirement("DOC-13", "SRCH-11")
@pytest.mark.parametrize("records", [1, 2_500])
async def test_a_document_is_found_however_many_of_others_have_its_identifier(world: World, records: int) -> None:
    owner, doctor, stranger = await world.patient(), await world.professional(), await world.professional()
    await world.consent(owner, doctor)
    stored = await owner.create(paper(owner, unique("urn:made")))
    for name in ("masterIdentifier", "identifier"):
        value = quote((stored[name] if name == "masterIdentifier" else stored[name][0])["value"])
        async with crowded(world, stored, 2_500, records):
            for tokens in (value, f"{value},{unique('urn:none')}", f"urn:logical|{value},urn:ietf:rfc:3986|{value}"):
                assert [one["id"] for one in await doctor.search(f"DocumentReference?identifier={tokens}")] == [stored["id"]]
                assert await stranger.search(f"DocumentReference?identifier={tokens}") == []


async def test_what_one_deposited_is_found_however_many_of_others_have_its_identifier(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    given = await world.consent(owner, doctor)
    sent = await world.consent(owner, doctor, "collect")
    stored = await doctor.create(paper(owner, unique("urn:made")))
    for one in (given, sent):
        await world.revoke(owner, one)
    search = f"DocumentReference?identifier={quote(stored['masterIdentifier']['value'])}"
    found = [one["id"] for one in await doctor.search(search)]
    async with crowded(world, stored, 2_500, 2_500):
        assert [one["id"] for one in await doctor.search(search)] == found == [stored["id"]]


async def test_an_identifier_that_takes_too_long_to_look_through_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await world.consent(owner, doctor)
    stored = await owner.create(paper(owner, unique("urn:made")))
    value = quote(stored["masterIdentifier"]["value"])
    moments = itertools.count(step=world.gateway.limits.search_seconds + 1)
    async with crowded(world, stored, 1_500, 1_500):
        monkeypatch.setattr(addressed, "_now", lambda: float(next(moments)))
        answer = await doctor.get(f"DocumentReference?identifier={value}")
        assert (answer.status_code, issues(answer)[0]["code"], expression(answer)) == (422, "too-costly", "identifier")
        assert "by patient" in issues(answer)[0]["diagnostics"]
        found = await doctor.search(f"DocumentReference?identifier={value}&patient={owner.patient}")
        assert [one["id"] for one in found] == [stored["id"]]


@pytest.mark.requirement("DOC-14")
async def test_what_is_fetched_is_what_its_reference_says(world: World) -> None:
    owner, content = await world.patient(), pdf(50_000)
    made, _ = await deposited(owner, owner.patient, content)
    (one,) = await owner.search(f"DocumentReference?_id={made.partition('/')[2]}")
    attachment = one["content"][0]["attachment"]
    answer = await owner.get(attachment["url"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, PDF)
    assert (attachment["hash"], attachment["size"]) == (sha1(answer.content), int(answer.headers["content-length"]))


@pytest.mark.requirement("DOC-15")
async def test_what_was_superseded_is_still_read_and_what_was_deleted_is_not(world: World) -> None:
    owner, other = await world.patient(), await world.professional()
    content = pdf()
    made, raw = await deposited(owner, owner.patient, content)
    stored = (await owner.get(made)).json()
    assert (await owner.put(made, {**stored, "status": "superseded"})).status_code == 200
    assert (await owner.get(made)).json()["status"] == "superseded"
    assert (await owner.get(raw)).content == content
    assert (await owner.put(made, {**stored, "status": "entered-in-error"})).status_code == 200
    assert [(await actor.get(made)).status_code for actor in (owner, other)] == [410, 404]
    assert [(await actor.get(f"{made[:-4]}none")).status_code for actor in (owner, other)] == [404, 404]
    assert [(await actor.get(raw)).status_code for actor in (owner, other)] == [410, 404]
