"""What holds without any Consent: `schemas/policy.toml` as tables to look things up in.

Knows: the kinds of actor, the base policy (actor × direction × type), who may write what, and who must name a patient.
Must not know: consents, scopes, callers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from gateway.access.entitlement import Entitlements, read_entitlements
from gateway.access.relation import RelationRule
from gateway.access.visibility import LabelRule, Labels, bearing
from gateway.fhir.index import UNKNOWN_LABEL
from gateway.fhir.registry import Registry, ResourceType
from gateway.fhir.type_file import Group
from gateway.fhir.values import token_values
from gateway.schemas import SchemaError, read_schema

RelationKind = Literal["treating_doctor", "emergency", "care_team", "consulted"]
Kind = Literal[
    "patient",
    "proxy",
    "treating_doctor",
    "emergency",
    "care_team",
    "consulted",
    "professional",
    "app",
    "service",
    "operator",
    "feed",
]
RELATION_KINDS: tuple[str, ...] = get_args(RelationKind)  # what a record makes of a professional: no token says so
Direction = Literal["read", "write"]

# What each interaction needs: the letter of a SMART v2 scope, and the direction that consents speak of.
PERMISSIONS: Mapping[str, str] = {
    "read": "r",
    "vread": "r",
    "history-instance": "r",
    "history-type": "s",
    "search-type": "s",
    "create": "c",
    "update": "u",
    "patch": "u",
    "delete": "d",
}
DIRECTIONS: Mapping[str, Direction] = {
    "read": "read",
    "vread": "read",
    "history-instance": "read",
    "history-type": "read",
    "search-type": "read",
    "create": "write",
    "update": "write",
    "patch": "write",
    "delete": "write",
}


class _BaseFile(msgspec.Struct, forbid_unknown_fields=True):
    actors: list[Kind]
    direction: Direction
    groups: list[Group]
    deposited: bool = False


class _WriteFile(msgspec.Struct, forbid_unknown_fields=True):
    groups: list[Group]
    actors: list[Kind]
    interactions: list[Literal["create", "update", "patch", "delete"]]


class _ConsentFile(msgspec.Struct, forbid_unknown_fields=True):
    never_opens: list[Group]


class _ThroughFile(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    by: str
    parameter: str
    actors: list[Kind]


class _SearchFile(msgspec.Struct, forbid_unknown_fields=True):
    patient_required: list[Kind]


class _HistoryFile(msgspec.Struct, forbid_unknown_fields=True):
    actors: list[Kind]


class _DirectoryFile(msgspec.Struct, forbid_unknown_fields=True):
    writers: list[Kind]


class _RecipientsFile(msgspec.Struct, forbid_unknown_fields=True):
    categories: list[str]
    never: list[str]
    type_system: Annotated[str, msgspec.Meta(pattern=r"^[^\s|]+$")]
    never_types: list[Annotated[str, msgspec.Meta(pattern=r"^[^\s|]+\|[^\s|]+$")]]


class _OperationFile(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    actors: list[Kind]


class _RecordFile(msgspec.Struct, forbid_unknown_fields=True):
    closed_to: list[Kind]


class _RelationFile(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    actor: RelationKind
    longest_days: Annotated[int, msgspec.Meta(ge=0)] = 0
    longest_hours: Annotated[int, msgspec.Meta(ge=0)] = 0
    professions: list[str] = msgspec.field(default_factory=list)
    general_practitioner: bool = False
    needs_reason: bool = False
    writes_own: bool = False
    purpose: Annotated[str, msgspec.Meta(pattern=r"^[^\s|]+\|[^\s|]+$")] | None = None


class _CareFile(msgspec.Struct, forbid_unknown_fields=True):
    system: Annotated[str, msgspec.Meta(pattern=r"^[^\s|]+$")]
    most: Annotated[int, msgspec.Meta(ge=1)]
    most_members: Annotated[int, msgspec.Meta(ge=1)]
    remembered_days: Annotated[int, msgspec.Meta(ge=0)]


class _StatementFile(msgspec.Struct, forbid_unknown_fields=True):
    needed_to_read: list[Literal["service", "establishment", "feed"]]
    purposes: list[str]


class _LabelsFile(msgspec.Struct, forbid_unknown_fields=True):
    systems: list[str]
    same: list[list[str]]
    level_system: str
    levels: list[str]
    unknown: str
    most_ends: Annotated[int, msgspec.Meta(ge=1)]
    removed_by: list[Kind | Literal["author"]]


class _LabelFile(msgspec.Struct, forbid_unknown_fields=True):
    system: str
    codes: list[str]
    hidden_from: list[Kind]
    but_author: bool = False
    opened_by_consent: bool = False
    longest_days: Annotated[int, msgspec.Meta(ge=1)] | None = None
    set_by: list[Kind | Literal["author"]] | None = None
    removed_by: list[Kind | Literal["author"]] | None = None


class _PolicyFile(msgspec.Struct, forbid_unknown_fields=True):
    base: list[_BaseFile]
    write: list[_WriteFile]
    consent: _ConsentFile
    through: list[_ThroughFile]
    search: _SearchFile
    history: _HistoryFile
    directory: _DirectoryFile
    recipients: _RecipientsFile
    statement: _StatementFile
    operation: list[_OperationFile]
    record: _RecordFile
    care: _CareFile
    relation: list[_RelationFile]
    labels: _LabelsFile
    label: list[_LabelFile]


@dataclass(frozen=True, slots=True)
class Through:
    """That resources are seen only through those of the type `by` that point at them by this parameter."""

    by: ResourceType
    parameter: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The tables. `holds`: (actor, direction, type) needing no Consent, where the direction `deposited` stands for reading what
    one deposited; `may_write`: (actor, type, interaction).

    `through`: by (actor, type), through what alone it is seen;
    `may_ask`: (actor, operation) where that is a right of its own; `closed_to`: who deposits nothing in a closed record;
    `relations`: those of care that there can be, the strongest first; `most_relations`: how many a record holds at a time, and
    `most_members`: of how many participants each;
    `relations_remembered`: for how long one that has ended is known as such; `recipients`: the categories of recipients that
    there can be; `never_recipients`: those to whom nobody can open anything, `never_types` what a directory calls them.
    """

    holds: frozenset[tuple[str, str, str]]
    may_write: frozenset[tuple[str, str, str]]
    never_opened: frozenset[str]
    through: Mapping[tuple[str, str], Through]
    patient_required: frozenset[str]
    historians: frozenset[str]
    directory_writers: frozenset[str]
    recipients: frozenset[str]
    never_recipients: frozenset[str]
    never_types: frozenset[str]
    statement_needed: frozenset[str]
    statement_purposes: frozenset[str]
    closed_to: frozenset[str]
    may_ask: frozenset[tuple[str, str]]
    labels: Labels
    entitlements: Entitlements
    relations: tuple[RelationRule, ...]
    most_relations: int
    most_members: int
    relations_remembered: timedelta


