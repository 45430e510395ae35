"""Searching a type, or several at once.

Knows: https://hl7.org/fhir/R4/search.html: which parameters control the answer, paging, totals, whose record is asked about.
Must not know: HTTP, MongoDB.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from gateway.access.access import Access
from gateway.exchange.addressed import find_addressed, reach, refuse_many, require_named
from gateway.exchange.audit import existing, searched, shown_of
from gateway.exchange.bounds import Part, require_bounded_parts
from gateway.exchange.call import Answer, Call
from gateway.exchange.chaining import resolve_chains, split_chains
from gateway.exchange.control import CONTROLS, Control, read_control
from gateway.exchange.cursor import Cursor
from gateway.exchange.gateway import Gateway
from gateway.exchange.include import Found, find_included, needed_values, read_asked
from gateway.exchange.parameters import PRESENTATION, Pairs, format_asked
from gateway.exchange.read import Result, body_of
from gateway.exchange.watermark import Find, asks_since, find_with_tide, watermark
from gateway.exchange.withheld import Withheld, find_withheld
from gateway.fhir.bundle import Piece, build_searchset
from gateway.fhir.chain import is_chain
from gateway.fhir.clause import Clause, every
from gateway.fhir.dates import read_span
from gateway.fhir.include import INCLUDES, Include
from gateway.fhir.registry import ResourceType
from gateway.fhir.search import Reading, clip, patient_identifiers, read_parameter, read_parameters, split_name
from gateway.fhir.subset import Subset
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.mongo import Document, Session
from gateway.store.order import Key, Order, Place, merge_pages, value_at

Told = tuple[str | None, dict[str, Any] | None]  # the watermark, and an OperationOutcome


async def search_type(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """A searchset of what matches and may be seen. Raises Problem 400 naming a parameter that is not understood."""
    pairs, after = _open_cursor(gateway, call)
    require_named(gateway.registry[call.type], _criteria(pairs))
    return await _search(
        gateway, access, call, _Asked([gateway.registry[call.type]], call.type, pairs, after, skip=call.skip), session
    )


async def search_system(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """The same over several types, which `_type` names, by parameters that all of them have."""
    pairs, after = _open_cursor(gateway, call)
    types = tuple(pair for pair in pairs if pair[0] == "_type")
    kinds = _read_types(gateway, types)
    for kind in kinds:
        access.require(kind, "search-type")
    others = tuple(pair for pair in pairs if pair[0] != "_type")
    return await _search(gateway, access, call, _Asked(kinds, "", others, after, types), session)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A search as asked: of these types at this address (below the base), where its page begins (and behind how many more), and
    what named the types.
    """

    kinds: Sequence[ResourceType]
    path: str
    pairs: Pairs
    after: Place | None
    types: Pairs = ()
    skip: int = 0

    @property
    def is_followed(self) -> bool:
        """Whether it is likely to be gone on with by what has changed since: documents are, and what was asked for so."""
        return not self.skip and (any(kind.requires for kind in self.kinds) or asks_since(self.kinds, self.pairs))


