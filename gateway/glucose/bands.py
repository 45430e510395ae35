"""Glucose in bands: what shares of readings lie in which, mean and GMI, in either unit.

Knows: the international consensus on time in range (doi:10.2337/dci19-0028) and the glucose management indicator
(doi:10.2337/dc18-1581). Must not know: resources, whose readings they are, what day it is.

A reading is put into its band in the unit it was measured in: 10.0 mmol/L is in range, though it is 180.18 mg/dL.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Unit = Literal["mg/dL", "mmol/L"]
BANDS = ("very-low", "low", "in-range", "high", "very-high")

FACTOR = 18.0182  # mg/dL in a mmol/L of glucose
# Below the first: very low; below the second: low; up to and with the third: in range; up to and with the fourth: high.
_LIMITS = {"mg/dL": (54.0, 70.0, 180.0, 250.0), "mmol/L": (3.0, 3.9, 10.0, 13.9)}


@dataclass(frozen=True, slots=True)
class Summary:
    """Of readings: how many; their mean, least and most in mg/dL; the share of each band in hundredths of a per cent.

    The shares add up to exactly 100 %.
    """

    count: int
    mean: float
    least: float
    most: float
    shares: tuple[int, ...]

    @property
    def gmi(self) -> float:
        """The glucose management indicator, in per cent."""
        return 3.31 + 0.02392 * self.mean


def band_of(value: float, unit: Unit) -> int:
    """The number of the band in which a value lies."""
    low, target, most, high = _LIMITS[unit]
    if value < target:
        return 0 if value < low else 1
    return 2 if value <= most else 3 if value <= high else 4


def convert(value: float, unit: Unit, to: Unit) -> float:
    """A value in another unit."""
    if unit == to:
        return value
    return value * FACTOR if to == "mg/dL" else value / FACTOR


def summarize(readings: Iterable[tuple[float, Unit]]) -> Summary:
    """What is to be said of these readings, of which there is one at least."""
    bands = [0] * len(BANDS)
    values: list[float] = []
    for value, unit in readings:
        bands[band_of(value, unit)] += 1
        values.append(convert(value, unit, "mg/dL"))
    count = len(values)
    return Summary(count, sum(values) / count, min(values), max(values), _shares(bands, count))


def _shares(bands: list[int], count: int) -> tuple[int, ...]:
    """The shares in hundredths of a per cent: rounded down, and what is left given to those that lost most by it."""
    exact = [Fraction(10_000 * band, count) for band in bands]
    shares = [int(share) for share in exact]
    most_lost = sorted(range(len(bands)), key=lambda n: shares[n] - exact[n])
    for n in most_lost[: 10_000 - sum(shares)]:
        shares[n] += 1
    return tuple(shares)
