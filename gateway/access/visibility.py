"""Security labels that hide what bears them: from whom, how long, and who may put them on and take them off.

Knows: the rules of `schemas/policy.toml` as clauses. Must not know: Consents, scopes, stores, the clock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.fhir.clause import NOTHING, Clause, Test, every, negate, some
from gateway.fhir.dates import EARLIEST, Span
from gateway.fhir.values import token_values

_MILLISECOND = timedelta(milliseconds=1)
AUTHOR = "author"  # in place of a kind of actor: whoever deposited it


@dataclass(frozen=True, slots=True)
class LabelRule:
    """What labels of one kind do. `tokens`: the labels, as `system|code`; `bears`: that a resource has one of them.

    `hidden_from`: kinds of actor; `but_author`: not from whoever deposited it, or is its author; `opened_by_consent`: a Consent
    that names the label opens it to them; `longest`: for how long it hides at most, None for as long as it is there;
    `set_by`, `removed_by`: who may put it on and take it off, None for whom the rules of all labels allow.
    """

    tokens: frozenset[str]
    bears: Clause
    hidden_from: frozenset[str]
    but_author: bool
    opened_by_consent: bool
    longest: timedelta | None
    set_by: frozenset[str] | None
    removed_by: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Hidden:
    """What labels hide from one caller. `closed`: for good; `open`: unless a Consent names them, by `rules`."""

    closed: Clause
    open: Clause
    rules: tuple[LabelRule, ...]
    author: Clause
    now: datetime

    def unless(self, named: frozenset[str]) -> Clause:
        """What stays hidden of what a Consent could open, where it names these labels."""
        if named.isdisjoint(token for rule in self.rules for token in rule.tokens):
            return self.open
        return _hidden([rule for rule in self.rules if rule.tokens.isdisjoint(named)], self.author, self.now)


NOTHING_HIDDEN = Hidden(NOTHING, NOTHING, (), NOTHING, EARLIEST)


def _hidden(rules: Sequence[LabelRule], author: Clause, now: datetime) -> Clause:
    """What these rules hide now from who is the author of what satisfies this clause."""
    plain = (rule.bears for rule in rules if not rule.but_author and rule.longest is None)
    of_others = some(*(rule.bears for rule in rules if rule.but_author and rule.longest is None))
    dated = [rule for rule in rules if rule.longest is not None]
    found = [*plain, every(of_others, negate(author))]
    if dated:
        over = Test("_hiddenUntil", "le", Span(now, now + _MILLISECOND))
        found += (every(rule.bears, negate(some(over, author if rule.but_author else NOTHING))) for rule in dated)
    return some(*found)


@dataclass(frozen=True, slots=True)
class Labels:
    """All that is known of labels. `systems`: whose labels are understood; `same`: the other systems with the codes of one;
    `levels`: those of confidentiality, by token, the higher the stricter; `removed_by`: who takes off what no rule speaks of;
    `hiding`: by kind of actor, the rules that hide from it for good, and those that a Consent can open; `most_ends`: of how
    many resources a record keeps until when they are hidden.
    """

    systems: frozenset[str]
    same: Mapping[str, tuple[str, ...]]
    levels: Mapping[str, int]
    removed_by: frozenset[str]
    rules: tuple[LabelRule, ...]
    hiding: Mapping[str, tuple[tuple[LabelRule, ...], tuple[LabelRule, ...]]]
    most_ends: int

    def spellings(self, system: str | None, code: str | None) -> tuple[str, ...]:
        """The tokens of a label, in whichever system of the same codes it may be asked for."""
        others = self.same.get(system or "", ())
        found = token_values(system, code)
        return found if not others else (*found, *(token_values(other, code)[0] for other in others if found))

    def hidden(self, actor: str, author: Clause, now: datetime) -> Hidden:
        """What labels hide from a kind of actor who is the author of what satisfies this clause."""
        closed, openable = self.hiding.get(actor, ((), ()))
        if not closed and not openable:
            return NOTHING_HIDDEN
        return Hidden(_hidden(closed, author, now), _hidden(openable, author, now), openable, author, now)

    def rules_for(self, actor: str) -> tuple[LabelRule, ...]:
        """The rules that hide something from a kind of actor."""
        closed, openable = self.hiding.get(actor, ((), ()))
        return (*closed, *openable)

    def refused_to_set(self, new: Iterable[str], who: frozenset[str]) -> bool:
        """Whether one of these labels is not for these (kinds of actor, `author`) to put on."""
        return any(rule.set_by is not None and not rule.set_by & who for rule in self._rules_of(new))

    def refused_to_remove(self, gone: Iterable[str], left: Iterable[str], who: frozenset[str]) -> bool:
        """Whether one of these labels is not for these to take off.

        A level of confidentiality makes room for a stricter one whoever says so.
        """
        strictest = max((self.levels[token] for token in left if token in self.levels), default=-1)
        weighed = [token for token in gone if self.levels.get(token, strictest + 1) > strictest]
        special = [rule for rule in self._rules_of(weighed) if rule.removed_by is not None]
        if any(not (rule.removed_by or frozenset()) & who for rule in special):
            return True
        spoken_of = {token for rule in special for token in rule.tokens}
        return any(token not in spoken_of for token in weighed) and not self.removed_by & who

    def longest_of(self, token: str) -> timedelta | None:
        """For how long the label of this token hides at most, None where that has no end or it hides nothing."""
        found = [rule.longest for rule in self._rules_of([token]) if rule.longest is not None]
        return min(found, default=None)

    def _rules_of(self, tokens: Iterable[str]) -> Iterator[LabelRule]:
        there = frozenset(tokens)
        return (rule for rule in self.rules if rule.tokens & there)


def bearing(tokens: Sequence[str]) -> Clause:
    """That a resource has one of these labels."""
    return some(*(Test("_security", "is", token) for token in tokens))
