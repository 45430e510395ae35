"""POST [base] with a Bundle: batch and transaction (https://hl7.org/fhir/R4/http.html#transaction)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import origin_of, read_preferences, require_no_query, require_resource_body
from gateway.api.once import read_once
from gateway.api.respond import respond
from gateway.api.visit import gateway_of, visitor
from gateway.exchange.bundle import process_bundle
from gateway.store.standing import About


async def transaction(request: Request) -> Response:
    """Carry out every entry: as a whole for a transaction, each on its own for a batch."""
    gateway = gateway_of(request)
    require_no_query(request)
    sent = require_resource_body(request)
    access = await visitor(request, About())
    body = await request.body()
    prefer, is_lenient = read_preferences(request)
    answer = await process_bundle(
        gateway,
        access,
        body,
        origin_of(request),
        sent=sent,
        prefer=prefer,
        lenient=is_lenient,
        once=read_once(request, body),
    )
    request.state.refusals = answer.refusals  # `Edge` counts them
    return respond(gateway.settings.base_url, answer)
