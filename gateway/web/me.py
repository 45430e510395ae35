"""The page of whoever is logged in: which clients may do what for them, and taking it back.

Knows: what stands on it. Must not know: how it is found out, what taking back does.
"""

from collections.abc import Mapping

from starlette.responses import Response

from gateway.exchange.accounts import Session, change_password
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
    asked = visit.request.query_params
    return visit.page("me.html", standings=standings, taken_back="taken_back" in asked, changed="changed" in asked)


async def password_page(visit: Visit) -> Response:
    """GET /me/password."""
    _require_account(visit)
    return visit.page("password.html")


async def change(visit: Visit, fields: Mapping[str, list[str]]) -> Response:
    """POST /me/password: another password; whoever else is logged in as this person is not any more."""
    session = _require_account(visit)
    present, new = (fields.get(name, [""])[0] for name in ("present", "new"))
    try:
        cookie = await change_password(visit.gateway, session, present, new, visit.origin)
    except Problem as problem:
        if problem.code not in ("login", "invalid"):
            raise
        wrong = "present" if problem.code == "login" else "new"
        return visit.page("password.html", status=400, errors={wrong: visit.say(f"password.wrong_{wrong}")})
    return visit.redirect("/me?changed=1", cookie)


def _require_account(visit: Visit) -> Session:
    """The session of somebody with a password of ours. Raises Problem of anybody else's."""
    if visit.session is None or visit.session.provider is not None:
        raise Problem("not-found", "nobody with a password of this gateway is logged in")
    return visit.session


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
