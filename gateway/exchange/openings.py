"""Who has seen what was deposited by mistake, as its depositor is told.

Knows: which events of the audit are about it, and how little of those who saw it may be said: professionals, organizations and
services by name, patients and who acts for them not at all. Must not know: HTTP, MongoDB.
"""

from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.access.access import Access
from gateway.exchange.gateway import Gateway
from gateway.fhir.dates import write_instant
from gateway.store.mongo import Document
from gateway.store.withdrawn import find_events, find_names

_OPENED = frozenset({"read", "vread", "history-instance"})
_SHOWN = frozenset(
    {"search-type", "search-system", "history-type", "history-system", "$docref", "$everything", "$changes", "$lastn"}
)
_NAMED = ("Practitioner", "Organization")
_UNNAMED = frozenset({"patient", "proxy"})


@dataclass(slots=True)
class _Seen:
    """What one person, or system, did: from when to when, how often."""

    event: Document
    how: str
    first: datetime
    last: datetime
    times: int = 0


async def openings_of(gateway: Gateway, access: Access, withdrawn: Document) -> list[dict[str, Any]]:
    """A parameter for each who has opened it, or may have been shown it in a list, since it was deposited."""
    events, is_all = await find_events(access, gateway.mongo, withdrawn, withdrawn["since"])
    seen: dict[tuple[Any, ...], _Seen] = {}
    for document in events:
        event, at = document["event"], document["updated"]
        how = _how(event, withdrawn)
        if how is None or event.get("user", event["client"]) == (access.caller.user or access.caller.client):
            continue
        who = (how, event["kind"], event["client"], event.get("user"), event.get("organization"))
        one = seen.setdefault(who, _Seen(event, how, at, at))
        one.last, one.times = at, one.times + 1
    names = await _names(gateway, access, seen.values())
    told = [{"name": one.how, "part": [*_parts(one, names)]} for one in seen.values()]
    incomplete = [] if is_all else [{"name": "incomplete", "valueBoolean": True}]
    return [*told, *incomplete]


def _how(event: Document, withdrawn: Document) -> str | None:
    """`opened`, `listed` (among what a search showed or, where that is not kept, may have shown), or None."""
    interaction = event["interaction"]
    if interaction in _OPENED or interaction.startswith("$"):
        touched = {"/".join(reference.split("/")[:2]) for reference in event.get("entities", ())}
        if touched.intersection(withdrawn["entities"]) and interaction != "$withdraw":
            return "opened"
    if interaction not in _SHOWN:
        return None
    if "shown" in event:
        return "listed" if set(event["shown"]).intersection(withdrawn["entities"]) else None
    includes = b"include=" in b64decode(event.get("query", ""))
    types = {reference.partition("/")[0] for reference in withdrawn["entities"]}
    is_about = event.get("type") in types or event.get("type") is None or interaction == "$everything"
    return "listed" if is_about or includes else None


async def _names(gateway: Gateway, access: Access, seen: Iterable[_Seen]) -> dict[str, str]:
    references = {r for one in seen for r in (one.event.get("user"), one.event.get("organization")) if r}
    found: dict[str, str] = {}
    for name in _NAMED:
        kind = gateway.registry.find(name)
        ids = [reference.partition("/")[2] for reference in references if reference.startswith(f"{name}/")]
        bodies = await find_names(access, gateway.mongo, kind, ids) if kind is not None else {}
        for identifier, body in bodies.items():
            found[f"{name}/{identifier}"] = _display(gateway.codec.load(name, body))
    return found


def _display(entry: Any) -> str:
    if isinstance(entry.name, str):
        return entry.name
    name = next(iter(entry.name or ()), None)
    if name is None:
        return ""
    return name.text or " ".join([*(name.prefix or ()), *(name.given or ()), *([name.family] if name.family else [])])


def _parts(seen: _Seen, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    event = seen.event
    yield {"name": "kind", "valueCode": event["kind"]}
    if event["kind"] not in _UNNAMED:
        yield {"name": "client", "valueString": event["client"]}
        for name in ("user", "organization"):
            reference = event.get(name)
            if reference is not None and reference.partition("/")[0] not in ("Patient", "RelatedPerson"):
                display = {"display": names[reference]} if names.get(reference) else {}
                yield {"name": name, "valueReference": {"reference": reference, **display}}
        for role in event.get("roles", ()):
            system, _, code = role.rpartition("|")
            yield {"name": "role", "valueCoding": {**({"system": system} if system else {}), "code": code}}
    yield {"name": "first", "valueInstant": write_instant(seen.first)}
    yield {"name": "last", "valueInstant": write_instant(seen.last)}
    yield {"name": "times", "valuePositiveInt": seen.times}
