"""The relation of care between a professional and a patient, as a CareTeam declares it: who, as what, from when to when.

Knows: the R4 CareTeam (https://hl7.org/fhir/R4/careteam.html) as it is honoured here, and which relations there are
(`schemas/policy.toml`). What cannot be honoured is refused when it is stored.
Must not know: what a relation opens, stores, the clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gateway.fhir.dates import EARLIEST, LATEST, Span, read_span
from gateway.fhir.values import token_values
from gateway.problem import Problem

_A_SECOND = timedelta(seconds=1)
_SHORTEST_REASON = 10  # characters
_MEMBERS = ("Practitioner", "PractitionerRole", "Organization")


@dataclass(frozen=True, slots=True)
class RelationRule:
    """One relation that there can be. `token`: its `system|code`; `actor`: the kind of actor that it makes of a professional;
    `longest`: for how long it is declared at most; `professions`: who alone is in it, none for any;
    `is_general_practitioner`: whether those whom the Patient names as general practitioner are in it; `needs_reason`:
    whether it is declared by a person of themselves alone, who says why; `purpose`: what every access under it is for, as
    `system|code`; `writes_own`: whether only what they deposited themselves is theirs to change.
    """

    code: str
    token: str
    actor: str
    longest: timedelta
    professions: frozenset[str]
    is_general_practitioner: bool
    needs_reason: bool = False
    purpose: str | None = None
    writes_own: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """Some professionals in one relation to a patient, for a time. `who`: references; `declared`: when that was said."""

    code: str
    who: frozenset[str]
    period: Span
    declared: datetime = EARLIEST

    def is_of(self, actors: frozenset[str], now: datetime) -> bool:
        """Whether it makes of one of these, now, what it makes of those in it."""
        return self.period.low <= now < self.period.high and bool(self.who & actors)


@dataclass(frozen=True, slots=True)
class Declared:
    """What an active CareTeam declares: the relation by its rule, its members, and which of them are in it when."""

    rule: RelationRule
    members: tuple[str, ...]
    relations: tuple[Relation, ...]


def parse_care_team(resource: Any, rules: Iterable[RelationRule]) -> Declared | None:
    """What a typed CareTeam declares, None where it is not active.

    Raises Problem (422, with the expression) for what could not be honoured as it reads.
    """
    _refuse_unknown(resource)
    if resource.status != "active":
        return None
    rule = _rule(resource, {rule.token: rule for rule in rules})
    whole = _period(resource.period, "CareTeam.period", Span(EARLIEST, LATEST))
    for name, missing in (("start", whole.low == EARLIEST), ("end", whole.high == LATEST)):
        if missing:
            raise _refuse("required", "a relation of care begins and ends", f"CareTeam.period.{name}")
    if whole.high - whole.low > rule.longest + _A_SECOND:  # (the second at which it ends is within it)
        longest = f"{rule.longest.days} days" if rule.longest.days else f"{rule.longest.seconds // 3600} hours"
        text = f"this relation of care is declared for {longest} at most"
        raise _refuse("business-rule", text, "CareTeam.period.end")
    if not resource.participant:
        raise _refuse("required", "a relation of care is somebody's", "CareTeam.participant")
    if rule.needs_reason and len(_reason(resource)) < _SHORTEST_REASON:
        text = f"why this is needed is said in {_SHORTEST_REASON} characters or more"
        raise _refuse("required", text, "CareTeam.reasonCode.text")
    found: dict[Span, list[str]] = {}
    for n, participant in enumerate(resource.participant):
        place = f"CareTeam.participant[{n}]"
        found.setdefault(_period(participant.period, f"{place}.period", whole), []).append(_member(participant, place))
    relations = tuple(Relation(rule.code, frozenset(who), period) for period, who in found.items() if period.low < period.high)
    members = tuple(member for who in found.values() for member in who)
    return Declared(rule, members, relations)


Kept = Mapping[str, Iterable[Mapping[str, Any]]]  # by CareTeam, as the head of the record has them


def write_relations(declared: Declared, now: datetime) -> list[dict[str, Any]]:
    """The relations as the head of the record keeps them."""
    return [
        {"code": one.code, "who": sorted(one.who), "low": one.period.low, "high": one.period.high, "at": now}
        for one in declared.relations
    ]


def read_relations(kept: Kept, actors: frozenset[str]) -> tuple[Relation, ...]:
    """Those of the relations that the head of a record keeps, by CareTeam, in which one of these is or was."""
    return tuple(
        Relation(one["code"], frozenset(one["who"]), Span(one["low"], one["high"]), one.get("at", EARLIEST))
        for relations in kept.values()
        for one in relations
        if not actors.isdisjoint(one["who"])
    )


def running(kept: Kept, now: datetime) -> frozenset[str]:
    """The CareTeams by which anybody is in a relation now."""
    return frozenset(team for team, relations in kept.items() if any(one["low"] <= now < one["high"] for one in relations))


def forgotten(kept: Kept, now: datetime, since: datetime, most: int) -> frozenset[str]:
    """The CareTeams that have ended and are remembered no longer: all relations by `since`, or before the `most` last ones."""
    ends = {team: max((one["high"] for one in relations), default=EARLIEST) for team, relations in kept.items()}
    ended = sorted((team for team, end in ends.items() if end <= now), key=ends.__getitem__, reverse=True)
    return frozenset(team for n, team in enumerate(ended) if n >= most or ends[team] <= since)


def _reason(resource: Any) -> str:
    return " ".join((concept.text or "").strip() for concept in resource.reasonCode or ())


def _rule(resource: Any, rules: Mapping[str, RelationRule]) -> RelationRule:
    tokens = [
        token
        for category in resource.category or ()
        for coding in category.coding or ()
        for token in token_values(coding.system, coding.code)
    ]
    found = [rules[token] for token in dict.fromkeys(tokens) if token in rules]
    if len(found) != 1:
        names = ", ".join(rules)
        raise _refuse("code-invalid", f"one category says which relation of care it is: {names}", "CareTeam.category")
    return found[0]


def _member(participant: Any, place: str) -> str:
    reference = (participant.member.reference or "") if participant.member is not None else ""
    if reference.partition("/")[0] not in _MEMBERS or reference.count("/") != 1:
        allowed = ", ".join(_MEMBERS)
        raise _refuse("value", f"a member is a literal reference to one of {allowed}", f"{place}.member")
    return reference


def _period(raw: Any, place: str, within: Span) -> Span:
    if raw is None:
        return within
    for name in ("start", "end"):
        if getattr(raw, name) is None and getattr(raw, f"{name}__ext") is not None:
            raise _refuse("value", "an end of a period that is not told is no open end", f"{place}.{name}")
    low = read_span(raw.start).low if raw.start else within.low
    high = read_span(raw.end).high if raw.end else within.high
    return Span(max(low, within.low), min(high, within.high))


def _refuse_unknown(resource: Any) -> None:
    if resource.implicitRules is not None:
        raise _refuse("not-supported", "rules that are told elsewhere cannot be honoured", "CareTeam.implicitRules")
    places = [("CareTeam", resource), *((f"CareTeam.participant[{n}]", p) for n, p in enumerate(resource.participant or ()))]
    for place, struct in places:
        if struct.modifierExtension:
            raise _refuse("extension", "an unknown modifierExtension cannot be honoured", f"{place}.modifierExtension")


def _refuse(code: str, text: str, expression: str) -> Problem:
    return Problem(code, text, expression, status=422)
