"""GET [base]/[type]?… and POST [base]/[type]/_search (https://hl7.org/fhir/R4/http.html#search)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import form_pairs, query_pairs
from gateway.api.respond import respond
from gateway.api.visit import call_of, gateway_of, visitor
from gateway.exchange.perform import perform
from gateway.exchange.search import record_named
from gateway.store.standing import About


async def search_type(request: Request) -> Response:
    """A page of the resources that match and that the caller may see."""
    return await search(request, "search-type")


async def search(request: Request, interaction: str) -> Response:
    """The searchset that the parameters in URL and form ask for."""
    gateway = gateway_of(request)
    parameters = query_pairs(request)
    # (Not `request.url`: what a client writes into Host would stand in the audit.)
    raw = f"{request.method} {request.scope['path']}?{request.scope['query_string'].decode('latin-1')}"
    if request.method == "POST":
        parameters += await form_pairs(request, gateway.limits.form_bytes)
        raw += "\n\n" + (await request.body()).decode()
    access = await visitor(request, About(patient=record_named(parameters)), parameters)
    answer = await perform(gateway, access, call_of(request, interaction, parameters=parameters, raw=raw))
    return respond(gateway.settings.base_url, answer)
