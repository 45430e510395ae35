"""Batches and transactions.

Knows: https://hl7.org/fhir/R4/http.html#transaction. Must not know: whose server it is.
"""

import uuid
from typing import Any

from gateway.conformance.checks.core import TYPE, refused
from gateway.conformance.rule import rule
from gateway.conformance.server import Server, reference_of
from gateway.conformance.wire import Caller, place_of


def bundle(kind: str, *entries: dict[str, Any]) -> dict[str, Any]:
    """A Bundle of entries."""
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def entry(
    method: str, url: str, resource: dict[str, Any] | None = None, full_url: str | None = None, **other: str
) -> dict[str, Any]:
    """An entry that asks for something."""
    told: dict[str, Any] = {"request": {"method": method, "url": url, **other}}
    if full_url is not None:
        told["fullUrl"] = full_url
    if resource is not None:
        told["resource"] = resource
    return told


def create(resource: dict[str, Any], **other: str) -> dict[str, Any]:
    """An entry that creates, with a fullUrl of its own."""
    return entry("POST", resource["resourceType"], resource, f"urn:uuid:{uuid.uuid4()}", **other)


def done(caller: Caller, sent: dict[str, Any]) -> list[dict[str, Any]]:
    """Send it; the entries of the answer. What they created is removed at the end."""
    answer = caller.ask("POST", "", sent)
    assert answer.status_code == 200, f"a {sent['type']} is answered with 200"
    told = answer.json()
    assert told["type"] == f"{sent['type']}-response", "the type of the answer"
    assert len(told["entry"]) == len(sent["entry"]), "an entry is answered with an entry"
    for one in told["entry"]:
        if one["response"]["status"].startswith("201"):
            caller.remember(one["response"].get("location", ""))
    entries: list[dict[str, Any]] = told["entry"]
    return entries


def statuses(entries: list[dict[str, Any]]) -> list[str]:
    """The three digits of each answer."""
    return [one["response"]["status"][:3] for one in entries]


@rule(
    "BUN-01",
    "SHALL",
    "A transaction deletes first, then creates, changes, reads; it answers in the order of the request.",
    "FHIR R4 http",
    "#trules",
)
def check_order(server: Server, owner: Caller) -> None:
    """A read that stands first sees what is created after it."""
    server.needs_of_system("transaction")
    resource = server.heart_rate()
    one = resource["identifier"][0]
    asked = entry("GET", f"{TYPE}?patient={server.patient}&identifier={one['system']}|{one['value']}")
    entries = done(owner, bundle("transaction", asked, create(resource)))
    assert statuses(entries) == ["200", "201"], "answers stand where their requests stand"
    assert entries[0]["resource"]["total"] == 1, "the read is done after the create"


@rule("BUN-02", "SHALL", "A transaction is done whole or not at all.", "FHIR R4 http", "#transaction")
def check_atomic(server: Server, owner: Caller) -> None:
    """One good entry, one bad one."""
    server.needs_of_system("transaction")
    before = server.count(owner)
    bad = {"resourceType": TYPE, "status": "final", "subject": {"reference": f"Patient/{server.patient}"}}
    answer = owner.ask("POST", "", bundle("transaction", create(server.heart_rate()), create(bad)))
    if answer.status_code == 200:
        for one in answer.json().get("entry", []):
            owner.remember(one.get("response", {}).get("location", ""))
    refused(answer, 400, 422, 409, 412)
    assert server.count(owner) == before, "nothing is stored of what was refused"


@rule(
    "BUN-03",
    "SHALL",
    "References to other entries become references to what is created, wherever they stand.",
    "FHIR R4 http",
    "#trules",
)
def check_references(server: Server, owner: Caller) -> None:
    """A reading that was derived from another."""
    server.needs_of_system("transaction")
    first = create(server.heart_rate())
    link = {"reference": first["fullUrl"]}
    second = create(
        server.heart_rate(derivedFrom=[link], extension=[{"url": "https://kit.example/why", "valueReference": link}])
    )
    entries = done(owner, bundle("transaction", second, first))
    made = place_of(entries[1]["response"]["location"])
    assert made, "the answer names what was created"
    stored = owner.get(place_of(entries[0]["response"]["location"])).json()
    assert stored["derivedFrom"][0]["reference"] == made, "the reference names what was created"
    assert stored["extension"][0]["valueReference"]["reference"] == made, "in extensions, too"


