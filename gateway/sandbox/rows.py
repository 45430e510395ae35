"""The village as it stands in its tables (`village/*.toml`): who lives there, what they agreed to, and what calls show.

Knows: the keys of the tables, and what `{name}` stands for. Must not know: FHIR, how any of it comes into a gateway.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway.schemas import read_schema

FOLDER = Path(__file__).parent / "village"
TOUR, ALL = ("tour",), ("tour", "people", "records", "cases")

_NAME = re.compile(r"\{([a-z0-9-]+)\}")


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row of a table. Days are counted from the start, the past below zero."""


class Organization(_Row, frozen=True):
    """An establishment. `number`: its FINESS number."""

    name: str
    title: str
    number: str


class Thing(_Row, frozen=True):
    """A software of the catalogue as Consents name it: a Device or, of a service, an Organization."""

    name: str
    title: str
    number: str = ""


class Practitioner(_Row, frozen=True):
    """A professional. `number`: RPPS; `profession`: a code of TRE_G15; `at`: the Organization where they work."""

    name: str
    family: str
    given: str
    number: str
    profession: str
    says: str
    title: str | None = None
    at: str | None = None


class Patient(_Row, frozen=True):
    """A patient. `number`: a test INS; `doctor`: who treats them; `died`: when; `replaces`: who was merged into them."""

    name: str
    family: str
    given: str
    number: str
    says: str
    gender: str | None = None
    born: str | None = None
    doctor: str | None = None
    died: int | None = None
    replaces: str | None = None


class Proxy(_Row, frozen=True):
    """A RelatedPerson who acts for a patient."""

    name: str
    of: str
    family: str
    given: str
    says: str
    relationship: str | None = None


class Account(_Row, frozen=True):
    """Somebody who logs in at the pages."""

    login: str
    title: str
    references: list[str]


class Service(_Row, frozen=True):
    """An entry of the catalogue: a client as its file describes it, and the states it was brought to."""

    client: dict[str, Any]
    states: list[str]


class Token(_Row, frozen=True):
    """A token that is ready: `demo-` and its name. `says`: what its bearer may."""

    name: str
    kind: str
    says: str
    client: str = "portal"
    actor: str | None = None
    patient: str | None = None
    scope: str | None = None


class Care(_Row, frozen=True):
    """A relation of care, declared by a professional, from one day to another."""

    name: str
    patient: str
    by: str
    member: str
    relation: str
    days: tuple[int, int]


class Consent(_Row, frozen=True):
    """A Consent. `performer`: who gives it, if not the patient; `period` and `data_period`: days, from and, if it ends, to."""

    name: str
    patient: str
    by: str
    to: str
    action: str = "access"
    type: Literal["permit", "deny"] = "permit"
    status: str = "active"
    types: list[str] = []
    labels: list[str] = []
    instance: str | None = None
    performer: str | None = None
    period: list[int] = []
    data_period: list[int] = []


class Document(_Row, frozen=True):
    """A document. `type`: of LOINC; `hidden_days`: for how long its label hides it."""

    name: str
    patient: str
    by: str
    type: str
    title: str
    text: str
    days: int
    labels: list[str] = []
    hidden_days: int | None = None


class Reading(_Row, frozen=True):
    """One glucose reading, in mg/dL."""

    name: str
    patient: str
    by: str
    value: int
    days: int


class Stream(_Row, frozen=True):
    """A sensor: it measures every `minutes`, and has done so for some days. `token`: of the app on the phone."""

    name: str
    patient: str
    token: str
    minutes: int
    days: int


class AskedCall(_Row, frozen=True):
    """A call to copy. `reading`: the patient of a new reading that it sends; `total`: how many resources a search finds."""

    token: str
    path: str
    status: int
    reading: str | None = None
    total: int | None = None
    shows: str | None = None


class Case(_Row, frozen=True):
    """Something that confidentiality does, and calls that show it."""

    title: str
    says: str
    call: list[AskedCall]


class Village(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All rows."""

    organization: list[Organization] = []
    practitioner: list[Practitioner] = []
    software: list[Thing] = []
    recipient: list[Thing] = []
    patient: list[Patient] = []
    proxy: list[Proxy] = []
    account: list[Account] = []
    service: list[Service] = []
    token: list[Token] = []
    care: list[Care] = []
    consent: list[Consent] = []
    document: list[Document] = []
    reading: list[Reading] = []
    stream: list[Stream] = []
    case: list[Case] = []


def read_village(files: tuple[str, ...] = ALL) -> Village:
    """The village, or the part of it that stands in some of its files. Raises SchemaError naming file and key."""
    parts = [read_schema(FOLDER / f"{name}.toml", Village) for name in files]
    return Village(**{table: [row for part in parts for row in getattr(part, table)] for table in Village.__struct_fields__})


def village_digest() -> str:
    """What tells one edition of the tables from another."""
    return sha256(b"".join((FOLDER / f"{name}.toml").read_bytes() for name in ALL)).hexdigest()


def fill(text: str, ids: Mapping[str, str]) -> str:
    """The text with the ids of the rows that it names."""
    return _NAME.sub(lambda found: ids[found[1]], text)
