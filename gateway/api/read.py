"""GET [base]/[type]/[id] (https://hl7.org/fhir/R4/http.html#read)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.binary import fetch
from gateway.api.negotiate import query_pairs
from gateway.api.respond import respond
from gateway.api.visit import about_resource, call_of, gateway_of, visitor
from gateway.exchange.perform import perform


async def read(request: Request) -> Response:
    """The current version of a resource; 304 where the client has it."""
    gateway = gateway_of(request)
    kind = gateway.registry.find(request.path_params["type"])
    if kind is not None and kind.is_raw:
        return await fetch(request, "read")
    parameters = query_pairs(request)
    access = await visitor(request, about_resource(request))
    answer = await perform(gateway, access, call_of(request, "read", parameters=parameters))
    return respond(gateway.settings.base_url, answer)
