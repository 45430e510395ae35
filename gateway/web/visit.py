"""What every page does first and last: who visits, in which language, what their form says.

Knows: the cookie of a session, the token that each form carries, how a Problem is told to a person. Nothing a form says is
looked at before it is known to be one of ours.
Must not know: single pages.
"""

import functools
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.exchange.accounts import Session, find_session
from gateway.exchange.call import Origin
from gateway.exchange.gateway import Gateway
from gateway.problem import Problem, as_problem
from gateway.telemetry import log
from gateway.web.pages import Pages
from gateway.web.texts import Texts, choose_language

_MOST_BYTES, _MOST_FIELDS = 65_536, 500
_LONGEST_COOKIE = 128


class Visit:
    """One request of a browser."""

    def __init__(self, request: Request, cookie: str, session: Session | None) -> None:
        self.request = request
        self.gateway: Gateway = request.app.state.gateway
        self.pages: Pages = request.app.state.pages
        self.cookie = cookie
        self.session = session if session is not None and session.is_complete else None
        self.unfinished = session if session is not None and not session.is_complete else None
        self.language = choose_language(
            self.pages.texts, request.query_params.get("ui_locales", "")[:200], request.headers.get("accept-language", "")
        )
        self.origin = Origin(request.state.request_id, request.client.host if request.client else None)

    @property
    def texts(self) -> Texts:
        """What the pages say in the language of this visit."""
        return self.pages.texts[self.language]

    def say(self, key: str, **values: str) -> str:
        """A text in the language of this visit."""
        text = self.texts[key]
        return text.format(**values) if values else text

    def page(self, template: str, *, status: int = 200, to: tuple[str, ...] = (), **context: Any) -> Response:
        """A page for this visitor. `to`: where else its forms may lead."""
        known = {
            "here": self.path,
            "session": self.session,
            "form_token": self.pages.form_token(self.cookie),
            "errors": {},
            "in_language": self.in_language,
            **context,
        }
        response = self.pages.render(template, self.language, known, status=status, to=to)
        if self.cookie != self.request.cookies.get(cookie_name(self.pages)):
            self.set_cookie(response, self.cookie)
        return response

    def text(self, template: str, context: Mapping[str, Any]) -> str:
        """A text of several lines in the language of this visit."""
        return self.pages.text(template, self.language, context)

    @property
    def who(self) -> str | None:
        """By what this visitor is counted: their account or, as long as nobody has logged in, their address."""
        return self.session.account if self.session is not None else self.origin.address

    @property
    def handle(self) -> str:
        """What stands for the request that a client has sent this person with; empty where they came by themselves."""
        return self.request.query_params.get("request", "")

    @property
    def query(self) -> str:
        """The query of this page's address, with its question mark; empty where there is none."""
        query = self.request.url.query
        return f"?{query}" if query else ""

    @property
    def path(self) -> str:
        """The address of this page."""
        return self.pages.root + self.request.url.path + self.query

    def in_language(self, language: str) -> str:
        """The address of this page in another language."""
        others = [pair for pair in self.request.query_params.multi_items() if pair[0] != "ui_locales"]
        return f"{self.pages.root}{self.request.url.path}?{urlencode([*others, ('ui_locales', language)])}"

    def redirect(self, path: str, cookie: str | None = None) -> Response:
        """On to another page of this site. `cookie`: of the session that begins."""
        response = RedirectResponse(self.pages.root + path, 303)
        if cookie is not None:
            self.set_cookie(response, cookie)
        return response

    def count_attempt(self) -> None:
        """Count an attempt to log in from this address, whoever it is for. Raises Problem 429."""
        self.gateway.throttle.admit_visitor("logins", self.origin.address, self.gateway.clock())

    def forgive_attempt(self) -> None:
        """It succeeded."""
        self.gateway.throttle.forgive("logins", self.origin.address, self.gateway.clock())

    def set_cookie(self, response: Response, cookie: str) -> None:
        """Give the browser a cookie that no script and no other site gets hold of, until it is closed."""
        response.set_cookie(
            cookie_name(self.pages), cookie, path="/", secure=self.pages.is_secure, httponly=True, samesite="lax"
        )


Page = Callable[[Visit], Awaitable[Response]]
FormPage = Callable[[Visit, Mapping[str, list[str]]], Awaitable[Response]]


def shown(page: Page) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a page that is looked at."""

    @functools.wraps(page)
    async def endpoint(request: Request) -> Response:
        return await _told(request, page)

    return endpoint


def sent(page: FormPage) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a form that is sent from one of these pages."""

    @functools.wraps(page)
    async def endpoint(request: Request) -> Response:
        async def read(visit: Visit) -> Response:
            return await page(visit, await _read_form(visit))

        return await _told(request, read)

    return endpoint


def onward(query: str) -> str:
    """Where somebody whose login page had this query wanted to go: back to decide on a request, or to their own page."""
    kept = [pair for pair in parse_qsl(query.removeprefix("?"), keep_blank_values=True) if pair[0] in ("request", "ui_locales")]
    path = "/oauth/authorize/continue" if any(name == "request" and value for name, value in kept) else "/me"
    return f"{path}{'?' if kept else ''}{urlencode(kept)}"


def cookie_name(pages: Pages) -> str:
    """The name of the cookie; with the prefix, browsers take it from this host alone (which they do over TLS only)."""
    return "__Host-session" if pages.is_secure else "session"


async def _told(request: Request, page: Page) -> Response:
    """The page; where it cannot be had, a page that says why."""
    pages: Pages = request.app.state.pages
    visit = Visit(request, _new_cookie(), None)
    try:
        cookie = request.cookies.get(cookie_name(pages), "")[:_LONGEST_COOKIE]
        if cookie:
            visit = Visit(request, cookie, await find_session(request.app.state.gateway, cookie))
        visit.gateway.throttle.admit_visitor("pages", visit.who, visit.gateway.clock())
        return await page(visit)
    except Exception as error:  # noqa: BLE001 (whatever it is, a person is told in a page)
        problem = as_problem(error, request.state.request_id)
        if problem.status >= 500:
            log("request.failed", level=logging.ERROR, error=error, request_id=request.state.request_id)
        key = f"problem.{problem.status}"
        text = visit.say(key if key in pages.texts[visit.language] else "problem.other")
        response = visit.page(
            "message.html", status=problem.status, title=visit.say("problem.title"), text=text, problem=problem
        )
        response.headers.update({name: value for name, value in problem.headers.items() if name == "Retry-After"})
        return response


async def _read_form(visit: Visit) -> Mapping[str, list[str]]:
    """The fields of a form of ours. Raises Problem 403 where the form is not one that this browser was shown."""
    request = visit.request
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Problem("not-supported", "a form is sent as application/x-www-form-urlencoded", status=415)
    body = await request.body()
    if len(body) > _MOST_BYTES:
        raise Problem("too-long", f"a form has at most {_MOST_BYTES} bytes here")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Problem("invalid", "the form is not percent-encoded UTF-8, or has too many fields") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    token = fields.pop("form_token", [""])[0]
    is_ours = request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    if not is_ours or not visit.pages.is_form_token(visit.cookie, token):
        raise Problem("forbidden", "the form was not sent from the page that it stands on")
    return fields


def _new_cookie() -> str:
    return secrets.token_urlsafe(32)
