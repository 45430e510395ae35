"""Receipts: what became of a write that came with an `Idempotency-Key`, so that it is not done again.

Knows: how a receipt is found by its caller and key, that it is written in the transaction of the write itself, and who may
still have what it names.
Must not know: HTTP, how an answer is built.

A receipt names what was written (type, id, version) and holds nothing of it; keys and requests are kept as keyed hashes.
MongoDB removes it after two days. No lease has to be taken or given back: of two transactions that write the same receipt
the store commits one.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from gateway.access.access import Access
from gateway.fhir.clause import matches
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem
from gateway.store.change import require_write
from gateway.store.filter import among
from gateway.store.mongo import Document, Mongo, Step
from gateway.store.resources import as_values
from gateway.store.schema import RECEIPTS, history_of

_ID_BYTES, _POSITION_BYTES = 20, 3
_END = b"\xff" * _POSITION_BYTES


@dataclass(frozen=True, slots=True)
class Once:
    """What its client wants done once. `key`: theirs; `request`: a hash of all they asked; `position`: that in a batch."""

    key: str
    request: bytes
    position: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """One resource as a request left it. `id` and `version` are None where there was nothing to delete."""

    interaction: str
    status: int
    type: str
    id: str | None
    version: int | None

    @property
    def receipt(self) -> str:
        """In a word, what became of what was to be created: it was there already, or says something new of what was."""
        return "corrected" if self.interaction == "update" else "created" if self.status == 201 else "known"


class Receipts:
    """Keeps and finds receipts. `secret`: keeps their hashes from telling anything."""

    def __init__(self, mongo: Mongo, secret: str) -> None:
        self._mongo = mongo
        self._key = blake2b(secret.encode(), digest_size=32, person=b"gateway-receipt").digest()

    def digest(self, parts: Iterable[str | bytes]) -> bytes:
        """A hash of these parts."""
        made = hmac.new(self._key, digestmod="sha256")
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            made.update(len(data).to_bytes(8))
            made.update(data)
        return made.digest()

    async def find(self, access: Access, once: Once) -> list[Done] | None:
        """What was done when this caller sent this before, None where it was not.

        Raises Problem 422 where this key came with something else.
        """
        first = self._id(access, once)
        # What is not one of a batch is told apart from every entry of a batch with the same key.
        last = first if once.position else first[:_ID_BYTES] + _END
        found = await self._mongo.find(RECEIPTS, {"_id": {"$gte": first, "$lte": last}}, sort=[("_id", 1)], limit=1)
        for document in found:
            _require_same(document, once)
        if not found or bytes(found[0]["_id"]) != first:
            return None
        return [Done(*written) for written in found[0]["written"]]

    def document(self, access: Access, once: Once, done: Sequence[Done]) -> Document:
        """A receipt as it is stored."""
        written = [[one.interaction, one.status, one.type, one.id, one.version] for one in done]
        return {"_id": self._id(access, once), "at": access.now, "request": once.request, "written": written}

    async def find_parts(self, access: Access, once: Once) -> dict[int, list[Done]]:
        """What was done of the parts of a request, by their positions, when this caller sent it before.

        Raises Problem 422 where this key came with something else.
        """
        first = self._id(access, once)
        found = await self._mongo.find(RECEIPTS, {"_id": {"$gte": first, "$lte": first[:_ID_BYTES] + _END}})
        for document in found[:1]:
            _require_same(document, once)
        return {_position(document): [Done(*written) for written in document["written"]] for document in found}

    async def keep(self, receipts: Sequence[Document]) -> None:
        """Store the receipts of what wrote nothing else. Raises Stale where there is one already."""
        await self._mongo.insert(RECEIPTS, [*receipts])

    def _id(self, access: Access, once: Once) -> bytes:
        """Where the receipt of this caller's key lies. Tokens come and go; client and subject stay."""
        caller = access.caller
        who = (caller.kind, caller.client, caller.user or "", caller.patient or "", *caller.subject)
        return self.digest((*who, once.key))[:_ID_BYTES] + once.position.to_bytes(_POSITION_BYTES)


def _position(document: Document) -> int:
    return int.from_bytes(bytes(document["_id"])[_ID_BYTES:])


def _require_same(document: Document, once: Once) -> None:
    if not hmac.compare_digest(bytes(document["request"]), once.request):
        text = "this Idempotency-Key came with another request before"
        raise Problem("invalid", text, "Idempotency-Key", status=422)


async def read_written(
    access: Access, mongo: Mongo, kind: ResourceType, asked: Sequence[tuple[Done, str | None]]
) -> Mapping[str, tuple[Document, Document]]:
    """The resources of a type that receipts name, as they are now and as they were left, by id. `asked`: each with its place.

    What the same request could not find if it came now is not among them. Raises Problem where it would be refused.
    """
    versions = {one.id: one.version for one, _ in asked if one.id is not None}
    where = among(versions)
    now = {document["_id"]: document for document in await mongo.find(kind.name, where)} if versions else {}
    left = {identifier: document for identifier, document in now.items() if document["version"] == versions[identifier]}
    former = [f"{identifier}/{versions[identifier]}" for identifier in now.keys() - left.keys()]
    if former:
        found = await mongo.find(history_of(kind.name), where | {"_id": {"$in": former}})
        left |= {document["id"]: document for document in found}
    given: dict[str, tuple[Document, Document]] = {}
    for one, place in asked:
        if one.id is not None and one.id in left and _finds(access, kind, one.interaction, now[one.id]):
            for document in (now[one.id], left[one.id]):
                require_write(access, kind, one.interaction, as_values(document), place)
            given[one.id] = now[one.id], left[one.id]
    return given


def _finds(access: Access, kind: ResourceType, interaction: str, document: Document) -> bool:
    """Whether a write would find the resource that it was about: a create brings it, a patch tells what is there."""
    if interaction == "create":
        return True
    return matches(access.referable(kind), document) and (interaction != "patch" or access.knows(kind, document))


def receipt_steps(receipts: Sequence[Document]) -> list[Step]:
    """Writing these receipts: the first thing of their transaction, for on them it waits for others with the same key."""
    return [Step(RECEIPTS, receipts, contended=_under_way)] if receipts else []


def _under_way() -> Problem:
    text = "a request with this Idempotency-Key is still under way"
    return Problem("conflict", text, "Idempotency-Key", headers={"Retry-After": "2"})
