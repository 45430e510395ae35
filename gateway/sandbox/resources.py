"""What the rows of the village are as FHIR resources.

Knows: which element each column is, and the code systems of France's record. Must not know: the gateway, who brings them.
"""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.sandbox.rows import Care, Consent, Document, Organization, Patient, Practitioner, Proxy, Reading, Thing

Resource = dict[str, Any]

_LOINC, _UCUM = "http://loinc.org", "http://unitsofmeasure.org"
_PROFESSIONS = "https://mos.esante.gouv.fr/NOS/TRE_G15-ProfessionSante/FHIR/TRE-G15-ProfessionSante"
_VISIBILITY = "https://mos.esante.gouv.fr/NOS/TRE_A07-StatutVisibiliteDocument/FHIR/TRE-A07-StatutVisibiliteDocument"
_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_RELATIONSHIPS = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
_CONSENT_ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"
_RESOURCE_TYPES = "http://hl7.org/fhir/resource-types"
_CARE = "urn:fhir-document-gateway:CodeSystem/care-relation"
_HIDDEN_UNTIL = "urn:fhir-document-gateway:StructureDefinition/hidden-until"
_CATALOGUE = "https://gateway.example/catalogue"


def organization(row: Organization) -> Resource:
    """An establishment."""
    return _organization("urn:oid:1.2.250.1.71.4.2.2", row.number, row.title)


def recipient(row: Thing) -> Resource:
    """A service of the catalogue as Consents name it."""
    return _organization(_CATALOGUE, row.number, row.title)


def _organization(system: str, number: str, title: str) -> Resource:
    return {
        "resourceType": "Organization",
        "identifier": [{"system": system, "value": number}],
        "active": True,
        "name": title,
    }


def practitioner(row: Practitioner) -> Resource:
    """A professional."""
    name: Resource = {"family": row.family, "given": [row.given]}
    return {
        "resourceType": "Practitioner",
        "identifier": [{"system": "https://rpps.esante.gouv.fr", "value": row.number}],
        "active": True,
        "name": [name | ({"prefix": [row.title]} if row.title else {})],
        "qualification": [{"code": concept(_PROFESSIONS, row.profession)}],
    }


def role(row: Practitioner, ids: Mapping[str, str]) -> Resource:
    """Where a professional works, and as what."""
    return {
        "resourceType": "PractitionerRole",
        "identifier": [{"system": "https://gateway.example/roles", "value": row.name}],
        "active": True,
        "practitioner": {"reference": f"Practitioner/{ids[row.name]}"},
        "organization": {"reference": f"Organization/{ids[row.at or '']}"},
        "code": [concept(_PROFESSIONS, row.profession)],
    }


def software(row: Thing) -> Resource:
    """An app, or the software of professionals."""
    return {
        "resourceType": "Device",
        "identifier": [{"system": _CATALOGUE, "value": row.name}],
        "status": "active",
        "deviceName": [{"name": row.title, "type": "user-friendly-name"}],
    }


def patient(row: Patient, ids: Mapping[str, str], now: datetime) -> Resource:
    """A patient. Who has died is not active."""
    told = {"gender": row.gender, "birthDate": row.born} | ({"deceasedDateTime": _day(now, row.died)} if row.died else {})
    doctor = {"generalPractitioner": [{"reference": f"Practitioner/{ids[row.doctor]}"}]} if row.doctor else {}
    return {
        "resourceType": "Patient",
        "identifier": [{"use": "official", "system": "urn:oid:1.2.250.1.213.1.4.10", "value": row.number}],
        "active": row.died is None,
        "name": [{"use": "official", "family": row.family, "given": [row.given]}],
        **{name: value for name, value in told.items() if value is not None},
        **doctor,
    }


def related_person(row: Proxy, ids: Mapping[str, str]) -> Resource:
    """Who acts for a patient."""
    return {
        "resourceType": "RelatedPerson",
        "active": True,
        "patient": {"reference": f"Patient/{ids[row.of]}"},
        **({"relationship": [concept(_RELATIONSHIPS, row.relationship)]} if row.relationship else {}),
        "name": [{"family": row.family, "given": [row.given]}],
    }


def merged(kept: Resource, replaced: Resource, kept_id: str, replaced_id: str) -> tuple[Resource, Resource]:
    """Two Patients, the second of which the first stands for from now on (README: «A merge moves nothing»)."""
    former = [identifier | {"use": "old"} for identifier in replaced["identifier"]]
    return (
        {
            **kept,
            "id": kept_id,
            "identifier": [*kept["identifier"], *former],
            "link": [{"other": {"reference": f"Patient/{replaced_id}"}, "type": "replaces"}],
        },
        {
            **replaced,
            "id": replaced_id,
            "active": False,
            "link": [{"other": {"reference": f"Patient/{kept_id}"}, "type": "replaced-by"}],
        },
    )


