"""Audit events as IHE BALP wants them: valid R4, the roles of its examples, and found by what they say."""

import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from gateway.exchange.audit import _LISTED
from gateway.fhir.balp import DONE, REFUSED, Event, audit_values, render_event
from gateway.fhir.codec import Codec
from gateway.fhir.index import Index
from gateway.fhir.registry import Registry

BASE = "https://gateway.example/fhir"
NOW = datetime(2026, 11, 25, 8, 0, 0, 125_000, tzinfo=UTC)
QUERY = b64encode(b"GET /fhir/Observation?patient=abc-camille").decode()
PURPOSE = "http://terminology.hl7.org/CodeSystem/v3-ActReason|TREAT"
INTERACTIONS = ["create", "read", "vread", "history-instance", "update", "delete", "search-type", "transaction", "batch"]
OTHERS = ["login", "consent"]
EXAMPLES = {
    "create": "auditBasicCreateServer",
    "read": "auditBasicReadServer",
    "update": "auditBasicPatch",
    "delete": "auditBasicDeleteServer",
    "search-type": "auditBasicQueryPost",
}


def event(interaction: str = "read", **changes: Any) -> Event:
    fields: dict[str, Any] = {
        "interaction": interaction,
        "type": "Observation",
        "patient": "abc-camille",
        "outcome": DONE,
        "client": "medisoft",
        "kind": "professional",
        "user": "Practitioner/abc-martin",
        "purpose": PURPOSE,
        "token": "0123456789abcdef",
        "request_id": "r-1",
        "address": "192.0.2.1",
        "entities": () if interaction == "search-type" else ("Observation/abc-1",),
        "query": QUERY if interaction == "search-type" else None,
        "consents": ("Consent/abc-2/_history/3",),
    }
    return Event(**fields | changes)


def rendered(told: Event) -> dict[str, Any]:
    document: dict[str, Any] = {"_id": "abc-0", "updated": NOW, "event": told.compact()}
    if told.patient:
        document["patient"] = told.patient
    return render_event(document, BASE)


VARIANTS = [
    *(event(interaction) for interaction in INTERACTIONS),
    *(event(interaction, type=None, entities=()) for interaction in OTHERS),
    event("login", type=None, token="", user=None, purpose=None, entities=(), consents=(), outcome=REFUSED),
    *(event(interaction, patient=None, consents=(), user=None, purpose=None, address=None) for interaction in INTERACTIONS),
    event("read", outcome=REFUSED, reason="no right to this data", entities=()),
    event("create", entities=tuple(f"Observation/abc-{n}" for n in range(_LISTED)), more=278, commit=12),
    event("read", user="RelatedPerson/abc-3", kind="proxy"),
    event("read", subject=("https://id.example/realms/a", "u|1")),
    event("create", subject=("https://id.example/realms/a", "u-1"), user=None),
]


@pytest.mark.requirement("AUD-01")
@pytest.mark.parametrize("told", VARIANTS, ids=lambda e: f"{e.interaction}-{e.patient}-{e.outcome}-{len(e.entities)}")
def test_every_event_is_a_valid_audit_event(told: Event, codec: Codec) -> None:
    resource = rendered(told)
    AuditEvent.model_validate_json(json.dumps(resource))
    codec.load("AuditEvent", json.dumps(resource).encode())


@pytest.mark.parametrize("told", VARIANTS, ids=lambda e: f"{e.interaction}-{e.patient}-{e.outcome}-{len(e.entities)}")
def test_an_event_is_found_by_what_it_says(told: Event, codec: Codec, registry: Registry) -> None:
    resource = codec.load("AuditEvent", json.dumps(rendered(told)).encode())
    read = Index(registry, frozenset(), codec).search_values(registry["AuditEvent"], resource)
    stored = audit_values(told, NOW)
    # The server is an agent of every event; and whose record it is stands in the document itself.
    of_the_server = set(read["agent:identifier"]) - set(stored["agent:identifier"])
    assert of_the_server == {BASE, f"|{BASE}"}
    of_the_client = [value for value in read["agent:identifier"] if value not in of_the_server]
    of_the_record = {name: value for name, value in read.items() if name.partition(":")[0] not in ("patient", "entity")}
    plain = {name: value if name == "date" else list(value) for name, value in of_the_record.items()}
    assert stored == plain | {"agent:identifier": of_the_client}


def role(agent: dict[str, Any]) -> tuple[str, str]:
    coding = agent["type"]["coding"][0]
    return coding["system"], coding["code"]


