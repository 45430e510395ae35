"""Documents: deposited, found, fetched, superseded, withdrawn.

Knows: https://profiles.ihe.net/ITI/MHD/, the rules of the French PDSm. Must not know: whose server it is.
"""

import base64
import hashlib
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.conformance.checks.bundles import bundle, done, entry, statuses
from gateway.conformance.checks.core import refused
from gateway.conformance.checks.search import found
from gateway.conformance.rule import rule
from gateway.conformance.server import Server, moment, not_applicable
from gateway.conformance.wire import JSON_PATCH, Caller, place_of

MHD = "https://profiles.ihe.net/ITI/MHD/StructureDefinition/"
PROVIDE = f"{MHD}IHE.MHD.Minimal.ProvideBundle"
URI = "urn:ietf:rfc:3986"
DOCUMENTS = "DocumentReference"


def name() -> str:
    """A fullUrl that nothing else has."""
    return f"urn:uuid:{uuid.uuid4()}"


@dataclass
class Submission:
    """A document as a producer provides it (ITI-65, minimal metadata), with bytes that no other document has."""

    patient: str
    content: bytes = field(default_factory=lambda: b"%PDF-1.7\n" + uuid.uuid4().bytes + b"\n%%EOF\n")
    unique_id: str = field(default_factory=lambda: f"urn:oid:2.25.{uuid.uuid4().int}")
    binary: str = field(default_factory=name)
    reference: str = field(default_factory=name)
    date: str = field(default_factory=moment)  # once: what is sent again is the same

    def document(self, **elements: Any) -> dict[str, Any]:
        """The DocumentReference."""
        attachment = {
            "contentType": "application/pdf",
            "url": self.binary,
            "size": len(self.content),
            "hash": base64.b64encode(hashlib.sha1(self.content, usedforsecurity=False).digest()).decode(),
        }
        return {
            "resourceType": DOCUMENTS,
            "masterIdentifier": {"system": URI, "value": self.unique_id},
            "status": "current",
            "type": {"coding": [{"system": "http://loinc.org", "code": "11488-4"}]},
            "subject": {"reference": f"Patient/{self.patient}"},
            "date": self.date,
            "content": [{"attachment": attachment}],
        } | elements

    def submission_set(self) -> dict[str, Any]:
        """The List of what is submitted."""
        source = {"url": f"{MHD}ihe-sourceId", "valueIdentifier": {"system": URI, "value": "urn:oid:2.25.1"}}
        return {
            "resourceType": "List",
            "extension": [source],
            "identifier": [{"use": "usual", "system": URI, "value": f"urn:oid:2.25.{uuid.uuid4().int}"}],
            "status": "current",
            "mode": "working",
            "code": {
                "coding": [{"system": "https://profiles.ihe.net/ITI/MHD/CodeSystem/MHDlistTypes", "code": "submissionset"}]
            },
            "subject": {"reference": f"Patient/{self.patient}"},
            "date": moment(),
            "entry": [{"item": {"reference": self.reference}}],
        }

    def bundle(self, *lists: dict[str, Any], **elements: Any) -> dict[str, Any]:
        """The transaction. `lists`: in place of the one submission set; `elements`: of the DocumentReference."""
        raw = {"resourceType": "Binary", "contentType": "application/pdf", "data": base64.b64encode(self.content).decode()}
        told = bundle(
            "transaction",
            *(entry("POST", "List", one, name()) for one in lists or (self.submission_set(),)),
            entry("POST", DOCUMENTS, self.document(**elements), self.reference),
            entry("POST", "Binary", raw, self.binary),
        )
        return {**told, "meta": {"profile": [PROVIDE]}}


@pytest.fixture
def submission(server: Server) -> Submission:
    """A document that is not yet deposited; not applicable where the server takes none."""
    needs_documents(server)
    return Submission(server.patient)


def needs_documents(server: Server) -> None:
    """Not applicable where the server takes no documents."""
    server.needs_of_system("transaction")
    for kind in (DOCUMENTS, "List"):
        server.needs(kind, "create", "search-type")


def provided(caller: Caller, sent: dict[str, Any]) -> str:
    """Deposit it; `DocumentReference/id`."""
    entries = done(caller, sent)
    assert statuses(entries) == ["201"] * len(sent["entry"]), "each entry is created"
    places = (place_of(one["response"]["location"]) for one in entries)
    return next(place for place in places if place.startswith(f"{DOCUMENTS}/"))


