"""What attaches content: the Attachments of a resource, and what must be true of them.

Knows: https://hl7.org/fhir/R4/datatypes.html#Attachment; that `hash` and `size` are those of the decoded bytes; that a resource
attaches content of its own record only, which its writer deposited or may read already.
Must not know: HTTP, MongoDB, how content is kept.
"""

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.access.access import unknown_reference
from gateway.exchange.contents import Deposit, examine, sha1_of
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.fhir.identity import digest_of
from gateway.fhir.media import plain_type
from gateway.fhir.registry import ResourceType
from gateway.problem import Issue, Problem
from gateway.store.contents import find_attachable
from gateway.store.mongo import Document

RAW = "Binary"


def attachments_of(kind: ResourceType, resource: Any) -> Iterator[tuple[Any, str]]:
    """The Attachments by which content may lie here, each with its expression below the resource."""
    for branch, path in zip(kind.attachments, kind.attachment_paths, strict=True):
        first, dot, rest = path.partition(".")
        for n, attachment in enumerate(branch.read(resource)):
            yield attachment, f".{first}[{n}]{dot}{rest}"


def attached_ids(kind: ResourceType, resource: Any) -> list[str]:
    """The ids of what is attached and lies here."""
    found = (_target(attachment.url) for attachment, _ in attachments_of(kind, resource) if attachment.url)
    return list(dict.fromkeys(identifier for identifier in found if identifier))


def still_attached(kind: ResourceType, former: Document, values: Document) -> list[str]:
    """What the versions before attach besides: it can be read with these as long as whose right that is has not changed."""
    weighed = {kind.consent_code, kind.consent_date, *kind.scope_parameters}
    before, after = former["search"], values["search"]
    is_as_it_was = all(before.get(name) == after.get(name) for name in weighed if name is not None)
    is_as_hidden = all(former.get(name) == values.get(name) for name in ("labels", "hidden_until"))
    mine = values.get("attached", ())
    return [one for one in former.get("attached", ()) if one not in mine] if is_as_it_was and is_as_hidden else []


def attachment_issues(gateway: Gateway, kind: ResourceType, resource: Any) -> Iterator[Issue]:
    """What is wrong with data that stands in a resource itself."""
    if kind.is_raw and resource.data is not None:
        yield from _type_issues(gateway, resource.contentType, b64decode(resource.data), f"{kind.name}.contentType")
    for attachment, place in attachments_of(kind, resource):
        if attachment.data is not None:
            plain = b64decode(attachment.data)
            yield from data_issues(gateway, attachment, plain, kind.name + place)


class _Contained(msgspec.Struct):
    resourceType: str  # noqa: N815 (FHIR's own name)


def contained_issues(gateway: Gateway, resource: Any) -> Iterator[Issue]:
    """Content inside what is contained: it would lie there unsealed, and nothing would say who may read it."""
    for n, raw in enumerate(getattr(resource, "contained", None) or ()):
        name = msgspec.json.decode(raw, type=_Contained).resourceType
        kind = gateway.registry.find(name)
        if kind is None or not (kind.is_raw or kind.attachments):
            continue
        inner = gateway.codec.load(name, raw)
        if (kind.is_raw and inner.data) or any(attachment.data for attachment, _ in attachments_of(kind, inner)):
            text = "content is not taken in what is contained: it is attached to the resource itself"
            yield Issue("not-supported", text, f"{type(resource).__name__}.contained[{n}]")


def read_deposit(gateway: Gateway, entry: Entry) -> None:
    """Take the content out of an entry that creates it. Raises Problem where there is none, or of another type than it says."""
    resource = entry.resource
    if entry.deposit is not None:
        return
    if entry.call.deposit is not None:
        settle_deposit(entry, entry.call.deposit)
        return
    if entry.call.if_none_exist is not None:
        raise entry.locate(Problem("not-supported", "content is known by its bytes, without a condition", status=400))
    if not resource.data:
        raise entry.locate(Problem("required", "there is no content", "Binary.data"))
    plain = b64decode(resource.data) if entry.call.plain is None else entry.call.plain
    try:
        gateway.media_types.require(resource.contentType, plain, "Binary.contentType")
    except Problem as problem:
        raise entry.locate(problem) from None
    settle_deposit(entry, examine(plain, resource.contentType))
    resource.data = resource.data__ext = None


