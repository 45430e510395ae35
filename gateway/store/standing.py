"""Who calls and what the record says of it, in one round trip: token, consents and care team.

Knows: how tokens are stored (by SHA-256, never themselves), and where consents and heads lie.
Must not know: what scopes and consents mean.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256

from gateway.store.gather import Gather
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
    """What the store found: the token, the patient in question (None: nobody, or unknown), that record's consents.

    `candidate`: the stored document of the resource the request is about. It has passed no door yet.
    """

    token: Document
    patient: str | None
    consents: list[Document]
    care_team: list[str]
    candidate: Document | None


class Standings:
    """Looks up standings, several in one call where several requests wait."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        # The resources of one call lie in one collection: requests about different types gather apart.
        self._gathers: dict[str, Gather[tuple[str, About], Standing | None]] = {}

    async def find(self, token: str, about: About, now: datetime) -> Standing | None:
        """The standing of a bearer token towards a record; None where nobody issued the token or it has expired.

        The record is the one in the token's context or, without a context, the one the request is about.
        """
        collection = about.resource[0] if about.resource else ""
        if collection not in self._gathers:
            self._gathers[collection] = Gather(partial(self._find, collection))
        found = await self._gathers[collection].ask((token, about))
        return found if found is not None and found.token["expires"] > now else None

    async def _find(self, collection: str, asked: list[tuple[str, About]]) -> list[Standing | None]:
        rows: list[Document] = [
            {
                "n": n,
                "token": token_key(token),
                "about": {"$literal": about.patient},  # what came in a URL is never an expression
                "id": {"$literal": about.resource[1] if about.resource else None},
            }
            for n, (token, about) in enumerate(asked)
        ]
        pipeline: list[Document] = [
            {"$documents": rows},
            {"$lookup": {"from": TOKENS, "localField": "token", "foreignField": "_id", "as": "token"}},
            {"$unwind": "$token"},
        ]
        owner: object = "$about"
        if collection:
            pipeline.append({"$lookup": {"from": collection, "localField": "id", "foreignField": "_id", "as": "candidate"}})
            owner = {"$first": "$candidate.patient"}
        pipeline += [
            {"$set": {"record": {"$ifNull": ["$token.patient", owner]}}},
            {"$set": {"bucket": {"$substrBytes": [{"$ifNull": ["$record", ""]}, 0, 3]}}},
            _lookup_consents(),
            {"$lookup": {"from": HEADS, "localField": "record", "foreignField": "_id", "as": "head"}},
        ]
        found: dict[int, Standing] = {row["n"]: _standing(row) for row in await self._mongo.aggregate(None, pipeline)}
        return [found.get(n) for n in range(len(asked))]


def token_key(token: str) -> Binary:
    """The key a bearer token is stored under."""
    return Binary(sha256(token.encode()).digest())


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


def _standing(row: Document) -> Standing:
    head, candidate = row["head"], row.get("candidate")
    return Standing(
        token=row["token"],
        patient=row.get("record"),
        consents=row["consents"],
        care_team=head[0].get("care_team", []) if head else [],
        candidate=candidate[0] if candidate else None,
    )


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
