"""DELETE [base]/[type]/[id] (https://hl7.org/fhir/R4/http.html#delete)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import require_no_query
from gateway.api.respond import respond
from gateway.api.visit import about_resource, call_of, gateway_of, visitor
from gateway.exchange.perform import perform


async def delete(request: Request) -> Response:
    """Delete a resource logically: its former versions stay, its business identifier stays taken."""
    gateway = gateway_of(request)
    require_no_query(request)
    access = await visitor(request, about_resource(request))
    call = call_of(request, "delete")
    answer = await perform(gateway, access, call)
    return respond(gateway.settings.base_url, answer, call.prefer)
