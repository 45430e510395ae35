"""The log of accesses, as the person of the record sees it.

Knows: https://profiles.ihe.net/ITI/BALP/. Must not know: whose server it is.
"""

import base64
import time
import uuid
from typing import Any

from gateway.conformance.checks.core import TYPE
from gateway.conformance.checks.search import found
from gateway.conformance.rule import rule
from gateway.conformance.server import Server, moment, reference_of
from gateway.conformance.wire import Caller

_MINUTE = 1 / 1440  # of a day


def events(server: Server, owner: Caller) -> list[dict[str, Any]]:
    """The events of the record of the last minute, newest first."""
    return found(owner.get("AuditEvent", patient=server.patient, date=f"ge{moment(_MINUTE)}", _sort="-date", _count="100"))


def after(server: Server, owner: Caller, action: str, entity: str) -> list[dict[str, Any]]:
    """The events of this action about this resource; they have a second to come."""
    deadline = time.monotonic() + 1
    while True:
        seen = [one for one in events(server, owner) if one.get("action") == action and entity in str(one.get("entity"))]
        if seen or time.monotonic() > deadline:
            return seen


@rule("AUD-01", "SHALL", "Every access leaves an event that names who, what and when.", "IHE BALP")
def check_access(server: Server, owner: Caller, professional: Caller) -> None:
    """A professional reads; the person sees it."""
    server.needs("AuditEvent", "search-type")
    stored = server.made_by(owner, server.heart_rate())
    assert professional.get(reference_of(stored)).status_code == 200, "the professional reads"
    seen = after(server, owner, "R", reference_of(stored))
    assert seen, "the read is in the log"
    assert {"recorded", "source"} <= seen[0].keys(), "when, and who recorded it"
    assert [agent for agent in seen[0]["agent"] if agent.get("who")], "and who read"


@rule("AUD-04", "SHALL", "No token stands in the log.", "IHE BALP")
def check_no_token(server: Server, owner: Caller, professional: Caller) -> None:
    """What was used is not told."""
    server.needs("AuditEvent", "search-type")
    server.needs_tokens()
    stored = server.made_by(owner, server.heart_rate())
    professional.get(reference_of(stored))
    text = str(events(server, owner))
    assert not [role for role, token in server.target.tokens.items() if len(token) > 40 and token in text], "no whole token"


@rule("AUD-05", "SHALL", "Refusals are in the log, too.", "IHE BALP")
def check_refusal(server: Server, owner: Caller, professional: Caller) -> None:
    """A professional tries what consent does not open: the person's own consents."""
    server.needs("AuditEvent", "search-type")
    server.needs("Consent", "search-type")
    before = {one["id"] for one in events(server, owner)}
    professional.get("Consent", patient=server.patient)
    assert [one for one in events(server, owner) if one["id"] not in before and one.get("action") == "E"], (
        "the attempt is in the log"
    )


@rule("AUD-07", "SHALL", "Nobody changes the log.", "IHE BALP")
def check_immutable(server: Server, owner: Caller) -> None:
    """Create, update, delete."""
    server.needs("AuditEvent", "search-type")
    stored = server.made_by(owner, server.heart_rate())
    one = after(server, owner, "C", reference_of(stored))
    assert one, "a create is in the log"
    path = reference_of(one[0])
    for method, where, body in (("PUT", path, one[0]), ("DELETE", path, None), ("POST", "AuditEvent", one[0])):
        assert owner.ask(method, where, body).status_code in (403, 404, 405), f"{method} is refused"
    assert TYPE in str(one), "and it still says what it said"


@rule("AUD-02", "SHALL", "The event of a search holds the request as it was sent, in base64.", "IHE BALP")
def check_query(server: Server, owner: Caller, professional: Caller) -> None:
    """A professional searches; the person sees for what."""
    server.needs("AuditEvent", "search-type")
    asked = f"kit-{uuid.uuid4()}"
    professional.get(TYPE, patient=server.patient, identifier=asked)
    deadline = time.monotonic() + 1
    while True:
        entities = [entity for one in events(server, owner) for entity in one.get("entity", []) if "query" in entity]
        queries = [base64.b64decode(entity["query"]).decode("utf-8", "replace") for entity in entities]
        if any(asked in query for query in queries) or time.monotonic() > deadline:
            break
    assert any(asked in query for query in queries), "the log tells what was searched for"
