"""Audit events: compact while they are stored, IHE BALP AuditEvents when they are read.

Knows: the patterns of https://profiles.ihe.net/ITI/BALP/ and how to say one in a few fields.
Must not know: stores, how a token was checked. An event never holds a token, only a prefix of its hash.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.fhir.clause import Values
from gateway.fhir.dates import instant_span, write_instant
from gateway.fhir.values import hull, token_values

_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_AUDIT_TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ENTITY_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_ROLE_CLASS = "http://terminology.hl7.org/CodeSystem/v3-RoleClass"
_BALP = "https://profiles.ihe.net/ITI/BALP"
_INTERACTIONS = "http://hl7.org/fhir/restful-interaction"
CLIENT_SYSTEM = "urn:fhir-document-gateway:client"

_ACTIONS: Mapping[str, str] = {
    "create": "C",
    "read": "R",
    "vread": "R",
    "history-instance": "R",
    "history-type": "R",
    "history-system": "R",
    "update": "U",
    "patch": "U",
    "delete": "D",
    "$withdraw": "D",
    "$erase": "D",
    "search-type": "E",
}
# What is no interaction of FHIR's: type and subtype of https://profiles.ihe.net/ITI/TF/Volume2/ITI-19.html
_LOGIN = ((_DICOM, "110114", "User Authentication"), (_DICOM, "110122", "Login"))
_DECISION = (
    (_DICOM, "110113", "Security Alert"),
    (f"{_BALP}/CodeSystem/AuthZsubType", "AuthZ-Consent"),
)
_CATALOGUE = ((_DICOM, "110113", "Security Alert"), (_DICOM, "110129", "Security Configuration"))
_ACCOUNTS = ((_DICOM, "110113", "Security Alert"), (_DICOM, "110137", "User Security Attributes Changed"))
# https://profiles.ihe.net/ITI/BALP/StructureDefinition-IHE.IUA.71.html
_GRANT = ((_DICOM, "110114", "User Authentication"), ("urn:ihe:event-type-code", "ITI-71", "Get Access Token"))
_OTHERS = {
    "login": _LOGIN,
    "consent": _DECISION,
    "catalogue": _CATALOGUE,
    "grant": _GRANT,
    "accounts": _ACCOUNTS,
    "token": _ACCOUNTS,
    "keys": _CATALOGUE,
}
# What is a transaction of IHE's (https://profiles.ihe.net/ITI/MHD/); of which one a deposit is, its event says.
_IHE = "urn:ihe:event-type-code"
_TRANSACTIONS: Mapping[tuple[str, str | None], str] = {
    ("search-type", "List"): "ITI-66",
    ("search-type", "DocumentReference"): "ITI-67",
    ("read", "Binary"): "ITI-68",
    ("vread", "Binary"): "ITI-68",
}
PROVIDED, PUBLISHED, GENERATED = "ITI-65", "ITI-105", "ITI-106"
# Who is who for the client and the server. In a read the server is the source of the data; else the client is.
_SOURCE, _DESTINATION = (_DICOM, "110153"), (_DICOM, "110152")
_ROLES: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "R": (_DESTINATION, _SOURCE),
    "D": ((_DICOM, "110150"), ("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "custodian")),
}
_SINGLE = frozenset({"create", "read", "vread", "update", "patch", "delete"})
_PATTERNS: Mapping[str, str] = {"C": "Create", "R": "Read", "U": "Update", "D": "Delete", "E": "Query"}

DONE, FAILED, REFUSED, BROKEN = "0", "4", "8", "12"  # https://hl7.org/fhir/R4/valueset-audit-event-outcome.html


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction with one record (or with none), as the law and the patient want to know it.

    `entities`: references to what was touched; `more`: how many more the same `commit` of the record wrote (the resources
    themselves carry its number). `query`: the raw request of a search, in base64. `consents`: the Consent versions that were
    weighed. `reason`: why it was refused. `subject`: issuer and subject of a token that is not ours.
    `roles`, `organization`: as what and where whoever stands behind an establishment's call acts. `transaction`: the one of
    IHE's that a deposit is part of. `shown`: what of this record a search showed, of what its depositor can take back: for who
    is told then who saw it; None where that is not kept.
    """

    interaction: str
    type: str | None
    patient: str | None
    outcome: str
    client: str
    kind: str
    user: str | None
    purpose: str | None
    token: str
    request_id: str
    address: str | None
    entities: tuple[str, ...] = ()
    more: int = 0
    commit: int | None = None
    query: str | None = None
    consents: tuple[str, ...] = ()
    reason: str | None = None
    subject: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    organization: str | None = None
    transaction: str | None = None
    shown: tuple[str, ...] | None = None

    def compact(self) -> dict[str, Any]:
        """What is stored: the fields that say something."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        kept = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items() if v and k != "patient"}
        return kept if self.shown is None else {**kept, "shown": list(self.shown)}


def audit_values(event: Event, recorded: datetime) -> dict[str, Any]:
    """The index values of the AuditEvent that `render_event` makes of this event, without this server, an agent of each."""
    action = _ACTIONS.get(event.interaction, "E")
    return {
        "date": hull([instant_span(recorded)]),
        "action": [action],
        "subtype": [
            token for one in _subtypes(event.interaction, event.type, event.transaction) for token in token_values(*one[:2])
        ],
        "agent:identifier": [*token_values(CLIENT_SYSTEM, event.client), *token_values(*(event.subject or (None, None)))],
        "outcome": [event.outcome],
        **({"agent": [reference for reference in (event.organization, event.user) if reference]} if event.user else {}),
    }


def render_event(document: Values, base_url: str) -> dict[str, Any]:
    """The BALP AuditEvent of a stored event, as JSON-ready FHIR. `document`: as the store keeps it."""
    event: Mapping[str, Any] = document["event"]
    patient: str | None = document.get("patient")
    interaction = event["interaction"]
    action = _ACTIONS.get(interaction, "E")
    single = len(event.get("entities", ())) == 1 and not event.get("more")
    # BALP's patterns describe one resource (or one query) each; what touched several versions or resources claims none.
    conforms = single if interaction in _SINGLE else "query" in event
    resource: dict[str, Any] = {"resourceType": "AuditEvent", "id": document["_id"]}
    recorded = write_instant(document["updated"])
    resource["meta"] = {"versionId": "1", "lastUpdated": recorded}
    if conforms:
        pattern = f"{'Patient' if patient else ''}{_PATTERNS[action]}"
        resource["meta"]["profile"] = [f"{_BALP}/StructureDefinition/IHE.BasicAudit.{pattern}"]
    kind, subtypes = _kind(interaction)[0], _subtypes(interaction, event.get("type"), event.get("transaction"))
    resource |= {
        "type": dict(zip(("system", "code", "display"), kind, strict=False)),
        "subtype": [dict(zip(("system", "code", "display"), one, strict=False)) for one in subtypes],
        "action": action,
        "recorded": recorded,
        "outcome": event["outcome"],
    }
    if "reason" in event:
        resource["outcomeDesc"] = event["reason"]
    if "purpose" in event:
        resource["purposeOfEvent"] = [_token(event["purpose"])]
    resource["agent"] = _agents(event, action, base_url)
    resource["source"] = {
        "observer": {"identifier": {"value": base_url}},
        "type": [{"system": "http://terminology.hl7.org/CodeSystem/security-source-type", "code": "4"}],
    }
    resource["entity"] = _entities(event, patient)
    return resource


def _agents(event: Mapping[str, Any], action: str, base_url: str) -> list[dict[str, Any]]:
    client_role, server_role = _ROLES.get(action, (_SOURCE, _DESTINATION))
    who = _who(event)
    client: dict[str, Any] = {
        "type": _concept(*client_role),
        "who": {"identifier": {"system": CLIENT_SYSTEM, "value": event["client"]}},
        "requestor": not who,
    }
    if "address" in event:
        client["network"] = {"address": event["address"], "type": "2"}
    server = {
        "type": _concept(*server_role),
        "who": {"identifier": {"value": base_url}},
        "requestor": False,
        "network": {"address": base_url, "type": "5"},
    }
    # Who fails to log in has shown no token.
    policy = {"policy": [f"urn:ietf:params:oauth:jti:{event['token']}"]} if "token" in event else {}
    if not who:
        return [client | policy, server]
    user: dict[str, Any] = {
        "type": _concept(_PARTICIPATION, "AUT" if action in "CUD" else "IRCP"),
        "who": who,
        "requestor": True,
        **policy,
    }
    if "purpose" in event:
        user["purposeOfUse"] = [_token(event["purpose"])]
    if "roles" in event:
        user["role"] = [_token(role) for role in event["roles"]]
    if "organization" not in event:
        return [client, server, user]
    place = {"type": _concept(_ROLE_CLASS, "PROV"), "who": {"reference": event["organization"]}, "requestor": False}
    return [client, server, place, user]


def _who(event: Mapping[str, Any]) -> dict[str, Any]:
    """Who logged in, as we know them and as the issuer of their token does (BALP, Access Token Use)."""
    who: dict[str, Any] = {"reference": event["user"]} if "user" in event else {}
    if "subject" in event:
        issuer, subject = event["subject"]
        who["identifier"] = {"system": issuer, "value": subject}
    return who


def _entities(event: Mapping[str, Any], patient: str | None) -> list[dict[str, Any]]:
    request: dict[str, Any] = {
        "what": {"identifier": {"value": event["request_id"]}},
        "type": {"system": f"{_BALP}/CodeSystem/BasicAuditEntityType", "code": "XrequestId"},
    }
    if event["interaction"].startswith("$"):
        request["detail"] = [{"type": "operation", "valueString": event["interaction"]}]
    found = [request]
    if patient:
        found.append({"what": {"reference": f"Patient/{patient}"}, "type": _type("1"), "role": _role("1")})
    for reference in event.get("entities", ()):
        entity = {"what": {"reference": reference}, "type": _type("2"), "role": _role("4")}
        found.append(entity)
    if event.get("more"):
        text = f"and {event['more']} more {event.get('type', 'resource')} resources of the same request"
        found.append({"type": _type("2"), "role": _role("4"), "description": text})
    if "query" in event:
        found.append({"type": _type("2"), "role": _role("24"), "query": event["query"]})
    for consent in event.get("consents", ()):
        found.append(
            {
                "what": {"reference": consent},
                "type": {"system": "http://hl7.org/fhir/resource-types", "code": "Consent"},
            }
        )
    return found


def _kind(interaction: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Type and subtype of an event: system, code and (where that is customary) display.

    Those of an interaction are https://hl7.org/fhir/R4/valueset-type-restful-interaction.html; all operations share one.
    """
    if interaction in _OTHERS:
        return _OTHERS[interaction]
    code = "operation" if interaction.startswith("$") else interaction
    return (_AUDIT_TYPE, "rest", "Restful Operation"), (_INTERACTIONS, code)


def _subtypes(interaction: str, type_name: str | None, transaction: str | None) -> list[tuple[str, ...]]:
    """The subtype of an event and, where it is a transaction of IHE's, that one's."""
    found = transaction or _TRANSACTIONS.get((interaction, type_name))
    return [_kind(interaction)[1], *([(_IHE, found)] if found else [])]


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def _token(token: str) -> dict[str, Any]:
    system, _, code = token.rpartition("|")
    return _concept(system, code)


def _type(code: str) -> dict[str, str]:
    return {"system": _ENTITY_TYPE, "code": code}


def _role(code: str) -> dict[str, str]:
    return {"system": _ENTITY_ROLE, "code": code}