def read_policy(schemas: Path, registry: Registry) -> Policy:
    """Read `policy.toml`. Raises SchemaError naming the key of anything it does not know."""
    file = schemas / "policy.toml"
    raw = read_schema(file, _PolicyFile)
    for row in raw.operation:
        if not (row.code in registry.operations and registry.operations[row.code].own_right):
            raise SchemaError(file, "operation.code", f"'{row.code}' is no operation that is a right of its own")

    entitlements = read_entitlements(schemas, registry)
    _check_relations(file, raw.relation, entitlements)

    def types_of(groups: list[Group]) -> list[str]:
        return [kind.name for kind in registry.resource_types.values() if kind.group in groups]

    return Policy(
        holds=frozenset(
            (actor, "deposited" if row.deposited else row.direction, name)
            for row in raw.base
            for name in types_of(row.groups)
            for actor in row.actors
        ),
        may_write=frozenset(
            (actor, name, interaction)
            for row in raw.write
            for name in types_of(row.groups)
            for actor in row.actors
            for interaction in row.interactions
        ),
        never_opened=frozenset(types_of(raw.consent.never_opens)),
        through=_through(file, raw.through, registry),
        patient_required=frozenset(raw.search.patient_required),
        historians=frozenset(raw.history.actors),
        directory_writers=frozenset(raw.directory.writers),
        recipients=frozenset(raw.recipients.categories),
        never_recipients=frozenset(raw.recipients.never),
        never_types=_never_types(raw.recipients),
        statement_needed=frozenset(raw.statement.needed_to_read),
        statement_purposes=frozenset(raw.statement.purposes),
        closed_to=frozenset(raw.record.closed_to),
        may_ask=frozenset((actor, row.code) for row in raw.operation for actor in row.actors),
        labels=_labels(file, raw),
        entitlements=entitlements,
        relations=tuple(_relation(raw.care, row) for row in raw.relation),
        most_relations=raw.care.most,
        most_members=raw.care.most_members,
        relations_remembered=timedelta(days=raw.care.remembered_days),
    )


