"""How much processor time something takes: unlike the time on the clock, it does not depend on what else the machine does."""

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any


def seconds_of(work: Callable[[], Any]) -> float:
    """The processor time of a call in this thread, whether it succeeds or refuses."""
    started = time.thread_time()
    with contextlib.suppress(Exception):  # a refusal is as good as an answer, as long as it is quick
        work()
    return time.thread_time() - started


async def seconds_of_request(work: Awaitable[Any]) -> tuple[float, Any]:
    """The processor time of a request in this process, and its answer."""
    started = time.thread_time()
    answer = await work
    return time.thread_time() - started, answer
