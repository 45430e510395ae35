"""GET [base]/[type]/[id]/_history (https://hl7.org/fhir/R4/http.html#history)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import query_pairs
from gateway.api.respond import respond
from gateway.api.visit import about_resource, call_of, gateway_of, visitor
from gateway.exchange.perform import perform


async def history_instance(request: Request) -> Response:
    """Every version of a resource, newest first."""
    gateway = gateway_of(request)
    parameters = query_pairs(request)
    access = await visitor(request, about_resource(request))
    answer = await perform(gateway, access, call_of(request, "history-instance", parameters=parameters))
    return respond(gateway.settings.base_url, answer)
