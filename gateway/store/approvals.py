"""What people approved for clients, and what leads there and away from there: requests, codes, launches, approvals.

Knows: how each is stored (secrets by their hash only), and the order that leaves no token of an approval that has ended: who
issues one does it in one transaction with the approval, who ends it marks it first and takes its tokens afterwards.
Must not know: what a scope or a Consent means, what the secrets look like.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256

from gateway.fhir.balp import Event
from gateway.store.audit import AuditWriter
from gateway.store.mongo import Document, Mongo, Session, Stale, Step, Unmatched
from gateway.store.schema import APPROVALS, AUTHORIZATIONS, CODES, LAUNCHES, TOKENS

_SECONDS = 5.0  # that a transaction of one or two statements may take


async def put_authorization(mongo: Mongo, handle: str, fields: Document) -> None:
    """Keep a request that somebody is about to decide on."""
    await mongo.insert(AUTHORIZATIONS, [{"_id": hash_of(handle), **fields}])


async def take_pushed(mongo: Mongo, handle: str, client: str, now: datetime) -> Document | None:
    """A request that this client has pushed, to whoever of those who name it is the first; None for all others."""
    found = await mongo.find_one(AUTHORIZATIONS, {"_id": hash_of(handle), "client": client, "expires": {"$gt": now}})
    return found if found is not None and await mongo.delete(AUTHORIZATIONS, {"_id": found["_id"]}) else None


async def find_authorization(mongo: Mongo, handle: str, now: datetime) -> Document | None:
    """The request behind a handle, None where there is none any more; one that is decided on has its `answer`."""
    return await mongo.find_one(AUTHORIZATIONS, {"_id": hash_of(handle), "expires": {"$gt": now}})


async def choose_patient(mongo: Mongo, handle: str, now: datetime, chosen: Document) -> bool:
    """Say whose record a request is about. Returns whether it is still open."""
    where = {"_id": hash_of(handle), "expires": {"$gt": now}, "answer": None}
    return await mongo.change(AUTHORIZATIONS, where, {"$set": {"chosen": chosen}}) is not None


async def take_authorization(mongo: Mongo, handle: str, now: datetime, answer: Document, until: datetime) -> bool:
    """Close a request: it is decided on, and `answer` is kept until then for who sends the same decision twice.

    Returns whether it was open, which it is for one of those who decide at once.
    """
    where = {"_id": hash_of(handle), "expires": {"$gt": now}, "answer": None}
    return await mongo.change(AUTHORIZATIONS, where, {"$set": {"answer": answer, "expires": until}}) is not None


async def reopen_authorization(mongo: Mongo, handle: str, until: datetime) -> None:
    """Let a request be decided on again: what was decided could not be stored."""
    change = {"$unset": {"answer": ""}, "$set": {"expires": until}}
    await mongo.change(AUTHORIZATIONS, {"_id": hash_of(handle), "answer": {"$exists": True}}, change)


async def is_waiting(mongo: Mongo, code: bytes) -> bool | None:
    """Whether a code, by its hash, is there and nobody has claimed it; None where it is not there."""
    found = await mongo.find_one(CODES, {"_id": code}, {"used": 1})
    return None if found is None else not found["used"]


async def put_launch(mongo: Mongo, handle: str, fields: Document) -> None:
    """Keep the context of a launch."""
    await mongo.insert(LAUNCHES, [{"_id": hash_of(handle), **fields}])


async def find_launch(mongo: Mongo, handle: str, now: datetime) -> Document | None:
    """The context behind a launch, None where there is none any more."""
    return await mongo.find_one(LAUNCHES, {"_id": hash_of(handle), "expires": {"$gt": now}})


def _approved(approval: Document, code: str, fields: Document) -> list[Step]:
    return [Step(APPROVALS, [approval]), Step(CODES, [{"_id": hash_of(code), "used": False, **fields}])]


async def add_approval_behind(mongo: Mongo, approval: Document, code: str, fields: Document, session: Session) -> None:
    """Store an approval with the code that stands for it, in this transaction."""
    for step in _approved(approval, code, fields):
        await mongo.write(step, session)


async def add_approval(
    audit: AuditWriter, approval: Document, code: str, fields: Document, event: Event, now: datetime
) -> None:
    """The same in a transaction of its own, with its event."""
    await audit.write_all(_approved(approval, code, fields), [event], now, seconds=_SECONDS)


async def claim_code(mongo: Mongo, code: str, now: datetime) -> tuple[Document | None, bool]:
    """The code, if this is the first who claims it in time; and whether somebody claimed it before."""
    key = hash_of(code)
    found = await mongo.change(CODES, {"_id": key, "used": False, "expires": {"$gt": now}}, {"$set": {"used": True}})
    if found is not None:
        return found, False
    found = await mongo.find_one(CODES, {"_id": key})
    return found, found is not None and bool(found["used"])


async def find_approval(mongo: Mongo, identifier: str) -> Document | None:
    """An approval, ended or not."""
    return await mongo.find_one(APPROVALS, {"_id": identifier})


async def find_approvals(mongo: Mongo, patient: str) -> list[Document]:
    """The approvals that are open about a patient's record, the newest first."""
    where = {"bucket": patient[:3], "patient": patient, "ended": None}
    return await mongo.find(APPROVALS, where, sort=[("began", -1)])


async def find_approvals_of(mongo: Mongo, user: str) -> list[Document]:
    """The approvals that are open for who uses clients as themselves, the newest first."""
    return await mongo.find(APPROVALS, {"user": user, "ended": None}, sort=[("began", -1)])


async def issue(mongo: Mongo, approval: str, token: str, fields: Document, known: Document, changes: Document) -> bool:
    """Store an access token of an approval and `changes` of it, in one transaction.

    Returns whether the approval is open and its fields are still as `known`; else nothing is stored.
    """
    update = {"$set": changes, "$inc": {"tokens": 1}} if changes else {"$inc": {"tokens": 1}}
    steps = [
        Step(APPROVALS, updates=[({"_id": approval, "ended": None, **known}, update)]),
        Step(TOKENS, [{"_id": hash_of(token), **fields}]),
    ]
    try:
        await mongo.write_all(steps, seconds=_SECONDS)
    except (Unmatched, Stale):
        return False
    return True


async def end_approvals(mongo: Mongo, identifiers: Iterable[str], now: datetime) -> None:
    """End approvals: when this returns, none of their tokens is good for anything."""
    for identifier in identifiers:
        await mongo.change(APPROVALS, {"_id": identifier, "ended": None}, {"$set": {"ended": now}})
        await mongo.delete(TOKENS, {"grant": identifier})


async def find_consents(
    mongo: Mongo, patient: str, identifiers: Sequence[str] | None = None, session: Session = None
) -> list[Document]:
    """The Consents of a patient with these identifiers (`system|value`), or with any. Never told to a caller as such."""
    known: Document = {"$exists": True} if identifiers is None else {"$in": list(identifiers)}
    where: Document = {"bucket": patient[:3], "patient": patient, "search.identifier": known, "deleted": {"$ne": True}}
    fields = {"body": 1, "version": 1, "updated": 1, "search.identifier": 1}
    return await mongo.find("Consent", where, fields, session=session)


def hash_of(secret: str) -> bytes:
    """What a secret of ours is stored under: it has 256 random bits, which no list of guesses reaches."""
    return sha256(secret.encode()).digest()
