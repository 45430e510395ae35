"""The people of the sandbox: who they are, what they agreed to, and tokens that are ready to use.

Knows: how to bring them into a gateway by the ways everybody else uses.
Must not know: MongoDB, HTTP.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gateway.access.access import Access, Caller
from gateway.exchange.bundle import process_bundle
from gateway.exchange.call import Call, Origin
from gateway.exchange.gateway import Gateway
from gateway.exchange.perform import perform
from gateway.exchange.standing import authenticate
from gateway.exchange.tokens import Grant, issue_token
from gateway.sandbox.pages import open_accounts, open_app
from gateway.sandbox.series import day_of_readings
from gateway.store.ids import Ids
from gateway.store.standing import About

SECRET = "the sandbox holds no secrets of anybody"  # noqa: S105 (no secret: everybody may know the sandbox)
DAYS = 14
_ORIGIN = Origin("sandbox", None)
_LIFETIME = timedelta(days=365)
_PROFESSIONS = "https://mos.esante.gouv.fr/NOS/TRE_G15-ProfessionSante/FHIR/TRE-G15-ProfessionSante"
_ROLES = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_CONSENT_ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"
_RESOURCE_TYPES = "http://hl7.org/fhir/resource-types"


class NamedIds(Ids):
    """Ids whose last part can be chosen, so that the sandbox's people have names."""

    def __init__(self, secret: str) -> None:
        super().__init__(secret)
        self.name: str | None = None

    def unique(self) -> str:
        """The chosen name, once; otherwise as ever."""
        name, self.name = self.name, None
        return name or super().unique()


@dataclass(frozen=True, slots=True)
class People:
    """The ids of the sandbox's resources, by name, and its tokens, by who bears them."""

    ids: Mapping[str, str]
    tokens: Mapping[str, str]


async def bring_people(gateway: Gateway, ids: NamedIds) -> People:
    """Create the people, their consents, fourteen days of readings and the tokens in an empty gateway."""
    operator = Access(operator_caller(gateway), gateway.registry, gateway.policy, gateway.clock())
    known: dict[str, str] = {}
    for name, resource in _directory().items():
        known[name] = await _create(gateway, operator, ids, name, resource)
    known["camille"] = await _create(gateway, operator, ids, "camille", _patient("Durand", "Camille", "1850578006084"))
    known["noe"] = await _create(gateway, operator, ids, "noe", _patient("Lambert", "Noé", "1910775114022"))
    known["paul"] = await _create(gateway, operator, ids, "paul", _related_person(known["camille"]))
    await open_pages(gateway, known)
    tokens = await issue_tokens(gateway, known)
    camille = await authenticate(gateway, tokens["camille"], About())
    for name, resource in _consents(known).items():
        known[name] = await _create(gateway, camille, ids, name, resource)
    noe = await authenticate(gateway, tokens["noe"], About())
    withdrawn = consent(known["noe"], f"Device/{known['glucoapp']}", "collect", ["Observation", "Device"])
    known["withdrawn"] = await _create(gateway, noe, ids, "withdrawn", {**withdrawn, "status": "inactive"})
    app = await authenticate(gateway, tokens["app"], About())
    known["sensor"] = await _create(gateway, app, ids, "sensor", _sensor(known["camille"]))
    await _push_readings(gateway, tokens["app"], known)
    return People(known, tokens)


async def _push_readings(gateway: Gateway, token: str, known: Mapping[str, str]) -> None:
    """Fourteen whole days up to last midnight."""
    access = await authenticate(gateway, token, About())
    midnight = gateway.clock().replace(hour=0, minute=0, second=0, microsecond=0)
    for day in range(DAYS, 0, -1):
        start: datetime = midnight - timedelta(days=day)
        bundle = day_of_readings(f"Patient/{known['camille']}", f"Device/{known['sensor']}", start)
        await process_bundle(gateway, access, json.dumps(bundle).encode(), _ORIGIN, prefer=None, lenient=False)


async def _create(gateway: Gateway, access: Access, ids: NamedIds, name: str, resource: dict[str, Any]) -> str:
    ids.name = name
    body = json.dumps(resource, ensure_ascii=False).encode()
    answer = await perform(gateway, access, Call("create", resource["resourceType"], _ORIGIN, body=body))
    return answer.id or ""


async def open_pages(gateway: Gateway, known: Mapping[str, str]) -> None:
    """Everything that is needed before a browser: accounts, and an app that asks for access."""
    await open_app(gateway, known["glucoapp"])
    await open_accounts(gateway, known)


