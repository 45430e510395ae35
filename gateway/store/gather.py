"""Requests that wait at the same time share one call to the database.

Knows: how to gather. While one group is under way the next one gathers; a request that comes alone goes at once. Where
several came of late, a group waits for those that were answered just now and are about to come again, as long as three calls
take at most: half-full groups in turn cost twice the calls of full ones.
Must not know: what is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

_CALLS_WORTH_WAITING = 3  # measured: with less, eight clients that read pages never come to share a call by more than two

Asked = TypeVar("Asked")
Given = TypeVar("Given")


class Gather(Generic[Asked, Given]):
    """Answers single questions by asking groups of them.

    `answer(questions)` returns the answers in order; one that is an exception is raised to whoever asked that question. What
    `answer` raises itself is raised to the whole group. `lanes`: groups under way at the same time. `most`: the largest
    group, where `weigh(question)` says how much of it a question takes. `patience`: for how many seconds at most a group
    waits for as many as came of late.
    """

    def __init__(
        self,
        answer: Callable[[list[Asked]], Awaitable[Sequence[Given | Exception]]],
        *,
        lanes: int = 1,
        most: int = 64,
        weigh: Callable[[Asked], int] = lambda _: 1,
        patience: float = 0.0,
    ) -> None:
        self._answer = answer
        self._lanes = lanes
        self._most = most
        self._weigh = weigh
        self._patience = patience
        self._weight = 0  # of all that wait
        self._expected = 1  # how many came of late while one group took its time
        self._took = 0.0  # seconds, of late
        self._full = asyncio.Event()
        self._waiting: list[tuple[Asked, asyncio.Future[Given]]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, question: Asked) -> Given:
        """The answer to one question."""
        future: asyncio.Future[Given] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        self._weight += self._weigh(question)
        if self._is_full():
            self._full.set()
        self._start()
        return await future

    def _start(self) -> None:
        if self._waiting and len(self._under_way) < self._lanes:
            task = asyncio.create_task(self._run())
            self._under_way.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()

    async def _run(self) -> None:
        if self._patience and not self._is_full():
            self._full.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_CALLS_WORTH_WAITING * self._took, self._patience)):
                    await self._full.wait()
        group = self._take()
        if not group:
            return
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            answers = await self._answer([question for question, _ in group])
        except BaseException as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        self._took = (self._took + clock() - began) / 2
        # They will come again, beside those that came meanwhile; what came before that counts less and less.
        came = len(group) + len(self._waiting)
        self._expected = max(came, (came + self._expected) // 2)
        for (_, future), answer in zip(group, answers, strict=True):
            if future.done():
                continue  # whoever asked is gone
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _take(self) -> list[tuple[Asked, asyncio.Future[Given]]]:
        weight, count = 0, 0
        for question, _ in self._waiting:
            weight += self._weigh(question)
            if count and weight > self._most:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        self._weight = sum(self._weigh(question) for question, _ in self._waiting)
        return group

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._expected or self._weight >= self._most