async def _search(gateway: Gateway, access: Access, call: Call, asked: _Asked, session: Session) -> Result:
    _refuse_long(gateway, asked.pairs)
    kinds = asked.kinds
    reading = await _reading(gateway, access, kinds, asked.pairs)
    if call.lenient:
        known = (pair for pair in asked.pairs if all(_is_understood(gateway, kind, pair, reading) for kind in kinds))
        asked = replace(asked, pairs=tuple(known))
    controls = {kind.name: read_control(gateway, kind, _shaping(asked)) for kind in kinds}
    control = controls[kinds[0].name]
    includes = read_asked(gateway, kinds, asked.pairs)
    access, parts, about = await _read_search(gateway, access, kinds, asked.pairs, reading)
    if includes or len(parts) > 1 or parts[0].chains:
        order = ("_id",) if control.only_total else tuple(key.parameter for key in control.order.keys)
        require_bounded_parts(access, parts, includes, order)
    clauses = [(p.kind, every(p.clause, await resolve_chains(gateway, access, p.chains, session))) for p in parts]
    found: list[Found] = []
    told: Told = (None, None)
    if not control.only_total:
        find = partial(_find, gateway, access, clauses, control, asked, includes)
        found, told = await _find_told(gateway, access, parts, about, asked, control, find, session)
    page = found[: control.count]
    included = await find_included(gateway, access, includes, page, session) if includes else []
    total: int | None = None
    if control.accurate or control.only_total:
        seconds, total = gateway.limits.search_seconds, 0
        for kind, clause in clauses:
            total += await store.count(access, gateway.mongo, kind, clause, seconds=seconds, session=session)
    elif asked.after is None and len(found) <= control.count:
        total = len(found)  # everything is on this page: the number costs nothing
    cursor = None if len(found) <= control.count else _cursor(gateway, asked, control.order, page[-1])
    withheld = await find_withheld(gateway, access, (*page, *included), session)
    matches = [_piece(gateway, one, controls[one[0].name].subset, withheld) for one in page]
    coming = [_piece(gateway, one, None, withheld) for one in included]
    links = _links(gateway, asked, control, cursor, format_asked(call.parameters))
    updated, outcome = told
    body = build_searchset(
        gateway.settings.base_url, matches, links, total=total, included=coming, updated=updated, outcome=outcome
    )
    owners = [document["patient"] for _, document in (*page, *included) if document.get("patient")]
    seen = shown_of(gateway, (*page, *included))
    return Answer(200, body), searched(access, call, kinds, about, owners, seen)


async def _find_told(
    gateway: Gateway,
    access: Access,
    parts: Sequence[Part],
    about: Sequence[str],
    asked: _Asked,
    control: Control,
    find: Find,
    session: Session,
) -> tuple[list[Found], Told]:
    """What is found; of a search that is gone on with later, also up to when that is everything, and what is to be told."""
    if not asked.is_followed:
        return await find(session), (None, None)
    found, tide = await find_with_tide(gateway, access, parts[0].clause, about, find, session)
    is_first, in_turn = asked.after is None, control.order.keys[0] == Key("_lastUpdated", descending=False)
    documents = [document for _, document in found]
    updated = watermark(tide, documents, control.count, in_turn=in_turn, is_first=is_first)
    return found, (updated, tide.outcome() if is_first else None)


async def _find(
    gateway: Gateway,
    access: Access,
    clauses: Sequence[tuple[ResourceType, Clause]],
    control: Control,
    asked: _Asked,
    includes: tuple[Include, ...],
    session: Session,
) -> list[Found]:
    """A page and one more, over all types in the one order."""
    several = len(clauses) > 1
    pages: list[list[Document]] = []
    for kind, clause in clauses:
        page = await store.find(
            access,
            gateway.mongo,
            kind,
            clause,
            control.order,
            after=asked.after,
            limit=control.count + 1,
            seconds=gateway.limits.search_seconds,
            values=needed_values(includes, kind),
            with_keys=several,
            skip=asked.skip,
            with_updated=asked.is_followed,
            session=session,
        )
        if not several:
            return [(kind, document) for document in page]
        pages.append([{**document, "kind": kind} for document in page])
    merged = merge_pages(pages, control.order)[: control.count + 1]
    return [(document["kind"], document) for document in merged]


def _shaping(asked: _Asked) -> Pairs:
    """The parameters with an order, where none is asked for: changes in their turn, and several types by when they changed,
    because not each has the same dates.
    """
    if any(name == "_sort" for name, _ in asked.pairs):
        return asked.pairs
    if asks_since(asked.kinds, asked.pairs):
        return (*asked.pairs, ("_sort", "_lastUpdated"))
    return (*asked.pairs, ("_sort", "-_lastUpdated")) if asked.types else asked.pairs


