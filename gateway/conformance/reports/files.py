"""The report as files: JUnit XML for build servers, a FHIR TestReport, a badge, a page for people.

Knows: their formats. Must not know: how verdicts come about.
"""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from jinja2 import Environment, PackageLoader, select_autoescape

from gateway.conformance.verdicts import OUTCOMES, Report, Verdict

_RESULTS = {"passed": "pass", "failed": "fail", "broken": "error", "not reached": "skip", "not applicable": "skip"}
_SKIPPED = ("not applicable", "not reached")
_FORBIDDEN = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF))  # what XML 1.0 cannot say


def junit(report: Report) -> bytes:
    """JUnit XML: a test suite each group."""
    root = ET.Element("testsuites", name="gateway conformance", time=str(report.seconds))
    for group in sorted({verdict.group for verdict in report.verdicts}):
        rows = [verdict for verdict in report.verdicts if verdict.group == group]
        counts = {"tests": len(rows)}
        for name, outcomes in (("failures", ("failed",)), ("errors", ("broken",)), ("skipped", _SKIPPED)):
            counts[name] = sum(verdict.outcome in outcomes for verdict in rows)
        suite = ET.SubElement(root, "testsuite", {"name": group, **{name: str(count) for name, count in counts.items()}})
        for verdict in rows:
            _case(suite, verdict)
    found: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return found


def _case(suite: ET.Element, verdict: Verdict) -> None:
    name = f"{verdict.rule} {verdict.text}"
    case = ET.SubElement(suite, "testcase", classname=verdict.group, name=name, time=str(verdict.seconds))
    reason = verdict.reason.translate(_FORBIDDEN)
    if verdict.outcome in _SKIPPED:
        ET.SubElement(case, "skipped", message=f"{verdict.outcome}: {reason}")
    elif verdict.outcome != "passed":
        element = ET.SubElement(case, "failure" if verdict.outcome == "failed" else "error", message=reason.split("\n")[0])
        shown = "\n\n".join(f"{said.curl}\n\n{said.request}\n\n{said.answer}" for said in verdict.exchanges[-2:])
        element.text = f"{verdict.strength}, {verdict.source} {verdict.link}\n{reason}\n\n{shown}".translate(_FORBIDDEN)


def test_report(report: Report) -> dict[str, Any]:
    """FHIR TestReport (https://hl7.org/fhir/R4/testreport.html)."""
    checked = report.count("passed") + report.count("failed") + report.count("broken")
    server = {"type": "server", "uri": report.base, **({"display": report.software} if report.software else {})}
    engine = {"type": "test-engine", "uri": "urn:fhir-document-gateway:conformance", "display": f"gateway {report.kit}"}
    return {
        "resourceType": "TestReport",
        "name": "gateway conformance",
        "status": "completed" if report.is_finished else "stopped",
        "testScript": {"display": "the rules of the gateway's conformance kit"},
        "result": "pass" if report.is_conformant else "fail",
        "score": round(100 * report.count("passed") / checked, 2) if checked else 0,
        "tester": f"gateway {report.kit}",
        "issued": report.time,
        "participant": [engine, server],
        "test": [_test(verdict) for verdict in report.verdicts],
    }


def _test(verdict: Verdict) -> dict[str, Any]:
    told = {"result": _RESULTS[verdict.outcome]}
    if verdict.reason:
        told["message"] = f"{verdict.outcome}: {verdict.reason}" if verdict.outcome in _SKIPPED else verdict.reason
    if verdict.link:
        told["detail"] = verdict.link
    return {"name": verdict.rule, "description": f"{verdict.strength}: {verdict.text}", "action": [{"assert": told}]}


def badge(report: Report) -> dict[str, Any]:
    """What a service of badges reads: label, message, colour."""
    rules = {verdict.rule for verdict in report.verdicts if verdict.outcome != "not applicable"}
    bad = {verdict.rule for verdict in report.verdicts if verdict.outcome in ("failed", "broken", "not reached")}
    message = f"{len(rules - bad)} of {len(rules)} rules"
    colour = ("yellow" if bad else "brightgreen") if report.is_conformant else "red"
    return {"schemaVersion": 1, "label": "FHIR conformance", "message": message, "color": colour}


def page(report: Report) -> str:
    """A page worth showing: what holds, what does not, and every exchange that shows it."""
    environment = Environment(loader=PackageLoader("gateway.conformance.reports", "."), autoescape=select_autoescape())
    groups = sorted({verdict.group for verdict in report.verdicts})
    return (
        environment.get_template("page.html")
        .render(
            report=report,
            outcomes=OUTCOMES,
            groups=[(group, [v for v in report.verdicts if v.group == group]) for group in groups],
        )
        .lstrip()
    )


def write_reports(report: Report, folder: Path) -> None:
    """Write all of them, and `report.json`, which `compare` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder / "report.json")
    (folder / "junit.xml").write_bytes(junit(report))
    (folder / "TestReport.json").write_text(json.dumps(test_report(report), indent=1, ensure_ascii=False), "utf-8")
    (folder / "badge.json").write_text(json.dumps(badge(report)), "utf-8")
    (folder / "index.html").write_text(page(report), "utf-8")
