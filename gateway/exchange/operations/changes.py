"""$changes: a feed of what is new, corrected or removed in a record. A consumer that goes on from its cursor misses nothing,
however late a reading comes and whoever writes at the same time.

Knows: that a cursor is a place in the order of commits of each record, for the rights with which it was got. It gives no right:
what is behind it is looked for with the rights of whoever asks. Must not know: HTTP, MongoDB.
"""

import base64
import binascii
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import searched, shown_of
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.history import version_entry
from gateway.exchange.operations.lastn import of_somebody
from gateway.exchange.parameters import Pairs, read_number
from gateway.exchange.read import Result
from gateway.exchange.search import read_clause, record_named
from gateway.exchange.withheld import find_withheld
from gateway.fhir.bundle import build_bundle
from gateway.fhir.clause import All, Clause, Not, Test
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem
from gateway.store.changes import find_changes
from gateway.store.mongo import Document, Session
from gateway.store.versions import Mark

_OPAQUE = "the value of 'cursor' is not one this service made for this"


class _Place(msgspec.Struct, array_like=True):
    """What a cursor says: the search, the last change seen of each record, and a hash of what could be seen."""

    pairs: Pairs
    marks: dict[str, tuple[datetime, str]]
    rights: bytes


async def changes(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """A history Bundle of what has changed behind the cursor, oldest change first; its link `next` goes on from there.

    Each resource stands there as it is now, or as deleted. Raises Problem 410 where what the caller may see is not what it
    was: something older may have appeared, so the feed begins anew.
    """
    kind, given = gateway.registry[call.type], dict(call.parameters)
    count, sealed, start = _count(gateway, given.pop("count", None)), given.pop("cursor", None), given.pop("from", "beginning")
    if start not in ("beginning", "now"):
        raise Problem("value", "'from' is beginning or now", "from", status=400)
    path = f"{kind.name}/$changes"
    if sealed is not None and (given or start != "beginning"):
        raise Problem("invalid", "a feed goes on by 'cursor' alone, and 'count'", "cursor")
    place = None if sealed is None else _open(gateway, path, sealed)
    pairs = of_somebody(access, tuple(given.items())) if place is None else place.pairs
    patient = record_named(pairs) or ""
    if "," in patient:
        raise Problem("invalid", "a feed is of one patient", "patient")
    access, clause, about = await read_clause(gateway, access, kind, pairs)
    place = _settled(access, kind, place, pairs, patient)
    ids = sorted(access.ids_of(patient))
    if start == "now":
        place.marks = {one: (_until(access, one), "") for one in ids}
        ids = []
    found = await _find(gateway, access, kind, clause, ids, place, count, session)
    for document in found:
        place.marks[document["patient"]] = (document["updated"], document["_id"])
    withheld = await find_withheld(gateway, access, [(kind, document) for document in found], session)
    entries = [version_entry(gateway, kind, one["_id"], one, withheld) for one in found]
    body = build_bundle("history", entries, link=_links(gateway, path, place, sealed))
    seen = shown_of(gateway, ((kind, document) for document in found))
    return Answer(200, body), searched(access, call, [kind], about, [document["patient"] for document in found], seen)


async def _find(
    gateway: Gateway,
    access: Access,
    kind: ResourceType,
    clause: Clause,
    ids: list[str],
    place: _Place,
    count: int,
    session: Session,
) -> list[Document]:
    """The next changes of the records of this person, each of which has an order of its own."""
    found: list[Document] = []
    for patient in ids:
        if len(found) < count:
            mark = place.marks.get(patient)
            found += await find_changes(
                access,
                gateway.mongo,
                kind,
                clause,
                patient,
                after=None if mark is None else Mark(*mark),
                until=_until(access, patient),
                limit=count - len(found),
                seconds=gateway.limits.search_seconds,
                session=session,
            )
    return found


def _until(access: Access, patient: str) -> datetime:
    """The last commit of a record, as it was read before anything of it. (Who is not there is looked for all the same.)"""
    record = access.records.get(patient)
    if record is not None and record.moment is not None:
        return record.moment[1]
    return access.now.replace(microsecond=access.now.microsecond // 1_000 * 1_000)


def _settled(access: Access, kind: ResourceType, place: _Place | None, pairs: Pairs, patient: str) -> _Place:
    """The place to go on from. Raises Problem where it was reached with other rights.

    To whom nothing of the record is open, whatever the patient says of them is no news: nobody would say it who is not here.
    """
    ended = [end for one in access.records.values() if one.ends for end in access.ends_of_labels(one) if end <= access.now]
    spelled = f"{_spelled(access.clause(kind, 'search-type'))} {max(ended, default='')}"
    spelled = spelled if access.reaches(kind, "search-type", patient) else ""
    rights = blake2b(spelled.encode(), digest_size=16).digest()
    if place is not None and place.rights != rights:
        text = "what you may see here has changed, and what that newly shows may be older: begin without a cursor"
        raise Problem("expired", text, "cursor", status=410)
    return place or _Place(pairs, {}, rights)


def _spelled(clause: Clause) -> str:
    """A clause as text, the same whatever order its parts came in and however often."""
    match clause:
        case All(of) | AnyOf(of):
            parts = sorted({_spelled(part) for part in of})
            return parts[0] if len(parts) == 1 else f"{type(clause).__name__}({','.join(parts)})"
        case Not(part):
            return f"Not({_spelled(part)})"
        case Test("_hiddenUntil"):
            return "over"  # (it is compared with now)
        case _:
            return repr(clause)


def _count(gateway: Gateway, text: str | None) -> int:
    if text is None:
        return gateway.limits.page_default
    count = read_number(text, 5)
    if not count:
        raise Problem("invalid", "'count' is a number from 1", "count")
    return min(count, gateway.limits.history_most)


def _links(gateway: Gateway, path: str, place: _Place, sealed: str | None) -> list[dict[str, Any]]:
    base = f"{gateway.settings.base_url}/{path}"
    ahead = gateway.sealer.seal(msgspec.json.encode(place), path)
    following = base64.urlsafe_b64encode(ahead).rstrip(b"=").decode()
    own = f"{base}?cursor={sealed}" if sealed is not None else base
    return [{"relation": "self", "url": own}, {"relation": "next", "url": f"{base}?cursor={following}"}]


def _open(gateway: Gateway, path: str, text: str) -> _Place:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(gateway.sealer.open(data, path), type=_Place)
    except (ValueError, binascii.Error, msgspec.DecodeError, Problem):
        raise Problem("invalid", _OPAQUE, "cursor") from None
