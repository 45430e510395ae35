"""What base policy and live consents allow in one record, whatever the scopes: `All(own, Any(base, permits), Not(denies))`.

Knows: how a relation of care, the tables of the policy and the patient's Consents combine.
Must not know: scopes, other records.
"""

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from gateway.access.consent import Consent, Situation, consent_clauses
from gateway.access.policy import RELATION_KINDS, Policy
from gateway.access.record import Caller, Record
from gateway.access.relation import Relation
from gateway.access.visibility import NOTHING_HIDDEN, Hidden, LabelRule
from gateway.fhir.clause import EVERYTHING, NOTHING, Clause, Test, every, negate, some, without_version
from gateway.fhir.registry import Registry, ResourceType


class Rights:
    """The rights of one caller at one moment."""

    __slots__ = ("_caller", "_for_good", "_hiding", "_mine", "_now", "_policy", "_registry")

    def __init__(self, caller: Caller, registry: Registry, policy: Policy, now: datetime) -> None:
        self._caller, self._registry, self._policy, self._now = caller, registry, policy, now
        self._mine: Clause | None = None
        self._hiding: dict[tuple[str, bool], Hidden] = {}
        self._for_good: frozenset[str] | None = None  # what labels hide without an end, once that was looked up

    def kind_of_actor(self, record: Record) -> str:
        """The caller's kind towards this record: for a professional, that of the strongest relation of care that is running."""
        caller = self._caller
        if caller.kind != "professional" or not (record.relations or record.care_team):
            return caller.kind
        held = {relation.code for relation in record.relations if relation.is_of(caller.actors, self._now)}
        is_named = bool(caller.actors & record.care_team)
        for rule in self._policy.relations:
            # (Where an Organization is named, not everybody who works there is of that profession.)
            fits = not rule.professions or not rule.professions.isdisjoint(caller.professions)
            if fits and (rule.code in held or (is_named and rule.is_general_practitioner)):
                return rule.actor
        return caller.kind

    def purpose_of(self, actor: str) -> str | None:
        """What every access of who is of this kind is for, as the relation of care says that makes them so; else None."""
        rules = self._policy.relations if actor in RELATION_KINDS else ()
        return next((rule.purpose for rule in rules if rule.actor == actor), None)

    def relation_in(self, record: Record) -> Relation | None:
        """The declared relation of care that makes the caller what they are to this record; None where none was declared."""
        actor = self.kind_of_actor(record)
        codes = {rule.code for rule in self._policy.relations if rule.actor == actor}
        running = [r for r in record.relations if r.code in codes and r.is_of(self._caller.actors, self._now)]
        return max(running, key=lambda relation: relation.period.high, default=None)

    def last_relation_in(self, record: Record) -> Relation | None:
        """The relation of care that ran out last, as far as that is remembered."""
        since = self._now - self._policy.relations_remembered
        ended = [relation for relation in record.relations if since < relation.period.high <= self._now]
        return max(ended, key=lambda relation: relation.period.high, default=None)

    def refuses_all(self, record: Record, kind: ResourceType) -> bool:
        """Whether the patient's Consents deny the caller to read anything of this type."""
        consents = (*record.consents, *record.elsewhere)
        return some(*(deny for _, _, deny in self._effects(consents, kind, "read"))) == EVERYTHING

    def of_record(
        self, record: Record, kind: ResourceType, direction: str, persons: Sequence[str], *, deposits: bool = False
    ) -> Clause:
        """What the caller may read, or write, of a type in this record. `persons`: all ids of the patient in context.

        `deposits`: with what the caller deposited, which is no right to the record.
        """
        own: Clause = Test(kind.owner, "is", record.patient)
        if kind.is_raw:
            # Content is read through what attaches it, never as such; who may write any of that deposits it.
            is_writer = direction == "write" and any(
                self.of_record(record, holder, "write", persons) != NOTHING for holder in self._registry.holders
            )
            return own if is_writer else NOTHING
        actor = self.kind_of_actor(record)
        holds = (actor, direction, kind.name) in self._policy.holds
        if actor in ("patient", "proxy") and not self._is_of_caller(record, actor, persons):
            holds = False
        hidden = self._hidden(kind, actor) if direction == "read" else NOTHING_HIDDEN
        if kind.group == "audit":  # (what is hidden leaves no trace in their log as long as it is)
            own = every(own, self._beyond_hidden(record))
        if actor == "patient":
            # nobody's Consent stands between patients and their own record
            return every(own, negate(some(hidden.closed, hidden.open))) if holds else NOTHING
        permits: list[Clause] = [every(self._base(kind, direction, actor), negate(hidden.open))] if holds else []
        denies = [self._limits_of_proxies()] if (actor, direction, kind.group) == ("proxy", "write", "consent") else []
        can_open = kind.name not in self._policy.never_opened
        for consent, permit, deny in self._effects(record.consents, kind, direction, hidden):
            permits.append(permit if can_open and not consent.is_outdated else NOTHING)
            denies.append(deny)
        denies += (deny for _, _, deny in self._effects(record.elsewhere, kind, direction))
        if deposits and (self._caller.kind, "deposited", kind.name) in self._policy.holds:
            permits.append(self.deposited_by_me())
        return every(own, some(*permits), negate(some(hidden.closed, *denies)))

    def told(self, record: Record, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """A stored event of this record's log without what it names that is hidden from the caller."""
        hidden = self._hidden_now(record)
        if not hidden:
            return event
        said = dict(event["event"])
        said["entities"] = [one for one in said.get("entities", ()) if without_version(one) not in hidden]
        query = b64decode(said.get("query", "")).decode(errors="replace")
        if any(one.partition("/")[2] in query for one in hidden):
            del said["query"]
        return {**event, "event": said}

    def is_unknown(self, record: Record) -> bool:
        """Whether labels could hide something in this record from the caller without an end, and nobody has looked what."""
        return self._for_good is None and any(rule.longest is None for rule in self._rules_of_labels(record))

    def hidden_for_good(self, record: Record, kind: ResourceType, persons: Sequence[str]) -> Clause:
        """What labels hide from the caller in this record without an end. (What a Consent opens is not hidden.)"""
        bears = some(*(rule.bears for rule in self._rules_of_labels(record) if rule.longest is None))
        return every(Test(kind.owner, "is", record.patient), bears, negate(self.of_record(record, kind, "read", persons)))

    def hide(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Take note of what is hidden without an end: of each its `type`, `_id`, and what it attaches."""
        self._for_good = self._named((one["_id"], one) for one in documents)

    def _hidden_now(self, record: Record) -> frozenset[str]:
        """What labels hide from the caller in this record, for a time that is running or for good, with what it attaches."""
        found = self._for_good or frozenset()
        if not record.ends or not any(rule.longest is not None for rule in self._rules_of_labels(record)):
            return found
        return found | self._named((identifier, one) for identifier, one in record.ends.items() if one["end"] > self._now)

    def _rules_of_labels(self, record: Record) -> tuple[LabelRule, ...]:
        return self._policy.labels.rules_for(self.kind_of_actor(record))

    def _named(self, hidden: Iterable[tuple[str, Mapping[str, Any]]]) -> frozenset[str]:
        """References to these, and to what they attach."""
        raw_types = [kind.name for kind in self._registry.resource_types.values() if kind.is_raw]
        there = [*hidden]
        contents = (f"{name}/{one}" for _, kept in there for one in kept.get("attached", ()) for name in raw_types)
        return frozenset((*(f"{one['type']}/{identifier}" for identifier, one in there), *contents))

    def _beyond_hidden(self, record: Record) -> Clause:
        """The events that name something else than what is hidden from the caller, or nothing."""
        if self.is_unknown(record):
            return Test("_entity", "missing", True)
        hidden = self._hidden_now(record)
        return Test("_entity", "beyond", hidden) if hidden else EVERYTHING

    def seen_of(self, record: Record, kind: ResourceType) -> Clause:
        """What no label hides from the caller in this record."""
        hidden = self._hidden(kind, self.kind_of_actor(record))
        return negate(some(hidden.closed, hidden.open))

    def _hidden(self, kind: ResourceType, actor: str) -> Hidden:
        """What labels hide of a type from this kind of actor."""
        key = (actor, "author" in kind.search)
        found = self._hiding.get(key)
        if found is None:
            found = self._hiding[key] = self._policy.labels.hidden(actor, self._author(kind), self._now)
        return found

    def _author(self, kind: ResourceType) -> Clause:
        """What the caller deposited, or is the author of as whoever deposited it says."""
        caller = self._caller
        if caller.kind in ("app", "service"):
            return Test("_source", "is", caller.source)
        if caller.kind != "professional":
            return NOTHING
        people = sorted(actor for actor in caller.actors if actor.startswith("Practitioner"))
        named = (Test("author", "is", person) for person in people) if "author" in kind.search else ()
        return some(self.deposited_by_me(), *named)

    def _effects(
        self, consents: Sequence[Consent], kind: ResourceType, direction: str, hidden: Hidden = NOTHING_HIDDEN
    ) -> Iterator[tuple[Consent, Clause, Clause]]:
        """What each of these Consents permits and denies to the caller, now. `hidden`: by labels, unless it names one."""
        if not consents:
            return
        caller = self._caller
        everyone = caller.actors | caller.software
        situation = Situation(caller.actors, everyone, direction, caller.purpose, self._now, hidden)
        for consent in consents:
            if consent.provision is not None:
                yield consent, *consent_clauses(consent.provision, situation, kind)

    def deposited_by_me(self) -> Clause:
        """What this professional deposited, whatever software they used."""
        if self._mine is None:
            self._mine = some(*(Test("_depositor", "is", reference) for reference in sorted(self._caller.actors)))
        return self._mine

    def _base(self, kind: ResourceType, direction: str, actor: str) -> Clause:
        """How far what the base policy gives goes, in the record of one patient."""
        if kind.group == "care" and direction == "write" and self._caller.kind == "professional":
            return self.deposited_by_me()  # a relation of care is ended by the professional who declared it, and by the patient
        if actor not in RELATION_KINDS:
            return EVERYTHING
        if direction == "read":
            return self._policy.entitlements.clause(kind, self._caller.professions)
        is_own = any(rule.writes_own and rule.actor == actor for rule in self._policy.relations)
        return self.deposited_by_me() if is_own else EVERYTHING

    def _is_of_caller(self, record: Record, actor: str, persons: Sequence[str]) -> bool:
        """Whether the record is one of the patient in context. Who acts for a replaced Patient does so in that record only."""
        if actor == "patient":
            return record.patient in persons
        return self._caller.patient in (record.patient, record.survivor)

    def _limits_of_proxies(self) -> Clause:
        """The Consents that proxies do not write: those that name them, and those of others that concern everybody.

        Otherwise they could lift what the patient denies to them.
        """
        names_me = some(*(Test("actor", "is", reference) for reference in self._caller.actors))
        given_by_me = some(*(Test("consentor", "is", reference) for reference in self._caller.actors))
        return some(names_me, every(Test("actor", "missing", True), negate(given_by_me)))


def reason_of(named: Sequence[Consent], now: datetime) -> str:
    """Why what these Consents say to an app or service does not allow what it asks."""
    live = [c.provision for c in named if c.provision is not None]
    if not live:
        return "the patient has withdrawn the consent given to this service"
    if all(c.is_outdated for c in named if c.provision is not None):
        return "this service wants something else than what the patient agreed to: it is to ask again"
    if not any(p.period.low <= now < p.period.high for p in live):
        return "the period of the patient's consent to this service is not running"
    if not any(p.permits or p.nested for p in live):
        return "the patient has refused this service access"
    if not any(not p.directions or "write" in p.directions for p in live if p.permits):
        return "the patient's consent to this service does not include writing"
    return "the patient's consent to this service does not cover this data"
