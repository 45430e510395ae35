"""The people of the tests: patients, professionals, apps and operators who act over HTTP as real ones do.

Knows: how to bring them and what they send. Must not know: how the gateway answers (that is for the tests to say).

Everything a test needs is made anew in the one database of the session: tests never see each other's patients.
"""

import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from gateway.exchange.gateway import Gateway
from gateway.exchange.tokens import Grant, issue_token, revoke_token
from gateway.sandbox.people import consent as simple_consent

JSON = "application/fhir+json"
SECRET = "the tests hold no secrets of anybody"
BASE = "http://gateway.test/fhir"
LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
PROFESSIONS = "https://mos.esante.gouv.fr/NOS/TRE_G15-ProfessionSante/FHIR/TRE-G15-ProfessionSante"
READINGS = "https://app.example/readings"

_numbers = itertools.count(1)


def unique(prefix: str = "x") -> str:
    """A text that no other test uses."""
    return f"{prefix}-{next(_numbers)}"


@dataclass(slots=True)
class Actor:
    """Somebody with a token. `reference`: how a Consent names them; `patient`: id of the patient in context, if any."""

    http: httpx.AsyncClient
    token: str
    reference: str
    patient: str = ""

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Any request; `path` is below the FHIR base (or absolute); header names with `_` for `-`."""
        sent = {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            sent["Content-Type"] = JSON
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        url = path if path.startswith("http") else f"{BASE}/{path.lstrip('/')}".rstrip("/")
        return await self.http.request(method, url, content=content, headers=sent)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """GET."""
        return await self.send("GET", path, **headers)

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """POST; an empty path posts a Bundle to the base."""
        return await self.send("POST", path, body, **headers)

    async def put(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """PUT."""
        return await self.send("PUT", path, body, **headers)

    async def delete(self, path: str, **headers: str) -> httpx.Response:
        """DELETE."""
        return await self.send("DELETE", path, **headers)

    async def search(self, path: str) -> list[dict[str, Any]]:
        """The resources on the first page of a search that must succeed."""
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        return [entry["resource"] for entry in answer.json().get("entry", ())]

    async def create(self, resource: Mapping[str, Any], **headers: str) -> dict[str, Any]:
        """Create a resource, which must succeed; returns it as stored."""
        answer = await self.post(str(resource["resourceType"]), dict(resource), **headers)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())


@dataclass(slots=True)
class World:
    """A running gateway with its clock, and ways to bring people into it."""

    gateway: Gateway
    http: httpx.AsyncClient
    clock: "Clock"
    operator: Actor = field(init=False)

    async def start(self) -> "World":
        """Bring the operator, who brings everybody else."""
        self.operator = await self.actor("operator", "system/*.cruds", unique("operator"))
        return self

    async def actor(
        self, kind: str, scope: str, client: str | None = None, reference: str | None = None, **grant: Any
    ) -> Actor:
        """A bearer of a token of this kind. `grant`: further fields of a Grant."""
        grant.setdefault("lifetime", timedelta(days=30))
        actors = (reference,) if reference else grant.pop("actors", ())
        token = await issue_token(self.gateway, Grant(client or unique(kind), kind, scope, actors, **grant))
        return Actor(self.http, token, reference or "", grant.get("patient") or "")

    def bearer(self, actor: Actor) -> Actor:
        """The same actor, asking at this gateway."""
        return replace(actor, http=self.http)

    async def forget(self, actor: Actor) -> None:
        """Revoke an actor's token."""
        await revoke_token(self.gateway, actor.token)

    async def patient(self, scope: str = "patient/*.cruds", **elements: Any) -> Actor:
        """A new Patient, with a token of their own."""
        created = await self.operator.create(patient(**elements))
        return await self.patient_actor(created["id"], scope)

    async def patient_actor(self, identifier: str, scope: str = "patient/*.cruds") -> Actor:
        """Another token of an existing patient."""
        reference = f"Patient/{identifier}"
        return await self.actor("patient", scope, "portal", reference, user=reference, patient=identifier)

    async def proxy(self, owner: Actor, scope: str = "patient/*.cruds") -> Actor:
        """A RelatedPerson who acts for a patient."""
        created = await self.operator.create(related_person(owner.patient))
        reference = f"RelatedPerson/{created['id']}"
        return await self.actor("proxy", scope, "portal", reference, user=reference, patient=owner.patient)

    async def professional(self, scope: str = "user/*.cruds", **grant: Any) -> Actor:
        """A Practitioner with a token of their software."""
        created = await self.operator.create(practitioner())
        reference = f"Practitioner/{created['id']}"
        return await self.actor("professional", scope, None, reference, user=reference, **grant)

    async def app(self, owner: Actor, scope: str = "patient/Observation.cruds patient/Device.cruds", **grant: Any) -> Actor:
        """A measurement app on the phone of a patient: a Device of the catalogue, paired but without any Consent yet."""
        created = await self.operator.create(device())
        return await self.actor("app", scope, None, f"Device/{created['id']}", patient=owner.patient, **grant)

    async def service(self, scope: str = "user/*.cruds", **grant: Any) -> Actor:
        """An external service: an Organization of the catalogue."""
        created = await self.operator.create(organization())
        return await self.actor("service", scope, None, f"Organization/{created['id']}", **grant)

    async def consent(self, owner: Actor, to: Actor, action: str = "access", types: list[str] | None = None) -> dict[str, Any]:
        """The patient permits an actor one kind of action; returns the stored Consent."""
        return await owner.create(consent(owner, to, action, types))

    async def relation(self, owner: Actor, to: Actor, code: str = "care-team", **elements: Any) -> dict[str, Any]:
        """A professional declares a relation of care to a patient; returns the stored CareTeam."""
        return await to.create(care_team(owner.patient, to.reference, self.clock(), code, **elements))

    async def revoke(self, owner: Actor, given: Mapping[str, Any]) -> dict[str, Any]:
        """The patient takes a Consent back."""
        answer = await owner.put(f"Consent/{given['id']}", {**given, "status": "inactive"})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def stored(self, collection: str, **where: Any) -> list[dict[str, Any]]:
        """Documents as they lie in the database, past every door."""
        return await self.gateway.mongo.find(collection, where)

    async def calls_of(self, ask: Callable[[], Awaitable[Any]]) -> int:
        """How many database calls a request takes: the fewest of three times, because the audit is sealed meanwhile."""
        counts: list[int] = []
        for _ in range(3):
            before = self.gateway.mongo.calls
            await ask()
            counts.append(self.gateway.mongo.calls - before)
        return min(counts)

    async def fingerprint(self) -> dict[str, str]:
        """A hash of every collection but those of the audit: equal before and after where nothing was written."""
        answer = await self.gateway.mongo._database.command("dbHash")
        audit = {"AuditEvent", "seals", "writers"}
        return {name: digest for name, digest in answer["collections"].items() if name not in audit}


