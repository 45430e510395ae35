"""`gateway reindex`: the index values of what is stored already, renewed from the type's file, while others are served.

Knows: the command and how its progress is told. Must not know: where values lie, how they are read.
"""

import asyncio
import sys
from typing import Annotated

import typer

from gateway.app import attached
from gateway.cli.operator import Operator
from gateway.exchange.reindexing import reindex
from gateway.settings import read_settings
from gateway.telemetry import set_up_logging

_TOLD_EVERY = 10_000


def reindex_command(
    type_name: Annotated[str, typer.Argument(metavar="TYPE", help="Observation, Device …: the type whose file has changed.")],
    operator: Operator,
    share: Annotated[float, typer.Option(min=0.01, max=1.0, help="Of the time, how much it may work.")] = 0.5,
) -> None:
    """Renew the index values of all resources of a type, as its file says now. What broke off goes on where it was."""
    settings = read_settings()
    set_up_logging("warning")

    async def run() -> tuple[int, int]:
        async with attached(settings) as gateway:
            return await reindex(gateway, type_name, operator, _Progress().tell, share=share)

    looked_at, renewed = asyncio.run(run())
    print(f"{type_name}: {looked_at} versions looked at, {renewed} had other index values")  # noqa: T201 (the result)


class _Progress:
    """Says now and then how far it came, on standard error."""

    def __init__(self) -> None:
        self._told = 0

    def tell(self, looked_at: int, renewed: int) -> None:
        if looked_at - self._told >= _TOLD_EVERY:
            self._told = looked_at
            print(f"  {looked_at} looked at, {renewed} renewed …", file=sys.stderr, flush=True)  # noqa: T201
