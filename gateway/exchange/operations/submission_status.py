"""$submission-status: what an app that brings years of readings may send, and how far it came.

Knows: whose readings count: those that the caller itself brought and could bring now. Must not know: HTTP, MongoDB.
"""

from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import searched
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.guidance import submission_guidance
from gateway.exchange.operations.arguments import read_day
from gateway.exchange.operations.lastn import of_somebody
from gateway.exchange.operations.readings import CODES
from gateway.exchange.read import Result
from gateway.exchange.search import read_clause
from gateway.fhir.dates import write_instant
from gateway.problem import Problem
from gateway.store.deposited import find_last_deposited
from gateway.store.mongo import Session


async def submission_status(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """A Parameters with `until`, where there is anything, and the limits and rates that hold for this caller."""
    kind, given = gateway.registry[call.type], dict(call.parameters)
    pairs = [*of_somebody(access, tuple(pair for pair in given.items() if pair[0] == "patient"))]
    pairs.append(("code", given.get("code", ",".join(CODES))))
    if "end" in given:
        pairs.append(("date", f"lt{write_instant(read_day('end', given['end']).low)}"))
    access, clause, about = await read_clause(gateway, access, kind, tuple(pairs))
    if len(about) != 1:
        raise Problem("value", "this is asked of one patient", "patient", status=400)
    until = await find_last_deposited(
        access, gateway.mongo, kind, clause, about[0], seconds=gateway.limits.search_seconds, session=session
    )
    said: list[dict[str, Any]] = [] if until is None else [{"name": "until", "valueDateTime": write_instant(until)}]
    guidance = submission_guidance(gateway.limits, gateway.throttle.rate_of(access.caller))
    said += [{"name": name, element: value} for name, (element, value) in guidance.items()]
    body = msgspec.json.encode({"resourceType": "Parameters", "parameter": said})
    return Answer(200, body), searched(access, call, [kind], about, [])
