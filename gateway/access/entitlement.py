"""Which profession reads which documents: `schemas/entitlements.toml` as a clause.

Knows: the table, and how professions and types of documents are told by their codes. Must not know: who is calling, relations
of care, Consents.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.fhir.clause import EVERYTHING, Clause, Test, some
from gateway.fhir.registry import Registry, ResourceType
from gateway.fhir.values import token_values
from gateway.schemas import SchemaError, read_schema

_ALL = "*"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    profession_systems: list[str]
    document_systems: list[str]
    parameters: dict[str, str]
    categories: dict[str, list[str]]
    professions: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Entitlements:
    """The table. `professions`: their codes, by `system|code`; `parameters`: which one tells the documents of a type apart;
    `documents`: the tokens of those that a profession reads, None for all.
    """

    professions: Mapping[str, str]
    parameters: Mapping[str, str]
    documents: Mapping[str, tuple[str, ...] | None]

    def professions_among(self, tokens: Iterable[str]) -> frozenset[str]:
        """The professions, by code, that these `system|code` mean."""
        return frozenset(self.professions[token] for token in tokens if token in self.professions)

    def clause(self, kind: ResourceType, professions: Iterable[str]) -> Clause:
        """What of a type these professions read."""
        parameter = self.parameters.get(kind.name)
        if parameter is None:
            return EVERYTHING
        read = [self.documents[one] for one in sorted(professions) if one in self.documents]
        if None in read:
            return EVERYTHING
        tokens = dict.fromkeys(token for documents in read for token in documents or ())
        return some(*(Test(parameter, "is", token) for token in tokens))


def read_entitlements(schemas: Path, registry: Registry) -> Entitlements:
    """Read `entitlements.toml`. Raises SchemaError naming the key of anything it does not know."""
    file = schemas / "entitlements.toml"
    raw = read_schema(file, _File)
    for name, parameter in raw.parameters.items():
        kind = registry.find(name)
        found = kind.search.get(parameter) if kind is not None and kind.in_compartment else None
        if found is None or found.type != "token" or found.any_of:
            raise SchemaError(file, f"parameters.{name}", f"'{parameter}' is no token parameter of a patient's {name}")
    documents: dict[str, tuple[str, ...] | None] = {}
    for profession, categories in raw.professions.items():
        for category in categories:
            if category != _ALL and category not in raw.categories:
                raise SchemaError(file, f"professions.{profession}", f"'{category}' is no category")
        codes = (code for category in categories if category != _ALL for code in raw.categories[category])
        tokens = tuple(token_values(system, code)[0] for code in codes for system in raw.document_systems)
        documents[profession] = None if _ALL in categories else tokens
    professions = {token_values(s, code)[0]: code for code in raw.professions for s in raw.profession_systems}
    return Entitlements(professions, raw.parameters, documents)
