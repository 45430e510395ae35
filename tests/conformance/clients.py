"""Clients in pairs, that push and that read: one as its makers should write it, one as many do. Each runs in its own thread."""

import base64
import time
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from gateway.conformance.exam.credentials import Credentials


def reading(patient: str, n: int) -> dict[str, Any]:
    moment = datetime.now(UTC) - timedelta(days=30) + timedelta(minutes=5 * n)
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "99504-3"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "valueQuantity": {"value": 90 + n, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
    }


def submission(patient: str, content: bytes = b"") -> dict[str, Any]:
    """A document with its content (ITI-65, minimal metadata), under a uniqueId that nothing else has."""
    content = content or b"%PDF-1.7\n" + uuid.uuid4().bytes + b"\n%%EOF\n"
    document, binary = (f"urn:uuid:{uuid.uuid4()}" for _ in range(2))
    mhd, uri = "https://profiles.ihe.net/ITI/MHD/", "urn:ietf:rfc:3986"
    common = {
        "status": "current",
        "subject": {"reference": f"Patient/{patient}"},
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    submission_set = {
        "resourceType": "List",
        "extension": [
            {
                "url": f"{mhd}StructureDefinition/ihe-sourceId",
                "valueIdentifier": {"system": uri, "value": "urn:oid:2.25.1"},
            }
        ],
        "identifier": [{"use": "usual", "system": uri, "value": f"urn:oid:2.25.{uuid.uuid4().int}"}],
        "mode": "working",
        "code": {"coding": [{"system": f"{mhd}CodeSystem/MHDlistTypes", "code": "submissionset"}]},
        "entry": [{"item": {"reference": document}}],
    }
    reference = {
        "resourceType": "DocumentReference",
        "masterIdentifier": {"system": uri, "value": f"urn:oid:2.25.{uuid.uuid4().int}"},
        "type": {"coding": [{"system": "http://loinc.org", "code": "11488-4"}]},
        "content": [{"attachment": {"contentType": "application/pdf", "url": binary}}],
    }
    raw = {"resourceType": "Binary", "contentType": "application/pdf", "data": base64.b64encode(content).decode()}
    named = ((f"urn:uuid:{uuid.uuid4()}", submission_set | common), (document, reference | common), (binary, raw))
    entries = [
        {"fullUrl": name, "resource": one, "request": {"method": "POST", "url": one["resourceType"]}} for name, one in named
    ]
    profile = f"{mhd}StructureDefinition/IHE.MHD.Minimal.ProvideBundle"
    return {"resourceType": "Bundle", "meta": {"profile": [profile]}, "type": "transaction", "entry": entries}


def wait_told(answer: httpx.Response) -> float:
    """The seconds of Retry-After (RFC 9110 §10.2.3): a date is one of the server's clock, whatever one's own says."""
    told = answer.headers.get("retry-after", "0")
    if told.isdigit():
        return float(told)
    now = parsedate_to_datetime(answer.headers["date"])
    return (parsedate_to_datetime(told) - now).total_seconds()


class _Patient:
    """Waits as it is told or longer each time, renews its token when that has expired, stops when refused."""

    def __init__(self, base: str, patient: str, given: Credentials, pause: float = 0.4) -> None:
        self._base, self._patient, self._pause = base, patient, pause
        self._token, self._refresh_token = given.access_token, given.refresh_token
        self._http = httpx.Client(timeout=30, trust_env=False)

    def _ask(self, method: str, url: str, **sent: Any) -> httpx.Response:
        """The answer that counts."""
        pause = self._pause
        while True:
            try:
                headers = {"authorization": f"Bearer {self._token}", **sent.get("headers", {})}
                answer = self._http.request(method, url, **{**sent, "headers": headers})
            except httpx.TransportError:
                answer = httpx.Response(503)
            if answer.status_code == 401 and self._renew():
                continue
            if answer.status_code not in (429, 503):
                return answer
            pause = max(1.5 * pause, wait_told(answer))
            time.sleep(pause)

    def _renew(self) -> bool:
        form = {"grant_type": "refresh_token", "refresh_token": self._refresh_token, "client_id": "careful"}
        answer = self._http.post(f"{self._base.removesuffix('/fhir')}/oauth/token", data=form)
        if not answer.is_success:
            return False
        self._token, self._refresh_token = answer.json()["access_token"], answer.json()["refresh_token"]
        return True


class Careful(_Patient):
    """Names each reading, sends it until it is taken, and stops when it may not."""

    def push(self, count: int) -> None:
        with self._http:
            for n in range(count):
                resource = reading(self._patient, n)
                resource["identifier"] = [{"system": "https://careful.example", "value": str(uuid.uuid4())}]
                if not self._ask("POST", f"{self._base}/Observation", json=resource).is_success:
                    return


class Naive:
    """Names a reading anew each time it is sent, tries three times at once until it is created, goes on whatever it is told."""

    def __init__(self, base: str, patient: str, token: str) -> None:
        self._base, self._patient = base, patient
        self._http = httpx.Client(timeout=30, trust_env=False, headers={"authorization": f"Bearer {token}"})

    def push(self, count: int) -> None:
        with self._http:
            for n in range(count):
                taken = reading(self._patient, n)  # (once: at another second it would be another reading)
                for _ in range(3):
                    named = [{"system": "https://naive.example", "value": str(uuid.uuid4())}]
                    try:
                        answer = self._http.post(f"{self._base}/Observation", json=taken | {"identifier": named})
                        if answer.status_code == 201:
                            break
                    except httpx.TransportError:
                        continue


class Reader(_Patient):
    """Asks for what has changed since it last asked, follows the pages as they are linked, keeps each reading once."""

    def __init__(self, base: str, patient: str, given: Credentials, pause: float = 0.4) -> None:
        super().__init__(base, patient, given, pause)
        self._held: dict[str, Any] = {}
        self._since = ""

    def read(self, times: int) -> None:
        with self._http:
            for _ in range(times):
                if not self._catch_up():
                    break
            told = [{"reference": name, "value": value} for name, value in self._held.items()]
            self._http.post(f"{self._base.removesuffix('/fhir')}/exam/held", json=told)

    def _catch_up(self) -> bool:
        since = {"_lastUpdated": f"ge{self._since}"} if self._since else {}
        url = str(httpx.URL(f"{self._base}/Observation", params={"patient": self._patient, "_count": "5", **since}))
        pages = 0
        while url and pages < 3:  # (of a fortnight of readings, the newest)
            answer = self._ask("GET", url)
            if not answer.is_success:
                return False
            told = answer.json()
            for resource in (entry["resource"] for entry in told.get("entry", ())):
                self._held[f"Observation/{resource['id']}"] = resource["valueQuantity"]["value"]
                self._since = max(self._since, resource["meta"]["lastUpdated"])
            url = next((link["url"] for link in told["link"] if link["relation"] == "next"), "")
            pages += 1
        return True


class NaiveReader:
    """Reads the first page of what was measured since, again and again, and keeps it all; waits for nothing and nobody."""

    def __init__(self, base: str, patient: str, token: str) -> None:
        self._base, self._patient = base, patient
        self._http = httpx.Client(timeout=30, trust_env=False, headers={"authorization": f"Bearer {token}"})

    def read(self, times: int) -> None:
        held: list[dict[str, str]] = []
        since = "2000-01-01"
        with self._http:
            for n in range(times):
                asked = {"patient": self._patient, "date": f"gt{since}", "_sort": "date", "_count": str(5 + n % 3)}
                answer = self._http.get(f"{self._base}/Observation", params=asked)
                for entry in answer.json().get("entry", ()) if answer.is_success else ():
                    held.append({"reference": f"Observation/{entry['resource']['id']}"})
                    since = entry["resource"]["effectiveDateTime"]
                time.sleep(0.05)
            self._http.post(f"{self._base.removesuffix('/fhir')}/exam/held", json=held)


class Producer(_Patient):
    """Deposits documents: each under its uniqueId, as often as it takes."""

    def deposit(self, count: int) -> None:
        with self._http:
            for _ in range(count):
                sent = submission(self._patient)
                if not self._ask("POST", self._base, json=sent, headers={"content-type": "application/fhir+json"}).is_success:
                    return


class NaiveProducer:
    """Deposits a document anew, under another uniqueId, each time that it is not told `created` at once."""

    def __init__(self, base: str, patient: str, token: str) -> None:
        self._base, self._patient = base, patient
        headers = {"authorization": f"Bearer {token}", "content-type": "application/fhir+json"}
        self._http = httpx.Client(timeout=30, trust_env=False, headers=headers)

    def deposit(self, count: int) -> None:
        with self._http:
            for _ in range(count):
                content = b"%PDF-1.7\n" + uuid.uuid4().bytes + b"\n%%EOF\n"
                for _ in range(3):
                    try:
                        answer = self._http.post(self._base, json=submission(self._patient, content))
                        if answer.is_success and '"status":"200' not in answer.text:
                            break
                    except httpx.TransportError:
                        continue


class Consumer(_Patient):
    """Finds documents, follows the pages as they are linked, fetches each content once, and looks for more."""

    def fetch(self, times: int) -> None:
        fetched: set[str] = set()
        with self._http:
            for _ in range(times):
                url = str(httpx.URL(f"{self._base}/DocumentReference", params={"patient": self._patient}))
                while url:
                    answer = self._ask("GET", url)
                    if not answer.is_success:
                        return
                    told = answer.json()
                    for entry in told.get("entry", ()):
                        address = entry["resource"]["content"][0]["attachment"]["url"]
                        if address not in fetched and not self._ask("GET", address).is_success:
                            return
                        fetched.add(address)
                    url = next((link["url"] for link in told["link"] if link["relation"] == "next"), "")
