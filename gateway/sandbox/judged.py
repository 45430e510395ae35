"""What the sandbox tells the conformance kit: tokens that are ready, and whose record may be written in.

Knows: the sandbox's people; the form that the kit reads. Must not know: the kit.
"""

import json
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.sandbox.people import People

DESCRIPTION = "/sandbox/conformance.toml"
_TOKENS = {"owner": "camille", "professional": "professional", "app": "app", "paired": "measures"}


def describe(people: People) -> str:
    """The TOML that `gateway conformance server --with` takes."""
    told = {"patient": people.ids["camille"], "stranger": people.ids["noe"], "consent": people.ids["consent-martin"]}
    tokens = {role: people.tokens[name] for role, name in _TOKENS.items()}
    lines = [*_lines(told), "", "[tokens]", *_lines(tokens)]
    if people.paired:
        consents = {direction: people.ids[f"consent-{direction}"] for direction in ("sending", "reading")}
        lines += ["", "[measures]", *_lines({"base": "../mesures", **people.paired, **consents})]
    if "roux" in people.tokens:  # (who reads documents here: the treating doctor of Lucie)
        reader = {"token": people.tokens["roux"], "patient": people.ids["lucie"]}
        lines += ["", "[exam.document-consumer]", *_lines(reader)]
    return "\n".join([*lines, ""])


def _lines(told: Mapping[str, str]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in told.items()]


def description_page(people: People) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that gives it."""
    text = describe(people)

    async def page(_: Request) -> Response:
        return PlainTextResponse(text, headers={"Cache-Control": "no-store"})

    return page
