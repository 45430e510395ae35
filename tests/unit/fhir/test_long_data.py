"""Long data set apart: nothing else of a body changes, and all of it comes back."""

import json
import random
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fhir.long_data import set_apart

LONG = random.Random(1).randbytes(20_000)
TEXT = b64encode(LONG).decode()
OTHER = b64encode(random.Random(2).randbytes(30_001)).decode()
SHORT = b64encode(b"short").decode()

values = st.recursive(
    st.one_of(st.none(), st.integers(), st.sampled_from([TEXT, OTHER, SHORT, "data", '"data": "x', TEXT + "!", "\\", '"'])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "url", '"data"', "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=values, indent=st.sampled_from([None, 0, 2]))
def test_what_is_put_back_is_what_was_sent(value: object, indent: int | None) -> None:
    body = json.dumps({"first": value, "data": TEXT}, indent=indent).encode()
    apart = set_apart(body)
    assert apart.whole(apart.body) == body
    assert TEXT.encode() in {sent for sent, _ in apart.held.values()}
    told = json.loads(apart.body)
    assert len(told["data"]) == 24
    assert apart.plain_of(json.dumps({"data": told["data"]}).encode()) == LONG


def test_the_same_in_two_places_has_one_mark() -> None:
    apart = set_apart(json.dumps([{"data": TEXT}, {"data": OTHER}, {"data": TEXT}]).encode())
    marks = [one["data"] for one in json.loads(apart.body)]
    assert marks[0] == marks[2] != marks[1]
    assert apart.plain_of(apart.body) is None  # there are several


@pytest.mark.parametrize(
    "sent", [TEXT[:-1], TEXT + "\\n", TEXT[:-4] + "====", " " + TEXT, TEXT[:9] + "\\u0041" + TEXT[10:], "é" + TEXT]
)
def test_what_is_not_plain_base64_stays_where_it_is(sent: str) -> None:
    body = f'{{"data":"{sent}"}}'.encode()
    assert set_apart(body).body == body


@pytest.mark.parametrize(
    "body", [b'"data"', b'{"data"', b'{"data":', b'{"data":"', b'{"data" : 5}', b"data" * 9_000, b'"data":"' * 9_000]
)
def test_what_is_no_json_is_left_alone(body: bytes) -> None:
    padded = body + b" " * 20_000
    assert set_apart(padded).body == padded
