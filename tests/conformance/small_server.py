"""A FHIR server that is not ours: right in some things, wrong in others, and without most.

Right: create, read, delete (410), search by identifier with pages; a CapabilityStatement. Wrong: no ETag, anything for an
Accept, unknown parameters and dates ignored. Not there: conditional anything, patch, Bundles, tokens.
"""

import json
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()
stored: dict[str, tuple[str, dict[str, Any]] | None] = {}
INTERACTIONS = [{"code": code} for code in ("create", "read", "update", "delete", "search-type")]


def answer(status: int, resource: object, **headers: str) -> Response:
    text = resource if isinstance(resource, str) else json.dumps(resource)
    return Response(text, status, {name.replace("_", "-"): value for name, value in headers.items()}, "application/fhir+json")


def refuse(status: int, code: str) -> Response:
    return answer(status, {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code}]})


@app.get("/readyz")
def ready() -> dict[str, str]:
    return {}


@app.get("/base/metadata")
def metadata() -> Response:
    search = [
        {"name": "identifier", "type": "token"},
        {"name": "patient", "type": "reference"},
        {"name": "date", "type": "date"},
    ]
    kinds = [{"type": name, "interaction": INTERACTIONS, "searchParam": search} for name in ("Patient", "Observation")]
    told = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "kind": "instance", "format": ["json"]}
    return answer(200, {**told, "software": {"name": "small"}, "rest": [{"mode": "server", "resource": kinds}]})


@app.post("/base/{kind}")
async def create(kind: str, request: Request) -> Response:
    return _store(kind, str(uuid.uuid4()), await request.body(), request, 201)


@app.put("/base/{kind}/{name}")
async def update(kind: str, name: str, request: Request) -> Response:
    return _store(kind, name, await request.body(), request, 200)


@app.get("/base/{kind}/{name}")
def read(kind: str, name: str) -> Response:
    if f"{kind}/{name}" not in stored:
        return refuse(404, "not-found")
    found = stored[f"{kind}/{name}"]
    return answer(200, found[0]) if found else refuse(410, "deleted")


@app.delete("/base/{kind}/{name}")
def delete(kind: str, name: str) -> Response:
    stored[f"{kind}/{name}"] = None
    return Response(status_code=204)


@app.get("/base/{kind}")
def search(kind: str, request: Request) -> Response:
    if kind not in ("Patient", "Observation"):
        return refuse(404, "not-supported")
    wanted = [value.split(",") for value in request.query_params.getlist("identifier")]
    matches = [found for path, found in stored.items() if found and path.startswith(kind) and _matches(found[1], wanted)]
    matches.sort(
        key=lambda found: found[1].get("effectiveDateTime", ""), reverse="-date" in request.query_params.get("_sort", "")
    )
    start, count = int(request.query_params.get("page", 0)), int(request.query_params.get("_count", 100))
    base = str(request.url).split("?")[0].rsplit("/", 1)[0]
    links = [{"relation": "self", "url": str(request.url)}]
    if start + count < len(matches):
        links.append({"relation": "next", "url": str(request.url.include_query_params(page=start + count))})
    entries = [
        {"fullUrl": f"{base}/{kind}/{found['id']}", "resource": found, "search": {"mode": "match"}}
        for _, found in matches[start : start + count]
    ]
    bundle = {"resourceType": "Bundle", "type": "searchset", "total": len(matches), "link": links, "entry": entries}
    return answer(200, bundle)


def _matches(resource: dict[str, Any], wanted: list[list[str]]) -> bool:
    own = {f"{one.get('system', '')}|{one['value']}" for one in resource.get("identifier", [])}
    own |= {one.split("|")[0] + "|" for one in own}
    return all(own & set(values) for values in wanted)


def _store(kind: str, name: str, body: bytes, request: Request, status: int) -> Response:
    try:
        resource = json.loads(body)
    except ValueError:
        return refuse(400, "structure")
    known = {"resourceType", "id", "meta", "status", "identifier", "category", "code", "subject", "effectiveDateTime", "name"}
    known |= {"valueQuantity", "derivedFrom", "extension"}
    code = resource.get("code", {})
    is_good = kind == resource.get("resourceType") and not resource.keys() - known and resource.get("category") != []
    if not is_good or (kind == "Observation" and (not isinstance(code, dict) or not code or resource["status"] == "purring")):
        return refuse(422, "invalid")
    meta = {**resource.get("meta", {}), "versionId": "1", "lastUpdated": datetime.now(UTC).isoformat()}
    stamped = {**resource, "id": name, "meta": meta}
    # What is a number stays as it was written: the text is kept, with id and meta put in front.
    first = f'{{"resourceType": "{kind}", "id": "{name}", "meta": {json.dumps(meta)}, '
    rest = (
        body.decode().split(f'"resourceType": "{kind}", ', 1)[-1] if "meta" not in resource and "id" not in resource else None
    )
    stored[f"{kind}/{name}"] = (first + rest if rest else json.dumps(stamped), stamped)
    return answer(status, stamped, location=f"{request.base_url}base/{kind}/{name}")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
