"""References by search in Bundles: `Patient?identifier=…` becomes the one resource that it finds.

Knows: https://hl7.org/fhir/R4/http.html#trules: exactly one match, in what the caller may see or in what the same Bundle
creates, or the entry fails. Must not know: HTTP, MongoDB.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import uuid4

import msgspec

from gateway.exchange.addressed import find_addressed
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry, decode_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import read_pairs
from gateway.exchange.search import read_criteria, widen
from gateway.fhir.clause import Clause, Test, every, matches, negate
from gateway.fhir.identity import digest_of
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem
from gateway.store.conditions import Condition, find_matches, require_findable

_SEARCH = re.compile(r"([A-Z][A-Za-z]+)\?(.*)", re.DOTALL)
_ADDRESS = re.compile(r"Patient\?(identifier=[^&,|\\]+\|[^&,|\\]+)")
_SIGN = re.compile(rb'"reference"\s*:\s*"[A-Z][A-Za-z]+\?')


@dataclass(frozen=True, slots=True)
class Sought:
    """A search that stands in place of a reference, and the first element it stands in."""

    kind: ResourceType
    clause: Clause
    expression: str


async def resolve_sought(gateway: Gateway, draft: Draft) -> None:
    """Replace every reference by search in these entries. Raises Problem 412 naming the element where it finds not one."""
    places: dict[str, str] = {}
    asking: list[Entry] = []
    for entry in filter(_may_ask, draft.entries):
        if entry.resource is None:
            decode_entry(gateway, entry)
        for place in gateway.references.find(entry.resource):
            if _SEARCH.fullmatch(place.reference.reference or ""):
                element = place.expression.removeprefix(entry.kind.name)
                places.setdefault(place.reference.reference, f"{entry.expression(element)}.reference")
                asking += [entry] if entry not in asking[-1:] else []
    if not places:
        return
    if len(places) > gateway.limits.or_values:
        text = f"a Bundle has at most {gateway.limits.or_values} different references by search here"
        raise Problem("too-costly", text, next(iter(places.values())))
    sought = {text: await _read(gateway, draft, text, expression) for text, expression in places.items()}
    found = await _find(gateway, draft, sought)
    for entry in asking:
        _rewrite(gateway, entry, found)


async def _addressed(gateway: Gateway, draft: Draft, text: str) -> str | None:
    """The patient whom a reference by identifier addresses, where the caller may deposit in that record, if not read it."""
    named = _ADDRESS.fullmatch(text)
    if named is None:
        return None
    patient = await find_addressed(gateway, read_pairs(named[1].encode())[0][1])
    mine = {"patient": patient, "source": draft.access.caller.source}
    entries = (entry for entry in draft.entries if entry.is_create and entry.kind.patient and not entry.kind.is_raw)
    may_write = patient in draft.access.records and all(draft.access.admits(e.kind, "create", mine) for e in entries)
    return f"Patient/{patient}" if may_write else None


def check_sought(draft: Draft) -> None:
    """Refuse where what the Bundle creates and what was there already turn out to be two. Called once ids are known."""
    for full_url, there, expression in draft.both:
        if draft.urls[full_url] != there:
            raise _several(expression)


def _may_ask(entry: Entry) -> bool:
    body = entry.call.body or b""
    if not (entry.call.place or entry.publishes) or entry.patch is not None or b"?" not in body:
        return False
    return _SIGN.search(body) is not None or b"\\" in body


async def _read(gateway: Gateway, draft: Draft, text: str, expression: str) -> Sought:
    type_name, _, query = text.partition("?")
    kind = gateway.registry.find(type_name)
    if kind is None:
        raise Problem("not-supported", "this resource type is not served here", expression, status=422)
    try:
        draft.access.require(kind, "search-type")
        pairs = read_pairs(query.encode())
        clause = await read_criteria(gateway, draft.access, kind, pairs)
        draft.access = await widen(gateway, draft.access, kind, pairs, clause)
        require_findable(draft.access, kind, clause)
    except Problem as problem:
        raise problem.moved(expression) from None
    return Sought(kind, clause, expression)


async def _find(gateway: Gateway, draft: Draft, sought: Mapping[str, Sought]) -> dict[str, str]:
    """What each search finds: `Type/id`, or the fullUrl of the entry that creates it."""
    by_kind: dict[str, list[str]] = {}
    for text, one in sought.items():
        by_kind.setdefault(one.kind.name, []).append(text)
    found: dict[str, str] = {}
    for name, texts in by_kind.items():
        kind, seconds = gateway.registry[name], gateway.limits.search_seconds
        clauses = [sought[text].clause for text in texts]
        stored = await find_matches(draft.access, gateway.mongo, kind, clauses, seconds=seconds)
        values = [(entry, _values(gateway, entry)) for entry in draft.entries if entry.is_create and entry.kind is kind]
        for text, there in zip(texts, stored, strict=True):
            one = sought[text]
            coming = [entry for entry, index in values if matches(one.clause, index)]
            known = [f"{name}/{document['_id']}" for document in there]
            patient = await _addressed(gateway, draft, text) if not known and not coming else None
            found[text] = patient or _the_one(draft, one, known, coming)
    return found


def _the_one(draft: Draft, sought: Sought, there: list[str], coming: list[Entry]) -> str:
    """What a search finds. When all is committed, nothing else that is stored may meet it."""
    if not there and not coming:
        raise Problem("not-found", "the search in place of a reference finds nothing", sought.expression, status=412)
    if len(there) > 1 or len(coming) > 1:
        raise _several(sought.expression)
    known = [negate(Test("_id", "is", target.partition("/")[2])) for target in there]
    # (What another commit makes at the same moment comes after this one, unless both would make it.)
    head = sought.kind.name if coming else None
    draft.conditions.append(Condition(sought.kind, every(sought.clause, *known), head))
    if not coming:
        return there[0]
    (entry,) = coming
    entry.full_url = entry.full_url or f"urn:uuid:{uuid4()}"
    if there:
        draft.both.append((entry.full_url, there[0], sought.expression))
    return entry.full_url


def _several(expression: str) -> Problem:
    return Problem("multiple-matches", "the search in place of a reference finds several resources", expression)


def _values(gateway: Gateway, entry: Entry) -> Mapping[str, object]:
    """The index values of what an entry creates, as far as they are known before its id is."""
    if entry.resource is None:
        decode_entry(gateway, entry)
    values: dict[str, object] = {"search": gateway.index.search_values(entry.kind, entry.resource)}
    labels: Iterable[str] = gateway.index.labels(entry.kind, entry.resource)
    return values | ({"labels": labels} if labels else {})


def _rewrite(gateway: Gateway, entry: Entry, found: Mapping[str, str]) -> None:
    """From now on the entry is as if it had been sent with what was found."""
    gateway.references.rewrite(entry.resource, lambda text: found.get(text, text), lambda uri: uri)
    body = gateway.codec.encode(entry.resource)
    entry.call = msgspec.structs.replace(entry.call, body=body, calm=False)
    if entry.is_create:
        entry.identity, entry.digest = entry.resource, digest_of(body)
