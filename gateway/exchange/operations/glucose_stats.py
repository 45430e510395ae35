"""$glucose-stats: the sensor readings of a time, summed up by hour or by day.

Knows: how readings are brought together by the clock that showed them. Must not know: HTTP, MongoDB, the mathematics.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import searched
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.operations.arguments import read_day
from gateway.exchange.operations.lastn import of_somebody
from gateway.exchange.operations.readings import CODES, UNITS, Reading, decode
from gateway.exchange.read import Result
from gateway.exchange.search import read_clause
from gateway.fhir.dates import read_span
from gateway.fhir.values import UCUM
from gateway.glucose.bands import BANDS, Summary, Unit, convert, summarize
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.mongo import Document, Session
from gateway.store.order import Key, Order

_LENGTHS: Mapping[str, int] = {"day": len("2026-11-25"), "hour": len("2026-11-25T08")}
_MOST = 30_000  # a hundred days of a sensor that measures every five minutes
_AT_ONCE = 1_000
_OLDEST = Order((Key("date", descending=False),))


async def glucose_stats(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """Parameters with a `group` for each hour or day in which there are readings, oldest first."""
    kind, given = gateway.registry[call.type], dict(call.parameters)
    by, unit = given.pop("by", "day"), cast(Unit, given.pop("unit", "mg/dL"))
    for name, value, allowed in (("by", by, (*_LENGTHS,)), ("unit", unit, UNITS)):
        if value not in allowed:
            raise Problem("value", f"'{name}' is {' or '.join(allowed)}", name, status=400)
    pairs = list(of_somebody(access, tuple(pair for pair in given.items() if pair[0] == "patient")))
    for name, prefix in (("start", "ge"), ("end", "lt")):
        if name not in given:
            raise Problem("required", f"'{name}' is a date or a time", name, status=400)
        read_day(name, given[name])
        pairs.append(("date", prefix + given[name]))
    found: list[Document] = []
    about: list[str] = []
    for code in CODES:
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
    counting: dict[object, Reading] = {}
    for n, document in enumerate(found):
        if n % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)  # others wait
        one = decode(document["body"])
        if one.is_reading:
            instant = read_span(one.effectiveDateTime or "").low
            other = counting.get(instant)
            if other is None or one.rank < other.rank:
                counting[instant] = one
    groups: dict[str, list[tuple[float, Unit]]] = {}
    for one in counting.values():
        groups.setdefault((one.effectiveDateTime or "")[:length], []).append((float(one.text), one.unit))
    return groups


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
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}
