"""Dates are spans of time in whole milliseconds of UTC: every precision, the ends of time, leap seconds."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.dates import EARLIEST, LATEST, Span, instant_span, read_span, write_instant

MS, SECOND, MINUTE, DAY = (timedelta(**{unit: 1}) for unit in ("milliseconds", "seconds", "minutes", "days"))


def at(*parts: int, ms: int = 0) -> datetime:
    return datetime(*parts, tzinfo=UTC) + ms * MS  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2026", at(2026, 1, 1), at(2027, 1, 1)),
        ("2026-11", at(2026, 11, 1), at(2026, 12, 1)),
        ("2026-12", at(2026, 12, 1), at(2027, 1, 1)),
        ("2024-02", at(2024, 2, 1), at(2024, 3, 1)),
        ("2024-02-29", at(2024, 2, 29), at(2024, 3, 1)),
        ("2026-12-31", at(2026, 12, 31), at(2027, 1, 1)),
        ("2026-11-20T08:30", at(2026, 11, 20, 8, 30), at(2026, 11, 20, 8, 31)),
        ("2026-11-20T08:30Z", at(2026, 11, 20, 8, 30), at(2026, 11, 20, 8, 31)),
        ("2026-11-20T08:30+02:00", at(2026, 11, 20, 6, 30), at(2026, 11, 20, 6, 31)),
        ("2026-11-20T08:30:15", at(2026, 11, 20, 8, 30, 15), at(2026, 11, 20, 8, 30, 16)),
        ("2026-11-20T08:30:15Z", at(2026, 11, 20, 8, 30, 15), at(2026, 11, 20, 8, 30, 16)),
        ("2026-11-20T23:59:59-05:30", at(2026, 11, 21, 5, 29, 59), at(2026, 11, 21, 5, 30)),
        ("2026-11-20T00:00:00+14:00", at(2026, 11, 19, 10), at(2026, 11, 19, 10, 0, 1)),
        ("2026-11-20T08:30:15.1Z", at(2026, 11, 20, 8, 30, 15, ms=100), at(2026, 11, 20, 8, 30, 15, ms=200)),
        ("2026-11-20T08:30:15.12Z", at(2026, 11, 20, 8, 30, 15, ms=120), at(2026, 11, 20, 8, 30, 15, ms=130)),
        ("2026-11-20T08:30:15.123Z", at(2026, 11, 20, 8, 30, 15, ms=123), at(2026, 11, 20, 8, 30, 15, ms=124)),
        ("2026-11-20T08:30:15.123999Z", at(2026, 11, 20, 8, 30, 15, ms=123), at(2026, 11, 20, 8, 30, 15, ms=124)),
        ("2026-11-20T08:30:15.123456789+01:00", at(2026, 11, 20, 7, 30, 15, ms=123), at(2026, 11, 20, 7, 30, 15, ms=124)),
        ("2026-11-20T08:30:15.999Z", at(2026, 11, 20, 8, 30, 15, ms=999), at(2026, 11, 20, 8, 30, 16)),
        # a leap second is the last second of its minute
        ("2016-12-31T23:59:60Z", at(2016, 12, 31, 23, 59, 59), at(2017, 1, 1)),
        ("2017-01-01T00:59:60+01:00", at(2016, 12, 31, 23, 59, 59), at(2017, 1, 1)),
        ("2016-12-31T23:59:60.500Z", at(2016, 12, 31, 23, 59, 59, ms=500), at(2016, 12, 31, 23, 59, 59, ms=501)),
        # the ends of time
        ("0001", EARLIEST, at(2, 1, 1)),
        ("0001-01-01", EARLIEST, at(1, 1, 2)),
        ("0001-01-01T00:00:00Z", EARLIEST, EARLIEST + SECOND),
        ("0001-01-01T00:00:00+14:00", EARLIEST, EARLIEST + SECOND),
        ("9999", at(9999, 1, 1), LATEST),
        ("9999-12", at(9999, 12, 1), LATEST),
        ("9999-12-31", at(9999, 12, 31), LATEST),
        ("9999-12-31T23:59:59Z", LATEST - SECOND, LATEST),
        ("9999-12-31T23:59:59.999Z", LATEST - MS, LATEST),
        ("9999-12-31T23:59:59-14:00", LATEST - SECOND, LATEST),
    ],
)
def test_what_a_date_covers(text: str, low: datetime, high: datetime) -> None:
    assert read_span(text) == Span(low, high)


NO_DATES = """
2 202 2026- 2026-1 2026-11-2 2026-13 2026-02-30 0000 today 2026-11-20T 2026-11-20Tnoon
2026-11-20T25:00Z
"""


@pytest.mark.parametrize("text", ["", *NO_DATES.split()])
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_span(text)


zones = st.one_of(
    st.just("Z"),
    st.builds(lambda sign, h, m: f"{sign}{h:02}:{m:02}", st.sampled_from("+-"), st.integers(0, 13), st.integers(0, 59)),
)
moments = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31, 23, 59, 59))
digits = st.text("0123456789", min_size=1, max_size=9)


@given(moments, st.one_of(st.none(), digits), zones)
@settings(max_examples=300, deadline=None)
def test_every_moment_is_a_span_of_its_precision(moment: datetime, fraction: str | None, zone: str) -> None:
    text = f"{moment:%Y}".zfill(4) + f"{moment:-%m-%dT%H:%M:%S}" + (f".{fraction}" if fraction else "") + zone
    low, high = read_span(text)
    assert EARLIEST <= low < high <= LATEST
    width = SECOND if fraction is None else max(SECOND / 10 ** len(fraction), MS)
    assert high - low == width
    assert low.microsecond % 1000 == high.microsecond % 1000 == 0
    exact = moment.replace(microsecond=0, tzinfo=UTC)
    if EARLIEST + DAY < exact < LATEST - DAY:
        offset = (
            timedelta()
            if zone == "Z"
            else (1 if zone[0] == "+" else -1) * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
        )
        assert low == exact - offset + timedelta(milliseconds=int((fraction or "0").ljust(3, "0")[:3]))


@given(st.dates())
@settings(max_examples=200, deadline=None)
def test_precisions_lie_within_each_other(day: object) -> None:
    text = str(day)
    year, month, date, second = (read_span(part) for part in (text[:4], text[:7], text, f"{text}T12:00:00Z"))
    for wide, narrow in ((year, month), (month, date), (date, second)):
        assert wide.low <= narrow.low < narrow.high <= wide.high


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))
@settings(max_examples=200, deadline=None)
def test_an_instant_is_written_as_it_is_read(moment: datetime) -> None:
    assert read_span(write_instant(moment)) == instant_span(moment)
    assert len(write_instant(moment)) == len("2026-11-24T08:30:00.125Z")


def test_a_span_says_when_in_utc_whatever_the_zone() -> None:
    paris = datetime(2026, 11, 20, 9, tzinfo=timezone(timedelta(hours=1)))
    assert read_span(paris.isoformat()).low == paris
    assert read_span(paris.isoformat()).low.tzinfo is UTC


def test_minutes_and_seconds_have_their_widths() -> None:
    assert [read_span(t).high - read_span(t).low for t in ("2026-11-20T08:30Z", "2026-11-20T08:30:00Z")] == [MINUTE, SECOND]
