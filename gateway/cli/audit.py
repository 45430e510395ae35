"""`gateway audit`: whether the audit holds, and what operators did at the machine.

Knows: the commands and how their results are told. Must not know: how chains are made.
"""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.app import attached
from gateway.problem import Problem
from gateway.settings import read_settings
from gateway.store.chain import Sealed, find_broken_link
from gateway.store.operated import find_operated

audit_app = typer.Typer(no_args_is_help=True, help="Verify the audit; list what operators did at the machine.")


@audit_app.command("verify")
def verify(
    log: Annotated[
        Path | None,
        typer.Option(help="A log of the gateway: the seals it tells of must all be there.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Walk every chain of the audit and name the first link that does not hold."""

    async def work() -> tuple[int, str | None]:
        async with attached(read_settings()) as gateway:
            return await find_broken_link(gateway.mongo, gateway.clock(), _logged_seals(log) if log else ())

    sound, broken = asyncio.run(work())
    if broken:
        raise Problem("exception", f"after {sound} sound events: {broken}")
    print(f"{sound} events, every link holds")  # noqa: T201 (the result of the command)


@audit_app.command("operators")
def operators(
    days: Annotated[int, typer.Option(help="How far back.", min=1, max=36_500)] = 30,
) -> None:
    """List what was done by commands at the machine: when, who, what, to whom."""

    async def work() -> list[dict[str, Any]]:
        async with attached(read_settings()) as gateway:
            return await find_operated(gateway.mongo, gateway.clock() - timedelta(days=days))

    for document in asyncio.run(work()):
        event = document["event"]
        said = [event["interaction"], *([event["reason"]] if "reason" in event else []), *event.get("entities", ())]
        line = f"{document['updated']:%Y-%m-%dT%H:%M:%SZ}  {event['client']}  {'  '.join(said)}"
        # (Names and logins are typed by whoever did it: none of them begins a line of its own.)
        print("".join(one if one.isprintable() else "?" for one in line))  # noqa: T201 (the result)


def _logged_seals(log: Path) -> Iterator[Sealed]:
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if '"audit.sealed"' in line:
                entry = json.loads(line[line.index("{") :])
                yield entry["writer"], entry["number"], entry["hash"]
