"""$everything: all of a patient's record that the caller may see, type after type, in pages.

Knows: https://hl7.org/fhir/R4/patient-operation-everything.html; which types are of a record. (Contents are fetched by the
addresses in the documents; who has read the record is asked for apart.) Each type comes through its own door, oldest change
first.
Must not know: HTTP, MongoDB.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from gateway.access.access import Access
from gateway.exchange.audit import existing, searched, shown_of
from gateway.exchange.call import Answer, Call
from gateway.exchange.cursor import Cursor
from gateway.exchange.gateway import Gateway
from gateway.exchange.operations.arguments import read_day
from gateway.exchange.parameters import Pairs, read_number
from gateway.exchange.read import Result, body_of
from gateway.exchange.standing import extend_to
from gateway.exchange.withheld import find_withheld
from gateway.fhir.bundle import Piece, build_searchset
from gateway.fhir.clause import Clause, Test, every, some
from gateway.fhir.registry import ResourceType
from gateway.fhir.search import clip
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.mongo import Document, Session
from gateway.store.order import Key, Order, Place

_CHANGED = Order((Key("_lastUpdated", descending=False),))


class _Start(NamedTuple):
    """Where a page begins: in this type, behind this place; at the very beginning where both are empty."""

    type: str
    place: Place | None


async def everything(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """A searchset, empty for whoever is not here. Raises Problem naming a parameter that is wrong."""
    patient = call.id or access.caller.patient
    if patient is None:
        raise Problem("required", "say whose record: Patient/[id]/$everything", "Patient", status=400)
    path = f"Patient/{call.id}/$everything" if call.id else "Patient/$everything"
    pairs, start = _open(gateway, path, call.parameters)
    given = dict(pairs)
    kinds = _kinds(gateway, access, given.get("_type"))
    count = _count(gateway, given.get("_count"))
    access = await extend_to(gateway, access, [patient])
    clauses = [(kind, _clause(kind, patient, given)) for kind in kinds]
    found = await _find(gateway, access, clauses, start, count, session)
    page = found[:count]
    shown = [("_cursor", value) for name, value in call.parameters if name == "_cursor"] or [*pairs]
    base = f"{gateway.settings.base_url}/{path}"
    links = [("self", f"{base}?{urlencode(shown)}" if shown else base)]
    if len(found) > count:
        kind, last = page[-1]
        cursor = Cursor((*pairs, ("_in", kind.name)), (last["updated"],), last["_id"])
        links.append(("next", f"{base}?{urlencode([('_cursor', gateway.cursors.seal(path, cursor))])}"))
    withheld = await find_withheld(gateway, access, page, session)
    pieces: list[Piece] = [(kind.name, document["_id"], body_of(gateway, kind, document, withheld)) for kind, document in page]
    total = len(found) if start.place is None and len(found) <= count else None
    body = build_searchset(gateway.settings.base_url, pieces, links, total=total)
    owners = [document["patient"] for _, document in page if document.get("patient")]
    about = existing(access, [patient])
    return Answer(200, body), searched(access, call, kinds, about, owners, shown_of(gateway, page))


async def _find(
    gateway: Gateway,
    access: Access,
    clauses: Sequence[tuple[ResourceType, Clause]],
    start: _Start,
    count: int,
    session: Session,
) -> list[tuple[ResourceType, Document]]:
    """A page and one more."""
    found: list[tuple[ResourceType, Document]] = []
    begun = not start.type
    for kind, clause in clauses:
        begun = begun or kind.name == start.type
        if begun and len(found) <= count:
            documents = await store.find(
                access,
                gateway.mongo,
                kind,
                clause,
                _CHANGED,
                after=start.place if kind.name == start.type else None,
                limit=count + 1 - len(found),
                seconds=gateway.limits.search_seconds,
                with_updated=True,
                session=session,
            )
            found += [(kind, document) for document in documents]
    return found


def _kinds(gateway: Gateway, access: Access, asked: str | None) -> list[ResourceType]:
    """The types to be looked at, the Patient first. Raises Problem where one that is named is not there to be asked."""
    of_records = {
        kind.name: kind
        for kind in gateway.registry.resource_types.values()
        if kind.in_compartment and kind.group != "audit" and "search-type" in kind.interactions
    }
    if asked is None:
        kinds = [kind for kind in of_records.values() if access.is_in_scope(kind, "search-type")]
    else:
        names = list(dict.fromkeys(asked.split(",")))
        others = [name for name in names if name not in of_records]
        if others:
            raise Problem("not-supported", f"'{clip(others[0])}' is no type of a record here", "_type", status=400)
        kinds = [of_records[name] for name in names]
        for kind in kinds:
            access.require(kind, "search-type")
    return sorted(kinds, key=lambda kind: (not kind.is_patient, kind.name))


def _clause(kind: ResourceType, patient: str, given: dict[str, str]) -> Clause:
    """What is asked of one type. What has no date of care is in any time."""
    parts: list[Clause] = [Test(kind.owner, "is", patient)]
    name = "period" if "period" in kind.search else kind.consent_date
    for asked, op in (("start", "ge"), ("end", "le")):
        if asked in given:
            span = read_day(asked, given[asked])
            if name is not None:
                parts.append(some(Test(name, op, span), Test(name, "missing", True)))
    if "_since" in given:
        parts.append(Test("_lastUpdated", "ge", read_day("_since", given["_since"])))
    return every(*parts)


def _count(gateway: Gateway, text: str | None) -> int:
    if text is None:
        return gateway.limits.page_default
    count = read_number(text, 9)
    if not count:
        raise Problem("invalid", "the value of '_count' is not a number from 1", "_count")
    return min(count, gateway.limits.page_most)


def _open(gateway: Gateway, path: str, pairs: Pairs) -> tuple[Pairs, _Start]:
    """What is asked, and where its page begins."""
    sealed = [value for name, value in pairs if name == "_cursor"]
    if not sealed:
        return pairs, _Start("", None)
    if len(pairs) > 1:
        raise Problem("invalid", "a page is asked for by '_cursor' alone", "_cursor")
    cursor = gateway.cursors.open(path, sealed[0])
    asked = tuple(pair for pair in cursor.pairs if pair[0] != "_in")
    return asked, _Start(dict(cursor.pairs)["_in"], Place(cursor.keys, cursor.id))
