"""HTTP as the kit speaks it: each role a caller, each exchange written down without secrets.

Knows: FHIR's headers, what is a secret, what a curl line looks like. Must not know: what is right.
"""

import json
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.conformance.target import Target
from gateway.conformance.verdicts import Exchange

FHIR_JSON = "application/fhir+json"
JSON_PATCH = {"content-type": "application/json-patch+json"}
_SHOWN = 4_000  # characters of a body in a report: enough to see what is wrong
_KEPT = 40  # exchanges of a check: the last are those that decided
_SECRETS = re.compile(r'("(?:access_token|refresh_token|id_token|client_secret)"\s*:\s*")[^"]+')
_WITHDRAWN = [{"op": "replace", "path": "/status", "value": "entered-in-error"}]
_PATIENCE = 30.0  # seconds that a busy server may ask for
_UNAVAILABLE = 3  # times that a server may say that it is not there for a moment


@dataclass(slots=True)
class Record:
    """What was said in one check. `secrets` are never written down: a curl line has the name of a variable in their place."""

    secrets: Mapping[str, str]
    exchanges: list[Exchange] = field(default_factory=list)

    def add(self, answer: httpx.Response) -> None:
        """Write down an answer with its request."""
        request = answer.request
        body = request.content.decode("utf-8", "replace")
        asked = _block(f"{request.method} {request.url}", request.headers, body)
        told = _block(f"{answer.status_code} {answer.reason_phrase}", answer.headers, _text(answer))
        self.exchanges.append(Exchange(self._clean(asked), self._clean(told), self._clean(self._curl(request, body))))
        del self.exchanges[:-_KEPT]

    def _clean(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return _SECRETS.sub(r"\1…", text)

    def _curl(self, request: httpx.Request, body: str) -> str:
        parts = ["curl", "-i", "-X", request.method, str(request.url)]
        for name, value in request.headers.items():
            if name not in ("host", "content-length", "connection", "accept-encoding", "user-agent"):
                parts += ["-H", f"{name}: {value}"]
        if body:
            parts += ["--data-binary", body if len(body) <= _SHOWN else "@body.json"]
        return " ".join(map(self._quoted, parts))

    def _quoted(self, part: str) -> str:
        """For a shell, which is to put secrets in where their variables stand."""
        known = "|".join(map(re.escape, sorted(self.secrets, key=len, reverse=True)))
        pieces = re.split(f"({known})", part) if known else [part]
        return "".join(f'"${self.secrets[one]}"' if one in self.secrets else shlex.quote(one) for one in pieces if one) or "''"


@dataclass(slots=True)
class Caller:
    """Somebody who asks the server. `made`: references of what was created, oldest first, so that it can be removed."""

    http: httpx.Client
    target: Target
    token: str | None
    record: Record
    made: list[tuple["Caller", str]]

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str | list[str]] | None = None,
        *,
        waits: bool = True,
    ) -> httpx.Response:
        """One request. `path`: below the base, or an address of the server's. `body`: a resource, or text as it stands.

        Where `waits`, what Retry-After says is waited for: with 429 always, with 503 a few times.
        """
        sent = {"accept": FHIR_JSON, **({"authorization": f"Bearer {self.token}"} if self.token else {})}
        content = body if isinstance(body, str | bytes) or body is None else json.dumps(body)
        if content is not None:
            sent["content-type"] = FHIR_JSON
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        url = path if path.startswith(("http://", "https://")) else f"{self.target.base}/{path}".rstrip("/")
        refusals = 0
        while True:
            answer = self.http.request(method, url, content=content, headers=sent, params=parameters or None)
            self.record.add(answer)
            wait = answer.headers.get("retry-after", "")
            refusals += answer.status_code == 503
            is_busy = answer.status_code == 429 or (answer.status_code == 503 and refusals <= _UNAVAILABLE)
            if not (waits and is_busy and wait.isdigit() and int(wait) <= _PATIENCE):
                return answer
            time.sleep(int(wait) or 0.2)

    def get(self, path: str, headers: Mapping[str, str] | None = None, /, **parameters: str | list[str]) -> httpx.Response:
        """GET. `parameters`: of the query."""
        return self.ask("GET", path, None, headers, parameters)

    def create(self, resource: dict[str, Any], headers: Mapping[str, str] | None = None) -> httpx.Response:
        """POST a resource to its type; what was created is removed at the end of the check."""
        answer = self.ask("POST", resource["resourceType"], resource, headers=headers)
        if answer.status_code == 201:
            self.remember(answer.headers.get("location", ""))
        return answer

    def remember(self, location: str) -> None:
        """Remove what stands at this Location, at the end of the check."""
        reference = place_of(location)
        if reference:
            self.made.append((self, reference))


def place_of(location: str) -> str:
    """The `Type/id` that a Location names, with or without a version; nothing where it names none."""
    found = re.search(r"([A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64})(?:/_history/[^/]*)?$", location)
    return found[1] if found else ""


def remove(made: list[tuple[Caller, str]]) -> None:
    """Delete what was made, newest first; withdraw what is never deleted. What a server keeps for good stays."""
    for caller, reference in reversed(made):
        if caller.ask("DELETE", reference).status_code == 405:
            caller.ask("PATCH", reference, _WITHDRAWN, JSON_PATCH)


def _text(answer: httpx.Response) -> str:
    kind = answer.headers.get("content-type", "")
    return answer.text if not kind or re.search("json|xml|text|form", kind) else f"({len(answer.content)} bytes of {kind})"


def _block(first: str, headers: httpx.Headers, body: str) -> str:
    lines = [first, *(f"{name}: {_header(name, value)}" for name, value in headers.items())]
    shown = body if len(body) <= _SHOWN else f"{body[:_SHOWN]} … ({len(body)} characters)"
    return "\n".join([*lines, "", shown]).rstrip()


def _header(name: str, value: str) -> str:
    return "…" if name in ("authorization", "id-token", "cookie", "set-cookie") else value