def sensor(of: str) -> Resource:
    """The sensor that a patient, by id, wears."""
    return {
        "resourceType": "Device",
        "identifier": [{"system": "https://glucoapp.example/sensors", "value": f"{of}-1"}],
        "status": "active",
        "deviceName": [{"name": "Sensor 3", "type": "user-friendly-name"}],
        "patient": {"reference": f"Patient/{of}"},
    }


def care_team(row: Care, ids: Mapping[str, str], member: str, now: datetime) -> Resource:
    """A relation of care. `member`: a reference."""
    return {
        "resourceType": "CareTeam",
        "status": "active",
        "category": [concept(_CARE, row.relation)],
        "subject": {"reference": f"Patient/{ids[row.patient]}"},
        "period": {"start": _instant(now, row.days[0]), "end": _instant(now, row.days[1])},
        "participant": [{"member": {"reference": member}}],
    }


def document(row: Document, ids: Mapping[str, str], now: datetime) -> tuple[Resource, Resource]:
    """A document and its content, which it attaches as `urn:uuid:` of a Bundle's entry."""
    ends = {"extension": [{"url": _HIDDEN_UNTIL, "valueDateTime": _instant(now, row.hidden_days)}]} if row.hidden_days else {}
    labels = [{"coding": [_label(code) | ends]} for code in row.labels]
    described = {
        "resourceType": "DocumentReference",
        "identifier": [{"system": "https://gateway.example/documents", "value": row.name}],
        "status": "current",
        "type": concept(_LOINC, row.type),
        "subject": {"reference": f"Patient/{ids[row.patient]}"},
        "date": _instant(now, row.days),
        "description": row.title,
        **({"securityLabel": labels} if labels else {}),
        "content": [{"attachment": {"contentType": "text/plain", "title": row.title, "url": CONTENT_URL}}],
    }
    content = {"resourceType": "Binary", "contentType": "text/plain", "data": b64encode(f"{row.text}\n".encode()).decode()}
    return described, content


CONTENT_URL = "urn:uuid:7c1b2f0e-58a4-4c0e-9d8c-2b8f3f1d6a01"


def reading(row: Reading, ids: Mapping[str, str], now: datetime) -> Resource:
    """A single reading."""
    found = glucose(ids[row.patient], row.name, _instant(now, row.days), row.value)
    return found | {"identifier": [{"system": "https://gateway.example/readings", "value": row.name}]}


def glucose(of: str, name: str, moment: str, value: int) -> Resource:
    """A glucose reading of a patient, by id, as an app sends it."""
    return {
        "resourceType": "Observation",
        "status": "final",
        "identifier": [{"system": "https://glucoapp.example/readings", "value": name}],
        "code": concept(_LOINC, "99504-3"),
        "subject": {"reference": f"Patient/{of}"},
        "effectiveDateTime": moment,
        "valueQuantity": {"value": value, "unit": "mg/dL", "system": _UCUM, "code": "mg/dL"},
    }


def consent_of(row: Consent, ids: Mapping[str, str], to: str, about: str | None, by: str | None, now: datetime) -> Resource:
    """A Consent. `to`, `about`, `by`: references to the actor, to the one resource it speaks of, and to who gives it."""
    found = consent(ids[row.patient], to, row.action, row.types) | {"status": row.status}
    provision = found["provision"] | {"type": row.type}
    if not row.types:
        del provision["class"]
    if row.labels:
        provision["securityLabel"] = [_label(code) for code in row.labels]
    if about is not None:
        provision["data"] = [{"meaning": "instance", "reference": {"reference": about}}]
    for name, days in (("period", row.period), ("dataPeriod", row.data_period)):
        if days:
            provision[name] = dict(zip(("start", "end"), (_instant(now, day) for day in days), strict=False))
    return found | {"provision": provision} | ({"performer": [{"reference": by}]} if by else {})


def consent(patient: str, actor: str, action: str, types: list[str]) -> Resource:
    """A Consent by which a patient permits one actor one kind of action on some types."""
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": f"Patient/{patient}"},
        "performer": [{"reference": f"Patient/{patient}"}],
        "policy": [{"uri": "https://gateway.example/policies/sharing/1"}],
        "provision": {
            "type": "permit",
            "actor": [{"role": concept(_PARTICIPATION, "IRCP"), "reference": {"reference": actor}}],
            "action": [concept(_CONSENT_ACTION, action)],
            "class": [{"system": _RESOURCE_TYPES, "code": name} for name in types],
        },
    }


def concept(system: str, code: str) -> Resource:
    """A CodeableConcept with one coding."""
    return {"coding": [{"system": system, "code": code}]}


def _label(code: str) -> Resource:
    return {"system": _CONFIDENTIALITY if len(code) == 1 else _VISIBILITY, "code": code}


def _instant(now: datetime, days: int) -> str:
    return (now + timedelta(days=days)).astimezone(UTC).isoformat(timespec="seconds")


def _day(now: datetime, days: int) -> str:
    return f"{now + timedelta(days=days):%Y-%m-%d}"
