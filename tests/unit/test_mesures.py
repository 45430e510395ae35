"""The table of measures, and codes that say the same: what a wrong file is told."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.fhir.registry import Registry
from gateway.fhir.registry_reading import read_registry
from gateway.mesures.bmi import Found, body_mass_indexes
from gateway.mesures.measures import read_measures
from gateway.schemas import SchemaError, find_schemas
from tests.conftest import packaged


def test_every_code_of_the_public_text_is_a_measure() -> None:
    measures = read_measures(find_schemas())
    codes = "29463-7 8302-2 8280-0 8310-5 2345-7 MED-969 4548-4 MED-972 85354-9 39156-5 72514-3 8867-4 41950-7 8287-5"
    assert all(measures.find(code) is not None for code in codes.split())
    assert measures.find("99504-3") is measures.find("MED-969")
    assert measures.find("718-7") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('codes = ["http://loinc.org|8302-2"]', 'codes = ["8302-2"]'), "measure[1]: has no codes"),
        (lambda text: text.replace("8302-2", "29463-7"), "measure[1].codes: are those of another measure"),
        (lambda text: text.replace("page_default = 50", "page_default = 500"), "page_default: is not between"),
        (lambda text: text.replace('moment = "required"', 'moment = "perhaps"'), "measure[10].moment"),
    ],
)
def test_a_wrong_table_is_told_by_key(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    text = (find_schemas() / "mesures.toml").read_text("utf-8")
    assert change(text) != text
    (tmp_path / "mesures.toml").write_text(change(text), "utf-8")
    with pytest.raises(SchemaError) as error:
        read_measures(tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('parameter = "date"\ncodes = ["a|1", "b|1"]', "equivalent[4].parameter"),
        ('parameter = "code"\ncodes = ["a|1"]', "equivalent[4].codes"),
        ('parameter = "code"\ncodes = ["a|1", "1"]', "equivalent[4].codes"),
        ('parameter = "code"\ncodes = ["a|1", "b|1"]\nwhere = "colour"', "equivalent[4].where"),
    ],
)
def test_a_wrong_equivalent_is_told_by_key(tmp_path: Path, registry: Registry, row: str, said: str) -> None:
    shutil.copytree(find_schemas(), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "resources" / "Observation.toml"
    file.write_text(file.read_text("utf-8").replace("\n[consent]", f"\n[[equivalent]]\n{row}\n\n[consent]"), "utf-8")
    with pytest.raises(SchemaError) as error:
        read_registry(tmp_path, registry.types)
    assert said in str(error.value)


def test_a_code_is_found_by_its_equivalents_where_the_element_says_so() -> None:
    schemas = packaged()
    kind = schemas.registry["Observation"]
    assert kind.equivalents["code"]["http://loinc.org|99504-3"].where


def measured(identifier: str, moment: str, value: str, unit: str) -> Found:
    quantity = f'{{"value": {value}, "system": "http://unitsofmeasure.org", "code": "{unit}"}}'
    return Found(f'{{"id": "{identifier}", "effectiveDateTime": "{moment}", "valueQuantity": {quantity}}}'.encode(), "match")


def test_what_has_no_weight_or_height_has_no_index() -> None:
    height = measured("h", "2026-11-01", "2", "m")
    for other in (
        measured("w", "2026-11-02", "80", "st"),
        measured("w", "2026-11-02", "0", "kg"),
        Found(b'{"id": "w"}', "match"),
    ):
        assert body_mass_indexes([other], [height]) == []
    assert body_mass_indexes([measured("w", "2026-11-02", "80", "kg")], [measured("h", "2026-11-01", "2", "px")]) == []
    (index,) = body_mass_indexes([measured("w", "2026-11-02", "80000", "g")], [height])
    assert b'"value":20.0,' in index.body