def entity_kind(entity: dict[str, Any]) -> tuple[str | None, str | None]:
    return entity.get("type", {}).get("code"), entity.get("role", {}).get("code")


@pytest.mark.requirement("AUD-01")
@pytest.mark.parametrize(("interaction", "example"), EXAMPLES.items())
def test_roles_and_entities_are_those_of_the_examples(interaction: str, example: str, specifications: Path) -> None:
    theirs = json.loads((specifications / "ihe-balp" / "examples-json" / f"AuditEvent-ex-{example}.json").read_text("utf-8"))
    ours = rendered(event(interaction))
    assert ours["type"] == theirs["type"]
    assert ours["action"] == theirs["action"]
    assert ours["outcome"] == theirs["outcome"]
    assert ours["meta"]["profile"] == theirs["meta"]["profile"]
    assert {role(agent) for agent in ours["agent"]} == {role(agent) for agent in theirs["agent"]}
    by_role = {role(agent): agent for agent in ours["agent"]}
    for agent in theirs["agent"]:
        assert by_role[role(agent)]["requestor"] == agent["requestor"]
        assert ("network" in by_role[role(agent)]) == ("network" in agent)
    assert {entity_kind(e) for e in theirs["entity"]} <= {entity_kind(e) for e in ours["entity"]}


@pytest.mark.parametrize(
    ("told", "profile"),
    [
        (event("read"), "PatientRead"),
        (event("vread"), "PatientRead"),
        (event("read", patient=None), "Read"),
        (event("create"), "PatientCreate"),
        (event("update"), "PatientUpdate"),
        (event("delete"), "PatientDelete"),
        (event("search-type"), "PatientQuery"),
        (event("search-type", patient=None), "Query"),
        (event("history-instance"), None),
        (event("transaction"), None),
        (event("create", entities=("Observation/abc-1", "Observation/abc-2")), None),
        (event("create", more=2), None),
        (event("read", entities=()), None),
    ],
)
def test_a_profile_is_claimed_only_where_its_pattern_fits(told: Event, profile: str | None) -> None:
    claimed = rendered(told)["meta"].get("profile", [None])
    assert claimed == [f"https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.{profile}" if profile else None]


def test_who_bears_another_issuers_token_is_named_as_there_and_as_here() -> None:
    """https://profiles.ihe.net/ITI/BALP/StructureDefinition-IHE.BasicAudit.OAUTHaccessTokenUse.Comprehensive.html"""
    subject = ("https://id.example", "u-1")
    identifier = {"system": "https://id.example", "value": "u-1"}
    client, _, user = rendered(event("read", subject=subject))["agent"]
    assert user["who"] == {"reference": "Practitioner/abc-martin", "identifier": identifier}
    assert (user["requestor"], client["requestor"]) == (True, False)
    client, _, user = rendered(event("read", subject=subject, user=None))["agent"]
    assert user["who"] == {"identifier": identifier}
    assert (user["requestor"], client["requestor"], "policy" in client) == (True, False, False)


@pytest.mark.requirement("AUD-04")
def test_the_token_is_named_by_the_user_or_else_by_the_client() -> None:
    policy = ["urn:ietf:params:oauth:jti:0123456789abcdef"]
    client, server, user = rendered(event())["agent"]
    assert (user["policy"], user["requestor"]) == (policy, True)
    assert "policy" not in client
    assert "policy" not in server
    client, server = rendered(event(user=None))["agent"]
    assert (client["policy"], client["requestor"]) == (policy, True)


def test_what_else_an_event_tells() -> None:
    resource = rendered(event("search-type", outcome=REFUSED, reason="no right to this data"))
    request, patient, query, consent = resource["entity"]
    assert request["what"] == {"identifier": {"value": "r-1"}}
    assert patient["what"] == {"reference": "Patient/abc-camille"}
    assert b64decode(query["query"]) == b"GET /fhir/Observation?patient=abc-camille"
    assert "what" not in query
    assert consent["what"] == {"reference": "Consent/abc-2/_history/3"}
    assert resource["outcomeDesc"] == "no right to this data"
    assert resource["recorded"] == "2026-11-25T08:00:00.125Z"
    treat = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "TREAT"}]}
    assert resource["purposeOfEvent"] == [treat]
    assert resource["agent"][2]["purposeOfUse"] == [treat]
    assert resource["agent"][0]["network"] == {"address": "192.0.2.1", "type": "2"}
    assert resource["agent"][1]["who"] == {"identifier": {"value": BASE}}
