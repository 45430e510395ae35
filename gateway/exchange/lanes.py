"""Lanes for large bodies: a few are worked on at a time in a worker, and who sends many waits behind who sends few.

Knows: who waits, and whose turn is next. Must not know: HTTP, MongoDB, what is done.

What is large takes tens of milliseconds of a worker, in turns (`pace.py`); of twenty at once each would be late, and so would
all be that is small between their turns. Small requests take no lane.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from gateway.access.access import Caller
from gateway.exchange.throttle import Key, key_of

_NONE = nullcontext()


class Lanes:
    """Admits to the work on large bodies. `most`: how many at the same time; `large`: in bytes, what counts as such."""

    def __init__(self, most: int, large: int) -> None:
        self._free = most
        self._large = large
        self._waiting: dict[Key, deque[asyncio.Future[None]]] = {}  # in the order of turns

    def turn(self, caller: Caller, size: int) -> AbstractAsyncContextManager[None]:
        """A lane for a body of this size, once there is one; of several callers each gets one in turn."""
        return _NONE if size < self._large else self._turn(key_of(caller))

    @asynccontextmanager
    async def _turn(self, who: Key) -> AsyncIterator[None]:
        await self._enter(who)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, who: Key) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # it was given while its asker went away
            raise

    def _leave(self) -> None:
        """Hand the lane on to who waits longest of those whose turn it is."""
        while self._waiting:
            who = next(iter(self._waiting))
            queue = self._waiting.pop(who)
            turn = queue.popleft()
            if queue:
                self._waiting[who] = queue  # behind the others
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
