"""Where a client sends a person to decide whether it may do what it asks for, and the page they decide on.

Knows: the steps of RFC 6749 §4.1 that a browser takes; what the page must get to know before a decision is one. What a client's
page posts comes without our cookie (SameSite), so the request is kept first, and only the next address looks at who is there.
Must not know: what makes a request sound, what a decision does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import parse_qsl, urlencode

from starlette.responses import RedirectResponse, Response

from gateway.access.decision import Decision, Duration, end_of
from gateway.exchange.approval import Decided, approve, is_by_consent, items_asked, parts_offered, refuse, roles_for
from gateway.exchange.authorization import (
    Authorization,
    Refusal,
    form_target,
    over,
    read_authorization,
)
from gateway.exchange.choosing import choose, is_to_choose
from gateway.exchange.persons import Acting, find_roles, name_of
from gateway.exchange.pushed import begin_authorization
from gateway.problem import Problem
from gateway.web.parts import words_for
from gateway.web.visit import Visit

_MOST_BYTES, _MOST_FIELDS = 16_384, 50
_CONTINUE, _PATIENT = "/oauth/authorize/continue", "/oauth/authorize/patient"
DURATIONS = get_args(Duration)
Fields = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Row:
    """One type, or a part of one, on the page: whether reading and writing it are asked for. `what`: as items name it; `id`: on
    the page; `part`: the words for what of the type is meant; `parts`: what can be allowed in place of all of it.
    """

    type: str
    what: str
    id: str
    read: bool
    write: bool
    part: str | None
    parts: tuple["Part", ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a type that can be allowed in place of all of it, in words; `ticked`: on the page as it was sent."""

    what: str
    words: str
    ticked: bool


async def authorize(visit: Visit) -> Response:
    """GET and POST /oauth/authorize: keeps the request and goes on, or says why not."""
    pairs = await _read_request(visit)
    try:
        handle = await begin_authorization(visit.gateway, pairs)
    except Refusal as refusal:
        return RedirectResponse(refusal.location, 303)
    languages = [(name, value) for name, value in pairs if name == "ui_locales"][:1]
    return visit.redirect(f"{_CONTINUE}?{urlencode([('request', handle), *languages])}")


async def decision_page(visit: Visit) -> Response:
    """GET /oauth/authorize/continue: the page to decide on, once it is known who is there."""
    authorization = await read_authorization(visit.gateway, visit.handle)
    away = _to_login(visit, authorization)
    if away is not None:
        return away
    roles = await _roles(visit, authorization)
    if is_to_choose(authorization, roles):
        return visit.redirect(_PATIENT + visit.query)
    return await _show(visit, authorization, roles, {}, {})


async def patient_page(visit: Visit) -> Response:
    """GET /oauth/authorize/patient: where professionals say about whom, if the software needs to know."""
    authorization = await read_authorization(visit.gateway, visit.handle)
    away = _to_login(visit, authorization)
    if away is not None:
        return away
    if not authorization.asks_for_patient or not await _roles(visit, authorization):
        return visit.redirect(_CONTINUE + visit.query)
    return _ask_patient(visit, authorization)


async def choose_patient(visit: Visit, fields: Fields) -> Response:
    """POST /oauth/authorize/patient: an identifier."""
    authorization = await read_authorization(visit.gateway, visit.handle)
    away = _to_login(visit, authorization)
    if away is not None or visit.session is None:
        return away or visit.redirect("/login")
    roles = await _roles(visit, authorization)
    if not authorization.asks_for_patient or not roles:
        return visit.redirect(_CONTINUE + visit.query)
    typed = fields.get("identifier", [""])[0].strip()
    if not typed:
        return _ask_patient(visit, authorization, "patient.missing")
    if not await choose(visit.gateway, authorization, visit.session, roles, typed, visit.origin):
        return _ask_patient(visit, authorization, "patient.unknown")
    return visit.redirect(_CONTINUE + visit.query)


def _ask_patient(visit: Visit, authorization: Authorization, error: str | None = None) -> Response:
    errors = {"identifier": visit.say(error)} if error else {}
    client = authorization.entry.client
    onward = visit.pages.root + _CONTINUE + visit.query
    to = (form_target(authorization.redirect_uri),)
    return visit.page("patient.html", status=400 if errors else 200, to=to, errors=errors, client=client, onward=onward)


async def decide(visit: Visit, fields: Fields) -> Response:
    """POST /oauth/authorize/continue: the decision."""
    authorization = await read_authorization(visit.gateway, visit.handle, decided=True)
    away = _to_login(visit, authorization)
    if away is not None or visit.session is None:
        return away or visit.redirect("/login")
    roles = await _roles(visit, authorization)
    role = _chosen_role(roles, fields)
    if fields.get("decision") == ["refuse"]:
        location = await refuse(visit.gateway, authorization, visit.session, role, visit.origin)
        return RedirectResponse(location, 303)
    if not roles:
        raise Problem("forbidden", "nobody whom this person is can decide on this")
    if is_to_choose(authorization, roles):
        return visit.redirect(_PATIENT + visit.query)
    decision, errors = _read_decision(visit, authorization, fields)
    if role is None:
        errors = {f"role-{roles[0].reference.replace('/', '-')}": visit.say("consent.missing_role"), **errors}
    if authorization.answer is not None and (errors or role is None):
        raise over()
    if errors or role is None:
        return await _show(visit, authorization, roles, fields, errors)
    decided = Decided(decision, await statement(visit, authorization, role, decision), visit.language)
    location = await approve(visit.gateway, authorization, visit.session, role, decided, visit.origin)
    return RedirectResponse(location, 303)


