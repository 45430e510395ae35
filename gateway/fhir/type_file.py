"""The shape of `schemas/resources/*.toml`.

Knows: which keys such a file may have. Must not know: what follows from them.
"""

from typing import Any, Literal

import msgspec

SearchType = Literal["token", "date", "reference", "string", "quantity", "number", "uri", "composite"]
InteractionCode = Literal[
    "read", "vread", "history-instance", "history-type", "create", "update", "patch", "delete", "search-type"
]  # https://hl7.org/fhir/R4/valueset-type-restful-interaction.html

# What a type holds, as the policy speaks of it.
Group = Literal["clinical", "device", "identity", "directory", "consent", "care", "audit"]


class SearchFile(msgspec.Struct, forbid_unknown_fields=True):
    """`[search.NAME]`.

    `aliases`: other names of the same; `absent`: of a token, what it means that there is none; `through`: the parameters by
    which what is contained leads on to other contained resources that count as well; `targets`: of a reference, which types it
    may name, where the standard says so elsewhere than at the element.
    """

    type: SearchType
    path: str | list[str] | None = None
    any_of: list[str] = msgspec.field(default_factory=list)
    of: list[str] = msgspec.field(default_factory=list)
    modifiers: list[Literal["text", "of-type"]] = msgspec.field(default_factory=list)
    system: str | None = None
    definition: str | None = None
    contained: list[str] = msgspec.field(default_factory=list)
    through: list[str] = msgspec.field(default_factory=list)
    targets: list[str] = msgspec.field(default_factory=list)
    aliases: list[str] = msgspec.field(default_factory=list)
    absent: str | None = None


class ConsentFile(msgspec.Struct, forbid_unknown_fields=True):
    """`[consent]`: the parameters that Consents speak of as code and date; `parts`: searches (`name=value`) that people are
    offered in place of all of the type.
    """

    code: str | None = None
    date: str | None = None
    parts: list[str] = msgspec.field(default_factory=list)


class EquivalentFile(msgspec.Struct, forbid_unknown_fields=True):
    """`[[equivalent]]`: codes of a parameter that say the same; `where`: the element that what bears them must have."""

    parameter: str
    codes: list[str]
    where: str | None = None


class LifecycleFile(msgspec.Struct, forbid_unknown_fields=True):
    """`[lifecycle]`: what happens to a resource of the type once it has been deposited.

    `changes`: the elements that may change, and of its extensions those with these urls (`change_extensions`); `status`: the
    element that says where it stands, `current`, `superseded` and `withdrawn` its codes for that; `replaces`: the path to what
    one of them takes the place of.
    """

    changes: list[str]
    status: str
    current: str
    superseded: str
    withdrawn: str
    replaces: str
    change_extensions: list[str] = msgspec.field(default_factory=list)


class TypeFile(msgspec.Struct, forbid_unknown_fields=True):
    """The file.

    `unique`: the token parameters, or paths of Identifiers, by which a resource is known again. `described`: the path to the
    identifiers of its patient that it has of its own, which must not be those of somebody else.

    `attachments`: paths of Attachments whose content may lie here; `raw`: whether it is such content itself, whose bytes are
    kept apart and read through what attaches it; `withheld`: paths of References that are shown to those alone who may read
    what they lead to; `requires`: the parameters one of which a search must name; `matched_by`:
    those by which alone a condition, or a reference by search, may find one.
    """

    type: str
    group: Group
    interactions: list[InteractionCode]
    patient: str
    patient_required: bool = True
    sort: list[str] = msgspec.field(default_factory=lambda: ["_lastUpdated"])
    unique: list[str] = msgspec.field(default_factory=list)
    natural: list[str] = msgspec.field(default_factory=list)
    indexes: list[list[str]] = msgspec.field(default_factory=list)
    profiles: list[str] = msgspec.field(default_factory=list)
    labels: list[str] = msgspec.field(default_factory=list)
    attachments: list[str] = msgspec.field(default_factory=list)
    raw: bool = False
    withheld: list[str] = msgspec.field(default_factory=list)
    scope_parameters: list[str] = msgspec.field(default_factory=list)
    instantiates: list[str] = msgspec.field(default_factory=list)
    matched_by: list[str] = msgspec.field(default_factory=list)
    requires: list[str] = msgspec.field(default_factory=list)

    described: str | None = None
    lifecycle: LifecycleFile | None = None
    consent: ConsentFile = msgspec.field(default_factory=ConsentFile)
    equivalent: list[EquivalentFile] = msgspec.field(default_factory=list)
    search: dict[str, Any] = msgspec.field(default_factory=dict)
