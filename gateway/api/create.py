"""POST [base]/[type] (https://hl7.org/fhir/R4/http.html#create)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.binary import deposit, deposit_long, is_fhir, is_long
from gateway.api.negotiate import require_no_query, require_resource_body
from gateway.api.once import read_once
from gateway.api.respond import respond
from gateway.api.visit import call_of, gateway_of, visitor
from gateway.exchange.owners import preview
from gateway.exchange.perform import perform
from gateway.store.standing import About


async def create(request: Request) -> Response:
    """Create a resource, or answer with the one that is there already (by `If-None-Exist` or business identifier)."""
    gateway = gateway_of(request)
    kind = gateway.registry.find(request.path_params["type"])
    if kind is not None and kind.is_raw:
        sent_as = request.headers.get("content-type", "")
        if not is_fhir(sent_as):
            return await deposit(request)
        if is_long(sent_as, dict(request.scope["headers"]), gateway.limits.body_bytes):
            return await deposit_long(request)
    require_no_query(request)
    sent = require_resource_body(request)
    body = await request.body()
    about, identity = preview(gateway, kind, body) if kind is not None and sent == "json" else (About(), None)
    access = await visitor(request, about)
    once = read_once(request, body)
    call = call_of(request, "create", body=body, sent=sent, identity=identity)
    answer = await perform(gateway, access, call, once)
    return respond(gateway.settings.base_url, answer, call.prefer)