async def statement(visit: Visit, authorization: Authorization, role: Acting, decision: Decision) -> str:
    """What stood on the page, as text, with what was chosen: the evidence of the decision."""
    until = end_of(decision.duration, visit.gateway.clock())
    context = {**await _told(visit, authorization), "role": role, "decision": decision, "until": until}
    return visit.text("consent.txt", context)


async def _show(
    visit: Visit, authorization: Authorization, roles: Sequence[Acting], fields: Fields, errors: Mapping[str, str]
) -> Response:
    context: dict[str, Any] = {
        **await _told(visit, authorization, fields.get("part", ())),
        "roles": roles,
        "durations": DURATIONS,
        "ticked": set(fields.get("allow", ())),
        "chosen": {name: value[0] for name, value in fields.items() if name in ("duration", "past", "role")},
        "errors": errors,
    }
    status = 400 if errors else 200
    template = "consent.html" if roles else "nobody.html"
    return visit.page(template, status=status, to=(form_target(authorization.redirect_uri),), **context)


async def _told(visit: Visit, authorization: Authorization, ticked: Sequence[str] = ()) -> dict[str, Any]:
    """What the page says of the client and of what it asks for."""
    client, launch = authorization.entry.client, authorization.launch
    return {
        "client": client,
        "in_view": await name_of(visit.gateway, launch["patient"]) if launch is not None else None,
        "choose_again": visit.pages.root + _PATIENT + visit.query if authorization.asks_for_patient else None,
        "purpose": client.purpose_in(visit.language),
        "recipients": client.recipients_in(visit.language) or visit.say("consent.recipients_are", controller=client.controller),
        "retention": client.retention_in(visit.language) or visit.say("consent.retention_is"),
        "by_consent": is_by_consent(client),
        "rows": _rows(visit, authorization, ticked),
        "scopes": [*authorization.scope.split(" "), *authorization.plain],
        "is_kept": "offline_access" in authorization.plain and "refresh_token" in client.grants,
        "tells_who": "openid" in authorization.plain or "fhirUser" in authorization.plain,
    }


def _rows(visit: Visit, authorization: Authorization, ticked: Sequence[str] = ()) -> list[Row]:
    """What there is to decide, a row for each type or part of one."""
    items, texts = items_asked(visit.gateway, authorization), visit.texts
    offered = (
        [what for _, what in parts_offered(visit.gateway, authorization)] if is_by_consent(authorization.entry.client) else []
    )
    rows: list[Row] = []
    for what in dict.fromkeys(what for _, what in items):
        name, is_part, query = what.partition("?")
        identifier = f"{name}-{len(rows)}" if is_part else name
        parts = tuple(
            Part(one, words_for(texts, one.partition("?")[2]), f"read-{one}" in ticked)
            for one in offered
            if one.startswith(f"{what}?")
        )
        said = words_for(texts, query) if is_part else None
        rows.append(Row(name, what, identifier, ("read", what) in items, ("write", what) in items, said, parts))
    return rows


def _read_decision(visit: Visit, authorization: Authorization, fields: Fields) -> tuple[Decision, dict[str, str]]:
    """The decision that a form says, and what is missing in it, by the field it is led to."""
    asked = items_asked(visit.gateway, authorization)
    if not is_by_consent(authorization.entry.client):
        return Decision(frozenset(asked), "unlimited", past=True), {}
    ticked = set(fields.get("allow", ()))
    whole = {item for item in asked if f"{item[0]}-{item[1]}" in ticked}
    offered = (item for item in parts_offered(visit.gateway, authorization) if f"{item[0]}-{item[1]}" in fields.get("part", ()))
    # Who ticks all of it and parts of it means all of it.
    allowed = frozenset(whole.union(item for item in offered if (item[0], item[1].partition("?")[0]) not in whole))
    duration = next((known for known in DURATIONS if [known] == fields.get("duration")), None)
    errors: dict[str, str] = {}
    if not allowed:
        first = _rows(visit, authorization)[0]
        errors[f"{'read' if first.read else 'write'}-{first.id}"] = visit.say("consent.missing_items")
    if duration is None:
        errors[f"duration-{DURATIONS[0]}"] = visit.say("consent.missing_duration")
    return Decision(allowed, duration or "once", past=fields.get("past") == ["yes"]), errors


def _chosen_role(roles: Sequence[Acting], fields: Fields) -> Acting | None:
    if len(roles) == 1:
        return roles[0]
    return next((role for role in roles if [role.reference] == fields.get("role")), None)


async def _roles(visit: Visit, authorization: Authorization) -> list[Acting]:
    found = await find_roles(visit.gateway, visit.session.references) if visit.session is not None else ()
    return roles_for(authorization, found)


def _to_login(visit: Visit, authorization: Authorization) -> Response | None:
    """Away to log in, where nobody has, or too long ago."""
    query = visit.request.url.query
    if visit.session is None:
        return visit.redirect(f"/login?{query}")
    if authorization.fresh_after is not None and visit.session.began < authorization.fresh_after:
        return visit.redirect(f"/login?{query}&again=1")
    return None


async def _read_request(visit: Visit) -> list[tuple[str, str]]:
    """The parameters, from the URL or from the form of a POST (RFC 6749 §3.1)."""
    request = visit.request
    sent: bytes = request.scope["query_string"]
    if request.method == "POST":
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
            raise Problem("invalid", "the parameters are sent as application/x-www-form-urlencoded")
        sent = await request.body()
    if len(sent) > _MOST_BYTES:
        raise Problem("too-long", f"the parameters have at most {_MOST_BYTES} bytes here")
    try:
        return parse_qsl(sent.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Problem("invalid", "the parameters are not percent-encoded UTF-8, or too many") from None
