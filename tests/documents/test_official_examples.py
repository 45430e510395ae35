"""The submissions that IHE and ANS publish as examples are taken as they are; what is wrong with some of them is listed.

Each of them is sent for a patient of the test: what it refers to is put in place of the publisher's own.
"""

import copy
import json
import re
import tomllib
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.schemas import find_schemas
from tests.documents.papers import ids_of, sha1
from tests.documents.submissions import MHD, folder, submission
from tests.world import Actor, World, entry, expression, issues, organization, practitioner

Sent = dict[str, Any]
Repair = Callable[[Sent], None]

PATIENTS = re.compile(
    r"Patient/(ex-patient|fr-patient-123)|http://example\.org/fhir/Patient/fdoc-patient|Patient\?identifier=[^\"]+"
)
DOCUMENTS = re.compile(r"DocumentReference/(ex-documentreference|ex-DocumentReferenceComprehensive|doc-old|doc-x-id)")


def of_type(sent: Sent, name: str) -> Iterator[Sent]:
    yield from (one["resource"] for one in sent["entry"] if one["resource"]["resourceType"] == name)


def refer_to_contained(sent: Sent) -> None:
    """What is contained is referred to without the # that says so."""
    for one in sent["entry"]:
        text = json.dumps(one["resource"])
        for contained in one["resource"].get("contained", ()):
            text = text.replace(f'"{contained["resourceType"]}/{contained["id"]}"', f'"#{contained["id"]}"')
        one["resource"] = json.loads(text)


def name_the_patient(sent: Sent) -> None:
    """It does not say whose it is but by a contained patient without an identifier."""
    for one in (*of_type(sent, "List"), *of_type(sent, "DocumentReference")):
        one["subject"] = {"reference": sent["owner"]}


def leave_the_patient_out(sent: Sent) -> None:
    """It brings a Patient, which is for those who keep identities."""
    gone = [one["fullUrl"] for one in sent["entry"] if one["resource"]["resourceType"] == "Patient"]
    sent["entry"] = [one for one in sent["entry"] if one["fullUrl"] not in gone]
    for url in gone:
        sent["entry"] = json.loads(json.dumps(sent["entry"]).replace(url, sent["owner"]))


def name_the_folder(sent: Sent) -> None:
    """It updates a folder without saying which."""
    for one in sent["entry"]:
        if one["request"]["method"] == "PUT":
            one["request"]["url"] = f"List/{sent['folder']}"
            one["resource"]["id"] = sent["folder"]


def tell_documents_apart(sent: Sent) -> None:
    """Two documents have the same uniqueId."""
    for n, one in enumerate(of_type(sent, "DocumentReference")):
        one["masterIdentifier"]["value"] += f".{n}"


def name_the_extensions(sent: Sent) -> None:
    """Extensions have names of the publisher's tools in place of their urls."""
    text = json.dumps(sent["entry"])
    for name in ("DesignationType", "SourceId"):
        text = text.replace(f'"url": "{name}"', f'"url": "{MHD}ihe-{name[0].lower()}{name[1:]}"')
    sent["entry"] = json.loads(text)


def name_the_custodian(sent: Sent) -> None:
    """The profile that it claims requires a custodian."""
    for one in of_type(sent, "DocumentReference"):
        one["custodian"] = {"identifier": {"system": "urn:oid:1.2.250.1.71.4.2.2", "value": "1750000000"}}


def say_what_the_bytes_are(sent: Sent) -> None:
    """A text is said to be a PDF, with the hash of another."""
    for one in of_type(sent, "DocumentReference"):
        one["content"][0]["attachment"] |= {"contentType": "text/plain", "hash": sha1(b"Hello")}
    for one in of_type(sent, "Binary"):
        one["contentType"] = "text/plain"


def measure(sent: Sent) -> None:
    """The size and hash are those of other bytes."""
    (raw,), (one,) = of_type(sent, "Binary"), of_type(sent, "DocumentReference")
    plain = b64decode(raw["data"])
    one["content"][0]["attachment"] |= {"size": len(plain), "hash": sha1(plain)}


