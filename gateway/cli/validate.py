"""`gateway validate`: what this gateway would say of a file, without a server and without a database.

Knows: files, and how issues are told. Must not know: what makes a resource valid: `$validate` does.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from gateway.access.access import Access, Caller
from gateway.app import build_gateway, read_schemas
from gateway.exchange.call import Call, Origin
from gateway.exchange.gateway import Gateway
from gateway.exchange.operations.validate import validate
from gateway.problem import Problem
from gateway.schemas import find_schemas
from gateway.settings import Settings
from gateway.store.ids import Ids

_ORIGIN = Origin("validate", None)
_NOWHERE = "mongodb://127.0.0.1:1/?connect=false"  # nothing is looked up
_SECRET = "validation keeps nothing, so nothing is sealed"  # noqa: S105 (none)
_BAD = ("fatal", "error")


def validate_files(
    files: Annotated[
        list[Path], typer.Argument(help="Resources or Bundles: JSON, XML, or NDJSON.", exists=True, dir_okay=False)
    ],
    profile: Annotated[str, typer.Option(help="Canonical URL of a profile to hold them to, besides those they claim.")] = "",
    base: Annotated[str, typer.Option(help="FHIR base address that they are meant for.")] = "http://127.0.0.1:8000/fhir",
    as_json: Annotated[bool, typer.Option("--json", help="Print an OperationOutcome for each, a line each.")] = False,
) -> None:
    """Say everything that is wrong with resources, as the gateway would when they are created. Ends with 1 if one is bad."""
    outcomes = asyncio.run(_validate_all(base, files, profile))
    for place, outcome in outcomes:
        print(json.dumps(outcome, ensure_ascii=False) if as_json else _tell(place, outcome))  # noqa: T201 (the command's result)
    if any(issue["severity"] in _BAD for _, outcome in outcomes for issue in outcome["issue"]):
        raise typer.Exit(1)


async def _validate_all(base: str, files: list[Path], profile: str) -> list[tuple[str, dict[str, Any]]]:
    schemas = find_schemas()
    settings = Settings(_NOWHERE, "none", "motor", base.rstrip("/"), _SECRET, "", "error", schemas)
    gateway = build_gateway(settings, read_schemas(schemas), Ids(settings.secret))
    try:
        return [(place, await _validate(gateway, body, profile)) for file in files for place, body in _resources(file)]
    finally:
        await gateway.mongo.close()


async def _validate(gateway: Gateway, body: bytes, profile: str) -> dict[str, Any]:
    caller = Caller.operator("validate", "validate", gateway.scopes("system/*.cruds"), "validate")
    access = Access(caller, gateway.registry, gateway.policy, gateway.clock())
    try:
        sent = gateway.xml.read(body) if body.lstrip()[:1] == b"<" else body
        gateway.codec.check_body(sent)
        asked = (("profile", profile),) if profile else ()
        call = Call("validate", gateway.codec.peek_type(sent), _ORIGIN, parameters=asked, body=sent)
        answer, _ = await validate(gateway, access, call)
        outcome: dict[str, Any] = msgspec.json.decode(answer.body or b"{}")
    except Problem as problem:
        return problem.outcome()
    return outcome


def _resources(file: Path) -> Iterator[tuple[str, bytes]]:
    """The resources of a file, each with where it stands."""
    if file.suffix != ".ndjson":
        yield str(file), file.read_bytes()
        return
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if line.strip():
            yield f"{file}:{number}", line


def _tell(place: str, outcome: dict[str, Any]) -> str:
    issues = [issue for issue in outcome["issue"] if issue["severity"] != "information"]
    told = [f"{place}: {'refused' if any(issue['severity'] in _BAD for issue in issues) else 'good'}"]
    for issue in issues:
        where = ", ".join(issue.get("expression", []))
        told.append(f"  {issue['severity']}  {where or '-'}  {issue.get('diagnostics', issue['code'])}")
    return "\n".join(told)
