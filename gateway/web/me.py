"""The page of whoever is logged in.

Knows: what stands on it. Must not know: how it is found out.
"""

from starlette.responses import Response

from gateway.web.visit import Visit


async def me(visit: Visit) -> Response:
    """GET /me."""
    if visit.session is None:
        return visit.redirect("/login")
    return visit.page("me.html")
