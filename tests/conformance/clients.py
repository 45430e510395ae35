"""Two apps that push readings: one as its makers should write it, one as many do. Each runs in a thread of its own."""

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx


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


class Careful:
    """Names each reading, sends it until it is taken, waits as it is told or longer each time, stops when refused."""

    def __init__(self, base: str, patient: str, tokens: Iterator[str]) -> None:
        self._base, self._patient, self._tokens = base, patient, tokens
        self._token = next(tokens)
        self._http = httpx.Client(timeout=30, trust_env=False)

    def push(self, count: int) -> None:
        with self._http:
            self._push(count)

    def _push(self, count: int) -> None:
        for n in range(count):
            resource = reading(self._patient, n)
            resource["identifier"] = [{"system": "https://careful.example", "value": str(uuid.uuid4())}]
            if not self._deliver(resource):
                return

    def _deliver(self, resource: dict[str, Any]) -> bool:
        pause = 0.4
        while True:
            try:
                answer = self._http.post(
                    f"{self._base}/Observation", json=resource, headers={"authorization": f"Bearer {self._token}"}
                )
            except httpx.TransportError:
                answer = httpx.Response(503)
            if answer.is_success:
                return True
            if answer.status_code == 401:
                self._refresh()
            elif answer.status_code in (429, 503):
                pause = max(1.5 * pause, float(answer.headers.get("retry-after", 0)))
                time.sleep(pause)
            else:
                return False

    def _refresh(self) -> None:
        """(This sandbox's tokens are given, not got: what it answers is of no use here.)"""
        site = self._base.removesuffix("/fhir")
        self._http.post(
            f"{site}/oauth/token", data={"grant_type": "refresh_token", "refresh_token": "x", "client_id": "glucoapp"}
        )
        self._token = next(self._tokens)


class Naive:
    """Names a reading anew each time it sends it, tries three times at once, and goes on whatever it is told."""

    def __init__(self, base: str, patient: str, token: str) -> None:
        self._base, self._patient = base, patient
        self._http = httpx.Client(timeout=30, trust_env=False, headers={"authorization": f"Bearer {token}"})

    def push(self, count: int) -> None:
        with self._http:
            self._push(count)

    def _push(self, count: int) -> None:
        for n in range(count):
            taken = reading(self._patient, n)  # (once: at another second it would be another reading)
            for _ in range(3):
                named = [{"system": "https://naive.example", "value": str(uuid.uuid4())}]
                try:
                    if self._http.post(f"{self._base}/Observation", json=taken | {"identifier": named}).is_success:
                        break
                except httpx.TransportError:
                    continue


class Reader:
    """Software that fetches, and comes back when it is told to. `pause`: what it waits at least."""

    def __init__(self, base: str, patient: str, token: str, pause: float) -> None:
        self._base, self._patient, self._pause = base, patient, pause
        self._http = httpx.Client(timeout=30, trust_env=False, headers={"authorization": f"Bearer {token}"})

    def fetch(self, count: int) -> None:
        with self._http:
            self._fetch(count)

    def _fetch(self, count: int) -> None:
        for n in range(count):
            pause = self._pause
            while True:
                answer = self._http.get(f"{self._base}/Observation", params={"patient": self._patient, "_count": str(n + 1)})
                if answer.status_code not in (429, 503):
                    break
                time.sleep(max(pause, float(answer.headers.get("retry-after", 0))))
                pause *= 1.5
            if answer.status_code in (401, 403, 404):
                return
