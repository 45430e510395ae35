"""PATCH [base]/[type]/[id] and PATCH [base]/[type]?… (https://hl7.org/fhir/R4/http.html#patch)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import patch_language
from gateway.api.once import read_once
from gateway.api.respond import respond
from gateway.api.visit import call_of, gateway_of, target_of, visitor
from gateway.exchange.perform import perform


async def patch(request: Request) -> Response:
    """Change parts of a resource, by JSON Patch or FHIRPath Patch; what comes out is checked as an update is."""
    gateway = gateway_of(request)
    about, criteria = target_of(request)
    language, sent = patch_language(request)
    access = await visitor(request, about)
    body = await request.body()
    once = read_once(request, body)
    call = call_of(request, "patch", criteria=criteria, body=body, sent=sent, patch=language)
    answer = await perform(gateway, access, call, once)
    return respond(gateway.settings.base_url, answer, call.prefer)
