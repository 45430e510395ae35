"""`python -m tests.bench documents`: what is deposited, found and fetched of documents, each beside raw calls.

W4: a PDF of 150 kB with its DocumentReference in one transaction. W5: a search for a patient's newest DocumentReference, and
its content. W6: twenty Binaries of 200 kB in one batch. W7: a page of a patient's documents in a store of many.
"""

import hashlib
import itertools
import json
import random
import secrets
import threading
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Any

from pymongo import MongoClient

from gateway.store.ids import Ids
from tests.bench.client import Connection, Measured, drive, request
from tests.bench.jobs import Row, measure
from tests.bench.raw import requests_to
from tests.bench.world import SECRET, World

SIZE, LARGE = 150_000, 200_000
IN_BATCH, OF_PATIENT = 20, 40
_COLLECTIONS: dict[str, dict[str, Any]] = {  # what a deposit writes to, and one of what it writes
    "DocumentReference": {"attached": {"$exists": True}},
    "Binary": {"size": SIZE},
    "contents": {"size": SIZE},
}
_FILLED_AT_ONCE = 5_000
_MAJORITY = "&w=majority&journal=true&readConcernLevel=majority&timeoutMS=10000"
_NAME = "urn:uuid:0b1f3f9e-0000-4000-8000-000000000001"


class _Papers:
    """PDFs of one size, each with other bytes, made with little work: only a part in the middle differs."""

    def __init__(self, size: int) -> None:
        content = b"%PDF-1.7\n" + random.Random(size).randbytes(size - 9)
        self._head, self._tail = content[:30_000], content[30_030:]
        self._encoded = b64encode(self._head), b64encode(self._tail)

    def deposit(self, patient: str) -> bytes:
        """The transaction that deposits one."""
        middle = secrets.token_bytes(30)
        sha1 = b64encode(hashlib.sha1(self._head + middle + self._tail, usedforsecurity=False).digest()).decode()
        size = len(self._head) + len(middle) + len(self._tail)
        document = _document(patient, {"contentType": "application/pdf", "url": _NAME, "hash": sha1, "size": size})
        before, after = json.dumps(
            {
                "resourceType": "Bundle",
                "type": "transaction",
                "entry": [
                    {"resource": document, "request": {"method": "POST", "url": "DocumentReference"}},
                    {
                        "fullUrl": _NAME,
                        "resource": {"resourceType": "Binary", "contentType": "application/pdf", "data": "@"},
                        "request": {"method": "POST", "url": "Binary"},
                    },
                ],
            }
        ).split("@")
        head, tail = self._encoded
        return before.encode() + head + b64encode(middle) + tail + after.encode()


def _document(patient: str, attachment: dict[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{secrets.token_hex(16)}"},
        "status": "current",
        "type": {"coding": [{"system": "http://loinc.org", "code": "11502-2", "display": "Laboratory report"}]},
        "category": [{"coding": [{"system": "urn:classes", "code": "10"}]}],
        "subject": {"reference": f"Patient/{patient}"},
        "date": "2026-11-01T08:00:00Z",
        "securityLabel": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "N"}]}],
        "content": [{"attachment": {**attachment, "title": "Compte rendu", "creation": "2026-11-01T08:00:00Z"}}],
        "context": {"period": {"start": "2026-10-30T08:00:00Z", "end": "2026-10-30T09:00:00Z"}},
    }


