"""References of what is written: resolved within the Bundle, and never to anything the writer may not point at.

Knows: how a fullUrl is replaced everywhere, and the one answer for a target that is missing, another patient's or hidden.
Must not know: HTTP, MongoDB.
"""

import re
from collections.abc import Container, Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from gateway.access.access import unknown_reference
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.fhir.types import NESTED
from gateway.pace import paced
from gateway.problem import Issue, Problem
from gateway.store.ids import bucket_of

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")  # RFC 3986 §3.1

Target = tuple[Entry, str, str]  # who points, at which `Type/id`, from where


async def resolve_references(gateway: Gateway, draft: Draft, entries: list[Entry]) -> list[Target]:
    """Rewrite, in these entries, what stands for others of the Bundle or for this service.

    Returns the local references of what is new, to be checked.
    """
    marks = {url.encode()[:9] for url in (*draft.urls, *draft.ids)} | {draft.own.encode()}
    targets: list[Target] = []
    async for entry in paced(entries):
        raw = entry.call.body or b""
        is_escaped = b"\\" in raw  # then its bytes tell nothing of what stands in it
        there = draft.server_of(entry) if draft.urls else None
        if there or is_escaped or entry.has_names or any(mark in raw for mark in marks):
            gateway.references.rewrite(entry.resource, partial(draft.localize, there=there), draft.replace)
        if entry.existing is None:
            try:
                targets += _local_targets(gateway, entry, is_escaped or b"xtension" in raw)
            except Problem as problem:
                draft.refuse(entry, problem)
    strange = {target for _, target, _ in targets if bucket_of(target.partition("/")[2]) is None} - draft.ids.keys()
    meant = {text: url for text, url in _ids_as_sent(draft).items() if text in strange} if strange else {}
    if not meant:
        return targets
    draft.ids.update(meant)
    return await resolve_references(gateway, draft, entries)


class _Sent(msgspec.Struct):
    id: str | None = None


def _ids_as_sent(draft: Draft) -> dict[str, str]:
    """What the entries' own ids stand for: some senders link by them, although they are not kept (MES, API Mesures §2.2.3).

    Only ids that can be none of ours are looked at, and only those that stand for one entry.
    """
    found: dict[str, set[str]] = {}
    for entry in draft.entries:
        if entry.is_create and entry.call.place:
            sent = msgspec.json.decode(entry.call.body or b"", type=_Sent).id
            found.setdefault(f"{entry.kind.name}/{sent}", set()).add(f"{entry.kind.name}/{entry.id}")
    return {text: urls.pop() for text, urls in found.items() if len(urls) == 1}


async def check_references(gateway: Gateway, draft: Draft, targets: Iterable[Target]) -> None:
    """Refuse a reference to what does not exist, belongs to another patient or may not be seen: one answer for all."""
    written = {f"{e.kind.name}/{e.id}": e.patient for e in draft.entries if e.is_create}
    deleted = {f"{e.kind.name}/{e.id}" for e in draft.entries if e.call.interaction == "delete"}
    asked: dict[str, dict[str, None]] = {}
    for entry, target, expression in targets:
        type_name, _, identifier = target.partition("/")
        if gateway.registry.find(type_name) is None or target in deleted:
            draft.refuse(entry, unknown_reference(expression))
        elif target not in written and target != f"Patient/{entry.patient}":
            asked.setdefault(type_name, {})[identifier] = None
    found: dict[str, str | None] = dict(written)
    for type_name, ids in asked.items():
        kind = gateway.registry[type_name]
        there = await gateway.lookups.find_targets(draft.access, kind, list(ids))
        found |= {f"{type_name}/{identifier}": patient for identifier, patient in there.items()}
    for entry, target, expression in targets:
        if target == f"Patient/{entry.patient}":
            continue
        if target not in found or (found[target] not in (None, entry.patient) and not _is_between_persons(entry, expression)):
            draft.refuse(entry, unknown_reference(expression))
        elif ".actor[" in expression and found[target] is not None and target.startswith("Device/"):
            raise Problem("value", "an actor is of the catalogue, not a device of the patient", expression)


