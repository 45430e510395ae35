"""`gateway keys`: the keys that the authorization server signs with, and the one that wraps the keys of patients.

Knows: the commands. Must not know: what a key is.
"""

import asyncio
from typing import Annotated

import typer

from gateway.app import attached
from gateway.cli.operator import Operator
from gateway.exchange.operated import operated
from gateway.exchange.patient_keys import MasterKey, rewrap
from gateway.oauth.keys import SigningKeys
from gateway.settings import SettingsError, read_settings

keys_app = typer.Typer(no_args_is_help=True, help="The keys that tokens are signed and patients' keys wrapped with.")


@keys_app.command("rotate")
def rotate(
    operator: Operator,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Sign with the new key at once and publish no former one any longer.")
    ] = False,
) -> None:
    """Make the next signing key and print its id. It signs in a day, when every client may have fetched it."""

    async def make() -> str:
        async with attached(read_settings()) as gateway:
            keys = SigningKeys(gateway.mongo, gateway.sealer, gateway.clock)
            async with operated(gateway, operator, "keys", "rotate, compromised" if compromised else "rotate"):
                return await keys.rotate(compromised=compromised)

    print(asyncio.run(make()))  # noqa: T201 (the result of the command)


@keys_app.command("rewrap")
def rewrap_(operator: Operator) -> None:
    """Wrap with GATEWAY_MASTER_KEY the keys of patients that GATEWAY_FORMER_MASTER_KEY wrapped; it is needed no more then."""
    settings = read_settings()
    if not settings.former_master_key:
        raise SettingsError("GATEWAY_FORMER_MASTER_KEY: is not set: there is nothing to be rewrapped")

    async def work() -> int:
        async with attached(settings) as gateway, operated(gateway, operator, "keys", "rewrap"):
            return await rewrap(gateway.mongo, MasterKey(settings.wrapping_secret, settings.former_master_key))

    print(f"{asyncio.run(work())} keys rewrapped")  # noqa: T201 (the result of the command)


@keys_app.callback()
def keys() -> None:
    """The keys that the authorization server signs with."""
