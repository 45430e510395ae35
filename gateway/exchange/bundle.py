"""Batch and transaction.

Knows: https://hl7.org/fhir/R4/http.html#transaction: what an entry's request asks for, the processing order, all-or-nothing
for a transaction and each on its own for a batch.
Must not know: HTTP, MongoDB.
"""

import asyncio
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import refused
from gateway.exchange.call import Answer, Call, Origin, Return
from gateway.exchange.gateway import Gateway
from gateway.exchange.perform import READS, carry_out
from gateway.exchange.search import record_named
from gateway.exchange.standing import extend
from gateway.exchange.write import write
from gateway.fhir.balp import Event
from gateway.fhir.bundle import build_bundle, read_bundle
from gateway.fhir.dates import read_span, write_instant
from gateway.problem import Issue, Problem, operation_outcome
from gateway.store.mongo import Session
from gateway.store.standing import About

_AT_ONCE = 32  # entries of a batch; one client shall not fill the connections of all


@dataclass(frozen=True, slots=True)
class Ways:
    """What holds for every entry: where the Bundle came from, whether its JSON is calm, what is preferred."""

    origin: Origin
    calm: bool
    prefer: Return | None
    lenient: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """An entry of the Bundle: the call it asks for and what it is called within the Bundle."""

    call: Call
    full_url: str | None


async def process_bundle(
    gateway: Gateway, access: Access, body: bytes, origin: Origin, *, prefer: Return | None, lenient: bool
) -> bytes:
    """Carry out a batch or transaction Bundle. Returns the response Bundle, entries in the order they were asked in.

    Raises Problem for a Bundle that cannot be read and for a transaction that cannot be carried out as a whole.
    """
    try:
        calm = gateway.codec.check_body(body)
        bundle = read_bundle(gateway.codec, body, calm=calm, most_entries=gateway.limits.bundle_entries)
        ways = Ways(origin, calm, prefer, lenient)
        if bundle.type == "batch":
            answers = await _batch(gateway, access, bundle.entry or [], ways)
        else:
            asked = [_read_entry(gateway, entry, n, ways) for n, entry in enumerate(bundle.entry or ())]
            answers = await _transaction(gateway, access, asked)
    except Problem as problem:
        call = Call("transaction", "Bundle", origin)
        await gateway.audit.record(refused(access, call, problem), access.now)
        raise
    return build_bundle(f"{bundle.type}-response", answers)


async def _transaction(gateway: Gateway, access: Access, asked: list[Asked]) -> list[dict[str, Any]]:
    writes = [a for a in asked if a.call.interaction not in READS]
    readings = [a for a in asked if a.call.interaction in READS]
    answers: dict[int, Answer] = {}

    async def read_behind(access: Access, session: Session) -> list[Event]:
        events: list[Event] = []
        for reading in readings:
            access = await extend(gateway, access, _about(reading.call))
            try:
                answers[id(reading)], seen = await carry_out(gateway, access, reading.call, session)
            except Problem as problem:
                raise _placed(problem, reading.call) from None
            events += seen
        return events

    written, events = await write(gateway, access, [(w.call, w.full_url) for w in writes], read_behind if readings else None)
    await gateway.audit.record(events, access.now)
    for one, (_, answer) in zip(writes, written, strict=True):
        answers[id(one)] = answer
    return [_response(gateway, one.call, answers[id(one)]) for one in asked]


async def _batch(gateway: Gateway, access: Access, entries: list[Any], ways: Ways) -> list[dict[str, Any]]:
    """Each entry stands for itself: neither rights nor refusals of one concern the records of another."""
    events: list[Event] = []
    known: dict[About, Access] = {}

    async def answer(position: int, entry: Any) -> dict[str, Any]:
        call, widened = Call("batch", "Bundle", ways.origin), access
        try:
            call = _read_entry(gateway, entry, position, ways).call
            about = _about(call)
            if about not in known:
                known[about] = await extend(gateway, access, about)
            widened = known[about]
            answer, seen = await carry_out(gateway, widened, call)
        except Problem as problem:
            events.extend(refused(widened, call, problem))
            return _failure(_placed(problem, call))
        events.extend(seen)
        return _response(gateway, call, answer)

    responses: list[dict[str, Any]] = []
    for run in _runs(entries):
        responses += await asyncio.gather(*(answer(len(responses) + n, entry) for n, entry in enumerate(run)))
    await gateway.audit.record(events, access.now)
    return responses


def _runs(entries: list[Any]) -> Iterator[list[Any]]:
    """The entries in order, those together that can be carried out at the same time: reads, or creates.

    Entries of a batch do not depend on each other (https://hl7.org/fhir/R4/http.html#brules); all the same a client who
    writes and then reads the same resource shall find what it wrote, and who creates it twice shall create it with the first.
    """
    run: list[Any] = []
    seen: set[str | bytes] = set()
    for entry in entries:
        method, condition = entry.request.method, entry.request.ifNoneExist
        told = {condition or bytes(entry.resource)} if method == "POST" and entry.resource is not None else set()
        together = bool(run) and method == run[0].request.method and method in ("GET", "POST")
        if run and not (together and len(run) < _AT_ONCE and seen.isdisjoint(told)):
            yield run
            run, seen = [], set()
        run.append(entry)
        seen |= told
    if run:
        yield run


