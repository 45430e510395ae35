"""$docref: the documents of a patient, without a search having to be written.

Knows: https://hl7.org/fhir/uv/ipa/OperationDefinition-docref.html. It is a search for current documents, whose next pages are
those of a search. Nothing is made on demand here. Must not know: HTTP, MongoDB.
"""

from collections.abc import Mapping

import msgspec

from gateway.access.access import Access
from gateway.exchange.call import Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.operations.arguments import read_day
from gateway.exchange.read import Result
from gateway.exchange.search import search_type
from gateway.problem import Problem
from gateway.store.mongo import Session

_SEARCHED: Mapping[str, tuple[str, str]] = {
    "patient": ("patient", ""),
    "start": ("period", "ge"),
    "end": ("period", "le"),
    "type": ("type", ""),
    "_count": ("_count", ""),
}


async def docref(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """A searchset of current documents, empty for whoever is not here. Raises Problem naming a parameter that is wrong."""
    given = dict(call.parameters)
    if not given.get("patient"):
        raise Problem("required", "say whose documents: patient is needed", "patient", status=400)
    on_demand = given.pop("on-demand", "false")
    if on_demand not in ("true", "false"):
        raise Problem("value", "'on-demand' is true or false", "on-demand", status=400)
    pairs = [("status", "current")]
    for name, value in given.items():
        parameter, prefix = _SEARCHED[name]
        if prefix:
            read_day(name, value)
        pairs.append((parameter, prefix + value))
    if on_demand == "true":  # those alone, and there are none: what is current is not superseded
        pairs.append(("status", "superseded"))
    return await search_type(gateway, access, msgspec.structs.replace(call, parameters=tuple(pairs)), session)
