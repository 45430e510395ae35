"""The command line: serve · demo · simulate · check · conformance · import · apps · keys · token · accounts · audit · ….

Knows: commands and their options, and how their results are told to a person. Must not know: what they do.
"""

from gateway.cli import starting

# isort: split
import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import timedelta
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import typer
import uvicorn

from gateway import __version__
from gateway.api.wire import server_options
from gateway.app import attached, build_gateway, check_system, prepare_store, read_schemas, running
from gateway.cli.apps import apps_app
from gateway.cli.conformance import conformance_app
from gateway.cli.keys import keys_app
from gateway.cli.records import erase, withdrawn
from gateway.cli.simulate import simulate_command
from gateway.cli.validate import validate_files
from gateway.exchange.accounts import add_account, lock_account, reset_account
from gateway.exchange.passwords import new_password, second_factor_text, second_factor_uri
from gateway.exchange.tokens import Grant, issue_token, revoke_token
from gateway.problem import Problem
from gateway.provisioning.load import Counts
from gateway.provisioning.run import import_files
from gateway.sandbox.demo import DemoError, run_demo
from gateway.sandbox.mongod import MongodError
from gateway.sandbox.simulate import SimulationError
from gateway.schemas import SchemaError
from gateway.settings import Settings, SettingsError, read_settings
from gateway.store.accounts import end_sessions_of, find_accounts
from gateway.store.chain import Sealed, find_broken_link
from gateway.store.ids import Ids
from gateway.store.schema import StoreError
from gateway.telemetry import set_up_logging

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A FHIR R4 document exchange gateway, with its sandbox and its conformance kit. To begin with: gateway demo.",
)
token_app = typer.Typer(no_args_is_help=True, help="Issue and revoke access tokens.")
accounts_app = typer.Typer(no_args_is_help=True, help="Accounts of people who log in here.")
audit_app = typer.Typer(no_args_is_help=True, help="Verify the audit.")
app.command("simulate")(simulate_command)
app.add_typer(apps_app, name="apps")
app.add_typer(conformance_app, name="conformance")
app.add_typer(keys_app, name="keys")
app.add_typer(token_app, name="token")
app.add_typer(accounts_app, name="accounts")
app.add_typer(audit_app, name="audit")
app.command("erase-patient")(erase)
app.command("withdrawn")(withdrawn)
app.command("validate")(validate_files)

_Port = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65_535)]
starting.is_over()


def main() -> None:
    """Run the command line; what cannot be done is said in one line and ends with status 1."""
    try:
        app()
    except (SchemaError, SettingsError, StoreError, MongodError, DemoError, SimulationError) as error:
        _fail(str(error))
    except Problem as problem:
        _fail(problem.issues[0].text)


@app.command()
def serve(
    port: _Port = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(help="Number of processes.", min=1)] = 1,
) -> None:
    """Serve FHIR on the MongoDB at GATEWAY_MONGO_URL."""
    settings = read_settings()
    set_up_logging(settings.log_level)
    _take_port(host, port).close()
    asyncio.run(prepare_store(settings))  # so that what is wrong is said once, in one line
    # uvicorn drains, then raises the signal again: being asked to end is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        "gateway.app:create_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        **server_options(),
    )


@app.command()
def demo(
    port: _Port = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="Keep the data in this folder.")] = None,
) -> None:
    """Start a complete sandbox on this machine: MongoDB, gateway, sample people, and a tour of curl lines."""
    with _take_port("127.0.0.1", port) as listener:
        run_demo(listener, data_dir)


