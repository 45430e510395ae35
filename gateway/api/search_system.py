"""GET [base]?_type=… and POST [base]/_search (https://hl7.org/fhir/R4/http.html#search)."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.search_type import search


async def search_system(request: Request) -> Response:
    """A page of the resources of several types that match and that the caller may see."""
    return await search(request, "search-system")
