"""`gateway apps`: the service catalogue at the terminal.

Knows: the commands and how an entry is told. Must not know: what follows from a change.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from gateway.app import attached, read_schemas
from gateway.cli.operator import Operator
from gateway.exchange.catalogue import (
    Entry,
    add_client,
    change_client,
    find_entry,
    list_entries,
    rotate_secret,
    set_state,
)
from gateway.exchange.client import Client, read_client
from gateway.exchange.gateway import Gateway
from gateway.oauth.key_sets import require_keys
from gateway.problem import Problem
from gateway.settings import read_settings

T = TypeVar("T")

apps_app = typer.Typer(no_args_is_help=True, help="The catalogue of apps and services that may ask for tokens.")

_File = Annotated[Path, typer.Argument(help="What the client is, in TOML.", exists=True, dir_okay=False)]
_Client = Annotated[str, typer.Argument(help="Client id.")]


_Note = Annotated[str, typer.Option("--note", help="Why, or what shows it; kept in the entry.")]


@apps_app.command("add")
def add(file: _File, operator: Operator) -> None:
    """Register a client as a draft. A secret, where it has one, is printed: this is the one time it can be seen."""
    client = _read(file)
    secret = _run(lambda gateway: add_client(gateway, client, operator))
    _print(f"{client.client} is a draft")
    if secret is not None:
        _print(f"secret: {secret}")


@apps_app.command("change")
def change(file: _File, operator: Operator) -> None:
    """Describe a client anew. Another purpose, controller or type of data makes it a draft, and ends its tokens."""
    client = _read(file)
    entry = _run(lambda gateway: change_client(gateway, client, operator))
    _print(f"{client.client} is {entry.state}, edition {entry.edition}")


@apps_app.command("list")
def list_() -> None:
    """List the catalogue: client id, state, kind, name."""
    for entry in _run(list_entries):
        _print(f"{entry.client.client}  {entry.state}  {entry.client.kind}  {entry.client.name}")


@apps_app.command("show")
def show(client: _Client) -> None:
    """Show one entry, as JSON."""
    entry = _run(lambda gateway: find_entry(gateway, client))
    if entry is None:
        raise Problem("not-found", f"there is no client '{client}'")
    _print(msgspec.json.format(msgspec.json.encode(_told(entry)), indent=2).decode())


@apps_app.command("tested")
def tested(client: _Client, note: _Note, operator: Operator) -> None:
    """Say of a draft that it has shown that it works; `--note` names the report."""
    _set(client, "tested", note, operator)


@apps_app.command("reference")
def reference(client: _Client, operator: Operator, note: _Note = "") -> None:
    """Let a tested (or suspended) client have tokens."""
    _set(client, "referenced", note, operator)


@apps_app.command("suspend")
def suspend(client: _Client, operator: Operator, note: _Note = "") -> None:
    """Refuse a client from its next request on. When this returns, none of its tokens works any more."""
    _set(client, "suspended", note, operator)


@apps_app.command("rotate-secret")
def rotate(
    client: _Client,
    operator: Operator,
    keep_hours: Annotated[int, typer.Option(help="For how long the former secret holds on.", min=0, max=720)] = 0,
) -> None:
    """Give a client another secret and print it: this is the one time it can be seen."""
    _print(_run(lambda gateway: rotate_secret(gateway, client, timedelta(hours=keep_hours), operator)))


def _read(file: Path) -> Client:
    schemas = read_schemas(read_settings().schemas)
    client = read_client(file, schemas.registry, schemas.policy)
    require_keys(file, client.keys)
    return client


def _set(client: str, state: str, note: str, operator: str) -> None:
    _run(lambda gateway: set_state(gateway, client, state, note, operator))
    _print(f"{client} is {state}")


def _told(entry: Entry) -> dict[str, object]:
    described = msgspec.to_builtins(entry.client)
    states = [{name: str(value) for name, value in state.items() if value} for state in entry.states]
    return {**described, "state": entry.state, "edition": entry.edition, "states": states, "secrets": len(entry.secrets)}


def _run(work: Callable[[Gateway], Awaitable[T]]) -> T:
    async def run() -> T:
        async with attached(read_settings()) as gateway:
            return await work(gateway)

    return asyncio.run(run())


def _print(text: str) -> None:
    print(text)  # noqa: T201 (the result of the command)
