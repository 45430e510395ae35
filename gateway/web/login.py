"""Logging in with an account of this gateway, and out again.

Knows: the pages of it, and that a browser gets another cookie when it becomes somebody else's.
Must not know: how accounts are checked and kept.
"""

from collections.abc import Mapping
from types import MappingProxyType

from starlette.responses import Response

from gateway.exchange.accounts import log_in, log_out, show_code
from gateway.exchange.approval import is_by_consent
from gateway.exchange.authorization import read_authorization
from gateway.problem import Problem
from gateway.web.federation import logged_out
from gateway.web.visit import Visit, onward

Fields = Mapping[str, list[str]]
NO_ERRORS: Mapping[str, str] = MappingProxyType({})


async def login_page(visit: Visit) -> Response:
    """GET /login: with an account of ours, or with any of the providers."""
    if not visit.gateway.providers:
        _require_local(visit)
    if visit.session is not None and "again" not in visit.request.query_params:
        return visit.redirect(onward(visit.query))
    return await _show(visit)


async def login(visit: Visit, fields: Fields) -> Response:
    """POST /login."""
    _require_local(visit)
    name, password = (fields.get(key, [""])[0] for key in ("login", "password"))
    missing = {key: visit.say(f"login.missing_{key}") for key, value in (("login", name), ("password", password)) if not value}
    if missing:
        return await _show(visit, 400, name, missing)
    visit.count_attempt()
    try:
        cookie = await log_in(visit.gateway, name, password, visit.origin)
    except Problem as problem:
        if problem.code != "login":
            raise
        return await _show(visit, 401, name, {"login": visit.say("login.refused")})
    visit.forgive_attempt()
    return visit.redirect(f"/login/code{visit.query}", cookie)


async def code_page(visit: Visit) -> Response:
    """GET /login/code: asks for a one-time code where the account has a second factor."""
    if visit.unfinished is None:
        return visit.redirect(onward(visit.query) if visit.session else f"/login{visit.query}")
    return visit.page("code.html")


async def code(visit: Visit, fields: Fields) -> Response:
    """POST /login/code."""
    if visit.unfinished is None:
        return visit.redirect(f"/login{visit.query}")
    visit.count_attempt()
    try:
        cookie = await show_code(visit.gateway, visit.unfinished, fields.get("code", [""])[0], visit.origin)
    except Problem as problem:
        if problem.code != "login":
            raise
        return visit.page("code.html", status=401, errors={"code": visit.say("code.refused")})
    visit.forgive_attempt()
    return visit.redirect(onward(visit.query), cookie)


async def logout(visit: Visit, _: Fields) -> Response:
    """POST /logout."""
    response = visit.redirect("/login")
    if visit.session is not None:
        await log_out(visit.gateway, visit.session)
        response = logged_out(visit, visit.session) or response
    visit.set_cookie(response, "")
    return response


async def _show(visit: Visit, status: int = 200, name: str = "", errors: Mapping[str, str] = NO_ERRORS) -> Response:
    """The form, with who has sent the person here."""
    authorization = await read_authorization(visit.gateway, visit.handle) if visit.handle else None
    client = authorization.entry.client if authorization is not None else None
    return visit.page(
        "login.html",
        status=status,
        login=name,
        errors=errors,
        asker=client.name if client is not None else None,
        is_for_record=client is not None and is_by_consent(client),
        providers=list(visit.gateway.providers),
        is_local=visit.gateway.settings.has_local_login,
        query=visit.query,
    )


def _require_local(visit: Visit) -> None:
    if not visit.gateway.settings.has_local_login:
        raise Problem("not-found", "local accounts do not log in here (GATEWAY_LOCAL_LOGIN)")
