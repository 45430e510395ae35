"""What an entry of a Bundle asks for.

Knows: how `Bundle.entry.request` becomes a call (https://hl7.org/fhir/R4/bundle-definitions.html#Bundle.entry.request).
Must not know: HTTP, MongoDB, how a call is carried out.
"""

import functools
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from gateway.exchange.call import Call, Origin, PatchLanguage, Return
from gateway.exchange.contents import examine
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import Pairs, read_pairs
from gateway.fhir.bundle import read_type, require_document
from gateway.fhir.capability import FHIR_JSON, JSON_PATCH
from gateway.fhir.dates import read_span
from gateway.fhir.long_data import Apart
from gateway.problem import Problem

_DOCUMENT = msgspec.json.encode({"resourceType": "Binary", "contentType": FHIR_JSON})
_CHANGES: Mapping[str, str] = {"PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Ways:
    """What holds for every entry: where the Bundle came from, whether its JSON is calm, what is preferred, and what of it was
    set apart.
    """

    origin: Origin
    calm: bool
    prefer: Return | None
    lenient: bool
    apart: Apart = Apart(b"")


@dataclass(frozen=True, slots=True)
class Asked:
    """An entry of the Bundle: the call it asks for and what it is called within the Bundle."""

    call: Call
    full_url: str | None


def read_entry_request(gateway: Gateway, entry: Any, position: int, ways: Ways) -> Asked:
    """The call of an entry. Raises Problem where its request is none that is served in a Bundle."""
    place = f"Bundle.entry[{position}]"
    request = entry.request
    try:
        if len(request.url) > gateway.limits.url_bytes:
            raise Problem("too-long", f"a URL has at most {gateway.limits.url_bytes} bytes here", "Bundle.request.url")
        line = _read_request_line(request.method.replace("HEAD", "GET"), _below(gateway.settings.base_url, request.url))
    except Problem as problem:
        raise problem.within(place) from None
    plain = None
    if ways.apart.held and entry.resource is not None:
        sent = bytes(entry.resource)
        kind = gateway.registry.find(line.type) if line.interaction == "create" else None
        plain = ways.apart.plain_of(sent) if kind is not None and kind.is_raw else None
        entry.resource = entry.resource if plain is not None else msgspec.Raw(ways.apart.whole(sent))
    if (line.interaction, line.type) == ("create", "Bundle"):
        return _read_document(gateway, entry, place, ways)
    takes_resource = line.interaction in ("create", "update", "patch")
    if takes_resource and entry.resource is None:
        raise Problem("required", f"{request.method} takes a resource", f"{place}.resource")
    body, language = bytes(entry.resource) if takes_resource else None, None
    if body is not None and line.interaction == "patch":
        body, language = _read_patch(gateway, body, f"{place}.resource")
    call = Call(
        interaction=line.interaction,
        type=line.type,
        origin=ways.origin,
        id=line.id,
        version=line.version,
        criteria=line.criteria,
        parameters=line.parameters,
        body=body,
        plain=plain,
        calm=ways.calm,
        bodiless=request.method == "HEAD",
        patch=language,
        if_match=request.ifMatch,
        if_none_match=request.ifNoneMatch,
        if_modified_since=_http_date(request.ifModifiedSince),
        if_none_exist=request.ifNoneExist,
        prefer=ways.prefer,
        lenient=ways.lenient,
        raw=f"{request.method} {request.url}" if line.interaction in ("search-type", "search-system") else None,
        place=f"{place}.resource" if takes_resource else place,
    )
    return Asked(call, entry.fullUrl)


def _read_document(gateway: Gateway, entry: Any, place: str, ways: Ways) -> Asked:
    """The call that keeps a FHIR document (https://hl7.org/fhir/R4/documents.html) as content, byte for byte."""
    where = f"{place}.resource"
    if entry.resource is None:
        raise Problem("required", "POST takes a resource", where)
    try:
        if gateway.codec.peek_type(entry.resource) != "Bundle":
            raise Problem("invalid", "a Bundle is expected here", "Bundle")
        if read_type(entry.resource) != "document":
            text = "a Bundle is not sent within another one, unless it is a document"
            raise Problem("not-supported", text, f"{place}.request.url", status=400)
        require_document(gateway.codec, gateway.codec.decode("Bundle", entry.resource, calm=ways.calm))
    except Problem as problem:
        raise (problem if (problem.issues[0].expression or "").startswith(place) else problem.within(where)) from None
    call = Call(
        interaction="create",
        type="Binary",
        origin=ways.origin,
        body=_DOCUMENT,
        calm=True,
        if_none_exist=entry.request.ifNoneExist,
        prefer=ways.prefer,
        lenient=ways.lenient,
        place=where,
        deposit=examine(bytes(entry.resource), FHIR_JSON),
    )
    return Asked(call, entry.fullUrl)


def _read_patch(gateway: Gateway, body: bytes, place: str) -> tuple[bytes, PatchLanguage]:
    """The patch of an entry and its language: Parameters, or any other as a Binary of its media type."""
    try:
        if gateway.codec.peek_type(body) != "Binary":
            return body, "fhirpath"
        binary = gateway.codec.decode("Binary", body)
        if (binary.contentType or "").partition(";")[0].strip().lower() != JSON_PATCH:
            text = f"a patch is a Parameters resource, or a Binary of {JSON_PATCH}"
            raise Problem("not-supported", text, "Binary.contentType", status=415)
        return b64decode(binary.data or ""), "json"
    except Problem as problem:
        raise problem.within(place) from None


@dataclass(frozen=True, slots=True)
class _RequestLine:
    interaction: str
    type: str
    id: str | None = None
    version: str | None = None
    parameters: Pairs = ()
    criteria: Pairs | None = None


def _below(base_url: str, url: str) -> str:
    """A URL without the address of this service, if it begins with it."""
    rest = url.removeprefix(base_url)
    return rest if rest[:1] in ("", "/", "?") else url


@functools.lru_cache(maxsize=1_024)
def _read_request_line(method: str, url: str) -> _RequestLine:
    """What an entry's method and URL ask for; the entries of a Bundle mostly ask for the same."""
    path, _, query = url.removeprefix("/").partition("?")
    if "://" in path or path.startswith("/"):
        raise Problem("value", "a request goes to this service only", "Bundle.request.url", status=400)
    if path == "" and method == "POST":
        raise Problem("not-supported", "a Bundle is not sent within another one", "Bundle.request.url", status=400)
    if (method, path) == ("GET", "_history"):
        return _RequestLine("history-system", "", parameters=_read_query(query))
    if query and (method, path) in (("GET", ""), ("POST", "_search")):
        return _RequestLine("search-system", "", parameters=_read_query(query))
    type_name, *rest = (unquote(part) for part in path.split("/"))
    match method, rest:
        case ("GET", []) | ("POST", ["_search"]):
            return _RequestLine("search-type", type_name, parameters=_read_query(query))
        case "GET", ["_history"]:
            return _RequestLine("history-type", type_name, parameters=_read_query(query))
        case "GET", [identifier]:
            return _RequestLine("read", type_name, identifier, parameters=_read_query(query))
        case "GET", [identifier, "_history"]:
            return _RequestLine("history-instance", type_name, identifier, parameters=_read_query(query))
        case "GET", [identifier, "_history", version]:
            return _RequestLine("vread", type_name, identifier, version, _read_query(query))
        case "POST", [] if not query:
            return _RequestLine("create", type_name)
        case (("PUT" | "PATCH" | "DELETE"), []):
            return _RequestLine(_CHANGES[method], type_name, criteria=_read_query(query))
        case "PUT", [identifier] if not query:
            return _RequestLine("update", type_name, identifier)
        case "PATCH", [identifier] if not query:
            return _RequestLine("patch", type_name, identifier)
        case "DELETE", [identifier] if not query:
            return _RequestLine("delete", type_name, identifier)
        case _:
            raise Problem("not-supported", f"this {method} is not served in a Bundle", "Bundle.request", status=400)


def _read_query(query: str) -> Pairs:
    try:
        return read_pairs(query.encode())
    except Problem as problem:
        raise problem.moved("Bundle.request.url") from None


def _http_date(instant: str | None) -> str | None:
    """A FHIR instant as the header would say it."""
    return None if instant is None else format_datetime(read_span(instant).low, usegmt=True)
