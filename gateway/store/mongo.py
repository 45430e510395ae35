"""The one file that knows the driver: Motor, or PyMongo's own async client, which has the same methods.

Knows: connection settings that keep acknowledged writes, how drivers differ, how their errors are to be read.
Must not know: resources, who is asking.
"""

import asyncio
import contextvars
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC
from functools import partial
from typing import Any, TypeVar

import pymongo
from bson.regex import Regex
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, ReturnDocument
from pymongo.errors import BulkWriteError, ConfigurationError, NetworkTimeout, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from gateway.problem import Problem
from gateway.settings import SettingsError
from gateway.store.driver_errors import Conflict, Stale, Unmatched, driver_errors, instead, require_unknown_outcome, too_costly
from gateway.store.statements import Document, Part, Step

T = TypeVar("T")
Session = Any

__all__ = ["Document", "Mongo", "Part", "Regex", "Session", "Stale", "Step", "Unmatched"]

# An acknowledged write is on disk on a majority; a read sees only what cannot be rolled back.
_OPTIONS: Mapping[str, Any] = {
    "appname": "fhir-document-gateway",
    "w": "majority",
    "journal": True,
    "readConcernLevel": "majority",
    "readPreference": "primary",
    "retryWrites": True,
    "retryReads": True,
    "timeoutMS": 10_000,
    "serverSelectionTimeoutMS": 4_000,
    "connectTimeoutMS": 2_000,
    "heartbeatFrequencyMS": 2_000,
    "maxPoolSize": 100,
    "maxConnecting": 4,
    "waitQueueTimeoutMS": 1_000,
    "tz_aware": True,
    "tzinfo": UTC,
}
_WRITE = WriteConcern(w="majority", j=True)
_SNAPSHOT = ReadConcern("snapshot")
_COMPRESSED: Mapping[str, Any] = {"wiredTiger": {"configString": "block_compressor=zstd"}}
_BEFORE_ASKING_AGAIN = 0.05  # seconds
_THREADS = 32
_THERE_ALREADY = frozenset({48})  # NamespaceExists
_OTHER_INDEX = frozenset({85, 86})  # IndexOptionsConflict, IndexKeySpecsConflict


