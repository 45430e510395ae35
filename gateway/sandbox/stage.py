"""The gateway on a stage: served as ever, and brought back to how it began while it is served.

Knows: ASGI's lifespan; that requests wait while the scenery is changed. Must not know: what is brought back, MongoDB.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

RESET = "/sandbox/reset"
_DRAIN_SECONDS = 5.0


class Stage:
    """An ASGI application around the gateway's own.

    `restore`: puts the database back, when nothing runs on it; `beside`: what runs beside requests, from the beginning anew.
    """

    def __init__(
        self, app: FastAPI, restore: Callable[[], None], beside: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        self._app, self._restore, self._beside = app, restore, beside
        self._open, self._wanted, self._again, self._quiet = (asyncio.Event() for _ in range(4))
        self._turn = asyncio.Lock()
        self._running = 0
        self._failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; during a reset it waits. What asks for the reset does not wait for itself."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["path"] == RESET:
            await self._app(scope, receive, send)
            return
        await self._open.wait()
        if self._failure is not None:
            raise RuntimeError("the sandbox could not be reset") from self._failure
        self._running += 1
        self._quiet.clear()
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1
            if not self._running:
                self._quiet.set()

    async def reset(self) -> float:
        """Bring everything back to how it was first; returns how many seconds that took."""
        async with self._turn:
            began = time.monotonic()
            self._again.clear()
            self._wanted.set()
            await self._again.wait()
            if self._failure is not None:
                raise RuntimeError("the sandbox could not be reset") from self._failure
            return time.monotonic() - began

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan of the server, in which the gateway may live more than once."""
        await receive()
        ending: asyncio.Task[Message] | None = None
        try:
            while True:
                async with self._app.router.lifespan_context(self._app), AsyncExitStack() as beside:
                    await beside.enter_async_context(self._beside())
                    if ending is None:
                        await send({"type": "lifespan.startup.complete"})
                        ending = asyncio.create_task(_receive(receive))
                    self._wanted.clear()
                    self._open.set()
                    self._again.set()
                    await self._until_wanted(ending)
                    if ending.done():
                        break
                    await beside.aclose()  # first: it asks here, too
                    self._open.clear()
                    await self._drain()
                await asyncio.to_thread(self._restore)
        except Exception as error:
            self._failure = error
            self._open.set()
            self._again.set()
            if ending is None:
                await send({"type": "lifespan.startup.failed", "message": ""})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _until_wanted(self, ending: "asyncio.Task[Message]") -> None:
        wanted = asyncio.create_task(self._wanted.wait())
        try:
            await asyncio.wait({ending, wanted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wanted.cancel()

    async def _drain(self) -> None:
        """Let what has begun end; whoever takes too long is answered by an error, as by a gateway that stops."""
        if self._running:
            try:
                await asyncio.wait_for(self._quiet.wait(), _DRAIN_SECONDS)
            except TimeoutError:
                return


async def _receive(receive: Receive) -> Message:
    return await receive()
