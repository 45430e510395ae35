"""Long work in short turns, so that who asks little does not wait for who asks much.

Knows: that a worker does one thing at a time, and how long others may be kept waiting. Must not know: what is done.
"""

import asyncio
from collections.abc import Iterable
from time import perf_counter
from typing import Generic, Self, TypeVar

T = TypeVar("T")

# A small request takes some ten steps that each begin with its being noticed: by half a turn later on average.
_TURN = 0.0005  # seconds
_AT_ONCE = 8  # items between two looks at the clock
_IDLE = 0.00005  # seconds that coming round takes where nobody else had anything to do
_MOST_ROUNDS = 20  # a wait has an end, whatever the others do


class paced(Generic[T]):  # noqa: N801 (it is called like the generator that it would be)
    """The items in their order, for `async for`; whenever a turn is over, others come first.

    (No generator: the loop keeps a list of those, which costs more than all else here where there is but one item.)
    """

    __slots__ = ("_began", "_given", "_items")

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._given = 0
        self._began = perf_counter()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._given % _AT_ONCE == 0 and perf_counter() - self._began > _TURN:
            await give_way()
            self._began = perf_counter()
        self._given += 1
        for item in self._items:
            return item
        raise StopAsyncIteration


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
