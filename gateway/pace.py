"""Long work in short turns, so that who asks little does not wait for who asks much.

Knows: that a worker does one thing at a time, and how long others may be kept waiting. Must not know: what is done.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

# A small request takes some ten steps that each begin with its being noticed: by half a turn later on average.
_TURN = 0.0005  # seconds
_AT_ONCE = 8  # items between two looks at the clock
_IDLE = 0.00005  # seconds that coming round takes where nobody else had anything to do
_MOST_ROUNDS = 20  # a wait has an end, whatever the others do


async def paced(items: Iterable[T]) -> AsyncIterator[T]:
    """The items in their order; whenever a turn is over, others come first."""
    began = perf_counter()
    for n, item in enumerate(items, start=1):
        yield item
        if n % _AT_ONCE == 0 and perf_counter() - began > _TURN:
            await give_way()
            began = perf_counter()


async def give_way() -> None:
    """Let others work for as long as a turn, or until none of them has anything to do: two who give way to each other go on
    by turns, and who does little is soon done.
    """
    began = before = perf_counter()
    for _ in range(_MOST_ROUNDS):
        await asyncio.sleep(0)
        now = perf_counter()
        if now - before < _IDLE or now - began > _TURN:
            return
        before = now
