"""What attaches content: the Attachments of a resource, and what must be true of them.

Knows: https://hl7.org/fhir/R4/datatypes.html#Attachment; that `hash` and `size` are those of the decoded bytes; that a resource
attaches content of its own record only, which its writer deposited or may read already; that long data is kept apart.
Must not know: HTTP, MongoDB, how content is kept.
"""

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from gateway.access.access import unknown_reference
from gateway.exchange.call import Call
from gateway.exchange.contents import Deposit, examine, sha1_of
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry, decode_entry
from gateway.exchange.gateway import Gateway
from gateway.fhir.identity import digest_of
from gateway.fhir.media import plain_type
from gateway.fhir.registry import ResourceType
from gateway.problem import Issue, Problem
from gateway.store.contents import find_attachable

RAW = "Binary"
_BODY = b'{"resourceType":"Binary"}'


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


def attachment_issues(gateway: Gateway, kind: ResourceType, resource: Any) -> Iterator[Issue]:
    """What is wrong with data that stands in a resource itself."""
    if kind.is_raw and resource.data is not None:
        yield from _type_issues(gateway, resource.contentType, b64decode(resource.data), f"{kind.name}.contentType")
    for attachment, place in attachments_of(kind, resource):
        if attachment.data is not None:
            plain = b64decode(attachment.data)
            yield from _claim_issues(attachment, len(plain), sha1_of(plain), kind.name + place)
            if attachment.contentType is not None:
                yield from _type_issues(gateway, attachment.contentType, plain, f"{kind.name}{place}.contentType")


def move_out(gateway: Gateway, entries: list[Entry]) -> list[Entry]:
    """Take long data out of the resources that are to be written; returns the creates of what it becomes.

    Out of a document that comes alone, all of it: whatever it is to say is checked before.
    """
    made: list[Entry] = []
    for entry in entries:
        most = 0 if entry.publishes else gateway.limits.inline_bytes
        is_sent = entry.call.interaction in ("create", "update") and bool(entry.kind.attachments)
        if is_sent and len(entry.call.body or b"") > most:
            if entry.resource is None:
                decode_entry(gateway, entry)
            if entry.publishes:
                _check_published(gateway, entry)
            for attachment, place in attachments_of(entry.kind, entry.resource):
                plain = b64decode(attachment.data or "")
                if len(plain) > most:
                    _check_moved(gateway, entry, attachment, plain, place)
                    made.append(_become_content(gateway, entry, attachment, plain))
    return made


def _check_published(gateway: Gateway, entry: Entry) -> None:
    """Hold a document that comes alone to the profiles it claims, of which it then claims none: its data becomes a url."""
    meta, simplified = entry.resource.meta, gateway.submissions.simplified
    profiles = (gateway.registry.profiles[url] for url in meta.profile if url in simplified)
    issues = [issue for profile in profiles for issue in profile.check(entry.resource)]
    if issues:
        raise entry.locate(Problem.of(issues, status=422))
    others = [url for url in meta.profile if url not in simplified]
    meta.profile = [*others, gateway.submissions.default.document]


def _check_moved(gateway: Gateway, entry: Entry, attachment: Any, plain: bytes, place: str) -> None:
    where = entry.kind.name + place
    issues = [
        *_claim_issues(attachment, len(plain), sha1_of(plain), where),
        *_type_issues(gateway, attachment.contentType, plain, f"{where}.contentType"),
    ]
    if issues:
        raise entry.locate(Problem.of(issues, status=422))


def _become_content(gateway: Gateway, entry: Entry, attachment: Any, plain: bytes) -> Entry:
    name = f"urn:uuid:{gateway.ids.unique()}"
    resource = gateway.registry.types.struct(RAW)(contentType=attachment.contentType)
    call = Call("create", RAW, entry.call.origin, body=_BODY, place=entry.call.place)
    made = Entry(call, gateway.registry[RAW], name, identity=resource, resource=resource, came_along=True)
    settle_deposit(made, examine(plain, attachment.contentType))
    attachment.url, attachment.data, attachment.data__ext = name, None, None
    entry.has_names = True
    return made


def refuse_long_data(gateway: Gateway, entry: Entry) -> None:
    """Long data is content, sealed apart: a patch, which is planned when it is too late for that, does not bring any."""
    for attachment, place in attachments_of(entry.kind, entry.resource):
        if len(b64decode(attachment.data or "")) > gateway.limits.inline_bytes:
            text = f"data of more than {gateway.limits.inline_bytes} bytes comes with a create or an update, or as Binary"
            raise Problem("too-long", text, f"{entry.kind.name}{place}.data", status=422)


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
