"""What can be measured: readings that cannot be are refused, those that hardly can be are kept and marked.

Knows: `schemas/plausible.toml`. Must not know: stores, who is calling, of whom a reading is.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec

from gateway.fhir.dates import read_span
from gateway.fhir.values import UCUM, token_values
from gateway.problem import Issue
from gateway.schemas import SchemaError, read_schema

FLAGS = "urn:fhir-document-gateway:CodeSystem/plausibility"
DOUBTFUL = "doubtful"
# A date alone may be that of a place where it is tomorrow already.
_EARLIEST_ZONE = timedelta(hours=14)
_DATE = len("2026-11-25")

Range = tuple[float, float]


class _Measure(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    unit: str
    possible: Range
    likely: Range
    only: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    ahead_minutes: Annotated[int, msgspec.Meta(ge=0)]
    measure: list[_Measure]


class Plausibility:
    """Says of readings whether they can be. `ahead`: how far the clock that dated one may be ahead of ours."""

    def __init__(self, ahead: timedelta, measures: list[_Measure]) -> None:
        self._ahead = ahead
        self._rows = {(measure.code, measure.unit): measure for measure in measures}
        self._codes = frozenset(measure.code for measure in measures)
        self._only = {
            measure.code: sorted(one.unit.partition("|")[2] for one in measures if one.code == measure.code)
            for measure in measures
            if measure.only
        }

    def issues(self, observation: Any, now: datetime) -> Iterator[Issue]:
        """Why this cannot have been measured, or says nothing that can be known."""
        codes = self._codes_of(observation)
        if not codes:
            return
        text = observation.effectiveDateTime
        if text is not None:
            zone = _EARLIEST_ZONE if len(text) <= _DATE else timedelta()
            if read_span(text).low > now + self._ahead + zone:
                yield Issue("business-rule", "it is of a time that has not come yet", "Observation.effective")
        measure = self._measure(observation, codes)
        if measure is None and observation.valueQuantity is not None and observation.valueQuantity.value is not None:
            units = next((self._only[code] for code in codes if code in self._only), None)
            if units is not None:
                text = (
                    f"it is measured in {' or '.join(units)}, by the code of {UCUM}: in another unit nobody knows what it says"
                )
                yield Issue("code-invalid", text, "Observation.value")
        if measure is not None and not _lies_in(observation.valueQuantity, measure.possible):
            text = f"nobody has such a value: {measure.possible[0]:g} to {measure.possible[1]:g} are possible"
            yield Issue("business-rule", text, "Observation.value")

    def is_doubtful(self, observation: Any) -> bool:
        """Whether this can have been measured, and hardly was."""
        measure = self._measure(observation, self._codes_of(observation))
        return measure is not None and not _lies_in(observation.valueQuantity, measure.likely)

    def is_reading(self, observation: Any) -> bool:
        """Whether it is one of the measures that are known here."""
        return bool(self._codes_of(observation))

    def _codes_of(self, observation: Any) -> list[str]:
        codings = (observation.code.coding or ()) if observation.code is not None else ()
        return [token for c in codings for token in token_values(c.system, c.code)[:1] if token in self._codes]

    def _measure(self, observation: Any, codes: list[str]) -> _Measure | None:
        quantity = observation.valueQuantity
        if quantity is None or quantity.value is None or not codes:
            return None
        units = token_values(quantity.system, quantity.code)
        return next((self._rows[code, unit] for code in codes for unit in units[:1] if (code, unit) in self._rows), None)


def flag(observation: Any, doubtful: bool, coding: type[Any]) -> None:
    """Say of an Observation, which has a `meta`, whether it is doubtful; what its sender says of that is not theirs to say."""
    meta = observation.meta
    tags = [tag for tag in meta.tag or () if tag.system != FLAGS]
    if doubtful:
        tags.append(coding(system=FLAGS, code=DOUBTFUL))
    meta.tag = tags or None


def read_plausibility(schemas: Path) -> Plausibility:
    """What `plausible.toml` says. Raises SchemaError naming the key."""
    file = schemas / "plausible.toml"
    raw = read_schema(file, _File)
    seen: set[tuple[str, str]] = set()
    for n, measure in enumerate(raw.measure):
        (low, high), (least, most) = measure.possible, measure.likely
        if not low <= least <= most <= high:
            raise SchemaError(file, f"measure[{n}].likely", "does not lie within what is possible")
        if (measure.code, measure.unit) in seen:
            raise SchemaError(file, f"measure[{n}].code", "stands there twice in this unit")
        seen.add((measure.code, measure.unit))
    return Plausibility(timedelta(minutes=raw.ahead_minutes), raw.measure)


def _lies_in(quantity: Any, limits: Range) -> bool:
    return limits[0] <= float(quantity.value) <= limits[1]
