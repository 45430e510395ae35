"""Every primitive takes what https://hl7.org/fhir/R4/datatypes.html takes, and nothing else."""

import calendar
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.dates import read_span
from gateway.fhir.primitives import DATE_TIME, ID, primitive_types

TYPES = primitive_types(string_length=1_000)
DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in TYPES.items()}
UNBOUNDED = {name: msgspec.json.Decoder(kind) for name, kind in primitive_types(string_length=2**30).items()}

UUID = "urn:uuid:0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"

# Per primitive: what is one, and what is none.
TABLE: dict[str, tuple[list[Any], list[Any]]] = {
    "boolean": ([True, False], ["true", 0, 1, ""]),
    "integer": ([0, -(2**31), 2**31 - 1], [2**31, -(2**31) - 1, 1.5, "1", True]),
    "unsignedInt": ([0, 2**31 - 1], [-1, 2**31]),
    "positiveInt": ([1, 2**31 - 1], [0, -1, 2**31]),
    "string": (["a", " ", "\u00a0", "ligne\n\tdeux", "x" * 1_000], ["", "x" * 1_001, 1]),
    "markdown": (["*a*"], ["", "x" * 1_001]),
    "code": (["a", "a b", "mg/dL", "<="], ["", " a", "a ", "a  b", "a\n", "a\t\tb"]),
    "id": (["a", "A-1.b", "x" * 64], ["", "x" * 65, "a_b", "a/b", "a b", "é", "a\n"]),
    "uri": (["a", "http://a?b#c", "urn:oid:1.2", "é"], ["", " ", "a b", "a\n", "a\u2003b"]),
    "url": (["mailto:a@b"], ["", "a b"]),
    "canonical": (["http://a|1.0", "#a"], ["", "a b"]),
    "oid": (["urn:oid:0.1", "urn:oid:2.16.840"], ["urn:oid:3.1", "urn:oid:1", "urn:oid:1.02", "1.2.3", "urn:oid:1.2."]),
    "uuid": ([UUID], [UUID.upper(), UUID[:-1], UUID[9:], UUID + "\n"]),
    "date": (["2026", "2026-02", "2024-02-29", "2000-02-29", "0001-01-01"],
             ["", "26", "2026-13", "2026-00", "2026-1", "2025-02-29", "1900-02-29", "2026-04-31", "0000", "0000-02-29",
              "2026-02-2",
              "2026-02-29T", "2026-11-24T08:30:00Z", "２０２６"]),
    "dateTime": (["2026", "2026-11-24", "2026-11-24T08:30:00Z", "2026-11-24T08:30:00.000001+14:00",
                  "2026-12-31T23:59:60-11:30"],
                 ["2026-11-24T08:30", "2026-11-24T08:30Z", "2026-11-24T08:30:00", "2026-11-24 08:30:00Z",
                  "2026-11-24T24:00:00Z",
                  "2026-11-24T08:60:00Z", "2026-11-24T08:30:61Z", "2026-11-24T08:30:00+14:01", "2026-11-24T08:30:00+0100",
                  "2026-11-24T08:30:00.Z", "2026-11-24t08:30:00z", "2026-11T08:30:00Z", "2025-02-29T08:30:00Z",
                  "2026-11-24T08:30:00Z "]),
    "instant": (["2026-11-24T08:30:00Z"], ["2026-11-24", "2026", "2026-11-24T08:30:00"]),
    "time": (["00:00:00", "23:59:60", "08:30:00.5"], ["24:00:00", "08:30", "8:30:00", "08:30:00Z"]),
    "base64Binary": (["AA==", "AAA=", "AAAA", "AAAA AAAA", " AAAA\nAA==\n", "+/+/"],
                     ["", "  ", "A", "AA", "AAA", "A===", "====", "AA==AAAA", "AA A=", "AAAA!", "AA-_"]),
    "xhtml": (["<div/>"], [""]),
}  # fmt: skip
TAKEN = [(name, value) for name, (taken, _) in TABLE.items() for value in taken]
REFUSED = [(name, value) for name, (_, refused) in TABLE.items() for value in refused]


def test_the_table_has_every_primitive() -> None:
    assert TABLE.keys() | {"decimal"} == TYPES.keys()


@pytest.mark.parametrize(("name", "value"), TAKEN)
def test_is_one(name: str, value: Any) -> None:
    assert DECODERS[name].decode(json.dumps(value)) == value


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_is_none(name: str, value: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        DECODERS[name].decode(json.dumps(value))


def test_days_are_those_of_the_calendar() -> None:
    for year in (1, 4, 100, 400, 1900, 2000, 2023, 2024, 2100, 9996):
        for month in range(14):
            last = calendar.monthrange(year, month)[1] if 1 <= month <= 12 else 0
            taken = [day for day in range(33) if DATE_TIME.match(f"{year:04}-{month:02}-{day:02}")]
            assert taken == [*range(1, last + 1)], (year, month)


@settings(max_examples=300, deadline=None)
@given(text=st.from_regex(DATE_TIME, fullmatch=True))
def test_every_date_that_is_taken_covers_a_time(text: str) -> None:
    """No later step meets a date it cannot read."""
    low, high = read_span(text)
    assert low < high


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=70))
def test_an_id_can_stand_in_an_address(text: str) -> None:
    if ID.match(text):
        assert text.isascii()
        assert not set(text) & set("/?#%&$\n ")


@pytest.mark.parametrize("name", ["code", "uri", "oid", "base64Binary", "dateTime", "id"])
@pytest.mark.parametrize("unit", ["a ", "AAAA ", "1.", "urn:oid:1.1.", "  ", "a\t", "A"])
def test_no_text_takes_long_to_refuse(name: str, unit: str) -> None:
    """A pattern that steps back over what it matched would not come to an end with these."""
    with pytest.raises(msgspec.ValidationError):
        UNBOUNDED[name].decode(json.dumps(unit * 200_000 + " \u00a0 !\n"))