class Clock:
    """A clock that runs with the real one and can be set ahead (or back) by a test."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def patient(**elements: Any) -> dict[str, Any]:
    """A Patient."""
    number = f"{next(_numbers):013d}"
    return {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:1.2.250.1.213.1.4.10", "value": number}],
        "name": [{"family": "Durand", "given": ["Camille"]}],
        **elements,
    }


def practitioner(**elements: Any) -> dict[str, Any]:
    """A Practitioner."""
    number = f"1{next(_numbers):010d}"
    return {
        "resourceType": "Practitioner",
        "identifier": [{"system": "https://rpps.esante.gouv.fr", "value": number}],
        "name": [{"family": "Martin", "given": ["Ana"]}],
        "qualification": [{"code": concept(PROFESSIONS, "10")}],
        **elements,
    }


def organization(**elements: Any) -> dict[str, Any]:
    """An Organization of the catalogue."""
    return {
        "resourceType": "Organization",
        "identifier": [{"system": "https://catalogue.example", "value": unique("org")}],
        "name": "Clinic",
        **elements,
    }


def device(owner: str | None = None, **elements: Any) -> dict[str, Any]:
    """A Device: of the catalogue, or with `owner` (id) a patient's sensor."""
    found: dict[str, Any] = {
        "resourceType": "Device",
        "identifier": [{"system": "https://catalogue.example", "value": unique("device")}],
        "deviceName": [{"name": "GlucoApp", "type": "user-friendly-name"}],
    }
    return found | ({"patient": {"reference": f"Patient/{owner}"}} if owner else {}) | elements


