"""Lanes: a few large bodies at a time, each caller in turn; what is small never waits. And turns of long work."""

import asyncio
import itertools
import time
from collections.abc import Callable

import pytest

from gateway.access.access import Caller
from gateway.exchange.lanes import Lanes
from gateway.pace import give_way, paced

LARGE = 1_000


def caller(patient: str) -> Caller:
    return Caller("app", "app", "app", frozenset(), frozenset(), None, patient, (), None, "token")


def busy(seconds: float) -> None:
    """Keep the worker as what is computed does."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def until(met: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if met():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


async def test_who_sends_many_waits_behind_who_sends_few() -> None:
    lanes, order, go = Lanes(1, LARGE), list[str](), asyncio.Event()

    async def work(patient: str) -> None:
        async with lanes.turn(caller(patient), LARGE):
            order.append(patient)
            await go.wait()

    tasks = [asyncio.create_task(work("a")) for _ in range(4)]
    await until(lambda: order == ["a"])
    tasks += [asyncio.create_task(work(patient)) for patient in ("b", "c", "b")]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    assert order == ["a", "a", "b", "c", "a", "b", "a"]


async def test_no_more_than_so_many_and_what_is_small_goes_by() -> None:
    lanes, inside, most, go = Lanes(2, LARGE), 0, 0, asyncio.Event()

    async def work(size: int) -> None:
        nonlocal inside, most
        async with lanes.turn(caller("a"), size):
            inside += size >= LARGE
            most = max(most, inside)
            if size >= LARGE:
                await go.wait()
            inside -= size >= LARGE

    large = [asyncio.create_task(work(LARGE)) for _ in range(5)]
    await until(lambda: inside == 2)
    await work(LARGE - 1)
    go.set()
    await asyncio.gather(*large)
    assert most == 2


@pytest.mark.parametrize("is_given", [False, True])
async def test_who_goes_away_takes_no_lane_along(is_given: bool) -> None:
    lanes = Lanes(1, LARGE)
    async with lanes.turn(caller("a"), LARGE):
        waiting = [asyncio.create_task(_enter(lanes, patient)) for patient in "bc"]
        await asyncio.sleep(0)
        if not is_given:
            waiting[0].cancel()
            await asyncio.sleep(0)
    waiting[0].cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1] is None
    async with asyncio.timeout(1), lanes.turn(caller("d"), LARGE):
        pass


async def _enter(lanes: Lanes, patient: str) -> None:
    async with lanes.turn(caller(patient), LARGE):
        pass


async def test_others_come_between_the_turns_of_long_work() -> None:
    steps = 0

    async def small() -> None:
        nonlocal steps
        for _ in range(200):
            busy(0.0001)
            await asyncio.sleep(0)
            steps += 1

    async def long() -> list[int]:
        seen = []
        async for _ in paced(range(400)):
            busy(0.0002)
            seen.append(steps)
        return seen

    other = asyncio.create_task(small())
    seen = await long()
    await other
    jumps = [n for n, (one, two) in enumerate(itertools.pairwise(seen)) if two > one]
    assert jumps
    assert jumps[0] < 20
    assert max(two - one for one, two in itertools.pairwise(seen)) > 1  # whoever does little is soon done


async def test_two_that_give_way_to_each_other_both_end() -> None:
    async def long() -> float:
        for _ in range(20):
            busy(0.0006)
            await give_way()
        return time.perf_counter()

    ends = await asyncio.gather(long(), long())
    assert abs(ends[0] - ends[1]) < 0.05