class Mongo:
    """A database, by the few operations the store needs. `driver`: `motor` or `pymongo`."""

    def __init__(self, url: str, database: str, driver: str) -> None:
        client: Any = AsyncMongoClient if driver == "pymongo" else AsyncIOMotorClient
        try:
            self._client = client(url, **_OPTIONS)
        except (ConfigurationError, ValueError):  # what it says would repeat the URL, in which a password may stand
            raise SettingsError("GATEWAY_MONGO_URL: is not the connection string of a MongoDB") from None
        self._database = self._client[database]
        self._is_motor = driver == "motor"
        self._collections: dict[str, Any] = {}
        self._threads = ThreadPoolExecutor(_THREADS, "store")  # for whole transactions
        self._idle: list[Session] = []  # as many as transactions ever ran at once
        self.calls = 0

    @property
    def connections_in_use(self) -> int:
        """How many connections of the pool are at work. (The driver tells it by events, three a call: dearer than a look.)"""
        client = self._client.delegate if self._is_motor else self._client
        return sum(server.pool.active_sockets for server in client._topology._servers.values())  # noqa: SLF001

    def _collection(self, name: str) -> Any:
        """The driver's object for a collection: dear to make, and the same for ever."""
        found = self._collections.get(name)
        if found is None:
            found = self._collections[name] = self._database[name]
        return found

    async def close(self) -> None:
        """Close every connection."""
        self._threads.shutdown()
        while self._idle:
            await self._idle.pop().end_session()
        closing = self._client.close()
        if closing is not None:
            await closing

    async def find_one(
        self, collection: str, where: Document, fields: Mapping[str, Any] | None = None, session: Session = None
    ) -> Document | None:
        """The first document that matches, None where none does."""
        found = await self.find(collection, where, fields, limit=1, session=session)
        return found[0] if found else None

    async def find(
        self,
        collection: str,
        where: Document,
        fields: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 0,
        skip: int = 0,
        hint: str | None = None,
        seconds: float | None = None,
        session: Session = None,
    ) -> list[Document]:
        """The documents that match. `seconds`: refuse as too costly what takes longer."""
        with self._reading(seconds):
            # One batch of all that is asked for, and no cursor stays open. (Asking for a *single* batch, by a negative limit,
            # gives the first 101 documents, or the first 16 MB of them, and leaves out the rest.)
            options = {"sort": sort, "limit": limit, "skip": skip, "batch_size": limit, "hint": hint}
            return await self._list(collection, "find", where, fields, session=session, **options)

    async def walk(
        self, collection: str, where: Document, fields: Mapping[str, Any] | None = None, *, sort: str, batch: int = 1_000
    ) -> AsyncIterator[Document]:
        """The documents that match one after the other, however many there are; `batch` of them are in memory."""
        with self._reading(None):
            cursor = self._collection(collection).find(where, fields, sort=[(sort, 1)], batch_size=batch)
            try:
                async for document in cursor:
                    yield document
            finally:
                await cursor.close()

    async def count(self, collection: str, where: Document, *, seconds: float | None = None, session: Session = None) -> int:
        """How many documents match."""
        with self._reading(seconds):
            return int(await self._collection(collection).count_documents(where, session=session))

    async def aggregate(
        self, collection: str, pipeline: list[Document], *, seconds: float | None = None, session: Session = None
    ) -> list[Document]:
        """The result of a pipeline. `seconds`: refuse as too costly what takes longer."""
        with self._reading(seconds):
            return await self._list(collection, "aggregate", pipeline, session=session)

    async def _list(self, collection: str, method: str, *asked: Any, session: Session = None, **options: Any) -> list[Document]:
        """All that a cursor gives."""
        if self._is_motor:
            # In one thread by the client that it wraps: Motor takes several turns of the loop for it.
            ask = partial(getattr(self._collection(collection).delegate, method), *asked, **options)
            of = session.delegate if session is not None else None
            in_context = contextvars.copy_context().run  # it says how long this may take
            return await asyncio.get_running_loop().run_in_executor(self._threads, in_context, lambda: list(ask(session=of)))
        cursor = getattr(self._collection(collection), method)(*asked, session=session, **options)
        found: list[Document] = await (await cursor if method == "aggregate" else cursor).to_list(None)
        return found

    async def find_all(self, parts: list[Part], *, seconds: float | None = None, limit: int = 0) -> list[Document]:
        """The documents of several collections in one call, in any order. Of those with a hint, one is heeded."""
        if not parts:
            return []
        first, *others = sorted(parts, key=lambda part: part.hint is None)  # only what comes first can be given an index
        pipeline = first.stages() + [{"$unionWith": {"coll": p.collection, "pipeline": p.stages()}} for p in others]
        pipeline += [{"$limit": limit}] if limit else []
        options: Document = {"hint": first.hint} if first.hint else {}
        with self._reading(seconds):
            return await self._list(first.collection, "aggregate", pipeline, **options)

    async def explain(self, collection: str, where: Document, **options: Any) -> Document:
        """The winning plan of a find, for tests and `gateway check`."""
        with self._reading(None):
            command = {"find": collection, "filter": where, **options}
            answer: Document = await self._database.command("explain", command, verbosity="executionStats")
            return answer

    async def insert(self, collection: str, documents: list[Document], session: Session = None) -> None:
        """Insert all documents or, in a transaction, none. Raises Stale where a unique key is taken."""
        with self._writing():
            await self._collection(collection).insert_many(documents, ordered=False, session=session)

    async def change(
        self, collection: str, where: Document, update: Any, *, upsert: bool = False, session: Session = None
    ) -> Document | None:
        """Update one document and return it as it then is, None where none matches."""
        with self._writing():
            found: Document | None = await self._collection(collection).find_one_and_update(
                where, update, upsert=upsert, return_document=ReturnDocument.AFTER, session=session
            )
            return found

    async def write(self, step: Step, session: Session) -> None:
        """Carry out a step of a transaction. Raises Stale where a unique key is taken, Unmatched where something is gone."""
        with instead(step.otherwise, step.contended), self._writing():
            matched = _matched(await _send(self._database, step, session))
        step.require_all(matched)

    async def delete(self, collection: str, where: Document) -> int:
        """Delete what matches; returns how many that were. Patient data goes by it only where a record is erased."""
        with self._writing():
            answer = await self._collection(collection).delete_many(where)
            return int(answer.deleted_count)

    async def command(self, command: Document) -> Document:
        """Run a command on the admin database."""
        with driver_errors():
            answer: Document = await self._client.admin.command(command)
            return answer

    async def collections(self) -> set[str]:
        """The names of the collections there are."""
        with driver_errors():
            return set(await self._database.list_collection_names())

    async def create_collection(self, name: str) -> None:
        """Create a collection whose blocks are compressed with zstd; nothing where another process was faster."""
        with driver_errors(tolerated=_THERE_ALREADY):
            await self._database.create_collection(name, check_exists=False, storageEngine=_COMPRESSED)

    async def create_index(self, collection: str, keys: list[tuple[str, int]], name: str, **options: Any) -> None:
        """Create an index by name, compressed like collections; nothing where one of that name or with these keys is there.

        Raises Stale for duplicates.
        """
        with driver_errors(tolerated=_OTHER_INDEX):
            await self._collection(collection).create_index(keys, name=name, storageEngine=_COMPRESSED, **options)

    async def create_indexes(self, collection: str, indexes: Sequence[tuple[list[tuple[str, int]], str, Document]]) -> None:
        """Create indexes (keys, name, options) in one command, which is many times faster than one by one."""
        models = [pymongo.IndexModel(keys, name=name, storageEngine=_COMPRESSED, **options) for keys, name, options in indexes]
        with driver_errors(tolerated=_OTHER_INDEX):
            await self._collection(collection).create_indexes(models)
            return
        for keys, name, options in indexes:  # one of them is there as another: the others are still to come
            await self.create_index(collection, keys, name, **options)

    async def indexes(self, collection: str) -> dict[str, Document]:
        """The indexes of a collection by name, as the server describes them."""
        with driver_errors():
            found: dict[str, Document] = await self._collection(collection).index_information()
            return found

    async def statistics(self, collection: str) -> Document:
        """Sizes of a collection and its indexes, in bytes (the server's `collStats`)."""
        with driver_errors():
            answer: Document = await self._database.command("collStats", collection)
            return answer

    async def transaction(self, work: Callable[[Session], Awaitable[T]], *, seconds: float) -> T:
        """Run `work` in a transaction: all of its writes or none, durable when this returns.

        Repeats the whole of `work` on conflicts with other transactions and the commit alone where its outcome is
        unknown, until `seconds` have gone. Raises Problem `timeout` where the outcome stays unknown.
        """
        deadline = time.monotonic() + seconds
        async with self._session() as session:

            async def once() -> T:
                await self._start(session)
                try:
                    result = await work(session)
                except BaseException:
                    await session.abort_transaction()
                    raise
                await self._commit(session, deadline)
                return result

            return await _repeated(once, deadline)

    async def write_all(self, steps: Sequence[Step], *, seconds: float) -> None:
        """Carry out these steps, in their order, in a transaction of their own.

        Motor takes a thread for each call; all of this goes through one. (Measured for a transaction of three steps: 1.1 ms
        of processor time in place of 1.6.)
        """
        if not self._is_motor:
            await self.transaction(lambda session: self._write_each(steps, session), seconds=seconds)
            return
        deadline = time.monotonic() + seconds
        loop = asyncio.get_running_loop()
        await _repeated(lambda: loop.run_in_executor(self._threads, self._write_at_once, steps, deadline), deadline)

    async def _write_each(self, steps: Sequence[Step], session: Session) -> None:
        for step in steps:
            await self.write(step, session)

    def _write_at_once(self, steps: Sequence[Step], deadline: float) -> None:
        """The same by the client that Motor wraps, in a thread."""
        database = self._database.delegate
        with self._client.delegate.start_session() as session:
            session.start_transaction(read_concern=_SNAPSHOT, write_concern=_WRITE)  # aborted by the end of its session
            for step in steps:
                with instead(step.otherwise, step.contended), self._writing():
                    matched = _matched(_send(database, step, session))
                step.require_all(matched)
            while True:
                self.calls += 1
                try:
                    session.commit_transaction()
                    return
                except PyMongoError as error:
                    require_unknown_outcome(error, deadline)
                    time.sleep(_BEFORE_ASKING_AGAIN)

    async def _start(self, session: Session) -> None:
        starting = session.start_transaction(read_concern=_SNAPSHOT, write_concern=_WRITE)
        if not self._is_motor:
            await starting

    async def _commit(self, session: Session, deadline: float) -> None:
        while True:
            self.calls += 1
            try:
                await session.commit_transaction()
                return
            except PyMongoError as error:
                require_unknown_outcome(error, deadline)
                await asyncio.sleep(_BEFORE_ASKING_AGAIN)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        """A session for one transaction. One that ended well is used again: Motor takes a thread to make and to end each."""
        session = self._idle.pop() if self._idle else None
        if session is None:
            with driver_errors():
                session = await self._client.start_session() if self._is_motor else self._client.start_session()
        try:
            yield session
        except BaseException:
            await session.end_session()
            raise
        self._idle.append(session)

    @contextmanager
    def _reading(self, seconds: float | None) -> Iterator[None]:
        self.calls += 1
        with driver_errors():
            if seconds is None:
                yield
                return
            try:
                with pymongo.timeout(seconds):
                    yield
            except NetworkTimeout as error:
                if error.has_error_label("TransientTransactionError"):
                    raise
                raise too_costly() from None  # the server will notice a moment later that its time is up

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self.calls += 1
        with driver_errors():
            yield


