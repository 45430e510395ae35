"""$lookup: addressing a patient by one exact identifier, without reading anything of them.

Knows: who may be told that there is such a patient: who could deposit in the record. Must not know: HTTP, MongoDB.

It tells that somebody is known here, which nothing else does; so it is a right of its own, every question is in the audit (of
the patient, where one was found), and a client that asks for many who are not here stands in the log with their number.
"""

import logging

import msgspec

from gateway.access.access import Access
from gateway.exchange.addressed import find_addressed
from gateway.exchange.audit import existing, happened
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.read import Result
from gateway.exchange.standing import extend_to, whole
from gateway.problem import Problem
from gateway.store.mongo import Session
from gateway.telemetry import log


async def lookup(gateway: Gateway, access: Access, call: Call, _session: Session = None) -> Result:
    """Id and active of the patient with this identifier. Raises Problem 404 for whom the caller could not deposit either."""
    token = dict(call.parameters).get("identifier")
    if token is None:
        raise Problem("required", "this parameter is required: identifier", "Parameters.parameter")
    patient = await find_addressed(gateway, token)
    access = await whole(gateway, await extend_to(gateway, access, [patient]))
    if not existing(access, [patient]) or not _could_deposit(gateway, access, patient):
        missed = gateway.misses.count(access.caller.client, access.now)
        log("lookup.missed", level=logging.WARNING, client=access.caller.client, count=missed)
        problem = Problem("not-found", "there is no patient with this identifier here to whom anything can be deposited")
        raise problem.about(existing(access, [patient]))
    record = access.records[patient]
    found = [
        {"name": "patient", "valueReference": {"reference": f"Patient/{patient}"}},
        {"name": "active", "valueBoolean": not record.closed},
    ]
    body = msgspec.json.encode({"resourceType": "Parameters", "parameter": found})
    return Answer(200, body), happened(access, call, [(patient, f"Patient/{patient}")])


def _could_deposit(gateway: Gateway, access: Access, patient: str) -> bool:
    """Whether there is anything that the caller may create in this record, or who keeps identities asks."""
    owned = (kind for kind in gateway.registry.resource_types.values() if kind.in_compartment and "create" in kind.interactions)
    return any(access.reaches(kind, "create", patient) for kind in owned)