MHD_SET = "ihe-mhd/examples-json/Bundle-ex-"
EXAMPLES: dict[str, tuple[Repair, ...]] = {
    f"{MHD_SET}minimalProvideDocumentBundleSimple.json": (refer_to_contained, leave_the_patient_out),
    f"{MHD_SET}minimalProvideDocumentBundleSimpleContained.json": (refer_to_contained, name_the_patient),
    f"{MHD_SET}comprehensiveProvideDocumentBundleSimple.json": (refer_to_contained,),
    f"{MHD_SET}comprehensiveProvideDocumentBundleComplete.json": (refer_to_contained,),
    f"{MHD_SET}comprehensiveProvideDocumentBundleMultiple.json": (refer_to_contained, tell_documents_apart),
    f"{MHD_SET}comprehensiveProvideDocumentBundleDocument.json": (refer_to_contained, name_the_extensions),
    f"{MHD_SET}comprehensiveProvideDocumentBundleReplace.json": (refer_to_contained, measure),
    f"{MHD_SET}unContainedComprehensiveProvideDocumentBundleComplete.json": (),
    f"{MHD_SET}ProvideDocumentBundle-addToFolder.json": (refer_to_contained, name_the_folder),
    "ans-pdsm/examples/Bundle-bundle-exemple-comprehensiveprovidedocument-replace.json": (
        name_the_custodian,
        say_what_the_bytes_are,
    ),
    "ans-pdsm4dmp/examples/Bundle-example-td2-iti65-lot-soumission.json": (name_the_custodian,),
    "ans-pdsm4dmp/examples/Bundle-example-td2-1-remplacement.json": (name_the_custodian,),
}


def text_of(file: Path) -> str:
    return file.read_text("utf-8-sig")


async def adapted(world: World, owner: Actor, doctor: Actor, text: str) -> Sent:
    """An example that speaks of what is here."""
    old, place = submission(owner.patient), "urn:uuid:00000000-0000-4000-9000-000000000001"
    old["entry"].append(entry("POST", "List", folder(owner.patient, old["entry"][1]["fullUrl"]), full_url=place))
    made = ids_of(await doctor.post("", old))
    text = PATIENTS.sub(f"Patient/{owner.patient}", text)
    text = DOCUMENTS.sub(made[1], text)
    for name, resource in (("ex-practitioner", practitioner()), ("ex-organization", organization())):
        kind = resource["resourceType"]
        if f"{kind}/{name}" in text:
            text = text.replace(f"{kind}/{name}", f"{kind}/{(await world.operator.create(resource))['id']}")
    sent = dict(json.loads(text))
    return sent | {"owner": f"Patient/{owner.patient}", "folder": made[3].partition("/")[2]}


def repaired(sent: Sent, *repairs: Repair) -> Sent:
    sent = copy.deepcopy(sent)
    for repair in repairs:
        repair(sent)
    return {name: value for name, value in sent.items() if name not in ("owner", "folder")}


