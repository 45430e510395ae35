"""$withdraw: what was deposited for the wrong patient leaves every view at once, and its depositor is told who has seen it.

Knows: what goes with it (content that nothing else attaches, Lists that name nothing else), that it is kept sealed with the
key of the record it lay in, and what of the audit its depositor is told. Must not know: HTTP, MongoDB.

Nothing of it is in any collection that a search, a history or an index reads; what remains under its id says only that there
was something, to nobody, and keeps a client from sending it again. The record's log says that it was withdrawn, not what.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import event, written
from gateway.exchange.call import Answer, Call
from gateway.exchange.consequences import follow, without
from gateway.exchange.contents import seal
from gateway.exchange.entries import Entry, read_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.openings import openings_of
from gateway.exchange.plan import make_plan
from gateway.exchange.read import Result, not_found
from gateway.exchange.standing import extend_to, is_confined
from gateway.exchange.write import ATTEMPTS, too_often
from gateway.fhir.balp import DONE, Event
from gateway.fhir.clause import matches
from gateway.fhir.operations import Operation
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem
from gateway.store import withdrawn as kept
from gateway.store.change import Change, Plan
from gateway.store.commit import Work
from gateway.store.contents import find_key
from gateway.store.mongo import Document, Stale
from gateway.store.owners import find_owners
from gateway.store.receipts import Once

_LIST = "List"
_CURRENT = b'[{"op":"replace","path":"/status","value":"current"}]'


async def withdraw(gateway: Gateway, access: Access, call: Call, _operation: Operation, _once: Once | None = None) -> Result:
    """Withdraw a resource; who did, and asks again, is told again. Raises Problem 403 or, to who may not read it, 404."""
    kind = gateway.registry[call.type]
    if not is_confined(access):
        access = await extend_to(gateway, access, await find_owners(gateway.mongo, kind.name, [call.id or ""]))
    held: frozenset[str] = frozenset()
    for _ in range(ATTEMPTS):
        async with gateway.committer.turn(held):
            changes = await _plan(gateway, access, call, kind)
            if not changes:
                return await _tell_again(gateway, access, call)
            plan = Plan(changes)
            try:
                entries, restored = await _put_back(gateway, access, call, changes)
                entries += (others := await _forget(gateway, access, call, changes))
                following = [entry.change for entry in others if entry.change is not None]
                plan = Plan([*changes, *restored.changes, *following], restored.conditions)
                events = partial(_events, access, call, changes, entries)
                await gateway.committer.commit(Work(access, plan, events, held=held))
            except Stale:
                access, held = access.afresh(), frozenset(plan.heads)
                continue
        return await _tell(gateway, access, changes[0].sealed[0]), []
    raise too_often()


def _events(access: Access, call: Call, changes: list[Change], entries: list[Entry], commits: Mapping[str, int]) -> list[Event]:
    first = changes[0]
    references = [f"{change.kind.name}/{change.id}" for change in changes]
    withdrawal = event(access, call, first.patient, DONE, references, commit=commits.get(first.head))
    return [withdrawal, *written(access, entries, commits)]


async def _put_back(gateway: Gateway, access: Access, call: Call, changes: list[Change]) -> tuple[list[Entry], Plan]:
    """Make current again what the withdrawn document took the place of, where its depositor may still write that."""
    kind, document = changes[0].kind, changes[0].former or {}
    entries: list[Entry] = []
    plan = Plan()
    for identifier in await kept.find_replaced(access, gateway.mongo, kind, document):
        patch = Call("patch", kind.name, call.origin, id=identifier, body=_CURRENT, patch="json")
        said = "restored"
        try:
            entry = read_entry(gateway, access, patch)
            _, planned = await make_plan(gateway, access, [entry])
            plan = Plan([*plan.changes, *planned.changes], [*plan.conditions, *planned.conditions])
            entries.append(entry)
        except Problem:
            said = "superseded"  # whoever may write it is to be told
        for version in changes[0].sealed:
            version.setdefault(said, []).append(f"{kind.name}/{identifier}")
    return entries, plan


async def _forget(gateway: Gateway, access: Access, call: Call, changes: list[Change]) -> list[Entry]:
    """The entries by which the Lists of others, or of more than this, name it no more; nor does any version of them."""
    first, kind = changes[0], gateway.registry.find(_LIST)
    if kind is None or first.patient is None:
        return []
    gone, entities = {change.id for change in changes}, [f"{change.kind.name}/{change.id}" for change in changes]
    key = await gateway.patient_keys.of(first.patient, await find_key(gateway.mongo, first.patient))
    made: list[Entry] = []
    for stored in await kept.find_naming(access, gateway.mongo, kind, first.patient, entities):
        if stored["_id"] in gone:
            continue
        entry = follow(gateway, access, stored, without(gateway, stored, entities), call.origin)
        versions = [*await kept.find_all_versions(gateway.mongo, kind, stored), stored]
        since = first.sealed[0]["since"]
        if entry.change is not None:
            entry.change.sealed = [_sealed(access, kind, version, key, entities, since) for version in versions]
        made.append(entry)
    return made


async def _plan(gateway: Gateway, access: Access, call: Call, kind: ResourceType) -> list[Change]:
    """What is to be withdrawn: the resource itself first; nothing where it is not there."""
    mongo, registry = gateway.mongo, gateway.registry
    document = await kept.find_document(access, mongo, kind, call.id or "")
    if document is None:
        return []
    if not matches(access.withdrawable(kind), document):
        raise Problem("forbidden", "what was deposited is withdrawn by who deposited it", kind.name)
    formers = await kept.find_former_versions(access, mongo, kind, document)
    raw = next(found for found in registry.resource_types.values() if found.is_raw)
    found = [(kind, document, [*formers, document])]
    found += [(raw, one, [one]) for one in await kept.find_alone(access, mongo, raw, registry.holders, document)]
    if kind.name != _LIST and registry.find(_LIST) is not None:
        lists = await kept.find_lists(access, mongo, registry[_LIST], document["patient"], f"{kind.name}/{call.id}")
        for one in lists:
            former = await kept.find_former_versions(access, mongo, registry[_LIST], one)
            found.append((registry[_LIST], one, [*former, one]))
    entities = [f"{each.name}/{one['_id']}" for each, one, _ in found]
    since = (formers[0] if formers else document)["updated"]
    key = await gateway.patient_keys.of(document["patient"], await find_key(mongo, document["patient"]))
    return [
        _withdrawal(each, one, [_sealed(access, each, v, key, entities, since) for v in versions])
        for each, one, versions in found
    ]


def _withdrawal(kind: ResourceType, document: Document, sealed: list[Document]) -> Change:
    key = document.get("key")
    return Change(
        kind=kind,
        interaction="delete",
        id=document["_id"],
        head=document["patient"],
        patient=document["patient"],
        source=document["source"],
        resource=None,
        values={"search": {}},
        key=None if key is None else bytes(key),
        digest=document.get("digest"),
        former=document,
        sealed=sealed,
        kept={f"ends.{document['_id']}": None} if "hidden_until" in document else {},
    )


def _sealed(
    access: Access, kind: ResourceType, version: Document, key: bytes, entities: list[str], since: datetime
) -> Document:
    """One version as it is kept. `entities`: all that is withdrawn together; `since`: when it was deposited."""
    identifier = version.get("id", version["_id"])
    name = f"{kind.name}/{identifier}/{version['version']}"
    plain = bytes(version["body"]) if "body" in version else b"{}"
    return {
        "_id": name,
        "bucket": version["bucket"],
        "patient": version["patient"],
        "type": kind.name,
        "id": identifier,
        "version": version["version"],
        "updated": version["updated"],
        "source": version["source"],
        "by": kept.who_withdraws(access),
        "since": since,
        "at": access.now,
        "entities": entities,
        **({"content": version["content"]} if "content" in version else {}),
        "sealed": seal(key, name, 0, plain, is_last=True),
    }


async def _tell_again(gateway: Gateway, access: Access, call: Call) -> Result:
    done = await kept.find_withdrawn(access, gateway.mongo, f"{call.type}/{call.id}")
    if done is None or (is_confined(access) and done["patient"] not in access.records):
        raise not_found(call)  # (the phones of many have the same app)
    return await _tell(gateway, access, done), [event(access, call, done["patient"], DONE, done["entities"])]


async def _tell(gateway: Gateway, access: Access, withdrawn: Document) -> Answer:
    """What was withdrawn, and who has seen it."""
    told = [{"name": "withdrawn", "valueReference": {"reference": reference}} for reference in withdrawn["entities"]]
    for name in ("restored", "superseded"):
        told += [{"name": name, "valueReference": {"reference": reference}} for reference in withdrawn.get(name, ())]
    told += await openings_of(gateway, access, withdrawn)
    return Answer(200, msgspec.json.encode({"resourceType": "Parameters", "parameter": told}))
