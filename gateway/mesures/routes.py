"""Every address of the partner face.

Knows: which path and method is which flow of the API Mesures, and what of HTTP each takes. Must not know: what is said there.
"""

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from gateway.api.negotiate import origin_of, query_pairs, require_no_query, require_resource_body
from gateway.api.once import read_once
from gateway.api.respond import respond_body
from gateway.api.visit import gateway_of
from gateway.mesures.measures import Measures
from gateway.mesures.pairing import pair
from gateway.mesures.push import NO_BUNDLE, push
from gateway.mesures.search import search
from gateway.problem import Problem


async def send_measure(request: Request) -> Response:
    """POST /mesures: one Observation, with its Device."""
    require_no_query(request)
    gateway, measures = gateway_of(request), measures_of(request)
    pairing = await pair(request, "transaction", "Bundle")
    body = await request.body()
    if not body:
        raise Problem("invalid", NO_BUNDLE, "Bundle")
    if require_resource_body(request) == "xml":
        body = gateway.xml.read(body)
    answer, replayed = await push(gateway, measures, pairing, body, origin_of(request), read_once(request, body))
    response = respond_body(answer)
    if replayed:
        response.headers["idempotency-replayed"] = "true"
    return response


async def read_measures_of(request: Request) -> Response:
    """GET /mesures/Observation?…: all of a period, or the last one."""
    gateway, measures = gateway_of(request), measures_of(request)
    pairs = query_pairs(request)
    raw = f"GET {request.scope['path']}?{request.scope['query_string'].decode('latin-1')}"
    pairing = await pair(request, "search-type", "Observation")
    return respond_body(await search(gateway, measures, pairing, pairs, raw, origin_of(request)))


def measures_of(request: Request) -> Measures:
    """The measures, as `create_app` read them."""
    found: Measures = request.app.state.measures
    return found


ROUTES = (
    ("POST", "/mesures", send_measure),
    ("POST", "/mesures/", send_measure),
    ("GET", "/mesures/Observation", read_measures_of),
)


def add_mesures(app: FastAPI, measures: Measures) -> None:
    """Give the application the addresses of the face."""
    app.state.measures = measures
    for method, path, endpoint in ROUTES:
        app.add_route(path, endpoint, methods=[method])


def mesures_pattern(scope: Scope) -> str | None:
    """The address of a request as it may be logged, None where it is none of the face's."""
    return scope["path"] if scope.get("path") in [path for _, path, _ in ROUTES] else None
