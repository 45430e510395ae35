"""Batch and transaction.

Knows: https://hl7.org/fhir/R4/http.html#transaction: what an entry's request asks for, the processing order, all-or-nothing
for a transaction and each on its own for a batch.
Must not know: HTTP, MongoDB.
"""

import functools
from dataclasses import dataclass
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
from gateway.fhir.dates import write_instant
from gateway.problem import Problem
from gateway.store.mongo import Session
from gateway.store.standing import About


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
    calm = gateway.codec.check_body(body)
    bundle = read_bundle(gateway.codec, body, calm=calm, most_entries=gateway.limits.bundle_entries)
    entries = bundle.entry or []
    if bundle.type == "batch":
        answers = await _batch(gateway, access, entries, origin, calm, prefer, lenient)
        return build_bundle("batch-response", answers)
    try:
        asked = [_read_entry(gateway, e, n, origin, calm, prefer, lenient) for n, e in enumerate(entries)]
        answers = await _transaction(gateway, access, asked)
    except Problem as problem:
        call = Call("transaction", "Bundle", origin)
        await gateway.audit.record(refused(access, call, problem), access.now)
        raise
    return build_bundle("transaction-response", answers)


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
                raise problem.within(reading.call.place or "Bundle") from None
            events += seen
        return events

    written, events = await write(gateway, access, [(w.call, w.full_url) for w in writes], read_behind if readings else None)
    await gateway.audit.record(events, access.now)
    for one, (_, answer) in zip(writes, written, strict=True):
        answers[id(one)] = answer
    return [_response(gateway, one.call, answers[id(one)]) for one in asked]


async def _batch(
    gateway: Gateway,
    access: Access,
    entries: list[Any],
    origin: Origin,
    calm: bool,
    prefer: Return | None,
    lenient: bool,
) -> list[dict[str, Any]]:
    responses: list[dict[str, Any]] = []
    events: list[Event] = []
    for n, entry in enumerate(entries):
        call = Call("batch", "Bundle", origin)
        try:
            call = _read_entry(gateway, entry, n, origin, calm, prefer, lenient).call
            access = await extend(gateway, access, _about(call))
            answer, seen = await carry_out(gateway, access, call)
        except Problem as problem:
            events += refused(access, call, problem)
            responses.append(_failure(problem))
        else:
            events += seen
            responses.append(_response(gateway, call, answer))
    await gateway.audit.record(events, access.now)
    return responses


def _read_entry(
    gateway: Gateway, entry: Any, position: int, origin: Origin, calm: bool, prefer: Return | None, lenient: bool
) -> Asked:
    """The call of an entry. Raises Problem where its request is none that is served in a Bundle."""
    place = f"Bundle.entry[{position}]"
    request = entry.request
    url = request.url.removeprefix(f"{gateway.settings.base_url}/")
    try:
        line = _read_request_line(request.method, url)
    except Problem as problem:
        raise problem.within(place) from None
    is_read = line.interaction in READS
    call = Call(
        interaction=line.interaction,
        type=line.type,
        origin=origin,
        id=line.id,
        version=line.version,
        parameters=line.parameters,
        body=bytes(entry.resource) if entry.resource is not None else None,
        calm=calm,
        if_match=request.ifMatch,
        if_none_match=request.ifNoneMatch,
        if_none_exist=request.ifNoneExist,
        prefer=prefer,
        lenient=lenient,
        raw=f"{request.method} {request.url}" if line.interaction == "search-type" else None,
        place=place if is_read else f"{place}.resource",
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
    if "://" in path:
        raise Problem("value", "a request goes to this service only", "Bundle.request.url", status=400)
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
            raise Problem("not-supported", "this request is not served in a Bundle", "Bundle.request", status=400)


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
    if answer.body is not None and (call.interaction in READS or call.prefer == "representation"):
        if answer.id is not None:
            entry["fullUrl"] = f"{gateway.settings.base_url}/{answer.type}/{answer.id}"
        entry["resource"] = msgspec.Raw(answer.body)
    entry["response"] = response
    return entry


def _failure(problem: Problem) -> dict[str, Any]:
    status = f"{problem.status} {HTTPStatus(problem.status).phrase}"
    return {"response": {"status": status, "outcome": problem.outcome()}}
