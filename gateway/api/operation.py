"""GET and POST [base]/$name, [base]/[type]/$name and [base]/[type]/[id]/$name: every $operation of `schemas/operations`.

What each of them does is in `exchange/operations`; over HTTP they are all alike (https://hl7.org/fhir/R4/operations.html).
"""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import query_pairs, require_resource_body
from gateway.api.once import read_once
from gateway.api.respond import respond
from gateway.api.table import choose_table, respond_table
from gateway.api.visit import about_resource, call_of, gateway_of, visitor
from gateway.exchange.operations.arguments import read_arguments
from gateway.exchange.perform import find_operation, perform
from gateway.problem import Problem
from gateway.store.standing import About


async def operation(request: Request) -> Response:
    """Carry out an operation, where it is offered."""
    gateway = gateway_of(request)
    # (What gives no resource is told in a format of its own; refusals are in one of ours.)
    offered = gateway.registry.operations.get(request.path_params["operation"])
    as_resource = (("_format", "json"),) if offered is not None and offered.gives else None
    access = await visitor(request, _about(request), as_resource)
    call = call_of(request, f"${request.path_params['operation']}")
    found = find_operation(gateway, call)
    if found is None:
        raise Problem("not-supported", "there is no such operation here", status=404)
    if request.method.replace("HEAD", "GET") not in found.methods:
        methods = ", ".join(found.methods).replace("GET", "GET, HEAD")
        raise Problem("not-supported", f"${found.code} is asked by {methods} here", headers={"Allow": methods})
    body = await request.body()
    if body and require_resource_body(request) == "xml":
        body = gateway.xml.read(body)
    calm = gateway.codec.check_body(body)
    parameters, resource = read_arguments(gateway, found, query_pairs(request), body)
    said = calm if resource is body else None
    call = call_of(request, found.interaction, parameters=parameters, body=resource, calm=said)
    once = read_once(request, body) if found.entries else None
    media_type = choose_table(request) if found.gives else None
    answer = await perform(gateway, access, call, once)
    request.state.refusals = answer.refusals  # `Edge` counts them
    if media_type is not None:
        return await respond_table(request, answer.content, media_type)
    response = respond(gateway.settings.base_url, answer)
    if found.entries:
        response.headers.update(gateway.throttle.headers(access.caller, access.now))
    return response


def _about(request: Request) -> About:
    """What an operation is about. (Of a Patient it is the record, whether there is one or not.)"""
    if "id" not in request.path_params:
        return About()
    about = about_resource(request)
    is_patient = about.resource is not None and about.resource[0] == "Patient"
    return About(patient=request.path_params["id"]) if is_patient else about
