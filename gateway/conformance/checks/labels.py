"""Labels by which a document hides: from professionals, from the patient.

Knows: the French visibility of documents (TRE_A07), v3-Confidentiality. Must not know: whose server it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gateway.conformance.checks.bundles import bundle, done, entry
from gateway.conformance.checks.confidentiality import consent_of
from gateway.conformance.checks.consents import RESOURCE_TYPES, provided_otherwise
from gateway.conformance.checks.documents import DOCUMENTS, Submission, needs_documents, provided
from gateway.conformance.checks.search import found
from gateway.conformance.rule import rule
from gateway.conformance.server import Server, not_applicable, reference_of
from gateway.conformance.wire import JSON_PATCH, Caller

VISIBILITY = "https://mos.esante.gouv.fr/NOS/TRE_A07-StatutVisibiliteDocument/FHIR/TRE-A07-StatutVisibiliteDocument"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"


def label(system: str, code: str) -> dict[str, Any]:
    """A label as `securityLabel` has it."""
    return {"coding": [{"system": system, "code": code}]}


MASKED, NOT_YET, RESTRICTED = (
    label(VISIBILITY, "MASQUE_PS"),
    label(VISIBILITY, "INVISIBLE_PATIENT"),
    label(CONFIDENTIALITY, "R"),
)


@contextmanager
def documents_shared(server: Server, owner: Caller) -> Iterator[None]:
    """For a while, the professional reads documents, too."""
    needs_documents(server)
    consent = consent_of(server, owner)
    types = [one.get("code") for one in consent.get("provision", {}).get("class", [])]
    wanted = [{"system": RESOURCE_TYPES, "code": name} for name in (*types, DOCUMENTS, "Binary", "List") if name]
    if not types:
        yield
        return
    with provided_otherwise(owner, consent, **{"class": list({one["code"]: one for one in wanted}.values())}):
        yield


def reaches(server: Server, caller: Caller, stored: str, url: str) -> dict[str, bool]:
    """By which ways somebody comes to a document: each a fact that a label has to keep from them."""
    listed = caller.get(DOCUMENTS, patient=server.patient, _id=stored.partition("/")[2])
    counted = caller.get(DOCUMENTS, patient=server.patient, _id=stored.partition("/")[2], _summary="count")
    batch = caller.ask("POST", "", bundle("batch", entry("GET", stored), entry("GET", url)))
    inside = [one["response"]["status"][:3] for one in batch.json()["entry"]] if batch.status_code == 200 else ["403"]
    return {
        "read": caller.get(stored).status_code == 200,
        "search": listed.status_code == 200 and stored in map(reference_of, found(listed)),
        "count": counted.status_code == 200 and bool(counted.json().get("total")),
        "history": caller.get(f"{stored}/_history").status_code == 200,
        "content": caller.get(url, {"accept": "application/pdf"}).status_code == 200,
        "batch": "200" in inside,
    }


def address_of(caller: Caller, stored: str) -> str:
    """Of the content of a document."""
    url: str = caller.get(stored).json()["content"][0]["attachment"]["url"]
    return url


@rule(
    "SEC-01",
    "SHALL",
    "What is masked to professionals is hidden from them by every way: read, search, content, batch.",
    "house",
)
def check_masked(server: Server, owner: Caller, professional: Caller) -> None:
    """The person masks a document that the professional read."""
    server.needs_tokens()
    with documents_shared(server, owner):
        stored = provided(owner, Submission(server.patient).bundle())
        url = address_of(owner, stored)
        if not reaches(server, professional, stored, url)["read"]:
            not_applicable("the professional does not read documents by that Consent")
        answer = owner.ask("PATCH", stored, [{"op": "add", "path": "/securityLabel", "value": [MASKED]}], JSON_PATCH)
        assert answer.status_code == 200, "the person masks a document"
        seen = [way for way, is_open in reaches(server, professional, stored, url).items() if is_open]
        assert seen == [], f"masked, it is still reached by {', '.join(seen)}"
        assert owner.get(stored).status_code == 200, "the person still reads it"


@rule("SEC-02", "SHALL", "What the patient is not to see yet is hidden from them by every way.", "house")
def check_not_yet(server: Server, owner: Caller, professional: Caller) -> None:
    """A professional deposits it so."""
    server.needs_tokens()
    needs_documents(server)
    stored = provided(professional, Submission(server.patient).bundle(securityLabel=[NOT_YET]))
    url = address_of(professional, stored)
    seen = [way for way, is_open in reaches(server, owner, stored, url).items() if is_open]
    assert seen == [], f"the patient reaches it by {', '.join(seen)}"


@rule("SEC-03", "SHALL", "Labels are taken off one by one: the others stay.", "IHE MHD")
def check_others_stay(server: Server, owner: Caller) -> None:
    """R and masked; then no longer masked."""
    server.needs_tokens()
    needs_documents(server)
    entries = done(owner, Submission(server.patient).bundle(securityLabel=[RESTRICTED, MASKED]))
    assert {one["response"]["status"][:3] for one in entries} == {"201"}, "a document with two labels is taken"
    stored = next(one for _, one in reversed(owner.made) if one.startswith(f"{DOCUMENTS}/"))
    answer = owner.ask("PATCH", stored, [{"op": "remove", "path": "/securityLabel/1"}], JSON_PATCH)
    assert answer.status_code == 200, "the person takes a label off"
    left = [one["coding"][0]["code"] for one in owner.get(stored).json().get("securityLabel", [])]
    assert left == ["R"], "the other label stays"
