"""The collection for Postman and Bruno: of the form they import, whole, and every request of it does what it says."""

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from gateway.fhir.registry import Registry
from gateway.sandbox.rows import read_village

VARIABLE = re.compile(r"\{\{([^{}]+)\}\}")


@pytest.fixture(scope="module")
def served(site: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{site}/sandbox/collection.json").json()
    return found


def requests(items: list[dict[str, Any]], *folders: str) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every request, with the folders it lies in."""
    for item in items:
        if "item" in item:
            yield from requests(item["item"], *folders, item["name"])
        else:
            yield folders, item


class Sender:
    """Sends requests as Postman does: variables filled in, ids of what was made kept."""

    def __init__(self, collection: dict[str, Any]) -> None:
        self.variables = {one["key"]: one["value"] for one in collection["variable"]}

    def fill(self, text: str) -> str:
        made = {"$guid": str(uuid.uuid4()), "$isoTimestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}"}
        return VARIABLE.sub(lambda found: made.get(found[1]) or self.variables[found[1]], text)

    def send(self, item: dict[str, Any]) -> httpx.Response:
        request = item["request"]
        headers = {one["key"]: one["value"] for one in request["header"]}
        [bearer] = request["auth"]["bearer"]
        headers["Authorization"] = f"Bearer {self.fill(bearer['value'])}"
        body = self.fill(request["body"]["raw"]).encode() if "body" in request else None
        answer = httpx.request(request["method"], self.fill(request["url"]["raw"]), headers=headers, content=body, timeout=60)
        for event in item.get("event", ()):
            script = " ".join(event["script"]["exec"])
            kept = re.search(r'collectionVariables\.set\("(\w+)", pm\.response\.json\(\)\.id\)', script)
            assert kept is not None
            if answer.status_code < 300:
                self.variables[kept[1]] = answer.json()["id"]
        return answer


def test_its_form_is_that_of_version_2_1(served: dict[str, Any]) -> None:
    assert served["info"]["schema"] == "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
    assert {*served} == {"info", "auth", "variable", "item"}
    known = {one["key"] for one in served["variable"]} | {"$guid", "$isoTimestamp"}
    for folders, item in requests(served["item"]):
        request, url = item["request"], item["request"]["url"]
        known |= set(re.findall(r'set\("(\w+)"', str(item.get("event", ""))))
        assert set(VARIABLE.findall(json.dumps(item))) <= known, (folders, item["name"])
        assert request["method"] in {"GET", "POST", "PUT", "PATCH", "DELETE"}
        assert item["response"] == []
        assert all({*one} == {"key", "value"} for one in request["header"])
        query = "&".join(f"{one['key']}={one['value']}" for one in url.get("query", ()))
        whole = "/".join([*url["host"], *url.get("path", ())]) + (f"?{query}" if query else "")
        assert url["raw"] == whole
        if "body" in request:
            assert request["body"]["mode"] == "raw"
            if request["body"]["options"]["raw"]["language"] == "json":
                json.loads(request["body"]["raw"])


def test_it_has_every_interaction_and_operation_that_is_served(served: dict[str, Any], registry: Registry) -> None:
    named: dict[str, set[str]] = {}
    for folders, item in requests(served["item"]):
        named.setdefault(folders[0], set()).add(item["name"])
    for kind in registry.resource_types.values():
        # Nobody makes an AuditEvent or a Provenance, so none of them has an id that is known beforehand.
        wanted = kind.interactions if "create" in kind.interactions else {"search-type"}
        assert wanted <= named[kind.name], kind.name
    asked = " ".join(item["request"]["url"]["raw"] for _, item in requests(served["item"]))
    assert [code for code in registry.operations if not re.search(rf"\${code}\b", asked)] == []
    assert {"capabilities", "transaction", "batch", "search-system", "history-system"} <= {
        name.partition(":")[0] for name in named["The whole system"]
    }


@pytest.mark.requirement("CONF-01")
def test_its_requests_are_answered_as_they_should_be(served: dict[str, Any]) -> None:
    sender, village = Sender(served), read_village()
    expected = {case.title: [call.status for call in case.call] for case in village.case}
    said: dict[str, list[int]] = {}
    wrong: list[str] = []
    for folders, item in requests(served["item"]):
        answer = sender.send(item)
        if len(folders) > 1:
            said.setdefault(folders[1], []).append(answer.status_code)
        elif answer.status_code >= 300:
            wrong.append(f"{folders[0]} {item['name']}: {answer.status_code} {answer.text[:300]}")
    assert wrong == []
    assert said == expected
