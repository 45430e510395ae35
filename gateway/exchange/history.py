"""Histories: of one resource, of all of a type, and of all types that keep one.

Knows: https://hl7.org/fhir/R4/http.html#history: versions newest first, deletions included, in pages.
Must not know: HTTP, MongoDB.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import event, happened
from gateway.exchange.call import Answer, Call, write_etag
from gateway.exchange.cursor import Cursor
from gateway.exchange.entries import not_offered
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import PRESENTATION, Pairs, format_asked
from gateway.exchange.read import Result, body_of, not_found
from gateway.exchange.withheld import Withheld, find_withheld
from gateway.fhir.balp import DONE
from gateway.fhir.bundle import build_bundle
from gateway.fhir.dates import read_span, write_instant
from gateway.fhir.registry import ResourceType
from gateway.fhir.search import clip
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.mongo import Document, Session
from gateway.store.versions import Mark, Version, find_versions

_POSITIVE = re.compile(r"[1-9][0-9]{0,8}\Z")  # of each number one spelling
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9]{2}:[0-9]{2})\Z")


async def history_instance(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """Every version, newest first, deletions included; paged by version with `_count`."""
    kind = gateway.registry[call.type]
    asked = {name: _positive(name, value) for name, value in _read_values(call, ("_count", "_before")).items()}
    limit = min(asked.get("_count", gateway.limits.page_default), gateway.limits.history_most)
    seen = await store.read_history(
        access, gateway.mongo, kind, call.id or "", before=asked.get("_before"), limit=limit, session=session
    )
    if seen is None:
        raise not_found(call)
    found, go_on = seen
    path, kept = f"{call.type}/{call.id}/_history", format_asked(call.parameters)
    links = [_link(gateway, "self", path, asked | ({"_count": limit} if "_count" in asked else {}), kept)]
    if go_on is not None:
        links.append(_link(gateway, "next", path, {"_count": limit, "_before": go_on}, kept))
    withheld = await find_withheld(gateway, access, [(kind, document) for document in found], session)
    entries = [version_entry(gateway, kind, call.id or "", document, withheld) for document in found]
    body = build_bundle("history", entries, link=links)
    owner = found[0].get("patient") if found else None
    return Answer(200, body), happened(access, call, [(owner, f"{call.type}/{call.id}")])


async def history_type(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """Every version of every resource of a type, newest first, since an instant if one is given."""
    return await _history(gateway, access, call, [gateway.registry[call.type]], session)


async def history_system(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """The same over every type that has such a history and that the token's scopes speak of."""
    kinds = [kind for kind in gateway.registry.resource_types.values() if "history-type" in kind.interactions]
    if not kinds or not access.is_offered("history-system"):
        raise not_offered(call, ())
    spoken_of = [kind for kind in kinds if access.is_in_scope(kind, "history-type")]
    if not spoken_of:
        access.require(kinds[0], "history-type")
    return await _history(gateway, access, call, spoken_of, session)


async def _history(gateway: Gateway, access: Access, call: Call, kinds: Sequence[ResourceType], session: Session) -> Result:
    path = f"{call.type}/_history".lstrip("/")
    values = _read_values(call, ("_count", "_since", "_cursor"))
    applied, after = _open_cursor(gateway, path, values)
    count = min(_positive("_count", applied.get("_count", str(gateway.limits.page_default))), gateway.limits.history_most)
    since = _read_since(applied["_since"]) if "_since" in applied else None
    found: list[tuple[ResourceType, Version]] = []
    for kind in kinds:
        seconds, mongo = gateway.limits.search_seconds, gateway.mongo
        versions = await find_versions(
            access, mongo, kind, since=since, after=after, limit=count + 1, seconds=seconds, session=session
        )
        found += [(kind, version) for version in versions]
    found.sort(key=lambda one: one[1].mark.id)  # (no two types share an id)
    found.sort(key=lambda one: one[1].mark.updated, reverse=True)
    page = found[:count]
    shown = [(kind, v.mark.id, v.document) for kind, v in page if v.document is not None]
    kept = format_asked(call.parameters)
    links = [_link(gateway, "self", path, values | ({"_count": str(count)} if "_count" in values else {}), kept)]
    if len(found) > count:
        mark = page[-1][1].mark
        cursor = gateway.cursors.seal(path, Cursor(tuple(applied.items()), (mark.updated,), mark.id))
        links.append(_link(gateway, "next", path, {"_cursor": cursor}, kept))
    withheld = await find_withheld(gateway, access, [(kind, document) for kind, _, document in shown], session)
    body = build_bundle("history", [version_entry(gateway, *one, withheld) for one in shown], link=links)
    touched = [(d.get("patient"), f"{kind.name}/{i}/_history/{d['version']}") for kind, i, d in shown]
    return Answer(200, body), happened(access, call, touched) or [event(access, call, None, DONE)]


def _open_cursor(gateway: Gateway, path: str, values: Mapping[str, str]) -> tuple[dict[str, str], Mark | None]:
    """What is asked for, in the request or in its cursor, and where its page begins."""
    if "_cursor" not in values:
        return dict(values), None
    if len(values) > 1:
        raise Problem("invalid", "a page is asked for by '_cursor' alone", "_cursor")
    cursor = gateway.cursors.open(path, values["_cursor"])
    (updated,) = cursor.keys
    return dict(cursor.pairs), None if updated is None else Mark(updated, cursor.id)


def _link(gateway: Gateway, relation: str, path: str, values: Mapping[str, Any], kept: Pairs) -> dict[str, str]:
    base, pairs = f"{gateway.settings.base_url}/{path}", (*values.items(), *kept)
    return {"relation": relation, "url": f"{base}?{urlencode(pairs)}" if pairs else base}


def version_entry(
    gateway: Gateway, kind: ResourceType, identifier: str, document: Document, withheld: Withheld
) -> dict[str, Any]:
    """A version, or a deletion, as an entry of a history (https://hl7.org/fhir/R4/http.html#history)."""
    version = int(document["version"])
    deleted = bool(document.get("deleted"))
    method = "DELETE" if deleted else "POST" if version == 1 else "PUT"
    url = kind.name if version == 1 else f"{kind.name}/{identifier}"
    entry: dict[str, Any] = {"fullUrl": f"{gateway.settings.base_url}/{kind.name}/{identifier}"}
    if not deleted:
        entry["resource"] = msgspec.Raw(body_of(gateway, kind, document, withheld))
    entry["request"] = {"method": method, "url": url}
    entry["response"] = {
        "status": "204" if deleted else "201" if version == 1 else "200",
        "etag": write_etag(version),
        "lastModified": write_instant(document["updated"]),
    }
    return entry


def _read_values(call: Call, known: Iterable[str]) -> dict[str, str]:
    """The parameters by name. Raises Problem naming one that is none of these, or stands twice."""
    values: dict[str, str] = {}
    for name, value in call.parameters:
        if name in PRESENTATION:
            continue
        if name not in known:
            shown = clip(name)
            raise Problem("not-supported", f"a history has no parameter '{shown}' here", shown, status=400)
        if name in values:
            raise Problem("invalid", f"'{name}' stands twice", name)
        values[name] = value
    return values


def _positive(name: str, value: str) -> int:
    if not _POSITIVE.match(value):
        raise Problem("invalid", f"the value of '{name}' is not a positive number", name)
    return int(value)


def _read_since(value: str) -> datetime:
    try:
        if _INSTANT.match(value):
            return read_span(value).low
    except (ValueError, Problem):
        pass
    raise Problem("invalid", "the value of '_since' is not an instant", "_since")
