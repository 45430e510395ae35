"""Asking clamd whether bytes are harmful.

Knows: its protocol (INSTREAM, https://docs.clamav.net/manual/Usage/Scanning.html#clamd), and that what cannot be examined is
not taken. Must not know: whose bytes they are, what becomes of them.
"""

import asyncio
import logging
import re
from contextlib import suppress
from urllib.parse import urlsplit

from gateway.problem import Problem
from gateway.telemetry import log

_CONNECT_SECONDS, _SECONDS = 2.0, 30.0
_PIECE = 1_048_576
_LONGEST_REPLY = 4_096
_FOUND = re.compile(rb"stream: ([\x21-\x7e]{1,200}) FOUND\0?")
_TOO_LONG = b"size limit exceeded"


class Scanner:
    """Where clamd listens: `tcp://host:port` or `unix:/path`. Raises ValueError for anything else."""

    def __init__(self, address: str) -> None:
        url = urlsplit(address)
        self._path = url.path if url.scheme == "unix" and not url.netloc else ""
        self._host, self._port = (url.hostname or "", url.port or 0) if url.scheme == "tcp" and not url.path else ("", 0)
        if not self._path and not (self._host and self._port):
            raise ValueError("is neither tcp://host:port nor unix:/path")

    async def begin(self) -> "Scan":
        """Begin to examine something. Raises Problem 503 where clamd does not answer."""
        opening = asyncio.open_unix_connection(self._path) if self._path else asyncio.open_connection(self._host, self._port)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await opening
        except (OSError, TimeoutError):
            raise _unavailable() from None
        writer.write(b"zINSTREAM\0")
        return Scan(reader, writer)

    async def examine(self, plain: bytes, expression: str) -> None:
        """Raise Problem where these bytes are harmful, or cannot be examined."""
        scan = await self.begin()
        try:
            await scan.feed(plain)
            await scan.end(expression)
        finally:
            scan.close()


class Scan:
    """Bytes on their way through clamd: any number of `feed`, then `end`; `close` in any case."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        # (It is listened for from the beginning: who knows enough answers, closes, and is not heard behind that any more.)
        self._reply = asyncio.create_task(reader.read(_LONGEST_REPLY))

    async def feed(self, plain: bytes) -> None:
        """Examine these bytes as well."""
        for begin in range(0, len(plain), _PIECE):
            piece = plain[begin : begin + _PIECE]
            await self._send(len(piece).to_bytes(4) + piece)

    async def end(self, expression: str) -> None:
        """Raise Problem where all these bytes are harmful, too long to be examined, or were not examined."""
        await self._send(bytes(4))
        reply = b""
        # (Whoever closes without an answer, or is cut off, has not said that they are harmless.)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_SECONDS):
                reply = await self._reply
        if reply.rstrip(b"\0\n") == b"stream: OK":
            return
        found = _FOUND.match(reply)
        if found is not None:
            log("content.harmful", level=logging.WARNING, detail=found[1].decode("ascii"))
            raise Problem("business-rule", "the content is not taken: it was found to be harmful", expression)
        if _TOO_LONG in reply:
            raise Problem("too-long", "content of this length cannot be examined here, and is not taken")
        raise _unavailable()

    def close(self) -> None:
        """Leave clamd alone."""
        if not self._reply.done():
            self._reply.cancel()
        elif not self._reply.cancelled():
            self._reply.exception()  # (nobody else may have asked)
        self._writer.close()

    async def _send(self, data: bytes) -> None:
        if self._reply.done():
            return
        with suppress(ConnectionError):
            self._writer.write(data)
            try:
                async with asyncio.timeout(_SECONDS):
                    await self._writer.drain()
            except TimeoutError:
                raise _unavailable() from None


def _unavailable() -> Problem:
    log("content.not_examined", level=logging.ERROR)
    return Problem("transient", "contents cannot be examined at the moment, so none is taken", headers={"Retry-After": "5"})
