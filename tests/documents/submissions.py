"""Submissions of documents as producers send them (IHE MHD ITI-65, ANS PDSm): built for a patient of the test.

Knows: what each kind of submission has to say. Must not know: how the gateway answers.
"""

from typing import Any

from tests.documents.papers import PDF, binary, pdf, sha1
from tests.world import bundle, concept, entry, unique

MHD = "https://profiles.ihe.net/ITI/MHD/StructureDefinition/"
PDSM = "https://interop.esante.gouv.fr/ig/fhir/pdsm/StructureDefinition/"
LISTS = "https://profiles.ihe.net/ITI/MHD/CodeSystem/MHDlistTypes"
ARCHIVED = f"{PDSM}pdsm-ext-is-archived"
URI = "urn:ietf:rfc:3986"
AUTHOR = {
    "resourceType": "Practitioner",
    "id": "author",
    "identifier": [{"system": "https://rpps.esante.gouv.fr", "value": "10001234567"}],
    "name": [{"family": "Martin", "given": ["Ana"]}],
}
SOURCE = {"resourceType": "Patient", "id": "source", "identifier": [{"system": "urn:oid:1.2.3.4.5", "value": "mrn-1"}]}


def name() -> str:
    """A fullUrl that no other entry has."""
    return f"urn:uuid:{unique('00000000-0000-4000-8000')}"


def unique_id() -> dict[str, Any]:
    return {"system": URI, "value": f"urn:oid:{unique('1.2.250.1').replace('-', '.')}"}


def fiche(owner: str, url: str, content: bytes, **elements: Any) -> dict[str, Any]:
    """A DocumentReference that says everything that PDSm asks of it."""
    found = {
        "resourceType": "DocumentReference",
        "contained": [AUTHOR, SOURCE],
        "masterIdentifier": unique_id(),
        "status": "current",
        "type": concept("http://loinc.org", "11488-4"),
        "category": [concept("https://mos.esante.gouv.fr/NOS/TRE_A03-ClasseDocument/FHIR/TRE-A03-ClasseDocument", "11")],
        "subject": {"reference": f"Patient/{owner}"},
        "date": "2026-06-12T10:00:00+02:00",
        "author": [{"reference": "#author"}],
        "authenticator": {"reference": "#author"},
        "custodian": {"identifier": {"system": "urn:oid:1.2.250.1.71.4.2.2", "value": "1750000000"}},
        "securityLabel": [concept("http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "N")],
        "content": [
            {
                "attachment": {
                    "contentType": PDF,
                    "language": "fr-FR",
                    "url": url,
                    "size": len(content),
                    "hash": sha1(content),
                    "title": "Compte rendu",
                    "creation": "2026-06-12T10:00:00+02:00",
                },
                "format": {
                    "system": "http://ihe.net/fhir/ihe.formatcode.fhir/CodeSystem/formatcode",
                    "code": "urn:ihe:iti:xds",
                },
            }
        ],
        "context": {
            "period": {"start": "2026-06-12T09:00:00+02:00", "end": "2026-06-12T10:00:00+02:00"},
            "facilityType": concept("http://snomed.info/sct", "22232009"),
            "practiceSetting": concept("http://snomed.info/sct", "394802001"),
            "sourcePatientInfo": {"reference": "#source"},
        },
    }
    return {**found, **elements}


def submission_set(owner: str, *items: str, **elements: Any) -> dict[str, Any]:
    """The List of what is submitted."""
    return {
        "resourceType": "List",
        "contained": [AUTHOR],
        "extension": [
            {
                "url": f"{MHD}ihe-designationType",
                "valueCodeableConcept": concept("https://mos.esante.gouv.fr/NOS/TRE_R02-SecteurActivite", "SA01"),
            },
            {"url": f"{MHD}ihe-sourceId", "valueIdentifier": {"system": URI, "value": "urn:oid:1.2.3.4"}},
        ],
        "identifier": [{"use": "usual", **unique_id()}],
        "status": "current",
        "mode": "working",
        "code": concept(LISTS, "submissionset"),
        "subject": {"reference": f"Patient/{owner}"},
        "date": "2026-06-12T10:00:00+02:00",
        "source": {"reference": "#author"},
        "entry": [{"item": {"reference": item}} for item in items],
        **elements,
    }


def folder(owner: str, *items: str, **elements: Any) -> dict[str, Any]:
    """A List of documents that belong together."""
    found = submission_set(owner, *items, code=concept(LISTS, "folder"), title="Suivi", **elements)
    del found["source"], found["contained"]
    return found | {"extension": found["extension"][:1]}


def submission(owner: str, content: bytes | None = None, profile: str | None = None, **elements: Any) -> dict[str, Any]:
    """A submission of one document with its content; `elements`: of the DocumentReference."""
    content = pdf() if content is None else content
    document, raw = name(), name()
    sent = bundle(
        "transaction",
        entry("POST", "List", submission_set(owner, document), full_url=name()),
        entry("POST", "DocumentReference", fiche(owner, raw, content, **elements), full_url=document),
        entry("POST", "Binary", binary(content), full_url=raw),
    )
    return {**sent, "meta": {"profile": [profile or f"{PDSM}pdsm-comprehensive-provide-document-bundle"]}}


def superseding(reference: str) -> dict[str, Any]:
    """The entry by which a producer says itself that a document is superseded."""
    parts = [
        {"name": "type", "valueCode": "replace"},
        {"name": "path", "valueString": "DocumentReference.status"},
        {"name": "value", "valueCode": "superseded"},
    ]
    patch = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    return dict(entry("PATCH", reference, patch, full_url=name()))


def relation(code: str, reference: str) -> dict[str, Any]:
    return {"code": code, "target": {"reference": reference}}
