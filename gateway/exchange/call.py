"""One FHIR interaction and its answer, the same whether it came as an HTTP request or as an entry of a Bundle.

Knows: what the interactions of https://hl7.org/fhir/R4/http.html take and give. Must not know: HTTP, stores.
"""

from collections.abc import AsyncIterator, Callable, Container, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from gateway.exchange.parameters import Pairs
from gateway.problem import Issue, operation_outcome

Return = Literal["minimal", "representation", "OperationOutcome"]
PatchLanguage = Literal["json", "fhirpath"]
Format = Literal["json", "xml"]

READS = frozenset(
    ("read", "vread", "history-instance", "history-type", "history-system", "search-type", "search-system")
)  # they change nothing

# The interactions that share an address, each with its method: that of a type, and that of a resource.
_CHANGES: Mapping[str, str] = {"update": "PUT", "patch": "PATCH", "delete": "DELETE"}
_OF_TYPE: Mapping[str, str] = {"search-type": "GET, HEAD", "create": "POST", **_CHANGES}
_OF_RESOURCE: Mapping[str, str] = {"read": "GET, HEAD", **_CHANGES}


class Origin(msgspec.Struct, frozen=True):
    """Where a call came from: for the audit."""

    request_id: str
    address: str | None


class Call(msgspec.Struct, frozen=True):
    """An interaction as asked.

    `criteria`: in place of the id of what is updated, patched or deleted, the search that finds it; `parameters`: decoded
    name-value pairs of a search or history; `raw`: the request line (and form) of a search, for the audit alone; `plain`:
    of content in a Bundle, its bytes, where only a mark stands for them in `body`; `sent`: in which format the body is;
    `identity`: what `Identities.read` gave for it, where it was read already; `patch`: in which language that of a patch
    is; `renews`: whether a create makes a new version of what is known under the same identifier and says something else;
    `bodiless`: in a Bundle, that of what is read only the status and version are wanted; `profiles`: what it is held to,
    whatever it claims; `submitted`: whether it is part of a submission of documents; `part_of`: what else the audit calls
    it; `place`: where the call stands in a Bundle, for expressions. Of content that comes as such: `owner`, the patient it
    is said to be of, `media`, its type, `upload`, its bytes, `described`, what else its resource says once they have come,
    and `deposit`, what became of them; `streams`: whether content is wanted as such. `skip`: how many of what a search
    finds are passed over.
    """

    interaction: str
    type: str
    origin: Origin
    id: str | None = None
    version: str | None = None
    criteria: Pairs | None = None
    parameters: Pairs = ()
    body: bytes | None = None
    plain: bytes | None = None
    sent: Format = "json"
    identity: Any = None
    calm: bool = False
    bodiless: bool = False
    patch: PatchLanguage | None = None
    renews: bool = False
    profiles: tuple[str, ...] = ()
    submitted: bool = False
    part_of: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_none_exist: str | None = None
    prefer: Return | None = None
    lenient: bool = False
    raw: str | None = None
    place: str | None = None
    owner: str | None = None
    media: str | None = None
    upload: AsyncIterator[bytes] | None = None
    described: Callable[[], bytes] | None = None
    deposit: Any = None
    streams: bool = False
    skip: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What an interaction gives. `body` is JSON; `type`, `id` and `version` name the resource it is about, if one.

    `located`: whether its client is told where the resource is; `replayed`: whether it was done by an earlier request;
    `receipt`: what became of something that may have been sent before (created, known, corrected);
    `content`: in place of a body, a content to be read; `warnings`: what of a write has no consequences here; `refusals`: of
    a Bundle whose entries stand each for itself, issue type and status of those that were refused.
    """

    status: int
    body: bytes | None = None
    type: str | None = None
    id: str | None = None
    version: int | None = None
    updated: datetime | None = None
    located: bool = False
    replayed: bool = False
    receipt: str | None = None
    content: Any = None
    warnings: tuple[Issue, ...] = ()
    refusals: tuple[tuple[str, int], ...] = ()

    @property
    def etag(self) -> str | None:
        """The ETag of the version."""
        return None if self.version is None else write_etag(self.version)

    @property
    def location(self) -> str | None:
        """Where the version is, below the address of this service."""
        return f"{self.type}/{self.id}/_history/{self.version}" if self.located else None

    def outcome(self) -> dict[str, Any]:
        """The OperationOutcome that says it was done, for a client that prefers one."""
        done = self.receipt or {201: "created", 204: "deleted"}.get(self.status, "done")
        return operation_outcome([Issue("informational", done, severity="information"), *self.warnings])


def write_etag(version: int) -> str:
    """The weak ETag of a version (https://hl7.org/fhir/R4/http.html#versioning)."""
    return f'W/"{version}"'


def names_version(etags: str, version: int) -> bool:
    """Whether a list of ETags, from `If-Match` or `If-None-Match`, names this version; `*` names any."""
    named = {tag.strip().removeprefix("W/").strip('"') for tag in etags.split(",")}
    return str(version) in named or "*" in named


def methods_beside(call: Call, interactions: Container[str]) -> str:
    """The methods by which the address of this call serves others of these interactions (the header `Allow`)."""
    address = _OF_TYPE if call.id is None else _OF_RESOURCE
    address = address if call.interaction in address else {call.interaction: "GET, HEAD"}
    return ", ".join(method for interaction, method in address.items() if interaction in interactions)
