"""Every address of the FHIR service.

Knows: which path and method is which interaction. One route serves every type: what a type does not offer, its registry entry
refuses. Must not know: what the endpoints do.
"""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from gateway.api.capabilities import capabilities
from gateway.api.create import create
from gateway.api.delete import delete
from gateway.api.health import live, ready
from gateway.api.history_instance import history_instance
from gateway.api.history_system import history_system
from gateway.api.history_type import history_type
from gateway.api.openapi import openapi
from gateway.api.operation import operation
from gateway.api.patch import patch
from gateway.api.read import read
from gateway.api.respond import respond_problem
from gateway.api.search_system import search_system
from gateway.api.search_type import search_type
from gateway.api.transaction import transaction
from gateway.api.update import update
from gateway.api.vread import vread
from gateway.fhir.registry import Registry
from gateway.problem import Problem

Endpoint = Callable[[Request], Awaitable[Response]]

# They are tried in this order: before what they could be taken for, and otherwise those that are asked most come first.
ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("POST", "/fhir/_search", search_system),
    ("POST", "/fhir/${operation}", operation),
    ("POST", "/fhir/{type}", create),
    ("GET", "/fhir/metadata", capabilities),
    ("GET", "/fhir/openapi.json", openapi),
    ("GET", "/fhir/_history", history_system),
    ("GET", "/fhir/{type}", search_type),
    ("GET", "/fhir/{type}/${operation}", operation),
    ("GET", "/fhir/{type}/_history", history_type),
    ("GET", "/fhir/{type}/{id}", read),
    ("POST", "/fhir", transaction),
    ("POST", "/fhir/", transaction),
    ("POST", "/fhir/{type}/_search", search_type),
    ("POST", "/fhir/{type}/${operation}", operation),
    ("PUT", "/fhir/{type}/{id}", update),
    ("PATCH", "/fhir/{type}/{id}", patch),
    ("DELETE", "/fhir/{type}/{id}", delete),
    ("GET", "/fhir/{type}/{id}/_history", history_instance),
    ("GET", "/fhir/{type}/{id}/_history/{version}", vread),
    ("GET", "/fhir/{type}/{id}/${operation}", operation),
    ("POST", "/fhir/{type}/{id}/${operation}", operation),
    ("PUT", "/fhir/{type}", update),
    ("PATCH", "/fhir/{type}", patch),
    ("DELETE", "/fhir/{type}", delete),
    ("GET", "/fhir", search_system),
    ("GET", "/fhir/", search_system),
    ("GET", "/livez", live),
    ("GET", "/readyz", ready),
)


def add_routes(app: FastAPI) -> None:
    """Give the application its addresses, and OperationOutcomes for those it does not have."""
    for method, path, endpoint in ROUTES:
        app.add_route(path, endpoint, methods=[method])
    app.add_exception_handler(HTTPException, _no_such_address)


def route_pattern(registry: Registry, scope: Scope) -> str:
    """The address of a request as it may be logged: the type if it is a served one, never an id."""
    endpoint, depth = scope.get("endpoint"), str(scope.get("path", "")).count("/")
    patterns = [path for _, path, known in ROUTES if known is endpoint and path.count("/") == depth]
    pattern = scope["path"] if scope.get("path") in patterns else next(iter(patterns), "unknown")
    named = scope.get("path_params", {})
    for name, known in (("type", registry.resource_types), ("operation", registry.operations)):
        if named.get(name) in known:
            pattern = pattern.replace(f"{{{name}}}", named[name])
    return pattern


async def _no_such_address(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not-found", 405: "not-supported"}.get(status, "invalid")
    headers = {"Allow": ", ".join(sorted(_methods_at(request)))} if status == 405 else None
    return respond_problem(Problem(code, "there is no such interaction here", status=status, headers=headers))


def _methods_at(request: Request) -> set[str]:
    """What can be asked of this address by another method."""
    there = [
        route for route in request.app.routes if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE
    ]
    return {method for route in there for method in route.methods or ()}
