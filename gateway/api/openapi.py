"""GET [base]/openapi.json: the OpenAPI description of this service, open to everybody, computed at start."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.negotiate import require_no_query


async def openapi(request: Request) -> Response:
    """Every address of every type, with its parameters, statuses and media types (https://spec.openapis.org/oas/v3.1.1)."""
    require_no_query(request)
    return Response(request.app.state.openapi, 200, media_type="application/json")
