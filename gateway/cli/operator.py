"""Who works at this machine, for the audit.

Knows: the option by which commands ask for it. Must not know: commands.
"""

import getpass
from typing import Annotated

import typer

from gateway.exchange.catalogue import UNNAMED


def _user() -> str:
    """Who works at this machine, as far as it knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return UNNAMED


def who(option: str) -> typer.models.OptionInfo:
    """The option of this name that says who does it."""
    found: typer.models.OptionInfo = typer.Option(
        option,
        default_factory=_user,
        show_default="the user of this machine",
        help="Who does this: the name that the audit keeps.",
    )
    return found


Operator = Annotated[str, who("--operator")]