class _Raw:
    """The same work by raw calls: the gateway's own documents, indexes and concerns, in collections beside its own."""

    def __init__(self, world: World) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(world.url + _MAJORITY, maxPoolSize=100)
        self._database = self._client.bench
        self._ids, self._lock, self._keys = Ids(SECRET), threading.Lock(), itertools.count()
        self._sample: dict[str, dict[str, Any]] = {}

    def prepare(self) -> None:
        """Copies of the collections that a deposit writes to, with their indexes, and a sample of each."""
        for name, where in _COLLECTIONS.items():
            source, target = self._database[name], self._database[f"Raw{name}"]
            engine = {"wiredTiger": {"configString": "block_compressor=zstd"}}
            self._database.create_collection(target.name, storageEngine=engine)
            for index_name, index in source.index_information().items():
                if index_name != "_id_":
                    options = {k: v for k, v in index.items() if k in ("unique", "partialFilterExpression")}
                    target.create_index([(k, int(d)) for k, d in index["key"]], name=index_name, **options)
            self._sample[name] = source.find_one(where) or {}

    def requests(self) -> int:
        """How many requests the server has had."""
        return requests_to(self._client)

    def deposits(self, clients: int, seconds: float) -> Measured:
        """A content, its Binary and its DocumentReference, inserted in one transaction."""

        def insert() -> None:
            number = next(self._keys).to_bytes(16)
            with self._client.start_session() as session, session.start_transaction():
                for name, sample in self._sample.items():
                    fresh = {**sample, "_id": self._ids.new(sample["bucket"])}
                    fresh |= {key: number for key in ("key", "address") if key in sample}
                    self._database[f"Raw{name}"].insert_one(fresh, session=session)

        return drive(clients, seconds, lambda _: insert)

    def fetches(self, world: World, clients: int, seconds: float) -> Measured:
        """The newest document of a patient, its Binary, and the content of that."""
        turn = itertools.cycle(world.patients)

        def fetch() -> None:
            (found,) = self._newest(self._next(turn), 1, {"attached": 1})
            binary = self._database.Binary.find_one({"_id": found["attached"][0]})
            content = self._database.contents.find_one({"_id": binary["content"]}) if binary else None
            assert content is not None
            assert len(content["data"]) > SIZE

        return drive(clients, seconds, lambda _: fetch)

    def pages(self, world: World, clients: int, seconds: float) -> Measured:
        """The bodies of a page."""
        turn = itertools.cycle(world.patients)

        def page() -> None:
            assert len(self._newest(self._next(turn), IN_BATCH, {"body": 1})) == IN_BATCH

        return drive(clients, seconds, lambda _: page)

    def fill(self, documents: int) -> None:
        """Put copies of a stored document of other patients beside, until there are so many."""
        target = self._database.DocumentReference
        sample = target.find_one({}) or {}
        missing = documents - target.estimated_document_count()
        print(f"  filling up to {documents} documents …", flush=True)
        fast = MongoClient[dict[str, Any]](self._client_url(), w=1, journal=False).bench.DocumentReference
        for start in range(0, max(0, missing), _FILLED_AT_ONCE):
            batch = [self._other(sample, n) for n in range(start, min(missing, start + _FILLED_AT_ONCE))]
            fast.insert_many(batch, ordered=False)

    def _client_url(self) -> str:
        host, port = self._client.primary or ("127.0.0.1", 0)
        return f"mongodb://{host}:{port}/?replicaSet={self._client.topology_description.replica_set_name}"

    def _other(self, sample: dict[str, Any], n: int) -> dict[str, Any]:
        bucket = f"{n // OF_PATIENT % 4096:03x}"
        master = f"urn:uuid:{n:032x}"
        search = {**sample["search"], "identifier": [f"urn:ietf:rfc:3986|{master}", master]}
        found = {**sample, "_id": self._ids.new(bucket), "bucket": bucket, "patient": f"{bucket}-p{n // OF_PATIENT}"}
        return {
            name: value for name, value in (found | {"search": search}).items() if name not in ("key", "digest", "attached")
        }

    def _newest(self, patient: str, limit: int, fields: dict[str, int]) -> list[dict[str, Any]]:
        where = {"bucket": patient[:3], "patient": patient, "search.status": "current"}
        order = [("search.date.low", -1), ("_id", 1)]
        return list(self._database.DocumentReference.find(where, fields, sort=order, limit=limit))

    def _next(self, turn: Any) -> str:
        with self._lock:
            return str(next(turn))


