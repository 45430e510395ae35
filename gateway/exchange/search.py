"""Searching a type.

Knows: https://hl7.org/fhir/R4/search.html: which parameters control the answer, paging, totals, whose record is asked about.
Must not know: HTTP, MongoDB.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from gateway.access.access import Access
from gateway.exchange.audit import existing, searched
from gateway.exchange.call import Answer, Call
from gateway.exchange.chaining import resolve_chains, split_chains
from gateway.exchange.control import CONTROLS, Control, read_control
from gateway.exchange.cursor import Cursor
from gateway.exchange.gateway import Gateway
from gateway.exchange.include import Found, find_included, needed_values, read_asked
from gateway.exchange.parameters import PRESENTATION, Pairs
from gateway.exchange.read import Result, body_of
from gateway.exchange.standing import extend_to
from gateway.fhir.bundle import Piece, build_searchset
from gateway.fhir.chain import is_chain
from gateway.fhir.clause import All, Clause, Test, every
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.dates import read_span
from gateway.fhir.include import INCLUDES
from gateway.fhir.registry import ResourceType
from gateway.fhir.search import Reading, find_parameter, patient_identifiers, read_parameter, read_parameters, split_name
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.mongo import Document, Session
from gateway.store.resources import Order, Place


async def search_type(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """A searchset of what matches and may be seen. Raises Problem 400 naming a parameter that is not understood."""
    kind = gateway.registry[call.type]
    pairs, after = _open_cursor(gateway, call)
    _refuse_long(gateway, pairs)
    reading = await _reading(gateway, access, kind, pairs)
    if call.lenient:
        pairs = tuple(pair for pair in pairs if _is_understood(gateway, kind, pair, reading))
    control = read_control(gateway, kind, pairs)
    includes = read_asked(gateway, [kind], pairs)
    access, clause, about = await _read_search(gateway, access, kind, pairs, reading, session)
    found: list[Document] = []
    if not control.only_total:
        found = await store.find(
            access,
            gateway.mongo,
            kind,
            clause,
            control.order,
            after=after,
            limit=control.count + 1,
            seconds=gateway.limits.search_seconds,
            values=needed_values(includes, kind),
            session=session,
        )
    page = [(kind, document) for document in found[: control.count]]
    included = await find_included(gateway, access, includes, page, session) if includes else []
    total: int | None = None
    if control.accurate or control.only_total:
        seconds = gateway.limits.search_seconds
        total = await store.count(access, gateway.mongo, kind, clause, seconds=seconds, session=session)
    elif after is None and len(found) <= control.count:
        total = len(found)  # everything is on this page: the number costs nothing
    body = _build_page(gateway, kind, pairs, control, found, total, included)
    owners = [document["patient"] for _, document in (*page, *included) if document.get("patient")]
    return Answer(200, body), searched(access, call, kind, about, owners)


async def _read_search(
    gateway: Gateway, access: Access, kind: ResourceType, pairs: Pairs, reading: Reading, session: Session
) -> tuple[Access, Clause, list[str]]:
    """The access over the records that a search names, its clause, and the records that it is about."""
    criteria, chains = split_chains(gateway, kind, _criteria(pairs), reading)
    clause = read_parameters(kind, criteria, reading)
    asked = _patients_asked(kind, criteria)
    _refuse_many(gateway, asked)
    _require_patient(gateway, access, kind, asked)
    named = await _patients_named(gateway, kind, clause)
    access = await extend_to(gateway, access, named)
    own = [access.caller.patient] if access.caller.patient and kind.in_compartment else []
    if chains:
        clause = every(clause, await resolve_chains(gateway, access, chains, session))
    return access, clause, existing(access, named) or own


def _build_page(
    gateway: Gateway,
    kind: ResourceType,
    pairs: Pairs,
    control: Control,
    found: list[Document],
    total: int | None,
    included: list[Found],
) -> bytes:
    """The searchset. What was found beyond the page only says that there is more."""
    page = found[: control.count]
    cursor = None if len(found) <= control.count else _cursor(gateway, kind, pairs, control.order, page[-1])
    matches = [_piece(gateway, (kind, document)) for document in page]
    if control.subset is not None:
        matches = [(name, identifier, control.subset(body)) for name, identifier, body in matches]
    coming = [_piece(gateway, one) for one in included]
    links = _links(gateway, kind, pairs, control, cursor)
    return build_searchset(gateway.settings.base_url, matches, links, total=total, included=coming)


def _piece(gateway: Gateway, found: Found) -> Piece:
    kind, document = found
    return kind.name, document["_id"], document.get("body") or body_of(gateway, document)


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
    return read_parameters(kind, criteria, await _reading(gateway, access, kind, criteria))


async def widen(gateway: Gateway, access: Access, kind: ResourceType, pairs: Pairs, clause: Clause) -> Access:
    """The access over the records that a condition names as well. Raises Problem where it must name one and does not."""
    asked = _patients_asked(kind, _criteria(pairs))
    _refuse_many(gateway, asked)
    _require_patient(gateway, access, kind, asked)
    return await extend_to(gateway, access, await _patients_named(gateway, kind, clause))


async def _reading(gateway: Gateway, access: Access, kind: ResourceType, pairs: Pairs) -> Reading:
    identifiers = dict.fromkeys(patient_identifiers(kind, pairs))
    _refuse_many(gateway, len(identifiers))
    patients = {token: await store.find_patient(gateway.mongo, token) for token in identifiers}
    base_url = gateway.settings.base_url
    return Reading(now=access.now, or_values=gateway.limits.or_values, patients=patients, base_url=base_url)


async def _patients_named(gateway: Gateway, kind: ResourceType, clause: Clause) -> list[str]:
    """Whose records the search says it is about."""
    named = _values_fixed(clause, "patient")
    if kind.is_patient:
        named += _values_fixed(clause, "_id")
        identified = [await store.find_patient(gateway.mongo, token) for token in _values_fixed(clause, "identifier")]
        named += [patient for patient in identified if patient is not None]
    return list(dict.fromkeys(named))


def _patients_asked(kind: ResourceType, criteria: Pairs) -> int:
    """How many patients a search names. Whether there are such patients must make no difference to what it is answered."""
    count = 0
    for name, value in criteria:
        base, modifier = split_name(name)
        parameter = find_parameter(kind, base)
        literally = parameter is not None and parameter.field == "patient" and modifier in (None, "Patient")
        itself = kind.is_patient and base in ("_id", "identifier") and modifier is None
        if literally or itself or patient_identifiers(kind, [(name, value)]):
            count += 1 + value.count(",")
    return count


def _refuse_long(gateway: Gateway, pairs: Pairs) -> None:
    if len(pairs) > gateway.limits.parameters:
        raise Problem("too-costly", f"a search has at most {gateway.limits.parameters} parameters here", status=400)


def _refuse_many(gateway: Gateway, patients: int) -> None:
    """Each record named is looked up, and learns of it in an audit event of its own."""
    if patients > gateway.limits.or_values:
        raise Problem("too-costly", f"a search names at most {gateway.limits.or_values} patients here", "patient", status=400)


def _values_fixed(clause: Clause, parameter: str) -> list[str]:
    found: list[str] = []
    for part in clause.of if isinstance(clause, All) else (clause,):
        tests: Iterable[Clause] = part.of if isinstance(part, AnyOf) else (part,)
        values = [t.value for t in tests if isinstance(t, Test) and t.parameter == parameter and t.op == "is"]
        found += values
    return found


def _require_patient(gateway: Gateway, access: Access, kind: ResourceType, asked: int) -> None:
    must = kind.in_compartment and access.caller.kind in gateway.policy.patient_required
    if must and not asked and access.caller.patient is None and (kind.is_patient or kind.patient_required):
        name, words = ("_id", "_id or identifier") if kind.is_patient else ("patient", "patient")
        raise Problem("required", f"say whose record is searched: {words} is needed", name, status=400)


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


def _cursor(gateway: Gateway, kind: ResourceType, pairs: Pairs, order: Order, last: Document) -> Cursor:
    """Where the next page begins: behind the last resource, by the keys it sorts under."""
    asked = tuple(pair for pair in pairs if pair[0] != "_cursor")
    return Cursor(asked, tuple(_sort_key(gateway, kind, name, last) for name in order.parameters), last["_id"])


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


def _links(
    gateway: Gateway, kind: ResourceType, pairs: Pairs, control: Control, cursor: Cursor | None
) -> list[tuple[str, str]]:
    base = f"{gateway.settings.base_url}/{kind.name}"
    applied: list[tuple[str, Any]] = [pair for pair in pairs if pair[0] == "_cursor"]
    if not applied:
        applied = [(name, control.count if name == "_count" else value) for name, value in pairs]
    links = [("self", f"{base}?{urlencode(applied)}" if applied else base)]
    if cursor is not None:
        following = f"{base}?_cursor={gateway.cursors.seal(kind.name, cursor)}"
        if len(following) > gateway.limits.url_bytes:
            raise Problem("too-costly", "a search this long is not paged: ask for less, or for all on one page", status=400)
        links.append(("next", following))
    return links
