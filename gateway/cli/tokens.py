"""`gateway token`: tokens that an operator issues and takes back by hand.

Knows: the commands. Must not know: what a token says. What each did is in the audit, by a prefix of the token's hash.
"""

import asyncio
import sys
from datetime import timedelta
from typing import Annotated

import typer

from gateway.app import attached
from gateway.cli.operator import Operator
from gateway.exchange.operated import operated
from gateway.exchange.tokens import Grant, issue_token, new_token, revoke_token, token_name
from gateway.problem import Problem
from gateway.settings import read_settings

token_app = typer.Typer(no_args_is_help=True, help="Issue and revoke access tokens.")


@token_app.command("issue")
def issue(
    client: Annotated[str, typer.Option(help="Client id.")],
    kind: Annotated[str, typer.Option(help="patient, proxy, professional, app, service, operator or feed.")],
    scope: Annotated[str, typer.Option(help="SMART scopes, separated by spaces.")],
    operator: Operator,
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
    token = new_token()
    said = f"issue {token_name(token)} to {client} as {kind}, for {minutes} minutes: {scope}"

    async def work() -> str:
        async with (
            attached(read_settings()) as gateway,
            operated(gateway, operator, "token", said, grant.actors, patient=patient),
        ):
            return await issue_token(gateway, grant, token)

    print(asyncio.run(work()))  # noqa: T201 (the result of the command)


@token_app.command("revoke")
def revoke(operator: Operator) -> None:
    """Revoke the token given on standard input (an argument would end up in the shell's history)."""
    token = sys.stdin.readline().strip()

    async def work() -> None:
        async with (
            attached(read_settings()) as gateway,
            operated(gateway, operator, "token", f"revoke {token_name(token)}"),
        ):
            if not await revoke_token(gateway, token):
                raise Problem("not-found", "this token is not known")

    asyncio.run(work())
