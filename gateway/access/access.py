"""`Access`: everything one caller may do in this request, as clauses.

Knows: how scopes, base policy and live consents combine: `All(scopes, Any(base, permits), Not(denies))`.
Must not know: HTTP, MongoDB, how a token was checked. An Access lives for one request; nothing of it is kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from gateway.access.policy import DIRECTIONS, PERMISSIONS, Policy, Through
from gateway.access.record import NOTHING_PREFETCHED, Caller, Prefetched, Record
from gateway.access.relation import Relation
from gateway.access.rights import Rights, reason_of
from gateway.access.scope import scope_clause
from gateway.fhir.clause import (
    EVERYTHING,
    NOTHING,
    All,
    Clause,
    Not,
    Test,
    Values,
    every,
    matches,
    negate,
    parameters_of,
    some,
)
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.registry import Registry, ResourceType
from gateway.problem import Problem

NOTHING_SEEN: Mapping[str, frozenset[str]] = MappingProxyType({})

__all__ = ["NOTHING_PREFETCHED", "Access", "Caller", "Prefetched", "Record", "unknown_reference"]


class Access:
    """The limits of a caller over the records that this request is about."""

    __slots__ = (
        "_allowed",
        "_cache",
        "_in_scope",
        "_policy",
        "_registry",
        "_rights",
        "_seen",
        "_sought",
        "absent",
        "caller",
        "now",
        "prefetched",
        "records",
    )

    def __init__(
        self,
        caller: Caller,
        registry: Registry,
        policy: Policy,
        now: datetime,
        records: Iterable[Record] = (),
        prefetched: Prefetched = NOTHING_PREFETCHED,
        absent: frozenset[str] = frozenset(),
        seen: Mapping[str, frozenset[str]] = NOTHING_SEEN,
    ) -> None:
        self.caller = caller
        self.absent = absent  # patients who were looked up, and are not here
        self.prefetched = prefetched
        self.now = now
        self.records: Mapping[str, Record] = {record.patient: record for record in records}
        self._registry = registry
        self._policy = policy
        self._rights = Rights(caller, registry, policy, now)
        self._cache: dict[tuple[str, str], Clause] = {}
        self._in_scope: dict[tuple[str, str], Clause] = {}
        self._allowed: set[tuple[str, str]] = set()
        self._seen = dict(seen)  # by type: the ids of what was found to be seen through something else
        self._sought: set[str] = set()  # the types of which all such are known

    def over(self, records: Iterable[Record], absent: Iterable[str] = ()) -> "Access":
        """The same caller's access over these records as well. `absent`: who was looked up with them, and is not here."""
        known = (*self.records.values(), *records)
        missing = self.absent.union(absent)
        return Access(self.caller, self._registry, self._policy, self.now, known, self.prefetched, missing, self._seen)

    def looking_at(self, resources: Mapping[str, Values | None], contents: Mapping[str, Any] | None = None) -> "Access":
        """The same access with these documents read beforehand as well, and contents that are behind its own door."""
        read = self.prefetched
        prefetched = Prefetched({**read.resources, **resources}, read.known, {**read.contents, **(contents or {})})
        records = self.records.values()
        return Access(self.caller, self._registry, self._policy, self.now, records, prefetched, self.absent, self._seen)

    def afresh(self) -> "Access":
        """The same access without what was read beforehand, which has turned out to be outdated."""
        return Access(self.caller, self._registry, self._policy, self.now, self.records.values())

    def require(self, kind: ResourceType, interaction: str) -> None:
        """Refuse with 403, before any data is touched, what no scope or nobody of this kind of actor can ever do."""
        if (kind.name, interaction) in self._allowed:
            return
        if self.scopes(kind, interaction) == NOTHING:
            letter = PERMISSIONS[interaction]
            needed = " or ".join(f"{level}/{kind.name}.{letter}" for level in ("patient", "user", "system"))
            challenge = f'Bearer realm="fhir", error="insufficient_scope", scope="{needed.split()[0]}"'
            raise Problem(
                "forbidden",
                f"the token's scopes do not allow this: {needed} is needed",
                headers={"WWW-Authenticate": challenge},
            )
        if DIRECTIONS[interaction] == "write" and not self._is_writer(kind, interaction):
            raise Problem("forbidden", f"{kind.name} is not written by this kind of actor ({self.caller.kind})")
        self._allowed.add((kind.name, interaction))

    def is_offered(self, interaction: str) -> bool:
        """Whether there is such an interaction for this kind of actor at all."""
        return interaction not in ("history-type", "history-system") or self.caller.kind in self._policy.historians

    def require_operation(self, type_name: str, code: str) -> None:
        """Refuse with 403 an operation that is a right of its own, where scopes or policy do not give it."""
        needed = f"${code}"
        if not any(scope.type == type_name and needed in scope.permissions for scope in self.caller.scopes):
            scope = f"system/{type_name}.{needed}"
            challenge = f'Bearer realm="fhir", error="insufficient_scope", scope="{scope}"'
            text = f"the token's scopes do not allow this: user/{type_name}.{needed} or {scope} is needed"
            raise Problem("forbidden", text, headers={"WWW-Authenticate": challenge})
        if (self.caller.kind, code) not in self._policy.may_ask:
            raise Problem("forbidden", f"${code} is not for this kind of actor ({self.caller.kind})")

    def is_in_scope(self, kind: ResourceType, interaction: str) -> bool:
        """Whether any scope of the token speaks of this interaction with this type."""
        return self.scopes(kind, interaction) != NOTHING

    def scopes(self, kind: ResourceType, interaction: str) -> Clause:
        """What the scopes alone allow, whatever the rights."""
        key = (kind.name, interaction)
        if key not in self._in_scope:
            scopes = self.caller.scopes
            if kind.is_raw:  # a scope that speaks of what attaches content speaks of the content
                held = {holder.name for holder in self._registry.holders}
                scopes += tuple(replace(s, type=kind.name, filters=EVERYTHING) for s in scopes if s.type in held)
            self._in_scope[key] = scope_clause(scopes, kind, PERMISSIONS[interaction], self._persons())
        return self._in_scope[key]

    def clause(self, kind: ResourceType, interaction: str) -> Clause:
        """The row filter of an interaction: scopes and rights."""
        key = (kind.name, interaction)
        if key not in self._cache:
            self._cache[key] = every(self.scopes(kind, interaction), self.rights(kind, DIRECTIONS[interaction]))
        return self._cache[key]

    def admits(self, kind: ResourceType, interaction: str, values: Values) -> bool:
        """Whether the resource with these index values is inside the row filter."""
        return matches(self.clause(kind, interaction), values)

    def parameters_weighed(self, kind: ResourceType, interaction: str) -> set[str]:
        """The parameters whose values `admits` and `refusal` look at."""
        limits = (self.clause(kind, interaction), self.scopes(kind, interaction), self.rights(kind, "read"))
        return set[str]().union(*map(parameters_of, limits))

    def reaches(self, kind: ResourceType, interaction: str, patient: str | None) -> bool:
        """Whether there can be anything for the caller to find, in the record of this patient or (None) anywhere."""
        is_keeper = self.caller.kind in ("operator", "feed")
        if patient is None or patient not in self.records or is_keeper:
            return self._opened(kind, interaction) != NOTHING
        # (What belongs to nobody is found by all: that is no right to what is this patient's.)
        has_unowned = not kind.is_patient and not kind.patient_required
        if len(self.records) == 1 and not (has_unowned and kind.in_compartment):
            return self._opened(kind, interaction) != NOTHING
        records = (self.records[one] for one in self.ids_of(patient) if one in self.records)
        rights = some(*(self._of_record(record, kind, DIRECTIONS[interaction]) for record in records))
        return every(self.scopes(kind, interaction), rights) != NOTHING

    def _opened(self, kind: ResourceType, interaction: str) -> Clause:
        """The row filter without what the caller deposited, which says nothing of the record."""
        if self.caller.kind != "professional":
            return self.clause(kind, interaction)
        return every(self.scopes(kind, interaction), self.rights(kind, DIRECTIONS[interaction], deposits=False))

    def opens_anything(self) -> bool:
        """Whether there is anything at all in the record in the token's context that it may reach; of others nobody asks."""
        records = [self.records[one] for one in self._persons() if one in self.records]
        if self.caller.patient is None or self.caller.kind == "patient":
            return True
        kinds = [kind for kind in self._registry.resource_types.values() if kind.in_compartment]
        return any(
            every(self.scopes(kind, interaction), self._of_record(record, kind, DIRECTIONS[interaction])) != NOTHING
            for record in records
            for kind in kinds
            for interaction in kind.interactions
        )

    def opens(self, record: Record) -> bool:
        """Whether there is anything in this record that the caller has a right to read."""
        owned = (kind for kind in self._registry.resource_types.values() if kind.in_compartment)
        is_keeper = self.caller.kind in ("operator", "feed")
        return is_keeper or any(self._of_record(record, kind, "read") != NOTHING for kind in owned)

    def told(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """A stored event of the audit without what it names that is hidden from the caller."""
        record = self.records.get(event.get("patient") or "")
        return self._rights.told(record, event) if record is not None else event

    def hiding(self, kind: ResourceType) -> dict[str, Clause]:
        """What is to be looked up before this log is read, by type: what labels hide from the caller without an end."""
        records = self.records.values() if kind.name == "AuditEvent" else ()
        mine = [r for r in records if self._rights.is_unknown(r) and self._of_record(r, kind, "read") != NOTHING]
        kinds = [one for one in self._registry.resource_types.values() if one.bears_labels] if mine else []
        return {k.name: some(*(self._rights.hidden_for_good(r, k, self._persons()) for r in mine)) for k in kinds}

    def hide(self, kind: ResourceType, documents: Iterable[Mapping[str, Any]]) -> None:
        """Take note of what was found of that, which the log does not name."""
        self._rights.hide(documents)
        self._cache = {key: clause for key, clause in self._cache.items() if key[0] != kind.name}

    def ends_of_labels(self, record: Record) -> list[datetime]:
        """When something in this record ceases to be hidden from the caller by a label that hides for a time."""
        named = {one["type"]: self._registry.find(one["type"]) for one in record.ends.values()}
        kinds = [kind for kind in named.values() if kind is not None]
        hidden = {kind.name for kind in kinds if "_hiddenUntil" in parameters_of(self.clause(kind, "search-type"))}
        return [one["end"] for one in record.ends.values() if one["type"] in hidden]

    def standing_in(self, record: Record) -> tuple[str, Relation | None]:
        """Whether the caller has access to this record: `valid`, `expired` (with what ran out) or `none`."""
        if self.opens(record):
            return "valid", self._rights.relation_in(record)
        ended = self._rights.last_relation_in(record)
        refuses = ended is None or all(
            self._rights.refuses_all(record, kind) for kind in self._registry.resource_types.values() if kind.in_compartment
        )
        return ("none", None) if refuses else ("expired", ended)

    def ids_of(self, patient: str) -> tuple[str, ...]:
        """All ids of the person whom this patient id means."""
        record = self.records.get(patient)
        return record.merged if record is not None and record.merged else (patient,)

    def survivor_of(self, patient: str) -> str | None:
        """The Patient that stands in place of this one, None where it stands for itself."""
        record = self.records.get(patient)
        return record.survivor if record is not None and record.is_replaced else None

    def meant(self, kind: ResourceType, asked: Clause) -> Clause:
        """A search with each patient in it meant as a person: all whose data is theirs, under whatever id."""
        if not any(record.merged for record in self.records.values()):
            return asked
        return self._meant(kind, asked)

    def _meant(self, kind: ResourceType, asked: Clause) -> Clause:
        match asked:
            case All(of):
                return every(*(self._meant(kind, part) for part in of))
            case AnyOf(of):
                return some(*(self._meant(kind, part) for part in of))
            case Not(part):
                return negate(self._meant(kind, part))
            case Test("_id", "is", value) if kind.is_patient:
                return Test("_id", "is", self.survivor_of(value) or value)
            case Test("patient", "is", value):
                return some(*(Test("patient", "is", one) for one in self.ids_of(value)))
            case _:
                return asked

    def rights(self, kind: ResourceType, direction: str, *, deposits: bool = True) -> Clause:
        """What base policy and consents allow, whatever the scopes. `deposits`: with what the caller deposited."""
        if self.caller.kind in ("operator", "feed") and kind.in_compartment:
            owned: Clause = EVERYTHING if (self.caller.kind, direction, kind.name) in self._policy.holds else NOTHING
        else:
            deposits = deposits and direction == "read"
            owned = some(*(self._of_record(one, kind, direction, deposits=deposits) for one in self.records.values()))
        if direction == "read" and self.through(kind) is not None:
            owned = every(owned, some(*(Test("_id", "is", one) for one in sorted(self._seen.get(kind.name, ())))))
        if kind.is_patient or kind.patient_required:
            return owned
        directory = direction == "read" or self.caller.kind in self._policy.directory_writers
        unowned: Clause = EVERYTHING if not kind.in_compartment else Test("patient", "missing", True)
        return some(owned, unowned if directory else NOTHING)

    def through(self, kind: ResourceType) -> Through | None:
        """Through what alone the caller sees resources of this type that belong to a patient, None where that is no matter.

        None of them is there for the caller until it was found out (`see`) which those are.
        """
        return self._policy.through.get((self.caller.kind, kind.name))

    def unseen(self, kind: ResourceType) -> Clause:
        """What the caller might see of such a type, were it seen through something; nothing where all of it is known."""
        if kind.name in self._sought:
            return NOTHING
        return some(*(self._of_record(record, kind, "read") for record in self.records.values()))

    def see(self, kind: ResourceType, ids: Iterable[str], *, are_all: bool) -> bool:
        """Take note of what is seen through something else; returns whether any of it was not known before."""
        known = self._seen.get(kind.name, frozenset())
        self._seen[kind.name] = known.union(ids)
        if are_all:
            self._sought.add(kind.name)
        self._cache = {key: clause for key, clause in self._cache.items() if key[0] != kind.name}
        return self._seen[kind.name] != known

    def referable(self, kind: ResourceType) -> Clause:
        """What the caller may point at: what it may read, and what it deposited itself."""
        return some(self.rights(kind, "read"), self._deposited(kind))

    def knows(self, kind: ResourceType, values: Values) -> bool:
        """Whether the caller may learn what the resource with these index values says, as whoever patches it does.

        That is who may read it, and who deposited it as long as nobody else has written to it.
        """
        if not kind.in_compartment or self.admits(kind, "read", values):
            return True
        return not values.get("touched") and matches(self._deposited(kind), values)

    def is_depositor(self, values: Values) -> bool:
        """Whether the caller deposited the resource with these values: a professional whatever software was used."""
        depositor = values.get("depositor")
        return depositor in self.caller.actors if depositor is not None else values["source"] == self.caller.source

    def is_of_another(self, values: Values) -> bool:
        """Whether somebody else deposited the resource with these values, or the same person by other software."""
        me = self.caller.depositor
        return values["source"] != self.caller.source or (me is not None and values.get("depositor") != me)

    def withdrawable(self, kind: ResourceType) -> Clause:
        """What the caller deposited, and takes back as a mistake: whatever patients permit by now, it is not of theirs.

        A professional it is by person, whatever software was used; others by the service.
        """
        return every(self.scopes(kind, "update"), self.authored(kind))

    def authored(self, kind: ResourceType) -> Clause:
        """What the caller deposited, whatever the scopes of the token."""
        if self.caller.kind == "professional":
            owned = some(*(Test(kind.owner, "is", patient) for patient in self.records))
            me = self.caller.depositor
            return every(owned, Test("_depositor", "is", me)) if me is not None else NOTHING
        return every(self._deposited(kind), Test("_depositor", "missing", True))

    def _deposited(self, kind: ResourceType) -> Clause:
        """What the caller deposited itself in the records it asks about: a professional by person, as all share software."""
        is_carer = self.caller.kind == "professional"
        own = self._rights.deposited_by_me() if is_carer else Test("_source", "is", self.caller.source)
        # Patients share the portal they use, and the phones of many the same app: what another one sent is not theirs.
        only = self.caller.patient if self.caller.kind in ("patient", "proxy", "app") else None
        mine = (
            every(own, Test(kind.owner, "is", patient), self._rights.seen_of(record, kind))
            for patient, record in self.records.items()
            if only in (None, patient)
        )
        return some(*mine) if kind.in_compartment else NOTHING

    def matchable(self, kind: ResourceType) -> Clause:
        """What a condition (`If-None-Exist`) may find: the search filter, widened by the caller's own deposits."""
        return every(self.scopes(kind, "search-type"), self.referable(kind))

    def refusal(self, kind: ResourceType, interaction: str, values: Values, expression: str) -> Problem:
        """Why a write that `clause` does not admit is refused.

        The reason is told to an app that the patient has once named in a Consent. Everybody else gets the answer for a
        patient that does not exist.
        """
        patient = values.get("patient")
        record = self.records.get(patient or "")
        known = patient is None or patient == self.caller.patient or matches(self.rights(kind, "read"), values)
        if known and not matches(self.scopes(kind, interaction), values):
            return Problem("forbidden", "the resource is outside what the token's scopes allow", kind.name)
        if patient == self.caller.patient and self.caller.kind == "proxy":
            return Problem("forbidden", "the patient's consents or the rules for proxies do not allow this", expression)
        named = [c for c in record.consents if c.actors & self.caller.actors] if record is not None else []
        if named and self.caller.kind in ("app", "service"):
            return Problem("forbidden", reason_of(named, self.now), expression)
        return unknown_reference(expression)

    def kind_of_actor(self, record: Record) -> str:
        """The caller's kind towards this record: a professional with a care relation to it is of that relation's kind."""
        return self._rights.kind_of_actor(record)

    def purpose_of(self, actor: str) -> str | None:
        """What the access of the caller, being of this kind, is for: as its relation of care says, or else the token."""
        return self._rights.purpose_of(actor) or self.caller.purpose

    def _is_writer(self, kind: ResourceType, interaction: str) -> bool:
        kinds = {self.caller.kind, *(self.kind_of_actor(record) for record in self.records.values())}
        return any((actor, kind.name, interaction) in self._policy.may_write for actor in kinds)

    def _of_record(self, record: Record, kind: ResourceType, direction: str, *, deposits: bool = False) -> Clause:
        return self._rights.of_record(record, kind, direction, self._persons(), deposits=deposits)

    def _persons(self) -> tuple[str, ...]:
        """All ids of the patient in context."""
        return self.ids_of(self.caller.patient) if self.caller.patient is not None else ()


def unknown_reference(expression: str) -> Problem:
    """The one answer for a target that does not exist, is somebody else's or may not be seen."""
    return Problem("not-found", "what is referred to is not known here or may not be used", expression, status=422)
