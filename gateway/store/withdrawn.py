"""What was deposited for the wrong patient: what goes with it, who has seen it, and where it is kept, sealed.

Knows: `{_id: Type/id/version, bucket, patient, type, id, version, updated, source, by, since, at, entities, sealed}` of what
was withdrawn; how the audit of one record is read for who opened something in it.
Must not know: how anything is sealed, HTTP.

What is told here of the audit is told to who deposited what it is about, and speaks of nothing else.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from gateway.access.access import Access
from gateway.fhir.clause import Test, every, matches, some
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem
from gateway.store.filter import LIVE, among, to_filter
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Mongo, Part
from gateway.store.schema import WITHDRAWN, history_of

_MOST_EVENTS = 20_000
_REPLACES, _SUPERSEDED = "replaces", "superseded"  # https://hl7.org/fhir/R4/valueset-document-relationship-type.html


def who_withdraws(access: Access) -> str:
    """Who the caller is among those who withdraw: the person, where they work, or a system that acts by itself."""
    caller = access.caller
    return caller.user or caller.depositor or caller.source


async def find_document(access: Access, mongo: Mongo, kind: ResourceType, identifier: str) -> Document | None:
    """What is to be withdrawn, deleted or not; None where the caller neither deposited it nor may read it."""
    seen = some(access.withdrawable(kind), access.clause(kind, "read"))
    where: Document = to_filter(every(Test("_id", "is", identifier), seen))
    return await mongo.find_one(kind.name, where) if bucket_of(identifier) else None


async def find_former_versions(access: Access, mongo: Mongo, kind: ResourceType, document: Document) -> list[Document]:
    """The former versions of what the caller deposited, oldest first; none of anything else."""
    return await find_all_versions(mongo, kind, document) if matches(access.withdrawable(kind), document) else []


async def find_all_versions(mongo: Mongo, kind: ResourceType, document: Document) -> list[Document]:
    """The former versions of a resource, oldest first, to be sealed: whoever deposited it."""
    where = {"bucket": document["bucket"], "id": document["_id"]}
    return await mongo.find(history_of(kind.name), where, sort=[("version", 1)])


async def find_alone(
    access: Access, mongo: Mongo, raw: ResourceType, holders: Sequence[ResourceType], document: Document
) -> list[Document]:
    """The contents that the caller deposited and that nothing but this document attaches."""
    ids = document.get("attached", [])
    if not ids:
        return []
    bucket = document["bucket"]
    found = await mongo.find_all(
        [
            Part(raw.name, {"_id": {"$in": ids}, "bucket": bucket}, "content"),
            *(
                Part(kind.name, {"bucket": bucket, "attached": {"$in": ids}} | LIVE, "holder", {"attached": 1})
                for kind in holders
            ),
        ]
    )
    held = {one for d in found if d["of"] == "holder" and d["_id"] != document["_id"] for one in d["attached"]}
    contents = [{k: v for k, v in d.items() if k != "of"} for d in found if d["of"] == "content" and d["_id"] not in held]
    return [d for d in contents if matches(access.withdrawable(raw), d)]


async def find_lists(access: Access, mongo: Mongo, kind: ResourceType, patient: str, reference: str) -> list[Document]:
    """The Lists that the caller deposited of this and of nothing else."""
    alone = every(Test("patient", "is", patient), Test("item", "is", reference), access.withdrawable(kind))
    found = await mongo.find(kind.name, to_filter(alone) | LIVE)
    return [document for document in found if document["search"]["item"] == [reference]]


async def find_naming(
    access: Access, mongo: Mongo, kind: ResourceType, patient: str, references: Sequence[str]
) -> list[Document]:
    """The Lists of a record that name any of these, whoever deposited them: to be told to nobody, but to be changed."""
    if patient not in access.records:
        return []
    where = {"bucket": patient[:3], "patient": patient, "search.item": {"$in": [*references]}}
    return await mongo.find(kind.name, where | LIVE)


async def find_labels(access: Access, mongo: Mongo, kind: ResourceType, references: Sequence[str]) -> set[str]:
    """The labels that any of these resources bears, whoever may read it: never told, but kept where these are."""
    ids = [reference.partition("/")[2] for reference in references if reference.startswith(f"{kind.name}/")]
    found = await mongo.find(kind.name, among(ids) | LIVE, {"labels": 1, "patient": 1}) if ids else []
    return {label for one in found if one.get("patient") in access.records for label in one.get("labels", ())}


async def find_replaced(access: Access, mongo: Mongo, kind: ResourceType, document: Document) -> list[str]:
    """The ids of what this document of the caller's took the place of, and nothing else that is there did."""
    relations = document["search"].get("relationship", ()) if matches(access.withdrawable(kind), document) else ()
    targets = [ref for one in relations if _REPLACES in one["relation"] for ref in one["relatesto"]]
    ids = sorted({target.partition("/")[2] for target in targets if target.startswith(f"{kind.name}/")})
    if not ids:
        return []
    where: Document = {"bucket": document["bucket"], "patient": document["patient"]} | LIVE
    alike = {"relation": _REPLACES, "relatesto": {"$in": targets}}
    found = await mongo.find(kind.name, {**where, "_id": {"$in": ids}, "search.status": _SUPERSEDED}, {"_id": 1})
    others = await mongo.find(kind.name, {**where, "search.relationship": {"$elemMatch": alike}}, {"search.relationship": 1})
    held = {
        ref.partition("/")[2]
        for other in others
        if other["_id"] != document["_id"]
        for one in other["search"]["relationship"]
        if _REPLACES in one["relation"]
        for ref in one["relatesto"]
    }
    return [one["_id"] for one in found if one["_id"] not in held]


