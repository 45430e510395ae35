"""One call from beginning to end: is there such an interaction, may they, do it, leave a trace.

Knows: which function carries out which interaction, and that nothing is answered without an audit event.
Must not know: HTTP, MongoDB.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import refused
from gateway.exchange.call import Answer, Call
from gateway.exchange.deposits import take_in
from gateway.exchange.entries import not_offered, require_kind
from gateway.exchange.gateway import Gateway
from gateway.exchange.history import history_instance, history_system, history_type
from gateway.exchange.operations.access_status import access_status
from gateway.exchange.operations.changes import changes
from gateway.exchange.operations.docref import docref
from gateway.exchange.operations.everything import everything
from gateway.exchange.operations.generate_metadata import generate_metadata
from gateway.exchange.operations.glucose_series import glucose_series
from gateway.exchange.operations.glucose_stats import glucose_stats
from gateway.exchange.operations.lastn import lastn
from gateway.exchange.operations.lookup import lookup
from gateway.exchange.operations.meta import meta
from gateway.exchange.operations.submission_status import submission_status
from gateway.exchange.operations.submit import submit
from gateway.exchange.operations.validate import validate
from gateway.exchange.operations.withdraw import withdraw
from gateway.exchange.read import Result, read, vread
from gateway.exchange.search import search_system, search_type
from gateway.exchange.write import write
from gateway.fhir.balp import Event
from gateway.fhir.operations import Operation
from gateway.fhir.registry import Registry
from gateway.problem import Problem, as_problem
from gateway.schemas import SchemaError
from gateway.store.mongo import Session
from gateway.store.receipts import Once

Reader = Callable[[Gateway, Access, Call, Session], Awaitable[Result]]
Writer = Callable[[Gateway, Access, Call, Operation, Once | None], Awaitable[Result]]

_READERS: Mapping[str, Reader] = {
    "read": read,
    "vread": vread,
    "history-instance": history_instance,
    "history-type": history_type,
    "search-type": search_type,
}
_SYSTEM_READERS: Mapping[str, Reader] = {"search-system": search_system, "history-system": history_system}
_OPERATIONS: Mapping[str, Reader] = {
    "$access-status": access_status,
    "$changes": changes,
    "$docref": docref,
    "$everything": everything,
    "$glucose-series": glucose_series,
    "$glucose-stats": glucose_stats,
    "$lastn": lastn,
    "$lookup": lookup,
    "$meta": meta,
    "$submission-status": submission_status,
    "$validate": validate,
}
_WRITING: Mapping[str, Writer] = {
    "$generate-metadata": generate_metadata,
    "$submit-cgm-bundle": submit,
    "$withdraw": withdraw,
}


def check_operations(schemas: Path, registry: Registry) -> None:
    """Refuse the file of an operation that nothing here carries out."""
    for operation in registry.operations.values():
        if operation.interaction not in (*_OPERATIONS, *_WRITING):
            raise SchemaError(schemas / "operations" / f"{operation.code}.toml", "code", "is no operation that is served here")


async def perform(gateway: Gateway, access: Access, call: Call, once: Once | None = None) -> Answer:
    """Carry out one call. It is answered, refused by a Problem or given up only after its audit event is durable."""
    try:
        if call.sent == "xml":
            call = _from_xml(gateway, call)
        async with gateway.lanes.turn(access.caller, len(call.body or b"")):
            answer, events = await carry_out(gateway, access, call, once=once)
    except Exception as error:
        problem = as_problem(error, call.origin.request_id)
        await gateway.audit.record(refused(access, call, problem), access.now)
        raise
    await gateway.audit.record(events, access.now)
    return answer


async def carry_out(
    gateway: Gateway, access: Access, call: Call, session: Session = None, once: Once | None = None
) -> tuple[Answer, list[Event]]:
    """Carry out one call; returns its answer and the events still to be recorded before the answer may leave.

    `once`: a write that its client wants done once.
    """
    if call.interaction in _READERS:
        kind = require_kind(gateway, call)
        if not access.is_offered(call.interaction):
            raise not_offered(call, kind.interactions)
        access.require(kind, call.interaction)
        return await _READERS[call.interaction](gateway, access, call, session)
    if call.interaction in _SYSTEM_READERS:
        return await _SYSTEM_READERS[call.interaction](gateway, access, call, session)
    if call.interaction in _OPERATIONS:
        _require_operation(gateway, access, call)
        return await _OPERATIONS[call.interaction](gateway, access, call, session)
    if call.interaction in _WRITING:
        operation = _require_operation(gateway, access, call)
        return await _WRITING[call.interaction](gateway, access, call, operation, once)
    if call.upload is not None:
        call = await take_in(gateway, access, call)
    answers, events = await write(gateway, access, [(call, None)], once=once)
    return answers[0], events


def _from_xml(gateway: Gateway, call: Call) -> Call:
    """The same call with the JSON that its body says. Raises Problem where it says none."""
    body = gateway.xml.read(call.body or b"")
    return msgspec.structs.replace(call, body=body, sent="json", calm=gateway.codec.check_body(body))


def find_operation(gateway: Gateway, call: Call) -> Operation | None:
    """The operation of a call, None where none of that name is offered there."""
    operation = gateway.registry.operations.get(call.interaction.removeprefix("$"))
    offered = operation is not None and operation.is_offered(call.type, _level(call))
    return operation if offered else None


def _level(call: Call) -> str:
    return ("type" if call.type else "system") if call.id is None else "instance"


def _require_operation(gateway: Gateway, access: Access, call: Call) -> Operation:
    """The operation of a call. Refuses one that is not offered there, and callers without the rights it takes."""
    operation = find_operation(gateway, call)
    if operation is None:
        raise Problem("not-supported", "there is no such operation here", status=404)
    if operation.own_right:
        access.require_operation(call.type, operation.code)
    for interaction in operation.needs[_level(call)]:
        access.require(gateway.registry[call.type], interaction)
    return operation
