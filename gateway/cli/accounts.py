"""`gateway accounts`: accounts of people who log in here.

Knows: the commands and how secrets are told, once. Must not know: how accounts are stored. What each did is in the audit.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from getpass import getpass
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import typer

from gateway.app import attached
from gateway.cli.operator import who
from gateway.exchange.accounts import add_account, lock_account, normal_login, reset_account
from gateway.exchange.gateway import Gateway
from gateway.exchange.operated import operated
from gateway.exchange.passwords import new_password, second_factor_text, second_factor_uri
from gateway.settings import Settings, read_settings
from gateway.store.accounts import end_sessions_of, find_accounts, find_references

T = TypeVar("T")

accounts_app = typer.Typer(no_args_is_help=True, help="Accounts of people who log in here.")

_Login = Annotated[str, typer.Argument(help="Login of the account.")]
_Generate = Annotated[bool, typer.Option("--generate", help="Think of a password and print it.")]
_By = Annotated[str, who("--by")]  # (`--operator` says what the account is)


@accounts_app.command("add")
def add(
    login: Annotated[str, typer.Argument(help="What the person types to log in.")],
    by: _By,
    reference: Annotated[
        list[str] | None, typer.Option(help="Patient/…, RelatedPerson/… or Practitioner/… that is this person; repeatable.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the pages call the person.")] = "",
    operator: Annotated[bool, typer.Option("--operator", help="Somebody who runs the gateway; has a second factor.")] = False,
    generate: _Generate = False,
) -> None:
    """Add an account. The password is read from standard input (an argument would end up in the shell's history)."""
    settings, password, references = read_settings(), _password(generate), tuple(reference or ())
    said = f"add {normal_login(login)}{' (operator)' if operator else ''}"

    async def work(gateway: Gateway) -> bytes | None:
        async with operated(gateway, by, "accounts", said, references):
            return await add_account(gateway, login, password, name, references, is_operator=operator)

    _tell_secrets(settings, login, password if generate else None, _run(work))


@accounts_app.command("list")
def list_() -> None:
    """List the accounts: login, who it is, whether it is locked."""
    for account in _run(lambda gateway: find_accounts(gateway.mongo)):
        whose = " ".join([*account["references"], *(["operator"] if account["operator"] else [])])
        print(f"{account['_id']}  {whose}{'  locked' if account['locked'] else ''}")  # noqa: T201 (the result of the command)


@accounts_app.command("lock")
def lock(login: _Login, by: _By) -> None:
    """Lock an account and end its sessions. `reset` unlocks it."""

    async def work(gateway: Gateway) -> None:
        whose = await find_references(gateway.mongo, normal_login(login))
        async with operated(gateway, by, "accounts", f"lock {normal_login(login)}", whose):
            await lock_account(gateway, login)

    _run(work)


@accounts_app.command("log-out")
def log_out(
    reference: Annotated[str, typer.Argument(help="Patient/…, RelatedPerson/… or Practitioner/…")],
    by: _By,
) -> None:
    """End every session of a person, wherever they logged in. What they approved for apps stays."""

    async def work(gateway: Gateway) -> int:
        async with operated(gateway, by, "accounts", "log-out", [reference]):
            return await end_sessions_of(gateway.mongo, reference)

    print(f"{_run(work)} sessions ended")  # noqa: T201 (the result of the command)


@accounts_app.command("reset")
def reset(
    login: _Login,
    by: _By,
    generate: _Generate = False,
    second_factor: Annotated[bool, typer.Option("--second-factor", help="Make another second factor, too.")] = False,
) -> None:
    """Give an account another password, read from standard input; unlock it and end its sessions."""
    settings, password = read_settings(), _password(generate)
    said = f"reset {normal_login(login)}{' (second factor)' if second_factor else ''}"

    async def work(gateway: Gateway) -> bytes | None:
        whose = await find_references(gateway.mongo, normal_login(login))
        async with operated(gateway, by, "accounts", said, whose):
            return await reset_account(gateway, login, password, second_factor=second_factor)

    _tell_secrets(settings, login, password if generate else None, _run(work))


def _password(generate: bool) -> str:
    if generate:
        return new_password()
    return getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")


def _tell_secrets(settings: Settings, login: str, password: str | None, second_factor: bytes | None) -> None:
    """Print what can be seen only now."""
    if password is not None:
        print(f"password: {password}")  # noqa: T201 (the result of the command)
    if second_factor is not None:
        issuer = urlsplit(settings.base_url).hostname or "gateway"
        print(f"one-time codes: {second_factor_text(second_factor)}")  # noqa: T201 (the result of the command)
        print(second_factor_uri(second_factor, issuer, login))  # noqa: T201 (the result of the command)


def _run(work: Callable[[Gateway], Awaitable[T]]) -> T:
    async def run() -> T:
        async with attached(read_settings()) as gateway:
            return await work(gateway)

    return asyncio.run(run())