def _requests(step: Step) -> list[Any]:
    """A step as the driver takes it."""
    changes: list[Any] = [pymongo.UpdateOne(*update) for update in step.updates]
    changes += [pymongo.ReplaceOne(*one) for one in step.replacements]
    return [*changes, *map(pymongo.DeleteMany, step.deletes), *map(pymongo.InsertOne, step.inserts)]


def _send(database: Any, step: Step, session: Session) -> Any:
    """Send a step by a database of the driver; returns its answer or, of an asynchronous driver, what is awaited for it."""
    command = step.command()
    if command is not None:
        return database.command(command, session=session)
    return database[step.collection].bulk_write(_requests(step), ordered=step.is_mixed, session=session)


def _matched(answer: Any) -> int:
    """How many documents the updates of a step found. Raises for a command as the driver's bulk writes do of themselves."""
    if not isinstance(answer, dict):
        return int(answer.matched_count)
    if "writeErrors" in answer:
        raise BulkWriteError(answer)
    return int(answer["n"])


async def _repeated(once: Callable[[], Awaitable[T]], deadline: float) -> T:
    """The result of a transaction, tried again while others are in its way."""
    problem: Problem | None = None
    for attempt in range(1_000):
        try:
            with driver_errors(transaction=True):
                return await once()
        except Conflict as conflict:
            problem = conflict.problem
            if time.monotonic() > deadline:
                break
        jitter = secrets.randbelow(1_000) / 1_000
        await asyncio.sleep(jitter * min(0.002 * 2 ** min(attempt, 6), 0.1))
    raise problem or Problem("transient", "the store could not carry out this write in time", headers={"Retry-After": "1"})