@rule(
    "DOC-01",
    "SHALL",
    "A document is provided with its content and submission set in one transaction.",
    "IHE MHD",
    "ITI-65.html",
)
def check_provide(server: Server, owner: Caller, submission: Submission) -> None:
    """All three are stored, and know of each other."""
    stored = owner.get(provided(owner, submission.bundle())).json()
    url = stored["content"][0]["attachment"]["url"]
    assert not url.startswith("urn:"), "the attachment names the content that was stored"
    assert stored["masterIdentifier"]["value"] == submission.unique_id, "the document keeps its uniqueId"
    lists = found(owner.get("List", patient=server.patient, item=f"{DOCUMENTS}/{stored['id']}")) if _finds_items(server) else []
    assert not _finds_items(server) or len(lists) == 1, "the submission set lists the document"


def _finds_items(server: Server) -> bool:
    return any(one["name"] == "item" for one in server.types["List"].get("searchParam", []))


@rule("DOC-02", "SHALL", "A submission has exactly one submission set.", "IHE MHD", "ITI-65.html")
def check_one_submission_set(owner: Caller, submission: Submission) -> None:
    """Two of them."""
    refused(owner.ask("POST", "", submission.bundle(submission.submission_set(), submission.submission_set())), 400, 422)


@rule("DOC-03", "SHALL", "An attachment names content that comes with the submission.", "IHE MHD", "ITI-65.html")
def check_dangling(owner: Caller, submission: Submission) -> None:
    """The Binary is missing."""
    sent = submission.bundle()
    refused(owner.ask("POST", "", {**sent, "entry": sent["entry"][:-1]}), 400, 422)


