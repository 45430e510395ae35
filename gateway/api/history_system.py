"""GET [base]/_history (https://hl7.org/fhir/R4/http.html#history)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.history_type import history


async def history_system(request: Request) -> Response:
    """Every version of every resource of the types that keep such a history, newest first."""
    return await history(request, "history-system")
