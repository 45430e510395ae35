"""What a paired app reads: all measures of a kind in a period, page by page, or the last one.

Knows: the parameters of API Mesures 1.5.2 §2.3, its two modes and their texts; `_offset` is the number of a page. Everything is
found by the search of FHIR, through its door. Must not know: HTTP, MongoDB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from gateway.exchange.audit import refused
from gateway.exchange.call import Call, Origin
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import PRESENTATION, Pairs, read_number
from gateway.exchange.perform import perform
from gateway.fhir.bundle import build_bundle
from gateway.fhir.search import clip
from gateway.mesures.bmi import HEIGHT, WEIGHT, Found, body_mass_indexes
from gateway.mesures.measures import Measure, Measures
from gateway.mesures.pairing import NO_CONSENT, Pairing
from gateway.problem import Problem

TOO_LARGE = "Maximum page size allowed is {most}. Actual : {asked}"
LAST_ONLY = "Sort parameter must be equals to -date (date DESC) with _count equals to 1 to retrieve last observation"
BOTH_MODES = "Paged search and search last cannot be requested concurrently"
NO_MODE = "No search mode detected"

_INCLUDES = ("Observation:device", "Observation.device")  # the table of the text has the one, its examples the other
_SINGLE = ("code", "subject.identifier", "_include", "_offset", "_count", "_sort")
_LOWER, _UPPER = ("ge", "gt", "sa"), ("le", "lt", "eb")
_FURTHEST = 10_000  # pages


@dataclass(frozen=True, slots=True)
class Asked:
    """A search. `dates`: the bounds of the period, none for the last one; `page` from 0; `count`: how many on a page."""

    measure: Measure
    dates: tuple[str, ...]
    page: int
    count: int
    devices: bool


class _Entry(msgspec.Struct):
    resource: msgspec.Raw
    search: dict[str, str]


class _Searchset(msgspec.Struct):
    total: int = 0
    entry: Sequence[_Entry] = ()


_searchset = msgspec.json.Decoder(_Searchset)
_elements = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def search(gateway: Gateway, measures: Measures, pairing: Pairing, pairs: Pairs, raw: str, origin: Origin) -> bytes:
    """A searchset with total and links. Raises Problem with the texts of the API. `raw`: the request line, for the audit."""
    kind, call = gateway.registry["Observation"], Call("search-type", "Observation", origin, raw=raw)
    try:
        pairs = tuple(pair for pair in pairs if pair[0] not in PRESENTATION)
        asked = read_asked(measures, pairing, pairs)
        pairing.require_consent(kind, "search-type")
    except Problem as problem:
        await gateway.audit.record(refused(pairing.access, call, problem), pairing.access.now)
        raise
    try:
        if asked.measure.is_computed:
            found, total = await _computed(gateway, pairing, asked, call)
        else:
            found, total = await _find(gateway, pairing, asked, call, asked.measure.code)
    except Problem as problem:
        raise (Problem("forbidden", NO_CONSENT) if problem.code == "forbidden" else problem) from None
    entries = [{"resource": msgspec.Raw(_named(pairing, one.body)), "search": {"mode": one.mode}} for one in found]
    links = _links(f"{gateway.settings.site}/mesures/Observation", pairs, asked, total)
    return build_bundle("searchset", entries, total=total, link=links)


def read_asked(measures: Measures, pairing: Pairing, pairs: Pairs) -> Asked:
    """The search that these parameters ask for. Raises Problem."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if name != "date" and name not in _SINGLE:
            raise Problem("not-supported", f"there is no parameter '{clip(name)}' here", clip(name), status=400)
        if name != "date" and name in given:
            raise Problem("invalid", f"'{name}' stands twice", name)
        given[name] = value
    system, _, value = given.get("subject.identifier", "").partition("|")
    if not value:
        raise Problem("invalid", "subject.identifier is mandatory: OID|idPe", "subject.identifier")
    pairing.require_patient(system if ":" in system else f"urn:oid:{system}", value, "subject.identifier")
    measure = measures.find(given.get("code", ""))
    if measure is None:
        raise Problem("invalid", "code is mandatory, and that of one of the measures", "code")
    if given.get("_include", _INCLUDES[0]) not in _INCLUDES:
        raise Problem("invalid", f"_include takes {_INCLUDES[0]} alone", "_include")
    count = _number(given, "_count", measures.page_default)
    if count > measures.page_most:
        raise Problem("invalid", TOO_LARGE.format(most=measures.page_most, asked=count), "_count")
    dates = tuple(value for name, value in pairs if name == "date")
    if "_sort" in given:
        if given["_sort"] != "-date" or given.get("_count") != "1":
            raise Problem("invalid", LAST_ONLY, "_sort")
        if dates or "_offset" in given:
            raise Problem("invalid", BOTH_MODES, "_sort")
    elif not _is_period(dates):
        raise Problem("invalid", NO_MODE, "date")
    page = _number(given, "_offset", 0, least=0)
    if page > _FURTHEST:
        raise Problem("invalid", "ask for a shorter period", "_offset")
    return Asked(measure, dates, page, count, "_include" in given)


