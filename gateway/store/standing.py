"""Who calls and what the record says of it, in one round trip: token, consents and care team.

Knows: how tokens are stored (by SHA-256, never themselves), and where consents and heads lie.
Must not know: what scopes and consents mean.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from gateway.store.mongo import Binary, Document, Mongo
from gateway.store.schema import HEADS, TOKENS

_CONSENT_FIELDS = {"body": 1, "version": 1, "deleted": 1, "actors": "$search.actor"}


@dataclass(frozen=True, slots=True)
class About:
    """Whose record a request is about, as far as its address tells: a patient's id, or a resource's type and id."""

    patient: str | None = None
    resource: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store found: the token, the patient in question (None: nobody, or unknown), that record's consents."""

    token: Document
    patient: str | None
    consents: list[Document]
    care_team: list[str]


def token_key(token: str) -> Binary:
    """The key a bearer token is stored under."""
    return Binary(sha256(token.encode()).digest())


async def find_standing(mongo: Mongo, token: str, about: About, now: datetime) -> Standing | None:
    """The standing of a bearer token towards a record; None where nobody issued the token or it has expired.

    The record is the one in the token's context or, without a context, the one the request is about.
    """
    pipeline: list[Document] = [{"$match": {"_id": token_key(token), "expires": {"$gt": now}}}]
    asked: object = {"$literal": about.patient}
    if about.resource is not None:
        type_name, identifier = about.resource
        if type_name == "Patient":
            asked = {"$literal": identifier}
        else:
            mine = [{"$match": {"_id": identifier, "bucket": identifier[:3]}}, {"$project": {"_id": 0, "patient": 1}}]
            pipeline.append({"$lookup": {"from": type_name, "pipeline": mine, "as": "owner"}})
            asked = {"$first": "$owner.patient"}
    pipeline += [
        {"$set": {"record": {"$ifNull": ["$patient", asked]}}},
        {"$set": {"bucket": {"$substrBytes": [{"$ifNull": ["$record", ""]}, 0, 3]}}},
        _lookup_consents(),
        {"$lookup": {"from": HEADS, "localField": "record", "foreignField": "_id", "as": "head"}},
    ]
    found = await mongo.aggregate(TOKENS, pipeline)
    if not found:
        return None
    head = found[0].pop("head")
    return Standing(
        token=found[0],
        patient=found[0].pop("record", None),
        consents=found[0].pop("consents"),
        care_team=head[0].get("care_team", []) if head else [],
    )


async def find_records(mongo: Mongo, patients: list[str]) -> dict[str, tuple[list[Document], list[str]]]:
    """Consents and care team of several records, by patient."""
    pipeline: list[Document] = [
        {"$match": {"_id": {"$in": patients}}},
        {"$set": {"record": "$_id", "bucket": {"$substrBytes": ["$_id", 0, 3]}}},
        _lookup_consents(),
    ]
    found = await mongo.aggregate(HEADS, pipeline)
    return {head["_id"]: (head["consents"], head.get("care_team", [])) for head in found}


async def put_token(mongo: Mongo, token: str, fields: Document) -> None:
    """Store what a token stands for under its hash, in place of what it stood for before."""
    await mongo.change(
        TOKENS, {"_id": token_key(token)}, [{"$replaceWith": {"$literal": {"_id": token_key(token), **fields}}}], upsert=True
    )


async def delete_token(mongo: Mongo, token: str) -> bool:
    """Forget a token, whose next use is then refused. Returns whether it was known."""
    return await mongo.delete(TOKENS, {"_id": token_key(token)}) == 1


def _lookup_consents() -> Document:
    same_record = [{"$eq": ["$bucket", "$$bucket"]}, {"$eq": ["$patient", "$$record"]}]
    return {
        "$lookup": {
            "from": "Consent",
            "let": {"record": "$record", "bucket": "$bucket"},
            "pipeline": [{"$match": {"$expr": {"$and": same_record}}}, {"$project": _CONSENT_FIELDS}],
            "as": "consents",
        }
    }
