"""What becomes of a resource after it was deposited: what of it may change, who withdraws it, what takes its place.

Knows: how the `[lifecycle]` of a type (`fhir/lifecycle.py`) holds for one write; that what is replaced is superseded in the
same transaction (https://profiles.ihe.net/ITI/MHD/ITI-65.html). Must not know: HTTP, MongoDB.
"""

from collections.abc import Iterable, Iterator

from gateway.access.access import Access
from gateway.exchange.call import Call, methods_beside
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.fhir.clause import matches
from gateway.fhir.lifecycle import Lifecycle
from gateway.fhir.tree import read_tree
from gateway.problem import Issue, Problem
from gateway.store import resources as store
from gateway.store.change import Change
from gateway.store.mongo import Document
from gateway.store.withdrawn import find_replaced

_ONLY_CURRENT = "only what is there and current is replaced, and by one"
_RETRACTED: Document = {"deleted": True, "retracted": True}


async def supersede(gateway: Gateway, draft: Draft, fresh: list[Entry]) -> list[Entry]:
    """The entries by which what is replaced by these is superseded, where the Bundle does not say so itself.

    And by which it is current again, where what replaced it is withdrawn. Only what is current is replaced. What may not be
    referred to is left to be refused with the other references.
    """
    asked = [one for entry in fresh for one in _replaced(gateway, entry)]
    made: list[Entry] = []
    for name in dict.fromkeys(entry.kind.name for entry, _, _ in asked):
        mine = [one for one in asked if one[0].kind.name == name]
        kind = gateway.registry[name]
        said = {e.id: e for e in draft.entries if e.kind is kind and not e.is_create}
        ids = [identifier for _, identifier, _ in mine if identifier not in said]
        found = await store.find_for_change(draft.access, gateway.mongo, kind, ids) if ids else {}
        new = {e.id for e in draft.entries if e.kind is kind and e.is_create and e.existing is None}
        replaced: set[str] = set()
        for entry, identifier, expression in mine:
            other = said.get(identifier)
            former = found.get(identifier) if other is None else other.former
            if identifier in new:
                draft.refuse(entry, Problem("business-rule", _ONLY_CURRENT, expression))
                continue
            if former is None or former.get("deleted") or former.get("patient") != entry.patient or kind.lifecycle is None:
                continue
            try:
                _require_current(gateway, kind.lifecycle, entry, former, expression, is_first=identifier not in replaced)
                replaced.add(identifier)
                if other is None:
                    draft.access.require(kind, "patch")
                    other = _entry(gateway, entry, former)
                    made.append(other)
                _set_superseded(kind.lifecycle, other)
            except Problem as problem:
                draft.refuse(entry, problem)
    for entry in fresh:
        made += await _put_back(gateway, draft, entry)
    draft.entries += made
    return made


async def _put_back(gateway: Gateway, draft: Draft, entry: Entry) -> list[Entry]:
    """The entries by which what a withdrawn resource took the place of is current again, where its depositor is the same."""
    lifecycle, former, kind = entry.kind.lifecycle, entry.former, entry.kind
    if lifecycle is None or former is None or lifecycle.status_of(entry.resource) != lifecycle.withdrawn:
        return []
    said = {e.id for e in draft.entries if e.kind is kind}
    ids = [one for one in await find_replaced(draft.access, gateway.mongo, kind, former) if one not in said]
    found = await store.find_for_change(draft.access, gateway.mongo, kind, ids) if ids else {}
    mine = matches(draft.access.authored(kind), former)
    made = [_entry(gateway, entry, one) for one in found.values() if mine and matches(draft.access.authored(kind), one)]
    for one in made:
        setattr(one.resource, lifecycle.status, lifecycle.current)
    return made


def _replaced(gateway: Gateway, entry: Entry) -> Iterator[tuple[Entry, str, str]]:
    """What a new resource takes the place of, by id, with where it says so."""
    lifecycle = entry.kind.lifecycle
    if lifecycle is None or not entry.is_create or entry.existing is not None or entry.refusal is not None:
        return
    references = lifecycle.replaced_by(entry.resource)
    places = {id(place.reference): place.expression for place in gateway.references.find(entry.resource)} if references else {}
    for reference in references:
        type_name, _, rest = (reference.reference or "").partition("/")
        if type_name == entry.kind.name:
            expression = entry.expression(places[id(reference)].removeprefix(entry.kind.name))
            yield entry, rest.partition("/_history/")[0], expression