def _read_entry(gateway: Gateway, entry: Any, position: int, ways: Ways) -> Asked:
    """The call of an entry. Raises Problem where its request is none that is served in a Bundle."""
    place = f"Bundle.entry[{position}]"
    request = entry.request
    try:
        line = _read_request_line(request.method, request.url.removeprefix(f"{gateway.settings.base_url}/"))
    except Problem as problem:
        raise problem.within(place) from None
    takes_resource = line.interaction in ("create", "update")
    if takes_resource and entry.resource is None:
        raise Problem("required", f"{request.method} takes a resource", f"{place}.resource")
    call = Call(
        interaction=line.interaction,
        type=line.type,
        origin=ways.origin,
        id=line.id,
        version=line.version,
        parameters=line.parameters,
        body=bytes(entry.resource) if takes_resource else None,
        calm=ways.calm,
        if_match=request.ifMatch,
        if_none_match=request.ifNoneMatch,
        if_modified_since=_http_date(request.ifModifiedSince),
        if_none_exist=request.ifNoneExist,
        prefer=ways.prefer,
        lenient=ways.lenient,
        raw=f"{request.method} {request.url}" if line.interaction == "search-type" else None,
        place=f"{place}.resource" if takes_resource else place,
    )
    return Asked(call, entry.fullUrl)


@dataclass(frozen=True, slots=True)
class _RequestLine:
    interaction: str
    type: str
    id: str | None = None
    version: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()


@functools.lru_cache(maxsize=1_024)
def _read_request_line(method: str, url: str) -> _RequestLine:
    """What an entry's method and URL ask for; the entries of a Bundle mostly ask for the same."""
    path, _, query = url.removeprefix("/").partition("?")
    if "://" in path or path.startswith("/"):
        raise Problem("value", "a request goes to this service only", "Bundle.request.url", status=400)
    if path in ("", "Bundle") and method == "POST":
        raise Problem("not-supported", "a Bundle is not sent within another one", "Bundle.request.url", status=400)
    type_name, *rest = (unquote(part) for part in path.split("/"))
    match method, rest:
        case ("GET", []) | ("POST", ["_search"]):
            return _RequestLine("search-type", type_name, parameters=tuple(parse_qsl(query, keep_blank_values=True)))
        case "GET", [identifier]:
            return _RequestLine("read", type_name, identifier)
        case "GET", [identifier, "_history"]:
            return _RequestLine("history-instance", type_name, identifier)
        case "GET", [identifier, "_history", version]:
            return _RequestLine("vread", type_name, identifier, version)
        case "POST", [] if not query:
            return _RequestLine("create", type_name)
        case "PUT", [identifier] if not query:
            return _RequestLine("update", type_name, identifier)
        case "DELETE", [identifier] if not query:
            return _RequestLine("delete", type_name, identifier)
        case _:
            raise Problem("not-supported", f"this {method} is not served in a Bundle", "Bundle.request", status=400)


def _about(call: Call) -> About:
    """Whose record a reading is about, as far as its address tells."""
    if call.id is not None:
        return About(resource=(call.type, call.id))
    return About(patient=record_named(call.parameters))


def _response(gateway: Gateway, call: Call, answer: Answer) -> dict[str, Any]:
    response: dict[str, Any] = {"status": f"{answer.status} {HTTPStatus(answer.status).phrase}"}
    entry: dict[str, Any] = {}
    if answer.located:
        response["location"] = f"{answer.type}/{answer.id}/_history/{answer.version}"
    if answer.etag is not None:
        response["etag"] = answer.etag
    if answer.updated is not None:
        response["lastModified"] = write_instant(answer.updated)
    if call.prefer == "OperationOutcome" and call.interaction not in READS:
        response["outcome"] = operation_outcome([Issue("informational", HTTPStatus(answer.status).phrase, None, "information")])
    if answer.body is not None and (call.interaction in READS or call.prefer == "representation"):
        if answer.id is not None:
            entry["fullUrl"] = f"{gateway.settings.base_url}/{answer.type}/{answer.id}"
        entry["resource"] = msgspec.Raw(answer.body)
    entry["response"] = response
    return entry


def _http_date(instant: str | None) -> str | None:
    """A FHIR instant as the header would say it."""
    return None if instant is None else format_datetime(read_span(instant).low, usegmt=True)


def _placed(problem: Problem, call: Call) -> Problem:
    """The problem of an entry with its element named from the root of the Bundle; a parameter stands in its URL."""
    place = call.place
    if place is None or all((issue.expression or "").startswith("Bundle.entry[") for issue in problem.issues):
        return problem
    return problem.moved(f"{place}.request.url" if problem.issues[0].expression else place)


def _failure(problem: Problem) -> dict[str, Any]:
    status = f"{problem.status} {HTTPStatus(problem.status).phrase}"
    return {"response": {"status": status, "outcome": problem.outcome()}}
