"""Logging in with an OpenID provider, and out of it again: what the browser is sent away with, and told when it is back.

Knows: the pages of it. Must not know: how an answer is checked, who is known here.
"""

from starlette.responses import RedirectResponse, Response

from gateway.exchange.accounts import Session, log_out
from gateway.exchange.federation import arrive, require_provider, send_away
from gateway.issuers.providers import Provider, origin_of
from gateway.problem import Problem
from gateway.web.visit import Visit, onward

_STATUS = {"again": 400, "cancelled": 403, "unknown": 403, "unreachable": 503}


async def leave(visit: Visit) -> Response:
    """GET /login/with/{provider}: on to the provider. A link may lead here: whoever follows it logs in as themselves."""
    provider = require_provider(visit.gateway, visit.request.path_params["provider"])
    afresh = "again" in visit.request.query_params  # who asked us wants to see them log in now
    away = await send_away(visit.gateway, provider, visit.cookie, visit.query, visit.language, afresh=afresh)
    response = RedirectResponse(away, 303)
    visit.set_cookie(response, visit.cookie)  # by which the answer is known to be this browser's
    return response


async def come_back(visit: Visit) -> Response:
    """GET /login/callback/{provider}: where a provider sends people back to."""
    provider = require_provider(visit.gateway, visit.request.path_params["provider"])
    pairs = visit.request.query_params.multi_items()
    answer = dict(pairs)
    if len(answer) != len(pairs):
        raise Problem("invalid", "a parameter stands twice")
    arrival = await arrive(visit.gateway, provider, visit.cookie, answer, visit.origin)
    if arrival.outcome == "done":
        if visit.session is not None:
            await log_out(visit.gateway, visit.session)
        return visit.redirect(onward(arrival.query), arrival.cookie)
    title = provider.title(visit.language)
    response = visit.page(
        "message.html",
        status=_STATUS[arrival.outcome],
        title=visit.say("federation.title", provider=title),
        text=visit.say(f"federation.{arrival.outcome}", provider=title),
        back=f"/login{arrival.query}",
    )
    if arrival.outcome == "unreachable":
        response.headers["Retry-After"] = "5"
    return response


def logged_out(visit: Visit, session: Session) -> Response | None:
    """The page of whoever has logged out here, and may also do so where they logged in; None where that is not offered.

    What the provider is shown goes in a form, never in an address.
    """
    provider: Provider | None = visit.gateway.providers.find(session.provider or "")
    if provider is None or not provider.endpoints.end_session or not session.hint:
        return None
    hint = visit.gateway.sealer.open(session.hint, session.account)
    fields = {
        "id_token_hint": hint.decode(),
        "client_id": provider.client,
        "post_logout_redirect_uri": f"{visit.gateway.settings.site}/login",
        "ui_locales": visit.language,
    }
    return visit.page(
        "logged_out.html",
        to=(origin_of(provider.endpoints.end_session),),
        session=None,
        provider=provider.title(visit.language),
        end_session=provider.endpoints.end_session,
        fields=fields,
    )