def _is_between_persons(entry: Entry, expression: str) -> bool:
    """Whether a reference is one that may lead to another record, if the writer may see what is there: Patient.link."""
    return entry.kind.is_patient and ".link[" in expression


def reference_issues(gateway: Gateway, resource: Any, known: Container[str] | None = None) -> Iterator[Issue]:
    """Every reference that can never be right, whatever is stored.

    `known`: what is named by a fullUrl of the same Bundle; None outside Bundles, where no reference is a search.
    """
    own = f"{gateway.settings.base_url}/"
    for text, expression, found in _examine(gateway, resource, type(resource).__name__, own, with_extensions=True):
        type_name, is_search, _ = text.partition("?")
        if known is not None and (text in known or (is_search and gateway.registry.find(type_name) is not None)):
            continue
        if isinstance(found, Problem):
            yield from found.issues
        elif found is not None and gateway.registry.find(found.partition("/")[0]) is None:
            yield from unknown_reference(expression).issues


def _local_targets(gateway: Gateway, entry: Entry, with_extensions: bool) -> list[Target]:
    """The references of a resource to resources of this service. Raises Problem for one that can never be right."""
    targets: list[Target] = []
    for _, expression, found in _examine(gateway, entry.resource, entry.expression(), "", with_extensions=with_extensions):
        if isinstance(found, Problem):
            raise found
        if found is not None:
            targets.append((entry, found, expression))
    return targets


def _examine(
    gateway: Gateway, resource: Any, root: str, own: str, *, with_extensions: bool
) -> Iterator[tuple[str, str, str | Problem | None]]:
    """For each literal reference: its text, its expression below `root`, and which `Type/id` of this service it names.

    A Problem where it can never be right, None where it leads elsewhere. `own`: the address of this service.
    """
    contained: set[Any] | None = None  # decoded once, not once for each reference
    for place in gateway.references.find(resource, with_extensions=with_extensions):
        text = place.reference.reference
        if text is None:
            continue
        expression = root + place.expression.partition(".")[1] + place.expression.partition(".")[2]
        if text.startswith("#"):
            contained = _contained_ids(gateway, resource) if contained is None else contained
            if text != "#" and text[1:] not in contained:
                absent = Problem("invariant", "ref-1: a contained resource of this id is not there", expression)
                yield text, expression, absent
            continue
        target = _local_reference(text.removeprefix(own))
        if target is None:
            yield text, expression, _foreign_problem(text, expression)
            continue
        type_name = target.partition("/")[0]
        if place.targets and type_name not in place.targets and NESTED not in place.targets:
            allowed = ", ".join(place.targets)
            yield text, expression, Problem("value", f"a reference to one of {allowed} is expected here", expression)
            continue
        yield text, expression, target


def _local_reference(text: str) -> str | None:
    """`Type/id` of a relative reference, None for one that leads elsewhere."""
    type_name, slash, rest = text.partition("/")
    if not slash or not type_name.isalpha() or not type_name[0].isupper():
        return None
    return f"{type_name}/{rest.partition('/_history/')[0]}"


def _foreign_problem(text: str, expression: str) -> Problem | None:
    """What is wrong with what is neither a reference to something here nor a URL of something elsewhere."""
    scheme, colon, _ = text.partition(":")
    if text.startswith(("urn:uuid:", "urn:oid:")):
        return unknown_reference(expression)  # it names an entry that is not in the Bundle
    if "?" in scheme:
        return Problem("not-supported", "references by search are resolved in Bundles only", expression, status=422)
    if not colon or not _SCHEME.match(scheme):
        return Problem("value", "a reference is 'Type/id', '#id' or an absolute URL", expression)
    return None


def _contained_ids(gateway: Gateway, resource: Any) -> set[Any]:
    return {gateway.codec.decode(gateway.codec.peek_type(raw), raw).id for raw in resource.contained or ()}
