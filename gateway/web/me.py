"""The page of whoever is logged in: which clients may do what for them, and taking it back.

Knows: what stands on it. Must not know: how it is found out, what taking back does.
"""

from collections.abc import Mapping

from starlette.responses import Response

from gateway.exchange.persons import find_roles
from gateway.exchange.withdrawal import find_standings, withdraw
from gateway.problem import Problem
from gateway.web.visit import Visit


async def me(visit: Visit) -> Response:
    """GET /me."""
    if visit.session is None:
        return visit.redirect("/login")
    roles = await find_roles(visit.gateway, visit.session.references)
    standings = [(role, await find_standings(visit.gateway, role)) for role in roles]
    return visit.page("me.html", standings=standings, taken_back="taken_back" in visit.request.query_params)


async def take_back(visit: Visit, fields: Mapping[str, list[str]]) -> Response:
    """POST /me/take-back: from then on, a client may do nothing more for this person."""
    if visit.session is None:
        return visit.redirect("/login")
    roles = await find_roles(visit.gateway, visit.session.references)
    role = next((role for role in roles if [role.reference] == fields.get("role")), None)
    if role is None:
        raise Problem("not-found", "this is not somebody whom this person is")
    await withdraw(visit.gateway, visit.session, role, fields.get("client", [""])[0], visit.origin)
    return visit.redirect("/me?taken_back=1")
