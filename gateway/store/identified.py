"""Under what a patient is known, to compare it with what is said of them.

Knows: where the identifiers of a Patient stand. Must not know: what they are compared with.
"""

from gateway.store.mongo import Mongo


async def find_identifiers(mongo: Mongo, patient: str) -> list[str]:
    """Under which identifiers (`system|value`, or without system) a patient is known. Never told to a caller."""
    found = await mongo.find_one("Patient", {"_id": patient, "bucket": patient[:3]}, {"search.identifier": 1})
    return [*(found or {}).get("search", {}).get("identifier", ())]
