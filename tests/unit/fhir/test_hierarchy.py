"""Levels of codes: what stands above and below, and that a code cannot stand below itself or below two others."""

from pathlib import Path

import pytest

from gateway.fhir.hierarchy import Hierarchy, read_hierarchies
from gateway.schemas import SchemaError, find_schemas

INTENT = Hierarchy({"order": ["original-order", "filler-order"], "filler-order": ["instance-order"]})


@pytest.mark.parametrize(
    ("code", "above", "below"),
    [
        ("order", ["order"], ["order", "original-order", "filler-order", "instance-order"]),
        ("filler-order", ["filler-order", "order"], ["filler-order", "instance-order"]),
        ("instance-order", ["instance-order", "filler-order", "order"], ["instance-order"]),
        ("plan", ["plan"], ["plan"]),
    ],
)
def test_levels(code: str, above: list[str], below: list[str]) -> None:
    assert (INTENT.above(code), INTENT.below(code)) == (above, below)


def test_the_packaged_ones_are_read() -> None:
    found = read_hierarchies(find_schemas())
    assert found["http://hl7.org/fhir/observation-status"].below("amended") == ["amended", "corrected"]


def test_a_folder_need_not_have_any(tmp_path: Path) -> None:
    assert read_hierarchies(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[below."urn:s"]\na = ["b"]\nb = ["a"]', "below.urn:s: 'a' stands below itself"),
        ('[below."urn:s"]\na = ["a"]', "below.urn:s: 'a' stands below itself"),
        ('[below."urn:s"]\na = ["b"]\nc = ["b"]', "below.urn:s: a code stands below two others"),
        ('[below."urn:s"]\na = "b"', "below"),
        ("[above]", "above: is not a key here|below: is missing"),
    ],
)
def test_what_cannot_be_is_refused_by_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "hierarchies.toml").write_text(text)
    with pytest.raises(SchemaError, match=said):
        read_hierarchies(tmp_path)
