"""$meta: what is said of a resource, without the resource.

Knows: https://hl7.org/fhir/R4/resource-operation-meta.html. Labels change only by the interactions that check them: there is
no $meta-add and no $meta-delete. Must not know: HTTP, MongoDB.
"""

import msgspec

from gateway.access.access import Access
from gateway.exchange.call import Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.read import Result, read
from gateway.store.mongo import Session


class _Stored(msgspec.Struct):
    meta: msgspec.Raw


async def meta(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """Version, time, profiles and labels of the current version, to whoever may read it."""
    answer, events = await read(gateway, access, call, session)
    if answer.body is None:  # the client has it
        return answer, events
    found = msgspec.json.decode(answer.body, type=_Stored).meta
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "return", "valueMeta": found}]}
    return msgspec.structs.replace(answer, body=msgspec.json.encode(parameters)), events
