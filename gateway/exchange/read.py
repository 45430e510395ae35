"""Reading one resource: read, vread and the history of an instance.

Knows: https://hl7.org/fhir/R4/http.html#read, #vread, #history. Must not know: HTTP, MongoDB.
"""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import happened
from gateway.exchange.call import Answer, Call, names_version, write_etag
from gateway.exchange.control import read_subset
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import PRESENTATION
from gateway.fhir.balp import Event, render_event
from gateway.fhir.bundle import build_bundle
from gateway.fhir.dates import write_instant
from gateway.fhir.search import clip
from gateway.fhir.subset import Subset
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.mongo import Document, Session

Result = tuple[Answer, list[Event]]

_POSITIVE = re.compile(r"[1-9][0-9]{0,8}\Z")  # of each number one spelling


async def read(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """The current version. 404 where it is not there for this caller, 410 where it was and has been deleted."""
    kind = gateway.registry[call.type]
    subset = read_subset(gateway, kind, call.parameters)
    found = await store.read(access, gateway.mongo, kind, call.id or "", session)
    return _answer_version(gateway, access, call, found, subset)


async def vread(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """One version, visible only if the current one is as well."""
    kind = gateway.registry[call.type]
    subset = read_subset(gateway, kind, call.parameters)
    version = int(call.version) if call.version and _POSITIVE.match(call.version) else 0
    found = await store.read_version(access, gateway.mongo, kind, call.id or "", version, session)
    return _answer_version(gateway, access, call, found, subset)


async def history_instance(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """Every version, newest first, deletions included; paged by version with `_count`."""
    kind = gateway.registry[call.type]
    asked = _read_paging(call)
    limit = min(asked.get("_count", gateway.limits.page_default), gateway.limits.history_most)
    seen = await store.read_history(
        access, gateway.mongo, kind, call.id or "", before=asked.get("_before"), limit=limit, session=session
    )
    if seen is None:
        raise not_found(call)
    found, go_on = seen
    base = f"{gateway.settings.base_url}/{call.type}/{call.id}/_history"
    applied = asked | ({"_count": limit} if "_count" in asked else {})
    links = [{"relation": "self", "url": f"{base}?{urlencode(applied)}" if applied else base}]
    if go_on is not None:
        links.append({"relation": "next", "url": f"{base}?{urlencode({'_count': limit, '_before': go_on})}"})
    entries = [_history_entry(gateway, call, document) for document in found]
    body = build_bundle("history", entries, link=links)
    owner = found[0].get("patient") if found else None
    return Answer(200, body), happened(access, call, [(owner, f"{call.type}/{call.id}")])


def body_of(gateway: Gateway, document: Document) -> bytes:
    """The JSON of a stored resource. Audit events are stored compact and become AuditEvents here."""
    if "event" in document:
        return msgspec.json.encode(render_event(document, gateway.settings.base_url))
    return bytes(document["body"])


def not_found(call: Call) -> Problem:
    """The one answer for what is not there and for what may not be seen."""
    return Problem("not-found", f"there is no such {call.type} here")


def _answer_version(gateway: Gateway, access: Access, call: Call, found: Document | None, subset: Subset | None) -> Result:
    if found is None:
        raise not_found(call)
    if found.get("deleted"):
        raise Problem("deleted", f"this {call.type} has been deleted")
    version, updated = int(found["version"]), found["updated"]
    events = happened(access, call, [(found.get("patient"), f"{call.type}/{call.id}/_history/{version}")])
    facts: dict[str, Any] = {"type": call.type, "id": call.id, "version": version, "updated": updated}
    if _is_unchanged(call, version, updated):
        return Answer(304, **facts), events
    body = body_of(gateway, found)
    return Answer(200, body if subset is None else subset(body), **facts), events


def _is_unchanged(call: Call, version: int, updated: Any) -> bool:
    if call.if_none_match is not None:
        return names_version(call.if_none_match, version)
    if call.if_modified_since is not None:
        try:
            since = parsedate_to_datetime(call.if_modified_since)
        except ValueError:
            return False
        return bool(updated.replace(microsecond=0) <= (since if since.tzinfo else since.replace(tzinfo=UTC)))
    return False


def _history_entry(gateway: Gateway, call: Call, document: Document) -> dict[str, Any]:
    version = int(document["version"])
    deleted = bool(document.get("deleted"))
    method = "DELETE" if deleted else "POST" if version == 1 else "PUT"
    url = call.type if version == 1 else f"{call.type}/{call.id}"
    entry: dict[str, Any] = {"fullUrl": f"{gateway.settings.base_url}/{call.type}/{call.id}"}
    if not deleted:
        entry["resource"] = msgspec.Raw(body_of(gateway, document))
    entry["request"] = {"method": method, "url": url}
    entry["response"] = {
        "status": "204" if deleted else "201" if version == 1 else "200",
        "etag": write_etag(version),
        "lastModified": write_instant(document["updated"]),
    }
    return entry


def _read_paging(call: Call) -> dict[str, int]:
    """`_count` and `_before`, the version to begin behind, as far as they are asked for."""
    values: dict[str, int] = {}
    for name, value in call.parameters:
        if name in PRESENTATION:
            continue
        if name not in ("_count", "_before"):
            shown = clip(name)
            raise Problem("not-supported", f"a history has no parameter '{shown}' here", shown, status=400)
        if name in values:
            raise Problem("invalid", f"'{name}' stands twice", name)
        if not _POSITIVE.match(value):
            raise Problem("invalid", f"the value of '{name}' is not a positive number", name)
        values[name] = int(value)
    return values
