"""Exams: a careful client and a naive one get the grades they deserve, on a real gateway behind the proxy."""

import io
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest
from fhir.resources.R4B import testreport
from rich.console import Console
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.conformance.discover import describe_sandbox
from gateway.conformance.exam.credentials import Credentials
from gateway.conformance.exam.exam import Exam
from gateway.conformance.exam.roles import ROLES
from gateway.conformance.exam.run import ExamError, hold_exam
from gateway.conformance.exam.sent import read_sent
from gateway.conformance.reports.files import write_reports
from gateway.conformance.reports.terminal import print_report
from gateway.conformance.target import Target, read_target
from gateway.conformance.verdicts import Report, compare
from tests.conformance.clients import Careful, Consumer, Naive, NaiveProducer, NaiveReader, Producer, Reader, submission
from tests.process import free_port


def examined(
    role: str, site: str, seconds: float, client: Callable[[str, Credentials], None], described: Target | None = None
) -> Report:
    """The report on a client that works while the exam is held; it is given the address to speak to and what it shows there."""
    port = free_port()
    target = described or read_target(site, describe_sandbox(f"{site}/sandbox/conformance.toml"))
    credentials = Credentials(target.exams.get(role, {}).get("token") or target.tokens[ROLES[role].token])
    worker = threading.Thread(target=client, args=(f"http://127.0.0.1:{port}/fhir", credentials), daemon=True)
    seen: list[str] = []
    starter = threading.Timer(0.7, worker.start)
    starter.start()
    report = hold_exam(role, f"{site}/fhir", port, seconds, "test", lambda scene: seen.append(scene.rule), credentials)
    starter.join()
    worker.join(30)
    assert seen
    return report


def grades(report: Report) -> dict[str, str]:
    return {verdict.rule: verdict.outcome for verdict in report.verdicts}


@pytest.fixture(scope="module")
def patient(site: str) -> str:
    return read_target(site, describe_sandbox(f"{site}/sandbox/conformance.toml")).patient or ""


def outcomes(report: Report) -> list[tuple[str, str, str]]:
    return [(verdict.rule, verdict.outcome, verdict.reason) for verdict in report.verdicts if verdict.outcome != "passed"]


def test_a_careful_app_passes(site: str, patient: str, tmp_path: Path) -> None:
    given: list[Credentials] = []

    def work(base: str, credentials: Credentials) -> None:
        given.append(replace(credentials))
        Careful(base, patient, credentials).push(24)

    report = examined("pushing-app", site, 90, work)
    assert outcomes(report) == []
    assert grades(report).keys() == {f"EXAM-{n:02}" for n in (*range(1, 13), 14)}
    assert report.is_conformant
    write_reports(report, tmp_path)
    text = "".join(file.read_text("utf-8") for file in tmp_path.iterdir())
    assert "demo-app" not in text
    assert given[0].access_token not in text


def test_a_naive_app_fails_where_it_should(site: str, patient: str, tmp_path: Path) -> None:
    report = examined("pushing-app", site, 15, lambda base, given: Naive(base, patient, given.access_token).push(16))
    told = grades(report)
    failed = {rule for rule, outcome in told.items() if outcome == "failed"}
    assert failed >= {f"EXAM-{n:02}" for n in (*range(1, 8), 10, 11, 12, 14)}
    assert not report.is_conformant
    reasons = {verdict.rule: verdict.reason for verdict in report.verdicts}
    assert "under another key" in reasons["EXAM-01"]
    assert "it came again after 0.0 s" in reasons["EXAM-12"] or "under another key" in reasons["EXAM-12"]
    assert reasons["EXAM-14"] == "it was sent again though it had been taken, as a correction"
    write_reports(report, tmp_path)
    assert "<pre></pre>" not in (tmp_path / "index.html").read_text("utf-8"), "no curl line sends again what a client sent"
    print_report(report, console := Console(file=io.StringIO(), width=200))
    assert "POST /fhir/Observation" in console.file.getvalue()


def test_a_careful_service_passes(site: str, patient: str) -> None:
    report = examined("external-service", site, 60, lambda base, given: Reader(base, patient, given).read(14))
    assert outcomes(report) == []
    assert grades(report).keys() == {f"EXAM-{n:02}" for n in (2, 3, 4, 6, 8, 9, 12, 13, 14, 15)}


def test_a_naive_service_fails_where_it_should(site: str, patient: str) -> None:
    report = examined("external-service", site, 15, lambda base, given: NaiveReader(base, patient, given.access_token).read(30))
    told = grades(report)
    failed = {rule for rule, outcome in told.items() if outcome == "failed"}
    assert failed >= {f"EXAM-{n:02}" for n in (2, 4, 6, 12, 13, 14, 15)}, told


