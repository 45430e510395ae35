"""One call from beginning to end: is there such an interaction, may they, do it, leave a trace.

Knows: which function carries out which interaction, and that nothing is answered without an audit event.
Must not know: HTTP, MongoDB.
"""

from collections.abc import Awaitable, Callable, Mapping

from gateway.access.access import Access
from gateway.exchange.audit import refused
from gateway.exchange.call import Answer, Call
from gateway.exchange.entries import require_kind
from gateway.exchange.gateway import Gateway
from gateway.exchange.read import Result, history_instance, read, vread
from gateway.exchange.search import search_type
from gateway.exchange.write import write
from gateway.fhir.balp import Event
from gateway.problem import as_problem
from gateway.store.mongo import Session

Reader = Callable[[Gateway, Access, Call, Session], Awaitable[Result]]

_READERS: Mapping[str, Reader] = {
    "read": read,
    "vread": vread,
    "history-instance": history_instance,
    "search-type": search_type,
}
READS = frozenset(_READERS)


async def perform(gateway: Gateway, access: Access, call: Call) -> Answer:
    """Carry out one call. It is answered, refused by a Problem or given up only after its audit event is durable."""
    try:
        answer, events = await carry_out(gateway, access, call)
    except Exception as error:
        problem = as_problem(error, call.origin.request_id)
        await gateway.audit.record(refused(access, call, problem), access.now)
        raise
    await gateway.audit.record(events, access.now)
    return answer


async def carry_out(gateway: Gateway, access: Access, call: Call, session: Session = None) -> tuple[Answer, list[Event]]:
    """Carry out one call; returns its answer and the events still to be recorded before the answer may leave."""
    if call.interaction in _READERS:
        kind = require_kind(gateway, call)
        access.require(kind, call.interaction)
        return await _READERS[call.interaction](gateway, access, call, session)
    written, events = await write(gateway, access, [(call, None)])
    return written[0][1], events
