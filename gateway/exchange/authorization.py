"""A request for authorization, up to where a person is to decide on it.

Knows: what RFC 6749 §4.1.1, RFC 7636, RFC 8707, OpenID Connect Core §3.1.2.1 and SMART App Launch ask of it; which mistakes are
told to the client and which only to the person, because nobody knows whether the address to send them to is the client's.
Must not know: HTTP, pages, who decides and what.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from gateway.exchange.catalogue import Entry, find_entry
from gateway.exchange.gateway import Gateway
from gateway.problem import Problem
from gateway.store.approvals import find_authorization, find_launch
from gateway.store.mongo import Document

PLAIN_SCOPES = frozenset({"openid", "fhirUser", "launch", "launch/patient", "offline_access", "online_access"})
# By whom and at which levels each kind of client is authorized.
LEVELS: Mapping[str, tuple[str, ...]] = {
    "app": ("patient",),
    "service": ("patient",),
    "portal": ("patient",),
    "software": ("patient", "user"),
}
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # of S256, RFC 7636 §4.2
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?(/.*)?", re.S)
_LONGEST = 2_048
_MOST_PARTS = 12
_REPEATABLE = ("resource",)


class Refusal(Exception):
    """A request that is refused and whose client is told: by sending the person there (RFC 6749 §4.1.2.1) or, where it has
    pushed the request itself, by `error` and `text`.
    """

    def __init__(self, location: str, error: str, text: str) -> None:
        super().__init__()
        self.location, self.error, self.text = location, error, text


@dataclass(frozen=True, slots=True)
class Authorization:
    """A request that holds. `scope`: what is asked for and may be, of resources; `plain`: of other things.

    `launch`: the context it was started in or, where `asks_for_patient`, whom a professional has chosen since; `fresh_after`:
    the person must have logged in since; `answer`: what came of it, where it is decided on.
    """

    entry: Entry
    handle: str
    redirect_uri: str
    scope: str
    plain: tuple[str, ...]
    state: str | None
    nonce: str | None
    challenge: str
    launch: Document | None
    fresh_after: datetime | None
    asks_for_patient: bool = False
    answer: Document | None = None


async def check_request(gateway: Gateway, pairs: Sequence[tuple[str, str]], *, pushed: bool) -> Document:
    """What is kept of a request. Raises Refusal, or Problem where there is nowhere to send it.

    `pushed`: whether the client sends it itself (RFC 9126), which some have to.
    """
    given: dict[str, str] = {}
    repeated = {name for n, (name, _) in enumerate(pairs) if name in {other for other, _ in pairs[:n]}}
    for name, value in pairs:
        if value:  # a parameter without a value is one that was left out (RFC 6749 §3.1)
            given.setdefault(name, value)
    entry = await _require_client(gateway, given, repeated)
    refuse = _Refuse(gateway, given["redirect_uri"], given.get("state"))
    if entry.client.pushed and not pushed:
        raise refuse("invalid_request", "this client pushes its requests (RFC 9126)")
    _check_form(refuse, given, repeated)
    _check_audience(refuse, gateway.settings.base_url, [value for name, value in pairs if name in ("aud", "resource")])
    scope, plain = _read_scopes(gateway, refuse, entry, given.get("scope", ""))
    launch = await _read_launch(gateway, refuse, entry, given.get("launch"), plain)
    return {
        "client": entry.client.client,
        "edition": entry.edition,
        "redirect_uri": given["redirect_uri"],
        "scope": scope,
        "plain": list(plain),
        "state": given.get("state"),
        "nonce": given.get("nonce"),
        "challenge": given["code_challenge"],
        "launch": launch,
        "fresh": _fresh_after(refuse, given, gateway.clock()),
    }


async def read_authorization(gateway: Gateway, handle: str, *, decided: bool = False) -> Authorization:
    """The request behind a handle. Raises Problem where it is over, or the client is not what it was when it asked.

    `decided`: also for a moment after it was decided on.
    """
    found = await find_authorization(gateway.mongo, handle, gateway.clock()) if len(handle) <= 64 else None
    if found is None or ("answer" in found and not decided):
        raise over()
    entry = await find_entry(gateway, found["client"])
    if entry is None or not entry.is_referenced or entry.edition != found["edition"]:
        raise over()
    asks_for_patient = entry.client.kind == "software" and found["launch"] is None and "launch/patient" in found["plain"]
    return Authorization(
        entry=entry,
        handle=handle,
        redirect_uri=found["redirect_uri"],
        scope=found["scope"],
        plain=tuple(found["plain"]),
        state=found["state"],
        nonce=found["nonce"],
        challenge=found["challenge"],
        launch=found["launch"] or found.get("chosen"),
        fresh_after=found["fresh"],
        asks_for_patient=asks_for_patient,
        answer=found.get("answer"),
    )


def over() -> Problem:
    """What is told about a request that nobody can decide on any more."""
    return Problem("not-found", "this request for access is over: begin again where you came from", status=410)


def answer_url(gateway: Gateway, redirect_uri: str, state: str | None, **parameters: str) -> str:
    """Where the person is sent, with what the client is told. The issuer (RFC 9207) tells it who says so."""
    told = {**parameters, **({"state": state} if state is not None else {}), "iss": gateway.settings.site}
    return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{urlencode(told)}"


def form_target(redirect_uri: str) -> str:
    """What a page may send its form to, beside itself, for the person to get there (`form-action` of CSP)."""
    parts = urlsplit(redirect_uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else f"{parts.scheme}:"


@dataclass(frozen=True, slots=True)
class _Refuse:
    gateway: Gateway
    redirect_uri: str
    state: str | None

    def __call__(self, error: str, text: str) -> Refusal:
        location = answer_url(self.gateway, self.redirect_uri, self.state, error=error, error_description=text)
        return Refusal(location, error, text)


async def _require_client(gateway: Gateway, given: Mapping[str, str], repeated: set[str]) -> Entry:
    """The client, if it is one and the address is its own. Raises Problem 400, which the person alone sees."""
    if repeated & {"client_id", "redirect_uri"}:
        raise _nowhere("client_id and redirect_uri stand once")
    client, redirect_uri = given.get("client_id", ""), given.get("redirect_uri")
    entry = await find_entry(gateway, client) if 0 < len(client) <= 64 else None
    if entry is None or not entry.is_referenced or "authorization_code" not in entry.client.grants:
        raise _nowhere("there is no such client, or it is not referenced")
    if redirect_uri is None or not any(_is_same(redirect_uri, known) for known in entry.client.redirect_uris):
        raise _nowhere("the redirect_uri is not one that this client is registered with")
    return entry


def _is_same(uri: str, registered: str) -> bool:
    """Whether they are equal, letter by letter; but for the port of an app on this machine (RFC 8252 §7.3)."""
    if uri == registered:
        return True
    given, known = _LOOPBACK.fullmatch(uri), _LOOPBACK.fullmatch(registered)
    return given is not None and known is not None and (given[1], given[2]) == (known[1], known[2])


def _check_form(refuse: _Refuse, given: Mapping[str, str], repeated: set[str]) -> None:
    if repeated - set(_REPEATABLE):
        raise refuse("invalid_request", "a parameter stands twice")
    if any(len(value) > _LONGEST for value in given.values()):
        raise refuse("invalid_request", f"a parameter has at most {_LONGEST} characters here")
    for name in ("request", "request_uri"):
        if name in given:
            raise refuse(f"{name}_not_supported", f"{name} is not supported")
    if given.get("response_type") != "code":
        error = "unsupported_response_type" if "response_type" in given else "invalid_request"
        raise refuse(error, "the response_type is code")
    if given.get("response_mode", "query") != "query":
        raise refuse("invalid_request", "the response_mode is query")
    if "code_challenge" not in given or given.get("code_challenge_method") != "S256":
        raise refuse("invalid_request", "a code_challenge by the method S256 is needed (RFC 7636)")
    if not _CHALLENGE.fullmatch(given["code_challenge"]):
        raise refuse("invalid_request", "the code_challenge is not one of the method S256")
    if "none" in given.get("prompt", "").split():
        raise refuse("interaction_required", "a person decides each time")


def _check_audience(refuse: _Refuse, base_url: str, audiences: Sequence[str]) -> None:
    """SMART's `aud` and RFC 8707's `resource` say which server the token is for: this one."""
    if not any(audiences):
        raise refuse("invalid_request", "aud is missing: it is the base URL of this FHIR service")
    if any(audience.removesuffix("/") != base_url for audience in audiences):
        raise refuse("invalid_target", "aud or resource is not the base URL of this FHIR service")


def _read_scopes(gateway: Gateway, refuse: _Refuse, entry: Entry, text: str) -> tuple[str, tuple[str, ...]]:
    """What is asked for and may be: of resources, and of other things."""
    parts = list(dict.fromkeys(text.split(" ")))
    plain = tuple(part for part in parts if part in PLAIN_SCOPES)
    try:
        scopes = gateway.scopes(" ".join(part for part in parts if part and part not in PLAIN_SCOPES))
    except Problem as problem:
        raise refuse("invalid_scope", problem.issues[0].text) from None
    if any(scope.level == "system" for scope in scopes):
        raise refuse("invalid_scope", "system/ scopes are for clients for which nobody logs in")
    narrowed = entry.client.ceiling(LEVELS[entry.client.kind]).narrow(scopes)
    if not narrowed:
        raise refuse("invalid_scope", "none of these scopes is one that this client may be given")
    in_part = {part.partition("/")[2] for part in narrowed if "?" in part}
    if len(in_part) > _MOST_PARTS:
        raise refuse("invalid_scope", f"at most {_MOST_PARTS} parts of types are asked for: people read each of them")
    of_patient = any(scope.level == "patient" for scope in scopes)
    if of_patient and entry.client.kind == "software" and not {"launch", "launch/patient"} & set(plain):
        raise refuse("invalid_scope", "patient/ scopes of a professional's software need launch or launch/patient")
    return " ".join(narrowed), plain


async def _read_launch(
    gateway: Gateway, refuse: _Refuse, entry: Entry, handle: str | None, plain: Sequence[str]
) -> dict[str, Any] | None:
    if ("launch" in plain) != (handle is not None):
        raise refuse("invalid_request", "the scope launch and the parameter launch go together")
    if handle is None:
        return None
    found = await find_launch(gateway.mongo, handle, gateway.clock())
    if found is None or found.get("for") not in (None, entry.client.client):
        raise refuse("invalid_request", "the launch is not known, or over")
    return {name: found[name] for name in ("user", "patient", "context") if found.get(name) is not None}


def _fresh_after(refuse: _Refuse, given: Mapping[str, str], now: datetime) -> datetime | None:
    """Since when the person must have logged in, None where it does not matter."""
    if "login" in given.get("prompt", "").split():
        return now
    age = given.get("max_age")
    if age is None:
        return None
    if not age.isdecimal() or len(age) > 9:
        raise refuse("invalid_request", "max_age is a number of seconds")
    return now - timedelta(seconds=int(age))


def _nowhere(text: str) -> Problem:
    return Problem("invalid", text, status=400)
