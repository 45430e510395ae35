"""Reading the registry: from the files of `schemas/resources` to what is declared of each type.

Knows: what a type's file may say together, and how to refuse a wrong one by file and key. Must not know: HTTP, MongoDB.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import get_args

from gateway.fhir.clause import FIELDS
from gateway.fhir.equivalents import read_equivalents
from gateway.fhir.hierarchy import Hierarchy, read_hierarchies
from gateway.fhir.known import read_keys
from gateway.fhir.lifecycle import read_lifecycle
from gateway.fhir.operations import read_operations
from gateway.fhir.path import Branch, PathError, compile_path
from gateway.fhir.profiles import Profile, read_profiles
from gateway.fhir.registry import COMMON_PARAMETERS, Registry, ResourceType, SearchParameter
from gateway.fhir.type_file import InteractionCode, SearchFile, TypeFile
from gateway.fhir.types import NESTED, Types
from gateway.fhir.values import CONVERTERS, MODIFIERS, pair
from gateway.schemas import SchemaError, convert, read_schema

_PARAMETER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def read_registry(schemas: FilePath, types: Types) -> Registry:
    """Read `resources/`, `profiles/` and `operations/*.toml`, `hierarchies.toml`. Raises SchemaError naming file and key."""
    profiles = read_profiles(schemas / "profiles", types)
    hierarchies = read_hierarchies(schemas)
    found: dict[str, ResourceType] = {}
    files = sorted((schemas / "resources").glob("*.toml"))
    served = tuple(file.stem for file in files)
    for file in files:
        raw = read_schema(file, TypeFile)
        if raw.type != file.stem:
            raise SchemaError(file, "type", f"'{raw.type}' does not match the file's name")
        found[raw.type] = _ReadType(file, raw, types, profiles, served, hierarchies).result()
    for kind in found.values():
        _check_contained(schemas / "resources" / f"{kind.name}.toml", kind, found)
    if "Patient" not in found:
        raise SchemaError(schemas / "resources", "", "there is no Patient.toml")
    operations = read_operations(schemas / "operations", types, served, get_args(InteractionCode))
    return Registry(types, found, {p.url: p for p in profiles.values()}, operations)


def _check_contained(file: FilePath, kind: ResourceType, served: Mapping[str, ResourceType]) -> None:
    for parameter in kind.search.values():
        targets = [served[name] for name in parameter.targets if name in served]
        for name in parameter.contained:
            found = [target.search[name] for target in targets if name in target.search]
            if not found or any(p.type not in ("token", "string") or p.any_of for p in found):
                key = f"search.{parameter.name}.contained"
                raise SchemaError(file, key, f"'{name}' is no token or string parameter of what it leads to")
        for name in parameter.through:
            if not any(name in target.search and target.search[name].type == "reference" for target in targets):
                key = f"search.{parameter.name}.through"
                raise SchemaError(file, key, f"'{name}' is no reference parameter of what it leads to")


class _ReadType:
    """Turns one file into a ResourceType, refusing by key what cannot be."""

    def __init__(
        self,
        file: FilePath,
        raw: TypeFile,
        types: Types,
        profiles: Mapping[str, Profile],
        served: tuple[str, ...],
        hierarchies: Mapping[str, Hierarchy],
    ) -> None:
        self.file, self.raw, self.types, self.profiles, self.served = file, raw, types, profiles, served
        self.hierarchies = hierarchies
        self.specs = {name: convert(file, f"search.{name}", spec, SearchFile) for name, spec in raw.search.items()}

    def result(self) -> ResourceType:
        raw = self.raw
        try:
            self.types.struct(raw.type)
        except KeyError:
            raise self._error("type", f"'{raw.type}' is not an R4 resource type") from None
        is_patient = raw.patient == "id"
        patient = self._patient()
        search = {name: self._parameter(name, spec) for name, spec in self.specs.items()}
        aliases = {alias: name for name, spec in self.specs.items() for alias in spec.aliases}
        self._check_names(search, aliases)
        self._check_indexes(search)
        self._check_profiles()
        return ResourceType(
            name=raw.type,
            group=raw.group,
            interactions=frozenset(raw.interactions),
            patient=patient,
            patient_path=raw.patient if patient else None,
            is_patient=is_patient,
            patient_required=raw.patient_required and bool(patient),
            sort=tuple(raw.sort),
            unique=tuple(raw.unique),
            natural=self._natural(),
            indexes=tuple(tuple(index) for index in raw.indexes),
            profiles=tuple(self.profiles[name].url for name in raw.profiles),
            labels=self._labels(),
            scope_parameters=frozenset(raw.scope_parameters),
            instantiates=tuple(raw.instantiates),
            consent_code=raw.consent.code,
            consent_date=raw.consent.date,
            consent_parts=tuple(raw.consent.parts),
            search=search,
            attachments=self._attachments(),
            attachment_paths=tuple(raw.attachments),
            is_raw=raw.raw,
            withheld=self._withheld(),
            aliases=aliases,
            requires=tuple(raw.requires),
            matched_by=frozenset(raw.matched_by),
            equivalents=read_equivalents(raw.equivalent, search, self._branches, self._error),
            keys=read_keys(self.types, raw, search, self._error),
            lifecycle=read_lifecycle(self.file, self.types, raw),
            described=self._branches("described", raw.described) if raw.described else (),
            described_path=raw.described.partition(".resolve()")[0] if raw.described else None,
        )

    def _attachments(self) -> tuple[Branch, ...]:
        branches = tuple(b for text in self.raw.attachments for b in self._branches("attachments", text))
        if any(branch.type != "Attachment" for branch in branches):
            raise self._error("attachments", "leads to something else than an Attachment")
        if branches and (self.raw.patient in ("id", "none") or not self.raw.patient_required):
            raise self._error("attachments", "content belongs to a patient, and so must what attaches it")
        return branches

    def _withheld(self) -> tuple[tuple[str, ...], ...]:
        for text in self.raw.withheld:
            plain = text.replace(".", "").isalpha()  # (it is followed element by element, and choices have none)
            if not plain or any(branch.type != "Reference" for branch in self._branches("withheld", text)):
                raise self._error("withheld", f"'{text}' is no plain path to References")
        return tuple(tuple(text.split(".")) for text in self.raw.withheld)

    def _error(self, key: str, text: str) -> SchemaError:
        return SchemaError(self.file, key, text)

    def _branches(self, key: str, text: str) -> tuple[Branch, ...]:
        try:
            return compile_path(self.types, self.raw.type, text)
        except PathError as error:
            raise self._error(key, str(error)) from error

    def _patient(self) -> tuple[Branch, ...]:
        """The branches to the patient; none for the Patient itself and for what belongs to nobody."""
        if (self.raw.patient == "id") != (self.raw.type == "Patient"):
            raise self._error("patient", "is 'id' for Patient, and for Patient alone")
        if self.raw.patient in ("id", "none"):
            return ()
        branches = self._branches("patient", self.raw.patient)
        if any(b.type != "Reference" or not {"Patient", NESTED} & {*b.targets} for b in branches):
            raise self._error("patient", f"'{self.raw.patient}' is no reference to a Patient")
        return branches

    def _labels(self) -> tuple[Branch, ...]:
        branches = [b for text in ("meta.security", *self.raw.labels) for b in self._branches("labels", text)]
        for branch in branches:
            if branch.type not in ("Coding", "CodeableConcept"):
                raise self._error("labels", f"a label cannot be read from {branch.type}")
        return tuple(branches)

    def _natural(self) -> tuple[tuple[Branch, ...], ...]:
        found = tuple(self._branches("natural", text) for text in self.raw.natural)
        for branch in (branch for branches in found for branch in branches):
            if branch.type not in ("Reference", "CodeableConcept", "Coding", "dateTime", "instant", "code"):
                raise self._error("natural", f"nothing is known again by {branch.type}")
        return found

    def _parameter(self, name: str, spec: SearchFile) -> SearchParameter:
        key = f"search.{name}"
        if not _PARAMETER_NAME.fullmatch(name):
            raise self._error(key, "is not a name of a search parameter")
        if spec.any_of:
            parts = [self.specs.get(part) for part in spec.any_of]
            if spec.path is not None or any(part is None or part.any_of or part.type != spec.type for part in parts):
                raise self._error(f"{key}.any_of", "takes parameters of this type alone")
            return SearchParameter(name, spec.type, definition=spec.definition, any_of=tuple(spec.any_of))
        if spec.of or spec.type == "composite":
            return self._composite(name, spec)
        if not spec.path:
            raise self._error(key, "has neither path nor any_of")
        if spec.absent is not None and spec.type != "token":
            raise self._error(f"{key}.absent", "has a meaning for a token alone")
        paths = [spec.path] if isinstance(spec.path, str) else spec.path
        branches = [b for path in paths for b in self._branches(f"{key}.path", path)]
        table = CONVERTERS[spec.type]
        unreadable = sorted({branch.type for branch in branches} - table.keys())
        if unreadable:
            raise self._error(f"{key}.path", f"a {spec.type} parameter cannot be read from {', '.join(unreadable)}")
        targets = dict.fromkeys(t for branch in branches for t in spec.targets or branch.targets)
        # (Where anything may be referred to, only `patient` means the patient alone: a Provenance is of a document, too.)
        is_patient_path = self.raw.patient not in ("id", "none") and paths == [self.raw.patient]
        names_patient = is_patient_path and (name == "patient" or NESTED not in targets)
        if name == "patient" and not names_patient:
            raise self._error(f"{key}.path", "is not the type's own patient")
        return SearchParameter(
            name=name,
            type=spec.type,
            readers=() if names_patient else tuple((branch, table[branch.type]) for branch in branches),
            # (a reference to any resource can be one to any type that is served)
            targets=self.served if NESTED in targets else tuple(targets),
            system=spec.system,
            definition=spec.definition,
            field="patient" if names_patient else None,
            contained=tuple(spec.contained),
            through=tuple(spec.through),
            absent=spec.absent,
            modifiers=self._modifiers(key, spec, branches),
            levels=self.hierarchies.get(spec.system or ""),
        )

    def _modifiers(self, key: str, spec: SearchFile, branches: list[Branch]) -> frozenset[str]:
        for modifier in spec.modifiers:
            if spec.type != "token" or not {b.type for b in branches} <= MODIFIERS[modifier].keys():
                raise self._error(f"{key}.modifiers", f"'{modifier}' has nothing to look at here")
        return frozenset((*spec.modifiers, *(("above", "below") if spec.system in self.hierarchies else ())))

    def _composite(self, name: str, spec: SearchFile) -> SearchParameter:
        """A composite of the values that the resource itself has or, with a path, of those that one element there has."""
        key = f"search.{name}"
        parts = {part: self.specs.get(part) for part in spec.of}
        if (
            len(parts) < 2
            or spec.type != "composite"
            or any(p is None or not p.path or p.type == "composite" for p in parts.values())
        ):
            raise self._error(f"{key}.of", "takes two parameters or more that have a path, and makes a composite of them")
        paths = {part: [p.path] if isinstance(p.path, str) else p.path or [] for part, p in parts.items() if p is not None}
        types = {part: p.type for part, p in parts.items() if p is not None}
        found = SearchParameter(name, "composite", definition=spec.definition, of=tuple(spec.of))
        if spec.path is None:  # the resource itself holds the parts: it has each, or has it not
            return found
        if not isinstance(spec.path, str):
            raise self._error(f"{key}.path", "is one path")
        (holder, *others) = self._branches(f"{key}.path", spec.path)
        if others or any(not text.startswith(f"{spec.path}.") for texts in paths.values() for text in texts):
            raise self._error(f"{key}.of", f"'{spec.path}' does not hold all parts")
        ways = []
        for part, texts in paths.items():
            inner = [b for text in texts for b in compile_path(self.types, holder.type, text.removeprefix(f"{spec.path}."))]
            ways.append((part, types[part] == "date", tuple((b.read, CONVERTERS[types[part]][b.type]) for b in inner)))
        return replace(found, readers=((holder, pair(tuple(ways))),))

    def _check_names(self, search: Mapping[str, SearchParameter], aliases: Mapping[str, str]) -> None:
        known = {**COMMON_PARAMETERS, **{name: p.type for name, p in search.items()}}
        for alias, name in aliases.items():
            if alias in known or not _PARAMETER_NAME.fullmatch(alias):
                raise self._error(f"search.{name}.aliases", f"'{alias}' is the name of another, or none")
        for name in self.raw.sort:
            if known.get(name) != "date" and name != "_id":
                raise self._error("sort", f"'{name}' is not a date parameter of this type, _lastUpdated or _id")
        named = known if self.raw.patient in ("id", "none") else {*known, "patient"}
        for key, names in (("matched_by", known), ("requires", named), ("scope_parameters", search)):
            for name in sorted({*getattr(self.raw, key)} - {*names}):
                raise self._error(key, f"'{name}' is not a parameter of this type")
        for name in self.raw.scope_parameters:
            if name not in search:
                raise self._error("scope_parameters", f"'{name}' is not a parameter of this type")
        for part in self.raw.consent.parts:
            if part.partition("=")[0] not in self.raw.scope_parameters:
                raise self._error("consent.parts", f"'{part}' is no search by one of scope_parameters")
        for key, kind in (("code", "token"), ("date", "date")):
            value = getattr(self.raw.consent, key)
            if value is not None and known.get(value) != kind:
                raise self._error(f"consent.{key}", f"'{value}' is not a {kind} parameter of this type")

    def _check_profiles(self) -> None:
        for name in self.raw.profiles:
            if name not in self.profiles:
                raise self._error("profiles", f"there is no profiles/{name}.toml")
            if self.profiles[name].type != self.raw.type:
                raise self._error("profiles", f"'{name}' is a profile of {self.profiles[name].type}")

    def _check_indexes(self, search: Mapping[str, SearchParameter]) -> None:
        known: dict[str, str] = {
            **COMMON_PARAMETERS,
            **{name: p.type for name, p in search.items() if p.readers and p.type not in ("quantity", "composite")},
            **({"patient": "patient"} if self.raw.patient not in ("id", "none") else {}),
        }
        bound = [] if self.raw.patient in ("id", "none") else ["patient"]
        for name in self.raw.sort:
            if name != "_id" and [*bound, f"-{name}"] not in self.raw.indexes:
                raise self._error("indexes", f"sorting by '{name}' needs the index {[*bound, f'-{name}']}")
        if "history-type" in self.raw.interactions and ["-_lastUpdated"] not in self.raw.indexes:
            raise self._error("indexes", "a history of the type needs the index ['-_lastUpdated']")
        for index in self.raw.indexes:
            if not index or self.raw.indexes.count(index) > 1:
                raise self._error("indexes", "an index is empty or declared twice")
            names = [key.lstrip("-") for key in index]
            for key, name in zip(index, names, strict=True):
                if name not in known or key not in (name, f"-{name}"):
                    raise self._error("indexes", f"'{key}' cannot be part of an index of this type")
            arrays = [n for n in names if known[n] not in ("date", "patient") and (n == "_security" or n not in FIELDS)]
            if len(arrays) > 1:
                raise self._error("indexes", f"{' and '.join(arrays)} are both lists, and MongoDB indexes one list at most")