def run_documents(world: World, seconds: float, clients: int, documents: int) -> list[Row]:
    """Measure them all."""
    raw, rows = _Raw(world), list[Row]()
    small, large = _Papers(SIZE), _Papers(LARGE)
    mine = [world.patients[n::clients] for n in range(clients)]

    def add(
        row: tuple[str, str],
        count: int,
        worker: Callable[[int], Callable[[], None]],
        raw_job: Callable[[float], Measured] | None = None,
    ) -> None:
        rows.append(measure(row, count, seconds, worker, raw.requests, raw=raw_job))

    def depositing(n: int) -> Callable[[], None]:
        connection, turn = Connection(world.port), itertools.cycle(mine[n])

        def deposit() -> None:
            _ask(connection, request("POST", "/fhir", world.depositor, small.deposit(next(turn))))

        return deposit

    def fetching(n: int) -> Callable[[], None]:
        connection, turn = Connection(world.port), itertools.cycle(mine[n])
        query = "/fhir/DocumentReference?patient={}&status=current&_sort=-date&_count=1"

        def fetch() -> None:
            page = json.loads(_ask(connection, request("GET", query.format(next(turn)), world.professional)))
            url = page["entry"][0]["resource"]["content"][0]["attachment"]["url"]
            body = _ask(connection, _raw_request(_path(url), world.professional))
            assert len(body) >= SIZE

        return fetch

    batches = _large_batches(world, large)

    def batching(_: int) -> Callable[[], None]:
        connection, turn = Connection(world.port), itertools.cycle(batches)

        def batch() -> None:
            body = _ask(connection, request("POST", "/fhir", world.professional, next(turn)))
            assert len(body) > IN_BATCH * LARGE

        return batch

    def paging(n: int) -> Callable[[], None]:
        connection, turn = Connection(world.port), itertools.cycle(mine[n % clients])
        query = f"/fhir/DocumentReference?patient={{}}&status=current&_sort=-date&_count={IN_BATCH}"

        def page() -> None:
            body = _ask(connection, request("GET", query.format(next(turn)), world.professional))
            assert body.count(b'"fullUrl"') == IN_BATCH

        return page

    _fill_own(world, clients)
    raw.prepare()
    add(("W4", "deposits of 150 kB, a transaction"), clients, depositing, partial(raw.deposits, clients))
    add(("W5", "newest document and its content"), clients, fetching, partial(raw.fetches, world, clients))
    add(("W6", "20 Binaries of 200 kB in a batch"), 1, batching)
    raw.fill(documents)
    add(("W7", f"pages of {IN_BATCH} documents"), clients, paging, partial(raw.pages, world, clients))
    add(("W7/1", "the same, one client"), 1, paging, partial(raw.pages, world, 1))
    return rows


def _ask(connection: Connection, message: bytes) -> bytes:
    status, body = connection.ask(message)
    if status != 200:
        raise RuntimeError(f"{status}: {body[:300]!r}")
    return body


def _raw_request(path: str, token: str) -> bytes:
    return request("GET", path, token).replace(b"accept: application/fhir+json", b"accept: application/pdf")


def _path(url: str) -> str:
    return f"/fhir/Binary/{url.rpartition('Binary/')[2]}"


def _large_batches(world: World, papers: _Papers) -> list[bytes]:
    """For a few patients, the batch that fetches their twenty documents."""
    connection, found = Connection(world.port), list[bytes]()
    for patient in world.patients[:4]:
        urls = []
        for _ in range(IN_BATCH):
            answer = json.loads(_ask(connection, request("POST", "/fhir", world.depositor, papers.deposit(patient))))
            urls.append(answer["entry"][1]["response"]["location"].partition("/_history")[0])
        asked = [{"request": {"method": "GET", "url": url}} for url in urls]
        found.append(json.dumps({"resourceType": "Bundle", "type": "batch", "entry": asked}).encode())
    return found


def _fill_own(world: World, clients: int) -> None:
    """Some documents of each patient, small ones, and a newest one with content."""
    print("  documents of the patients …", flush=True)

    def work(n: int) -> None:
        connection, papers = Connection(world.port), _Papers(SIZE)
        for patient in world.patients[n::clients]:
            entries = [
                {
                    "resource": _document(patient, {"contentType": "text/plain", "data": "SGVsbG8="})
                    | {"date": "2026-10-01T08:00:00Z"},
                    "request": {"method": "POST", "url": "DocumentReference"},
                }
                for _ in range(OF_PATIENT)
            ]
            body = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}).encode()
            _ask(connection, request("POST", "/fhir", world.depositor, body))
            _ask(connection, request("POST", "/fhir", world.depositor, papers.deposit(patient)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
