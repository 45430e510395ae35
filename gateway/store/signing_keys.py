"""The keys that the authorization server signs with, as they are stored: private parts are sealed.

Knows: their numbers, which are given once, so that of several processes that make the next key at once one succeeds.
Must not know: what a key looks like inside, what is signed.
"""

from datetime import datetime

from gateway.store.mongo import Document, Mongo, Stale, Step
from gateway.store.schema import SIGNING_KEYS


async def find_signing_keys(mongo: Mongo) -> list[Document]:
    """All keys that were ever made, the oldest first."""
    return await mongo.find(SIGNING_KEYS, {}, sort=[("_id", 1)])


async def add_signing_key(mongo: Mongo, key: Document, ends: dict[int, datetime], seconds: float) -> bool:
    """Store a key under its number, and when those before it (`ends`, by number) cease to be published.

    Returns whether the number was still free.
    """
    changes = [({"_id": number}, {"$set": {"ends": end}}) for number, end in ends.items()]
    try:
        await mongo.write_all([Step(SIGNING_KEYS, inserts=[key], updates=changes)], seconds=seconds)
    except Stale:
        return False
    return True
