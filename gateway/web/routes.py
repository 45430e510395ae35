"""Every address of a page.

Knows: which path and method is which page. Must not know: what the pages show.
"""

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from gateway.web.authorize import authorize, choose_patient, decide, decision_page, patient_page
from gateway.web.federation import come_back, leave, noticed
from gateway.web.login import code, code_page, login, login_page, logout
from gateway.web.me import change, me, password_page, take_back
from gateway.web.pages import Pages
from gateway.web.services import services
from gateway.web.visit import sent, shown


async def style(request: Request) -> Response:
    """The stylesheet of every page."""
    pages: Pages = request.app.state.pages
    return pages.stylesheet()


ROUTES = (
    ("GET", "/assets/{name}.css", style),
    ("GET", "/oauth/authorize", shown(authorize)),
    ("POST", "/oauth/authorize", shown(authorize)),
    ("GET", "/oauth/authorize/continue", shown(decision_page)),
    ("POST", "/oauth/authorize/continue", sent(decide)),
    ("GET", "/oauth/authorize/patient", shown(patient_page)),
    ("POST", "/oauth/authorize/patient", sent(choose_patient)),
    ("GET", "/services", shown(services)),
    ("GET", "/login", shown(login_page)),
    ("POST", "/login", sent(login)),
    ("GET", "/login/code", shown(code_page)),
    ("POST", "/login/code", sent(code)),
    ("GET", "/login/with/{provider}", shown(leave)),
    ("GET", "/login/callback/{provider}", shown(come_back)),
    ("POST", "/login/logged-out/{provider}", noticed),
    ("POST", "/logout", sent(logout)),
    ("GET", "/me", shown(me)),
    ("POST", "/me/take-back", sent(take_back)),
    ("GET", "/me/password", shown(password_page)),
    ("POST", "/me/password", sent(change)),
)


def add_pages(app: FastAPI, pages: Pages) -> None:
    """Give the application its pages."""
    app.state.pages = pages
    for method, path, endpoint in ROUTES:
        app.add_route(path, endpoint, methods=[method])


def page_pattern(scope: Scope) -> str | None:
    """The address of a request as it may be logged, None where it is no page's."""
    return next((path for _, path, endpoint in ROUTES if endpoint is scope.get("endpoint")), None)
