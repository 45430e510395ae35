"""Data that comes in a resource: it becomes content of its own, sealed with the key of its patient, whatever its length.

Knows: that `Attachment.data` becomes a Binary and `Attachment.url` names it, in a create, an update or what a patch makes.
Must not know: HTTP, MongoDB, how content is sealed.
"""

from base64 import b64decode
from typing import Any

from gateway.exchange.attachments import RAW, attachments_of, data_issues, settle_deposit
from gateway.exchange.call import Call
from gateway.exchange.contents import examine
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry, decode_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.rules import profile_issues
from gateway.problem import Problem

_BODY = b'{"resourceType":"Binary"}'


def move_out(gateway: Gateway, entries: list[Entry]) -> list[Entry]:
    """Take the data out of the resources that are to be written; returns the creates of what it becomes."""
    made: list[Entry] = []
    for entry in entries:
        body = entry.call.body or b""
        is_sent = entry.call.interaction in ("create", "update") and bool(entry.kind.attachments)
        if is_sent and (entry.publishes or b'"data"' in body or b"\\" in body):
            if entry.resource is None:
                decode_entry(gateway, entry)
            if entry.publishes:
                _check_published(gateway, entry)
            for attachment, place in _with_data(entry):
                plain = b64decode(attachment.data)
                _check_moved(gateway, entry, attachment, plain, place)
                name = f"urn:uuid:{gateway.ids.unique()}"
                made.append(_become_content(gateway, entry, attachment, plain, name))
                entry.has_names = True
    return made


def move_patched(gateway: Gateway, draft: Draft, fresh: list[Entry]) -> list[Entry]:
    """The same for what patches make, which is known only when it is known what they patch.

    (What a type's lifecycle lets change is no content: what it does not, is refused later.)
    """
    made: list[Entry] = []
    for entry in fresh:
        if entry.patch is None or not entry.kind.attachments or entry.kind.lifecycle is not None or entry.patient is None:
            continue
        for attachment, place in _with_data(entry):
            plain = b64decode(attachment.data)
            _check_moved(gateway, entry, attachment, plain, place)
            one = _become_content(gateway, entry, attachment, plain, f"{RAW}/{gateway.ids.new(entry.patient[:3])}")
            one.full_url, one.id, one.patient = None, attachment.url.removeprefix(f"{RAW}/"), entry.patient
            owner = gateway.registry.types.struct("Reference")(reference=f"Patient/{entry.patient}")
            one.resource.securityContext = owner
            made.append(one)
    draft.entries += made
    return made


def _with_data(entry: Entry) -> list[tuple[Any, str]]:
    return [(attachment, place) for attachment, place in attachments_of(entry.kind, entry.resource) if attachment.data]


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
    """What is said of the data must be true, and the profiles must let it be there: once it is moved, nobody can tell."""
    found = () if entry.publishes else profile_issues(gateway, entry.kind.name, entry.resource, entry.call.profiles)
    issues = [issue for issue in found if (issue.expression or "").endswith(".data")]
    issues += data_issues(gateway, attachment, plain, entry.kind.name + place)
    if issues:
        raise entry.locate(Problem.of(issues, status=422))


def _become_content(gateway: Gateway, entry: Entry, attachment: Any, plain: bytes, name: str) -> Entry:
    resource = gateway.registry.types.struct(RAW)(contentType=attachment.contentType)
    call = Call("create", RAW, entry.call.origin, body=_BODY, place=entry.call.place)
    made = Entry(call, gateway.registry[RAW], name, identity=resource, resource=resource, came_along=True)
    settle_deposit(made, examine(plain, attachment.contentType))
    attachment.url, attachment.data, attachment.data__ext = name, None, None
    return made
