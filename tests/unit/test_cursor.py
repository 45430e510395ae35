"""Cursors: sealed, of one type, of one secret; nobody makes or bends one."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.exchange.cursor import Cursor, Cursors
from gateway.problem import Problem

SECRET = "a secret of at least thirty-two characters"
CURSORS = Cursors(SECRET)

moments = st.datetimes(timezones=st.just(UTC)).map(lambda d: d.replace(microsecond=d.microsecond // 1000 * 1000))
pairs = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
).map(tuple)
cursors = st.builds(
    Cursor,
    pairs=pairs,
    keys=st.lists(st.none() | moments, max_size=3).map(tuple),
    id=st.text(st.characters(codec="utf-8"), max_size=64),
)


def assert_refused(type_name: str, text: str, cursors: Cursors = CURSORS) -> None:
    with pytest.raises(Problem) as caught:
        cursors.open(type_name, text)
    problem = caught.value
    assert (problem.status, problem.code, problem.issues[0].expression) == (400, "invalid", "_cursor")


@settings(max_examples=50, deadline=None)
@given(cursors)
def test_what_was_sealed_is_opened(cursor: Cursor) -> None:
    text = CURSORS.seal("Observation", cursor)
    assert text.replace("-", "").replace("_", "").isalnum()  # it needs no escaping in a URL
    assert CURSORS.open("Observation", text) == cursor


@settings(max_examples=50, deadline=None)
@given(cursors, st.data())
def test_no_bit_of_it_can_be_changed(cursor: Cursor, data: st.DataObject) -> None:
    text = CURSORS.seal("Observation", cursor)
    sealed = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    assert_refused("Observation", base64.urlsafe_b64encode(sealed).rstrip(b"=").decode())


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda b: base64.urlsafe_b64encode(b).decode()))
def test_nobody_makes_one_up(text: str) -> None:
    assert_refused("Observation", text)


def test_it_belongs_to_one_type_and_one_secret() -> None:
    text = CURSORS.seal("Observation", Cursor((("code", "x"),), (None,), "abc-1"))
    assert_refused("Device", text)
    assert_refused("observation", text)
    assert_refused("Observation", text, Cursors(SECRET + "!"))
    assert Cursors(SECRET).open("Observation", text).id == "abc-1"  # another process of the same service


def test_two_seals_of_the_same_are_not_the_same() -> None:
    cursor = Cursor((("patient", "abc-1"),), (datetime(2026, 11, 20, tzinfo=UTC),), "abc-2")
    assert CURSORS.seal("Observation", cursor) != CURSORS.seal("Observation", cursor)


@pytest.mark.requirement("OPS-04")
def test_it_shows_nothing_of_the_search() -> None:
    text = CURSORS.seal("Observation", Cursor((("patient", "abc-4711"),), (None,), "abc-4712"))
    assert b"471" not in base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
