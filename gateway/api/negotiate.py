"""What a request says about itself: media types, preferences, credentials, conditions.

Knows: the headers and general parameters of https://hl7.org/fhir/R4/http.html. Must not know: interactions, stores.
"""

import functools
from collections.abc import Mapping
from typing import get_args

from starlette.requests import Request

from gateway.api.pretty import note_pretty
from gateway.exchange.call import Origin, PatchLanguage, Return
from gateway.exchange.parameters import PRESENTATION, Pairs, read_pairs
from gateway.fhir.capability import JSON_PATCH, PATCH_FORMATS
from gateway.fhir.search import clip
from gateway.problem import Problem

JSON = "application/fhir+json"
_UTF8 = ("utf-8", "utf8")
_JSON_TYPES = frozenset({JSON, "application/json", "text/json", "json"})
# How closely a media range names what is sent (https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1).
_CLOSENESS: Mapping[str, int] = {"*/*": 1, "application/*": 2, **dict.fromkeys(_JSON_TYPES, 3)}


def require_json_answer(request: Request, parameters: Pairs | None = None) -> None:
    """Refuse with 406 an `_format` or `Accept` that leaves no room for FHIR JSON 4.0; note whether it is to be `_pretty`.

    `parameters`: those of the request, where they are not all in its URL. `_format` goes before `Accept`.
    """
    if parameters is None:
        parameters = tuple(request.query_params.multi_items()) if request.scope["query_string"] else ()
    note_pretty(request, parameters)
    # An unescaped + arrives as a space.
    asked = [value.replace(" ", "+") for name, value in parameters if name == "_format"] or request.headers.getlist("accept")
    if not _accepts(",".join(asked)):
        raise Problem("not-supported", f"answers are {JSON} of FHIR version 4.0", status=406)


def require_json_body(request: Request) -> None:
    """Refuse with 415 a body that is not FHIR JSON in UTF-8."""
    if not _is_json(request.headers.get("content-type", "")):
        raise Problem("not-supported", f"a body is sent as {JSON}", status=415)


def patch_language(request: Request) -> PatchLanguage:
    """In which language the body of a patch is, as its media type says. Raises Problem 415 for any other."""
    content_type = request.headers.get("content-type", "")
    media_type, parameters = _read_media_type(content_type)
    if media_type == JSON_PATCH and parameters.get("charset", "utf-8") in _UTF8:
        return "json"
    if _is_json(content_type):
        return "fhirpath"
    accepted = ", ".join(PATCH_FORMATS)  # https://www.rfc-editor.org/rfc/rfc5789#section-2.2
    raise Problem("not-supported", f"a patch is sent as one of {accepted}", status=415, headers={"Accept-Patch": accepted})


def require_no_query(request: Request, *but: tuple[str, str]) -> None:
    """Refuse query parameters where an interaction has none (`but` these), rather than to skip them."""
    for name, value in query_pairs(request):
        if name not in PRESENTATION and (name, value) not in but:
            shown = clip(name)
            raise Problem("not-supported", f"there is no parameter '{shown}' here", shown, status=400)


def query_pairs(request: Request) -> Pairs:
    """The decoded query parameters. Raises Problem where they cannot be decoded or hold a token."""
    query: bytes = request.scope["query_string"]
    return read_pairs(query) if query else ()


async def form_pairs(request: Request, most_bytes: int) -> Pairs:
    """The decoded parameters of a POSTed search. Raises Problem as `query_pairs` does, and where it is no form or too long."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise Problem("not-supported", "a search is sent as application/x-www-form-urlencoded", status=415)
    form = await request.body()
    if len(form) > most_bytes:
        raise Problem("too-long", f"the form of a search has at most {most_bytes} bytes here")
    return read_pairs(form)


def bearer_token(request: Request) -> str | None:
    """The bearer token (RFC 6750 §2.1), None without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def origin_of(request: Request) -> Origin:
    """Where the request came from, for the audit."""
    return Origin(request.state.request_id, request.client.host if request.client else None)


def preferred_return(request: Request) -> Return | None:
    """`Prefer: return=…` (https://hl7.org/fhir/R4/http.html#return), None where nothing is preferred."""
    asked = _preferences(request).get("return")
    return next((choice for choice in get_args(Return) if choice == asked), None)


def is_lenient(request: Request) -> bool:
    """`Prefer: handling=lenient`: search parameters that are not understood are to be ignored."""
    return _preferences(request).get("handling") == "lenient"


def _preferences(request: Request) -> dict[str, str]:
    """The preferences by name; of one that is stated twice the first counts (https://www.rfc-editor.org/rfc/rfc7240)."""
    found: dict[str, str] = {}
    for header in request.headers.getlist("prefer"):
        for preference in header.replace(";", ",").split(","):
            name, _, value = preference.partition("=")
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


@functools.lru_cache(maxsize=256)
def _accepts(accept: str) -> bool:
    """Whether these media ranges admit FHIR JSON 4.0: what the closest of them says of it counts."""
    closest, admitted = 0, not accept.strip()
    for media_range in accept.split(","):
        media_type, parameters = _read_media_type(media_range)
        closeness = _CLOSENESS.get(media_type, 0)
        if not closeness or not _is_our_version(parameters):
            continue
        is_wanted = parameters.get("q", "1").strip("0") not in ("", ".")
        if closeness > closest:
            closest, admitted = closeness, is_wanted
        elif closeness == closest:
            admitted = admitted or is_wanted
    return admitted


@functools.lru_cache(maxsize=256)
def _is_json(content_type: str) -> bool:
    media_type, parameters = _read_media_type(content_type)
    is_utf8 = parameters.get("charset", "utf-8") in _UTF8
    return media_type in _JSON_TYPES and is_utf8 and _is_our_version(parameters)


def _read_media_type(text: str) -> tuple[str, dict[str, str]]:
    """A media type or range and its parameters, all in lower case: https://www.rfc-editor.org/rfc/rfc9110#section-8.3.1."""
    media_type, *parameters = (part.strip().lower() for part in text.split(";"))
    split = (parameter.partition("=") for parameter in parameters)
    return media_type, {name.strip(): value.strip().strip('"') for name, _, value in split}


def _is_our_version(parameters: Mapping[str, str]) -> bool:
    return parameters.get("fhirversion", "4.0") in ("4.0", "4.0.1")
