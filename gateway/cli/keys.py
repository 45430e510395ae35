"""`gateway keys`: the keys that the authorization server signs with.

Knows: the command. Must not know: what a key is.
"""

import asyncio
from typing import Annotated

import typer

from gateway.app import attached
from gateway.oauth.keys import SigningKeys
from gateway.settings import read_settings

keys_app = typer.Typer(no_args_is_help=True, help="The keys that the authorization server signs with.")


@keys_app.command("rotate")
def rotate(
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Sign with the new key at once and publish no former one any longer.")
    ] = False,
) -> None:
    """Make the next signing key and print its id. It signs in a day, when every client may have fetched it."""

    async def make() -> str:
        async with attached(read_settings()) as gateway:
            keys = SigningKeys(gateway.mongo, gateway.sealer, gateway.clock)
            return await keys.rotate(compromised=compromised)

    print(asyncio.run(make()))  # noqa: T201 (the result of the command)


@keys_app.callback()
def keys() -> None:
    """The keys that the authorization server signs with."""