async def _read_search(
    gateway: Gateway, access: Access, kinds: Sequence[ResourceType], pairs: Pairs, reading: Reading
) -> tuple[Access, list[Part], list[str]]:
    """The access over the records that a search names, its part for each type, and the records that it is about."""
    parts: list[Part] = []
    about: dict[str, None] = {}
    for kind in kinds:
        criteria, chains = split_chains(gateway, kind, _criteria(pairs), reading)
        clause = read_parameters(kind, criteria, reading)
        access, named = await reach(gateway, access, kind, criteria, clause)
        own = [access.caller.patient] if access.caller.patient and kind.in_compartment else []
        about |= dict.fromkeys(existing(access, named) or own)
        parts.append(Part(kind, clause, chains))
    return access, parts, [*about]


def _piece(gateway: Gateway, found: Found, subset: Subset | None, withheld: Withheld) -> Piece:
    kind, document = found
    is_plain = "body" in document and not kind.attachments and not kind.withheld
    body = document["body"] if is_plain else body_of(gateway, kind, document, withheld)
    return kind.name, document["_id"], body if subset is None else subset(body)


def _read_types(gateway: Gateway, types: Pairs) -> list[ResourceType]:
    """The types of `_type`. Raises Problem where it names none, too many or one that is not searched here."""
    if len(types) != 1:
        raise Problem("required", "say once, in '_type', which types are searched", "_type", status=400)
    names = list(dict.fromkeys(types[0][1].split(",")))
    if len(names) > gateway.limits.system_types:
        raise Problem("too-costly", f"at most {gateway.limits.system_types} types are searched at once", "_type", status=400)
    kinds = [kind for name in names if (kind := gateway.registry.find(name)) and "search-type" in kind.interactions]
    others = [name for name in names if name not in {kind.name for kind in kinds}]
    if others:
        raise Problem("not-supported", f"'{clip(others[0])}' is no type that is searched here", "_type", status=400)
    return kinds


def _criteria(pairs: Pairs) -> Pairs:
    return tuple(pair for pair in pairs if pair[0] not in CONTROLS and pair[0] not in INCLUDES)


def record_named(pairs: Pairs) -> str | None:
    """The id of the patient a search names literally, so that the record can be looked up with the token."""
    named = next((value for name, value in pairs if name in ("patient", "subject")), None)
    return named.removeprefix("Patient/") if named else None


async def read_criteria(gateway: Gateway, access: Access, kind: ResourceType, pairs: Pairs) -> Clause:
    """The clause of a condition (`If-None-Exist`). Raises Problem where there is nothing in it or it is not understood."""
    _refuse_long(gateway, pairs)
    criteria = _criteria(pairs)
    if not criteria:
        raise Problem("invalid", "a condition needs at least one search parameter")
    for name in (name for name, _ in criteria if kind.matched_by and split_name(name)[0] not in kind.matched_by):
        text = f"a {kind.name} is known by {' or '.join(sorted(kind.matched_by))} alone"
        raise Problem("business-rule", text, clip(name))
    return read_parameters(kind, criteria, await _reading(gateway, access, [kind], criteria))


async def read_clause(gateway: Gateway, access: Access, kind: ResourceType, pairs: Pairs) -> tuple[Access, Clause, list[str]]:
    """The clause of a search without chains, the access over the records it names, and the records it is about."""
    _refuse_long(gateway, pairs)
    reading = await _reading(gateway, access, [kind], pairs)
    access, parts, about = await _read_search(gateway, access, [kind], pairs, reading)
    return access, parts[0].clause, about


async def widen(gateway: Gateway, access: Access, kind: ResourceType, pairs: Pairs, clause: Clause) -> Access:
    """The access over the records that a condition names as well. Raises Problem where it must name one and does not."""
    return (await reach(gateway, access, kind, _criteria(pairs), clause))[0]


