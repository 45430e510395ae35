"""What a client sent: told apart by what it says and by the key it says it under.

Knows: FHIR JSON, Idempotency-Key. Must not know: what should happen to it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_OF_KEYS = ("identifier", "id", "fullUrl", "ifNoneExist", "masterIdentifier", "meta", "timestamp")


@dataclass(frozen=True, slots=True)
class Sent:
    """A request. `at`: seconds, of a clock that never goes back; `token`: a digest of the bearer's."""

    at: float
    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    content: str = ""
    key: str = ""
    token: str = ""


def read_sent(at: float, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Sent:
    """Read a request: `content` is the same for the same readings or documents, whatever names they bear; `key` names them."""
    try:
        told = json.loads(body) if body else None
    except ValueError:
        told = None
    content = _digest(method, target, _without_keys(told) if told is not None else body.decode("latin-1"))
    key = headers.get("idempotency-key") or _digest(*sorted(_keys(told)))
    return Sent(at, method, target, headers, body, content, key, _digest(headers.get("authorization", "")))


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16] if parts else ""


def _without_keys(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: _without_keys(value) for name, value in told.items() if name not in _OF_KEYS}
    if isinstance(told, str) and told.startswith(("urn:uuid:", "urn:oid:")):
        return ""  # (what entries of a Bundle are called among themselves, and uniqueIds)
    return [_without_keys(value) for value in told] if isinstance(told, list) else told


def _keys(told: Any) -> Iterator[str]:
    """Everything that names what is sent: business identifiers and conditions of creates."""
    if isinstance(told, dict):
        if "resourceType" in told:
            named = told.get("identifier")
            for one in (told.get("masterIdentifier"), *(named if isinstance(named, list) else ())):
                if isinstance(one, dict):
                    yield f"{one.get('system', '')}|{one.get('value', '')}"
        if isinstance(told.get("ifNoneExist"), str):
            yield told["ifNoneExist"]
        for value in told.values():
            yield from _keys(value)
    elif isinstance(told, list):
        for value in told:
            yield from _keys(value)
