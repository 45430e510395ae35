"""Calls worth making, and how each is written with curl, in Python and in JavaScript.

Knows: what an integrator tries first, from a reading that is taken to a refusal that is explained; the cases of the village.
Must not know: pages, MongoDB.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.sandbox.people import People
from gateway.sandbox.resources import glucose
from gateway.sandbox.rows import AskedCall, fill

STAMP, MOMENT = "%Y%m%d%H%M%S", "%Y-%m-%dT%H:%M:%SZ"
_FHIR = "application/fhir+json"


@dataclass(frozen=True, slots=True)
class Step:
    """A call worth making. `told`: what it is answered with; `body`: a resource to send."""

    why: str
    method: str
    path: str
    token: str
    told: str
    body: dict[str, Any] | None = None


def first_steps(people: People, now: datetime) -> Iterator[Step]:
    """From the first 201 to the first explained 403."""
    camille, noe = people.ids["camille"], people.ids["noe"]
    push = "An app pushes a reading. Sent again as it is, it is known: 200, and nothing is written."
    yield Step(push, "POST", "Observation", "demo-app", "201 Created", _reading(camille, "start-1", now))
    find = "A professional's software finds it."
    search = f"Observation?patient={camille}&code=http://loinc.org|99504-3&_sort=-date&_count=2"
    yield Step(find, "GET", search, "demo-professional", "200, a searchset")
    withdrawn = "The same app on the phone of Noé, who took his consent back: refused, and told why."
    yield Step(withdrawn, "POST", "Observation", "demo-app-noe", "403 and the reason", _reading(noe, "start-2", now))
    hidden = "Noé shares nothing with the professional: an empty page, as for somebody who does not exist."
    yield Step(hidden, "GET", f"Observation?patient={noe}", "demo-professional", "200, nothing")
    wrong = "A parameter with a typing error is refused by name."
    yield Step(wrong, "GET", f"Observation?patient={camille}&cod=99504-3", "demo-professional", "400 naming it")
    log = "The patient sees who looked, and who tried."
    yield Step(log, "GET", "AuditEvent?_count=5", "demo-camille", "200, the log")


def step_of(call: AskedCall, people: People, stamp: str, moment: str) -> Step:
    """A call of a case. `stamp`: what no other reading is named by; `moment`: when a reading is to have been taken."""
    bearer = people.tokens[call.token]
    told = f"{call.status}" if call.total is None else f"{call.status}, {call.total or 'nothing'} found"
    if call.reading is None:
        return Step("", "GET", fill(call.path, people.ids), bearer, told)
    return Step(
        "", "POST", call.path, bearer, told, glucose(people.ids[call.reading], f"case-{call.token}-{stamp}", moment, 104)
    )


def _reading(patient: str, name: str, now: datetime) -> dict[str, Any]:
    return glucose(patient, f"{name}-{now:{STAMP}}", f"{now:{MOMENT}}", 104)


def in_languages(base: str, step: Step) -> tuple[str, str, str]:
    """The call with curl, Python and JavaScript."""
    url, bearer = f"{base}/{step.path}", f"Bearer {step.token}"
    body = None if step.body is None else json.dumps(step.body, ensure_ascii=False)
    # (The address last: so no line ends with it and a mark, which would stand alone where the page is narrow.)
    curl = f"curl -i {'' if body is None else f'-X {step.method} '}-H 'Authorization: {bearer}' \\\n  "
    python = f"import httpx\n\nanswer = httpx.{step.method.lower()}(\n    {url!r},\n    headers={{'Authorization': {bearer!r}"
    script = (
        f"const answer = await fetch({json.dumps(url)}, {{\n  method: '{step.method}',\n  headers: {{Authorization: '{bearer}'"
    )
    if body is None:
        return (
            f"{curl}'{url}'",
            f"{python}}},\n)\nprint(answer.status_code, answer.text)",
            f"{script}}},\n}});\nconsole.log(answer.status, await answer.text());",
        )
    curl += f"-H 'Content-Type: {_FHIR}' \\\n  -d '{body}' \\\n  '{url}'"
    python += f", 'Content-Type': {_FHIR!r}}},\n    content={body!r},\n)\nprint(answer.status_code, answer.text)"
    script += f", 'Content-Type': '{_FHIR}'}},\n  body: JSON.stringify({body}),\n}});\n"
    script += "console.log(answer.status, await answer.text());"
    return curl, python, script
