"""Identifiers of persons: the key of an INS, Corsica included, and whose data file is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fhir.identifiers import Identifiers, is_sound_nir, read_systems
from gateway.schemas import SchemaError, find_schemas

pytestmark = pytest.mark.requirement("ID-01")

NIR, NIA, TEST, DEMO = (f"urn:oid:1.2.250.1.213.1.4.{n}" for n in (8, 9, 10, 11))
SOUND = ["255081416802538", "187022A51300287", "187022B51300217", "123456789012311"]


def said(system: str | None, value: str | None, *, with_test: bool = True) -> list[tuple[str, str | None]]:
    identifiers = Identifiers(read_systems(find_schemas()), with_test=with_test)
    found = identifiers.issues(SimpleNamespace(system=system, value=value), "Patient.identifier[0]")
    issues = [*found]
    assert not any(value in issue.text for issue in issues if value)
    return [(issue.code, issue.expression) for issue in issues]


@pytest.mark.parametrize("value", SOUND)
@pytest.mark.parametrize("system", [NIR, NIA])
def test_a_sound_one_is_taken(system: str, value: str) -> None:
    assert said(system, value) == []


@pytest.mark.parametrize(
    "value",
    [
        "255081416802537",
        "187022A51300217",
        "187022B51300287",
        "187022C51300218",
        "123456789012345",
        "2550814168025",
        "955081416802538",
        "25508141680253 ",
        "٢٥٥٠٨١٤١٦٨٠٢٥٣٨",
        "187022a51300287",
        "x" * 15,
        "",
    ],
)
def test_one_that_cannot_be_right_is_not(value: str) -> None:
    assert said(NIR, value) == [("value", "Patient.identifier[0].value")]


@given(number=st.integers(1, 8), rest=st.integers(0, 10**12 - 1), place=st.integers(0, 14), digit=st.integers(0, 9))
def test_one_wrong_digit_is_always_found(number: int, rest: int, place: int, digit: int) -> None:
    thirteen = f"{number}{rest:012d}"
    sound = f"{thirteen}{97 - int(thirteen) % 97:02d}"
    assert is_sound_nir(sound)
    changed = sound[:place] + str(digit) + sound[place + 1 :]
    assert is_sound_nir(changed) is (changed == sound)


@pytest.mark.parametrize("system", [TEST, DEMO])
def test_nobody_is_of_a_test_in_production(system: str) -> None:
    assert said(system, "0000000000001") == []
    assert said(system, "0000000000001", with_test=False) == [("business-rule", "Patient.identifier[0].system")]


@pytest.mark.parametrize(("system", "value"), [("urn:x", "1"), (None, "1"), (NIR, None)])
def test_what_nobody_here_knows_is_taken_as_it_is(system: str | None, value: str | None) -> None:
    assert said(system, value, with_test=False) == []


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ('form = "["', "systems.urn:x.form"),
        ('check = "nir"', "systems.urn:x.form"),
        ('form = "[0-9]"\ncheck = "luhn"', r"systems\[...\]\."),
        ("tests = true", r"systems\[...\]\."),
    ],
)
def test_a_wrong_file_is_refused_by_key(tmp_path: Path, row: str, key: str) -> None:
    (tmp_path / "identifiers.toml").write_text(f'[systems."urn:x"]\nname = "X"\n{row}\n')
    with pytest.raises(SchemaError, match=rf"identifiers\.toml: {key}"):
        read_systems(tmp_path)
