"""Submissions of documents: what kinds there are, and what the entries of each are held to.

Knows: `schemas/submissions.toml`; how a resource says that it is a submission set or a folder
(https://profiles.ihe.net/ITI/MHD/ITI-65.html). Must not know: stores, who submits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.fhir.registry import Registry
from gateway.schemas import SchemaError, read_schema


class _KindFile(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    submission_set: str
    document: str
    folder: str


class _SimplifiedFile(msgspec.Struct, forbid_unknown_fields=True):
    profiles: list[str]
    submission_set: str


class _WarningsFile(msgspec.Struct, forbid_unknown_fields=True):
    replaces: str
    transforms: str
    appends: str
    recipient: str


class _SubmissionsFile(msgspec.Struct, forbid_unknown_fields=True):
    system: str
    submission_set: str
    folder: str
    default: str
    recipients: list[str]
    kinds: dict[str, _KindFile]
    simplified: _SimplifiedFile
    warnings: _WarningsFile


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of submission: the profiles (urls) of what it brings."""

    submission_set: str
    document: str
    folder: str


@dataclass(frozen=True, slots=True)
class Submissions:
    """The tables.

    `kinds`: by the profile of the Bundle; `simplified`: the profiles of a DocumentReference that brings its content; `made_as`:
    the profile of the submission set that is made for it; `recipients`: extensions that say whom a submission is meant for;
    `unprocessed`: what is answered about a relation (by its code) to what is not here; `unavailable`: about a recipient.
    """

    system: str
    submission_set: str
    folder: str
    default: Kind
    kinds: Mapping[str, Kind]
    simplified: frozenset[str]
    made_as: str
    recipients: frozenset[str]
    unprocessed: Mapping[str, str]
    unavailable: str

    def kind_of(self, profiles: Iterable[str]) -> Kind | None:
        """The kind that a Bundle with these profiles says it is: the last one that is known."""
        found = [self.kinds[url] for url in profiles if url in self.kinds]
        return found[-1] if found else None

    def is_submission_set(self, resource: Any) -> bool:
        """Whether a List is a submission set."""
        return self._is_coded(resource, self.submission_set)

    def is_folder(self, resource: Any) -> bool:
        """Whether a List is a folder."""
        return self._is_coded(resource, self.folder)

    def _is_coded(self, resource: Any, code: str) -> bool:
        codings = (resource.code.coding or ()) if resource.code is not None else ()
        return any((coding.system, coding.code) == (self.system, code) for coding in codings)

    def is_simplified(self, resource: Any) -> bool:
        """Whether a DocumentReference claims to be one that brings its content."""
        profiles = (resource.meta.profile or ()) if resource.meta is not None else ()
        return not self.simplified.isdisjoint(profiles)


def read_submissions(schemas: Path, registry: Registry) -> Submissions:
    """Read `submissions.toml`. Raises SchemaError naming the key."""
    file = schemas / "submissions.toml"
    raw = read_schema(file, _SubmissionsFile)

    def known(key: str, name: str, type_name: str) -> str:
        if name not in registry.profiles or registry.profiles[name].type != type_name:
            raise SchemaError(file, key, f"'{name}' is no profile of {type_name}")
        return name

    kinds = {
        name: Kind(
            known(f"kinds.{name}.submission_set", row.submission_set, "List"),
            known(f"kinds.{name}.document", row.document, "DocumentReference"),
            known(f"kinds.{name}.folder", row.folder, "List"),
        )
        for name, row in raw.kinds.items()
    }
    if raw.default not in kinds:
        raise SchemaError(file, "default", "is none of the kinds")
    simplified = (known("simplified.profiles", name, "DocumentReference") for name in raw.simplified.profiles)
    relations = msgspec.structs.asdict(raw.warnings)
    return Submissions(
        system=raw.system,
        submission_set=raw.submission_set,
        folder=raw.folder,
        default=kinds[raw.default],
        kinds={row.url: kinds[name] for name, row in raw.kinds.items()},
        simplified=frozenset(simplified),
        made_as=known("simplified.submission_set", raw.simplified.submission_set, "List"),
        recipients=frozenset(raw.recipients),
        unavailable=relations.pop("recipient"),
        unprocessed=relations,
    )
