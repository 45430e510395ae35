"""The page that the sandbox opens with: who is there, and calls to copy, in three languages.

Knows: what an integrator tries first, from a reading that is taken to a refusal that is explained. Must not know: MongoDB.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gateway.sandbox.pages import PASSWORD, app_link
from gateway.sandbox.people import People
from gateway.sandbox.streams import Streams
from gateway.settings import Settings

START = "/"
_FHIR = "application/fhir+json"
# Styles stand in the page itself; nothing else is loaded, nothing runs.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Step:
    """A call worth making. `told`: what it is answered with; `body`: a resource to send."""

    title: str
    why: str
    method: str
    path: str
    token: str
    told: str
    body: dict[str, Any] | None = None


def start_page(settings: Settings, people: People, streams: Streams | None = None) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint."""
    environment = Environment(loader=PackageLoader("gateway.sandbox", "."), autoescape=select_autoescape())
    template = environment.get_template("start.html")

    async def page(_: Request) -> Response:
        calls = [(step, *_in_languages(settings.base_url, step)) for step in _steps(people, datetime.now(UTC))]
        shown = template.render(
            streams=streams,
            base=settings.base_url,
            site=settings.site,
            link=app_link(settings),
            password=PASSWORD,
            calls=calls,
            ids=people.ids,
        )
        return HTMLResponse(shown, headers={"Cache-Control": "no-store", "Content-Security-Policy": _POLICY})

    return page


def _steps(people: People, now: datetime) -> Iterator[Step]:
    camille, noe = people.ids["camille"], people.ids["noe"]
    push = "An app pushes a reading. Sent again as it is, it is known: 200, and nothing is written."
    yield Step("201", push, "POST", "Observation", "demo-app", "201 Created", _reading(camille, "start-1", now))
    find = "A professional's software finds it."
    search = f"Observation?patient={camille}&code=http://loinc.org|99504-3&_sort=-date&_count=2"
    yield Step("200", find, "GET", search, "demo-professional", "200, a searchset")
    withdrawn = "The same app on the phone of Noé, who took his consent back: refused, and told why."
    yield Step("403", withdrawn, "POST", "Observation", "demo-app-noe", "403 and the reason", _reading(noe, "start-2", now))
    hidden = "Noé shares nothing with the professional: an empty page, as for somebody who does not exist."
    yield Step("200, empty", hidden, "GET", f"Observation?patient={noe}", "demo-professional", "200, nothing")
    wrong = "A parameter with a typing error is refused by name."
    yield Step("400", wrong, "GET", f"Observation?patient={camille}&cod=99504-3", "demo-professional", "400 naming it")
    log = "The patient sees who looked, and who tried."
    yield Step("200", log, "GET", "AuditEvent?_count=5", "demo-camille", "200, the log")


def _reading(patient: str, name: str, now: datetime) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "identifier": [{"system": "https://glucoapp.example/readings", "value": f"{name}-{now:%Y%m%d%H%M%S}"}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "99504-3"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "valueQuantity": {"value": 104, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
    }


def _in_languages(base: str, step: Step) -> tuple[str, str, str]:
    """The call with curl, Python and JavaScript."""
    url, bearer = f"{base}/{step.path}", f"Bearer {step.token}"
    body = None if step.body is None else json.dumps(step.body, ensure_ascii=False)
    curl = f"curl -i {'' if body is None else f'-X {step.method} '}'{url}' \\\n  -H 'Authorization: {bearer}'"
    python = f"import httpx\n\nanswer = httpx.{step.method.lower()}(\n    {url!r},\n    headers={{'Authorization': {bearer!r}"
    script = (
        f"const answer = await fetch({json.dumps(url)}, {{\n  method: '{step.method}',\n  headers: {{Authorization: '{bearer}'"
    )
    if body is None:
        return (
            curl,
            f"{python}}},\n)\nprint(answer.status_code, answer.text)",
            f"{script}}},\n}});\nconsole.log(answer.status, await answer.text());",
        )
    curl += f" \\\n  -H 'Content-Type: {_FHIR}' \\\n  -d '{body}'"
    python += f", 'Content-Type': {_FHIR!r}}},\n    content={body!r},\n)\nprint(answer.status_code, answer.text)"
    script += f", 'Content-Type': '{_FHIR}'}},\n  body: JSON.stringify({body}),\n}});\n"
    script += "console.log(answer.status, await answer.text());"
    return curl, python, script
