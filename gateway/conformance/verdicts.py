"""Verdicts: what came out of each check, and what comes out of all of them.

Knows: outcomes, how they are kept in a file, how two reports differ. Must not know: how a report looks.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

Strength = Literal["SHALL", "SHOULD", "MAY"]
Outcome = Literal["passed", "failed", "broken", "not reached", "not applicable"]
"""`broken`: the check itself could not be done: a fault of the kit's, or a server that does not answer. `not reached`: an exam
ended before this scene of it."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""In the order in which reports tell them."""

_UNKNOWN: tuple[Outcome, ...] = ("broken", "not reached")
_RANK = {"failed": 0, "broken": 1, "not reached": 2, "not applicable": 3, "passed": 4}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer, without secrets. `curl`: the line that does it again; empty of a client's."""

    request: str
    answer: str
    curl: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out of one check. `reason`: why it failed or did not apply."""

    rule: str
    check: str
    group: str
    strength: str
    text: str
    source: str
    link: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    exchanges: Sequence[Exchange] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts of a run. `software`: what the server calls itself. `time`: RFC 3339. `kit`: version of the kit."""

    kit: str
    base: str
    software: str
    time: str
    seconds: float
    verdicts: Sequence[Verdict]

    def count(self, outcome: Outcome) -> int:
        """How many checks came out so."""
        return sum(verdict.outcome == outcome for verdict in self.verdicts)

    @property
    def is_conformant(self) -> bool:
        """Whether something was checked, no SHALL failed, nothing was broken and no scene of an exam is missing."""
        bad = any(v.outcome in _UNKNOWN or (v.outcome == "failed" and v.strength == "SHALL") for v in self.verdicts)
        return not bad and self.count("passed") > 0

    @property
    def is_finished(self) -> bool:
        """Whether every scene of an exam was played."""
        return self.count("not reached") == 0

    @property
    def conclusion(self) -> str:
        """What comes out of it, in a word or two. What failed counts for more than what is missing."""
        if self.is_conformant:
            return "conformant"
        only_missing = not self.is_finished and self.count("failed") + self.count("broken") == 0
        return "not finished" if only_missing else "not conformant"

    def write(self, path: Path) -> None:
        """Keep it as JSON, for `read_report`."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), "utf-8")


def read_report(path: Path) -> Report:
    """A report that was kept. Raises ValueError where it is none."""
    try:
        told = json.loads(path.read_text("utf-8"))
        verdicts = [Verdict(**{**v, "exchanges": [Exchange(**e) for e in v["exchanges"]]}) for v in told.pop("verdicts")]
        return Report(**told, verdicts=verdicts)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no report of this kit: {error}") from None


@dataclass(frozen=True, slots=True)
class Difference:
    """A check that came out otherwise. `before` or `after` is None where it was not in that report."""

    check: str
    rule: str
    text: str
    before: Outcome | None
    after: Outcome | None

    @property
    def is_regression(self) -> bool:
        """Whether it was fine and is no more, or nobody knows."""
        return self.before == "passed" and self.after in ("failed", *_UNKNOWN)


def compare(before: Report, after: Report) -> list[Difference]:
    """What differs between two reports; what got worse comes first."""
    old = {verdict.check: verdict for verdict in before.verdicts}
    new = {verdict.check: verdict for verdict in after.verdicts}
    found = [
        Difference(check, told.rule, told.text, _outcome(old, check), _outcome(new, check))
        for check, told in {**old, **new}.items()
        if _outcome(old, check) != _outcome(new, check)
    ]
    return sorted(found, key=lambda d: (not d.is_regression, _RANK[d.after] if d.after else 5, d.rule))


def _outcome(verdicts: dict[str, Verdict], check: str) -> Outcome | None:
    return verdicts[check].outcome if check in verdicts else None
