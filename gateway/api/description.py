"""The OpenAPI description of the FHIR service, computed from the routes and the registry.

Knows: https://spec.openapis.org/oas/v3.1.1; what each endpoint takes and answers. Must not know: how it is carried out.
Which types, parameters and operations there are, the registry says; which addresses, the routes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
from starlette.routing import BaseRoute, Route

from gateway import __version__
from gateway.api.parameters import QueryKind, history_parameters, query_parameters, system_parameters
from gateway.fhir.capability import PATCH_FORMATS, build_capability_statement
from gateway.fhir.operations import Operation
from gateway.fhir.registry import Registry, ResourceType
from gateway.fhir.schema import resource_schema
from gateway.settings import Limits

Body = Literal["resource", "patch", "form", "Bundle", "arguments"]

_ROOT = "/fhir"
_HEADERS: Mapping[str, str] = {
    "Prefer": "return=minimal, representation or OperationOutcome; handling=lenient",
    "If-Match": "the version the client knows, as in an ETag",
    "If-None-Match": "the version the client has, as in an ETag",
    "If-Modified-Since": "the time of the version the client has",
    "Range": "bytes=first-last: a part of the content",
    "If-Range": "the ETag of the content the client has a part of",
    "Idempotency-Key": "a string of the client's own: what is sent again with it is done once",
    "If-None-Exist": "search parameters: nothing is created where they find something",
}
# What every answer may be besides what its endpoint gives; and with a body, or with an id.
_ANYWHERE = (400, 406, 414, 431, 503, 504)
_WITH_TOKEN = (401, 403, 404, 405, 429)
_WITH_BODY = (413, 415, 422)
_WITH_ID = (410,)
_WITHOUT_BODY = (204, 304)
_TEXTS: Mapping[int, str] = {
    200: "done",
    201: "created",
    204: "deleted",
    206: "the part that was asked for",
    304: "the client has this version",
    400: "not understood: the issue names the parameter or element",
    401: "no token, or none that is valid",
    403: "the token's scopes, or what this kind of actor may do, do not allow it",
    404: "not there, or not to be seen",
    405: "not offered here",
    406: "answers are not of this media type",
    409: "what is stored says something else",
    410: "deleted",
    412: "a condition is not met",
    413: "too large",
    414: "the URL is too long",
    415: "a body is not sent in this media type",
    416: "there is no such part",
    422: "refused: the issues name the elements",
    429: "too much is asked: Retry-After says when to come again",
    431: "the headers are too long",
    503: "try again",
    504: "took too long",
}


@dataclass(frozen=True, slots=True)
class _Row:
    """What one endpoint takes and answers. `done`: the statuses of success; `also`: those of refusal that not all have."""

    summary: str
    done: tuple[int, ...] = (200,)
    also: tuple[int, ...] = ()
    body: Body | None = None
    query: QueryKind | None = None
    headers: tuple[str, ...] = ()
    gives: str = ""
    is_open: bool = False


_ROWS: Mapping[str, _Row] = {
    "capabilities": _Row("what this service can do", gives="CapabilityStatement", is_open=True),
    "openapi": _Row("this description", is_open=True),
    "transaction": _Row(
        "a batch or a transaction", also=(409, 410, 412), body="Bundle", headers=("Prefer", "Idempotency-Key"), gives="Bundle"
    ),
    "read": _Row("the current version", (200, 304), query="read", headers=("If-None-Match", "If-Modified-Since")),
    "vread": _Row("one version", (200, 304), query="read", headers=("If-None-Match", "If-Modified-Since")),
    "history_instance": _Row("every version, newest first", query="history", gives="Bundle"),
    "history_type": _Row("every version of all of a type, newest first", query="histories", gives="Bundle"),
    "history_system": _Row("every version of all, newest first", query="histories", gives="Bundle"),
    "search_system": _Row("a page of several types", also=(422,), query="system", headers=("Prefer",), gives="Bundle"),
    "search_type": _Row("a page of what matches", also=(413, 422), query="search", headers=("Prefer",), gives="Bundle"),
    "create": _Row("create", (200, 201), (409, 410, 412), "resource", headers=("If-None-Exist", "Prefer", "Idempotency-Key")),
    "update": _Row("a new version", (200,), (409, 412), "resource", headers=("If-Match", "Prefer")),
    "patch": _Row("change parts", (200,), (409, 412), "patch", headers=("If-Match", "Prefer", "Idempotency-Key")),
    "delete": _Row("delete", (200, 204), (409, 412, 422), headers=("If-Match", "Prefer")),
    "operation": _Row("an operation", (200, 304), headers=("If-None-Match", "If-Modified-Since")),
}


def build_description(registry: Registry, limits: Limits, base_url: str, routes: Iterable[BaseRoute]) -> bytes:
    """The description, as JSON, of every FHIR address among these routes."""
    media_types = [name for name in build_capability_statement(registry, base_url, {})["format"] if "/" in name]
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if isinstance(route, Route) and route.path.startswith(_ROOT) and route.name in _ROWS:
            method = next(iter((route.methods or set()) - {"HEAD"}))
            for path, each in _operations_at(registry, limits, route, method, media_types):
                paths.setdefault(path, {})[method.lower()] = each
    known = {"Bundle", "Parameters", *registry.resource_types}
    known |= {name for operation in registry.operations.values() for name in operation.types}
    described = {
        "openapi": "3.1.0",
        "info": {"title": "FHIR document gateway", "version": __version__, "description": "FHIR R4 (4.0.1)"},
        "servers": [{"url": base_url}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "SMART on FHIR scopes"}},
            "responses": _refusals(media_types),
            "schemas": {name: resource_schema(registry.types, name) for name in sorted(known)},
        },
    }
    return msgspec.json.encode(described)


def _operations_at(
    registry: Registry, limits: Limits, route: Route, method: str, media_types: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The paths of a route, one for each type and operation it serves, and what is offered there."""
    row, path = _ROWS[route.name], route.path.removeprefix(_ROOT) or "/"
    if "{operation}" in path:
        level = "instance" if "{id}" in path else "type" if "{type}" in path else "system"
        for operation in registry.operations.values():
            for name in ("",) if level == "system" else operation.types:
                if method in operation.methods and operation.is_offered(name, level):
                    there = path.replace("{type}", name).replace("{operation}", operation.code)
                    yield there, _describe_operation(row, operation, there, method, media_types, name)
    elif "{type}" not in path:
        answers = media_types if row.gives else ["application/json"]
        found = _describe(row, path, method, answers, gives=row.gives, name=route.name)
        parameters = system_parameters(registry, limits) if row.query == "system" else []
        parameters = history_parameters() if row.query == "histories" else parameters
        yield path, _with_query(found, parameters, as_form=path == "/_search")
    else:
        interaction = route.name.replace("_", "-")
        if interaction in ("update", "patch", "delete") and "{id}" not in path:
            done = (*row.done, 201) if interaction == "update" else row.done
            row = replace(row, summary=f"{row.summary}: of what meets the criteria", done=done, query="criteria")
        for name, kind in registry.resource_types.items():
            if interaction in kind.interactions:
                there = path.replace("{type}", name)
                parameters = query_parameters(registry, limits, kind, row.query) if row.query and row.query != "system" else []
                found = _describe(row, there, method, media_types, kind=kind, gives=row.gives or name, name=route.name)
                found = _with_query(found, parameters, as_form=there.endswith("/_search"))
                yield there, _with_content(found) if kind.is_raw else found


