"""Writing many creates together, each of which stands for itself: what can be done is done, in one transaction.

Knows: that what is wrong with one fails nothing but itself and what refers to it; what a plan is made of again without it.
Must not know: HTTP, MongoDB.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gateway.access.access import Access
from gateway.exchange.call import Answer, Call
from gateway.exchange.draft import Refused
from gateway.exchange.entries import Entry, read_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.plan import make_plan
from gateway.exchange.replay import replay
from gateway.exchange.write import ATTEMPTS, commit, too_often
from gateway.fhir.balp import Event
from gateway.pace import paced
from gateway.problem import Problem
from gateway.store.change import Plan
from gateway.store.mongo import Stale
from gateway.store.receipts import Once

Asked = tuple[Call, str | None]  # a create and its fullUrl
Outcome = Answer | Problem

# How often the rest is planned again without what was refused: a report, its summary, its members, a device; and some more.
_ROUNDS = 8
_NONE: Mapping[str, str] = {}


async def write_apart(
    gateway: Gateway,
    access: Access,
    asked: Sequence[Asked | Outcome],
    once: Once | None,
    urls: Mapping[str, str] = _NONE,
) -> tuple[list[Outcome], list[Event]]:
    """What became of each of these creates, and what is still to be audited of those that were done.

    `asked`: each as it was asked, or what became of it already; `once`: what was done before is answered again; `urls`: what
    the fullUrls of those stand for that are answered already.
    """
    outcomes: dict[int, Outcome] = {n: one for n, one in enumerate(asked) if not isinstance(one, tuple)}
    calls = {n: one for n, one in enumerate(asked) if isinstance(one, tuple)}
    events: list[Event] = []
    held: frozenset[str] = frozenset()
    rounds = 0
    for _ in range(ATTEMPTS):
        if once is not None:
            events += await _replay(gateway, access, calls, once, outcomes)
        rest = [n for n in calls if n not in outcomes]
        if not rest:
            return [outcomes[n] for n in range(len(asked))], events
        async with gateway.committer.turn(held):
            plan, entries = Plan(), list[Entry]()
            try:
                entries = await _read_entries(gateway, access, [calls[n] for n in rest])
                widened, plan = await make_plan(gateway, access, entries, {**urls, **_urls(calls, outcomes)}, apart=True)
                kept = [] if once is None else _once(once, rest, entries)
                answers, audited = await commit(gateway, widened, entries, plan, None, held, kept)
                outcomes |= dict(zip(rest, answers, strict=True))
                return [outcomes[n] for n in range(len(asked))], [*events, *audited]
            except Stale:
                access = access.afresh()
                held = frozenset(plan.heads)  # next time it plans only when it is its turn
            except Refused as refused:
                outcomes |= {rest[_asked(entries, n)]: problem for n, problem in refused.problems.items()}
                rounds += 1
            except Problem as problem:
                placed = _entry_of(problem, rest)
                if placed is None:
                    raise
                outcomes[placed] = problem
                rounds += 1
        if rounds == _ROUNDS:
            text = "too many entries that this one may refer to were refused: send it again without them"
            outcomes |= {n: Problem("too-costly", text, calls[n][0].place, status=422) for n in calls if n not in outcomes}
    raise too_often()


def _asked(entries: Sequence[Entry], n: int) -> int:
    """The number of the entry that was asked for: itself, or what brought it along."""
    place = entries[n].call.place if n < len(entries) and entries[n].came_along else None
    return n if place is None else next(k for k, entry in enumerate(entries) if entry.call.place == place)


async def _read_entries(gateway: Gateway, access: Access, asked: Sequence[Asked]) -> list[Entry]:
    """The entries as asked. Raises Refused for those that say nothing of themselves or are not their sender's to write."""
    entries: list[Entry] = []
    problems: dict[int, Problem] = {}
    async for n, (call, full_url) in paced(enumerate(asked)):
        try:
            entries.append(read_entry(gateway, access, call, full_url))
        except Problem as problem:
            problems[n] = problem
    if problems:
        raise Refused(problems)
    return entries


async def _replay(
    gateway: Gateway, access: Access, calls: dict[int, Asked], once: Once, outcomes: dict[int, Outcome]
) -> list[Event]:
    """Answer again what an earlier request with this key has done; returns what is to be audited of that."""
    parts = await gateway.receipts.find_parts(access, once)
    before = {n: parts[n + 1][0] for n in calls if n + 1 in parts and n not in outcomes}
    if not before:
        return []
    answers, events, _ = await replay(gateway, access, [calls[n][0] for n in before], list(before.values()))
    outcomes |= dict(zip(before, answers, strict=True))
    return events


def _once(once: Once, rest: Sequence[int], entries: Sequence[Entry]) -> list[tuple[Once, slice]]:
    """A receipt for each that is written. What is known is known without one."""
    new = [n for n, entry in enumerate(entries) if entry.change is not None and not entry.came_along]
    return [(replace(once, position=rest[n] + 1), slice(n, n + 1)) for n in new]


def _urls(calls: dict[int, Asked], outcomes: dict[int, Outcome]) -> dict[str, str]:
    """What the fullUrls of what is done already stand for."""
    done = ((calls[n][1], answer) for n, answer in outcomes.items() if n in calls and isinstance(answer, Answer))
    return {url: f"{answer.type}/{answer.id}" for url, answer in done if url is not None}


def _entry_of(problem: Problem, rest: Sequence[int]) -> int | None:
    """The entry that a problem is about, by its expression; None where it is about the whole."""
    start, bracket, position = (problem.issues[0].expression or "").partition("]")[0].partition("[")
    found = int(position) if start == "Bundle.entry" and bracket and position.isdigit() else None
    return found if found in rest else None
