"""FHIR dates as spans of time.

Knows: what each precision covers (https://hl7.org/fhir/R4/search.html#date), as half-open spans of UTC milliseconds,
the resolution of a BSON date. A date without a zone is read as UTC.
Must not know: search parameters, stores, the present time.
"""

import functools
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)

_MILLISECOND = timedelta(milliseconds=1)
_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_PRECISIONS = (_SECOND, timedelta(milliseconds=100), timedelta(milliseconds=10), _MILLISECOND)


class Span(NamedTuple):
    """Time from `low` up to, not including, `high`; both aware datetimes in UTC."""

    low: datetime
    high: datetime


def read_span(text: str) -> Span:
    """The span that a FHIR date, dateTime or instant covers: `2026-11` is the whole month.

    Times may leave out seconds and zone, as search values may. Raises ValueError where there is no such day or time; that
    `text` has the form of a date is for the callers to see to, who have a grammar each.
    """
    length = len(text)
    if length <= 10:
        return _calendar_span(text, length)
    low, width = _read_time(text)
    try:
        low = low.astimezone(UTC)
        return Span(low, low + width)
    except OverflowError:
        return Span(EARLIEST, EARLIEST + width) if low.year == 1 else Span(LATEST - width, LATEST)


def instant_span(moment: datetime) -> Span:
    """The millisecond that holds `moment`."""
    low = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return Span(low, low + _MILLISECOND)


@functools.lru_cache(maxsize=256)
def write_instant(moment: datetime) -> str:
    """`moment` (UTC) as a FHIR instant with milliseconds: `2026-11-24T08:30:00.125Z`."""
    return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def is_running(period: Any, now: datetime) -> bool:
    """Whether a typed Period, None for none, has begun and not ended (https://hl7.org/fhir/R4/datatypes.html#Period)."""
    if period is None:
        return True
    begins = period.start is None or read_span(period.start).low <= now
    return begins and (period.end is None or now < read_span(period.end).high)


def _calendar_span(text: str, length: int) -> Span:
    if length == 10:
        low = datetime(int(text[:4]), int(text[5:7]), int(text[8:]), tzinfo=UTC)
        return Span(low, LATEST if low.year == 9999 and low.month == 12 and low.day == 31 else low + _DAY)
    if length == 7:
        year, month = int(text[:4]), int(text[5:])
        after = (year, month + 1) if month < 12 else (year + 1, 1)
    elif length == 4:
        year, month = int(text), 1
        after = (year + 1, 1)
    else:
        raise ValueError("not a FHIR date")
    return Span(
        datetime(year, month, 1, tzinfo=UTC),
        LATEST if after[0] > 9999 else datetime(*after, 1, tzinfo=UTC),
    )


def _read_time(text: str) -> tuple[datetime, timedelta]:
    """A moment with its zone, and the width of what its precision covers."""
    leap = text[16:19] == ":60"  # a leap second is the last second of its minute here, as POSIX time has none
    moment = datetime.fromisoformat(text[:17] + "59" + text[19:] if leap else text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if len(text) < 17 or text[16] != ":":
        return moment, _MINUTE
    digits = 0
    if text[19:20] == ".":
        fraction = text[20:26]
        digits = len(fraction) - len(fraction.lstrip("0123456789"))
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return moment, _PRECISIONS[min(digits, 3)]