def _require_current(
    gateway: Gateway, lifecycle: Lifecycle, entry: Entry, former: Document, expression: str, *, is_first: bool
) -> None:
    status = lifecycle.status_of(gateway.codec.load(entry.kind.name, bytes(former["body"])))
    if status != lifecycle.current or not is_first:
        raise Problem("business-rule", _ONLY_CURRENT, expression)


def _set_superseded(lifecycle: Lifecycle, entry: Entry) -> None:
    if lifecycle.status_of(entry.resource) == lifecycle.withdrawn:
        text = "what is replaced is superseded, not withdrawn"
        raise entry.locate(Problem("business-rule", text, f"{entry.kind.name}.{lifecycle.status}"))
    setattr(entry.resource, lifecycle.status, lifecycle.superseded)


def _entry(gateway: Gateway, by: Entry, former: Document) -> Entry:
    call = Call("patch", by.kind.name, by.call.origin, id=former["_id"], place=by.call.place)
    resource = gateway.codec.load(by.kind.name, bytes(former["body"]))
    return Entry(call, by.kind, id=call.id, patient=by.patient, former=former, resource=resource, came_along=True)


def check_lifecycle(gateway: Gateway, access: Access, entry: Entry, change: Change) -> bool:
    """Whether there is anything to write. Raises Problem for a change that is none of those which there may be.

    Says in the change whether it is withdrawn from now on.
    """
    lifecycle, former = entry.kind.lifecycle, entry.former
    if lifecycle is None:
        return True
    status, where = lifecycle.status_of(change.resource), f"{entry.kind.name}.{lifecycle.status}"
    if former is None:
        if status == lifecycle.withdrawn:
            raise entry.locate(Problem("business-rule", "nothing is deposited as withdrawn", where))
        return True
    before, after = read_tree(bytes(former["body"])), read_tree(gateway.codec.encode(change.resource))
    forbidden = lifecycle.forbidden(before, after)
    if forbidden:
        raise entry.locate(_fixed(entry, forbidden))
    if status != before.get(lifecycle.status):
        _check_status(access, lifecycle, entry, former, status)
    if status == lifecycle.withdrawn:
        change.values.update(_RETRACTED)
    return entry.patch is None or before != {**after, "meta": before["meta"]} or _other_meta(before, after)


def left_of(entry: Entry, issues: Iterable[Issue]) -> list[Issue]:
    """What of these issues counts: the profiles of what is there know no status of what is withdrawn."""
    lifecycle = entry.kind.lifecycle
    if lifecycle is None or entry.former is None or lifecycle.status_of(entry.resource) != lifecycle.withdrawn:
        return [*issues]
    return [issue for issue in issues if issue.expression != f"{entry.kind.name}.{lifecycle.status}"]


def _other_meta(before: Document, after: Document) -> bool:
    return any(before["meta"].get(name) != after["meta"].get(name) for name in ("security", "tag", "profile", "source"))


def _check_status(access: Access, lifecycle: Lifecycle, entry: Entry, former: Document, status: str | None) -> None:
    """To withdraw, or to make current again, is for who deposited."""
    if status != lifecycle.superseded and not matches(access.authored(entry.kind), former):
        what = "withdrawn" if status == lifecycle.withdrawn else "made current again"
        text = f"this {entry.kind.name} is {what} by who deposited it alone"
        raise entry.locate(Problem("forbidden", text, f"{entry.kind.name}.{lifecycle.status}"))


def _fixed(entry: Entry, names: Iterable[str]) -> Problem:
    text = "this element is as it was deposited; another version is deposited as what replaces it"
    issues = [Issue("not-supported", text, f"{entry.kind.name}.{name.lstrip('_')}") for name in names]
    headers = {"Allow": methods_beside(entry.call, entry.kind.interactions)}
    return Problem("not-supported", text, status=405, issues=issues, headers=headers)
