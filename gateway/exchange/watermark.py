"""Up to when an answer tells everything: the watermark of a searchset (`Bundle.meta.lastUpdated`), to search on from.

Knows: the commits of a record have an order, and their times with them (`store/commit.py`): what is committed behind the last
one has a later time. Where several records are asked, what has a time more than `settle_seconds` ago is there, whichever
process writes. A watermark is made of what the caller sees, and tells nothing of what is hidden.
Must not know: HTTP, MongoDB.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.access.access import Access, Record
from gateway.access.consent import Provision
from gateway.exchange.gateway import Gateway
from gateway.fhir.clause import Clause, Test, parts_of
from gateway.fhir.dates import Span, write_instant
from gateway.fhir.registry import ResourceType
from gateway.problem import Issue, operation_outcome
from gateway.store.mongo import Document, Session
from gateway.store.standing import find_moment

Found = tuple[ResourceType, Document]
Find = Callable[[Session], Awaitable[list[Found]]]

_INSTANT = timedelta(milliseconds=1)
_SINCE = ("gt", "ge", "sa")  # `_lastUpdated` with these asks for what has changed since
_RESYNC = {"system": "urn:fhir-document-gateway:CodeSystem/search-outcome", "code": "resync"}
_TEXT = (
    "what you may see in this record has changed since: what that newly shows can be older than '_lastUpdated' asks for. "
    "Search once without '_lastUpdated'"
)


@dataclass(frozen=True, slots=True)
class Tide:
    """`moment`: what has this time or an earlier one, and may be seen, is all there; `told`: the same as far as the caller
    could know without this answer; `reset`: when what the caller may see last changed by a Consent or a relation of care, None
    where that is no news.
    """

    moment: datetime
    told: datetime
    reset: datetime | None

    def outcome(self) -> dict[str, object] | None:
        """What tells the caller to begin anew, None where nothing does."""
        if self.reset is None:
            return None
        issue = Issue("informational", _TEXT, "_lastUpdated", severity="information").element()
        return operation_outcome([]) | {"issue": [issue | {"details": {"coding": [_RESYNC]}}]}


def asks_since(kinds: Iterable[ResourceType], pairs: Iterable[tuple[str, str]]) -> bool:
    """Whether a search asks for what has changed since some time, of types whose changes have an order."""
    asks = any(name == "_lastUpdated" and value.startswith(_SINCE) for name, value in pairs)
    return asks and all("_lastUpdated" in kind.sort for kind in kinds)


async def find_with_tide(
    gateway: Gateway, access: Access, clause: Clause, about: Iterable[str], find: Find, session: Session
) -> tuple[list[Found], Tide]:
    """What is found in these records. Where somebody commits meanwhile, it is read again in one snapshot with the head."""
    records = [access.records[one] for patient in about for one in access.ids_of(patient) if one in access.records]
    span = timedelta(seconds=gateway.limits.settle_seconds)
    settled, since = access.now - span, _since(clause)
    told = settled if since is None or since > access.now + span else since  # (nobody has seen what is still to come)
    reset = _reset(access, records, since, span) if since is not None else None
    found = await find(session)
    if len(records) != 1 or records[0].moment is None:
        # Records of one person each have an order of their own.
        commits = [record.moment[1] for record in records if record.moment is not None]
        return found, Tide(max(settled, min(commits, default=settled)), told, reset)
    moment = max(settled, records[0].moment[1])
    if any(document["updated"] > moment for _, document in found):

        async def again(session: Session) -> tuple[datetime, list[Found]]:
            return await find_moment(gateway.mongo, records[0].patient, session) or settled, await find(session)

        if session is not None:
            moment, found = await again(session)
        else:
            moment, found = await gateway.mongo.transaction(again, seconds=gateway.limits.search_seconds)
    return found, Tide(moment, told, reset)


def watermark(tide: Tide, found: Sequence[Document], count: int, *, in_turn: bool, is_first: bool) -> str | None:
    """The watermark of a page: of the first `count` of what was `found`. None for a later page that has none of its own.

    `in_turn`: whether the page is in the order of the changes, so that the next one can also be asked for by its watermark.
    """
    seen = [document["updated"] for document in found if document["updated"] <= tide.moment]
    if len(found) > count:
        # The changes of one commit have one time: of those that go on behind this page, none is behind us.
        seen = [moment for moment in seen if moment < found[count]["updated"]] if in_turn else []
        reached = max(seen, default=tide.told)
    else:
        reached = max(seen, default=tide.told)
        reached = reached if tide.reset is None else max(reached, min(tide.reset, tide.moment))
    return write_instant(reached) if is_first or (in_turn and seen) else None


def _since(clause: Clause) -> datetime | None:
    """The time up to which the caller has seen everything, as the search says it."""
    asked = [
        (test.value.low if test.op == "ge" else test.value.high) - _INSTANT
        for test in parts_of(clause)
        if isinstance(test, Test) and test.parameter == "_lastUpdated" and test.op in _SINCE and isinstance(test.value, Span)
    ]
    return max(asked, default=None)


def _reset(access: Access, records: Iterable[Record], since: datetime, span: timedelta) -> datetime | None:
    """When what the caller may see last changed by a Consent, a relation of care or the end of a label, if that was since."""
    moments: list[datetime] = []
    for record in records:
        consents = (*record.consents, *record.elsewhere)
        if (consents or record.relations) and access.opens(record):
            moments += [consent.updated for consent in consents]
            moments += [bound for one in consents if one.provision is not None for bound in _bounds(one.provision)]
            for relation in record.relations:
                # (A declaration is known by the time of its request, and so is told for as long as that may have taken.)
                moments += [*relation.period, min(relation.declared + span, access.now)]
        moments += access.ends_of_labels(record) if record.ends else ()
    return max((moment for moment in moments if since < moment <= access.now), default=None)


def _bounds(provision: Provision) -> Iterator[datetime]:
    """When a provision, or one within it, begins to hold and ends."""
    yield from provision.period
    for nested in provision.nested:
        yield from _bounds(nested)
