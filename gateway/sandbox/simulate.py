"""`gateway simulate`: virtual people whose phones push what their sensors show to a gateway, as real apps do.

Knows: how a submission is sent and its receipts are read, when to wait and when to send again. It is a client like any other,
and speaks HTTP by the standard library. Must not know: the server.
"""

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from gateway.sandbox.uploads import Batch, Wearer, corrections, uploads

_RECEIPT = "urn:fhir-document-gateway:StructureDefinition/receipt"
_AT_ONCE = 16  # phones
_ATTEMPTS = 8
_SECONDS = 60.0
_JSON = "application/fhir+json"


class SimulationError(Exception):
    """Why no simulation can be made, or go on."""


@dataclass(slots=True)
class Summary:
    """What became of all that was sent. `receipts`: readings by what they were answered."""

    receipts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    waited: int = 0
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """As it is told."""
        readings = sum(self.receipts.values())
        rate = readings / self.seconds if self.seconds else 0.0
        told = ", ".join(f"{self.receipts[name]} {name}" for name in ("created", "known", "corrected", "refused"))
        first = f"{readings} readings in {self.requests} requests, {rate:.0f} a second: {told}"
        waits = [f"told to wait, or not heard, {self.waited} times"] if self.waited else []
        return [first, *waits, *(f"refused {count} times: {reason}" for reason, count in self.reasons.most_common(5))]


@dataclass(frozen=True, slots=True)
class Account:
    """A patient of the gateway, and the token of the app on their phones."""

    patient: str
    token: str


def simulate(
    url: str, wearers: Iterable[tuple[Wearer, Account]], start: datetime, end: datetime, progress: Callable[[int], None]
) -> Summary:
    """Push everything, and what is corrected behind it. `progress` is told how many seconds of a phone's time were sent."""
    summary, lock = Summary(), threading.Lock()
    pushers = [(Pusher(url, wearer, account, summary, lock), phone) for wearer, account in wearers for phone in range(2)]
    began = time.monotonic()

    def work(one: tuple[Pusher, int]) -> None:
        pusher, phone = one
        reached = start
        for batch in uploads(pusher.wearer, start, end, phone):
            pusher.push(batch)
            moved = max(0, int((batch.readings[-1][0] - reached).total_seconds()))
            reached = max(reached, batch.readings[-1][0])
            with lock:
                progress(moved)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for pusher, phone in pushers:
            if phone == 0:
                pusher.announce()
        for pusher, _ in pushers:
            pusher.find_device()
        list(pool.map(work, pushers))
        for pusher, phone in pushers:
            for batch in corrections(pusher.wearer, start, end) if phone == 0 else ():
                pusher.push(batch)
    summary.seconds = time.monotonic() - began
    return summary


class Pusher:
    """One phone: a connection of its own. `stop`: when it is switched off, and waits for nothing any more."""

    def __init__(
        self,
        url: str,
        wearer: Wearer,
        account: Account,
        summary: Summary,
        lock: threading.Lock,
        stop: threading.Event | None = None,
    ) -> None:
        self.wearer = wearer
        self._stop = stop or threading.Event()
        self._account, self._summary, self._lock = account, summary, lock
        parts = require_address(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
        self._path, self._site = parts.path.rstrip("/"), f"{parts.scheme}://{parts.hostname}:{self._connection.port}"
        self._device = ""

    def announce(self) -> None:
        """Bring the sensor, unless it is there."""
        identifier = self.wearer.device()["identifier"][0]
        condition = f"identifier={identifier['system']}|{identifier['value']}"
        answer = self._submit([(self.wearer.device(), condition)])
        if answer[0]["status"][:1] != "2":
            raise SimulationError(f"the sensor was refused: {_reason(answer[0])}")
        self._device = answer[0]["location"].partition("/_history")[0]

    def find_device(self) -> None:
        """Learn what the sensor is called there: sent again, it is known."""
        if not self._device:
            self.announce()

    def push(self, batch: Batch) -> None:
        """Send a batch, and count its receipts."""
        resources = [(self.wearer.observation(reading, self._device), None) for reading in batch.readings]
        answers = self._submit(resources)
        with self._lock:
            for answer in answers:
                receipt = next((e["valueCode"] for e in answer.get("extension", ()) if e["url"] == _RECEIPT), "refused")
                self._summary.receipts[receipt] += 1
                if receipt == "refused":
                    self._summary.reasons[_reason(answer)] += 1

    def _submit(self, resources: Sequence[tuple[dict[str, Any], str | None]]) -> list[dict[str, Any]]:
        entries = [
            {
                "resource": resource,
                "request": {"method": "POST", "url": resource["resourceType"]} | ({"ifNoneExist": when} if when else {}),
            }
            for resource, when in resources
        ]
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        whole = {"resourceType": "Bundle", "type": "transaction", "timestamp": stamp, "entry": entries}
        found = json.loads(self._post("/$submit-cgm-bundle", json.dumps(whole).encode()))
        return [entry["response"] for entry in found["entry"]]

    def _post(self, path: str, body: bytes) -> bytes:
        """The body of the answer; sent again where there was none, and after a while where it says so."""
        headers = {"Authorization": f"Bearer {self._account.token}", "Content-Type": _JSON, "Accept": _JSON}
        for attempt in range(_ATTEMPTS):
            try:
                self._connection.request("POST", self._path + path, body, headers)
                answer = self._connection.getresponse()
                status, wait, told = answer.status, answer.headers.get("Retry-After"), answer.read()
            except (OSError, http.client.HTTPException) as error:
                # (at the very beginning that is a wrong address, later a gateway that starts again)
                if isinstance(error, ConnectionRefusedError | socket.gaierror) and not self._summary.requests:
                    raise SimulationError(f"nothing answers at {self._site}") from None
                self._connection.close()
                status, wait, told = 0, None, b""
            with self._lock:
                self._summary.requests += 1
                self._summary.waited += status != 200
            if status == 200:
                return told
            if status not in (0, 429, 503, 504):
                raise SimulationError(f"the gateway answers {status}: {_outcome(told)}")
            if self._stop.wait(int(wait) if wait and wait.isdigit() else min(0.2 * 2**attempt, 5)):
                break
        raise SimulationError(f"{self._site} does not answer")


def require_address(url: str) -> SplitResult:
    """The parts of the address of a gateway. Raises SimulationError where it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SimulationError("the address of a gateway is http(s)://…/fhir")
    return parts


def _reason(response: dict[str, Any]) -> str:
    return str(response.get("outcome", {}).get("issue", [{}])[0].get("diagnostics", response["status"]))


def _outcome(body: bytes) -> str:
    with suppress(ValueError, LookupError, TypeError):
        return str(json.loads(body)["issue"][0]["diagnostics"])
    return "no reason is told"
