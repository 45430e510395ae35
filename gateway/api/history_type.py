"""GET [base]/[type]/_history (https://hl7.org/fhir/R4/http.html#history)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import query_pairs
from gateway.api.respond import respond
from gateway.api.visit import call_of, gateway_of, visitor
from gateway.exchange.perform import perform
from gateway.store.standing import About


async def history_type(request: Request) -> Response:
    """Every version of every resource of a type, newest first."""
    return await history(request, "history-type")


async def history(request: Request, interaction: str) -> Response:
    """The history of more than one resource that the parameters ask for."""
    gateway = gateway_of(request)
    parameters = query_pairs(request)
    access = await visitor(request, About())
    answer = await perform(gateway, access, call_of(request, interaction, parameters=parameters))
    return respond(gateway.settings.base_url, answer)