@rule(
    "BUN-04",
    "SHALL",
    "A reference to an entry whose ifNoneExist found something becomes one to what was found.",
    "FHIR R4 http",
    "#trules",
)
def check_reference_to_found(server: Server, owner: Caller) -> None:
    """The second time, the first is found."""
    server.needs_of_system("transaction")
    server.needs_of_type(TYPE, "conditionalCreate")
    resource = server.heart_rate()
    one = resource["identifier"][0]
    found = reference_of(server.made_by(owner, resource))
    again = create(resource, ifNoneExist=f"identifier={one['system']}|{one['value']}")
    second = create(server.heart_rate(derivedFrom=[{"reference": again["fullUrl"]}]))
    entries = done(owner, bundle("transaction", again, second))
    assert statuses(entries) == ["200", "201"], "what is there is not created again"
    stored = owner.get(place_of(entries[1]["response"]["location"])).json()
    assert stored["derivedFrom"][0]["reference"] == found, "the reference names what was found"


@rule("BUN-05", "SHALL", "A conditional reference that finds nothing fails the transaction.", "FHIR R4 http", "#trules")
def check_conditional_reference(server: Server, owner: Caller) -> None:
    """There is no such Observation."""
    server.needs_of_system("transaction")
    before = server.count(owner)
    link = {"reference": f"{TYPE}?patient={server.patient}&identifier=urn:kit|nobody"}
    refused(owner.ask("POST", "", bundle("transaction", create(server.heart_rate(derivedFrom=[link])))), 400, 412, 422)
    assert server.count(owner) == before, "nothing is stored"


@rule("BUN-06", "SHALL", "A transaction that touches a resource twice is refused.", "FHIR R4 http", "#trules")
def check_twice(server: Server, owner: Caller) -> None:
    """Two updates of one."""
    server.needs_of_system("transaction")
    stored = server.made_by(owner, server.heart_rate())
    path = reference_of(stored)
    both = bundle("transaction", *(entry("PUT", path, {**stored, "status": status}) for status in ("amended", "corrected")))
    refused(owner.ask("POST", "", both), 400, 409, 422)
    assert owner.get(path).json()["status"] == "final", "neither is done"


@rule(
    "BUN-07", "SHALL", "In a batch each entry is answered for itself, in the order of the request.", "FHIR R4 http", "#brules"
)
def check_batch(server: Server, owner: Caller) -> None:
    """Good, bad, good."""
    server.needs_of_system("batch")
    path = reference_of(server.made_by(owner, server.heart_rate()))
    entries = done(owner, bundle("batch", entry("GET", path), entry("GET", f"{TYPE}/kit-0-never"), create(server.heart_rate())))
    assert statuses(entries) == ["200", "404", "201"], "each for itself"
    assert entries[1]["response"].get("outcome", {}).get("resourceType") == "OperationOutcome", "a refusal says why"


@rule("BUN-08", "SHALL", "An entry that asks for something on another server is refused.", "FHIR R4 bundle", "#bundle-unique")
def check_foreign(server: Server, owner: Caller) -> None:
    """A server does not fetch what it is told to."""
    server.needs_of_system("batch")
    answer = owner.ask("POST", "", bundle("batch", entry("GET", "http://127.0.0.1:9/fhir/Patient/1")))
    assert answer.status_code in (200, 400, 422), "the batch or its entry is refused"
    if answer.status_code == 200:
        assert statuses(answer.json()["entry"])[0].startswith("4"), "what is elsewhere is refused"


@rule("BUN-09", "SHALL", "A Bundle that breaks its own rules is refused.", "FHIR R4 bundle", "#invs")
def check_invariants(server: Server, owner: Caller) -> None:
    """No request; the same fullUrl twice."""
    server.needs_of_system("transaction")
    without = {"resource": server.heart_rate()}
    refused(owner.ask("POST", "", bundle("transaction", without)), 400, 422)
    one = create(server.heart_rate())
    twin = {**create(server.heart_rate()), "fullUrl": one["fullUrl"]}
    refused(owner.ask("POST", "", bundle("transaction", one, twin)), 400, 422)


@rule("BUN-11", "SHALL", "Rights are checked for each entry.", "FHIR R4 http", "#brules")
def check_rights(server: Server, owner: Caller) -> None:
    """Somebody else's record in a batch."""
    server.needs_tokens()
    server.needs_of_system("batch")
    stranger = server.stranger
    path = reference_of(server.made_by(owner, server.heart_rate()))
    entries = done(owner, bundle("batch", entry("GET", path), entry("GET", f"Patient/{stranger}")))
    assert statuses(entries)[0] == "200", "what is one's own is answered"
    assert statuses(entries)[1] in ("403", "404"), "what is somebody else's is not"
