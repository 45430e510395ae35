"""`gateway conformance`: the kit at the terminal.

Knows: the commands, where the description of a server comes from. Must not know: what is checked.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import urljoin, urlsplit

import typer
from rich.console import Console

from gateway import __version__
from gateway.conformance.discover import describe_sandbox
from gateway.conformance.exam.credentials import Credentials
from gateway.conformance.exam.roles import ROLES
from gateway.conformance.exam.run import ExamError, hold_exam
from gateway.conformance.exam.scenes import Scene
from gateway.conformance.reports.files import write_reports
from gateway.conformance.reports.terminal import print_differences, print_report
from gateway.conformance.run import KitError, run_checks
from gateway.conformance.target import Target, TargetError, read_target
from gateway.conformance.verdicts import Report, compare, read_report

conformance_app = typer.Typer(no_args_is_help=True, help="The conformance kit: is software right?")


@conformance_app.command("server")
def server(
    base: Annotated[str, typer.Argument(metavar="URL", help="FHIR base address of the server.")],
    only: Annotated[
        list[str] | None, typer.Option("--only", "--group", "--id", help="A rule (CORE-03) or a group (core); repeatable.")
    ] = None,
    described: Annotated[
        Path | None, typer.Option("--with", help="TOML: tokens and patient of the server.", exists=True, dir_okay=False)
    ] = None,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="It is a `gateway demo`: it says itself who is who.")] = False,
    open_: Annotated[bool, typer.Option("--open", help="The server asks for no tokens.")] = False,
    report: Annotated[Path | None, typer.Option(help="Folder for the reports (HTML, JUnit, TestReport, badge).")] = None,
    processes: Annotated[int, typer.Option(help="Checks at a time.", min=1, max=64)] = 4,
) -> None:
    """Check a FHIR server, of whoever's making. Ends with 1 if a SHALL fails."""
    console = Console()
    try:
        target = _target(base, described, sandbox=sandbox, is_open=open_)
        found = run_checks(target, only or (), processes, __version__)
    except (KitError, TargetError) as error:
        _fail(str(error))
    _conclude(found, report, console)


@conformance_app.command("client")
def client(
    role: Annotated[str, typer.Argument(help="pushing-app, document-producer, document-consumer or external-service.")],
    sandbox: Annotated[str, typer.Option(help="FHIR base address of the sandbox.")] = "http://127.0.0.1:8000/fhir",
    described: Annotated[
        Path | None,
        typer.Option("--with", help="TOML: tokens of the sandbox, if it is no `gateway demo`.", exists=True, dir_okay=False),
    ] = None,
    port: Annotated[int, typer.Option(help="Port for the client to speak to.", min=1, max=65_535)] = 9000,
    minutes: Annotated[float, typer.Option(help="How long it may take; Ctrl-C ends it earlier, and grades.", min=0.1)] = 10.0,
    report: Annotated[Path | None, typer.Option(help="Folder for the reports (HTML, JUnit, TestReport, badge).")] = None,
) -> None:
    """Examine a client: point it at this port in place of the sandbox, and let it work. Ends with 1 if it fails."""
    console = Console()
    try:
        target = _examined(sandbox, described)
        credentials = _credentials(role, target)
        site = f"http://127.0.0.1:{port}"
        told = [
            f"the client's address is now {site}{urlsplit(sandbox).path}",
            *_tell_credentials(site, role, target, credentials),
        ]
        console.print("\n".join(told), soft_wrap=True, highlight=False, markup=False)
        found = hold_exam(role, sandbox, port, 60 * minutes, __version__, partial(_tell_scene, console), credentials)
    except (ExamError, TargetError) as error:
        _fail(str(error))
    _conclude(found, report, console)


@conformance_app.command("compare")
def compare_(
    before: Annotated[Path, typer.Argument(help="report.json of the earlier run.", exists=True, dir_okay=False)],
    after: Annotated[Path, typer.Argument(help="report.json of the later run.", exists=True, dir_okay=False)],
) -> None:
    """Say what came out otherwise; what got worse first. Ends with 1 if something did."""
    try:
        differences = compare(read_report(before), read_report(after))
    except ValueError as error:
        _fail(str(error))
    print_differences(differences, Console())
    if any(one.is_regression for one in differences):
        raise typer.Exit(1)


def _examined(sandbox: str, described: Path | None) -> Target | None:
    """What is known of the sandbox; None where it does not say."""
    if described is not None:
        return read_target(sandbox, described.read_text("utf-8"))
    try:
        return read_target(sandbox, describe_sandbox(urljoin(sandbox, "/sandbox/conformance.toml")))
    except TargetError:
        return None


def _credentials(role: str, target: Target | None) -> Credentials | None:
    if target is None or role not in ROLES:
        return None
    token = target.exams.get(role, {}).get("token") or target.tokens.get(ROLES[role].token)
    return Credentials(token) if token is not None else None


def _tell_credentials(site: str, role: str, target: Target | None, credentials: Credentials | None) -> list[str]:
    if credentials is None:
        return ["the sandbox has no token for this exam: the client brings its own (or --with a description that has one)"]
    patient = (target.exams.get(role, {}).get("patient") or target.patient) if target is not None else None
    whose = f", for patient {patient}" if patient else ""
    return [
        f"its access token: {credentials.access_token}{whose}",
        f"its refresh token: {credentials.refresh_token}, at {site}/oauth/token (any client_id, no secret)",
    ]


def _tell_scene(console: Console, scene: Scene) -> None:
    console.print(f"{scene.rule}  {scene.text}", soft_wrap=True)


def _conclude(found: Report, folder: Path | None, console: Console) -> None:
    print_report(found, console)
    if folder is not None:
        write_reports(found, folder)
        console.print(f"reports: {folder / 'index.html'}", soft_wrap=True)
    if not found.is_conformant:
        raise typer.Exit(1)


def _target(base: str, described: Path | None, *, sandbox: bool, is_open: bool) -> Target:
    if sandbox:
        return read_target(base, describe_sandbox(urljoin(base, "/sandbox/conformance.toml")))
    text = described.read_text("utf-8") if described is not None else ""
    return read_target(base, text if not is_open or "open" in text else f"open = true\n{text}")


def _fail(text: str) -> NoReturn:
    Console(stderr=True).print(f"gateway: {text}", soft_wrap=True, markup=False, highlight=False)
    raise typer.Exit(2)


if __name__ == "__main__":  # (where nothing of the server is installed: python -m gateway.cli.conformance)
    conformance_app()
