"""What IHE MHD asks of its actors besides the transactions themselves: how the log calls them, what the service says it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.documents.papers import binary, deposit, ids_of, pdf
from tests.documents.submissions import submission
from tests.documents.test_publication import PROFILES, publication
from tests.world import Actor, World, bundle, entry, expression, patient, unique

IHE = "urn:ihe:event-type-code"


async def subtypes(owner: Actor, **asked: str) -> list[tuple[str, str]]:
    """Interaction and IHE's transaction of each event of the record, newest first."""
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    events = await owner.search(f"AuditEvent?patient={owner.patient}&_sort=-date&_count=100&{query}")
    told: list[tuple[str, str]] = []
    for event in events:
        first, *others = event["subtype"]
        assert all(one["system"] == IHE for one in others)
        told.append((first["code"], "".join(one["code"] for one in others)))
    return told


@pytest.mark.requirement("AUD-06")
async def test_each_transaction_is_called_by_its_name(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await world.relation(owner, doctor)
    made = ids_of(await doctor.post("", submission(owner.patient, pdf())))
    assert {one for one in await subtypes(owner) if one[1]} == {("create", "ITI-65")}
    assert len(await subtypes(owner, subtype=f"{IHE}|ITI-65")) == len({one.partition("/")[0] for one in made})
    await doctor.create(publication(owner.patient, pdf(), PROFILES[0]))
    assert len(await subtypes(owner, subtype=f"{IHE}|ITI-105")) == 3  # the document, its content, its set
    await doctor.get(f"List?patient={owner.patient}&code=submissionset&status=current")
    await doctor.get(f"DocumentReference?patient={owner.patient}")
    raw = next(one for one in made if one.startswith("Binary/"))
    await doctor.get(raw)
    await doctor.post("", bundle("batch", entry("GET", raw), entry("GET", f"{raw}/_history/1")))
    found = await subtypes(owner)
    assert ("search-type", "ITI-66") in found
    assert ("search-type", "ITI-67") in found
    assert found.count(("read", "ITI-68")) == 2
    assert ("vread", "ITI-68") in found


@pytest.mark.requirement("AUD-06", "AUD-05")
async def test_what_is_refused_is_called_by_its_name_too(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    wrong = submission(owner.patient, pdf())
    wrong["entry"] = [one for one in wrong["entry"] if one["resource"]["resourceType"] != "Binary"]
    assert (await doctor.post("", wrong)).status_code == 422
    assert ("transaction", "ITI-65") in await subtypes(owner, outcome="8")


@pytest.mark.requirement("AUD-06")
async def test_other_writes_are_no_transaction_of_ihe(world: World) -> None:
    owner = await world.patient()
    ids_of(await owner.post("", deposit(owner.patient, pdf())))
    assert {called for interaction, called in await subtypes(owner) if interaction == "create"} == {""}


def statements(folder: Path) -> list[dict[str, Any]]:
    files = [*folder.glob("ihe-mhd/capabilitystatements/*"), *folder.glob("ans-pdsm/built-json/CapabilityStatement-*")]
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.requirement("CORE-02", "DOC-01")
async def test_it_says_which_actors_it_is_and_keeps_what_their_statements_ask(world: World, specifications: Path) -> None:
    """Formats, interactions, operations and parameters. (What they name with a dot is a chain, which R4 cannot declare.)"""
    own = (await world.operator.get("metadata")).json()
    known = {one["url"]: one for one in statements(specifications)}
    mine = {one["type"]: one for one in own["rest"][0]["resource"]}
    claimed = [url for url in own["instantiates"] if "/MHD/" in url or "pdsm" in url]
    assert len(claimed) >= 7
    misspelt = {"_lastupdated", "DocumentRefence Author", "DocumentReference Patient"}
    for url in claimed:
        (rest,) = (one for one in known[url]["rest"] if one["mode"] == "server")
        assert set(known[url]["format"]) <= set(own["format"]), url
        assert {one["code"] for one in rest.get("interaction", ())} <= {one["code"] for one in own["rest"][0]["interaction"]}, (
            url
        )
        for asked in rest.get("resource", ()):
            there = mine[asked["type"]]
            for what, key in (("interaction", "code"), ("searchParam", "name"), ("operation", "name")):
                names = {one[key].removeprefix("$") for one in asked.get(what, ())}
                names = {name for name in names if "." not in name} - misspelt
                assert names <= {one[key] for one in there.get(what, ())}, (url, asked["type"], what)


def generating(document: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "document", "resource": document}]}


