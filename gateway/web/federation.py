"""Logging in with an OpenID provider, and out of it again: what the browser is sent away with, and told when it is back.

Knows: the pages of it. Must not know: how an answer is checked, who is known here.
"""

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from gateway.exchange.accounts import Session, log_out
from gateway.exchange.federation import arrive, end_elsewhere, require_provider, send_away
from gateway.exchange.gateway import Gateway
from gateway.issuers.claims import Refused
from gateway.issuers.providers import Provider, origin_of
from gateway.outbound import Unreachable
from gateway.problem import Problem
from gateway.telemetry import log
from gateway.web.visit import Visit, onward

_MOST_BYTES = 32_768
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


async def noticed(request: Request) -> Response:
    """POST /login/logged-out/{provider}: a provider says that somebody has logged out there (OpenID Back-Channel Logout 1.0).

    No browser sends this: it has no cookie, and its answer is for a machine.
    """
    gateway: Gateway = request.app.state.gateway
    kept_by_nobody = {"cache-control": "no-store"}
    try:
        provider = require_provider(gateway, request.path_params["provider"])
        await end_elsewhere(gateway, provider, await _logout_token(request))
    except Unreachable:
        return Response(status_code=503, headers={**kept_by_nobody, "retry-after": "5"})
    except (Refused, Problem) as error:
        log("logout.refused", request_id=request.state.request_id, detail=str(error) if isinstance(error, Refused) else "form")
        status = error.status if isinstance(error, Problem) else 400
        return JSONResponse({"error": "invalid_request"}, status, kept_by_nobody)
    return Response(status_code=200, headers=kept_by_nobody)


async def _logout_token(request: Request) -> str:
    body = await request.body()
    if len(body) > _MOST_BYTES:
        raise Refused("length")
    try:
        found = [value for name, value in parse_qsl(body.decode("ascii"), max_num_fields=20) if name == "logout_token"]
    except ValueError:
        raise Refused("form") from None
    if len(found) != 1:
        raise Refused("logout_token")
    return found[0]


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