def _with_content(found: dict[str, Any]) -> dict[str, Any]:
    """An address where content is sent, or given out, as such too."""
    bytes_of_it: dict[str, Any] = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    if "requestBody" in found:
        found["requestBody"]["content"] |= bytes_of_it
        owner = {"name": "X-Security-Context", "in": "header", "description": "whose it is: Patient/id", "schema": _TEXT}
        return found | {"parameters": [*found["parameters"], owner]}
    found["responses"]["200"]["content"] |= bytes_of_it
    found["responses"]["206"] = {"description": _TEXTS[206], "content": bytes_of_it}
    found["responses"] |= {status: {"$ref": f"#/components/responses/{status}"} for status in ("413", "416")}
    asked = [{"name": n, "in": "header", "description": _HEADERS[n], "schema": _TEXT} for n in ("Range", "If-Range")]
    return found | {"parameters": [*found["parameters"], *asked]}


def _describe_operation(
    row: _Row, operation: Operation, path: str, method: str, media_types: list[str], type_name: str
) -> dict[str, Any]:
    if operation.entries:  # it takes a Bundle, and writes
        one, gives = replace(_ROWS["transaction"], summary=f"${operation.code}"), "Bundle"
    else:
        body: Body | None = "arguments" if method == "POST" else None
        one, gives = _Row(f"${operation.code}", row.done, row.also, body, headers=row.headers), ""
    name = f"{operation.code}_{'instance' if '{id}' in path else 'type' if type_name else 'system'}"
    found = _describe(one, path, method, media_types, gives=gives, name=f"{name}_{method}", type_name=type_name)
    if operation.gives:
        found["responses"]["200"]["content"] = {media_type: {"schema": _TEXT} for media_type in operation.gives}
    query = [{"name": name, "in": "query", "schema": _TEXT} for name in operation.public_parameters]
    return _with_query(found | {"description": operation.definition}, query, as_form=False)


