"""PUT [base]/[type]/[id] and PUT [base]/[type]?… (https://hl7.org/fhir/R4/http.html#update)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import require_json_body
from gateway.api.respond import respond
from gateway.api.visit import call_of, gateway_of, target_of, visitor
from gateway.exchange.perform import perform


async def update(request: Request) -> Response:
    """Replace a resource by a new version; with `If-Match`, only the version the client knows."""
    gateway = gateway_of(request)
    about, criteria = target_of(request)
    require_json_body(request)
    access = await visitor(request, about)
    body = await request.body()
    call = call_of(request, "update", criteria=criteria, body=body, calm=gateway.codec.check_body(body))
    answer = await perform(gateway, access, call)
    return respond(gateway.settings.base_url, answer, call.prefer)
