"""Looking up single resources on behalf of writes, several in one call where several requests wait.

Knows: how questions of different callers share a call without sharing an answer: what the call brings is tested for each
caller in memory before it is given out.
Must not know: what the answers are for.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from gateway.access.access import Access
from gateway.fhir.clause import FIELDS, Clause, Values, matches, parameters_of
from gateway.fhir.identity import IDENTIFIER_BYTES
from gateway.fhir.registry import ResourceType
from gateway.store.gather import Gather
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Mongo

_MOST = 4_096  # keys or ids in one call
_KNOWN = {"key": 1, "digest": 1, "version": 1, "updated": 1, "patient": 1, "source": 1, "deleted": 1}
_INSIDE = {"search": 1, "labels": 1}
_TARGET = {"patient": 1, "source": 1, "deleted": 1}


class _Keys(NamedTuple):
    by_bucket: Mapping[str, Sequence[bytes]]
    look_inside: bool


class _Ids(NamedTuple):
    ids: Sequence[str]
    look_inside: bool


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

        A key is made of its sender's own name: whoever can make it has sent the resource.
        """
        wanted = [key for found in keys.values() for key in found]
        if all(key[:IDENTIFIER_BYTES] in access.prefetched.known for key in wanted):
            known = (d for key in wanted for d in access.prefetched.known[key[:IDENTIFIER_BYTES]])
            return {bytes(d["key"]): dict(d) for d in known if d["key"] in wanted}
        if kind.name not in self._known:
            weigh = _weigh_keys
            self._known[kind.name] = Gather(partial(self._find_known, kind.name), most=_MOST, weigh=weigh)
        # Whether a resource may be written again can depend on what it says.
        look_inside = bool(parameters_of(access.clause(kind, "create")) - FIELDS.keys())
        found = await self._known[kind.name].ask(_Keys(keys, look_inside))
        return {key: found[key] for key in wanted if key in found}

    async def find_targets(self, access: Access, kind: ResourceType, ids: Sequence[str]) -> dict[str, str | None]:
        """Which of these resources exist and may be pointed at by the caller, with the patient each belongs to."""
        clause = access.referable(kind)
        prefetched = access.prefetched.resources
        if all(f"{kind.name}/{identifier}" in prefetched for identifier in ids):
            there = (prefetched[f"{kind.name}/{identifier}"] for identifier in ids)
            return _allowed(clause, [d for d in there if d is not None])
        if kind.name not in self._targets:
            self._targets[kind.name] = Gather(partial(self._find_by_id, kind.name), most=_MOST, weigh=_weigh_ids)
        question = _Ids(ids, bool(parameters_of(clause) - FIELDS.keys()))
        found = await self._targets[kind.name].ask(question)
        return _allowed(clause, [found[identifier] for identifier in ids if identifier in found])

    async def _find_known(self, collection: str, asked: list[_Keys]) -> list[dict[bytes, Document]]:
        by_bucket: dict[str, list[bytes]] = {}
        for question in asked:
            for bucket, keys in question.by_bucket.items():
                by_bucket.setdefault(bucket, []).extend(keys)
        branches: list[Document] = [{"bucket": bucket, "key": {"$in": keys}} for bucket, keys in by_bucket.items()]
        where = branches[0] if len(branches) == 1 else {"$or": branches}
        fields = _KNOWN | _INSIDE if any(question.look_inside for question in asked) else _KNOWN
        found = await self._mongo.find(collection, where, fields, hint="key")
        known = {document["key"]: document for document in found}
        return [known] * len(asked)

    async def _find_by_id(self, collection: str, asked: list[_Ids]) -> list[dict[str, Document]]:
        ids = list(dict.fromkeys(i for question in asked for i in question.ids if bucket_of(i)))
        where: Document = {"_id": {"$in": ids}, "bucket": {"$in": list({i[:3] for i in ids})}}
        fields = _TARGET | _INSIDE if any(question.look_inside for question in asked) else _TARGET
        found = {document["_id"]: document for document in await self._mongo.find(collection, where, fields)}
        return [found] * len(asked)


def _allowed(clause: Clause, found: Sequence[Values]) -> dict[str, str | None]:
    return {d["_id"]: d.get("patient") for d in found if not d.get("deleted") and matches(clause, d)}


def _weigh_keys(question: _Keys) -> int:
    return sum(map(len, question.by_bucket.values()))


def _weigh_ids(question: _Ids) -> int:
    return len(question.ids)
