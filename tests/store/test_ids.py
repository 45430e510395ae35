"""Ids carry the shard, tell nothing, grow with time and are FHIR ids."""

import re

import pytest

from gateway.store.ids import Ids, bucket_of

FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z")  # https://hl7.org/fhir/R4/datatypes.html#id
ids = Ids("the tests hold no secrets of anybody")


def test_an_id_begins_with_its_bucket_and_is_a_fhir_id() -> None:
    for _ in range(1_000):
        made = ids.new("a3f")
        assert FHIR_ID.match(made)
        assert bucket_of(made) == "a3f"


def test_ids_do_not_repeat_and_grow_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for millisecond in range(500):
        monkeypatch.setattr("time.time_ns", lambda at=millisecond: (1_800_000_000_000 + at) * 1_000_000)
        made.append(ids.unique())
    assert made == sorted(set(made))
    assert {len(one) for one in made} == {16}


def test_a_bucket_is_a_matter_of_seed_and_secret() -> None:
    assert ids.bucket(b"seed") == Ids("the tests hold no secrets of anybody").bucket(b"seed")
    seeds = [str(n).encode() for n in range(200)]
    other = Ids("another secret of nobody, just as long")
    assert [ids.bucket(seed) for seed in seeds] != [other.bucket(seed) for seed in seeds]


def test_buckets_are_spread_evenly() -> None:
    counts: dict[str, int] = {}
    for n in range(40_960):
        bucket = ids.bucket(n.to_bytes(8))
        counts[bucket] = counts.get(bucket, 0) + 1
    assert len(counts) == 4_096
    assert max(counts.values()) < 40


@pytest.mark.parametrize(
    ("identifier", "bucket"),
    [
        ("a3f-0", "a3f"),
        ("a3f-A.b-9", "a3f"),
        ("a3f-" + "x" * 60, "a3f"),
        ("a3f-" + "x" * 61, None),
        ("A3F-0", None),
        ("a3g-0", None),
        ("a3f0", None),
        ("a3f-", None),
        ("a3f-é", None),
        ("a3f-0\n", None),
        ("a3f-$ne", None),
        ("", None),
    ],
)
def test_what_is_no_id_of_ours_has_no_bucket(identifier: str, bucket: str | None) -> None:
    assert bucket_of(identifier) == bucket
