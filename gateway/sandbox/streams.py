"""The sensors of the village go on measuring: their readings are pushed over HTTP, by a client like any other.

Knows: how time passes in the village, faster than here if that is wanted, and never beyond now: the gateway refuses what lies
ahead. So a village that is faster begins in the past, and is in real time when it has caught up.
Must not know: how a reading is sent.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.sandbox.people import People, history_end, wearer_of
from gateway.sandbox.rows import Village
from gateway.sandbox.simulate import Account, Pusher, SimulationError, Summary
from gateway.sandbox.uploads import batches

_TICK = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Journey:
    """How time passes in the village: at `started` it is `begin` there, and it goes `speed` times as fast until it is now."""

    begin: datetime
    started: datetime
    speed: float

    def reached(self, now: datetime) -> datetime:
        """What time it is in the village."""
        return min(now, self.begin + (now - self.started) * self.speed)


def journey(speed: float, now: datetime) -> Journey:
    """One that begins now: in real time at once, or, where it is to be faster, where the readings of the village end."""
    return Journey(now if speed <= 1 else history_end(now, speed), now, speed)


class Streams:
    """All sensors of the village. They begin when the server is `listening`.

    `reached`: what time it is there; `summary`: what became of the readings; `failure`: why none come any more.
    """

    def __init__(self, url: str, village: Village, people: People, speed: float) -> None:
        self._url, self._village, self._people, self.speed = url, village, people, speed
        self.listening = threading.Event()
        self.reached: datetime | None = None
        self.summary = Summary()
        self.failure = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Push in a thread of its own, from the beginning; none is left behind, however this ends."""
        stop = threading.Event()
        self.summary, self.failure = Summary(), ""
        thread = threading.Thread(target=self._push, args=(stop,), name="streams", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            await asyncio.to_thread(thread.join)

    def _push(self, stop: threading.Event) -> None:
        while not self.listening.wait(0.1):
            if stop.is_set():
                return
        now = datetime.now(UTC)
        way, sent = journey(self.speed, now), history_end(now, self.speed)
        try:
            pushers = self._pushers(stop)
            while not stop.is_set():
                self.reached = way.reached(datetime.now(UTC))
                _push_until(pushers, sent, self.reached, stop)
                sent = self.reached
                stop.wait(_TICK)
        except SimulationError as error:
            if not stop.is_set():
                self.failure = str(error)

    def _pushers(self, stop: threading.Event) -> list[Pusher]:
        lock, found = threading.Lock(), []
        for row in self._village.stream:
            account = Account(self._people.ids[row.patient], self._people.tokens[row.token])
            wearer = wearer_of(row, self._village, self._people.ids)
            found.append(Pusher(self._url, wearer, account, self.summary, lock, stop))
        for pusher in found:
            pusher.announce()
        return found


def _push_until(pushers: Sequence[Pusher], start: datetime, end: datetime, stop: threading.Event) -> None:
    """Push what was measured from `start` to before `end`."""
    for pusher in pushers:
        step = timedelta(minutes=pusher.wearer.sensor.minutes)
        first = _on_the_clock(start, step)
        for batch in batches(list(pusher.wearer.sensor.readings(first, end))):
            if stop.is_set():
                return
            pusher.push(batch)


def _on_the_clock(moment: datetime, step: timedelta) -> datetime:
    """The first moment from then on at which a sensor measures: every five minutes are those of the clock."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + -((midnight - moment) // step) * step
