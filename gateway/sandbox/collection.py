"""A collection of requests that Postman and Bruno import: every interaction and operation that is served, with a body to send.

Knows: the form of such a collection (https://schema.getpostman.com/json/collection/v2.1.0/collection.json); what is asked of a
type follows from the registry, bodies from the examples. Must not know: MongoDB.
"""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway import __version__
from gateway.fhir.registry import Registry, ResourceType
from gateway.sandbox.calls import step_of
from gateway.sandbox.examples import OWNER, example, name_of, read_examples, renamed
from gateway.sandbox.people import People
from gateway.sandbox.resources import patient
from gateway.sandbox.rows import FOLDER, Village, fill
from gateway.schemas import read_schema
from gateway.settings import Settings

Item = dict[str, Any]

_SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
_FHIR, _PATCH, _FORM = "application/fhir+json", "application/json-patch+json", "application/x-www-form-urlencoded"
_SPECIFICATION = "https://hl7.org/fhir/R4/http.html"


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request that stands in `collection.toml`."""

    name: str
    path: str
    method: str = "GET"
    token: str = "token"  # noqa: S105 (the name of a variable)
    body: str = ""
    operation: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    request: list[_Request]


COLLECTION = "/sandbox/collection.json"


def collection_page(
    registry: Registry, settings: Settings, village: Village, people: People
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that gives it, as a file."""

    async def page(_: Request) -> Response:
        headers = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="gateway.postman_collection.json"'}
        return JSONResponse(build_collection(registry, settings.base_url, village, people), headers=headers)

    return page


def build_collection(registry: Registry, base: str, village: Village, people: People) -> Item:
    """The collection for a gateway at this FHIR base, with the people of the village. Raises SchemaError."""
    texts = read_examples()
    listed = read_schema(FOLDER / "collection.toml", _File).request
    there = {name: example(text, people.ids) for name, text in texts.items()}
    # (Her record is that of the other examples: who she is stays as it is.)
    [owner] = [row for row in village.patient if row.name == OWNER]
    updated = there | {"Patient": patient(owner, people.ids, datetime.now(UTC))}
    folders = [
        {"name": kind.name, "item": list(_interactions(kind, people, there, updated))}
        for kind in registry.resource_types.values()
    ]
    operations = [_listed(request, people) for request in listed if request.operation]
    operations += _others(registry, {request.operation for request in listed})
    variables = {"base": base, "token": people.tokens[OWNER]}
    variables |= {name: text for name, text in people.tokens.items() if name not in variables}
    return {
        "info": {
            "name": "FHIR document gateway",
            "description": f"Version {__version__}, computed from what is served. `token` is that of {OWNER}, whose record has "
            "one resource of every type.",
            "schema": _SCHEMA,
        },
        "auth": _bearer("token"),
        "variable": [{"key": key, "value": value, "type": "string"} for key, value in variables.items()],
        "item": [
            {"name": "The whole system", "item": [_listed(request, people) for request in listed if not request.operation]},
            *folders,
            {"name": "Operations", "item": operations},
            {"name": "What confidentiality does", "item": list(_cases(village, people))},
        ],
    }


def _interactions(kind: ResourceType, people: People, there: Mapping[str, Item], updated: Mapping[str, Item]) -> Iterator[Item]:
    """What can be asked of a type, what is created last being deleted in the end. `there`: examples, by type."""
    token = "operator" if kind.group in ("identity", "directory") else "token"
    known, name = people.ids.get(name_of(kind.name)), kind.name
    made = f"made_{name}"
    if "search-type" in kind.interactions:
        found = _query(kind, people)
        yield _item("search-type", "GET", f"{name}?{found}", token)
        yield _item("search-type by POST", "POST", f"{name}/_search", token, body=found, media=_FORM)
    if "history-type" in kind.interactions:
        yield _item("history-type", "GET", f"{name}/_history?_count=5", token)
    if known is not None:
        for interaction, path in (("read", ""), ("vread", "/_history/1"), ("history-instance", "/_history")):
            if interaction in kind.interactions:
                yield _item(interaction, "GET", f"{name}/{known}{path}", token)
    if "create" in kind.interactions and name in there:
        yield _item("create", "POST", name, token, body=_pretty(renamed(there[name], "-{{$guid}}")), keeps=made)
        if "update" in kind.interactions and known is not None:
            yield _item("update", "PUT", f"{name}/{known}", token, body=_pretty({**updated[name], "id": known}))
        if "patch" in kind.interactions and known is not None:
            yield _item("patch", "PATCH", f"{name}/{known}", token, body=_pretty([_change(kind, updated[name])]), media=_PATCH)
        if "delete" in kind.interactions:
            yield _item("delete", "DELETE", f"{name}/{{{{{made}}}}}", token)