@rule("DOC-04", "SHALL", "hash and size are those of the bytes.", "IHE MHD", "32_fhir_maps.html")
@pytest.mark.parametrize("claim", ["hash", "size"])
def check_claims(owner: Caller, submission: Submission, claim: str) -> None:
    """A document that says something else of its content."""
    sent = submission.bundle()
    attachment = sent["entry"][1]["resource"]["content"][0]["attachment"]
    attachment[claim] = {"hash": "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "size": len(submission.content) + 1}[claim]
    refused(owner.ask("POST", "", sent), 400, 422)


@rule("DOC-08", "SHALL", "A document that replaces another makes it superseded; both stay readable.", "IHE MHD", "ITI-65.html")
def check_replace(owner: Caller, submission: Submission) -> None:
    """relatesTo replaces."""
    old = provided(owner, submission.bundle())
    new = Submission(submission.patient)
    relation = {"code": "replaces", "target": {"reference": old}}
    current = provided(owner, new.bundle(relatesTo=[relation]))
    assert owner.get(old).json()["status"] == "superseded", "the former one is superseded"
    assert owner.get(current).json()["status"] == "current", "the new one is current"
    again = Submission(submission.patient)
    refused(owner.ask("POST", "", again.bundle(relatesTo=[relation])), 400, 409, 422)


@rule(
    "DOC-12",
    "SHALL",
    "A search of documents that names no patient, identifier or id is refused; status is not required.",
    "IHE MHD",
    "ITI-67.html",
)
def check_find(server: Server, owner: Caller, submission: Submission) -> None:
    """With and without a patient."""
    stored = provided(owner, submission.bundle())
    refused(owner.get(DOCUMENTS, status="current"), 400)
    matches = found(owner.get(DOCUMENTS, patient=server.patient, _sort="-_lastUpdated"))
    assert stored in [f"{DOCUMENTS}/{one['id']}" for one in matches], "it is found by its patient"


@rule("SRCH-12", "SHALL", "identifier finds a document by its masterIdentifier.", "FHIR R4 search")
def check_by_unique_id(owner: Caller, submission: Submission) -> None:
    """By uniqueId."""
    stored = provided(owner, submission.bundle())
    matches = found(owner.get(DOCUMENTS, identifier=f"{URI}|{submission.unique_id}"))
    assert [f"{DOCUMENTS}/{one['id']}" for one in matches] == [stored], "it, and nothing else"


@rule(
    "DOC-14",
    "SHALL",
    "Content comes as it was deposited, with its type, or as a Binary for who asks for FHIR.",
    "IHE MHD",
    "ITI-68.html",
)
def check_fetch(owner: Caller, submission: Submission) -> None:
    """The address of the attachment, three times."""
    url = owner.get(provided(owner, submission.bundle())).json()["content"][0]["attachment"]["url"]
    raw = owner.get(url, {"accept": "application/pdf"})
    assert raw.status_code == 200, "it is there"
    assert raw.content == submission.content, "the very bytes"
    assert raw.headers.get("content-type", "").startswith("application/pdf"), "with their type"
    told = owner.get(url, {"accept": "application/fhir+json"}).json()
    assert base64.b64decode(told["data"]) == submission.content, "as a Binary, in base64"
    assert owner.get(url, {"accept": "image/png"}).status_code == 406, "what it is not cannot be asked for"


@rule("DOC-18", "SHALL", "A document that comes again is known; another one under its uniqueId is refused.", "house")
def check_unique_id(server: Server, owner: Caller, submission: Submission) -> None:
    """The same, then other bytes."""
    stored = provided(owner, submission.bundle())
    again = owner.ask("POST", "", submission.bundle())
    assert again.status_code == 200, "what comes again is answered with 200"
    matches = found(owner.get(DOCUMENTS, patient=server.patient, identifier=f"{URI}|{submission.unique_id}"))
    assert [f"{DOCUMENTS}/{one['id']}" for one in matches] == [stored], "there is still one"
    other = Submission(server.patient, unique_id=submission.unique_id)
    refused(owner.ask("POST", "", other.bundle()), 400, 409, 422)


@rule("DOC-10", "SHALL", "Of a deposited document only its status, labels and archival change.", "IHE MHD")
def check_restricted_patch(owner: Caller, submission: Submission) -> None:
    """A new title."""
    stored = provided(owner, submission.bundle())
    patch = [{"op": "add", "path": "/description", "value": "another"}]
    refused(owner.ask("PATCH", stored, patch, JSON_PATCH), 405, 422)
    assert "description" not in owner.get(stored).json(), "nothing has changed"


@rule("DOC-20", "SHALL", "A document is withdrawn by its status; then neither it nor its content is read.", "house")
def check_withdraw(owner: Caller, submission: Submission) -> None:
    """entered-in-error."""
    stored = provided(owner, submission.bundle())
    url = owner.get(stored).json()["content"][0]["attachment"]["url"]
    patch = [{"op": "replace", "path": "/status", "value": "entered-in-error"}]
    answer = owner.ask("PATCH", stored, patch, JSON_PATCH)
    assert answer.status_code in (200, 204), "who deposited it withdraws it"
    assert owner.get(stored).status_code in (404, 410), "it is not read any more"
    assert owner.get(url, {"accept": "application/pdf"}).status_code in (404, 410), "neither is its content"


@rule("DOC-24", "SHOULD", "Content that is not what it is said to be is refused.", "house")
def check_sniffing(owner: Caller, submission: Submission) -> None:
    """A page of HTML, said to be a PDF."""
    page = Submission(submission.patient, content=b"<!doctype html><script>alert(1)</script>" + uuid.uuid4().hex.encode())
    refused(owner.ask("POST", "", page.bundle()), 400, 415, 422)


@rule("DOC-11", "SHALL", "A change of a document is answered with 200 and the next version; its id stays.", "IHE MHD")
def check_patched(owner: Caller, submission: Submission) -> None:
    """A label is added."""
    stored = provided(owner, submission.bundle())
    before = owner.get(stored)
    restricted = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]}
    answer = owner.ask("PATCH", stored, [{"op": "add", "path": "/securityLabel", "value": [restricted]}], JSON_PATCH)
    assert answer.status_code == 200, "a label is added"
    after = owner.get(stored)
    assert after.json()["securityLabel"] == [restricted], "it is there"
    assert after.json()["meta"]["versionId"] != before.json()["meta"]["versionId"], "it is the next version"
    assert answer.headers.get("etag", "") == after.headers.get("etag"), "the answer tells its ETag"


@rule(
    "DOC-13",
    "SHALL",
    "A document that is found names its content by an address at which that can be fetched.",
    "IHE MHD",
    "ITI-67.html",
)
def check_address(server: Server, owner: Caller, submission: Submission) -> None:
    """attachment.url of a search."""
    stored = provided(owner, submission.bundle())
    (match,) = found(owner.get(DOCUMENTS, patient=server.patient, identifier=f"{URI}|{submission.unique_id}"))
    assert f"{DOCUMENTS}/{match['id']}" == stored, "it is found"
    url = match["content"][0]["attachment"]["url"]
    assert url.startswith(("https://", "http://")), "the address is a whole one"
    assert owner.get(url, {"accept": "application/pdf"}).content == submission.content, "its content is there"


