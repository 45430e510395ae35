"""Reading one resource: read and vread.

Knows: https://hl7.org/fhir/R4/http.html#read, #vread. Must not know: HTTP, MongoDB.
"""

import asyncio
import logging
import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.exchange.audit import event, happened
from gateway.exchange.call import Answer, Call, names_version
from gateway.exchange.contents import Content, damage, open_content
from gateway.exchange.control import read_subset
from gateway.exchange.gateway import Gateway
from gateway.exchange.withheld import NOTHING, Withheld, find_withheld, leave_out
from gateway.fhir.balp import BROKEN, Event, render_event
from gateway.fhir.cda import Embedded, EmbeddedReader
from gateway.fhir.media import plain_type
from gateway.fhir.registry import ResourceType
from gateway.fhir.subset import Subset
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.contents import find_readable
from gateway.store.mongo import Document, Session
from gateway.telemetry import log

Result = tuple[Answer, list[Event]]

_URL = b'"url":"'
_CONTENT = _URL + b"Binary/"
_POSITIVE = re.compile(r"[1-9][0-9]{0,8}\Z")  # of each number one spelling


async def read(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """The current version. 404 where it is not there for this caller, 410 where it was and has been deleted.

    In place of a Patient that was replaced the surviving one answers, to who may see that one.
    """
    kind = gateway.registry[call.type]
    if kind.is_raw:
        return await read_content(gateway, access, call, session)
    subset = read_subset(gateway, kind, call.parameters)
    survivor = access.survivor_of(call.id or "") if kind.is_patient else None
    if survivor is not None and access.reaches(kind, "read", survivor):
        found = await store.read(access, gateway.mongo, kind, survivor, session)
        if found is not None:
            return await _answer_version(gateway, access, msgspec.structs.replace(call, id=survivor), found, subset, session)
    found = await store.read(access, gateway.mongo, kind, call.id or "", session)
    return await _answer_version(gateway, access, call, found, subset, session)


async def vread(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """One version, visible only if the current one is as well."""
    kind = gateway.registry[call.type]
    if kind.is_raw:
        return await read_content(gateway, access, call, session)
    subset = read_subset(gateway, kind, call.parameters)
    version = int(call.version) if call.version and _POSITIVE.match(call.version) else 0
    found = await store.read_version(access, gateway.mongo, kind, call.id or "", version, session)
    return await _answer_version(gateway, access, call, found, subset, session)


async def read_content(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """Content, of which there is one version, to who may read anything that attaches it."""
    kind = gateway.registry[call.type]
    subset = read_subset(gateway, kind, call.parameters)
    found = await find_readable(access, gateway.mongo, kind, gateway.registry.holders, call.id or "", session)
    if found is None or (call.interaction == "vread" and call.version != "1"):
        raise not_found(call)
    if found.is_void:
        raise Problem("deleted", "this content is of a document that was a mistake, or has been deleted")
    answer, events = await _answer_version(gateway, access, call, found.resource, subset, session)
    if answer.status == 304:
        return answer, events
    content = await open_content(gateway, found, partial(_raise_alarm, gateway, access, call, found.resource["patient"]))
    if call.streams:
        return msgspec.structs.replace(answer, content=content), events
    body = with_data(bytes(found.resource["body"]), await whole_of(gateway, content))
    return msgspec.structs.replace(answer, body=body if subset is None else subset(body)), events


async def _raise_alarm(gateway: Gateway, access: Access, call: Call, patient: str, number: int) -> None:
    """Tell who runs this service, in the log and its counters, that a chunk is damaged; and of which content, in the audit.

    (Where it was to be answered as a whole, its refusal is audited as such.)
    """
    log("content.damaged", level=logging.CRITICAL, number=number, request_id=call.origin.request_id)
    if call.streams:
        broken = event(access, call, patient, BROKEN, [f"{call.type}/{call.id}"], reason=damage().issues[0].text)
        await gateway.audit.record([broken], gateway.clock())


async def whole_of(gateway: Gateway, content: Content) -> bytes:
    """All bytes of a content. Raises Problem where they are more than an answer may hold in memory."""
    if content.size > gateway.limits.answer_bytes:
        raise Problem("too-costly", "content of this size is read by its own address, as such or as JSON", status=413)
    return b"".join([piece async for piece in content.read()])


async def embedded_in(gateway: Gateway, content: Content, types: Sequence[str]) -> Embedded | None:
    """The file of one of these media types that a document of XML wraps, None where it wraps none, or another one."""
    if content.size > gateway.limits.answer_bytes:
        return None
    reader = EmbeddedReader()
    async for piece in content.read():
        if not await asyncio.to_thread(reader.feed, piece):
            break
    found = reader.result()
    if found is None or plain_type(found.media) not in types:
        return None
    try:
        gateway.media_types.require(found.media, found.plain, "Accept")
    except Problem:  # it is not what the document says it is
        return None
    return found


def with_data(body: bytes, plain: bytes) -> bytes:
    """The JSON of content as a resource, with its bytes in it."""
    return body[:-1] + b',"data":"' + b64encode(plain) + b'"}'


def body_of(gateway: Gateway, kind: ResourceType, document: Document, withheld: Withheld) -> bytes:
    """The JSON of a stored resource, without what is `withheld` (`find_withheld`) from whom it is for.

    Audit events are stored compact and become AuditEvents here.
    """
    if "event" in document:
        return msgspec.json.encode(render_event(document, gateway.settings.base_url))
    body = shown(gateway, document["body"])
    return leave_out(gateway, kind, body, withheld) if withheld else body


def shown(gateway: Gateway, body: bytes) -> bytes:
    """The JSON of a resource as it is given out: content is named by the address at which it is fetched.

    It is stored without the address of this service, which may change.
    """
    return bytes(body).replace(_CONTENT, b"%b%b/Binary/" % (_URL, gateway.settings.base_url.encode()))


def not_found(call: Call) -> Problem:
    """The one answer for what is not there and for what may not be seen."""
    return Problem("not-found", f"there is no such {call.type} here")


async def _answer_version(
    gateway: Gateway, access: Access, call: Call, found: Document | None, subset: Subset | None, session: Session
) -> Result:
    if found is None:
        raise not_found(call)
    if found.get("deleted"):
        raise Problem("deleted", f"this {call.type} has been deleted")
    version, updated = int(found["version"]), found["updated"]
    events = happened(access, call, [(found.get("patient"), f"{call.type}/{call.id}/_history/{version}")])
    facts: dict[str, Any] = {"type": call.type, "id": call.id, "version": version, "updated": updated}
    if _is_unchanged(call, version, updated):
        return Answer(304, **facts), events
    kind = gateway.registry[call.type]
    withheld = await find_withheld(gateway, access, [(kind, found)], session) if kind.withheld else NOTHING
    body = body_of(gateway, kind, found, withheld)
    return Answer(200, body if subset is None else subset(body), **facts), events


def _is_unchanged(call: Call, version: int, updated: Any) -> bool:
    if call.if_none_match is not None:
        return names_version(call.if_none_match, version)
    if call.if_modified_since is not None:
        try:
            since = parsedate_to_datetime(call.if_modified_since)
        except ValueError:
            return False
        return bool(updated.replace(microsecond=0) <= (since if since.tzinfo else since.replace(tzinfo=UTC)))
    return False
