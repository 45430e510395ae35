"""What updates, patches and deletions replace.

Knows: what may be said of the present state of a resource, and in which order. Must not know: HTTP, MongoDB.
"""

from collections.abc import Iterable

from gateway.exchange.call import names_version
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry, patch_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.standing import extend_to, is_confined, whole
from gateway.exchange.withheld import find_withheld
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.change import require_write
from gateway.store.mongo import Stale
from gateway.store.owners import find_owners


async def find_formers(gateway: Gateway, draft: Draft, entries: Iterable[Entry]) -> None:
    """Look up what these are about, among what the caller may see; patches make their new version from it."""
    by_kind: dict[str, list[Entry]] = {}
    for entry in entries:
        by_kind.setdefault(entry.kind.name, []).append(entry)
    for name, alike in by_kind.items():
        kind = gateway.registry[name]
        ids = [entry.id or "" for entry in alike]
        if not is_confined(draft.access):
            draft.access = await extend_to(gateway, draft.access, await find_owners(gateway.mongo, name, ids))
        draft.access = await whole(gateway, draft.access)
        found = await store.find_for_change(draft.access, gateway.mongo, kind, ids)
        for entry in alike:
            entry.former = found.get(entry.id or "")
            if entry.call.criteria is not None and (entry.former is None or entry.former.get("deleted")):
                raise Stale  # what met the criteria a moment ago is no longer there
            if entry.patch is not None and entry.former is not None:
                # A patch answers with what is there: who may write it and not know it finds nothing to patch.
                entry.former = entry.former if draft.access.knows(kind, entry.former) else None
            if entry.former is not None:  # before anything of its present state is told
                require_write(draft.access, kind, entry.call.interaction, entry.former, entry.call.place)
            _check_former(entry)
            entry.patient = entry.former.get("patient") if entry.former else None
            if kind.withheld and entry.former is not None:
                entry.withheld = await find_withheld(gateway, draft.access, [(kind, entry.former)])
            patch_entry(gateway, entry)


def missing_former(entry: Entry) -> Problem:
    """What is answered where there is nothing to replace, or nothing that the caller may see."""
    if entry.call.interaction == "update":
        return Problem("not-supported", "ids are given by this service: create with POST", entry.call.place)
    return Problem("not-found", f"there is no such {entry.kind.name} here", entry.call.place)


def _check_former(entry: Entry) -> None:
    former = entry.former
    if former is None:
        raise missing_former(entry)
    if former.get("deleted") and entry.call.interaction in ("update", "patch"):
        raise Problem("deleted", f"this {entry.kind.name} has been deleted", entry.call.place)
    if entry.call.if_match is not None and not names_version(entry.call.if_match, former["version"]):
        raise Problem("conflict", f"the current version is {former['version']}", entry.call.place, status=412)
