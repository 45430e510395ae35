"""Very many readings, fast: the gateway's own documents, copied on with other times, ids and keys by the driver alone.

Ten million pushed by the gateway take hours on two cores; so they take minutes. The indexes are built behind the readings,
exactly as they were.
"""

import http.client
import itertools
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, MongoClient, WriteConcern

from gateway.store.ids import Ids
from tests.bench.jobs import fill
from tests.bench.world import EPOCH, SECRET, World

_STEP = timedelta(minutes=5)
_AT_ONCE = 2_000
_RANDOM = 16 * _AT_ONCE
_MILLISECONDS = timedelta(milliseconds=1)
_UNIX = datetime(1970, 1, 1)  # as BSON has it, without a zone


def fill_fast(world: World, readings: int, clients: int) -> None:
    """Copy readings until there are this many, in equal parts of all patients."""
    fill(world, 288 * len(world.patients), clients)
    each = readings // len(world.patients)
    with MongoClient[dict[str, Any]](world.url) as client:
        source = client.bench.get_collection("Observation", write_concern=WriteConcern(w=1, j=False))
        known = source.count_documents({})
        indexes = _secondary(source.index_information())
        source.drop_indexes()
        began = time.monotonic()
        for n, patient in enumerate(world.patients, start=1):
            have = source.count_documents({"_id": {"$gte": patient[:3], "$lt": patient[:3] + "."}, "patient": patient})
            template = source.find_one({"_id": {"$gte": patient[:3]}, "patient": patient, "version": 1}, sort=[("_id", 1)])
            assert template is not None
            copies = _copies(template, have, each)
            while batch := list(itertools.islice(copies, _AT_ONCE)):
                source.insert_many(batch, ordered=False)
                known += len(batch)
            if n % 8 == 0:
                print(f"  {known} readings after {time.monotonic() - began:.0f} s", flush=True)
        source.create_indexes(indexes)
        client.admin.command("fsync")
        print(f"  {known} readings, indexed, after {time.monotonic() - began:.0f} s", flush=True)
    for patient in world.patients:
        world.days[patient] = each // 288 + 1


def _secondary(information: dict[str, Any]) -> list[IndexModel]:
    options = ("unique", "partialFilterExpression", "storageEngine")
    return [
        IndexModel([(k, int(d)) for k, d in index["key"]], name=name, **{o: index[o] for o in options if o in index})
        for name, index in information.items()
        if name != "_id_"
    ]


def _copies(template: dict[str, Any], first: int, last: int) -> Iterator[RawBSONDocument]:
    """The reading at all steps from `first` to before `last`: its BSON with the few parts that differ replaced."""
    ids, bucket = Ids(SECRET), template["bucket"]
    raw = bson.encode(template)
    was = template["search"]["date"]["low"]
    span = template["search"]["date"]["high"] - was
    named = f"{was:%Y%m%dT%H%M%S}".encode()
    old_id, old_key, old_iso = template["_id"].encode(), bytes(template["key"]), f"{was:%Y-%m-%dT%H:%M:%S}+00:00".encode()
    old_low, old_high = _stored(was), _stored(was + span)
    assert all(raw.count(part) >= 1 for part in (named, old_id, old_key, old_iso, old_low, old_high))
    moment = EPOCH.replace(tzinfo=None) + first * _STEP
    random = b""
    for _ in range(last - first):
        random = random[16:] or os.urandom(_RANDOM)
        new = (
            raw.replace(old_id, ids.new(bucket).encode())
            .replace(old_key, random[:16])
            .replace(named, f"{moment:%Y%m%dT%H%M%S}".encode())
            .replace(old_iso, f"{moment:%Y-%m-%dT%H:%M:%S}+00:00".encode())
            .replace(old_high, _stored(moment + span))
            .replace(old_low, _stored(moment))
        )
        yield RawBSONDocument(new)
        moment += _STEP


def _stored(moment: datetime) -> bytes:
    return ((moment - _UNIX) // _MILLISECONDS).to_bytes(8, "little")


# What is read of readings, each as the standard or an operation asks for it. `{}`: the patient.
READS = {
    "$lastn": "Observation/$lastn?patient={}&code=http://loinc.org|99504-3",
    "newest 100 of a code": "Observation?patient={}&code=http://loinc.org|99504-3&_sort=-date&_count=100",
    "a day of a code": "Observation?patient={}&code=http://loinc.org|99504-3&date=ge2020-06-01&date=lt2020-06-02&_count=200",
    "a day of anything": "Observation?patient={}&date=ge2020-06-01&date=lt2020-06-02&_count=200",
    "by identifier": "Observation?patient={}&identifier=https://glucoapp.example/readings|20200601T000000",
    "changed last": "Observation?patient={}&_sort=-_lastUpdated&_count=20",
    "$glucose-stats, 14 days": "Observation/$glucose-stats?patient={}&start=2020-06-01&end=2020-06-15",
    "$glucose-series, a day": "Observation/$glucose-series?patient={}&start=2020-06-01&end=2020-06-02&_format=text/csv",
    "$changes from now": "Observation/$changes?patient={}&from=now",
    "$changes, 100": "Observation/$changes?patient={}&count=100",
}


def _get(world: World, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=60)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {world.professional}"})
        answer = connection.getresponse()
        return answer.status, answer.read()  # (some are streamed)
    finally:
        connection.close()


def explain_reads(world: World) -> None:
    """What mongod looks at for each of these, as its profiler says: keys and documents examined beside those given."""
    with MongoClient[dict[str, Any]](world.url) as client:
        print(f"\n{'read':26} {'keys':>7} {'documents':>9} {'given':>7}   plan")
        for name, path in READS.items():
            client.bench.command("profile", 0)
            client.bench.drop_collection("system.profile")
            client.bench.command("profile", 2)
            status, body = _get(world, f"/fhir/{path.format(world.patients[3])}")
            client.bench.command("profile", 0)
            where = {"ns": "bench.Observation", "keysExamined": {"$exists": True}}
            ops = list(client.bench["system.profile"].find(where))
            keys, documents, given = (sum(op.get(n, 0) for op in ops) for n in ("keysExamined", "docsExamined", "nreturned"))
            plans = ", ".join(sorted({op.get("planSummary", "?") for op in ops}))
            print(f"{name:26} {keys:7} {documents:9} {given:7}   {plans}{'' if status == 200 else f' {status} {body[:200]!r}'}")
