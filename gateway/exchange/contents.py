"""Contents of documents on their way in and out: in chunks, each sealed for itself and checked before it is given out.

Knows: how a content is cut, sealed, addressed and opened; that one of one chunk lies with what it is known by.
Must not know: HTTP, the shape of what is stored, who may read it.
"""

import asyncio
import hashlib
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.exchange.gateway import Gateway
from gateway.problem import Problem
from gateway.scanner import Scan
from gateway.store.contents import Found, add_chunk, begin_content, drop_content, end_content, find_chunk, find_key
from gateway.store.mongo import Document, Mongo

Damaged = Callable[[int], Awaitable[None]]

CHUNK = 786_432  # bytes: a multiple of three, so that the base64 of chunks is that of the whole
_NONCE = 12


@dataclass(slots=True)
class Deposit:
    """A content that was sent.

    `plain`: its bytes, None where they are `stored` already, under this id.
    """

    media: str
    size: int
    sha1: str
    sha256: bytes
    plain: bytes | None = None
    stored: str | None = None

    @property
    def facts(self) -> Document:
        """What the resource keeps of it."""
        return {"size": self.size, "sha1": self.sha1, "media": self.media}


def examine(plain: bytes, media: str) -> Deposit:
    """What is to be known of a content."""
    return Deposit(media, len(plain), sha1_of(plain), hashlib.sha256(plain).digest(), plain)


def sha1_of(plain: bytes) -> str:
    """The `hash` of an attachment (https://hl7.org/fhir/R4/datatypes.html#Attachment)."""
    return b64encode(hashlib.sha1(plain, usedforsecurity=False).digest()).decode()


def address_of(gateway: Gateway, patient: str, sha256: bytes) -> bytes:
    """Where a content lies in a record: the same for equal bytes of one patient, and of no two."""
    return gateway.ids.digest(patient.encode() + b"\0" + sha256)


def seal(key: bytes, content: str, number: int, plain: bytes, *, is_last: bool) -> bytes:
    """Seal one chunk: it opens nowhere but in its place."""
    nonce = secrets.token_bytes(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, _place(content, number, is_last))


def _open(key: bytes, content: str, number: int, sealed: bytes, *, is_last: bool) -> bytes:
    return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _place(content, number, is_last))


def open_sealed(key: bytes, name: str, sealed: bytes) -> bytes:
    """What was sealed under this name, in one piece. Raises Problem where it is not that."""
    try:
        return _open(key, name, 0, sealed, is_last=True)
    except InvalidTag:
        raise Problem("exception", "what was sealed is damaged") from None


def _place(content: str, number: int, is_last: bool) -> bytes:
    return f"{content}\0{number}\0{'last' if is_last else 'more'}".encode()


