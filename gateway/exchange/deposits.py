"""Content on its way in: streamed before its resource is planned, and kept before that is committed, or with it.

Knows: that nothing is taken from who may not deposit, that no resource ever names content which is not there.
Must not know: HTTP, how content is sealed or stored.
"""

from base64 import b64decode
from collections.abc import AsyncIterator, Mapping

import msgspec

from gateway.access.access import Access, unknown_reference
from gateway.exchange.attachments import RAW, attachments_of
from gateway.exchange.call import Call
from gateway.exchange.contents import CHUNK, Deposit, Inflow, address_of, sealed_document
from gateway.exchange.entries import Entry, require_kind
from gateway.exchange.gateway import Gateway
from gateway.exchange.standing import extend_to
from gateway.problem import Problem
from gateway.scanner import Scanner
from gateway.store.change import require, require_write
from gateway.store.contents import find_with_keys
from gateway.store.mongo import Document


async def take_in(gateway: Gateway, access: Access, call: Call) -> Call:
    """The call with its content taken in, once its sender is known to be allowed to. Raises Problem, and nothing is left."""
    kind = require_kind(gateway, call)
    access.require(kind, "create")
    patient = call.owner or access.caller.patient
    if patient is None:
        raise Problem("required", "it must say whose data it is", "Binary.securityContext")
    access = await extend_to(gateway, access, [patient])
    require_write(access, kind, "create", {"patient": patient, "source": access.caller.source}, None)
    record = access.records.get(patient)
    if record is None or record.moment is None:
        raise unknown_reference("Binary.securityContext")
    if call.upload is None:
        raise Problem("required", "there is no content", "Binary.data")
    deposit = await Inflow(gateway, patient, call.media or "").take(call.upload)
    resource = {
        "resourceType": RAW,
        "contentType": call.media,
        "securityContext": {"reference": f"Patient/{patient}"},
    }
    body = call.described() if call.described is not None else msgspec.json.encode(resource)
    return msgspec.structs.replace(call, body=body, upload=None, described=None, deposit=deposit)


async def keep_contents(gateway: Gateway, access: Access, entries: list[Entry]) -> None:
    """Make sure of the content of everything that is to be written: it is there already, or goes with what names it."""
    new = [(e, e.deposit, e.patient) for e in entries if e.change is not None and e.deposit is not None and e.patient]
    for entry, _, _ in new:
        if entry.change is not None:
            require(access, entry.change)
    wanted = {address_of(gateway, patient, deposit.sha256): patient for _, deposit, patient in new if not deposit.stored}
    there, keys = await find_with_keys(gateway.mongo, wanted) if wanted else ({}, {})
    if gateway.scanner is not None:
        await _examine(gateway, gateway.scanner, entries, there)
    for entry, deposit, patient in new:
        if entry.change is None:
            continue
        address = address_of(gateway, patient, deposit.sha256)
        if deposit.stored is None and address not in there:
            key = await gateway.patient_keys.of(patient, keys.get(patient))
            if deposit.size > CHUNK:
                await _store(gateway, patient, deposit)
            else:
                made = gateway.ids.new(patient[:3])
                entry.change.content = sealed_document(deposit, key, made, patient, address)
                there[address] = {"_id": made}  # another entry may bring the same bytes
        if entry.change.content is None:
            found: Document = there.get(address, {"_id": deposit.stored, "pending": True})
            entry.change.content = {"_id": found["_id"]} if "pending" in found else None
            entry.change.values["content"] = found["_id"]
        else:
            entry.change.values["content"] = entry.change.content["_id"]
        entry.change.values.update(deposit.facts)


async def _examine(gateway: Gateway, scanner: Scanner, entries: list[Entry], there: Mapping[bytes, Document]) -> None:
    """Refuse what is harmful, of all that is in memory and not there yet. (What is longer is examined on its way.)"""
    for entry in (entry for entry in entries if entry.change is not None):
        if entry.deposit is not None and entry.patient is not None:
            plain, is_known = entry.deposit.plain, address_of(gateway, entry.patient, entry.deposit.sha256) in there
            found = [(plain, ".data")] if plain is not None and not is_known and entry.deposit.size <= CHUNK else []
        else:
            attached = attachments_of(entry.kind, entry.resource) if entry.resource is not None else ()
            found = [(b64decode(one.data), f"{place}.data") for one, place in attached if one.data is not None]
        for plain, place in found:
            try:
                await scanner.examine(plain, f"{entry.kind.name}{place}")
            except Problem as problem:
                raise entry.locate(problem) from None


async def _store(gateway: Gateway, patient: str, deposit: Deposit) -> None:
    """Store a content of several chunks that is in memory."""
    plain = deposit.plain or b""

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(plain), CHUNK):
            yield plain[begin : begin + CHUNK]

    deposit.stored = (await Inflow(gateway, patient, deposit.media).take(pieces())).stored
