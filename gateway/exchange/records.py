"""What an operator at the machine does with whole records: erase one, open what was withdrawn from one.

Knows: that neither is done without a trace in the record's own log. Must not know: the command line, where anything lies.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.access.record import Caller
from gateway.exchange.audit import at_machine
from gateway.exchange.contents import open_sealed
from gateway.exchange.gateway import Gateway
from gateway.problem import Problem
from gateway.store.contents import find_key
from gateway.store.erasing import erase, require_erasable
from gateway.store.withdrawn import read_withdrawn

_MACHINE = "gateway-records"
# What stays, and why: told with what was erased.
KEPT = (
    "AuditEvent: who did what and when, by ids, with queries as asked: the law wants it, and its hash chains would break",
    "patient_keys: that the key was destroyed and when, so that the record never has another one",
    "receipts: keyed hashes and ids of what came with an Idempotency-Key, for 48 hours",
    "backups and the database's own journal: until they are overwritten; contents in them are noise without the key",
)


async def erase_patient(gateway: Gateway, patient: str, operator: str) -> dict[str, int]:
    """Erase a record. Returns how much of what was erased. Raises Problem where there is no such patient."""
    await require_erasable(gateway.mongo, patient)
    await gateway.audit.open(gateway.clock(), by_operator=True)
    await gateway.audit.record(
        [at_machine(operator, "$erase", patient=patient, entities=[f"Patient/{patient}"])], gateway.clock()
    )
    return await erase(gateway.mongo, gateway.registry, patient, gateway.clock())


async def open_withdrawn(gateway: Gateway, reference: str, operator: str) -> list[dict[str, Any]]:
    """Every version of all that was withdrawn together with this. Raises Problem where nothing was, or its key is gone."""
    caller = Caller.operator(operator, operator, (), _MACHINE)
    access = Access(caller, gateway.registry, gateway.policy, gateway.clock())
    found = await read_withdrawn(access, gateway.mongo, reference)
    patient = found[0]["patient"]
    stored = await find_key(gateway.mongo, patient)
    if stored is None or stored.get("wrapped") is None:
        raise Problem("deleted", "the key of this record has been destroyed")
    key = await gateway.patient_keys.unwrap(patient, bytes(stored["wrapped"]))
    type_name = reference.partition("/")[0]
    await gateway.audit.open(gateway.clock(), by_operator=True)
    await gateway.audit.record(
        [at_machine(operator, "read", type_name=type_name, patient=patient, entities=found[0]["entities"])], access.now
    )
    return [*_versions(found, key)]


def _versions(found: list[dict[str, Any]], key: bytes) -> Iterator[dict[str, Any]]:
    for one in found:
        said = msgspec.json.decode(open_sealed(key, one["_id"], bytes(one["sealed"])))
        yield {
            "resource": one["_id"],
            "patient": f"Patient/{one['patient']}",
            "deposited": one["since"].isoformat(),
            "withdrawn": one["at"].isoformat(),
            "by": one["by"],
            "said": said,
        }