def settle_deposit(entry: Entry, deposit: Deposit) -> None:
    """This is the content of an entry: what is sent again is known by it."""
    entry.deposit, entry.digest = deposit, digest_of(deposit.sha256)


def names_content(entry: Entry, named: str, there: str | None) -> bool:
    """Whether an entry attaches what has this fullUrl. `there`: the address of the server whose ids the entry uses."""
    attached = (attachment.url for attachment, _ in attachments_of(entry.kind, entry.resource))
    return any(url is not None and named in (url, (there or "") + url) for url in attached)


def data_issues(gateway: Gateway, attachment: Any, plain: bytes, where: str) -> Iterator[Issue]:
    """What is said of data that is not true of its bytes. `where`: the expression of the Attachment."""
    yield from _claim_issues(attachment, len(plain), sha1_of(plain), where)
    yield from _type_issues(gateway, attachment.contentType, plain, f"{where}.contentType")


async def check_attachments(gateway: Gateway, draft: Draft, entries: list[Entry]) -> None:
    """Refuse what attaches content that is not there, of another record, or not the writer's to attach: one answer for all.

    And what says something else of it than its bytes do.
    """
    asked = [
        (entry, attachment, entry.kind.name + place)
        for entry in entries
        for attachment, place in attachments_of(entry.kind, entry.resource)
        if attachment.url is not None and (entry.call.submitted or _is_content(gateway, attachment.url))
    ]
    if not asked:
        return
    sent = {f"{e.id}": e for e in draft.entries if e.is_create and e.kind.is_raw and e.deposit is not None}
    named = {identifier for _, attachment, _ in asked if (identifier := _target(attachment.url))} - sent.keys()
    there = {}
    if named:
        kind = gateway.registry[RAW]
        there = await find_attachable(draft.access, gateway.mongo, kind, gateway.registry.holders, named)
    for entry, attachment, where in asked:
        identifier = _target(attachment.url) or ""
        facts = there.get(identifier)
        if identifier in sent:
            deposit = sent[identifier].deposit
            facts = {**deposit.facts, "patient": sent[identifier].patient} if deposit is not None else None
        if facts is None or facts["patient"] != entry.patient:
            raise entry.locate(unknown_reference(f"{where}.url"))
        issues = [*_claim_issues(attachment, facts["size"], facts["sha1"], where)]
        if attachment.contentType is not None and plain_type(attachment.contentType) != plain_type(facts["media"]):
            issues.append(Issue("value", "the content is of another media type", f"{where}.contentType"))
        if issues:
            raise entry.locate(Problem.of(issues, status=422))


def _is_content(gateway: Gateway, url: str) -> bool:
    """Whether a URL, as it is once names and our own address are replaced, leads to content here, or nowhere."""
    first = url.partition("/")[0]
    kind = gateway.registry.find(first)
    is_resource = kind is not None and not kind.is_raw and first != url
    return url.startswith(("urn:uuid:", "urn:oid:")) or (":" not in first and not is_resource)


def _target(url: str) -> str | None:
    """The id of the content that a URL names, None where it names none here."""
    type_name, _, rest = url.partition("/")
    identifier = rest.partition("/_history/")[0]
    return identifier if type_name == RAW and identifier and "/" not in identifier else None


def _claim_issues(attachment: Any, size: int, sha1: str, where: str) -> Iterator[Issue]:
    if attachment.size is not None and attachment.size != size:
        yield Issue("value", "this is not the size of the content", f"{where}.size")
    if attachment.hash is not None and "".join(attachment.hash.split()) != sha1:
        yield Issue("value", "this is not the SHA-1 of the content", f"{where}.hash")


def _type_issues(gateway: Gateway, content_type: str | None, plain: bytes, expression: str) -> Iterator[Issue]:
    try:
        gateway.media_types.require(content_type, plain, expression)
    except Problem as problem:
        yield from problem.issues