async def find_withdrawn(access: Access, mongo: Mongo, reference: str) -> Document | None:
    """What is kept of what this very caller withdrew, without what it said; None for anything else."""
    found = await mongo.find(
        WITHDRAWN, {"bucket": reference.partition("/")[2][:3], "entities": reference}, {"sealed": 0}, limit=1
    )
    return found[0] if found and found[0]["by"] == who_withdraws(access) else None


async def read_withdrawn(access: Access, mongo: Mongo, reference: str) -> list[Document]:
    """Everything that was withdrawn with this, for an operator at the machine. Raises Problem where there is nothing."""
    if access.caller.kind != "operator":
        raise Problem("forbidden", "what was withdrawn is opened by operators only")
    found = await mongo.find(WITHDRAWN, {"bucket": reference.partition("/")[2][:3], "entities": reference}, sort=[("_id", 1)])
    if not found:
        raise Problem("not-found", "nothing of this name was withdrawn")
    return found


async def find_events(access: Access, mongo: Mongo, withdrawn: Document, since: datetime) -> tuple[list[Document], bool]:
    """What was answered to others from the record since then, oldest first, and whether that is all.

    For who withdrew something from it: what is told of these events has to be about that alone.
    """
    if withdrawn["by"] != who_withdraws(access):
        return [], True
    where = {
        "bucket": withdrawn["bucket"],
        "patient": withdrawn["patient"],
        "updated": {"$gte": since},
        "event.outcome": "0",
    }
    found = await mongo.find("AuditEvent", where, {"event": 1, "updated": 1}, sort=[("updated", 1)], limit=_MOST_EVENTS + 1)
    return found[:_MOST_EVENTS], len(found) <= _MOST_EVENTS


async def find_names(access: Access, mongo: Mongo, kind: ResourceType, ids: Iterable[str]) -> dict[str, bytes]:
    """The entries of a directory, which everybody has a right to read, by id."""
    wanted = sorted(set(ids))
    if not wanted or kind.in_compartment:
        return {}
    named = some(*(Test("_id", "is", identifier) for identifier in wanted))
    where: Document = to_filter(every(named, access.rights(kind, "read"))) | LIVE
    return {d["_id"]: bytes(d["body"]) for d in await mongo.find(kind.name, where, {"body": 1})}
