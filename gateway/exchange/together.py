"""What several reads of a batch look up together: their resources, the records those belong to, contents.

Knows: that each entry still stands for itself: it is read with the rights to its own record, and to no other. What is not there
takes as many calls as what may not be seen. Must not know: HTTP, MongoDB.
"""

from collections.abc import Iterable, Sequence

from gateway.access.access import Access
from gateway.exchange.call import Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.standing import is_confined, read_record, whole
from gateway.store.contents import find_readable_all
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document


async def look_up_together(gateway: Gateway, access: Access, calls: Iterable[Call]) -> dict[tuple[str, str], Access]:
    """For type and id of each of these reads, the access to read it with; it has been read already, behind no door yet.

    (Contents are behind theirs: they are large.) Empty where there is too little to be worth it.
    """
    named = [(c.type, c.id) for c in calls if c.interaction == "read" and c.id and _may_be_here(gateway, c.type, c.id)]
    wanted = list(dict.fromkeys(named))
    if len(wanted) < 2:
        return {}
    documents = await gateway.standings.find_resources(wanted)
    owners = {one: _owner(one, documents[f"{one[0]}/{one[1]}"]) for one in wanted}
    base = access.looking_at(documents)
    accesses = dict.fromkeys(owners.values(), base)
    if not is_confined(access):
        missing = sorted(accesses.keys() - access.records.keys())
        found = await gateway.standings.find_records(missing)
        for patient, record in found.items():
            accesses[patient] = await whole(gateway, base.over([read_record(gateway, access.caller, record)]), by_right=True)
    contents = {one: owner for one, owner in owners.items() if gateway.registry[one[0]].is_raw}
    for patient in dict.fromkeys(contents.values()):
        accesses[patient] = await _with_contents(
            gateway, accesses[patient], [one for one in contents if contents[one] == patient]
        )
    return {one: accesses[patient] for one, patient in owners.items()}


async def _with_contents(gateway: Gateway, access: Access, wanted: Sequence[tuple[str, str]]) -> Access:
    for type_name in dict.fromkeys(type_name for type_name, _ in wanted):
        kind = gateway.registry[type_name]
        if access.is_in_scope(kind, "read"):
            ids = [identifier for name, identifier in wanted if name == type_name]
            found = await find_readable_all(access, gateway.mongo, kind, gateway.registry.holders, ids)
            access = access.looking_at({}, {f"{type_name}/{identifier}": one for identifier, one in found.items()})
    return access


def _owner(one: tuple[str, str], document: Document | None) -> str:
    """Whose record it is of. What is not there, or is of nobody, is as if it were of somebody who is not there."""
    type_name, identifier = one
    if type_name == "Patient":
        return identifier
    return str((document or {}).get("patient") or f"{identifier[:3]}-")


def _may_be_here(gateway: Gateway, type_name: str, identifier: str) -> bool:
    return gateway.registry.find(type_name) is not None and bucket_of(identifier) is not None
