"""$generate-metadata: a FHIR document is deposited alone, and its DocumentReference is made from what it says of itself.

Knows: https://profiles.ihe.net/ITI/MHD/ITI-106.html, and where a Composition says what a DocumentReference says
(https://hl7.org/fhir/R4/composition.html). Must not know: HTTP, MongoDB.

What is made is deposited like a document that comes alone with its content (ITI-105), with the rights that takes.
"""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.operations.arguments import read_arguments
from gateway.exchange.read import Result
from gateway.exchange.write import write
from gateway.fhir.balp import GENERATED
from gateway.fhir.bundle import read_type, require_document
from gateway.fhir.capability import FHIR_JSON
from gateway.fhir.operations import Operation
from gateway.fhir.values import token_values
from gateway.problem import Problem
from gateway.store.owners import find_patient
from gateway.store.receipts import Once

_DOCUMENT, _PLACE = "DocumentReference", "Parameters.parameter"
_PROFILE = "https://profiles.ihe.net/ITI/MHD/StructureDefinition/IHE.MHD.SimplifiedPublish.DocumentReference"
_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_NAMED = ("Practitioner", "Organization", "RelatedPerson", "Patient")
_MOST_IDENTIFIERS, _MOST_AUTHORS = 8, 20
_Tree = dict[str, Any]


async def generate_metadata(
    gateway: Gateway, access: Access, call: Call, operation: Operation, once: Once | None = None
) -> Result:
    """Deposit a FHIR document. Raises Problem for content of any other kind, which does not say what it is."""
    _, sent = read_arguments(gateway, operation, call.parameters, call.body or b"")
    if sent is None:
        raise Problem("required", "there is no document", _PLACE, status=400)
    if gateway.codec.peek_type(sent) != "Bundle" or read_type(sent) != "document":
        text = "only a FHIR document says what is to be said of it; any other is deposited with its DocumentReference"
        raise Problem("not-supported", text, _PLACE, status=422)
    try:
        require_document(gateway.codec, gateway.codec.decode("Bundle", sent, calm=call.calm))
        document = msgspec.json.decode(sent, type=_Tree)
        composition = document["entry"][0]["resource"]
        gateway.codec.decode("Composition", msgspec.json.encode(composition))
        made = _describe(document, composition, await _subject(gateway, document, composition), sent)
    except Problem as problem:
        raise problem.within(_PLACE) from None
    body = msgspec.json.encode(made)
    deposit = msgspec.structs.replace(
        call, interaction="create", type=_DOCUMENT, body=body, parameters=(), calm=False, part_of=GENERATED
    )
    (answer,), events = await write(gateway, access, [(deposit, None)], once=once)
    told = {"name": _DOCUMENT, "valueReference": {"reference": f"{_DOCUMENT}/{answer.id}"}}
    found = msgspec.json.encode({"resourceType": "Parameters", "parameter": [told]})
    return Answer(200, found, replayed=answer.replayed), events


def _describe(document: _Tree, composition: _Tree, subject: _Tree, sent: bytes) -> _Tree:
    """The DocumentReference of a document."""
    contained, authors = list[_Tree](), list[_Tree]()
    for n, reference in enumerate(composition.get("author", ())[:_MOST_AUTHORS]):
        authors.append(_named(document, reference, f"author{n}", contained))
    custodian = composition.get("custodian")
    events = composition.get("event", ())
    period = next((event["period"] for event in events if "period" in event), None)
    attachment = {
        "contentType": FHIR_JSON,
        "language": composition.get("language") or document.get("language"),
        "data": b64encode(sent).decode(),
        "title": composition.get("title"),
        "creation": composition.get("date"),
    }
    level = composition.get("confidentiality")
    found: _Tree = {
        "resourceType": _DOCUMENT,
        "meta": {"profile": [_PROFILE]},
        "contained": contained,
        "masterIdentifier": document["identifier"],
        "identifier": [composition["identifier"]] if "identifier" in composition else None,
        "status": "current",
        "type": composition.get("type"),
        "category": composition.get("category", ())[:1],
        "subject": subject,
        "date": document["timestamp"],
        "author": authors,
        "custodian": _named(document, custodian, "custodian", contained) if custodian else None,
        "description": composition.get("title"),
        "securityLabel": [{"coding": [{"system": _CONFIDENTIALITY, "code": level}]}] if level else None,
        "content": [{"attachment": {name: value for name, value in attachment.items() if value}}],
        "context": {
            name: value
            for name, value in (("event", [code for event in events for code in event.get("code", ())]), ("period", period))
            if value
        },
    }
    return {name: value for name, value in found.items() if value}


async def _subject(gateway: Gateway, document: _Tree, composition: _Tree) -> _Tree:
    """Whose it is: the Patient in the document by the identifier that is known here, or whom it names without one."""
    reference = composition.get("subject")
    if reference is None:
        raise Problem("required", "a document says whose it is", "Composition.subject")
    person = _resolve(document, reference)
    if person is None:
        return dict(reference)
    if person.get("resourceType") != "Patient":
        raise Problem("value", "a document is of a Patient here", "Composition.subject")
    named = [one for one in person.get("identifier", ()) if one.get("system") and one.get("value")][:_MOST_IDENTIFIERS]
    if not named:
        raise Problem("required", "the Patient has no identifier by which it is known", "Composition.subject")
    # Each of them is looked up, so that it takes no longer where one is known.
    found = [await find_patient(gateway.mongo, token_values(one["system"], one["value"])[0]) for one in named]
    known = next((one for one, there in zip(named, found, strict=True) if there is not None), named[0])
    return {"type": "Patient", "identifier": {"system": known["system"], "value": known["value"]}}


def _named(document: _Tree, reference: _Tree, identifier: str, contained: list[_Tree]) -> _Tree:
    """Somebody whom the document names, as far as that means something outside it: by name and identifiers, contained."""
    someone = _resolve(document, reference)
    if someone is not None and someone["resourceType"] in _NAMED:
        kept: _Tree = {name: someone[name] for name in ("identifier", "name") if name in someone}
        contained.append({"resourceType": someone["resourceType"], "id": identifier, **kept})
        return {"reference": f"#{identifier}"}
    told: _Tree = {name: reference[name] for name in ("identifier", "display", "type") if name in reference}
    return told or {"display": reference.get("reference", "?").partition("/")[0]}


def _resolve(document: _Tree, reference: _Tree) -> _Tree | None:
    """What a reference leads to within the document (https://hl7.org/fhir/R4/bundle.html#references)."""
    text = reference.get("reference")
    return next((resource for url, resource in _entries(document) if text and (url == text or url.endswith(f"/{text}"))), None)


def _entries(document: _Tree) -> Iterator[tuple[str, _Tree]]:
    for entry in document["entry"]:
        if "resource" in entry:
            resource = entry["resource"]
            yield entry.get("fullUrl", ""), resource
            yield f"/{resource['resourceType']}/{resource.get('id')}", resource
