"""`gateway erase-patient` and `gateway withdrawn`: whole records, by an operator at this machine.

Knows: the commands and how their results are told. Must not know: where anything of a record lies.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from gateway.app import build_gateway, read_schemas, running
from gateway.exchange.gateway import Gateway
from gateway.exchange.records import KEPT, erase_patient, open_withdrawn
from gateway.problem import Problem
from gateway.settings import read_settings
from gateway.store.ids import Ids
from gateway.telemetry import set_up_logging

T = TypeVar("T")

_Operator = Annotated[str, typer.Option("--operator", help="Who does this: the name that the audit keeps.")]


def erase(
    patient: Annotated[str, typer.Argument(help="Id of the Patient.")],
    operator: _Operator,
    confirm: Annotated[str | None, typer.Option(help="The id once more, in place of being asked for it.")] = None,
) -> None:
    """Erase a record for good: destroy its key, remove every resource with its history, and all that lets people into it."""
    typed = confirm if confirm is not None else typer.prompt(f"Everything of Patient/{patient} will be gone. Type the id again")
    if typed != patient:
        raise Problem("value", "that is not the id: nothing was erased")
    erased = _run(lambda gateway: erase_patient(gateway, patient, operator))
    for name, count in sorted(erased.items()):
        _print(f"erased  {count:>7}  {name}")
    for line in KEPT:
        _print(f"kept    {line}")


def withdrawn(
    reference: Annotated[str, typer.Argument(help="DocumentReference/id, as it was.")],
    operator: _Operator,
) -> None:
    """Show what was withdrawn as of the wrong patient, a JSON object per version. The record's log says that it was shown."""
    for version in _run(lambda gateway: open_withdrawn(gateway, reference, operator)):
        _print(json.dumps(version, ensure_ascii=False))


def _run(work: Callable[[Gateway], Awaitable[T]]) -> T:
    settings = read_settings()
    set_up_logging("warning")

    async def run() -> T:
        gateway = build_gateway(settings, read_schemas(settings.schemas), Ids(settings.secret))
        async with running(gateway):
            return await work(gateway)

    return asyncio.run(run())


def _print(text: str) -> None:
    print(text)  # noqa: T201 (the result of the command)
