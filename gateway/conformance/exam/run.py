"""An exam from its beginning to its end: the proxy listens, the client does its work, the grades are told.

Knows: how long it takes. Must not know: what is judged.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import uvicorn

from gateway.conformance.exam.credentials import Credentials
from gateway.conformance.exam.exam import Exam
from gateway.conformance.exam.proxy import create_proxy
from gateway.conformance.exam.roles import ROLES
from gateway.conformance.exam.scenes import Scene
from gateway.conformance.verdicts import Report


class ExamError(Exception):
    """The exam cannot be held: the message says why."""


def hold_exam(
    role: str,
    sandbox: str,
    port: int,
    seconds: float,
    version: str,
    tell: Callable[[Scene], None],
    credentials: Credentials | None = None,
) -> Report:
    """Hold the exam of this role for `seconds` at most. `sandbox`: FHIR base address; `tell` hears of each scene that begins;
    `credentials`: what the client was given.

    Raises ExamError where the port is taken or there is no such role.
    """
    if role not in ROLES:
        raise ExamError(f"there is no exam for '{role}'; there are {', '.join(ROLES)}")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise ExamError(f"port {port} cannot be used: {error.strerror or error}") from None
        exam = Exam(ROLES[role])
        began = time.monotonic()
        with _quietly():
            asyncio.run(_hold(exam, sandbox, listener, seconds, tell, credentials))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Report(version, sandbox, f"a client: {ROLES[role].text}", now, round(time.monotonic() - began, 1), exam.verdicts())


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep from the person who watches what uvicorn says of answers that are not finished: that is on purpose."""
    logger = logging.getLogger("uvicorn.error")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


async def _hold(
    exam: Exam,
    sandbox: str,
    listener: socket.socket,
    seconds: float,
    tell: Callable[[Scene], None],
    credentials: Credentials | None,
) -> None:
    parts = urlsplit(sandbox)
    site, here = f"{parts.scheme}://{parts.netloc}", f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(timeout=60.0, trust_env=False) as http:
        app = create_proxy(exam, site, here, http, credentials)
        # (Date is the sandbox's, or what the exam says it is)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", date_header=False)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        with contextlib.suppress(asyncio.CancelledError):
            await _watch(exam, serving, time.monotonic() + seconds, tell)
        server.should_exit = True
        await serving


async def _watch(exam: Exam, serving: "asyncio.Task[None]", deadline: float, tell: Callable[[Scene], None]) -> None:
    told: list[Scene] = []
    while not serving.done() and not exam.is_over() and time.monotonic() < deadline:
        for scene in [scene for scene in exam.begun() if scene not in told]:
            tell(scene)
            told.append(scene)
        await asyncio.sleep(0.1)
