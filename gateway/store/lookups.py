"""Looking up single resources on behalf of writes, several in one call where several requests wait.

Knows: how questions of different callers share a call without sharing an answer: what the call brings is tested for each
caller in memory before it is given out.
Must not know: what the answers are for.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from gateway.access.access import Access
from gateway.fhir.clause import Clause, Values, matches, parameters_of
from gateway.fhir.identity import IDENTIFIER_BYTES, of_any_sender
from gateway.fhir.registry import ResourceType
from gateway.store.filter import among, stored_field
from gateway.store.gather import Gather
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Mongo
from gateway.store.through import look_through

_MOST = 4_096  # keys or ids in one call
_KNOWN = frozenset({"key", "digest", "version", "updated", "patient", "source", "deleted", "withdrawn"})
_TARGET = frozenset({"patient", "deleted"})


class _Keys(NamedTuple):
    """Business keys by bucket; `parameters`: those that the asker's limits look at."""

    by_bucket: Mapping[str, Sequence[bytes]]
    parameters: set[str]


class _Ids(NamedTuple):
    """Ids of one type; `parameters`: those that the asker's limits look at."""

    ids: Sequence[str]
    parameters: set[str]


class Lookups:
    """Finds what is stored under business keys, and what may be referred to."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._known: dict[str, Gather[_Keys, dict[bytes, Document]]] = {}
        self._targets: dict[str, Gather[_Ids, dict[str, Document]]] = {}

    async def find_known(
        self, access: Access, kind: ResourceType, keys: Mapping[str, Sequence[bytes]]
    ) -> dict[bytes, Document]:
        """What is stored under these business keys, given by bucket; tombstones too.

        A key is made of its sender's own name: whoever can make it has sent the resource. A document is known to others, too,
        by what they call it, if they may read it.
        """
        wanted = [key for found in keys.values() for key in found]
        if all(key[:IDENTIFIER_BYTES] in access.prefetched.known for key in wanted):
            prefetched = (d for key in wanted for d in access.prefetched.known[key[:IDENTIFIER_BYTES]])
            return _known_to(access, kind, wanted, {bytes(d["key"]): dict(d) for d in prefetched})
        if kind.name not in self._known:
            find = partial(self._find_known, kind.name, of_all=kind.lifecycle is not None)
            self._known[kind.name] = Gather(find, most=_MOST, weigh=_weigh_keys)
        # Whether a resource may be written again can depend on what it says.
        found = await self._known[kind.name].ask(_Keys(keys, access.parameters_weighed(kind, "create")))
        return _known_to(access, kind, wanted, found)

    async def find_targets(self, access: Access, kind: ResourceType, ids: Sequence[str]) -> dict[str, str | None]:
        """Which of these resources exist and may be pointed at by the caller, with the patient each belongs to."""
        found = await self._find_targets(access, kind, ids)
        missing = [identifier for identifier in ids if identifier not in found]
        # (What one deposited itself may be pointed at whether or not it is seen through anything: that costs no call.)
        if missing and await look_through(access, self._mongo, kind, missing):
            found |= await self._find_targets(access, kind, missing)
        return found

    async def _find_targets(self, access: Access, kind: ResourceType, ids: Sequence[str]) -> dict[str, str | None]:
        clause = access.referable(kind)
        prefetched = access.prefetched.resources
        if all(f"{kind.name}/{identifier}" in prefetched for identifier in ids):
            there = (prefetched[f"{kind.name}/{identifier}"] for identifier in ids)
            return _allowed(clause, [d for d in there if d is not None])
        if kind.name not in self._targets:
            self._targets[kind.name] = Gather(partial(self._find_by_id, kind.name), most=_MOST, weigh=_weigh_ids)
        found = await self._targets[kind.name].ask(_Ids(ids, parameters_of(clause)))
        return _allowed(clause, [found[identifier] for identifier in ids if identifier in found])

    async def _find_known(self, collection: str, asked: list[_Keys], *, of_all: bool) -> list[dict[bytes, Document]]:
        by_bucket: dict[str, list[bytes]] = {}
        for question in asked:
            for bucket, keys in question.by_bucket.items():
                by_bucket.setdefault(bucket, []).extend(keys)
        branches: list[Document] = [{"bucket": bucket, "key": {"$in": keys}} for bucket, keys in by_bucket.items()]
        if of_all:
            branches = [{"bucket": bucket, "key": of_any_sender(key)} for bucket, keys in by_bucket.items() for key in keys]
        where = branches[0] if len(branches) == 1 else {"$or": branches}
        found = await self._mongo.find(collection, where, _projection(_KNOWN, asked), hint="key")
        known = {bytes(document["key"]): document for document in found}
        return [known] * len(asked)

    async def _find_by_id(self, collection: str, asked: list[_Ids]) -> list[dict[str, Document]]:
        ids = {i for question in asked for i in question.ids if bucket_of(i)}
        found = await self._mongo.find(collection, among(ids), _projection(_TARGET, asked))
        return [{document["_id"]: document for document in found}] * len(asked)


def _known_to(
    access: Access, kind: ResourceType, wanted: Sequence[bytes], found: Mapping[bytes, Document]
) -> dict[bytes, Document]:
    """What the caller sent itself under these keys or, of documents, may read of what others did."""
    known = {key: found[key] for key in wanted if key in found}
    if kind.lifecycle is None or len(known) == len(wanted):
        return known
    readable = access.clause(kind, "read")
    seen = {key: d for key, d in found.items() if not d.get("deleted") and matches(readable, d)}
    others = {key[:IDENTIFIER_BYTES]: document for key, document in sorted(seen.items(), reverse=True)}
    return {key: others[key[:IDENTIFIER_BYTES]] for key in wanted if key[:IDENTIFIER_BYTES] in others} | known


def _projection(always: frozenset[str], asked: Iterable[_Keys | _Ids]) -> Mapping[str, int]:
    """These fields, and those that the limits of any of those who ask look at."""
    looked_at = set[str]().union(*(question.parameters for question in asked))
    return dict.fromkeys(always.union(map(stored_field, looked_at)), 1)


def _allowed(clause: Clause, found: Sequence[Values]) -> dict[str, str | None]:
    return {d["_id"]: d.get("patient") for d in found if not d.get("deleted") and matches(clause, d)}


def _weigh_keys(question: _Keys) -> int:
    return sum(map(len, question.by_bucket.values()))


def _weigh_ids(question: _Ids) -> int:
    return len(question.ids)
