"""$glucose-series: the sensor readings of a time, one after the other, however many there are.

Knows: that they are read piece by piece, each piece under the rights of its moment, and that a series of which some may no
longer be seen does not end as if it were complete. Must not know: HTTP, MongoDB, how a series is written.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, cast

from gateway.access.access import Access
from gateway.exchange.audit import searched
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.operations.arguments import read_day
from gateway.exchange.operations.lastn import of_somebody
from gateway.exchange.operations.readings import CODES, UNITS, Reading, decode
from gateway.exchange.parameters import Pairs
from gateway.exchange.read import Result
from gateway.exchange.search import read_clause
from gateway.exchange.standing import read_record, whole
from gateway.fhir.clause import Clause
from gateway.fhir.registry import ResourceType
from gateway.glucose.bands import Unit, convert
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.mongo import Session
from gateway.store.order import Key, Order, Place

_OLDEST = Order((Key("date", descending=False),))
_PIECE = 1_000
_DIGITS = {"mg/dL": 1, "mmol/L": 2}


class Row(NamedTuple):
    """A reading as it stands in a series. `value`: with the digits that were sent, unless it is converted."""

    time: str
    value: str
    unit: str
    status: str
    doubtful: bool
    device: str
    id: str


@dataclass(frozen=True, slots=True)
class Series:
    """Readings to be read, oldest first. `unit` None: each in its own."""

    gateway: Gateway
    access: Access
    kind: ResourceType
    clauses: tuple[Clause, ...]
    unit: Unit | None

    async def rows(self) -> AsyncIterator[Row]:
        """The readings. Raises Problem where what may be seen changes meanwhile."""
        # Of each code a run of its own, which its index has in order: the next reading is the earlier of their first.
        runs = [aiter(self._run(clause)) for clause in self.clauses]
        waiting = [(await anext(run, None)) for run in runs]
        while any(waiting):
            _, first, reading = min((one[0], n, one[1]) for n, one in enumerate(waiting) if one is not None)
            waiting[first] = await anext(runs[first], None)
            yield self._row(reading)

    async def _run(self, clause: Clause) -> AsyncIterator[tuple[datetime, Reading]]:
        after: Place | None = None
        limits = self.access.clause(self.kind, "search-type")
        while True:
            access = self.access if after is None else await self._anew()
            if access.clause(self.kind, "search-type") != limits:
                raise Problem("conflict", "what may be seen of this series has changed: ask for it anew")
            found = await store.find(
                access,
                self.gateway.mongo,
                self.kind,
                clause,
                _OLDEST,
                after=after,
                limit=_PIECE,
                seconds=self.gateway.limits.search_seconds,
                with_keys=True,
            )
            for document in found:
                moment: datetime = document["search"]["date"]["low"]
                after = Place((moment,), document["_id"])
                reading = decode(document["body"])
                if reading.is_reading:
                    yield moment, reading
            if len(found) < _PIECE:
                return

    async def _anew(self) -> Access:
        """The access with the records as they are now: a Consent may have been taken back."""
        records = await self.gateway.standings.find_records(self.access.records)
        fresh = (read_record(self.gateway, self.access.caller, one) for one in records.values())
        return await whole(self.gateway, self.access.over(fresh), by_right=True)

    def _row(self, one: Reading) -> Row:
        text, unit = one.text, one.unit
        if self.unit is not None and self.unit != unit:
            text, unit = f"{convert(float(text), unit, self.unit):.{_DIGITS[self.unit]}f}", self.unit
        device = one.device.reference if one.device is not None else None
        return Row(one.effectiveDateTime or "", text, unit, one.status, one.is_doubtful, device or "", one.id)


async def glucose_series(gateway: Gateway, access: Access, call: Call, _session: Session = None) -> Result:
    """The series, to be read behind its audit event. Raises Problem naming a parameter."""
    kind, given = gateway.registry[call.type], dict(call.parameters)
    unit = cast(Unit | None, given.pop("unit", None))
    if unit not in (None, *UNITS):
        raise Problem("value", f"'unit' is {' or '.join(UNITS)}", "unit", status=400)
    pairs: Pairs = of_somebody(access, tuple(pair for pair in given.items() if pair[0] == "patient"))
    for name, prefix in (("start", "ge"), ("end", "lt")):
        if name in given:
            read_day(name, given[name])
            pairs = (*pairs, ("date", prefix + given[name]))
    clauses: list[Clause] = []
    about: list[str] = []
    for code in CODES:
        access, clause, about = await read_clause(gateway, access, kind, (*pairs, ("code", code)))
        clauses.append(clause)
    series = Series(gateway, access, kind, tuple(clauses), unit)
    return Answer(200, content=series), searched(access, call, [kind], about, [])