async def _reading(gateway: Gateway, access: Access, kinds: Iterable[ResourceType], pairs: Pairs) -> Reading:
    identifiers = dict.fromkeys(identifier for kind in kinds for identifier in patient_identifiers(kind, pairs))
    refuse_many(gateway, len(identifiers))
    patients = {token: await find_addressed(gateway, token) for token in identifiers}
    base_url = gateway.settings.base_url
    return Reading(now=access.now, or_values=gateway.limits.or_values, patients=patients, base_url=base_url)


def _refuse_long(gateway: Gateway, pairs: Pairs) -> None:
    if len(pairs) > gateway.limits.parameters:
        raise Problem("too-costly", f"a search has at most {gateway.limits.parameters} parameters here", status=400)
    if len(pairs) + sum(value.count(",") for _, value in pairs) > gateway.limits.search_values:
        raise Problem("too-costly", f"a search lists at most {gateway.limits.search_values} values here", status=400)


def _open_cursor(gateway: Gateway, call: Call) -> tuple[Pairs, Place | None]:
    """The search to carry out: the one in the request, or the one its cursor goes on with."""
    pairs = tuple(pair for pair in call.parameters if pair[0] not in PRESENTATION)
    sealed = [value for name, value in pairs if name == "_cursor"]
    if not sealed:
        return pairs, None
    if len(pairs) > 1:
        raise Problem("invalid", "a page is asked for by '_cursor' alone", "_cursor")
    cursor = gateway.cursors.open(call.type, sealed[0])
    return (*cursor.pairs, ("_cursor", sealed[0])), Place(cursor.keys, cursor.id)


def _cursor(gateway: Gateway, asked: _Asked, order: Order, last: Found) -> Cursor:
    """Where the next page begins: behind the last resource, by the keys it sorts under. (No two types share an id.)"""
    pairs = tuple(pair for pair in (*asked.types, *asked.pairs) if pair[0] != "_cursor")
    kind, document = last
    if len(asked.kinds) > 1:
        keys = tuple(value_at(document, key.field) for key in order.complete()[:-1])
    else:
        keys = tuple(_sort_key(gateway, kind, name, document) for name in order.parameters)
    return Cursor(pairs, keys, document["_id"])


def _sort_key(gateway: Gateway, kind: ResourceType, parameter: str, document: Document) -> datetime | None:
    if "event" in document:
        moment: datetime = document["updated"]
        return moment
    resource = gateway.codec.load(kind.name, document["body"])
    if parameter == "_lastUpdated":
        return read_span(resource.meta.lastUpdated).low
    return gateway.index.sort_key(kind, resource, parameter)


def _is_understood(gateway: Gateway, kind: ResourceType, pair: tuple[str, str], reading: Reading) -> bool:
    """Whether there is such a parameter with such a modifier; a value that is wrong is not excused by being lenient."""
    try:
        if pair[0] in CONTROLS:
            read_control(gateway, kind, (pair,))
        elif pair[0] in INCLUDES:
            read_asked(gateway, [kind], (pair,))
        elif is_chain(kind, pair[0]):
            split_chains(gateway, kind, (pair,), reading)
        else:
            read_parameter(kind, *pair, reading)
    except Problem as problem:
        return problem.code != "not-supported"
    return True


def _links(gateway: Gateway, asked: _Asked, control: Control, cursor: Cursor | None, kept: Pairs) -> list[tuple[str, str]]:
    base = f"{gateway.settings.base_url}/{asked.path}".rstrip("/")
    applied: list[tuple[str, Any]] = [pair for pair in asked.pairs if pair[0] == "_cursor"]
    if not applied:
        pairs = (*asked.types, *asked.pairs)
        applied = [(name, control.count if name == "_count" else value) for name, value in pairs]
    applied += kept
    links = [("self", f"{base}?{urlencode(applied)}" if applied else base)]
    if cursor is not None:
        following = f"{base}?{urlencode([('_cursor', gateway.cursors.seal(asked.path, cursor)), *kept])}"
        if len(following) > gateway.limits.url_bytes:
            raise Problem("too-costly", "a search this long is not paged: ask for less, or for all on one page", status=400)
        links.append(("next", following))
    return links
