"""The entries of the Bundle that answers a batch or transaction.

Knows: https://hl7.org/fhir/R4/bundle-definitions.html#Bundle.entry.response. Must not know: how a call was carried out, HTTP.
"""

import functools
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from gateway.exchange.call import READS, Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.fhir.dates import write_instant
from gateway.problem import Problem

RECEIPT = "urn:fhir-document-gateway:StructureDefinition/receipt"
_RECEIPTS: Mapping[str, Any] = {
    word: msgspec.Raw(msgspec.json.encode([{"url": RECEIPT, "valueCode": word}])) for word in ("created", "known", "corrected")
}
_written = functools.lru_cache(maxsize=256)(write_instant)  # what was stored together was so at one moment


def build_response(gateway: Gateway, call: Call, answer: Answer) -> dict[str, Any]:
    """The entry that answers a call."""
    response: dict[str, Any] = {"status": _status(answer.status)}
    entry: dict[str, Any] = {}
    if answer.receipt is not None:
        response["extension"] = _RECEIPTS[answer.receipt]
    if answer.location is not None:
        response["location"] = answer.location
    if answer.etag is not None:
        response["etag"] = answer.etag
    if answer.updated is not None:
        response["lastModified"] = _written(answer.updated)
    if (call.prefer == "OperationOutcome" or answer.warnings) and call.interaction not in READS:
        response["outcome"] = answer.outcome()
    if answer.body is not None and not call.bodiless and (call.interaction in READS or call.prefer == "representation"):
        if answer.id is not None:
            entry["fullUrl"] = f"{gateway.settings.base_url}/{answer.type}/{answer.id}"
        entry["resource"] = msgspec.Raw(answer.body)
    entry["response"] = response
    return entry


def placed(problem: Problem, call: Call) -> Problem:
    """The problem of an entry with its element named from the root of the Bundle; a parameter stands in its URL."""
    place = call.place
    if place is None or all((issue.expression or "").startswith("Bundle.entry[") for issue in problem.issues):
        return problem
    return problem.moved(f"{place}.request.url" if problem.issues[0].expression else place)


def build_failure(problem: Problem) -> dict[str, Any]:
    """The entry that answers a call which was refused."""
    return {"response": {"status": _status(problem.status), "outcome": problem.outcome()}}


@functools.cache
def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