@pytest.mark.requirement("DOC-01")
@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_is_taken_but_for_what_is_wrong_with_it(world: World, specifications: Path, name: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    sent, repairs = await adapted(world, owner, doctor, text_of(specifications / name)), EXAMPLES[name]
    for n in range(len(repairs)):  # each of the repairs is needed
        refused = await doctor.post("", repaired(sent, *repairs[:n], *repairs[n + 1 :]))
        assert refused.status_code in (400, 403, 409, 422), (repairs[n].__doc__, refused.text)
        assert issues(refused)
    answer = await doctor.post("", repaired(sent, *repairs))
    assert answer.status_code == 200, answer.text
    asked = repaired(sent, *repairs)["entry"]
    expected = ["201 Created" if one["request"]["method"] == "POST" else "200 OK" for one in asked]
    assert [one["response"]["status"] for one in answer.json()["entry"]] == expected
    for one, response in zip(asked, answer.json()["entry"], strict=True):
        if one["request"]["method"] == "PATCH":
            assert (await owner.get(one["request"]["url"])).json()["status"] == "superseded"
        elif one["request"]["method"] == "PUT":
            assert response["response"]["etag"] == 'W/"2"'
        elif one["resource"]["resourceType"] != "Bundle":
            assert (await owner.get(response["response"]["location"])).status_code == 200


def rules_of(url: str) -> Iterator[str]:
    """The paths that a profile requires, with those it includes."""
    raw = tomllib.loads((find_schemas() / "profiles" / f"{url.rpartition('/')[2]}.toml").read_text("utf-8"))
    for name in raw.get("includes", ()):
        yield from rules_of(name)
    yield from (rule["path"] for rule in raw["rule"] if rule.get("required") and rule["path"] != "contained")


def is_without(resource: Any, path: str) -> bool:
    """Remove what stands at a path; whether anything did."""
    first, _, rest = path.partition(".")
    if rest.startswith("where("):
        name, literal = rest.removeprefix("where(").partition("')")[0].split("='")
        found = [one for one in resource.get(first, ()) if one.get(name) == literal]
        resource[first] = [one for one in resource.get(first, ()) if one not in found]
        if not resource[first]:
            del resource[first]
        return bool(found)
    if not rest:
        return resource.pop(first, None) is not None
    below = resource.get(first)
    found = [is_without(one, rest) for one in (below if isinstance(below, list) else [below]) if one is not None]
    return any(found)


@pytest.mark.requirement("DOC-05")
@pytest.mark.parametrize("name", EXAMPLES)
async def test_every_required_element_of_an_example_is_missed(world: World, specifications: Path, name: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    whole = repaired(await adapted(world, owner, doctor, text_of(specifications / name)), *EXAMPLES[name])
    seen = 0
    before = await world.stored("DocumentReference", patient=owner.patient)
    for n, one in enumerate(whole["entry"]):
        for path in sorted({path for url in one["resource"].get("meta", {}).get("profile", ()) for path in known(url)}):
            sent = copy.deepcopy(whole)
            if is_without(sent["entry"][n]["resource"], path):
                answer = await doctor.post("", sent)
                place = f"Bundle.entry[{n}].resource.{path.partition('.where')[0]}"
                assert answer.status_code in (400, 422), (path, answer.text)
                named = [where for issue in issues(answer) for where in issue["expression"]]
                if answer.status_code == 400:  # what it stood in is empty now
                    place = place.rpartition(".")[0]
                assert any(re.sub(r"(?<!entry)\[\d+\]", "", where).startswith(place) for where in named), (path, named)
                seen += 1
    assert seen >= 6
    assert await world.stored("DocumentReference", patient=owner.patient) == before


def known(url: str) -> list[str]:
    file = find_schemas() / "profiles" / f"{url.rpartition('/')[2]}.toml"
    return [*rules_of(url)] if file.exists() else []


SIMPLIFIED = [
    "ihe-mhd/examples-json/DocumentReference-ex-DocumentReferenceSimplifiedPublish.json",
    "ans-pdsm/examples/DocumentReference-PDSmSimplifiedExample.json",
    "ans-pdsm4dmp/examples/DocumentReference-example-td2-iti105-publication-simplifiee.json",
]


@pytest.mark.requirement("DOC-16")
@pytest.mark.parametrize("name", SIMPLIFIED)
async def test_a_simplified_example_is_published(world: World, specifications: Path, name: str) -> None:
    owner, doctor = await world.patient(), await world.professional()
    text = PATIENTS.sub(f"Patient/{owner.patient}", text_of(specifications / name))
    sent = json.loads(text)
    answer = await doctor.post("DocumentReference", sent)
    assert (answer.status_code, bool(expression(answer))) == (422, True), answer.text
    # The PDF is a text with the size and hash of something else; of whom it refers to nobody is here.
    if "context" in sent:
        sent["context"].pop("encounter", None)
        if not sent["context"]:
            del sent["context"]
    for element in ("author", "authenticator"):
        if str(sent.get(element, "")).find("practitionerrole-example") > 0:
            sent[element] = [{"display": "Dr Martin"}] if element == "author" else {"display": "Dr Martin"}
    sent["custodian"] = {"display": "Hôpital"}
    attachment = sent["content"][0]["attachment"]
    if attachment["contentType"] == "application/pdf":
        attachment["contentType"] = "text/plain"
        del attachment["size"], attachment["hash"]
    answer = await doctor.post("DocumentReference", sent)
    assert answer.status_code == 201, answer.text
    assert "data" not in answer.json()["content"][0]["attachment"]
    (made,) = await owner.search(f"List?patient={owner.patient}")
    assert made["entry"][0]["item"]["reference"] == f"DocumentReference/{answer.json()['id']}"
