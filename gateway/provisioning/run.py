"""`gateway import`: files in, counts and a report of refusals out.

Knows: what is opened and in which order. Must not know: how any of it works.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from gateway.exchange.gateway import Gateway
from gateway.problem import Problem
from gateway.provisioning.load import Counts, Load
from gateway.provisioning.progress import Progress
from gateway.provisioning.rows import Row, read_rows
from gateway.provisioning.scratch import Scratch

_MOST_SAID = 10


async def import_files(gateway: Gateway, files: list[Path], operator: str, report: Path | None, screen: TextIO) -> Counts:
    """Load these files, in this order. `operator`: who does it, for the audit; `report`: where refusals are listed.

    Raises Problem where the store gives up; what was written by then stays, and the same import goes on from there.
    """
    progress = Progress(screen, sum(file.stat().st_size for file in files))
    with ExitStack() as opened:
        listed = opened.enter_context(report.open("w", encoding="utf-8")) if report is not None else None
        refusals = _Refusals(listed)
        load = Load(gateway, operator, opened.enter_context(Scratch()), refusals.add)
        try:
            await load.load(_rows(files, gateway.limits.body_bytes, load.counts, progress))
            await load.load_later()
        finally:
            progress.clear()
            for line in [*refusals.said, progress.summary(load.counts)]:
                print(line, file=screen)
    return load.counts


def _rows(files: Iterable[Path], most_bytes: int, counts: Counts, progress: Progress) -> Iterator[Row]:
    before = 0
    for file in files:
        for row, done in read_rows(file, most_bytes):
            progress.show(counts, before + done)
            yield row
        before += file.stat().st_size


class _Refusals:
    """Lists refusals, as JSON lines in a file; without a file the first few are `said`. No value of a resource is in them."""

    def __init__(self, listed: TextIO | None) -> None:
        self.said: list[str] = []
        self._listed = listed
        self._more = 0

    def add(self, row: Row, problem: Problem) -> None:
        """One more row that was refused."""
        if self._listed is not None:
            issues = [{"expression": i.expression, "code": i.code, "text": i.text} for i in problem.issues]
            self._listed.write(json.dumps({"file": row.file, "line": row.line, "issues": issues}) + "\n")
        elif len(self.said) < _MOST_SAID:
            issue = problem.issues[0]
            self.said.append(f"{row.file}:{row.line}: {issue.expression or 'the row'}: {issue.text}")
        else:
            self._more += 1
            self.said[_MOST_SAID:] = [f"and {self._more} more: --report FILE lists them all"]
