"""Tokens as they are issued, with what shows that each assertion of a client is used once, and the audit of it.

Knows: that all of it is written in one transaction, which those that wait at the same moment share.
Must not know: who gets one.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from gateway.fhir.balp import Event
from gateway.store.audit import AuditWriter
from gateway.store.gather import Gather
from gateway.store.mongo import Document, Stale, Step
from gateway.store.schema import ASSERTIONS, TOKENS

_SECONDS = 5.0
_PATIENCE = 0.02  # seconds


@dataclass(frozen=True, slots=True)
class Used:
    """An assertion that was shown: a name that only it has, and until when it could be shown again."""

    id: bytes
    ends: datetime


@dataclass(frozen=True, slots=True)
class Issue:
    """What is to be written for one answer: a token as it is stored (None: none), the assertion it was asked for with, and what
    the audit says of it.
    """

    token: Document | None
    used: Used | None
    event: Event | None = None


class Issuing:
    """Writes what is issued. `clock`: the time of its events."""

    def __init__(self, audit: AuditWriter, clock: Callable[[], datetime]) -> None:
        self._audit = audit
        self._clock = clock
        self._gather: Gather[Issue, None] = Gather(self._write_group, patience=_PATIENCE)

    async def write(self, issue: Issue) -> None:
        """Make it durable. Raises Stale where the assertion was used before, by whomever."""
        await self._gather.ask(issue)

    async def _write_group(self, group: list[Issue]) -> list[Exception | None]:
        try:
            await self._write(group)
        except Stale:
            if len(group) == 1:
                raise
        else:
            return [None] * len(group)
        # One of them was used before, which is no reason to refuse the others: each for itself, then.
        outcomes = await asyncio.gather(*(self._write([issue]) for issue in group), return_exceptions=True)
        return [outcome if isinstance(outcome, Exception) else None for outcome in outcomes]

    async def _write(self, group: list[Issue]) -> None:
        used = [{"_id": issue.used.id, "ends": issue.used.ends} for issue in group if issue.used is not None]
        tokens = [issue.token for issue in group if issue.token is not None]
        steps = [Step(name, inserts) for name, inserts in ((ASSERTIONS, used), (TOKENS, tokens)) if inserts]
        events = [issue.event for issue in group if issue.event is not None]
        if steps:
            await self._audit.write_all(steps, events, self._clock(), seconds=_SECONDS)
