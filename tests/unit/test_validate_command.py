"""`gateway validate`: files, checked as the gateway checks what is created, with no server and no database."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.__main__ import app

EXAMPLES = Path(__file__).resolve().parents[2] / "schemas" / "examples"
READING = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "99504-3"}]},
    "subject": {"reference": "Patient/x"},
    "effectiveDateTime": "2026-03-01T08:00:00Z",
    "valueQuantity": {"value": 104, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GATEWAY_MONGO")]:
        monkeypatch.delenv(name)


def run(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["validate", *arguments])
    return ended.exit_code, ended.output


def test_a_good_resource_is_good(tmp_path: Path) -> None:
    file = tmp_path / "reading.json"
    file.write_text(json.dumps(READING))
    assert run(str(file)) == (0, f"{file}: good\n")


def test_everything_wrong_is_told_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "reading.json"
    file.write_text(json.dumps({**READING, "status": "purring", "kitten": 1, "valueQuantity": {"value": "a lot"}}))
    status, output = run(str(file))
    assert status == 1
    assert f"{file}: refused" in output
    for place in ("Observation.status", "Observation.kitten", "Observation.value"):
        assert place in output
    assert "a lot" not in output


def test_a_profile_that_is_asked_for_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "reading.json"
    file.write_text(json.dumps({**READING, "valueQuantity": {**READING["valueQuantity"], "unit": "kg", "code": "kg"}}))  # type: ignore[dict-item]
    profile = "http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-sensor-reading-mass-per-volume"
    assert run(str(file), "--profile", profile)[0] == 1


def test_bundles_xml_and_ndjson_are_read(tmp_path: Path) -> None:
    entry = {"resource": {**READING, "status": "purring"}, "request": {"method": "POST", "url": "Observation"}}
    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [entry]}))
    assert "Bundle.entry[0].resource.status" in run(str(bundle))[1]
    xml = tmp_path / "patient.xml"
    xml.write_text('<Patient xmlns="http://hl7.org/fhir"><active value="yes"/></Patient>')
    assert "Patient.active" in run(str(xml))[1]
    lines = tmp_path / "two.ndjson"
    lines.write_text(f"{json.dumps(READING)}\n\n{json.dumps({**READING, 'status': 'purring'})}\n")
    status, output = run(str(lines))
    assert (status, f"{lines}:1: good" in output, f"{lines}:3: refused" in output) == (1, True, True)


def test_what_is_no_resource_is_refused_like_all_else(tmp_path: Path) -> None:
    file = tmp_path / "none.json"
    for text in ("", "{", "[]", '{"resourceType": "Kitten"}', "[" * 10_000, "\ufeff{}"):
        file.write_text(text)
        status, output = run(str(file))
        assert (status, "refused" in output) == (1, True), text


def test_outcomes_for_machines(tmp_path: Path) -> None:
    file = tmp_path / "reading.json"
    file.write_text(json.dumps({**READING, "status": "purring"}))
    status, output = run(str(file), "--json")
    outcome = json.loads(output)
    assert (status, outcome["resourceType"]) == (1, "OperationOutcome")
    assert outcome["issue"][0]["expression"] == ["Observation.status"]


def test_the_examples_of_this_repository_are_good() -> None:
    writable = [str(file) for file in sorted(EXAMPLES.glob("*.json")) if file.stem not in ("AuditEvent", "Binary")]
    status, output = run(*writable)
    assert (status, output.count(": good")) == (0, len(writable)), output
