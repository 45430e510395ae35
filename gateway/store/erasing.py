"""Erasing a record: where anything of a patient lies, and in which order it goes.

Knows: every collection. Must not know: who may ask for it, what the audit says of it.

What is sealed goes first, by its key; then the head, without which nothing new is committed; the Patient goes last. So an
erasure that broke off is begun again and ends as if it had not.
"""

from collections.abc import Iterable
from datetime import datetime

from gateway.fhir.registry import Registry, ResourceType
from gateway.problem import Problem
from gateway.store.contents import destroy_key, drop_content
from gateway.store.mongo import Document, Mongo
from gateway.store.schema import (
    ACCOUNTS,
    APPROVALS,
    AUTHORIZATIONS,
    CODES,
    CONTENTS,
    HEADS,
    LAUNCHES,
    SESSIONS,
    TOKENS,
    WITHDRAWN,
    history_of,
)


async def require_erasable(mongo: Mongo, patient: str) -> None:
    """Refuse a patient who is not here, or whose record is one of several of one person."""
    head = await mongo.find_one(HEADS, {"_id": patient})
    stored = await mongo.find_one("Patient", {"_id": patient, "bucket": patient[:3]}, {"_id": 1})
    if head is None and stored is None:
        raise Problem("not-found", "there is no such patient here")
    if head is not None and head.get("merged"):
        text = "this Patient is merged with others: part them first, then each is erased for itself"
        raise Problem("business-rule", text)


async def erase(mongo: Mongo, registry: Registry, patient: str, now: datetime) -> dict[str, int]:
    """Erase everything of a patient but the audit. Returns how much of each collection that was."""
    erased: dict[str, int] = {}
    await destroy_key(mongo, patient, now)
    erased[HEADS] = await mongo.delete(HEADS, {"_id": patient})
    persons = await _persons(mongo, registry, patient)
    await _close_doors(mongo, patient, persons, erased)
    mine: Document = {"bucket": patient[:3], "patient": patient}
    erased[CONTENTS] = 0
    for content in await mongo.find(CONTENTS, mine, {"_id": 1}):
        await drop_content(mongo, content["_id"])
        erased[CONTENTS] += 1
    erased[WITHDRAWN] = await mongo.delete(WITHDRAWN, mine)
    for kind in _kinds(registry):
        where: Document = {"bucket": patient[:3], "_id": patient} if kind.is_patient else mine
        former: Document = {"bucket": patient[:3], "id": patient} if kind.is_patient else mine
        erased[history_of(kind.name)] = await mongo.delete(history_of(kind.name), former)
        erased[kind.name] = await mongo.delete(kind.name, where)
    return {name: count for name, count in erased.items() if count}


def _kinds(registry: Registry) -> Iterable[ResourceType]:
    """The types of which a patient has resources, the Patient last. The audit is the law's, and stays."""
    owned = [kind for kind in registry.resource_types.values() if kind.in_compartment and kind.name != "AuditEvent"]
    return sorted(owned, key=lambda kind: kind.is_patient)


async def _persons(mongo: Mongo, registry: Registry, patient: str) -> list[str]:
    """Who acts in this record as the patient or for them."""
    found = [f"Patient/{patient}"]
    if registry.find("RelatedPerson") is not None:
        related = await mongo.find("RelatedPerson", {"bucket": patient[:3], "patient": patient}, {"_id": 1})
        found += [f"RelatedPerson/{one['_id']}" for one in related]
    return found


async def _close_doors(mongo: Mongo, patient: str, persons: list[str], erased: dict[str, int]) -> None:
    """End what lets anybody into the record, and what is kept of who logs in as these persons."""
    named = {"$in": persons}
    theirs: Document = {"$or": [{"patient": patient}, {"user": named}, {"actors": named}, {"chosen.patient": patient}]}
    for name in (TOKENS, APPROVALS, CODES, LAUNCHES, AUTHORIZATIONS):
        erased[name] = await mongo.delete(name, theirs)
    erased[SESSIONS] = await mongo.delete(SESSIONS, {"references": named})
    erased[ACCOUNTS] = 0
    for account in await mongo.find(ACCOUNTS, {"references": named}, {"references": 1, "operator": 1}):
        left = [reference for reference in account["references"] if reference not in persons]
        if left or account.get("operator"):
            await mongo.change(ACCOUNTS, {"_id": account["_id"]}, {"$set": {"references": left}})
        else:
            erased[ACCOUNTS] += await mongo.delete(ACCOUNTS, {"_id": account["_id"]})