_TEXT: Mapping[str, str] = {"type": "string"}
_REPLAYED = {"description": "it was done by an earlier request with this Idempotency-Key", "schema": {"const": "true"}}


def _describe(
    row: _Row,
    path: str,
    method: str,
    media_types: list[str],
    *,
    kind: ResourceType | None = None,
    gives: str,
    name: str,
    type_name: str = "",
) -> dict[str, Any]:
    tag = kind.name if kind is not None else type_name or "system"
    found: dict[str, Any] = {
        "operationId": f"{name}_{tag}_{_place(row, path)}".lower(),
        "summary": row.summary,
        "tags": [tag],
        "parameters": [*_path_parameters(path), *_presentation(media_types), *_headers(row)],
        "responses": _responses(row, path, method, media_types, gives),
    }
    if row.is_open:
        found["security"] = []
    content = _content(row.body, tag, media_types)
    if content:
        found["requestBody"] = {"required": row.body != "arguments", "content": content}
    return found


def _place(row: _Row, path: str) -> str:
    """What tells apart the addresses of one endpoint."""
    if row.query == "criteria":
        return "where"
    return "form" if path.endswith("_search") else "slash" if path == "/" else "at"


def _with_query(found: dict[str, Any], parameters: list[dict[str, Any]], *, as_form: bool) -> dict[str, Any]:
    """The operation with these parameters, in the URL or as a form."""
    if not as_form:
        return found | {"parameters": [*found["parameters"], *parameters]}
    schema = {"type": "object", "properties": {p["name"]: p["schema"] for p in parameters}}
    return found | {"requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": schema}}}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [name for name in ("id", "version") if f"{{{name}}}" in path]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names]


def _presentation(media_types: list[str]) -> list[dict[str, Any]]:
    return [
        {"name": "_format", "in": "query", "schema": {"enum": [*media_types, *(m.rpartition("+")[2] for m in media_types)]}},
        {"name": "_pretty", "in": "query", "schema": {"enum": ["true", "false"]}},
    ]


def _headers(row: _Row) -> list[dict[str, Any]]:
    return [{"name": n, "in": "header", "description": _HEADERS[n], "schema": _TEXT} for n in row.headers]


def _content(body: Body | None, type_name: str, media_types: list[str]) -> dict[str, Any]:
    if body is None or body == "form":
        return {}
    if body == "patch":
        operations = {"type": "array", "items": {"type": "object"}}
        parameters = {"$ref": "#/components/schemas/Parameters"}
        return {name: _media([name], operations if "patch" in name else parameters)[name] for name in PATCH_FORMATS}
    own = {"$ref": f"#/components/schemas/{'Bundle' if body == 'Bundle' else type_name}"}
    schema = {"anyOf": [own, {"$ref": "#/components/schemas/Parameters"}]} if body == "arguments" else own
    return _media(media_types, schema)


def _media(media_types: Iterable[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same in every format; JSON Schema says nothing of XML (https://hl7.org/fhir/R4/xml.html does)."""
    return {name: {"schema": schema} if name.endswith("json") else {} for name in media_types}


def _responses(row: _Row, path: str, method: str, media_types: list[str], gives: str) -> dict[str, Any]:
    """Every status this may be answered with."""
    is_sent = method in ("POST", "PUT", "PATCH")
    refusals = {*_ANYWHERE, *row.also, *(() if row.is_open else _WITH_TOKEN), *(_WITH_BODY if is_sent else ())}
    refusals |= {*(_WITH_ID if "{id}" in path else ())}
    found: dict[str, Any] = {}
    for status in row.done:
        found[str(status)] = {"description": _TEXTS[status]}
        if status not in _WITHOUT_BODY:
            schema = _resource_of(gives) if gives else {"type": "object"}
            found[str(status)]["content"] = _media(media_types, schema)
        if "Idempotency-Key" in row.headers:
            found[str(status)]["headers"] = {"Idempotency-Replayed": _REPLAYED}
    return found | {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(refusals)}


def _refusals(media_types: list[str]) -> dict[str, Any]:
    content = _media(media_types, _resource_of("OperationOutcome"))
    return {str(s): {"description": text, "content": content} for s, text in _TEXTS.items() if s >= 400}


def _resource_of(type_name: str) -> dict[str, Any]:
    """A resource of a type, or the OperationOutcome that a client preferred; elements may have been left out as asked."""
    names = sorted({type_name, "OperationOutcome"})
    return {"type": "object", "required": ["resourceType"], "properties": {"resourceType": {"enum": names}}}
