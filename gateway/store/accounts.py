"""Accounts of people who log in here, and their sessions in browsers.

Knows: how both are stored (a session under the hash of its cookie), and that each attempt to log in is counted before it is
looked at, so that any number of attempts at once get no more tries than one after the other.
Must not know: passwords and codes beyond their stored forms; HTTP; FHIR.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Mongo, Part, Stale
from gateway.store.schema import ACCOUNTS, SESSIONS

# Somebody who mistypes does not wait; who guesses a list of passwords gets four an hour, and keeps nobody out for longer.
_FREE_ATTEMPTS = 5
_FIRST_WAIT, _LONGEST_WAIT = 15, 900  # seconds

_WAIT = {"$multiply": [_FIRST_WAIT, {"$pow": [2, {"$min": [10, {"$subtract": ["$failures", _FREE_ATTEMPTS]}]}]}]}


async def add_account(mongo: Mongo, account: Document) -> bool:
    """Store a new account; its `_id` is the login. Returns whether there was none of that login."""
    try:
        await mongo.insert(ACCOUNTS, [account])
    except Stale:
        return False
    return True


async def find_accounts(mongo: Mongo) -> list[Document]:
    """All accounts, without their secrets."""
    return await mongo.find(ACCOUNTS, {}, {"password": 0, "second_factor": 0}, sort=[("_id", 1)])


async def find_references(mongo: Mongo, login: str) -> list[str]:
    """Who the account of this login is, as references; nobody where there is none."""
    found = await mongo.find_one(ACCOUNTS, {"_id": login}, {"references": 1})
    return [] if found is None else [*found["references"]]


async def change_account(mongo: Mongo, login: str, **fields: Any) -> bool:
    """Set these fields of an account and end its sessions. Returns whether there is such an account."""
    found = await mongo.change(ACCOUNTS, {"_id": login}, {"$set": fields})
    await mongo.delete(SESSIONS, {"account": login})
    return found is not None


async def is_locked(mongo: Mongo, login: str) -> bool:
    """Whether there is such an account and it is locked."""
    return await mongo.find_one(ACCOUNTS, {"_id": login, "locked": True}, {"_id": 1}) is not None


async def end_sessions_of(mongo: Mongo, reference: str) -> int:
    """End every session of whoever this resource is, wherever they logged in; returns how many there were."""
    return await mongo.delete(SESSIONS, {"references": reference})


async def end_sessions_elsewhere(mongo: Mongo, account: str | None, sid: str | None) -> int:
    """End the sessions of who logged in elsewhere: of this account, or the one that the provider calls so; how many it were.

    Where both are told, sessions of the account of which no name is known end as well: any of them may be the one.
    """
    if account is None or sid is None:
        return await mongo.delete(SESSIONS, {"account": account} if account is not None else {"sid": sid})
    return await mongo.delete(SESSIONS, {"account": account, "sid": {"$in": [sid, None]}})


async def take_attempt(mongo: Mongo, login: str, now: datetime) -> Document | None:
    """Count an attempt to log in and return the account.

    None where there is no such account, or it is locked, or its next attempt is not due yet: nobody is told which.
    """
    where = {"_id": login, "locked": False, "free": {"$lte": now}}
    wait = {"$multiply": [1_000, {"$min": [_LONGEST_WAIT, _WAIT]}]}
    later = {"$cond": [{"$lt": ["$failures", _FREE_ATTEMPTS]}, "$free", {"$add": [now, wait]}]}
    return await mongo.change(ACCOUNTS, where, [{"$set": {"failures": {"$add": ["$failures", 1]}}}, {"$set": {"free": later}}])


async def settle_attempt(mongo: Mongo, login: str, now: datetime, step: int | None = None) -> bool:
    """Forget the attempts of who has shown what was asked for. `step`: of the one-time code, which is good once.

    Returns whether it still was.
    """
    where: Document = {"_id": login, "locked": False}
    fields: Document = {"failures": 0, "free": now}
    if step is not None:
        where["last_step"] = {"$lt": step}
        fields["last_step"] = step
    return await mongo.change(ACCOUNTS, where, {"$set": fields}) is not None


async def put_session(mongo: Mongo, cookie: str, fields: Document) -> None:
    """Begin a session."""
    await mongo.insert(SESSIONS, [{"_id": session_key(cookie), **fields}])


async def find_session(mongo: Mongo, cookie: str, now: datetime) -> Document | None:
    """The session of a cookie, None where there is none or its time is up (the server clears away a minute late)."""
    return await mongo.find_one(SESSIONS, {"_id": session_key(cookie), "expires": {"$gt": now}})


async def find_session_by_key(mongo: Mongo, key: bytes, now: datetime) -> Document | None:
    """The same by the key it is stored under."""
    return await mongo.find_one(SESSIONS, {"_id": key, "expires": {"$gt": now}})


async def extend_session(mongo: Mongo, session: Document, now: datetime, idle: timedelta) -> None:
    """Put off the end of a session that is in use, up to the end it has anyway."""
    expires = min(now + idle, session["ends"])
    await mongo.change(SESSIONS, {"_id": session["_id"]}, {"$set": {"expires": expires}})


async def end_session(mongo: Mongo, key: bytes) -> None:
    """End a session."""
    await mongo.delete(SESSIONS, {"_id": key})


def session_key(cookie: str) -> bytes:
    """The key a session is stored under."""
    return sha256(cookie.encode()).digest()


async def find_person(mongo: Mongo, reference: str) -> Document | None:
    """The resource that a reference of an account names, with whose record it belongs to (`patient`)."""
    type_name, _, identifier = reference.partition("/")
    if bucket_of(identifier) is None:
        return None
    where = {"_id": identifier, "bucket": identifier[:3], "deleted": {"$ne": True}}
    return await mongo.find_one(type_name, where, {"patient": 1})


async def find_bodies(mongo: Mongo, references: Sequence[str]) -> dict[str, Document]:
    """The resources that accounts are, by reference: body and whose record. Never told to a caller."""
    parts = []
    for reference in references:
        type_name, _, identifier = reference.partition("/")
        if bucket_of(identifier) is not None:
            where = {"_id": identifier, "bucket": identifier[:3], "deleted": {"$ne": True}}
            parts.append(Part(type_name, where, reference, {"patient": 1, "body": 1}))
    return {document["of"]: document for document in await mongo.find_all(parts)}
