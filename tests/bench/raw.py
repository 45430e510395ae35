"""The same work by raw driver calls: synchronous PyMongo, the gateway's own documents, indexes and concerns."""

import copy
import itertools
import threading
from collections.abc import Callable
from typing import Any

from pymongo import MongoClient

from gateway.store.ids import Ids
from tests.bench.client import Measured, drive
from tests.bench.world import SECRET, World

_OPTIONS = "&w=majority&journal=true&readConcernLevel=majority&timeoutMS=10000"


def requests_to(client: MongoClient[dict[str, Any]]) -> int:
    """How many requests the server has had."""
    return int(client.admin.command("serverStatus")["network"]["numRequests"])


class Raw:
    """A copy of the Observation collection with the same indexes, and clients for it."""

    def __init__(self, world: World) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(world.url + _OPTIONS, maxPoolSize=100)
        self._source = self._client.bench.Observation
        self._target = self._client.bench.RawObservation
        self._target.drop()
        self._client.bench.create_collection(
            "RawObservation", storageEngine={"wiredTiger": {"configString": "block_compressor=zstd"}}
        )
        for name, index in self._source.index_information().items():
            if name != "_id_":
                options = {k: v for k, v in index.items() if k in ("unique", "partialFilterExpression")}
                self._target.create_index([(k, int(d)) for k, d in index["key"]], name=name, **options)
        self._ids = Ids(SECRET)
        self._keys = itertools.count()
        self._lock = threading.Lock()
        self._sample = list(self._source.find({"version": 1}, limit=288))
        self._singles = list(self._source.aggregate([{"$match": {"version": 1}}, {"$sample": {"size": 96}}]))

    def insert_days(self, clients: int, seconds: float) -> Measured:
        """insert_many of 288 documents; the rate is in days."""
        return drive(clients, seconds, lambda _: lambda: self._insert_many(self._fresh(self._sample)))

    def insert_one(self, clients: int, seconds: float) -> Measured:
        """insert_one, of all patients in turn as the gateway's creates are."""

        def inserting(n: int) -> Callable[[], None]:
            turn = itertools.cycle(self._singles[n::clients])
            return lambda: self._insert_one(self._fresh([next(turn)])[0])

        return drive(clients, seconds, inserting)

    def find_pages(self, world: World, clients: int, seconds: float) -> Measured:
        """The same hundred bodies by the same index."""
        patients = itertools.cycle(world.patients)

        def page() -> None:
            with self._lock:
                patient = next(patients)
            where = {"bucket": patient[:3], "patient": patient, "search.code": "http://loinc.org|99504-3"}
            order = [("search.date.low", -1), ("_id", 1)]
            found = list(self._source.find(where, {"body": 1}, sort=order, limit=100))
            assert len(found) == 100

        return drive(clients, seconds, lambda _: page)

    def find_one(self, ids: list[str], clients: int, seconds: float) -> Measured:
        """find_one by id."""
        turn = itertools.cycle(ids)

        def read() -> None:
            with self._lock:
                identifier = next(turn)
            assert self._source.find_one({"_id": identifier})

        return drive(clients, seconds, lambda _: read)

    def ids(self, count: int) -> list[str]:
        """Ids of stored readings."""
        return [
            document["_id"] for document in self._source.aggregate([{"$sample": {"size": count}}, {"$project": {"_id": 1}}])
        ]

    def server_status(self) -> dict[str, Any]:
        """The server's own counters."""
        return dict(self._client.admin.command("serverStatus"))

    def requests(self) -> int:
        """How many requests the server has had."""
        return requests_to(self._client)

    def sizes(self) -> dict[str, float]:
        """Bytes on disk per reading: data and index entries."""
        self._client.admin.command("fsync")
        stats = self._client.bench.command("collStats", "Observation")
        audit = self._client.bench.command("collStats", "AuditEvent")
        count = max(1, stats["count"])
        return {
            "readings": count,
            "data": stats["storageSize"] / count,
            "indexes": stats["totalIndexSize"] / count,
            "audit": (audit["storageSize"] + audit["totalIndexSize"]) / count,
        }

    def _insert_many(self, documents: list[dict[str, Any]]) -> None:
        self._target.insert_many(documents, ordered=False)

    def _insert_one(self, document: dict[str, Any]) -> None:
        self._target.insert_one(document)

    def _fresh(self, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        fresh = [copy.copy(document) for document in documents]
        for document in fresh:
            document["_id"] = self._ids.new(document["bucket"])
            document["key"] = next(self._keys).to_bytes(16)
        return fresh


Runner = Callable[[int, float], Measured]
