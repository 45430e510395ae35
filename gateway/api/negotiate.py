"""What a request says about itself: media types, preferences, credentials, conditions.

Knows: the headers and general parameters of https://hl7.org/fhir/R4/http.html. Must not know: interactions, stores.
"""

from collections.abc import Mapping
from typing import get_args

from starlette.requests import Request

from gateway.api.formats import JSON, XML, accepted_formats, body_format, is_utf8, read_media_type
from gateway.exchange.call import Format, Origin, PatchLanguage, Return
from gateway.exchange.parameters import PRESENTATION, Pairs, read_pairs
from gateway.fhir.capability import JSON_PATCH, PATCH_FORMATS
from gateway.fhir.search import clip
from gateway.problem import Problem

_RETURNS: Mapping[str, Return] = {choice: choice for choice in get_args(Return)}


def require_answer_format(request: Request, parameters: Pairs | None = None) -> None:
    """Refuse with 406 an `_format` or `Accept` that leaves no room for FHIR 4.0; note how the answer is to be written.

    `parameters`: those of the request, where they are not all in its URL.
    """
    if parameters is None:
        parameters = _own(request)
    _note_pretty(request, parameters)
    chosen = choose_format(request, parameters)
    if chosen != "json" or parameters:
        request.state.format = chosen or "json"
    if chosen is None:
        raise Problem("not-supported", f"answers are {JSON} or {XML} of FHIR version 4.0", status=406)


def choose_format(request: Request, parameters: Pairs | None = None) -> Format | None:
    """The format of the answer, None where none is acceptable. `_format` goes before `Accept`; what is equal to the client is
    answered in the format of its body.
    """
    if parameters is None:
        parameters = _own(request)
    # An unescaped + arrives as a space.
    asked = [value.replace(" ", "+") for name, value in parameters if name == "_format"] or request.headers.getlist("accept")
    formats = accepted_formats(",".join(asked))
    if len(formats) > 1:
        return body_format(request.headers.get("content-type", "")) or "json"
    return formats[0] if formats else None


def _own(request: Request) -> Pairs:
    return tuple(request.query_params.multi_items()) if request.scope["query_string"] else ()


def _note_pretty(request: Request, parameters: Pairs) -> None:
    asked = [value for name, value in parameters if name == "_pretty"]
    if asked:
        if asked not in (["true"], ["false"]):
            raise Problem("invalid", "'_pretty' is true or false, once", "_pretty")
        request.state.pretty = asked == ["true"]


def require_resource_body(request: Request) -> Format:
    """The format of the body. Raises Problem 415 where it is not FHIR in UTF-8."""
    sent = body_format(request.headers.get("content-type", ""))
    if sent is None:
        raise Problem("not-supported", f"a body is sent as {JSON} or {XML}", status=415)
    return sent


def patch_language(request: Request) -> tuple[PatchLanguage, Format]:
    """In which language the body of a patch is, and in which format. Raises Problem 415 for a media type that is neither's."""
    content_type = request.headers.get("content-type", "")
    media_type, parameters = read_media_type(content_type)
    if media_type == JSON_PATCH and is_utf8(parameters):
        return "json", "json"
    sent = body_format(content_type)
    if sent is not None:
        return "fhirpath", sent
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
    client = request.scope["client"]
    return Origin(request.scope["state"]["request_id"], client[0] if client else None)


def read_headers(request: Request) -> dict[str, str]:
    """All headers by name in small letters; of one that is sent several times the first.

    (Where several are looked for: the framework goes through all of them for each.)
    """
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(request.scope["headers"])}


def read_preferences(request: Request) -> tuple[Return | None, bool]:
    """`Prefer: return=…` (https://hl7.org/fhir/R4/http.html#return), None where nothing is preferred.

    And whether search parameters that are not understood are to be ignored (`handling=lenient`).
    """
    preferences = _preferences(request)
    return _RETURNS.get(preferences.get("return", "")), preferences.get("handling") == "lenient"


def _preferences(request: Request) -> dict[str, str]:
    """The preferences by name; of one that is stated twice the first counts (https://www.rfc-editor.org/rfc/rfc7240)."""
    found: dict[str, str] = {}
    for header in request.headers.getlist("prefer"):
        for preference in header.replace(";", ",").split(","):
            name, _, value = preference.partition("=")
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found
