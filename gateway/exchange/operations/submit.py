"""$submit-cgm-bundle: what a glucose app has to bring, each entry accepted or refused for itself.

Knows: http://hl7.org/fhir/uv/cgm/OperationDefinition/submit-cgm-bundle. The Bundle is of type transaction and is none: a wrong
reading is answered with its reason and costs the others nothing. What is known is not stored twice; what the same sender says
anew of a reading is a new version of it. Must not know: HTTP, MongoDB.
"""

from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.exchange.apart import Asked, Outcome, write_apart
from gateway.exchange.asked import Ways, read_entry_request
from gateway.exchange.audit import refused
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.read import Result
from gateway.exchange.resent import Resent, find_resent
from gateway.exchange.responses import build_failure, build_response
from gateway.fhir.balp import Event
from gateway.fhir.bundle import build_bundle, read_bundle
from gateway.fhir.operations import Operation
from gateway.pace import give_way, paced
from gateway.problem import Problem
from gateway.store.receipts import Once


async def submit(gateway: Gateway, access: Access, call: Call, operation: Operation, once: Once | None = None) -> Result:
    """A response for every entry, in their order. Raises Problem for what is no such Bundle."""
    await give_way()
    entries = _read(gateway, call)
    await give_way()
    ways = Ways(call.origin, call.calm, call.prefer, call.lenient)
    resent = Resent()
    if once is None:  # (what was done under a key is answered as it was then)
        access, resent = await find_resent(gateway, access, call, entries, operation.entries)
    asked = [
        resent.answers[n] if n in resent.answers else _ask(gateway, operation, entry, n, ways)
        async for n, entry in paced(enumerate(entries))
    ]
    outcomes, events = await write_apart(gateway, access, asked, once, resent.urls)
    known = Call("create", "", call.origin, prefer=call.prefer)
    responses = [_response(gateway, one, outcome, known) async for one, outcome in paced(zip(asked, outcomes, strict=True))]
    replayed = any(isinstance(outcome, Answer) and outcome.replayed for outcome in outcomes)
    refusals = tuple((outcome.code, outcome.status) for outcome in outcomes if isinstance(outcome, Problem))
    answer = Answer(200, build_bundle("transaction-response", responses), replayed=replayed, refusals=refusals)
    return answer, [*resent.events, *events, *_refusals(access, call, asked, outcomes)]


def _read(gateway: Gateway, call: Call) -> list[Any]:
    if call.body is None:
        raise Problem("required", "there is nothing submitted", "Bundle", status=400)
    bundle = read_bundle(gateway.codec, call.body, calm=call.calm, most_entries=gateway.limits.bundle_entries)
    if bundle.type != "transaction":
        raise Problem("value", "a Bundle of type transaction is submitted", "Bundle.type")
    if bundle.timestamp is None:
        raise Problem("required", "a submission says when it was put together", "Bundle.timestamp")
    return list(bundle.entry or ())


def _ask(gateway: Gateway, operation: Operation, entry: Any, position: int, ways: Ways) -> Asked | Problem:
    place = f"Bundle.entry[{position}]"
    if entry.request.method != "POST":
        return Problem("not-supported", "what is submitted is sent with POST", f"{place}.request.method", status=422)
    try:
        asked = read_entry_request(gateway, entry, position, ways)
    except Problem as problem:
        return problem
    call = asked.call
    if call.interaction != "create" or call.type not in operation.entries:
        text = f"only {', '.join(sorted(operation.entries))} are submitted here"
        return Problem("not-supported", text, f"{place}.request.url", status=422)
    return msgspec.structs.replace(call, renews=True), asked.full_url


def _response(gateway: Gateway, asked: Asked | Outcome, outcome: Outcome, known: Call) -> dict[str, Any]:
    """The response of an entry. `known`: the call of what was known before anything was planned."""
    if isinstance(outcome, Problem) or isinstance(asked, Problem):
        return build_failure(outcome if isinstance(outcome, Problem) else Problem("exception", "Internal error"))
    return build_response(gateway, known if isinstance(asked, Answer) else asked[0], outcome)


def _refusals(access: Access, call: Call, asked: list[Asked | Outcome], outcomes: list[Outcome]) -> list[Event]:
    """One event for all that was refused for the same reason: an app with a wrong clock says the same a thousand times."""
    found: dict[tuple[str, int, tuple[str, ...]], list[Event]] = {}
    for one, outcome in zip(asked, outcomes, strict=True):
        if isinstance(outcome, Problem):
            of = one[0] if isinstance(one, tuple) else call
            key = (outcome.issues[0].text, outcome.status, outcome.records)
            if key not in found:
                found[key] = refused(access, of, outcome)
    return [event for events in found.values() for event in events]
