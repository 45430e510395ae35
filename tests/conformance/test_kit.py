"""The kit on servers of known quality: the gateway, the gateway with one fault, and a small server that is not ours."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest
from fhir.resources.R4B import testreport
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.conformance.discover import describe_sandbox
from gateway.conformance.run import KitError, run_checks
from gateway.conformance.target import Target, TargetError, read_target
from gateway.conformance.verdicts import Report, compare, read_report
from tests.conformance.forked import Kit, loaded_kit
from tests.conformance.seeded import FAULTS
from tests.process import free_port, listening


@pytest.fixture(scope="module")
def description(site: str) -> str:
    return describe_sandbox(f"{site}/sandbox/conformance.toml")


@pytest.fixture(scope="module")
def reports(site: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    """`gateway conformance server` on the whole gateway: how it ended, what it said, its reports."""
    folder = tmp_path_factory.mktemp("reports")
    ended = CliRunner().invoke(
        app, ["conformance", "server", f"{site}/fhir", "--sandbox", "--report", str(folder), "--processes", "3"]
    )
    return ended.exit_code, ended.output, folder


@pytest.mark.requirement("CONF-01")
def test_the_gateway_passes_its_own_kit(reports: tuple[int, str, Path]) -> None:
    status, output, folder = reports
    report = read_report(folder / "report.json")
    assert [(v.check, v.outcome, v.reason) for v in report.verdicts if v.outcome != "passed"] == []
    assert len(report.verdicts) > 80
    assert status == 0
    assert "conformant" in output


def test_reports_hold_no_token(reports: tuple[int, str, Path], description: str) -> None:
    tokens = re.findall(r'= "(demo-[a-z-]+|eyJ[^"]+)"', description)
    assert tokens
    for file in reports[2].iterdir():
        text = file.read_text("utf-8")
        assert [token for token in tokens if token in text] == [], file.name


def test_each_kind_of_report_is_what_its_readers_expect(reports: tuple[int, str, Path]) -> None:
    folder = reports[2]
    report = read_report(folder / "report.json")
    suites = ET.parse(folder / "junit.xml").getroot()
    assert len(suites.findall(".//testcase")) == len(report.verdicts)
    told = testreport.TestReport.model_validate_json((folder / "TestReport.json").read_text("utf-8"))
    assert told.result == "pass"
    assert len(told.test) == len(report.verdicts)
    badge = json.loads((folder / "badge.json").read_text("utf-8"))
    assert badge["schemaVersion"] == 1
    assert badge["color"] == "brightgreen"
    page = (folder / "index.html").read_text("utf-8")
    assert all(verdict.rule in page for verdict in report.verdicts)


def test_a_consent_taken_back_before_is_given_for_the_run_and_taken_back_after(site: str, description: str) -> None:
    target = read_target(f"{site}/fhir", description)
    url, bearer = f"{target.base}/Consent/{target.consent}", {"authorization": f"Bearer {target.tokens['owner']}"}

    def set_status(status: str) -> None:
        changed = {**httpx.get(url, headers=bearer).json(), "status": status}
        assert httpx.put(url, headers={**bearer, "content-type": "application/fhir+json"}, json=changed).status_code == 200

    set_status("inactive")
    try:
        report = run_checks(target, ["EXT-06", "AUD-01"], 1, "test")
        assert httpx.get(url, headers=bearer).json()["status"] == "inactive"
    finally:
        set_status("active")
    assert {verdict.rule: (verdict.outcome, verdict.reason) for verdict in report.verdicts if verdict.outcome != "passed"} == {}
    assert {verdict.rule for verdict in report.verdicts} >= {"EXT-06", "AUD-01"}


@pytest.fixture(scope="module")
def kit() -> Iterator[Kit]:
    with loaded_kit() as found:
        yield found


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name: str, site: str, description: str, kit: Kit) -> None:
    rule = FAULTS[name][1]
    report = kit.run(read_target(f"{site}/broken/{name}/fhir", description), [rule])
    failed = [verdict for verdict in report.verdicts if verdict.outcome == "failed"]
    assert failed, [(verdict.outcome, verdict.reason) for verdict in report.verdicts]
    assert {verdict.rule for verdict in failed} == {rule}
    assert all(verdict.reason and verdict.exchanges for verdict in failed)


def test_there_are_enough_faults_and_every_group_has_some() -> None:
    assert len(FAULTS) >= 30
    groups = {"CORE", "BUN", "SRCH", "DOC", "MES", "CGM", "EXT", "SEC", "CON", "AUD"}
    assert {rule.split("-")[0] for _, rule in FAULTS.values()} == groups


@pytest.fixture(scope="module")
def small() -> Any:
    """The report on a server that is not ours."""
    port = free_port()
    with listening(["tests.conformance.small_server", str(port)], port):
        yield run_checks(Target(f"http://127.0.0.1:{port}/base", is_open=True), (), 1, "test")


RIGHT = {"CORE-01", "CORE-09", "CORE-16", "CORE-18", "CORE-19", "SRCH-14", "SRCH-02"}
WRONG = {"CORE-03", "CORE-10", "CORE-11", "CORE-15", "CORE-14", "SRCH-04"}
ABSENT = {"CORE-04", "CORE-07", "BUN-01", "BUN-07", "CGM-02", "EXT-05", "SEC-05", "AUD-01"}


def test_a_small_server_gets_the_verdicts_it_deserves(small: Report) -> None:
    outcomes: dict[str, set[str]] = {}
    for verdict in small.verdicts:
        outcomes.setdefault(verdict.rule, set()).add(verdict.outcome)
    assert [v for v in small.verdicts if v.outcome == "broken"] == []
    assert {rule for rule in RIGHT if outcomes[rule] != {"passed"}} == set()
    assert {rule for rule in WRONG if "failed" not in outcomes[rule]} == set()
    assert {rule for rule in ABSENT if outcomes[rule] != {"not applicable"}} == set()
    assert not small.is_conformant


def test_two_reports_are_compared_regressions_first(reports: tuple[int, str, Path], small: Report, tmp_path: Path) -> None:
    small.write(tmp_path / "small.json")
    differences = compare(read_report(reports[2] / "report.json"), small)
    assert differences[0].is_regression
    assert not differences[-1].is_regression
    before, after = str(reports[2] / "report.json"), str(tmp_path / "small.json")
    assert CliRunner().invoke(app, ["conformance", "compare", before, after]).exit_code == 1
    assert CliRunner().invoke(app, ["conformance", "compare", after, after]).exit_code == 0
    (tmp_path / "none.json").write_text("[]")
    assert CliRunner().invoke(app, ["conformance", "compare", str(tmp_path / "none.json"), after]).exit_code == 2


def test_what_cannot_be_judged_is_said(site: str, tmp_path: Path) -> None:
    with pytest.raises(KitError, match="groups are: audit, bundles"):
        run_checks(Target(f"{site}/fhir"), ["kittens"], 1, "test")
    with pytest.raises(TargetError, match=r"tokens\.nobody: not known"):
        read_target(site, '[tokens]\nnobody = "x"')
    with pytest.raises(TargetError, match=r"measures\.patients: this is missing"):
        read_target(site, '[measures]\nbase = "m"\nid_token = "x"')
    with pytest.raises(TargetError, match=r"measures\.id_token: this is no JWT that has a claim 'sub'"):
        read_target(site, '[measures]\nbase = "m"\nid_token = "x.y.z"\npatients = "urn:oid:1.2"')
    with pytest.raises(TargetError, match="no TOML"):
        read_target(site, "?")
    with pytest.raises(TargetError, match="patient: this is of another kind"):
        read_target(site, "patient = 1")
    with pytest.raises(TargetError, match="no sandbox"):
        describe_sandbox(f"{site}/nothing")
    described = tmp_path / "server.toml"
    described.write_text('patient = "8ba-camille"\n[tokens]\nowner = "wrong"\n')
    ended = CliRunner().invoke(
        app, ["conformance", "server", f"{site}/fhir", "--with", str(described), "--only", "CORE-03", "--processes", "1"]
    )
    assert ended.exit_code == 1
    assert "401" in ended.output


def test_a_server_that_is_not_there_is_no_conformant_one() -> None:
    report = run_checks(Target(f"http://127.0.0.1:{free_port()}/fhir", is_open=True), ["CORE-01"], 1, "test")
    assert [verdict.outcome for verdict in report.verdicts] == ["broken"]
    assert not report.is_conformant
    assert httpx.ConnectError.__name__ in report.verdicts[0].reason
