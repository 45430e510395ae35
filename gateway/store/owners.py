"""Whose record a resource is in, and who is meant by an identifier: found so that the right record is asked for its rights.

Knows: where owners and identifiers stand in a stored document. These functions take no Access: nothing of what they find may be
told to a caller. Must not know: what is decided by it, HTTP.
"""

from collections.abc import Sequence

from gateway.store.filter import LIVE, among
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Mongo
from gateway.store.schema import index_name


async def find_owner(mongo: Mongo, type_name: str, identifier: str) -> str | None:
    """Whose record a resource belongs to, so that that record's consents can be looked up. Never told to a caller."""
    if type_name == "Patient" or bucket_of(identifier) is None:
        return identifier if type_name == "Patient" else None
    found = await mongo.find_one(type_name, {"_id": identifier, "bucket": identifier[:3]}, {"patient": 1})
    return found.get("patient") if found else None


async def find_owners(mongo: Mongo, type_name: str, identifiers: Sequence[str]) -> set[str]:
    """Whose records these resources belong to. Never told to a caller."""
    if type_name == "Patient":
        return set(identifiers)
    ids = [identifier for identifier in identifiers if bucket_of(identifier)]
    found = await mongo.find(type_name, among(ids), {"patient": 1}) if ids else []
    # What is missing comes as null where an index alone answers.
    return {document["patient"] for document in found if document.get("patient") is not None}


async def find_holding(
    mongo: Mongo, type_name: str, tokens: Sequence[str], *, after: str, limit: int, seconds: float
) -> list[Document]:
    """Resources with one of these identifiers, by id, so many behind this one: in whose record each is, and who deposited it.
    Never told to a caller.
    """
    where: Document = {"search.identifier": {"$in": list(tokens)}, **LIVE}
    if after:
        where["_id"] = {"$gt": after}
    fields, hint = {"patient": 1, "source": 1, "depositor": 1}, index_name(("identifier",))
    return await mongo.find(type_name, where, fields, sort=[("_id", 1)], limit=limit, hint=hint, seconds=seconds)


async def find_patient(mongo: Mongo, token: str) -> str | None:
    """The id of the one patient with this identifier (`system|value`), None for none or several.

    This addresses a record; it gives no right to it, and its result is never told as such.
    """
    found = await find_identified(mongo, "Patient", token, with_body=False)
    return found["_id"] if found is not None else None


async def find_identified(mongo: Mongo, type_name: str, token: str, *, with_body: bool) -> Document | None:
    """The id of the one resource with this identifier (`system|value`), and its body; None for none or several.

    Never told to a caller.
    """
    fields = {"body": 1} if with_body else {"_id": 1}
    found = await mongo.find(type_name, {"search.identifier": token, **LIVE}, fields, limit=2)
    return found[0] if len(found) == 1 else None


async def find_identifiers(mongo: Mongo, patient: str) -> list[str]:
    """Under which identifiers (`system|value`, or without system) a patient is known. Never told to a caller."""
    found = await mongo.find_one("Patient", {"_id": patient, "bucket": patient[:3]}, {"search.identifier": 1})
    return [*(found or {}).get("search", {}).get("identifier", ())]
