"""How far an import is, told to a person: a bar on a terminal, now and then a line elsewhere.

Knows: what fits on a line. Must not know: what is imported.
"""

import time
from collections.abc import Callable
from typing import TextIO

from gateway.provisioning.load import Counts

_BAR = 24
_SECONDS_ON_TERMINAL, _SECONDS_ELSEWHERE = 0.1, 10.0


class Progress:
    """Tells of an import of so many bytes. `clock`: seconds, from any start."""

    def __init__(self, stream: TextIO, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._total = total
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._began = self._told = clock()

    def show(self, counts: Counts, done: int) -> None:
        """Say how far it is, if that was not said a moment ago. `done`: bytes."""
        now = self._clock()
        if now - self._told >= (_SECONDS_ON_TERMINAL if self._is_terminal else _SECONDS_ELSEWHERE):
            self._told = now
            part = min(1.0, done / self._total) if self._total else 1.0
            text = f"{part:4.0%}  {_number(counts.rows)} rows, {self._rate(counts)}, {_number(counts.refused)} refused"
            filled = int(part * _BAR)
            line = f"\r[{'#' * filled}{'.' * (_BAR - filled)}] {text}\x1b[K" if self._is_terminal else f"{text.strip()}\n"
            self._stream.write(line)
            self._stream.flush()

    def clear(self) -> None:
        """Leave a clean line for what is said next."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def summary(self, counts: Counts) -> str:
        """What became of it all."""
        told = ", ".join(f"{_number(getattr(counts, name))} {name}" for name in ("created", "updated", "known", "refused"))
        return f"{_number(counts.rows)} rows in {self._clock() - self._began:.1f} s ({self._rate(counts)}): {told}"

    def _rate(self, counts: Counts) -> str:
        seconds = self._clock() - self._began
        return f"{_number(int(counts.rows / seconds) if seconds else 0)} rows/s"


def _number(number: int) -> str:
    return f"{number:,}".replace(",", " ")
