"""The $operations that are served, read from one TOML file each.

Knows: what an operation's file may say, and how to refuse a wrong one by file and key.
Must not know: HTTP, how an operation is carried out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Literal

import msgspec

from gateway.fhir.types import Types
from gateway.schemas import SchemaError, read_schema

Level = Literal["system", "type", "instance"]
Method = Literal["GET", "POST"]
ParameterType = Literal[
    "code",
    "codes",
    "uri",
    "string",
    "id",
    "boolean",
    "date",
    "dateTime",
    "instant",
    "positiveInt",
    "Coding",
    "Identifier",
    "Resource",
]
SEVERAL = frozenset({"codes", "Coding"})  # can stand more than once, which is the same as values separated by commas

_CODE = re.compile(r"[a-z][a-z0-9-]{0,63}")


class _OperationFile(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    definition: str
    methods: list[Method]
    needs: dict[Level, list[str]]
    types: list[str] = msgspec.field(default_factory=list)
    parameters: dict[str, ParameterType] = msgspec.field(default_factory=dict)
    entries: list[str] = msgspec.field(default_factory=list)
    instantiates: str | None = None
    own_right: bool = False
    gives: list[str] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `needs`: for each level it is asked at, the interactions of the type whose rights it takes.

    `instances`: the types of which it can be asked of one resource; `types`: those of which it can be asked at all;
    `own_right`: whether it takes a scope that names it (`system/Patient.$lookup`), and a row of the policy; `entries`: the
    types that the entries of the Bundle it takes may create; `instantiates`: the statement that this service keeps with it;
    `gives`: the media types of its answer, where that is no resource.
    """

    code: str
    definition: str
    methods: tuple[str, ...]
    types: tuple[str, ...]
    instances: frozenset[str]
    needs: Mapping[str, tuple[str, ...]]
    parameters: Mapping[str, ParameterType]
    own_right: bool
    entries: frozenset[str] = frozenset()
    instantiates: str | None = None
    gives: tuple[str, ...] = ()

    @property
    def interaction(self) -> str:
        """What it is called among the interactions."""
        return f"${self.code}"

    @property
    def resource_parameter(self) -> str | None:
        """The parameter that a body stands for which is no Parameters resource."""
        return next((name for name, kind in self.parameters.items() if kind == "Resource"), None)

    @property
    def public_parameters(self) -> list[str]:
        """The parameters that an address may carry: no resource, and nothing that says who somebody is."""
        return [name for name, kind in self.parameters.items() if kind not in ("Resource", "Identifier")]

    def is_offered(self, type_name: str, level: str) -> bool:
        """Whether it can be asked there."""
        if level == "system":
            return level in self.needs
        return level in self.needs and type_name in (self.instances if level == "instance" else self.types)


def read_operations(
    folder: FilePath, types: Types, served: tuple[str, ...], interactions: tuple[str, ...]
) -> dict[str, Operation]:
    """The operations of a folder by code. Raises SchemaError naming file and key.

    `served`: the resource types of the registry, `*` in a file; `interactions`: those whose rights can be needed.
    """
    found = {}
    for file in sorted(folder.glob("*.toml")):
        raw = read_schema(file, _OperationFile)
        if raw.code != file.stem or not _CODE.fullmatch(raw.code):
            raise SchemaError(file, "code", f"'{raw.code}' does not match the file's name")
        for key in ("methods", "needs") if "system" in raw.needs else ("methods", "types", "needs"):
            if not getattr(raw, key):
                raise SchemaError(file, key, "is empty")
        if raw.needs.get("system"):
            raise SchemaError(file, "needs.system", "is no type whose rights could be needed")
        for name in raw.entries:
            if name not in served:
                raise SchemaError(file, "entries", f"'{name}' is not served")
        for level, needed in raw.needs.items():
            for name in needed:
                if name not in interactions:
                    raise SchemaError(file, f"needs.{level}", f"'{name}' is no interaction")
        if sum(kind == "Resource" for kind in raw.parameters.values()) > 1:
            raise SchemaError(file, "parameters", "takes one resource at most")
        found[raw.code] = Operation(
            code=raw.code,
            definition=raw.definition,
            methods=tuple(raw.methods),
            types=tuple(dict.fromkeys(t for name in raw.types for t in _types_of(file, raw, name, types, served))),
            instances=frozenset(t for t in served if t in raw.types or "*" in raw.types),
            needs={level: tuple(needed) for level, needed in raw.needs.items()},
            parameters=raw.parameters,
            own_right=raw.own_right,
            entries=frozenset(raw.entries),
            instantiates=raw.instantiates,
            gives=tuple(raw.gives),
        )
    return found


def _types_of(file: FilePath, raw: _OperationFile, name: str, types: Types, served: tuple[str, ...]) -> tuple[str, ...]:
    if name == "*":
        return served
    if not types.has_resource(name):
        raise SchemaError(file, "types", f"'{name}' is not an R4 resource type")
    if name not in served and raw.needs.get("type") != []:
        raise SchemaError(file, "types", f"'{name}' is not served: no right to it can be needed")
    return (name,)
