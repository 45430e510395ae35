"""Consent, and what may not be seen.

Knows: what a patient is owed. Must not know: whose server it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from gateway.conformance.checks.core import TYPE
from gateway.conformance.checks.search import found
from gateway.conformance.rule import rule
from gateway.conformance.server import Server, not_applicable, reference_of
from gateway.conformance.wire import Caller


def told(answer: httpx.Response) -> tuple[int, list[tuple[str, str]]]:
    """What can be learnt from a refusal: its status, the codes and texts of its issues."""
    issues = answer.json().get("issue", []) if answer.content else []
    return answer.status_code, [(issue["code"], issue.get("diagnostics", "")) for issue in issues]


@rule("SEC-05", "SHALL", "What may not be seen is answered as what does not exist.", "house")
def check_hidden(server: Server, professional: Caller) -> None:
    """A patient who shares nothing, and one who never was."""
    server.needs_tokens()
    hidden, unknown = professional.get(f"Patient/{server.stranger}"), professional.get("Patient/kit-0-never")
    assert hidden.status_code == 404, "404, not 403: that somebody is there is a fact about them"
    assert told(hidden) == told(unknown), "the same answer"
    asked = {"code": "http://loinc.org|8867-4"}
    of_hidden = professional.get(TYPE, patient=server.stranger, **asked)
    of_unknown = professional.get(TYPE, patient="kit-0-never", **asked)
    assert (found(of_hidden), of_hidden.json().get("total")) == (found(of_unknown), of_unknown.json().get("total")), (
        "in searches too"
    )


@rule("SEC-05b", "SHALL", "A reference to what may not be seen is refused as one to what does not exist.", "house")
def check_hidden_reference(server: Server, owner: Caller) -> None:
    """Subject: somebody else."""
    server.needs_tokens()
    answers = [
        owner.create(server.heart_rate(subject={"reference": f"Patient/{name}"})) for name in (server.stranger, "kit-0-never")
    ]
    assert all(answer.status_code in (403, 404, 422) for answer in answers), "both are refused"
    assert told(answers[0]) == told(answers[1]), "alike"


@rule("EXT-06", "SHALL", "Consent that is taken back is gone for the next request of a live token.", "house")
def check_revocation(server: Server, owner: Caller, professional: Caller) -> None:
    """Read, take back, read; then give again."""
    server.needs_tokens()
    consent = consent_of(server, owner)
    path = reference_of(server.made_by(owner, server.heart_rate()))
    assert professional.get(path).status_code == 200, "with consent, the professional reads"
    with taken_back(owner, consent):
        assert professional.get(path).status_code in (403, 404), "the next read is refused"
        searched = professional.get(TYPE, patient=server.patient, code="http://loinc.org|8867-4")
        assert searched.status_code == 403 or found(searched) == [], "the next search finds nothing"
    assert professional.get(path).status_code == 200, "given again, the professional reads again"


@rule("SRCH-11", "SHALL", "No count tells of what may not be seen.", "house")
def check_counts(server: Server, owner: Caller, professional: Caller) -> None:
    """total of a search after consent was taken back."""
    server.needs_tokens()
    consent = consent_of(server, owner)
    server.made_by(owner, server.heart_rate())
    with taken_back(owner, consent):
        for shape in ({"_summary": "count"}, {"_total": "accurate"}, {"_count": "0"}):
            answer = professional.get(TYPE, patient=server.patient, code="http://loinc.org|8867-4", **shape)
            assert answer.status_code == 403 or not answer.json().get("total"), f"{shape} counts nothing"


@rule("CON-001", "SHALL", "Without consent nothing of a record is read.", "house")
def check_without_consent(server: Server, professional: Caller, app: Caller) -> None:
    """The record of somebody who shares nothing."""
    server.needs_tokens()
    for caller in (professional, app):
        answer = caller.get(TYPE, patient=server.stranger)
        assert answer.status_code == 403 or found(answer) == [], "nothing is found"


@contextmanager
def taken_back(owner: Caller, consent: dict[str, Any]) -> Iterator[None]:
    """For a while, the person takes the Consent back; whatever happens then, it is given again."""
    path = f"Consent/{consent['id']}"
    try:
        assert owner.ask("PUT", path, {**consent, "status": "inactive"}).status_code == 200, "taken back"
        yield
    finally:
        owner.ask("PUT", path, {**consent, "status": "active"})


def consent_of(server: Server, owner: Caller) -> dict[str, Any]:
    """The Consent that opens the record to the professional."""
    if server.target.consent is None:
        not_applicable("the kit was told of no Consent that opens the record to the professional")
    server.needs("Consent", "read", "update")
    answer = owner.get(f"Consent/{server.target.consent}")
    assert answer.status_code == 200, "the person reads their own Consent"
    consent: dict[str, Any] = answer.json()
    return consent
