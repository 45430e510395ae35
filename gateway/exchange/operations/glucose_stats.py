"""$glucose-stats: the sensor readings of a time, summed up by hour or by day.

Knows: which observations are single readings of a sensor (LOINC 99504-3 and 105272-9; in France the first is also a mean over
days, which is told by an extension and is never among them). Must not know: HTTP, MongoDB, the mathematics.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import searched
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.operations.lastn import of_somebody
from gateway.exchange.read import Result
from gateway.exchange.search import read_clause
from gateway.fhir.dates import read_span
from gateway.glucose.bands import BANDS, Summary, Unit, convert, summarize
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.mongo import Document, Session
from gateway.store.resources import Key, Order

DAYS = "https://interop.esante.gouv.fr/ig/fhir/mesures/StructureDefinition/mesures-number-of-days"
_CODES = ("http://loinc.org|99504-3", "http://loinc.org|105272-9")
_UNITS: tuple[Unit, ...] = ("mg/dL", "mmol/L")
_UCUM = "http://unitsofmeasure.org"
_NO_READINGS = ("entered-in-error", "cancelled")
_LENGTHS: Mapping[str, int] = {"day": len("2026-11-25"), "hour": len("2026-11-25T08")}
_MOST = 30_000  # a hundred days of a sensor that measures every five minutes
_AT_ONCE = 1_000
_OLDEST = Order((Key("date", descending=False),))


class _Quantity(msgspec.Struct):
    value: float | None = None
    system: str | None = None
    code: str | None = None


class _Extension(msgspec.Struct):
    url: str


class _Reading(msgspec.Struct):
    status: str
    effectiveDateTime: str | None = None  # noqa: N815
    valueQuantity: _Quantity | None = None  # noqa: N815
    extension: list[_Extension] = []


_decode = msgspec.json.Decoder(_Reading).decode


async def glucose_stats(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """Parameters with a `group` for each hour or day in which there are readings, oldest first."""
    kind, given = gateway.registry[call.type], dict(call.parameters)
    by, unit = given.pop("by", "day"), cast(Unit, given.pop("unit", "mg/dL"))
    for name, value, allowed in (("by", by, (*_LENGTHS,)), ("unit", unit, _UNITS)):
        if value not in allowed:
            raise Problem("value", f"'{name}' is {' or '.join(allowed)}", name, status=400)
    pairs = list(of_somebody(access, tuple(pair for pair in given.items() if pair[0] == "patient")))
    for name, prefix in (("start", "ge"), ("end", "lt")):
        if not given.get(name, "")[:1].isdigit():
            raise Problem("required", f"'{name}' is a date or a time", name, status=400)
        pairs.append(("date", prefix + given[name]))
    found: list[Document] = []
    about: list[str] = []
    for code in _CODES:
        access, clause, about = await read_clause(gateway, access, kind, (*pairs, ("code", code)))
        seconds, limit = gateway.limits.search_seconds, _MOST + 1 - len(found)
        found += await store.find(
            access, gateway.mongo, kind, clause, _OLDEST, after=None, limit=limit, seconds=seconds, session=session
        )
        if len(found) > _MOST:
            raise Problem("too-costly", f"these are more than {_MOST} readings: ask for a shorter time", "end", status=400)
    groups = await _grouped(found, _LENGTHS[by])
    listed = [_group(start, summarize(readings), unit) for start, readings in sorted(groups.items())]
    body = msgspec.json.encode({"resourceType": "Parameters", **({"parameter": listed} if listed else {})})
    owners = [document["patient"] for document in found if document.get("patient")]
    return Answer(200, body), searched(access, call, [kind], about, owners)


async def _grouped(found: list[Document], length: int) -> dict[str, list[tuple[float, Unit]]]:
    """The readings by hour or day as its clock showed it. What came by two ways, at one instant, counts once."""
    groups: dict[str, list[tuple[float, Unit]]] = {}
    seen: set[object] = set()
    for n, document in enumerate(found):
        if n % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)  # others wait
        one = _decode(document["body"])
        quantity, moment = one.valueQuantity, one.effectiveDateTime
        if quantity is None or quantity.value is None or quantity.system != _UCUM or quantity.code not in _UNITS:
            continue
        if moment is None or len(moment) < _LENGTHS["hour"] or one.status in _NO_READINGS or _is_mean(one):
            continue
        instant = read_span(moment).low
        if instant not in seen:
            seen.add(instant)
            groups.setdefault(moment[:length], []).append((quantity.value, quantity.code))
    return groups


def _is_mean(one: _Reading) -> bool:
    return any(extension.url == DAYS for extension in one.extension)


def _group(start: str, summary: Summary, unit: Unit) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"name": "start", "valueString": start}, {"name": "count", "valueInteger": summary.count}]
    digits = 1 if unit == "mg/dL" else 2
    for name, value in (("mean", summary.mean), ("least", summary.least), ("most", summary.most)):
        parts.append({"name": name, "valueQuantity": _quantity(round(convert(value, "mg/dL", unit), digits), unit)})
    shares = zip(BANDS, summary.shares, strict=True)
    parts += [{"name": band, "valueQuantity": _quantity(share / 100, "%")} for band, share in shares]
    parts.append({"name": "gmi", "valueQuantity": _quantity(round(summary.gmi, 2), "%")})
    return {"name": "group", "part": parts}


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": _UCUM, "code": unit}