async def issue_tokens(gateway: Gateway, known: Mapping[str, str]) -> dict[str, str]:
    """Tokens of everybody, valid from now; their texts are the same every time."""
    app, software = f"Device/{known['glucoapp']}", f"Device/{known['medisoft']}"
    grants = {
        "app": _app_grant(app, known["camille"]),
        "app-noe": _app_grant(app, known["noe"]),
        "professional": Grant(
            "medisoft",
            "professional",
            "user/*.crs",
            (f"Practitioner/{known['martin']}",),
            (software,),
            user=f"Practitioner/{known['martin']}",
            purpose="http://terminology.hl7.org/CodeSystem/v3-ActReason|TREAT",
            lifetime=_LIFETIME,
        ),
        "camille": _patient_grant(known["camille"]),
        "noe": _patient_grant(known["noe"]),
        "operator": Grant("operations", "operator", "system/*.cruds", lifetime=_LIFETIME),
    }
    return {name: await issue_token(gateway, grant, f"demo-{name}") for name, grant in grants.items()}


def _app_grant(app: str, patient: str) -> Grant:
    return Grant("glucoapp", "app", "patient/Observation.crs patient/Device.crs", (app,), patient=patient, lifetime=_LIFETIME)


def _patient_grant(patient: str) -> Grant:
    reference = f"Patient/{patient}"
    scope = "patient/*.cruds"
    return Grant("portal", "patient", scope, (reference,), user=reference, patient=patient, lifetime=_LIFETIME)


def operator_caller(gateway: Gateway) -> Caller:
    """Who sets up a sandbox: an operator without a token."""
    return Caller.operator("sandbox", "sandbox", gateway.scopes("system/*.cruds"), "sandbox")


def _directory() -> dict[str, dict[str, Any]]:
    return {
        "lilas": {
            "resourceType": "Organization",
            "identifier": [{"system": "urn:oid:1.2.250.1.71.4.2.2", "value": "1999000042"}],
            "active": True,
            "name": "Clinique des Lilas",
        },
        "martin": {
            "resourceType": "Practitioner",
            "identifier": [{"system": "https://rpps.esante.gouv.fr", "value": "10999000042"}],
            "active": True,
            "name": [{"family": "Martin", "given": ["Ana"], "prefix": ["Dr"]}],
            "qualification": [{"code": _concept(_PROFESSIONS, "10")}],
        },
        "glucoapp": _software("glucoapp", "GlucoApp"),
        "medisoft": _software("medisoft", "MediSoft"),
    }


def _software(identifier: str, name: str) -> dict[str, Any]:
    return {
        "resourceType": "Device",
        "identifier": [{"system": "https://gateway.example/catalogue", "value": identifier}],
        "status": "active",
        "deviceName": [{"name": name, "type": "user-friendly-name"}],
    }


def _patient(family: str, given: str, number: str) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "identifier": [{"use": "official", "system": "urn:oid:1.2.250.1.213.1.4.10", "value": number}],
        "active": True,
        "name": [{"use": "official", "family": family, "given": [given]}],
    }


def _related_person(patient: str) -> dict[str, Any]:
    return {
        "resourceType": "RelatedPerson",
        "active": True,
        "patient": {"reference": f"Patient/{patient}"},
        "name": [{"family": "Durand", "given": ["Paul"]}],
    }


def _sensor(patient: str) -> dict[str, Any]:
    return {
        "resourceType": "Device",
        "identifier": [{"system": "https://glucoapp.example/sensors", "value": f"{patient}-1"}],
        "status": "active",
        "deviceName": [{"name": "Sensor 3", "type": "user-friendly-name"}],
        "patient": {"reference": f"Patient/{patient}"},
    }


def _consents(known: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    patient = known["camille"]
    return {
        "consent-glucoapp": consent(patient, f"Device/{known['glucoapp']}", "collect", ["Observation", "Device"]),
        "consent-martin": consent(patient, f"Practitioner/{known['martin']}", "access", ["Observation", "Device", "Patient"]),
    }


def consent(patient: str, actor: str, action: str, types: list[str]) -> dict[str, Any]:
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
            "actor": [{"role": _concept(_ROLES, "IRCP"), "reference": {"reference": actor}}],
            "action": [_concept(_CONSENT_ACTION, action)],
            "class": [{"system": _RESOURCE_TYPES, "code": name} for name in types],
        },
    }


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}
