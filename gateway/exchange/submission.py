"""Submissions of documents: what a Bundle must bring, what is made for a document that comes alone, what is answered beside.

Knows: https://profiles.ihe.net/ITI/MHD/ITI-65.html and #ITI-105, as `schemas/submissions.toml` has them.
Must not know: HTTP, MongoDB, how an entry is carried out.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from gateway.exchange.asked import Asked
from gateway.exchange.call import Call
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry, decode_entry
from gateway.exchange.gateway import Gateway
from gateway.fhir.dates import write_instant
from gateway.fhir.submissions import Kind
from gateway.fhir.values import token_values
from gateway.problem import Issue, Problem

_DOCUMENT, _LIST, _CONTENT, _PATIENT = "DocumentReference", "List", "Binary", "Patient"
_BODY = b'{"resourceType":"List"}'
_EXTENSION = "https://profiles.ihe.net/ITI/MHD/StructureDefinition/ihe-"
_SOURCES = ("Practitioner/", "PractitionerRole/", "Patient/", "Device/")  # who a List can be from


def hold_submission(gateway: Gateway, bundle: Any, asked: list[Asked]) -> list[Asked]:
    """The entries, each held to what its kind of submission asks of it; as they are where the Bundle is no submission.

    Raises Problem for what is none as a whole.
    """
    claimed = (bundle.meta.profile or ()) if bundle.meta is not None else ()
    kind = gateway.submissions.kind_of(claimed)
    if kind is None and not any(one.call.type == _LIST for one in asked):
        return asked
    lists = {n: _read_list(gateway, one.call) for n, one in enumerate(asked) if one.call.type == _LIST and one.call.body}
    sets = [n for n, one in lists.items() if gateway.submissions.is_submission_set(one)]
    if kind is None:
        if not sets:
            return asked
        kind = gateway.submissions.default
    if len(sets) != 1:
        raise Problem("structure", "a submission has one submission set", "Bundle.entry", status=422)
    if not any((one.call.interaction, one.call.type) == ("create", _DOCUMENT) for one in asked):
        raise Problem("structure", "a submission brings a DocumentReference at least", "Bundle.entry", status=422)
    return [_held(gateway, kind, one, lists.get(n), n) for n, one in enumerate(asked)]


def claims_submission(gateway: Gateway, bundle: Any) -> bool:
    """Whether a Bundle says that it is a submission."""
    claimed = (bundle.meta.profile or ()) if bundle.meta is not None else ()
    return gateway.submissions.kind_of(claimed) is not None


def refuse_batch(gateway: Gateway, bundle: Any) -> None:
    """Refuse a batch that says it is a submission, which is carried out as a whole or not at all."""
    if claims_submission(gateway, bundle):
        raise Problem("value", "a submission of documents is a transaction", "Bundle.type", status=422)


def _read_list(gateway: Gateway, call: Call) -> Any:
    try:
        return gateway.codec.decode(_LIST, call.body or b"", calm=call.calm)
    except Problem as problem:
        raise problem.within(call.place or _LIST) from None


def _held(gateway: Gateway, kind: Kind, one: Asked, entry_list: Any, position: int) -> Asked:
    profiles: tuple[str, ...]
    match one.call.interaction, one.call.type:
        case "create", "List" if gateway.submissions.is_submission_set(entry_list):
            profiles = (kind.submission_set,)
        case (("create" | "update"), "List") if gateway.submissions.is_folder(entry_list):
            profiles = (kind.folder,)
        case "create", "DocumentReference":
            profiles = (kind.document,)
        case ("create", "Binary") | ("patch", "DocumentReference") | (("create" | "update"), "Patient"):
            profiles = ()
        case _:
            raise Problem(
                "structure",
                "a submission brings documents, folders, contents, and patches of what it replaces: nothing else",
                f"Bundle.entry[{position}]",
                status=422,
            )
    return replace(one, call=msgspec.structs.replace(one.call, profiles=profiles, submitted=True))


def make_sets(gateway: Gateway, draft: Draft, fresh: list[Entry]) -> list[Entry]:
    """The submission sets of documents that come alone (ITI-105)."""
    made: list[Entry] = []
    for entry in fresh:
        if entry.publishes and entry.existing is None and entry.patient is not None:
            kind = gateway.registry[_LIST]
            try:
                draft.access.require(kind, "create")
            except Problem as problem:
                raise entry.locate(problem) from None
            body = msgspec.json.encode(_submission_set(gateway, draft, entry))
            call = Call("create", _LIST, entry.call.origin, body=_BODY, place=entry.call.place)
            made.append(
                Entry(
                    call,
                    kind,
                    id=gateway.ids.new(entry.patient[:3]),
                    patient=entry.patient,
                    resource=gateway.codec.decode(_LIST, body),
                    came_along=True,
                )
            )
    draft.entries += made
    return made


def _submission_set(gateway: Gateway, draft: Draft, entry: Entry) -> dict[str, Any]:
    told = msgspec.json.decode(gateway.codec.encode(entry.resource))
    designation = next(iter(told.get("category", ())), told.get("type"))
    author: dict[str, Any] = next(iter(told.get("author", ())), {})
    labels = [*labels_told(told)]  # to whom the document does not exist, nothing tells of which kind it is
    extensions: list[dict[str, Any]] = [
        {
            "url": f"{_EXTENSION}sourceId",
            "valueIdentifier": {"system": f"{draft.own}client", "value": draft.access.caller.source},
        }
    ]
    if designation is not None:
        extensions.append({"url": f"{_EXTENSION}designationType", "valueCodeableConcept": designation})
    found: dict[str, Any] = {
        "resourceType": _LIST,
        "meta": {"profile": [gateway.submissions.made_as], **({"security": labels} if labels else {})},
        "extension": extensions,
        "identifier": [
            {"use": "usual", "system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{gateway.ids.unique()}"},
        ],
        "status": "current",
        "mode": "working",
        "code": {"coding": [{"system": gateway.submissions.system, "code": gateway.submissions.submission_set}]},
        "subject": {"reference": f"Patient/{entry.patient}"},
        "date": write_instant(draft.access.now),
        "entry": [{"item": {"reference": f"{entry.kind.name}/{entry.id}"}}],
    }
    if str(author.get("reference", "")).startswith(_SOURCES):
        found["source"] = {"reference": author["reference"]}
    return found


def label_sets(gateway: Gateway, draft: Draft, fresh: list[Entry]) -> None:
    """Give the submission sets that were sent the labels by which their documents hide, whatever else they say of them."""
    for entry in fresh:
        is_sent = entry.kind.name == _LIST and entry.is_create and entry.call.submitted
        if not is_sent or not gateway.submissions.is_submission_set(entry.resource):
            continue
        wanted: dict[tuple[str | None, ...], dict[str, Any]] = {}
        for document in (one for one in draft.entries if one.kind.name == _DOCUMENT and one.is_create):
            if document.resource is None:  # it is known, from the same submission
                decode_entry(gateway, document)
            for coding in labels_told(msgspec.json.decode(gateway.codec.encode(document.resource))):
                if hides(gateway, coding):
                    wanted[(coding.get("system"), coding.get("code"), coding.get("display"))] = coding
        for own in entry.resource.meta.security or () if entry.resource.meta is not None else ():
            wanted.pop((own.system, own.code, own.display), None)
        if wanted:
            coding_type, meta_type = (gateway.registry.types.struct(name) for name in ("Coding", "Meta"))
            meta: Any = entry.resource.meta or meta_type()
            entry.resource.meta = meta
            meta.security = [*(meta.security or ()), *(msgspec.convert(one, coding_type) for one in wanted.values())]


def hides(gateway: Gateway, coding: dict[str, Any]) -> bool:
    """Whether a label hides anything from anybody; one that nobody knows does."""
    labels, system = gateway.policy.labels, coding.get("system")
    tokens = token_values(system, coding.get("code"))[:1] if coding.get("code") else ()
    return system not in labels.systems or any(token in rule.tokens for rule in labels.rules for token in tokens)


def labels_told(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The security labels of a document, as Codings; of what is none, one that nobody knows."""
    yield from told.get("meta", {}).get("security", ())
    for concept in told.get("securityLabel", ()):
        yield from concept.get("coding") or [{"display": concept.get("text", "?")}]


