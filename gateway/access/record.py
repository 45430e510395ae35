"""Who calls, and what is known of the records that a request is about: what rights are worked out from.

Knows: what a token says and what stands in a record. Must not know: what anybody may do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gateway.access.consent import Consent
from gateway.access.relation import Kept, Relation
from gateway.access.scope import Scope
from gateway.fhir.clause import Values


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the token says.

    `client`: the client id; `source`: the catalogue service it belongs to, stable over its clients; `kind`: a kind of actor
    of the policy; `actors`: the references a Consent names this caller by; `software`: references of the software used, where
    that is somebody else; `user`: who logged in; `patient`: the patient in context; `purpose`: purpose of use as
    `system|code`; `token`: what may identify the token in an audit, never the token; `subject`: the issuer of a token that is
    not ours, and whom it is of there; `terms_since`: from when on a permission given to it counts, None for all: what it wants
    data for was another thing before; `roles`, `organization`: as what and where who is behind an establishment's call acts;
    `professions`: what a professional is, by the codes of `entitlements.toml`.
    """

    client: str
    source: str
    kind: str
    actors: frozenset[str]
    software: frozenset[str]
    user: str | None
    patient: str | None
    scopes: tuple[Scope, ...]
    purpose: str | None
    token: str
    subject: tuple[str, ...] = ()
    terms_since: datetime | None = None
    roles: tuple[str, ...] = ()
    professions: frozenset[str] = frozenset()
    organization: str | None = None

    @property
    def depositor(self) -> str | None:
        """By which reference what a professional deposits is known as theirs: the person, or who deposits by itself."""
        if self.kind != "professional":
            return None
        return self.user or self.organization or min(self.actors, default=None)

    @classmethod
    def operator(cls, client: str, source: str, scopes: tuple[Scope, ...], token: str) -> "Caller":
        """An operator at the machine itself, who bears no token: `token` is what the audit calls that."""
        nobody: frozenset[str] = frozenset()
        return cls(client, source, "operator", nobody, nobody, None, None, scopes, None, token)


@dataclass(frozen=True, slots=True)
class Record:
    """What is known, at this moment, of the record of one patient: its consents and who treats the patient.

    `care_team`: whom the Patient names as general practitioner; `relations`: those of care that are declared of the caller,
    ended ones too; `declared`: those of everybody, as they are kept. `wide`: the types of which it holds resources whose dates
    cover more than a common span. `ends`: by resource, its type and until when a label hides it. `moment`: number and time of
    its last commit. `born`: the birth date, as far as it is known. `closed`: whether the Patient is no longer active. Where
    several records are of one person: `survivor`, the patient that stands for it now; `linked`, the others that this one's
    Patient names; and, once those have been looked up, `merged`, all of them; `elsewhere`, the consents given in the others,
    whose denials hold here too.
    """

    patient: str
    consents: tuple[Consent, ...] = ()
    care_team: frozenset[str] = frozenset()
    relations: tuple[Relation, ...] = ()
    declared: Kept = field(default_factory=dict)
    wide: frozenset[str] = frozenset()
    ends: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    moment: tuple[int, datetime] | None = None
    closed: bool = False
    born: str | None = None
    survivor: str | None = None
    linked: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    elsewhere: tuple[Consent, ...] = ()

    @property
    def is_replaced(self) -> bool:
        """Whether another record stands for this person now."""
        return self.survivor not in (None, self.patient)


@dataclass(frozen=True, slots=True)
class Held:
    """What belongs to a content: everything that attaches it, whoever may read that, and the stored key of its patient."""

    attaching: tuple[Mapping[str, Any], ...]
    key: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Prefetched:
    """Documents that were read together with the token, because the request names them.

    They are for the store alone, which gives them out only through a clause of the Access, like any other.
    `resources`: by `Type/id`, None where there is none; `known`: by the first part of a business key, of every source;
    `contents`: those that have passed the door of this very Access, None for what has not; `held`: where one of `resources` is
    content, what belongs to that.
    """

    resources: Mapping[str, Values | None]
    known: Mapping[bytes, tuple[Values, ...]]
    contents: Mapping[str, Any] = field(default_factory=dict)
    held: Held | None = None


NOTHING_PREFETCHED = Prefetched({}, {})
