"""DELETE [base]/[type]/[id] and DELETE [base]/[type]?… (https://hl7.org/fhir/R4/http.html#delete)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.respond import respond
from gateway.api.visit import call_of, gateway_of, target_of, visitor
from gateway.exchange.perform import perform


async def delete(request: Request) -> Response:
    """Delete a resource logically: its former versions stay, its business identifier stays taken."""
    gateway = gateway_of(request)
    about, criteria = target_of(request)
    access = await visitor(request, about)
    call = call_of(request, "delete", criteria=criteria)
    answer = await perform(gateway, access, call)
    return respond(gateway.settings.base_url, answer, call.prefer)