class Inflow:
    """A content that comes in pieces and is kept in chunks; it is in memory as a whole only if it is one chunk."""

    def __init__(self, gateway: Gateway, patient: str, media: str) -> None:
        self._gateway, self._patient, self._media = gateway, patient, media
        self._sha1, self._sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
        self._id = gateway.ids.new(patient[:3])
        self._key = b""
        self._held = bytearray()
        self._size = self._count = 0
        self._has_begun = False
        self._scan: Scan | None = None

    async def take(self, pieces: AsyncIterator[bytes]) -> Deposit:
        """Keep what comes. Where it breaks off, nothing of it is left. Raises Problem for what is not of its media type."""
        try:
            async for piece in pieces:
                self._held += piece
                while len(self._held) > CHUNK:
                    await self._store(bytes(self._held[:CHUNK]), is_last=False)
                    del self._held[:CHUNK]
            return await self._end()
        except BaseException:
            if self._has_begun:
                with suppress(Exception):  # what cannot be dropped now is swept later
                    await asyncio.shield(drop_content(self._gateway.mongo, self._id))
            raise
        finally:
            if self._scan is not None:
                self._scan.close()

    async def _end(self) -> Deposit:
        last = bytes(self._held)
        if not self._count:
            if not last:
                raise Problem("required", "there is no content", "Binary.data")
            self._gateway.media_types.require(self._media, last, "Binary.contentType")
            return examine(last, self._media)
        await self._store(last, is_last=True)
        if self._scan is not None:
            await self._scan.end("Binary.data")
        sha256 = self._sha256.digest()
        facts = {"address": address_of(self._gateway, self._patient, sha256), "size": self._size}
        stored = await end_content(self._gateway.mongo, self._id, facts, self._gateway.clock())
        self._has_begun = False  # it is complete: nothing is to be dropped any more
        sha1 = b64encode(self._sha1.digest()).decode()
        return Deposit(self._media, self._size, sha1, sha256, stored=stored)

    async def _store(self, chunk: bytes, *, is_last: bool) -> None:
        gateway = self._gateway
        if not self._has_begun:
            gateway.media_types.require(self._media, chunk, "Binary.contentType")
            self._scan = await gateway.scanner.begin() if gateway.scanner is not None else None
            self._key = await gateway.patient_keys.of(self._patient, await find_key(gateway.mongo, self._patient))
            content = {"_id": self._id, "bucket": self._id[:3], "patient": self._patient, "pending": gateway.clock()}
            self._has_begun = True
            await begin_content(gateway.mongo, content)
        if self._scan is not None:
            await self._scan.feed(chunk)
        number, self._count = self._count, self._count + 1
        self._size += len(chunk)
        sealed = await asyncio.to_thread(self._seal, number, chunk, is_last)
        await add_chunk(gateway.mongo, self._id, number, sealed)

    def _seal(self, number: int, chunk: bytes, is_last: bool) -> bytes:
        self._sha1.update(chunk)
        self._sha256.update(chunk)
        return seal(self._key, self._id, number, chunk, is_last=is_last)


class Content:
    """A content that may be read. `media`, `size`: as deposited."""

    def __init__(self, mongo: Mongo, found: Found, key: bytes, damaged: Damaged) -> None:
        self._mongo, self._key, self._damaged = mongo, key, damaged
        self._id: str = found.content["_id"]
        self._data = bytes(found.content["data"]) if "data" in found.content else None
        self.size: int = found.resource["size"]
        self.media: str = found.resource["media"]

    async def read(self, first: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `first` to before `end`, in pieces of which each was checked before it is given out.

        Raises Problem, and raises the alarm, where one is not what was sealed.
        """
        end = self.size if end is None else end
        last = max(0, (self.size - 1) // CHUNK)
        for number in range(first // CHUNK, (end - 1) // CHUNK + 1):
            chunk = await self._chunk(number, is_last=number == last)
            begin = number * CHUNK
            yield chunk[max(0, first - begin) : end - begin]

    async def _chunk(self, number: int, *, is_last: bool) -> bytes:
        sealed = self._data if number == 0 else None
        if sealed is None:
            sealed = await find_chunk(self._mongo, self._id, number)
        try:
            plain = _open(self._key, self._id, number, sealed or b"", is_last=is_last)
            if len(plain) == (self.size - number * CHUNK if is_last else CHUNK):
                return plain
        except (InvalidTag, ValueError):
            pass
        await self._damaged(number)
        raise damage()


def damage() -> Problem:
    """What is told of content that is not what was sealed."""
    return Problem("exception", "the content is damaged; who runs this service has been told")


async def open_content(gateway: Gateway, found: Found, damaged: Damaged) -> Content:
    """The content of what was found. Raises Problem where its key was destroyed.

    `damaged`: to be told of a chunk, by its number, that is not what was sealed.
    """
    if found.wrapped is None:
        raise Problem("deleted", "the contents of this record have been erased")
    return Content(gateway.mongo, found, await gateway.patient_keys.unwrap(found.resource["patient"], found.wrapped), damaged)


def sealed_document(deposit: Deposit, key: bytes, content: str, patient: str, address: bytes) -> dict[str, Any]:
    """A content of one chunk as it is stored, together with what names it."""
    plain = deposit.plain or b""
    return {
        "_id": content,
        "bucket": content[:3],
        "patient": patient,
        "address": address,
        "size": deposit.size,
        "data": seal(key, content, 0, plain, is_last=True),
    }