@rule(
    "DOC-16",
    "SHALL",
    "A document that comes alone brings its content; that is stored apart, with a submission set.",
    "IHE MHD",
    "ITI-105.html",
)
def check_alone(server: Server, owner: Caller, submission: Submission) -> None:
    """data in the attachment (ITI-105)."""
    sent = submission.document()
    attachment = {name: told for name, told in sent["content"][0]["attachment"].items() if name != "url"}
    sent["content"] = [{"attachment": {**attachment, "data": base64.b64encode(submission.content).decode()}}]
    sent["meta"] = {"profile": [f"{MHD}IHE.MHD.SimplifiedPublish.DocumentReference"]}
    answer = owner.create(sent, {"prefer": "return=representation"})
    if answer.status_code in (400, 405, 422) and answer.json()["issue"][0]["code"] == "not-supported":
        not_applicable("the server takes documents with their submission only")
    assert answer.status_code == 201, "it is created"
    stored = owner.get(f"{DOCUMENTS}/{answer.json()['id']}").json()["content"][0]["attachment"]
    assert "data" not in stored, "the content is no part of the document any more"
    assert owner.get(stored["url"], {"accept": "application/pdf"}).content == submission.content, "it is where the url says"
    lists = (
        found(owner.get("List", patient=server.patient, item=f"{DOCUMENTS}/{answer.json()['id']}"))
        if _finds_items(server)
        else [{}]
    )
    assert len(lists) == 1, "a submission set lists it"


ARCHIVED = "https://interop.esante.gouv.fr/ig/fhir/pdsm/StructureDefinition/pdsm-ext-is-archived"


@rule("DOC-19", "SHALL", "isArchived finds what is archived, or what is not; without it both are found.", "house")
def check_archived(server: Server, owner: Caller, submission: Submission) -> None:
    """One archived, one not."""
    if not any(one["name"] == "isArchived" for one in server.types[DOCUMENTS].get("searchParam", [])):
        not_applicable("the server does not declare isArchived of DocumentReference")
    kept = provided(owner, submission.bundle())
    archived = provided(owner, Submission(server.patient).bundle())
    patch = [{"op": "add", "path": "/extension", "value": [{"url": ARCHIVED, "valueBoolean": True}]}]
    assert owner.ask("PATCH", archived, patch, JSON_PATCH).status_code == 200, "a document is archived"
    both = {kept, archived}
    for asked, expected in (({}, both), ({"isArchived": "true"}, {archived}), ({"isArchived": "false"}, {kept})):
        matches = {
            f"{DOCUMENTS}/{one['id']}" for one in found(owner.get(DOCUMENTS, patient=server.patient, _count="100", **asked))
        }
        assert matches & both == expected, f"{asked or 'without it'}: {len(expected)} of the two"


@rule("DOC-21", "SHALL", "Several contents come in one batch, in the order they were asked for.", "FHIR R4 http", "#brules")
def check_several(server: Server, owner: Caller, submission: Submission) -> None:
    """Two contents, and one that never was."""
    server.needs_of_system("batch")
    contents = [submission.content, *(Submission(server.patient).content for _ in range(1))]
    stored = [provided(owner, Submission(server.patient, content=one).bundle()) for one in contents]
    urls = [place_of(owner.get(one).json()["content"][0]["attachment"]["url"]) for one in stored]
    entries = done(owner, bundle("batch", *(entry("GET", url) for url in (urls[1], "Binary/kit-0-never", urls[0]))))
    assert statuses(entries) == ["200", "404", "200"], "each for itself"
    fetched = [base64.b64decode(entries[n]["resource"]["data"]) for n in (2, 0)]
    assert fetched == contents, "in the order they were asked for"


@rule("DOC-22", "SHALL", "_lastUpdated finds what has changed since: the new document, and the one that it replaces.", "house")
def check_changes(server: Server, owner: Caller, submission: Submission) -> None:
    """Two deposited; then one is replaced."""
    old, other = provided(owner, submission.bundle()), provided(owner, Submission(server.patient).bundle())
    since = owner.get(other).json()["meta"]["lastUpdated"]
    relation = {"code": "replaces", "target": {"reference": old}}
    new = provided(owner, Submission(server.patient).bundle(relatesTo=[relation]))
    matches = found(owner.get(DOCUMENTS, patient=server.patient, _lastUpdated=f"gt{since}", _count="100"))
    changed = {f"{DOCUMENTS}/{one['id']}": one for one in matches}
    assert {new, old} <= changed.keys(), "the new one and the replaced one are found"
    assert other not in changed, "what has not changed is not"
    assert changed[old]["status"] == "superseded", "the replaced one as it is now"
    assert changed[new]["relatesTo"][0]["target"]["reference"] == old, "the new one says what it replaces"
