"""What is judged: a server's address, and who the kit may be there.

Knows: the file that says so. Must not know: HTTP.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ROLES = ("owner", "professional", "app")
"""`owner`: the person of the record that the kit writes in. `professional`: somebody whom that person lets read it.
`app`: an app that may create Observations in it, and read them."""


class TargetError(Exception):
    """The description of the target cannot be used: the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server, as the kit meets it.

    `tokens`: bearer tokens by role. `patient`: id of the record that the kit may write in. `stranger`: id of a Patient whose
    record no role may see. `consent`: id of the Consent that opens the record to the professional. `is_open`: the server asks
    for no tokens.
    """

    base: str
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    patient: str | None = None
    stranger: str | None = None
    consent: str | None = None
    is_open: bool = False

    def to_json(self) -> str:
        """For `from_json`, in another process."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Target":
        """The opposite of `to_json`."""
        return Target(**json.loads(text))


def read_target(base: str, text: str) -> Target:
    """The target described by a TOML document: the fields of Target but `base`, `open` for `is_open`, `[tokens]`.

    Raises TargetError naming the key that is wrong.
    """
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"the description of the server is no TOML: {error}") from None
    tokens = told.pop("tokens", {})
    is_open = told.pop("open", False)
    if not isinstance(tokens, dict) or not all(isinstance(token, str) for token in tokens.values()):
        raise TargetError("tokens: a table of a token for each role is expected")
    _refuse_unknown("tokens.", tokens, ROLES)
    _refuse_unknown("", told, ("patient", "stranger", "consent"))
    wrong = next((key for key, value in told.items() if not isinstance(value, str)), None)
    if wrong is not None or not isinstance(is_open, bool):
        raise TargetError(f"{wrong or 'open'}: this is of another kind than expected")
    return Target(base.rstrip("/"), tokens=tokens, is_open=is_open, **told)


def _refuse_unknown(prefix: str, told: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in told:
        if key not in known:
            raise TargetError(f"{prefix}{key}: not known; there are {', '.join(known)}")
