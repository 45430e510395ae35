"""Batch and transaction.

Knows: https://hl7.org/fhir/R4/http.html#transaction: what an entry's request asks for, the processing order, all-or-nothing
for a transaction and each on its own for a batch.
Must not know: HTTP, MongoDB.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gateway.access.access import Access
from gateway.exchange.asked import Asked, Ways, read_entry_request
from gateway.exchange.audit import refused
from gateway.exchange.call import READS, Answer, Call, Format, Origin, Return
from gateway.exchange.gateway import Gateway
from gateway.exchange.perform import carry_out
from gateway.exchange.responses import build_failure, build_response, placed
from gateway.exchange.search import record_named
from gateway.exchange.standing import extend
from gateway.exchange.submission import claims_submission, hold_submission, refuse_batch
from gateway.exchange.together import look_up_together
from gateway.exchange.write import write
from gateway.fhir.balp import Event
from gateway.fhir.bundle import build_bundle, read_bundle
from gateway.fhir.long_data import Apart, set_apart
from gateway.pace import give_way, paced
from gateway.problem import Problem, as_problem
from gateway.store.mongo import Session
from gateway.store.receipts import Once
from gateway.store.standing import About
from gateway.telemetry import log

_AT_ONCE = 32  # entries of a batch; one client shall not fill the connections of all


async def process_bundle(
    gateway: Gateway,
    access: Access,
    body: bytes,
    origin: Origin,
    *,
    prefer: Return | None,
    lenient: bool,
    sent: Format = "json",
    once: Once | None = None,
) -> Answer:
    """Carry out a batch or transaction Bundle. Answers with the response Bundle, entries in the order they were asked in.

    `once`: what its client wants done once, a transaction as a whole and a batch entry by entry; reads are done again.
    Raises Problem for a Bundle that cannot be read and for a transaction that cannot be carried out as a whole.
    """
    submitted, refusals = False, list[tuple[str, int]]()
    try:
        if sent == "xml":
            body = gateway.xml.read(body)
        async with gateway.lanes.turn(access.caller, len(body)):
            bundle, ways = await _read_bundle(gateway, body, Ways(origin, False, prefer, lenient))
            submitted = claims_submission(gateway, bundle)
            if bundle.type == "batch":
                refuse_batch(gateway, bundle)
                answers, replayed = await _batch(gateway, access, bundle.entry or [], ways, once, refusals)
            else:
                asked = [read_entry_request(gateway, e, n, ways) async for n, e in paced(enumerate(bundle.entry or ()))]
                answers, replayed = await _transaction(gateway, access, hold_submission(gateway, bundle, asked), once)
    except Exception as error:
        call = Call("transaction", "Bundle", origin, submitted=submitted)
        problem = as_problem(error, origin.request_id)
        await gateway.audit.record(refused(access, call, problem), access.now)
        raise
    told = build_bundle(f"{bundle.type}-response", answers)
    return Answer(200, told, replayed=replayed, refusals=tuple(refusals))


async def _read_bundle(gateway: Gateway, body: bytes, ways: Ways) -> tuple[Any, Ways]:
    """The Bundle and, with what was set apart, what holds for its entries. What is wrong with it is told of what was sent."""
    apart = set_apart(body)
    await give_way()
    try:
        return await _decode_bundle(gateway, apart, ways)
    except Problem:
        if not apart.held:
            raise
    return await _decode_bundle(gateway, Apart(body), ways)


async def _decode_bundle(gateway: Gateway, apart: Apart, ways: Ways) -> tuple[Any, Ways]:
    calm = gateway.codec.check_body(apart.body)
    await give_way()
    bundle = read_bundle(gateway.codec, apart.body, calm=calm, most_entries=gateway.limits.bundle_entries)
    await give_way()
    return bundle, replace(ways, calm=calm, apart=apart)


async def _transaction(
    gateway: Gateway, access: Access, asked: list[Asked], once: Once | None
) -> tuple[list[dict[str, Any]], bool]:
    """The responses, and whether they are those of an earlier request."""
    writes = [a for a in asked if a.call.interaction not in READS]
    readings = [a for a in asked if a.call.interaction in READS]
    answers: dict[int, Answer] = {}

    async def read_behind(access: Access, session: Session) -> list[Event]:
        events: list[Event] = []
        held = _Held()
        for reading in readings:
            access = await extend(gateway, access, _about(reading.call))
            try:
                held.require_room(gateway.limits.answer_bytes)
                answers[id(reading)], seen = await carry_out(gateway, access, reading.call, session)
                held.add(answers[id(reading)])
            except Problem as problem:
                raise placed(problem, reading.call) from None
            events += seen
        return events

    reads = read_behind if readings else None
    written, events = await write(gateway, access, [(w.call, w.full_url) for w in writes], reads, once=once)
    await gateway.audit.record(events, access.now)
    for one, answer in zip(writes, written, strict=True):
        answers[id(one)] = answer
    return [build_response(gateway, one.call, answers[id(one)]) for one in asked], any(answer.replayed for answer in written)


class _Held:
    """How much the answers of one Bundle hold in memory so far: a short request can ask for very much."""

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, answer: Answer) -> None:
        self._bytes += len(answer.body or b"")

    def require_room(self, most: int) -> None:
        if self._bytes > most:
            raise Problem("too-costly", "the answer has become too large: ask for the rest in another Bundle", status=413)


async def _batch(
    gateway: Gateway, access: Access, entries: list[Any], ways: Ways, once: Once | None, refusals: list[tuple[str, int]]
) -> tuple[list[dict[str, Any]], bool]:
    """Each entry stands for itself: neither rights nor refusals of one concern the records of another.

    The responses, and whether any of them is that of an earlier request. `refusals`: gets those of entries.
    """
    if once is not None:
        await gateway.receipts.find(access, once)  # refuses a key that came with something else
    replayed = False
    events: list[Event] = []
    known: dict[About, Access] = {}
    held = _Held()

    async def widen(about: About) -> Access:
        if about not in known:
            known[about] = await extend(gateway, access, about)
        return known[about]

    async def answer(position: int, asked: Asked | Exception, together: Mapping[tuple[str, str], Access]) -> dict[str, Any]:
        nonlocal replayed
        call, widened = Call("batch", "Bundle", ways.origin), access
        try:
            if isinstance(asked, Exception):
                raise asked
            call = asked.call
            widened = together.get((call.type, call.id or "")) or await widen(_about(call))
            if call.interaction in READS:
                held.require_room(gateway.limits.answer_bytes)
            mine = None if once is None else replace(once, position=position + 1)
            answer, seen = await carry_out(gateway, widened, call, once=mine)
            replayed = replayed or answer.replayed
            held.add(answer)
        except Exception as error:  # noqa: BLE001 (what fails in one entry is no matter of the others)
            problem = as_problem(error, ways.origin.request_id)
            if problem.code == "exception":
                log("request.failed", level=logging.ERROR, error=error, request_id=ways.origin.request_id)
            events.extend(refused(widened, call, problem))
            refusals.append((problem.code, problem.status))
            return build_failure(placed(problem, call))
        events.extend(seen)
        return build_response(gateway, call, answer)

    responses: list[dict[str, Any]] = []
    for run in _runs(entries):
        asked = [_read(gateway, entry, len(responses) + n, ways) for n, entry in enumerate(run)]
        together = await look_up_together(gateway, access, [one.call for one in asked if isinstance(one, Asked)])
        responses += await asyncio.gather(*(answer(len(responses) + n, one, together) for n, one in enumerate(asked)))
    await gateway.audit.record(events, access.now)
    return responses, replayed


def _read(gateway: Gateway, entry: Any, position: int, ways: Ways) -> Asked | Exception:
    try:
        return read_entry_request(gateway, entry, position, ways)
    except Exception as error:  # noqa: BLE001 (it is told where the entry is answered)
        return error


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
        together = bool(run) and method == run[0].request.method and method in ("GET", "HEAD", "POST")
        if run and not (together and len(run) < _AT_ONCE and seen.isdisjoint(told)):
            yield run
            run, seen = [], set()
        run.append(entry)
        seen |= told
    if run:
        yield run


def _about(call: Call) -> About:
    """Whose record a reading is about, as far as its address tells."""
    if call.id is not None:
        return About(resource=(call.type, call.id))
    return About(patient=record_named(call.criteria or call.parameters))
