"""`gateway simulate` at the terminal.

Knows: its options, where tokens are read from, the progress bar. Must not know: what is pushed.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from gateway.sandbox.glucose import Sensor, VirtualPatient
from gateway.sandbox.simulate import Account, SimulationError, require_address, simulate
from gateway.sandbox.uploads import Wearer

_DEMO = Account("8ba-camille", "demo-app")
_STEPS = (1, 5, 15)


def simulate_command(
    url: Annotated[str, typer.Argument(help="The FHIR address of a gateway.")] = "http://127.0.0.1:8000/fhir",
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="A line for each patient: id, space, token of their app (- reads standard input). Default: the demo's."
        ),
    ] = None,
    days: Annotated[int, typer.Option(help="How many days.", min=1, max=400)] = 14,
    until: Annotated[datetime | None, typer.Option(help="The first day that is not sent any more (default: today).")] = None,
    step: Annotated[int, typer.Option(help="How often the sensors measure, in minutes: 1, 5 or 15.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same readings.")] = 1,
) -> None:
    """Push what virtual people's sensors show, as their phones would: late, twice, corrected, from two phones at once."""
    if step not in _STEPS:
        raise SimulationError("sensors measure every 1, 5 or 15 minutes")
    require_address(url)
    accounts = read_accounts(tokens)
    last = until or datetime.now(UTC)
    end = datetime(last.year, last.month, last.day, tzinfo=UTC)
    start = end - timedelta(days=days)
    wearers = [(Wearer(one.patient, Sensor(VirtualPatient(seed, n), step)), one) for n, one in enumerate(accounts)]
    length = 2 * len(wearers) * days * 86_400
    with typer.progressbar(length=length, label="readings", file=sys.stderr) as bar:
        summary = simulate(url, wearers, start, end, bar.update)
    for line in summary.lines():
        print(line)  # noqa: T201 (the result of the command)
    if summary.receipts["refused"]:
        raise typer.Exit(1)


def read_accounts(file: Path | None) -> list[Account]:
    """The patients and tokens that a file lists. Raises SimulationError for a line that is none."""
    if file is None:
        return [_DEMO]
    text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    found: list[Account] = []
    for n, line in enumerate(text.splitlines(), start=1):
        match line.split():
            case [patient, token]:
                found.append(Account(patient.removeprefix("Patient/"), token))
            case []:
                continue
            case _:
                raise SimulationError(f"line {n} of the tokens is not: id, space, token")
    if not found:
        raise SimulationError("no tokens are given")
    return found