def _is_period(dates: tuple[str, ...]) -> bool:
    """Whether these are both bounds of a period, or a date that is one."""
    if len(dates) == 1:
        return dates[0][:1].isdigit()
    return sorted(date[:2] in _UPPER for date in dates) == [False, True] and all(d[:2] in _LOWER + _UPPER for d in dates)


def _number(given: dict[str, str], name: str, default: int, *, least: int = 1) -> int:
    number = read_number(given.get(name, str(default)), 9)
    if number is None or number < least:
        raise Problem("invalid", f"'{name}' is a number from {least}", name)
    return number


async def _find(gateway: Gateway, pairing: Pairing, asked: Asked, call: Call, code: str) -> tuple[list[Found], int]:
    """A page of a measure, newest first, its devices behind it; and how many there are on all pages."""
    include = (("_include", "Observation:device"),) if asked.devices else ()
    page = (("_count", str(asked.count)), ("_sort", "-date"), ("_total", "accurate"))
    return await _ask(gateway, pairing, call, code, (*_dates(asked.dates), *page, *include), asked.page * asked.count)


async def _ask(
    gateway: Gateway, pairing: Pairing, call: Call, code: str, pairs: Pairs, skip: int = 0
) -> tuple[list[Found], int]:
    parameters = (("patient", pairing.patient), ("code", code), ("status:not", "entered-in-error"), *pairs)
    answer = await perform(gateway, pairing.access, msgspec.structs.replace(call, parameters=parameters, skip=skip))
    found = _searchset.decode(answer.body or b"{}")
    return [Found(bytes(entry.resource), entry.search["mode"]) for entry in found.entry], found.total


async def _computed(gateway: Gateway, pairing: Pairing, asked: Asked, call: Call) -> tuple[list[Found], int]:
    """The indexes of a page of weights, each with the height of its time; none where no height is known."""
    most = (("_count", str(gateway.limits.page_most)), ("_sort", "-date"))
    heights, _ = await _ask(gateway, pairing, call, HEIGHT, most)
    if not heights:
        return [], 0
    weights, total = await _find(gateway, pairing, asked, call, WEIGHT)
    return body_mass_indexes(weights, heights), total


def _dates(dates: tuple[str, ...]) -> Pairs:
    return tuple(("date", date) for date in dates)


def _named(pairing: Pairing, body: bytes) -> bytes:
    """The resource with its patient named as this app knows them. No digit of it changes."""
    elements = _elements.decode(body)
    identifier = {"identifier": {"system": pairing.system, "value": pairing.idpe}}
    for name in ("subject", "patient"):
        if name in elements:
            elements[name] = msgspec.Raw(msgspec.json.encode(identifier))
    return msgspec.json.encode(elements)


def _links(base: str, pairs: Pairs, asked: Asked, total: int) -> list[dict[str, str]]:
    def link(relation: str, page: int) -> dict[str, str]:
        own = [pair for pair in pairs if pair[0] not in ("_offset", "_count")]
        paged = [*own, ("_offset", str(page)), ("_count", str(asked.count))] if asked.dates else pairs
        query = "&".join(f"{name}={quote(value, safe=':')}" for name, value in paged)
        return {"relation": relation, "url": f"{base}?{query}"}

    links = [link("self", asked.page)]
    if asked.dates and (asked.page + 1) * asked.count < total:
        links.append(link("next", asked.page + 1))
    if asked.page > 0:
        links.append(link("previous", asked.page - 1))
    return links
