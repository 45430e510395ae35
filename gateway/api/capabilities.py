"""GET [base]/metadata (https://hl7.org/fhir/R4/http.html#capabilities): open to everybody, computed from the registry."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import require_answer_format, require_no_query
from gateway.api.respond import respond_body
from gateway.api.visit import gateway_of
from gateway.exchange.guidance import submission_guidance
from gateway.fhir.capability import build_capability_statement


async def capabilities(request: Request) -> Response:
    """What this service can do, as its registry says at this moment."""
    require_answer_format(request)
    require_no_query(request, ("mode", "full"))
    gateway = gateway_of(request)
    guidance = submission_guidance(gateway.limits, gateway.throttle.rate_of_kind("app"))
    uris = request.app.state.security_uris
    statement = build_capability_statement(gateway.registry, gateway.settings.base_url, uris, guidance)
    return respond_body(gateway.codec.encode(statement))