def fhir_document(specifications: Path, owner: Actor) -> dict[str, Any]:
    """IHE's example of a FHIR document, of a patient of the test."""
    found: dict[str, Any] = json.loads(
        (specifications / "ihe-mhd/examples-json/Bundle-ex-fhir-document-bundle.json").read_text()
    )
    person = next(one["resource"] for one in found["entry"] if one["resource"]["resourceType"] == "Patient")
    person["identifier"] = [{"system": "urn:oid:9.9.9", "value": "elsewhere"}, NAMES[owner.patient]]
    found["identifier"]["value"] = f"urn:uuid:{unique('00000000-0000-4000-8000')}"
    return found


NAMES: dict[str, dict[str, Any]] = {}


async def known_patient(world: World) -> Actor:
    """A patient with an identifier of the test."""
    made = patient()
    owner = await world.patient(identifier=made["identifier"])
    NAMES[owner.patient] = {name: made["identifier"][0][name] for name in ("system", "value")}
    return owner


@pytest.mark.requirement("DOC-17", "AUD-06")
async def test_a_fhir_document_says_itself_what_is_to_be_said_of_it(world: World, specifications: Path) -> None:
    owner, doctor = await known_patient(world), await world.professional()
    await world.relation(owner, doctor)
    document = fhir_document(specifications, owner)
    composition = document["entry"][0]["resource"]
    answer = await doctor.post("DocumentReference/$generate-metadata", generating(document))
    assert answer.status_code == 200, answer.text
    (told,) = answer.json()["parameter"]
    assert told["name"] == "DocumentReference"
    made = (await doctor.get(told["valueReference"]["reference"])).json()
    assert made["masterIdentifier"] == document["identifier"]
    assert (made["type"], made["description"]) == (composition["type"], composition["title"])
    assert made["subject"]["identifier"] == NAMES[owner.patient]
    assert made["author"] == [{"reference": "#author0"}]
    (attachment,) = (one["attachment"] for one in made["content"])
    assert (attachment["contentType"], attachment["creation"]) == ("application/fhir+json", composition["date"])
    assert (await doctor.get(attachment["url"], Accept="application/fhir+json")).json()["identifier"] == document["identifier"]
    (sent,) = await owner.search(f"List?patient={owner.patient}")
    assert [one["item"]["reference"] for one in sent["entry"]] == [told["valueReference"]["reference"]]
    assert (await subtypes(owner, subtype=f"{IHE}|ITI-106")) == [("create", "ITI-106")] * 3
    assert (await doctor.post("DocumentReference/$generate-metadata", generating(document))).json()["parameter"] == [told]


@pytest.mark.requirement("DOC-17")
async def test_what_does_not_say_what_it_is_is_refused(world: World, specifications: Path) -> None:
    owner, doctor = await known_patient(world), await world.professional()
    good = fhir_document(specifications, owner)
    first, *others = good["entry"]
    nameless = {**first, "resource": {name: v for name, v in first["resource"].items() if name != "subject"}}
    wrong: list[tuple[dict[str, Any], str]] = [
        (binary(pdf()), "Parameters.parameter"),
        ({**good, "type": "collection"}, "Parameters.parameter"),
        ({**good, "entry": others}, "Parameters.parameter.entry"),
        ({**good, "entry": [nameless, *others]}, "Parameters.parameter.subject"),
    ]
    for document, place in wrong:
        answer = await doctor.post("DocumentReference/$generate-metadata", generating(document))
        assert (answer.status_code in (400, 422), expression(answer)) == (True, place), answer.text
    stranger = fhir_document(specifications, owner)
    stranger["entry"][2]["resource"]["identifier"] = [{"system": "urn:oid:9.9.9", "value": "nobody"}]
    assert (await doctor.post("DocumentReference/$generate-metadata", generating(stranger))).status_code == 422
    assert await world.stored("DocumentReference", patient=owner.patient) == []
