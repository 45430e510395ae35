"""What is judged: a server's address, and who the kit may be there.

Knows: the file that says so. Must not know: HTTP.
"""

import base64
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from urllib.parse import urljoin

ROLES = ("owner", "professional", "app", "paired")
"""`owner`: the person of the record that the kit writes in. `professional`: somebody whom that person lets read it.
`app`: an app that may create Observations in it, and read them. `paired`: the person's app for measures."""


class TargetError(Exception):
    """The description of the target cannot be used: the message says why."""


@dataclass(frozen=True, slots=True)
class Face:
    """The face for measures (API Mesures of Mon espace santé), as the app with the role `paired` meets it.

    `base`: its address, relative to the FHIR base or whole. `id_token`: what the app got when it was paired: its `sub` is the
    person's number for the app, its `oid` that of the solution. `patients`: the system of such numbers. `sending`, `reading`:
    ids of the Consents by which the app does the one and the other.
    """

    base: str
    id_token: str = field(repr=False)
    patients: str
    sending: str | None = None
    reading: str | None = None

    def claim(self, name: str) -> str:
        """What the id_token says (its signature is the server's concern). Raises TargetError where it does not say this."""
        try:
            part = self.id_token.split(".")[1]
            return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))[name])
        except (IndexError, KeyError, TypeError, ValueError):
            raise TargetError(f"measures.id_token: this is no JWT that has a claim '{name}'") from None


@dataclass(frozen=True, slots=True)
class Target:
    """A server, as the kit meets it.

    `tokens`: bearer tokens by role. `patient`: id of the record that the kit may write in. `stranger`: id of a Patient whose
    record no role may see. `consent`: id of the Consent that opens the record to the professional. `is_open`: the server asks
    for no tokens. `measures`: its face for measures, None where it has none. `exams`: by role of an exam, the
    `token` and `patient` of a client that is examined, where they are others than those of the kit's own roles.
    """

    base: str
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    patient: str | None = None
    stranger: str | None = None
    consent: str | None = None
    is_open: bool = False
    measures: Face | None = None
    exams: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> dict[str, str]:
        """What must not stand in a report, each with the name of a variable that stands for it."""
        named = {token: f"{role.upper()}_TOKEN" for role, token in self.tokens.items()}
        return named | ({self.measures.id_token: "ID_TOKEN"} if self.measures else {})

    @property
    def consents(self) -> tuple[str, ...]:
        """Ids of the Consents that are to be given while checks run."""
        named = (self.consent, *((self.measures.sending, self.measures.reading) if self.measures else ()))
        return tuple(name for name in named if name is not None)

    def to_json(self) -> str:
        """For `from_json`, in another process."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Target":
        """The opposite of `to_json`."""
        told = json.loads(text)
        return Target(**{**told, "measures": Face(**told["measures"]) if told["measures"] else None})


def read_target(base: str, text: str) -> Target:
    """The target described by a TOML document: the fields of Target but `base`, `open` for `is_open`, `[tokens]`, `[measures]`.

    Raises TargetError naming the key that is wrong.
    """
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"the description of the server is no TOML: {error}") from None
    tokens = told.pop("tokens", {})
    is_open = told.pop("open", False)
    measures = _read_face(base, told.pop("measures", None))
    exams = _read_exams(told.pop("exam", {}))
    if not isinstance(tokens, dict) or not all(isinstance(token, str) for token in tokens.values()):
        raise TargetError("tokens: a table of a token for each role is expected")
    _refuse_unknown("tokens.", tokens, ROLES)
    _refuse_unknown("", told, ("patient", "stranger", "consent"))
    wrong = next((key for key, value in told.items() if not isinstance(value, str)), None)
    if wrong is not None or not isinstance(is_open, bool):
        raise TargetError(f"{wrong or 'open'}: this is of another kind than expected")
    return Target(base.rstrip("/"), tokens=tokens, is_open=is_open, measures=measures, exams=exams, **told)


def _read_exams(told: Any) -> Mapping[str, Mapping[str, str]]:
    if not isinstance(told, dict) or not all(isinstance(row, dict) for row in told.values()):
        raise TargetError("exam: a table of tables is expected, [exam.document-consumer] for one")
    for role, row in told.items():
        _refuse_unknown(f"exam.{role}.", row, ("token", "patient"))
        if not isinstance(row.get("token"), str) or not isinstance(row.get("patient", ""), str):
            raise TargetError(f"exam.{role}: a token, and perhaps a patient, are expected")
    return told


def _read_face(base: str, told: Any) -> Face | None:
    if told is None:
        return None
    names = tuple(one.name for one in fields(Face))
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise TargetError("measures: a table of texts is expected")
    _refuse_unknown("measures.", told, names)
    missing = next((name for name in ("base", "id_token", "patients") if name not in told), None)
    if missing is not None:
        raise TargetError(f"measures.{missing}: this is missing")
    face = Face(**{**told, "base": urljoin(f"{base.rstrip('/')}/", told["base"]).rstrip("/")})
    face.claim("sub")
    return face


def _refuse_unknown(prefix: str, told: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in told:
        if key not in known:
            raise TargetError(f"{prefix}{key}: not known; there are {', '.join(known)}")
