"""Links that are left out of what is shown: to who may not read what they lead to, they would tell that it is there.

Knows: in which elements a type has such links (`withheld` of its TOML), how they are left out, and put back into what somebody
writes who was shown less. A link is shown to whoever may point there. Must not know: HTTP, MongoDB.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from gateway.access.access import Access
from gateway.exchange.gateway import Gateway
from gateway.fhir.clause import without_version
from gateway.fhir.registry import ResourceType
from gateway.store.contents import find_readable_all
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Session
from gateway.store.resources import find_referable

Way = tuple[str, ...]
Withheld = frozenset[str]  # each as `Type/id`

NOTHING: Withheld = frozenset()


async def find_withheld(
    gateway: Gateway, access: Access, found: Iterable[tuple[ResourceType, Document]], session: Session = None
) -> Withheld:
    """Which links of these resources, all together, are not for the caller: one call at most, of documents."""
    named: dict[str, dict[str, None]] = {}
    for kind, document in found:
        if kind.withheld and "body" in document:
            for reference in _links(gateway, kind, bytes(document["body"])):
                type_name, _, identifier = reference.partition("/")
                named.setdefault(type_name, {})[identifier] = None
    asked = [(gateway.registry[name], [*ids]) for name, ids in named.items() if _is_guarded(gateway, access, name)]
    if not asked:
        return NOTHING
    there = await find_referable(access, gateway.mongo, [one for one in asked if not one[0].is_raw], session)
    for kind, ids in (one for one in asked if one[0].is_raw):  # content is of who may read what attaches it
        readable = await find_readable_all(access, gateway.mongo, kind, gateway.registry.holders, ids, session)
        there |= {f"{kind.name}/{identifier}" for identifier, one in readable.items() if one is not None}
    return frozenset(f"{kind.name}/{one}" for kind, ids in asked for one in ids) - there


def leave_out(gateway: Gateway, kind: ResourceType, body: bytes, withheld: Withheld) -> bytes:
    """The JSON of a resource without these links, each with the item of the list that it stands in."""
    if not kind.withheld or not any(reference.encode() in body for reference in withheld):
        return body
    resource = gateway.codec.load(kind.name, body)
    for way in kind.withheld:
        _leave_out(resource, way, withheld)
    return gateway.codec.encode(resource)


def put_back(gateway: Gateway, kind: ResourceType, resource: Any, former: bytes, withheld: Withheld) -> None:
    """Give a new version the links of the former one that its writer was not shown, each where it stood."""
    before = gateway.codec.load(kind.name, former)
    for way in kind.withheld:
        _put_back(resource, before, way, withheld)


def _is_guarded(gateway: Gateway, access: Access, type_name: str) -> bool:
    """Whether what is of this type may be hidden from somebody. (The devices that some see through readings tell nothing.)"""
    kind = gateway.registry.find(type_name)
    return kind is not None and kind.in_compartment and not kind.is_patient and access.through(kind) is None


def _links(gateway: Gateway, kind: ResourceType, body: bytes) -> Iterator[str]:
    """Where these elements of a resource lead to, as far as that is here."""
    ways = [way for way in kind.withheld if all(b'"%b":' % name.encode() in body for name in way)]
    resource = gateway.codec.load(kind.name, body) if ways else None
    for way in ways:
        for reference in _references(resource, way):
            target = without_version(reference.reference or "")
            if bucket_of(target.partition("/")[2]) is not None:
                yield target


def _references(node: Any, way: Way) -> Iterator[Any]:
    if not way:
        yield node
        return
    value = getattr(node, way[0])
    for one in value if isinstance(value, list) else () if value is None else (value,):
        yield from _references(one, way[1:])


def _leads(node: Any, way: Way, withheld: Withheld) -> bool:
    return any(without_version(one.reference or "") in withheld for one in _references(node, way))


def _leave_out(node: Any, way: Way, withheld: Withheld) -> None:
    name, rest = way[0], way[1:]
    value = getattr(node, name)
    if isinstance(value, list):
        setattr(node, name, [one for one in value if not _leads(one, rest, withheld)] or None)
    elif value is not None and _leads(value, rest, withheld):
        if rest:
            _leave_out(value, rest, withheld)
        if not rest or _is_empty(value):
            setattr(node, name, None)


def _put_back(node: Any, before: Any, way: Way, withheld: Withheld) -> None:
    name, rest = way[0], way[1:]
    had = getattr(before, name)
    if isinstance(had, list):
        now = getattr(node, name) or []
        for n, one in enumerate(had):
            if _leads(one, rest, withheld):
                now.insert(n, one)
        setattr(node, name, now or None)
    elif had is not None and _leads(had, rest, withheld):
        if getattr(node, name) is None:
            setattr(node, name, type(had)() if rest else had)
        if rest:
            _put_back(getattr(node, name), had, rest, withheld)


def _is_empty(node: Any) -> bool:
    return all(getattr(node, name) is None for name in node.__struct_fields__)
