"""What is done to what a client reads: pages in no order, a reading that is corrected after it was read; and what it was given.

Knows: searchsets. Must not know: how requests come and go.
"""

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Resource = dict[str, Any]
PAGE = "exam-page"
ENOUGH = 5  # searches in which a correction could have come


@dataclass(slots=True)
class Pages:
    """A searchset that came as two pages, newer and older matches mixed, one match on both. `turned`: how often the second
    was asked for. `documents`: addresses of content that stood on them, `fetched`: those that were asked for.
    """

    name: str
    second: Resource
    documents: set[str]
    turned: int = 0
    fetched: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether the client has both pages and, if it began to fetch the documents on them, all of those."""
        return self.turned > 0 and (not self.fetched or self.documents <= set(self.fetched))


def mix(told: Resource, address: Callable[[str], str]) -> tuple[Resource, Pages] | None:
    """The first page in place of this searchset, and the second; None where there are too few matches. `address`: of a page."""
    entries = [one for one in told.get("entry", []) if is_match(one)]
    others = [one for one in told.get("entry", []) if not is_match(one)]
    if told.get("type") != "searchset" or len(entries) < 2:
        return None
    mixed = entries[::2][::-1] + entries[1::2][::-1]
    middle = len(mixed) // 2
    links = told.get("link", [])
    name = secrets.token_urlsafe(12)
    on = [link for link in links if link["relation"] != "next"] + [{"relation": "next", "url": address(name)}]
    contents = {str(one["attachment"].get("url", "")) for entry in entries for one in entry["resource"].get("content", [])}
    second = {**told, "entry": [mixed[0], *mixed[middle:], *others]}
    return {**told, "entry": mixed[:middle], "link": on}, Pages(name, second, {path_of(url) for url in contents if url})


@dataclass(slots=True)
class Correction:
    """A reading that was read, and corrected since. `searched`: how often the client searched since; `is_given`: whether it was
    given the correction. `at`: seconds.
    """

    corrected: Resource
    at: float
    searched: int = 0
    is_given: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the client has it, or had chances enough."""
        return self.is_given or self.searched >= ENOUGH

    def show(self, told: Resource, target: str) -> None:
        """Put the correction where the reading stands in an answer, and where a search asks for what has changed since."""
        entries = told.get("entry", [])
        for entry in [told, *entries] if told.get("resourceType") != "Bundle" else entries:
            resource = entry.get("resource", entry)
            if reference_of(resource) == reference_of(self.corrected):
                entry.update({"resource": self.corrected} if "resource" in entry else self.corrected)
                self.is_given = True
        if told.get("type") == "searchset":
            self.searched += 1
            if not self.is_given and _asks_since(target, self.corrected["meta"]["lastUpdated"]):
                told["entry"] = [*entries, {"resource": self.corrected, "search": {"mode": "match"}}]
                self.is_given = True


def correct(told: Resource, at: float) -> Correction | None:
    """The correction of the last reading of an answer; None where there is no reading in it."""
    readings = [one for one in resources_of(told) if one.get("resourceType") == "Observation" and value_of(one) is not None]
    if not readings or told.get("type") != "searchset":
        return None
    former = readings[-1]
    quantity = {**former["valueQuantity"], "value": (value_of(former) or 0) + 1}
    version = str(former.get("meta", {}).get("versionId", "1"))
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    meta = {**former.get("meta", {}), "versionId": str(int(version) + 1 if version.isdigit() else 2), "lastUpdated": now}
    return Correction({**former, "meta": meta, "status": "corrected", "valueQuantity": quantity}, at)


def as_correction(told: Resource) -> Resource:
    """The answer to what was created, as if it had corrected what was there: 200, and a second version."""
    if told.get("resourceType") != "Bundle":
        return {**told, "meta": {**told.get("meta", {}), "versionId": "2"}}
    entries = [{**entry, "response": _second(entry["response"])} if "response" in entry else entry for entry in told["entry"]]
    return {**told, "entry": entries}


def _second(response: Resource) -> Resource:
    if not str(response.get("status", "")).startswith("201"):
        return response
    return {**response, "status": "200 OK", "etag": 'W/"2"', "location": as_second(str(response.get("location", "")))}


def as_second(location: str) -> str:
    """The Location of the second version."""
    return re.sub(r"/_history/[^/]*$", "/_history/2", location)


def is_match(entry: Resource) -> bool:
    """Whether an entry of a searchset is what was looked for."""
    return "resource" in entry and entry.get("search", {}).get("mode", "match") == "match"


def resources_of(told: Resource) -> Iterator[Resource]:
    """What an answer gives: the matches of a searchset, or the resource itself."""
    if told.get("resourceType") == "Bundle":
        yield from (entry["resource"] for entry in told.get("entry", []) if is_match(entry))
    elif "id" in told:
        yield told


def reference_of(resource: Resource) -> str:
    """`Type/id`."""
    return f"{resource.get('resourceType', '')}/{resource.get('id', '')}"


def value_of(resource: Resource) -> float | int | None:
    """The number that a reading tells, None where it tells none."""
    quantity = resource.get("valueQuantity")
    value = quantity.get("value") if isinstance(quantity, dict) else None
    return value if isinstance(value, int | float) else None


def path_of(url: str) -> str:
    """The path of an address, which is the same on either side of the proxy."""
    return urlsplit(url).path


def _asks_since(target: str, moment: str) -> bool:
    """Whether a search asks for Observations that changed after some moment before this one."""
    parts = urlsplit(target)
    since = [value[2:] for name, value in parse_qsl(parts.query) if name == "_lastUpdated" and value[:2] in ("ge", "gt")]
    try:
        begins = [datetime.fromisoformat(value) for value in since]
        told = datetime.fromisoformat(moment)
        return parts.path.endswith("/Observation") and bool(begins) and all(_aware(begin) < told for begin in begins)
    except ValueError:
        return False


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