def warnings_of(gateway: Gateway, entry: Entry) -> Iterator[Issue]:
    """What of an entry is kept and has no consequences here: relations to what is elsewhere, recipients."""
    if entry.resource is None or not entry.is_create:
        return
    table = gateway.submissions
    for n, relation in enumerate(getattr(entry.resource, "relatesTo", None) or ()):
        is_here = (relation.target.reference or "").startswith(f"{entry.kind.name}/")
        if not is_here and relation.code in table.unprocessed:
            yield _warning(table.unprocessed[relation.code], f"{entry.kind.name}.relatesTo[{n}]")
    for n, extension in enumerate((entry.resource.extension or ()) if entry.kind.name == _LIST else ()):
        if extension.url in table.recipients:
            yield _warning(table.unavailable, f"{entry.kind.name}.extension[{n}]")


def _warning(text: str, expression: str) -> Issue:
    return Issue("not-supported", text, expression, severity="warning")


def is_publication(gateway: Gateway, entry: Entry) -> bool:
    """Whether an entry is a document that comes alone, with its content in it; decodes it if it may be."""
    if entry.kind.name != _DOCUMENT or not entry.is_create or entry.call.submitted:
        return False
    body = entry.call.body or b""
    if entry.resource is None:
        if b"\\" not in body and not any(url.encode() in body for url in gateway.submissions.simplified):
            return False
        decode_entry(gateway, entry)
    return gateway.submissions.is_simplified(entry.resource)
