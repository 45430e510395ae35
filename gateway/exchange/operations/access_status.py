"""$access-status: whether the caller has access to a patient's record, the first question of professionals' software.

Knows: how the patient is named, and what is answered. Must not know: HTTP, MongoDB, what gives access.

No access is one answer, whatever the reason: no relation of care, the patient's refusal, or no such patient.
"""

from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.access.record import Record
from gateway.exchange.addressed import find_addressed
from gateway.exchange.audit import existing, happened
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.read import Result
from gateway.exchange.standing import extend_to, whole
from gateway.fhir.dates import write_instant
from gateway.problem import Problem
from gateway.store.mongo import Session


async def access_status(gateway: Gateway, access: Access, call: Call, _session: Session = None) -> Result:
    """A Parameters with `status` (valid, expired, none); of a relation of care also `relation` and `until`.

    Raises Problem where neither an id nor an identifier says whom it is about.
    """
    patient = call.id
    if patient is None:
        token = dict(call.parameters).get("identifier")
        if token is None:
            raise Problem("required", "this parameter is required: identifier", "Parameters.parameter", status=400)
        patient = await find_addressed(gateway, token)
        access = await extend_to(gateway, access, [patient])
    elif call.parameters:
        raise Problem("invalid", "the address says already whom it is about", "Parameters.parameter")
    access = await whole(gateway, access, by_right=True)
    record = access.records.get(patient)
    body = msgspec.json.encode({"resourceType": "Parameters", "parameter": _said(access, record)})
    known = existing(access, [patient])
    return Answer(200, body), happened(access, call, [(patient if known else None, f"Patient/{patient}")])


def _said(access: Access, record: Record | None) -> list[dict[str, Any]]:
    status, relation = ("none", None) if record is None else access.standing_in(record)
    said: list[dict[str, Any]] = [{"name": "status", "valueCode": status}]
    if record is not None and status == "valid":
        said.append({"name": "patient", "valueReference": {"reference": f"Patient/{record.survivor or record.patient}"}})
    if relation is not None:
        said.append({"name": "relation", "valueCode": relation.code})
        said.append({"name": "until", "valueInstant": write_instant(relation.period.high)})
    return said
