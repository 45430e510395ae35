"""The registry: what is declared of every resource type the gateway serves. Everything else about a type follows from here.

Knows: types, their search parameters and operations, as values. Must not know: how files become them (`registry_reading.py`),
HTTP, MongoDB, who is calling.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.fhir.equivalents import Table
from gateway.fhir.hierarchy import Hierarchy
from gateway.fhir.known import Key
from gateway.fhir.lifecycle import Lifecycle
from gateway.fhir.operations import Operation
from gateway.fhir.path import Branch
from gateway.fhir.profiles import Profile
from gateway.fhir.type_file import Group, SearchType
from gateway.fhir.types import Types
from gateway.fhir.values import Convert

# Search parameters of every type (https://hl7.org/fhir/R4/search.html#all); their values stand beside `search`.
COMMON_PARAMETERS: Mapping[str, SearchType] = {
    "_id": "token",
    "_lastUpdated": "date",
    "_security": "token",
}


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """One search parameter of a type.

    `readers`: for each branch of its path, the branch and the conversion to index values. `targets`: for references, the
    types they may name. `system`: what a bare code element means when a client does send a system. `field`: `patient`
    where the parameter names the patient the resource belongs to, else None. `any_of`: the parameters it stands for together.
    `contained`: the parameters by which a contained resource that it leads to is found; `through`: those of such a resource
    that lead on to others, which count as well. `absent`: what it means that there is no value. `of`: the parameters whose
    values a composite one pairs. `modifiers`: those it takes beside what its type does. `levels`: of its system's codes.
    """

    name: str
    type: SearchType
    readers: tuple[tuple[Branch, Convert], ...] = ()
    targets: tuple[str, ...] = ()
    system: str | None = None
    definition: str | None = None
    field: str | None = None
    any_of: tuple[str, ...] = ()
    contained: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    modifiers: frozenset[str] = frozenset()
    levels: Hierarchy | None = None
    through: tuple[str, ...] = ()
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class ResourceType:
    """All that is declared of one type.

    `patient`: the branches to the element that says whose data this is, and its path. `keys`: where the identifiers of `unique`
    stand, and how they are read; `described`: its own identifiers of its patient; `natural`: the elements by which what has
    no identifier of its sender is known again. `attachments`: the branches to what may lie here as content; `is_raw`: whether
    it is such content, whose bytes are kept apart and read through what attaches it. `withheld`: the ways to
    links that are shown to those alone who may read what they lead to. `aliases`: other names of its
    parameters; `requires`, `matched_by`: those one of which a search names, and alone a condition; `equivalents`: equal codes;
    `instantiates`: the statements of others that this service keeps with it.
    """

    name: str
    group: Group
    interactions: frozenset[str]
    patient: tuple[Branch, ...]
    patient_path: str | None
    is_patient: bool
    patient_required: bool
    sort: tuple[str, ...]
    unique: tuple[str, ...]
    natural: tuple[tuple[Branch, ...], ...]
    indexes: tuple[tuple[str, ...], ...]
    profiles: tuple[str, ...]
    labels: tuple[Branch, ...]
    scope_parameters: frozenset[str]
    consent_code: str | None
    consent_date: str | None
    consent_parts: tuple[str, ...]
    search: Mapping[str, SearchParameter] = field(repr=False)
    attachments: tuple[Branch, ...] = ()
    attachment_paths: tuple[str, ...] = ()
    is_raw: bool = False
    withheld: tuple[tuple[str, ...], ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    instantiates: tuple[str, ...] = ()
    matched_by: frozenset[str] = frozenset()
    equivalents: Table = field(default_factory=dict, repr=False)
    keys: tuple[Key, ...] = field(default=(), repr=False)
    lifecycle: Lifecycle | None = None
    described: tuple[Branch, ...] = ()
    described_path: str | None = None

    @property
    def in_compartment(self) -> bool:
        """Whether resources of this type belong to a patient (the Patient itself does)."""
        return self.is_patient or bool(self.patient)

    @property
    def bears_labels(self) -> bool:
        """Whether labels hide single ones of a patient's. (Content is hidden by what attaches it, events by what they name.)"""
        return bool(self.patient) and not self.is_raw and self.group != "audit"

    @property
    def owner(self) -> str:
        """The parameter that says whose a resource is. A Patient is their own, and is found by id like all."""
        return "_id" if self.is_patient else "patient"


@dataclass(frozen=True, slots=True)
class Registry:
    """Every type that is served, with the derived types and profiles they stand on, and every operation."""

    types: Types
    resource_types: Mapping[str, ResourceType]
    profiles: Mapping[str, Profile]
    operations: Mapping[str, Operation]

    def find(self, name: str) -> ResourceType | None:
        """The type of that name, None where it is not served."""
        return self.resource_types.get(name)

    def __getitem__(self, name: str) -> ResourceType:
        return self.resource_types[name]

    @property
    def holders(self) -> tuple[ResourceType, ...]:
        """The types through which content is read."""
        return tuple(kind for kind in self.resource_types.values() if kind.attachments)
