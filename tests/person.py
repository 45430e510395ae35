"""A person before a browser without JavaScript: opens pages, fills in their forms, follows where they lead.

Knows: HTML forms and cookies. Must not know: what the pages ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx


@dataclass
class Form:
    """A form with its fields as they would be sent."""

    action: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    choices: list[tuple[str, str]] = field(default_factory=list)  # of boxes that can be ticked
    buttons: list[tuple[str, str]] = field(default_factory=list)


class Page(HTMLParser):
    """What a page offers."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.answer = answer
        self.forms: list[Form] = []
        self.text = ""
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(answer.text)

    @property
    def status(self) -> int:
        return self.answer.status_code

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.tags.append((tag, found))
        if tag == "form":
            self.forms.append(Form(urljoin(str(self.answer.url), found.get("action", ""))))
        pair = (found.get("name", ""), found.get("value", "on"))
        if tag == "button" and found.get("name"):
            self.forms[-1].buttons.append(pair)
        if tag == "input" and found.get("type") in ("checkbox", "radio"):
            (self.forms[-1].fields if "checked" in found else self.forms[-1].choices).append(pair)
        elif tag == "input":
            self.forms[-1].fields.append((found.get("name", ""), found.get("value", "")))

    def handle_data(self, data: str) -> None:
        self.text += data

    def form(self, path: str) -> Form:
        """The one form that leads to this path."""
        [found] = [form for form in self.forms if httpx.URL(form.action).path == path]
        return found


class Person:
    """Somebody with a browser. Redirects within the site are followed; one that leads elsewhere is `last`."""

    def __init__(self, http: httpx.AsyncClient, site: str, language: str = "en") -> None:
        self._http, self.site = http, site
        self.cookies: dict[str, str] = {}
        self.headers = {"Accept": "text/html", "Accept-Language": language}
        self.last: httpx.Response

    async def open(self, path: str) -> Page:
        """Open a page by its address."""
        return await self._go("GET", urljoin(self.site, path))

    async def send(self, form: Form, /, *, drop: tuple[str, ...] = (), **values: str | list[str]) -> Page:
        """Send a form with these values in place of, or besides, its own; `drop`: fields that are left out."""
        fields = [pair for pair in form.fields if pair[0] not in values and pair[0] not in drop]
        for name, value in values.items():
            fields += [(name, one) for one in ([value] if isinstance(value, str) else value)]
        return await self._go("POST", form.action, fields)

    async def log_in(self, login: str, password: str, path: str = "/login") -> Page:
        """Log in."""
        page = await self.open(path)
        return await self.send(page.forms[-1], login=login, password=password)

    async def _go(self, method: str, url: str, fields: list[tuple[str, str]] | None = None) -> Page:
        for _ in range(6):
            answer = await self._ask(method, url, fields)
            self.last = answer
            if answer.status_code not in (302, 303) or not answer.headers["location"].startswith(("/", self.site)):
                break
            method, url, fields = "GET", urljoin(url, answer.headers["location"]), None
        return Page(answer)

    async def _ask(self, method: str, url: str, fields: list[tuple[str, str]] | None) -> httpx.Response:
        headers = dict(self.headers)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent: Mapping[str, list[str]] | None = None
        if fields is not None:
            sent = {}
            for name, value in fields:
                sent = {**sent, name: [*sent.get(name, []), value]}
        self._http.cookies.clear()  # those of other people before the same wire
        answer = await self._http.request(method, url, data=sent, headers=headers, follow_redirects=False)
        for header in answer.headers.get_list("set-cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return answer