@app.command()
def check(
    create_indexes: Annotated[bool, typer.Option(help="Build the indexes that are missing.")] = False,
    call_issuers: Annotated[bool, typer.Option(help="Ask every other issuer once, as for a token of its own.")] = False,
) -> None:
    """Check schemas, settings and, where GATEWAY_MONGO_URL is set, topology and indexes."""
    lines, is_sound = asyncio.run(check_system(dict(os.environ), create_indexes=create_indexes, call_issuers=call_issuers))
    for line in lines:
        print(line)  # noqa: T201 (the result of the command)
    if not is_sound:
        raise typer.Exit(1)


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="NDJSON, or JSON with Bundles.", exists=True, dir_okay=False)],
    operator: Annotated[str, typer.Option(help="Who imports: the name that the audit keeps.")],
    report: Annotated[Path | None, typer.Option(help="List what is refused in this file, a JSON object per line.")] = None,
) -> None:
    """Create or renew, by their identifiers, the patients and directories in files. Again after an interruption: it goes on."""
    settings = read_settings()
    set_up_logging("warning")

    async def run() -> Counts:
        gateway = build_gateway(settings, read_schemas(settings.schemas), Ids(settings.secret))
        async with running(gateway):
            return await import_files(gateway, files, operator, report, sys.stderr)

    if asyncio.run(run()).refused:
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Say which version this is."""
    print(__version__)  # noqa: T201 (the result of the command)


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        version()
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """What holds for every command."""


@token_app.command("issue")
def token_issue(
    client: Annotated[str, typer.Option(help="Client id.")],
    kind: Annotated[str, typer.Option(help="patient, proxy, professional, app, service, operator or feed.")],
    scope: Annotated[str, typer.Option(help="SMART scopes, separated by spaces.")],
    actor: Annotated[list[str] | None, typer.Option(help="Reference that Consents name the bearer by; repeatable.")] = None,
    software: Annotated[list[str] | None, typer.Option(help="Reference of the software used; repeatable.")] = None,
    source: Annotated[str | None, typer.Option(help="Service the client belongs to (default: the client).")] = None,
    user: Annotated[str | None, typer.Option(help="Reference of whoever logged in.")] = None,
    patient: Annotated[str | None, typer.Option(help="Id of the patient in context.")] = None,
    purpose: Annotated[str | None, typer.Option(help="Purpose of use, as system|code.")] = None,
    minutes: Annotated[int, typer.Option(help="Lifetime.", min=1)] = 15,
) -> None:
    """Issue a token and print it. It is stored as a hash only: this is the one time it can be seen."""
    grant = Grant(
        client=client,
        kind=kind,
        scope=scope,
        actors=tuple(actor or ()),
        software=tuple(software or ()),
        source=source,
        user=user,
        patient=patient,
        purpose=purpose,
        lifetime=timedelta(minutes=minutes),
    )

    async def issue() -> str:
        async with attached(read_settings()) as gateway:
            return await issue_token(gateway, grant)

    print(asyncio.run(issue()))  # noqa: T201 (the result of the command)


@token_app.command("revoke")
def token_revoke() -> None:
    """Revoke the token given on standard input (an argument would end up in the shell's history)."""

    async def revoke() -> bool:
        async with attached(read_settings()) as gateway:
            return await revoke_token(gateway, sys.stdin.readline().strip())

    if not asyncio.run(revoke()):
        _fail("this token is not known")


@accounts_app.command("add")
def accounts_add(
    login: Annotated[str, typer.Argument(help="What the person types to log in.")],
    reference: Annotated[
        list[str] | None, typer.Option(help="Patient/…, RelatedPerson/… or Practitioner/… that is this person; repeatable.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the pages call the person.")] = "",
    operator: Annotated[bool, typer.Option("--operator", help="Somebody who runs the gateway; has a second factor.")] = False,
    generate: Annotated[bool, typer.Option("--generate", help="Think of a password and print it.")] = False,
) -> None:
    """Add an account. The password is read from standard input (an argument would end up in the shell's history)."""
    settings, password = read_settings(), _password(generate)

    async def add() -> bytes | None:
        async with attached(settings) as gateway:
            return await add_account(gateway, login, password, name, tuple(reference or ()), is_operator=operator)

    _tell_secrets(settings, login, password if generate else None, asyncio.run(add()))


@accounts_app.command("list")
def accounts_list() -> None:
    """List the accounts: login, who it is, whether it is locked."""

    async def find() -> list[dict[str, Any]]:
        async with attached(read_settings()) as gateway:
            return await find_accounts(gateway.mongo)

    for account in asyncio.run(find()):
        whose = " ".join([*account["references"], *(["operator"] if account["operator"] else [])])
        print(f"{account['_id']}  {whose}{'  locked' if account['locked'] else ''}")  # noqa: T201 (the result of the command)


@accounts_app.command("lock")
def accounts_lock(login: Annotated[str, typer.Argument(help="Login of the account.")]) -> None:
    """Lock an account and end its sessions. `reset` unlocks it."""

    async def lock() -> None:
        async with attached(read_settings()) as gateway:
            await lock_account(gateway, login)

    asyncio.run(lock())


@accounts_app.command("log-out")
def accounts_log_out(reference: Annotated[str, typer.Argument(help="Patient/…, RelatedPerson/… or Practitioner/…")]) -> None:
    """End every session of a person, wherever they logged in. What they approved for apps stays."""

    async def log_out() -> int:
        async with attached(read_settings()) as gateway:
            return await end_sessions_of(gateway.mongo, reference)

    print(f"{asyncio.run(log_out())} sessions ended")  # noqa: T201 (the result of the command)


@accounts_app.command("reset")
def accounts_reset(
    login: Annotated[str, typer.Argument(help="Login of the account.")],
    generate: Annotated[bool, typer.Option("--generate", help="Think of a password and print it.")] = False,
    second_factor: Annotated[bool, typer.Option("--second-factor", help="Make another second factor, too.")] = False,
) -> None:
    """Give an account another password, read from standard input; unlock it and end its sessions."""
    settings, password = read_settings(), _password(generate)

    async def reset() -> bytes | None:
        async with attached(settings) as gateway:
            return await reset_account(gateway, login, password, second_factor=second_factor)

    _tell_secrets(settings, login, password if generate else None, asyncio.run(reset()))


@audit_app.command("verify")
def audit_verify(
    log: Annotated[
        Path | None,
        typer.Option(help="A log of the gateway: the seals it tells of must all be there.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Walk every chain of the audit and name the first link that does not hold."""

    async def verify() -> tuple[int, str | None]:
        async with attached(read_settings()) as gateway:
            return await find_broken_link(gateway.mongo, gateway.clock(), _logged_seals(log) if log else ())

    sound, broken = asyncio.run(verify())
    if broken:
        _fail(f"after {sound} sound events: {broken}")
    print(f"{sound} events, every link holds")  # noqa: T201 (the result of the command)


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


def _take_port(host: str, port: int) -> socket.socket:
    """A socket on this port: whether it is free is told before anything else is started."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"port {port} of {host} cannot be used: {error.strerror or error}") from None
    return listener


def _logged_seals(log: Path) -> Iterator[Sealed]:
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if '"audit.sealed"' in line:
                entry = json.loads(line[line.index("{") :])
                yield entry["writer"], entry["number"], entry["hash"]


def _fail(text: str) -> NoReturn:
    print(f"gateway: {text}", file=sys.stderr)  # noqa: T201 (for the person at the terminal)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