def related_person(owner: str, **elements: Any) -> dict[str, Any]:
    """A RelatedPerson of a patient."""
    return {"resourceType": "RelatedPerson", "patient": {"reference": f"Patient/{owner}"}, "active": True, **elements}


def observation(owner: str, **elements: Any) -> dict[str, Any]:
    """A glucose reading of a patient (by id), with a business identifier of its own."""
    return {
        "resourceType": "Observation",
        "identifier": [{"system": READINGS, "value": unique("reading")}],
        "status": "final",
        "code": concept(LOINC, "99504-3"),
        "subject": {"reference": f"Patient/{owner}"},
        "effectiveDateTime": "2026-11-20T08:00:00+01:00",
        "valueQuantity": {"value": 104, "unit": "mg/dL", "system": UCUM, "code": "mg/dL"},
        **elements,
    }


def finding(owner: str, **elements: Any) -> dict[str, Any]:
    """An Observation of what nothing is known about: it can have any value, at any time."""
    return observation(owner, **{"code": concept(LOINC, "3141-9"), **elements})


def document(owner: str, **elements: Any) -> dict[str, Any]:
    """A DocumentReference of a patient (by id) with inline data."""
    return {
        "resourceType": "DocumentReference",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:oid:1.2.3.{next(_numbers)}"}],
        "status": "current",
        "type": concept(LOINC, "11502-2"),
        "subject": {"reference": f"Patient/{owner}"},
        "date": "2026-11-20T08:00:00.000Z",
        "content": [{"attachment": {"contentType": "text/plain", "data": "SGVsbG8="}}],
        **elements,
    }


def consent(
    owner: Actor, to: Actor | None, action: str = "access", types: list[str] | None = None, **provision: Any
) -> dict[str, Any]:
    """A Consent of a patient for an actor (None: for everybody). `provision`: elements added to or put in place in it."""
    built = simple_consent(owner.patient, to.reference if to else "Device/x", action, types or [])
    found = built["provision"]
    if to is None:
        del found["actor"]
    if not types:
        del found["class"]
    found.update(provision)
    built["provision"] = {name: value for name, value in found.items() if value is not None}
    return built


def care_team(
    owner: str, member: str, now: datetime, code: str = "care-team", days: float = 1, **elements: Any
) -> dict[str, Any]:
    """A CareTeam of a patient (by id) that runs from a minute ago for some days."""
    start = now - timedelta(minutes=1)
    return {
        "resourceType": "CareTeam",
        "status": "active",
        "category": [concept("urn:fhir-document-gateway:CodeSystem/care-relation", code)],
        "subject": {"reference": f"Patient/{owner}"},
        "period": {"start": instant(start), "end": instant(start + timedelta(days=days))},
        "participant": [{"member": {"reference": member}}],
        **elements,
    }


def instant(moment: datetime) -> str:
    """A moment as FHIR writes it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def concept(system: str | None, code: str) -> dict[str, Any]:
    """A CodeableConcept with one coding."""
    return {"coding": [{"system": system, "code": code} if system else {"code": code}]}


def label(code: str, system: str = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality") -> dict[str, Any]:
    """A security label (a Coding)."""
    return {"system": system, "code": code}


def bundle(kind: str, *entries: dict[str, Any]) -> dict[str, Any]:
    """A batch or transaction Bundle."""
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def entry(method: str, url: str, resource: Mapping[str, Any] | None = None, full_url: str | None = None, **request: Any) -> Any:
    """An entry of a Bundle. `request`: further elements of its request."""
    found: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    if full_url is not None:
        found["fullUrl"] = full_url
    if resource is not None:
        found["resource"] = dict(resource)
    return found


def issues(answer: httpx.Response) -> list[dict[str, Any]]:
    """The issues of an answer that must be an OperationOutcome."""
    body = answer.json()
    assert body["resourceType"] == "OperationOutcome", body
    return list(body["issue"])


def expression(answer: httpx.Response) -> str | None:
    """Which element the first issue names."""
    return (issues(answer)[0].get("expression") or [None])[0]
