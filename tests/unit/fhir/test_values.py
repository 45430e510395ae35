"""Index values: how each FHIR type is spelled, so that no two things share a spelling."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.codec import Codec
from gateway.fhir.dates import EARLIEST, LATEST, Span, read_span
from gateway.fhir.values import (
    COMMON_SPAN,
    CONVERTERS,
    escape,
    fold,
    has_system,
    hull,
    reference_identifiers,
    string_value,
    token_values,
    without_version,
)
from tests.searches import UCUM

parts = st.text(st.sampled_from("ab|\\/:.$ é"), max_size=8)


def converted(codec: Codec, search_type: str, kind: str, json: str) -> list[Any]:
    """The index values of a value given as JSON; primitives are given as they are."""
    value = codec.decode(kind, json.encode()) if json.startswith("{") else json
    return list(CONVERTERS[search_type][kind](value))


@pytest.mark.parametrize(
    ("search_type", "kind", "json", "gives"),
    [
        ("token", "Coding", '{"system":"urn:s","code":"c"}', ["urn:s|c", "c"]),
        ("token", "Coding", '{"code":"c"}', ["|c", "c"]),
        ("token", "Coding", '{"system":"urn:s"}', []),
        ("token", "Coding", '{"system":"urn:s|t","code":"a\\\\b|c"}', [r"urn:s\|t|a\\b\|c", r"a\\b\|c"]),
        ("token", "CodeableConcept", '{"coding":[{"system":"s","code":"a"},{"code":"b"}]}', ["s|a", "a", "|b", "b"]),
        ("token", "CodeableConcept", '{"text":"only words"}', []),
        ("token", "Identifier", '{"system":"urn:s","value":"1"}', ["urn:s|1", "1"]),
        ("token", "Identifier", '{"system":"urn:s"}', []),
        ("token", "ContactPoint", '{"system":"phone","value":"+33","use":"home"}', ["home|+33", "+33"]),
        ("token", "code", "final", ["final"]),
        ("token", "code", "a|b", [r"a\|b"]),
        ("string", "string", "Été", ["ete\0Été"]),
        ("string", "HumanName", '{"family":"Ö","given":["A","B"],"prefix":["Dr"]}', ["o\0Ö", "a\0A", "b\0B", "dr\0Dr"]),
        ("string", "HumanName", '{"text":"Dr Ö"}', ["dr o\0Dr Ö"]),
        ("string", "Address", '{"line":["1 rue"],"city":"Lyon","country":"FR"}', ["1 rue\x001 rue", "lyon\0Lyon", "fr\0FR"]),
        ("reference", "Reference", '{"reference":"Patient/1"}', ["Patient/1"]),
        ("reference", "Reference", '{"reference":"Patient/1/_history/3"}', ["Patient/1"]),
        ("reference", "Reference", '{"reference":"#contained"}', []),
        ("reference", "Reference", '{"identifier":{"value":"1"}}', []),
        ("reference", "canonical", "http://x.example/a|1", ["http://x.example/a|1"]),
        ("quantity", "Quantity", f'{{"value":5.10,"unit":"milligrams","system":"{UCUM}","code":"mg"}}',
         [{"v": 5.1, "u": [f"{UCUM}|mg", "mg", "milligrams"]}]),
        ("quantity", "Quantity", '{"value":5,"unit":"mg|dL"}', [{"v": 5.0, "u": [r"mg\|dL"]}]),
        ("quantity", "Quantity", '{"value":5}', [{"v": 5.0, "u": []}]),
        ("quantity", "Quantity", '{"unit":"mg"}', []),
        ("date", "Period", '{"start":"2026-01","end":"2026-02"}', [Span(read_span("2026-01").low, read_span("2026-02").high)]),
        ("date", "Period", '{"start":"2026-01"}', [Span(read_span("2026-01").low, LATEST)]),
        ("date", "Period", '{"end":"2026-01"}', [Span(EARLIEST, read_span("2026-01").high)]),
        ("date", "Timing", '{"event":["2026-01-01","2026-01-03"]}', [read_span("2026-01-01"), read_span("2026-01-03")]),
        ("date", "Timing", '{"code":{"text":"sometimes"}}', []),
        ("date", "Timing", '{"repeat":{"boundsPeriod":{"start":"2026","end":"2026"}}}', [read_span("2026")]),
        ("uri", "uri", "urn:x", ["urn:x"]),
    ],
)  # fmt: skip
def test_how_a_type_is_spelled(codec: Codec, search_type: str, kind: str, json: str, gives: list[Any]) -> None:
    assert converted(codec, search_type, kind, json) == gives


def test_booleans_are_spelled_as_in_json() -> None:
    assert [CONVERTERS["token"]["boolean"](value) for value in (True, False)] == [["true"], ["false"]]


def test_a_logical_reference_is_a_token(codec: Codec) -> None:
    reference = codec.decode("Reference", b'{"identifier":{"system":"urn:s","value":"1"}}')
    assert list(reference_identifiers(reference)) == ["urn:s|1", "1"]
    assert list(reference_identifiers(codec.decode("Reference", b'{"reference":"Patient/1"}'))) == []


@given(parts, parts, parts, parts)
@settings(max_examples=300, deadline=None)
def test_no_two_tokens_share_a_spelling(system: str, code: str, other_system: str, other_code: str) -> None:
    if code and other_code and (system, code) != (other_system, other_code):
        assert token_values(system, code)[0] != token_values(other_system, other_code)[0]


@given(parts, parts)
@settings(max_examples=200, deadline=None)
def test_a_spelling_without_system_is_never_one_with_a_system(system: str, code: str) -> None:
    if code:
        full, bare = token_values(system, code)
        assert has_system(full) is bool(system)
        assert not has_system(bare)
        assert full == f"{escape(system)}|{bare}"


@given(parts, parts)
@settings(max_examples=200, deadline=None)
def test_a_system_is_found_as_a_beginning_and_no_other(system: str, other: str) -> None:
    if system:
        assert token_values(system, "x")[0].startswith(f"{escape(system)}|")
        assert token_values(other, "x")[0].startswith(f"{escape(system)}|") is (system == other)


@given(st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=200, deadline=None)
def test_strings_are_the_same_only_if_sent_the_same(one: str, other: str) -> None:
    assert (string_value(one) == string_value(other)) is (one == other)
    assert string_value(one).startswith(fold(one))


moments = st.datetimes(min_value=EARLIEST.replace(tzinfo=None), max_value=LATEST.replace(tzinfo=None)).map(
    lambda moment: read_span(f"{moment.isoformat(timespec='milliseconds')}Z")
)


@given(st.lists(moments, min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_a_hull_holds_every_span_and_no_more(spans: list[Span]) -> None:
    stored = hull(spans)
    assert stored["low"] == min(span.low for span in spans)
    assert stored["high"] == max(span.high for span in spans)
    assert bool(stored.get("wide")) is (stored["high"] - stored["low"] > COMMON_SPAN)


@pytest.mark.parametrize(
    ("text", "wide"), [("2026-11-20", False), ("2026-11-20T08:30:00Z", False), ("2026-11", True), ("2026", True)]
)
def test_days_and_moments_are_common_and_anything_longer_is_wide(text: str, wide: bool) -> None:
    assert ("wide" in hull([read_span(text)])) is wide


@pytest.mark.parametrize(
    ("reference", "gives"),
    [
        ("Patient/1", "Patient/1"),
        ("Patient/1/_history/2", "Patient/1"),
        ("https://x.example/fhir/Patient/1/_history/2", "https://x.example/fhir/Patient/1"),
        ("https://x.example/_history/list", "https://x.example"),
        ("urn:uuid:1", "urn:uuid:1"),
    ],
)
def test_a_reference_is_to_a_resource_whatever_its_version(reference: str, gives: str) -> None:
    assert without_version(reference) == gives
