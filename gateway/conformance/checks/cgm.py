"""The receiver of glucose readings.

Knows: https://hl7.org/fhir/uv/cgm/. Must not know: whose server it is.
"""

import time
from typing import Any

from gateway.conformance.checks.bundles import bundle, create, statuses
from gateway.conformance.checks.core import refused
from gateway.conformance.rule import rule
from gateway.conformance.server import Server, moment
from gateway.conformance.wire import Caller

OPERATION = "submit-cgm-bundle"
READING = "http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-sensor-reading-mass-per-volume"
SUBMISSION = "http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-data-submission-bundle"


def reading(server: Server, value: int = 104, minutes: int = 0) -> dict[str, Any]:
    """A reading as the profile has it."""
    return server.glucose(value, meta={"profile": [READING]}, effectiveDateTime=moment(1 + minutes / 1440))


def submission(*entries: dict[str, Any]) -> dict[str, Any]:
    """The Bundle that the operation takes."""
    return {**bundle("transaction", *entries), "meta": {"profile": [SUBMISSION]}, "timestamp": moment()}


def submit(caller: Caller, sent: dict[str, Any]) -> list[dict[str, Any]]:
    """Send it; an answer for each entry."""
    answer = caller.ask("POST", f"${OPERATION}", sent)
    assert answer.status_code == 200, f"a submission is answered with 200, not {answer.status_code}"
    entries: list[dict[str, Any]] = answer.json()["entry"]
    for one in entries:
        if one["response"]["status"].startswith("201"):
            caller.remember(one["response"].get("location", ""))
    assert len(entries) == len(sent["entry"]), "an answer for each entry"
    return entries


@rule(
    "CGM-01",
    "SHALL",
    "The CapabilityStatement says that it is a CGM data receiver, and declares the operation.",
    "HL7 CGM",
    "CapabilityStatement-cgm-data-receiver.html",
)
def check_declared(server: Server) -> None:
    """instantiates."""
    server.needs_operation(OPERATION)
    instantiates = server.capability.get("instantiates", [])
    assert any("cgm-data-receiver" in url for url in instantiates), "instantiates names the receiver"


@rule(
    "CGM-02",
    "SHALL",
    "Each entry is answered for itself and in order: a bad reading keeps no good one out.",
    "HL7 CGM",
    "OperationDefinition-submit-cgm-bundle.html",
)
def check_partial(server: Server, app: Caller) -> None:
    """Good, bad, good."""
    server.needs_operation(OPERATION)
    bad = {name: told for name, told in reading(server, minutes=5).items() if name != "code"}
    entries = submit(app, submission(create(reading(server)), create(bad), create(reading(server, minutes=10))))
    told = statuses(entries)
    assert (told[0], told[2]) == ("201", "201"), "good readings are created"
    assert told[1].startswith("4"), "a bad one is refused"
    assert entries[1]["response"]["outcome"]["issue"], "and it is said why"


@rule(
    "CGM-03",
    "SHALL",
    "A reading that is sent again is known: 200, its first location, nothing new.",
    "HL7 CGM",
    "OperationDefinition-submit-cgm-bundle.html",
)
def check_again(server: Server, app: Caller) -> None:
    """Apps send everything again, for ever."""
    server.needs_operation(OPERATION)
    sent = submission(create(reading(server)), create(reading(server, minutes=5)))
    first = submit(app, sent)
    again = submit(app, sent)
    assert statuses(first) == ["201", "201"], "created the first time"
    assert statuses(again) == ["200", "200"], "known the second time"
    places = [[one["response"]["location"].split("/_history")[0] for one in entries] for entries in (first, again)]
    assert places[0] == places[1], "at the same place"


@rule(
    "CGM-04",
    "SHOULD",
    "Only creates of CGM's types, and only of the patient of the token, are taken.",
    "HL7 CGM",
    "OperationDefinition-submit-cgm-bundle.html",
)
def check_strange_entries(server: Server, app: Caller) -> None:
    """A deletion, another type, another patient."""
    server.needs_operation(OPERATION)
    removal = {"request": {"method": "DELETE", "url": "Observation/x"}}
    condition = create({"resourceType": "Condition", "subject": {"reference": f"Patient/{server.patient}"}})
    for strange in (removal, condition):
        answer = app.ask("POST", f"${OPERATION}", submission(strange))
        told = statuses(answer.json()["entry"])[0] if answer.status_code == 200 else str(answer.status_code)
        assert told.startswith("4"), f"{strange['request']} is refused"


@rule(
    "CGM-05",
    "SHALL",
    "A reading that breaks its profile is refused, with the path of what is wrong.",
    "HL7 CGM",
    "StructureDefinition-cgm-sensor-reading-mass-per-volume.html",
)
def check_profile(server: Server, app: Caller) -> None:
    """A unit that the profile does not know."""
    server.needs_operation(OPERATION)
    wrong = reading(server)
    wrong["valueQuantity"] = {"value": 104, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"}
    entries = submit(app, submission(create(wrong)))
    assert statuses(entries)[0].startswith("4"), "a glucose in kilograms is refused"
    issue = entries[0]["response"]["outcome"]["issue"][0]
    assert "value" in " ".join(issue.get("expression", [])), "the expression names the value"


@rule("CGM-06", "SHOULD", "A reading can be found at once.", "HL7 CGM")
def check_found(server: Server, app: Caller, owner: Caller) -> None:
    """Within a second."""
    server.needs_operation(OPERATION)
    sent = reading(server)
    submit(app, submission(create(sent)))
    one = sent["identifier"][0]
    deadline = time.monotonic() + 1
    while True:
        answer = owner.get("Observation", patient=server.patient, identifier=f"{one['system']}|{one['value']}")
        if answer.json().get("total", len(answer.json().get("entry", []))) or time.monotonic() > deadline:
            break
    assert len(answer.json().get("entry", [])) == 1, "it is found"


@rule(
    "CGM-02b",
    "SHALL",
    "What is no submission at all is refused with an OperationOutcome.",
    "HL7 CGM",
    "OperationDefinition-submit-cgm-bundle.html",
)
def check_whole_failure(server: Server, app: Caller) -> None:
    """A Patient where a Bundle is expected."""
    server.needs_operation(OPERATION)
    refused(app.ask("POST", f"${OPERATION}", {"resourceType": "Patient"}), 400, 422)
