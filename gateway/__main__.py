"""The command line: serve · demo · simulate · check · conformance · import · apps · keys · token · accounts · audit · ….

Knows: commands and their options, and how their results are told to a person. Must not know: what they do.
"""

from gateway.cli import starting

# isort: split
import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import uvicorn

from gateway import __version__
from gateway.api.wire import server_options
from gateway.app import build_gateway, check_system, prepare_store, read_schemas, running
from gateway.cli.accounts import accounts_app
from gateway.cli.apps import apps_app
from gateway.cli.audit import audit_app
from gateway.cli.conformance import conformance_app
from gateway.cli.keys import keys_app
from gateway.cli.metrics import telling_metrics
from gateway.cli.records import erase, withdrawn
from gateway.cli.reindex import reindex_command
from gateway.cli.simulate import simulate_command
from gateway.cli.tokens import token_app
from gateway.cli.validate import validate_files
from gateway.problem import Problem
from gateway.provisioning.load import Counts
from gateway.provisioning.run import import_files
from gateway.sandbox.demo import DemoError, ask_for_reset, run_demo
from gateway.sandbox.mongod import MongodError
from gateway.sandbox.simulate import SimulationError
from gateway.schemas import SchemaError
from gateway.settings import SettingsError, read_settings
from gateway.store.ids import Ids
from gateway.store.schema import StoreError
from gateway.telemetry import set_up_logging

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A FHIR R4 document exchange gateway, with its sandbox and its conformance kit. To begin with: gateway demo.",
)
app.command("simulate")(simulate_command)
app.add_typer(apps_app, name="apps")
app.add_typer(conformance_app, name="conformance")
app.add_typer(keys_app, name="keys")
app.add_typer(token_app, name="token")
app.add_typer(accounts_app, name="accounts")
app.add_typer(audit_app, name="audit")
app.command("erase-patient")(erase)
app.command("withdrawn")(withdrawn)
app.command("reindex")(reindex_command)
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
    with telling_metrics(settings.metrics_address) as folder:
        os.environ["GATEWAY_METRICS_FOLDER"] = str(folder or "")
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
    speed: Annotated[
        float | None,
        typer.Option(help="Let the village's sensors go on: 1 in real time, more from a week back until now.", min=1),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Bring the demo on this port back to how it began, and end.")] = False,
) -> None:
    """Start a complete sandbox on this machine: MongoDB, gateway, a village of virtual people, and a tour of curl lines."""
    if reset:
        print(ask_for_reset(port))  # noqa: T201 (the result of the command)
        return
    with _take_port("127.0.0.1", port) as listener:
        run_demo(listener, data_dir, speed)


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


def _fail(text: str) -> NoReturn:
    print(f"gateway: {text}", file=sys.stderr)  # noqa: T201 (for the person at the terminal)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
