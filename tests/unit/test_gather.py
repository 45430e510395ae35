"""Requests that wait at the same time share a call, and each gets its own answer."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.store.gather import Gather


class Asked:
    """Answers with the double; notes the groups; waits until it is let go."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()

    async def answer(self, questions: list[int]) -> Sequence[int | Exception]:
        self.groups.append(questions)
        await self.gate.wait()
        if 13 in questions:
            raise LookupError
        return [KeyError(q) if q < 0 else q * 2 for q in questions]


async def asking(gather: Gather[int, int], *questions: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(gather.ask(question)) for question in questions]
    await asyncio.sleep(0)  # each has asked
    await asyncio.sleep(0)  # and the first group is under way
    return tasks


async def test_what_waits_while_a_group_is_under_way_is_the_next_group() -> None:
    asked = Asked()
    gather = Gather(asked.answer)
    first = await asking(gather, 1)
    others = await asking(gather, 2, 3)
    asked.gate.set()
    assert await asyncio.gather(*first, *others) == [2, 4, 6]
    assert asked.groups == [[1], [2, 3]]


async def test_a_wrong_question_fails_alone_and_a_broken_call_fails_its_group() -> None:
    asked = Asked()
    asked.gate.set()
    gather = Gather(asked.answer)
    outcomes = await asyncio.gather(*(gather.ask(q) for q in (1, -1, 2)), return_exceptions=True)
    assert [type(o) if isinstance(o, Exception) else o for o in outcomes] == [2, KeyError, 4]
    outcomes = await asyncio.gather(*(gather.ask(q) for q in (13, 14)), return_exceptions=True)
    assert [type(o) for o in outcomes] == [LookupError, LookupError]
    assert await gather.ask(5) == 10


@pytest.mark.parametrize(("most", "groups"), [(2, [[1, 2], [3, 4], [5]]), (5, [[1, 2, 3, 4, 5]])])
async def test_a_group_has_at_most_so_many(most: int, groups: list[list[int]]) -> None:
    asked = Asked()
    asked.gate.set()
    gather = Gather(asked.answer, most=most)
    assert await asyncio.gather(*(gather.ask(q) for q in range(1, 6))) == [2, 4, 6, 8, 10]
    assert asked.groups == groups


async def test_questions_are_weighed_and_one_that_is_too_heavy_goes_alone() -> None:
    asked = Asked()
    asked.gate.set()
    gather = Gather(asked.answer, most=10, weigh=lambda question: question)
    assert await asyncio.gather(*(gather.ask(q) for q in (4, 5, 6, 99, 1))) == [8, 10, 12, 198, 2]
    assert asked.groups == [[4, 5], [6], [99], [1]]


async def test_lanes_are_groups_under_way_at_the_same_time() -> None:
    asked = Asked()
    gather = Gather(asked.answer, lanes=2)
    tasks = [*await asking(gather, 1), *await asking(gather, 2), *await asking(gather, 3)]
    assert asked.groups == [[1], [2]]
    asked.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    assert asked.groups == [[1], [2], [3]]


async def test_one_who_is_gone_does_not_disturb_the_others() -> None:
    asked = Asked()
    gather = Gather(asked.answer)
    first, second = await asking(gather, 1, 2)
    first.cancel()
    asked.gate.set()
    assert await second == 4
    assert first.cancelled() or first.cancelling()


async def test_a_group_waits_for_those_that_came_of_late_and_goes_at_once_when_they_are_there() -> None:
    groups: list[int] = []

    async def answer(questions: list[int]) -> Sequence[int]:
        groups.append(len(questions))
        await asyncio.sleep(0.02)
        return questions

    gather = Gather(answer, patience=60)

    async def client(n: int) -> None:
        for _ in range(12):
            await gather.ask(n)
            await asyncio.sleep(0.002 * n)  # each takes another time to come again

    await asyncio.gather(*(client(n) for n in range(4)))
    assert groups.count(4) >= 8  # without waiting they would share by two and three
    assert sum(groups) == 48


async def test_who_comes_alone_does_not_wait_for_long() -> None:
    asked = Asked()
    asked.gate.set()
    gather = Gather(asked.answer, patience=0.01)
    await asyncio.gather(*(gather.ask(n) for n in range(1, 9)))
    for n in range(1, 6):
        await gather.ask(n)
    assert asked.groups[-5:] == [[1], [2], [3], [4], [5]]
    assert gather._expected == 1  # what came of late is forgotten
