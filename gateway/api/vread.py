"""GET [base]/[type]/[id]/_history/[version] (https://hl7.org/fhir/R4/http.html#vread)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.binary import fetch
from gateway.api.negotiate import query_pairs
from gateway.api.respond import respond
from gateway.api.visit import about_resource, call_of, gateway_of, visitor
from gateway.exchange.perform import perform


async def vread(request: Request) -> Response:
    """One version of a resource."""
    gateway = gateway_of(request)
    kind = gateway.registry.find(request.path_params["type"])
    if kind is not None and kind.is_raw:
        return await fetch(request, "vread")
    parameters = query_pairs(request)
    access = await visitor(request, about_resource(request))
    answer = await perform(gateway, access, call_of(request, "vread", parameters=parameters))
    return respond(gateway.settings.base_url, answer)