def test_a_careful_producer_of_documents_passes_and_a_naive_one_does_not(site: str, patient: str) -> None:
    report = examined("document-producer", site, 60, lambda base, given: Producer(base, patient, given).deposit(12))
    assert outcomes(report) == []
    assert grades(report).keys() == {f"EXAM-{n:02}" for n in (1, 4, 5, 6, 7, 8, 10, 11, 12)}
    report = examined(
        "document-producer", site, 8, lambda base, given: NaiveProducer(base, patient, given.access_token).deposit(8)
    )
    assert {rule for rule, outcome in grades(report).items() if outcome == "failed"} >= {
        "EXAM-01",
        "EXAM-04",
        "EXAM-06",
        "EXAM-10",
    }


def test_a_careful_consumer_of_documents_passes(site: str, patient: str) -> None:
    target = read_target(f"{site}/fhir", describe_sandbox(f"{site}/sandbox/conformance.toml"))
    headers = {"authorization": f"Bearer {target.tokens['owner']}", "content-type": "application/fhir+json"}
    for _ in range(3):
        assert httpx.post(target.base, json=submission(patient), headers=headers).status_code == 200
    owner = replace(target, exams={"document-consumer": {"token": target.tokens["owner"]}})
    report = examined("document-consumer", site, 60, lambda base, given: Consumer(base, patient, given).fetch(20), owner)
    assert [one for one in outcomes(report) if one[:2] != ("EXAM-15", "not applicable")] == []
    assert report.is_conformant
    assert grades(report).keys() == {f"EXAM-{n:02}" for n in (2, 4, 5, 6, 8, 9, 12, 13, 15)}


def test_what_was_not_played_is_not_reached_and_no_pass(site: str, tmp_path: Path) -> None:
    report = hold_exam("document-producer", f"{site}/fhir", free_port(), 0.5, "test", lambda _: None)
    assert set(grades(report).values()) == {"not reached"}
    assert (report.is_conformant, report.conclusion) == (False, "not finished")
    passed = replace(report, verdicts=[replace(report.verdicts[0], outcome="passed"), *report.verdicts[1:]])
    assert not passed.is_conformant, "one scene of many is no pass"
    write_reports(passed, tmp_path)
    skipped = ET.parse(tmp_path / "junit.xml").getroot().findall(".//skipped")
    assert len(skipped) == len(report.verdicts) - 1
    assert skipped[0].get("message", "").startswith("not reached: the client sent too little")
    told = testreport.TestReport.model_validate_json((tmp_path / "TestReport.json").read_text("utf-8"))
    assert (told.status, told.result) == ("stopped", "fail")
    assert told.test[-1].action[0].assert_fhir.message.startswith("not reached: ")
    assert json.loads((tmp_path / "badge.json").read_text("utf-8"))["message"] == f"1 of {len(report.verdicts)} rules"
    page = (tmp_path / "index.html").read_text("utf-8")
    assert page.count('<span class="not-reached">not reached</span>') == len(report.verdicts) - 1
    print_report(passed, console := Console(file=io.StringIO(), width=200))
    assert "not reached" in console.file.getvalue()
    assert "not finished" in console.file.getvalue()
    done = replace(report, verdicts=[replace(verdict, outcome="passed") for verdict in report.verdicts])
    assert [one.is_regression for one in compare(done, passed)] == [True] * (len(report.verdicts) - 1)
    assert [one.is_regression for one in compare(passed, done)] == [False] * (len(report.verdicts) - 1)


def test_there_are_exams_for_roles_alone(site: str) -> None:
    with pytest.raises(ExamError, match="there is no exam for 'kitten'"):
        hold_exam("kitten", site, free_port(), 1, "test", lambda _: None)
    ended = CliRunner().invoke(app, ["conformance", "client", "kitten"])
    assert ended.exit_code == 2


def test_the_same_reading_is_known_whatever_it_is_called() -> None:
    def sent(body: bytes, **headers: str) -> tuple[str, str]:
        told = read_sent(0, "POST", "/fhir/Observation", headers, body)
        return told.content, told.key

    one, other = (
        b'{"resourceType":"Observation","identifier":[{"system":"a","value":"%d"}],"valueInteger":1}' % n for n in (1, 2)
    )
    assert sent(one)[0] == sent(other)[0]
    assert sent(one)[1] != sent(other)[1]
    assert sent(one, **{"idempotency-key": "x"}) == sent(other, **{"idempotency-key": "x"})
    assert sent(b'{"resourceType":"Observation","valueInteger":1}') == (sent(one)[0], "")
    assert sent(one.replace(b":1}", b":2}"))[0] != sent(one)[0]
    assert sent(b"no JSON")[0] != sent(b"no JSON either")[0]


@pytest.mark.parametrize("name", ROLES)
def test_each_role_knows_its_work(name: str) -> None:
    role = ROLES[name]
    assert Exam(role).begun() == []
    writes = read_sent(0, "POST", "/fhir", {}, b"{}")
    reads = read_sent(0, "GET", "/fhir/DocumentReference?patient=x", {}, b"")
    assert role.is_work(writes) == (name in ("pushing-app", "document-producer"))
    assert role.is_work(reads) == (name in ("document-consumer", "external-service"))
    assert not role.is_work(read_sent(0, "GET", "/fhir/metadata", {}, b""))
    assert not role.is_work(read_sent(0, "POST", "/oauth/token", {}, b""))