def _through(file: Path, rows: list[_ThroughFile], registry: Registry) -> Mapping[tuple[str, str], Through]:
    found: dict[tuple[str, str], Through] = {}
    for n, row in enumerate(rows):
        seen, by = registry.find(row.type), registry.find(row.by)
        if seen is None or not seen.in_compartment:
            raise SchemaError(file, f"through[{n}].type", f"'{row.type}' is no type of a patient's data")
        if by is None or row.parameter not in by.search or by.search[row.parameter].type != "reference":
            raise SchemaError(
                file, f"through[{n}].parameter", f"'{row.parameter}' is no reference that {row.by} is searched by"
            )
        if ("patient", row.parameter) not in {index[:2] for index in by.indexes}:
            raise SchemaError(file, f"through[{n}].parameter", f"{row.by} has no index of patient and {row.parameter}")
        found |= {(actor, row.type): Through(by, row.parameter) for actor in row.actors}
    return found


def _labels(file: Path, raw: _PolicyFile) -> Labels:
    of = raw.labels
    same = {system: tuple(other for other in group if other != system) for group in of.same for system in group}
    for n, row in enumerate(raw.label):
        if row.system not in of.systems:
            raise SchemaError(file, f"label[{n}].system", "is none of labels.systems")
    if of.unknown not in of.levels:
        raise SchemaError(file, "labels.unknown", "is none of labels.levels")

    def spelled(system: str, codes: list[str]) -> list[str]:
        return [token_values(one, code)[0] for code in codes for one in (system, *same.get(system, ()))]

    levels = {token: n for n, code in enumerate(of.levels) for token in spelled(of.level_system, [code])}
    rules = []
    for row in raw.label:
        tokens = spelled(row.system, row.codes)
        also = [UNKNOWN_LABEL] if token_values(of.level_system, of.unknown)[0] in tokens else []
        rules.append(
            LabelRule(
                tokens=frozenset(tokens),
                bears=bearing([*(token_values(row.system, code)[0] for code in row.codes), *also]),  # (with every spelling)
                hidden_from=frozenset(row.hidden_from),
                but_author=row.but_author,
                opened_by_consent=row.opened_by_consent,
                longest=None if row.longest_days is None else timedelta(days=row.longest_days),
                set_by=None if row.set_by is None else frozenset(row.set_by),
                removed_by=None if row.removed_by is None else frozenset(row.removed_by),
            )
        )
    hiding = {
        actor: (
            tuple(rule for rule in rules if actor in rule.hidden_from and not rule.opened_by_consent),
            tuple(rule for rule in rules if actor in rule.hidden_from and rule.opened_by_consent),
        )
        for actor in get_args(Kind)
    }
    return Labels(frozenset(of.systems), same, levels, frozenset(of.removed_by), tuple(rules), hiding, of.most_ends)


def _never_types(raw: _RecipientsFile) -> frozenset[str]:
    pairs = (text.partition("|") for text in raw.never_types)
    known = (token_values(system, code)[0] for system, _, code in pairs)
    return frozenset((*known, *(token_values(raw.type_system, code)[0] for code in raw.never)))


def _check_relations(file: Path, rows: list[_RelationFile], entitlements: Entitlements) -> None:
    codes: list[str] = []
    for n, row in enumerate(rows):
        for profession in row.professions:
            if profession not in entitlements.documents:
                raise SchemaError(file, f"relation[{n}].professions", f"'{profession}' is no profession of entitlements.toml")
        if row.code in codes:
            raise SchemaError(file, f"relation[{n}].code", f"'{row.code}' stands twice")
        if not row.longest_days + row.longest_hours:
            raise SchemaError(file, f"relation[{n}].longest_days", "a relation has an end: this or longest_hours is needed")
        codes.append(row.code)


def _relation(care: _CareFile, row: _RelationFile) -> RelationRule:
    token = token_values(care.system, row.code)[0]
    longest = timedelta(days=row.longest_days, hours=row.longest_hours)
    who = frozenset(row.professions)
    return RelationRule(
        row.code, token, row.actor, longest, who, row.general_practitioner, row.needs_reason, row.purpose, row.writes_own
    )
