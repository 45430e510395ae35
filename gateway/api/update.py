"""PUT [base]/[type]/[id] and PUT [base]/[type]?… (https://hl7.org/fhir/R4/http.html#update)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import require_resource_body
from gateway.api.respond import respond
from gateway.api.visit import call_of, gateway_of, target_of, visitor
from gateway.exchange.perform import perform


async def update(request: Request) -> Response:
    """Replace a resource by a new version; with `If-Match`, only the version the client knows."""
    gateway = gateway_of(request)
    about, criteria = target_of(request)
    sent = require_resource_body(request)
    access = await visitor(request, about)
    call = call_of(request, "update", criteria=criteria, body=await request.body(), sent=sent)
    answer = await perform(gateway, access, call)
    return respond(gateway.settings.base_url, answer, call.prefer)
