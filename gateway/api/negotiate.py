"""What a request says about itself: media types, preferences, credentials, conditions.

Knows: the headers and general parameters of https://hl7.org/fhir/R4/http.html. Must not know: interactions, stores.
"""

from collections.abc import Iterable, Iterator
from typing import get_args
from urllib.parse import parse_qsl

from starlette.requests import Request

from gateway.exchange.call import Origin, Return
from gateway.problem import Problem

JSON = "application/fhir+json"
_JSON_TYPES = frozenset({JSON, "application/json", "text/json", "json"})
_ANY = frozenset({"*/*", "application/*"})


def require_json_answer(request: Request) -> None:
    """Refuse with 406 an `_format` or `Accept` that leaves no room for FHIR JSON 4.0."""
    asked = request.query_params.get("_format")
    if asked is not None:
        # An unescaped + arrives as a space.
        acceptable = _accepts([asked.replace(" ", "+")])
    else:
        accept = request.headers.get("accept")
        acceptable = accept is None or _accepts(accept.split(","))
    if not acceptable:
        raise Problem("not-supported", f"answers are {JSON} of FHIR version 4.0", status=406)


def require_json_body(request: Request) -> None:
    """Refuse with 415 a body that is not FHIR JSON in UTF-8."""
    if not _is_json(request.headers.get("content-type", "")):
        raise Problem("not-supported", f"a body is sent as {JSON}", status=415)


def require_no_query(request: Request) -> None:
    """Refuse query parameters where an interaction has none, rather than to skip them."""
    for name, _ in query_pairs(request):
        if name != "_format":
            raise Problem("not-supported", f"there is no parameter '{name[:60]}' here", name[:60], status=400)


def query_pairs(request: Request) -> tuple[tuple[str, str], ...]:
    """The decoded query parameters in order. A token among them is refused: URLs are logged all along the way."""
    pairs = tuple(_decode(request.scope["query_string"].decode("latin-1")))
    if any(name == "access_token" for name, _ in pairs):
        raise Problem("invalid", "a token is sent in the Authorization header only", "access_token")
    return pairs


async def form_pairs(request: Request) -> tuple[tuple[str, str], ...]:
    """The decoded parameters of a POSTed search."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise Problem("not-supported", "a search is sent as application/x-www-form-urlencoded", status=415)
    return tuple(_decode((await request.body()).decode("latin-1")))


def bearer_token(request: Request) -> str | None:
    """The bearer token (RFC 6750 §2.1), None without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def origin_of(request: Request) -> Origin:
    """Where the request came from, for the audit."""
    return Origin(request.state.request_id, request.client.host if request.client else None)


def preferred_return(request: Request) -> Return | None:
    """`Prefer: return=…` (https://hl7.org/fhir/R4/http.html#return), None where nothing is preferred."""
    asked = _preferences(request)
    return next((choice for choice in get_args(Return) if f"return={choice}" in asked), None)


def is_lenient(request: Request) -> bool:
    """`Prefer: handling=lenient`: search parameters that are not understood are to be ignored."""
    return "handling=lenient" in _preferences(request)


def _preferences(request: Request) -> list[str]:
    values = request.headers.getlist("prefer")
    return [token.strip() for value in values for token in value.replace(";", ",").split(",")]


def _decode(text: str) -> Iterator[tuple[str, str]]:
    try:
        yield from parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1_000)
    except ValueError:
        raise Problem("invalid", "the parameters are not percent-encoded UTF-8, or too many") from None


def _accepts(ranges: Iterable[str]) -> bool:
    for media_range in ranges:
        media_type, *parameters = (part.strip() for part in media_range.split(";"))
        values = dict(p.partition("=")[::2] for p in parameters)
        if values.get("q", "1").strip() in ("0", "0.0", "0.00", "0.000"):
            continue
        if values.get("fhirVersion", "4.0").strip('"') not in ("4.0", "4.0.1"):
            continue
        if media_type.lower() in _JSON_TYPES or media_type in _ANY:
            return True
    return False


def _is_json(content_type: str) -> bool:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    values = dict(p.partition("=")[::2] for p in parameters)
    right_version = values.get("fhirversion", "4.0").strip('"') in ("4.0", "4.0.1")
    return media_type in _JSON_TYPES and right_version and values.get("charset", "utf-8").strip('"') in ("utf-8", "utf8")
