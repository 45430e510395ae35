"""The page that the sandbox opens with: calls to copy, who lives in the village, what each case of confidentiality shows.

Knows: what is on the page, and in which order. Must not know: how a call is written, MongoDB.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gateway.sandbox.calls import MOMENT, STAMP, first_steps, in_languages, step_of
from gateway.sandbox.collection import COLLECTION
from gateway.sandbox.pages import PASSWORD, app_link
from gateway.sandbox.people import People
from gateway.sandbox.rows import Village
from gateway.sandbox.stage import RESET
from gateway.sandbox.streams import Streams
from gateway.settings import Settings

START = "/"
# Styles stand in the page itself; nothing else is loaded, nothing runs. Its one form resets the village.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
# (A page that tells no referrer sends its forms with the origin `null`, and the reset takes none from elsewhere.)
_HEADERS = {"Cache-Control": "no-store", "Content-Security-Policy": _POLICY, "Referrer-Policy": "same-origin"}


@dataclass(frozen=True, slots=True)
class Shown:
    """Somebody of the village. `reference`: how FHIR names them; `tokens`: each with what its bearer may."""

    name: str
    reference: str
    says: str
    tokens: list[tuple[str, str]]


def start_page(
    settings: Settings, village: Village, people: People, streams: Streams | None = None
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint."""
    environment = Environment(loader=PackageLoader("gateway.sandbox", "."), autoescape=select_autoescape())
    environment.filters["in_languages"] = lambda step: in_languages(settings.base_url, step)
    template = environment.get_template("start.html")
    groups = _groups(village, people)

    async def page(request: Request) -> Response:
        now = datetime.now(UTC)
        shown = template.render(
            base=settings.base_url,
            site=settings.site,
            link=app_link(settings),
            password=PASSWORD,
            logins=", ".join(row.login for row in village.account),
            steps=list(first_steps(people, now)),
            groups=groups,
            cases=[
                (case, [step_of(call, people, f"{now:{STAMP}}", f"{now:{MOMENT}}") for call in case.call])
                for case in village.case
            ],
            streams=streams,
            reset=RESET,
            port=urlsplit(settings.site).port,
            collection=COLLECTION,
            was_reset=_seconds(request.query_params.get("reset", "")),
        )
        return HTMLResponse(shown, headers=_HEADERS)

    return page


def _groups(village: Village, people: People) -> list[tuple[str, list[Shown]]]:
    """Everybody, by what they are."""
    return [
        ("Patients", list(_patients(village, people))),
        ("Those who act for them", list(_proxies(village, people))),
        ("Professionals", list(_professionals(village, people))),
        ("Apps and services", list(_services(village, people))),
    ]


def _patients(village: Village, people: People) -> Iterator[Shown]:
    for row in village.patient:
        tokens = [
            (people.tokens[one.name], one.says) for one in village.token if (one.kind, one.patient) == ("patient", row.name)
        ]
        yield Shown(f"{row.given} {row.family}", f"Patient/{people.ids[row.name]}", row.says, tokens)


def _proxies(village: Village, people: People) -> Iterator[Shown]:
    for row in village.proxy:
        yield Shown(
            f"{row.given} {row.family}",
            f"RelatedPerson/{people.ids[row.name]}",
            row.says,
            _tokens_of(f"RelatedPerson/{{{row.name}}}", village, people),
        )


def _professionals(village: Village, people: People) -> Iterator[Shown]:
    for row in village.practitioner:
        name = " ".join(filter(None, (row.title, row.given, row.family)))
        reference = f"Practitioner/{{{row.name}}}"
        yield Shown(name, f"Practitioner/{people.ids[row.name]}", row.says, _tokens_of(reference, village, people))
    operators = [(people.tokens[one.name], one.says) for one in village.token if one.kind == "operator"]
    yield Shown("Operator", "", "who runs the gateway", operators)


def _services(village: Village, people: People) -> Iterator[Shown]:
    for row in village.service:
        actor, state = row.client["actor"], row.states[-1] if row.states else "draft"
        kind, _, name = actor.partition("/")
        tokens = _tokens_of(actor, village, people)
        yield Shown(row.client["name"], f"{kind}/{people.ids[name.strip('{}')]}", f"{row.client['kind']}, {state}", tokens)


def _tokens_of(actor: str, village: Village, people: People) -> list[tuple[str, str]]:
    return [(people.tokens[one.name], one.says) for one in village.token if one.actor == actor]


def _seconds(text: str) -> float | None:
    """How long a reset took, as the page is told; None where it is told nothing, or nonsense."""
    try:
        return round(float(text), 1)
    except ValueError:
        return None