def _query(kind: ResourceType, people: People) -> str:
    if kind.patient and not kind.is_patient:
        return f"patient={people.ids[OWNER]}&_count=5"
    return f"_id={people.ids[name_of(kind.name)]}"


def _change(kind: ResourceType, body: Mapping[str, Any]) -> Item:
    """A change of the example. Of what has a lifecycle little may change: there it only says what it expects."""
    if kind.lifecycle is not None:
        return {"op": "test", "path": "/status", "value": body["status"]}
    return {"op": "add", "path": "/language", "value": "fr"}


def _listed(request: _Request, people: People) -> Item:
    path, body = fill(request.path, people.ids), fill(request.body, people.ids).strip()
    return _item(request.name, request.method, path, request.token, body=body or None)


def _others(registry: Registry, listed: set[str]) -> list[Item]:
    """Operations that nobody has written a request for: without parameters, and of what the collection has made."""
    found: list[Item] = []
    for operation in registry.operations.values():
        if operation.code in listed:
            continue
        levels = [level for level in ("system", "type", "instance") if level in operation.needs]
        name = next(iter(sorted(operation.instances) or operation.types), "")
        place = {"system": "", "type": f"{name}/", "instance": f"{name}/{{{{made_{name}}}}}/"}[levels[0]]
        is_get = "GET" in operation.methods
        body = None if is_get else _pretty({"resourceType": "Parameters"})
        path = f"{place}${operation.code}"
        found.append(_item(path, "GET" if is_get else "POST", path, "token", body=body))
    return found


def _cases(village: Village, people: People) -> Iterator[Item]:
    for case in village.case:
        calls = [(call, step_of(call, people, "{{$guid}}", "{{$isoTimestamp}}")) for call in case.call]
        yield {
            "name": case.title,
            "description": case.says,
            "item": [
                _item(
                    f"{call.token}: {step.told}",
                    step.method,
                    step.path,
                    call.token,
                    body=_pretty(step.body) if step.body else None,
                )
                for call, step in calls
            ],
        }


def _item(
    name: str, method: str, path: str, token: str, *, body: str | None = None, media: str = _FHIR, keeps: str | None = None
) -> Item:
    """A request. `token`: the variable that it is sent with; `keeps`: the variable that the id of what it makes is kept in."""
    header = [{"key": "Accept", "value": "*/*" if "$glucose-series" in path else _FHIR}]
    request: Item = {"method": method, "header": header, "auth": _bearer(token), "url": _url(path)}
    if body is not None:
        header.append({"key": "Content-Type", "value": media})
        request["body"] = {"mode": "raw", "raw": body, "options": {"raw": {"language": "json" if media != _FORM else "text"}}}
    if not path.startswith(("$", "?", "_", ".")) and "$" not in path and "/" not in path.partition("?")[0]:
        request["description"] = f"{_SPECIFICATION}#{name.partition(' ')[0].partition('-')[0]}"
    found: Item = {"name": name, "request": request, "response": []}
    if keeps is not None:
        script = ["if (pm.response.code < 300) {", f'  pm.collectionVariables.set("{keeps}", pm.response.json().id);', "}"]
        found["event"] = [{"listen": "test", "script": {"type": "text/javascript", "exec": script}}]
    return found


def _url(path: str) -> Item:
    place, _, query = path.partition("?")
    found: Item = {"raw": f"{{{{base}}}}{'/' if place else ''}{path}", "host": ["{{base}}"]}
    if place:
        found["path"] = place.split("/")
    if query:
        found["query"] = [dict(zip(("key", "value"), part.split("=", 1), strict=True)) for part in query.split("&")]
    return found


def _bearer(variable: str) -> Item:
    return {"type": "bearer", "bearer": [{"key": "token", "value": f"{{{{{variable}}}}}", "type": "string"}]}


def _pretty(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False, indent=2)
