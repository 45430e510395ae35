"""GET /livez and /readyz: for whoever restarts and routes. They say nothing about anybody."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.visit import gateway_of
from gateway.problem import Problem


async def live(_: Request) -> Response:
    """The process answers. Never asks the store: a store that is down is no reason to restart the gateway."""
    return JSONResponse({"status": "live"})


async def ready(request: Request) -> Response:
    """Requests can be answered: the store has a primary. 503 while it has none."""
    try:
        hello = await gateway_of(request).mongo.command({"hello": 1})
    except Problem:
        hello = {}
    is_ready = bool(hello.get("isWritablePrimary")) or hello.get("msg") == "isdbgrid"
    return JSONResponse({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)
