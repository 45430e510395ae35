"""$validate: everything that is wrong with a resource or a Bundle, by the checks of a create; nothing is stored.

Knows: https://hl7.org/fhir/R4/resource-operation-validate.html. Nothing is looked up but the instance that is named: whether
what a resource refers to is there, only a write tells. Must not know: HTTP, MongoDB.
"""

import asyncio
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.access.access import Access
from gateway.exchange.asked import Ways, read_entry_request
from gateway.exchange.audit import event
from gateway.exchange.call import Answer, Call
from gateway.exchange.entries import require_kind
from gateway.exchange.gateway import Gateway
from gateway.exchange.links import reference_issues
from gateway.exchange.owners import owner_issue
from gateway.exchange.read import Result, read
from gateway.exchange.rules import rule_issues
from gateway.exchange.submission import hold_submission, refuse_batch
from gateway.fhir.balp import DONE
from gateway.fhir.bundle import envelope_problems, require_few
from gateway.problem import Issue, Problem, operation_outcome
from gateway.store import resources as store
from gateway.store.change import require_write
from gateway.store.mongo import Session

_OF_INSTANCES = ("update", "delete")
_MODES = ("create", *_OF_INSTANCES, "profile")
_CARRIED_OUT = ("batch", "transaction")
_LISTED = 100  # issues: an answer is for reading, and what is wrong with a resource costs more to find than that it is
_ALL_OK = Issue("informational", "All OK", severity="information")


async def validate(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """An OperationOutcome with every issue. `call.parameters`: `mode` and `profile`; `call.body`: the resource."""
    asked = dict(call.parameters)
    _check_mode(call, asked)
    events = [event(access, call, None, DONE)]
    if call.id is not None:  # what is said of a stored resource is said to those who may see it
        plain = msgspec.structs.replace(call, parameters=(), if_none_match=None, if_modified_since=None)
        _, events = await read(gateway, access, plain, session)
    issues = await _issues_of_mode(gateway, access, call, asked.get("mode"))
    if call.body is not None and asked.get("mode") != "delete":
        sent = _Sent(call, call.type, call.body, asked.get("profile"))
        issues += await _bundle_issues(gateway, sent) if call.type == "Bundle" else _resource_issues(gateway, sent)
    listed = issues[:_LISTED] or [_ALL_OK]
    return Answer(200, msgspec.json.encode(operation_outcome(listed))), events


@dataclass(frozen=True, slots=True)
class _Sent:
    """A resource to be validated. `named`: the fullUrls of the Bundle it stands in, if it does."""

    call: Call
    type: str
    body: bytes | msgspec.Raw
    profile: str | None = None
    named: Container[str] | None = None


def _check_mode(call: Call, asked: dict[str, str]) -> None:
    mode = asked.get("mode")
    if mode is not None and mode not in _MODES:
        raise Problem("not-supported", f"'mode' takes {', '.join(_MODES)} here", "mode", status=400)
    if (mode in _OF_INSTANCES and call.id is None) or (mode == "create" and call.id is not None):
        raise Problem("invalid", f"'{mode}' is validated {'of one resource' if call.id is None else 'of a type'}", "mode")
    if mode == "profile" and "profile" not in asked:
        raise Problem("required", "this mode takes a profile", "profile", status=400)
    if call.body is None and mode != "delete":
        raise Problem("required", "there is nothing to validate", "resource", status=400)


async def _issues_of_mode(gateway: Gateway, access: Access, call: Call, mode: str | None) -> list[Issue]:
    """Why the interaction that is asked about would be refused whatever is sent."""
    kind = gateway.registry.find(call.type)
    if mode is None or mode == "profile" or kind is None:
        return []
    asked = msgspec.structs.replace(call, interaction=mode)
    try:
        require_kind(gateway, asked)
        access.require(kind, mode)
        if call.id is not None:
            found = await store.find_for_change(access, gateway.mongo, kind, [call.id])
            require_write(access, kind, mode, found.get(call.id, {"_id": call.id}), None)
    except Problem as problem:
        return list(problem.issues)
    return []


def _resource_issues(gateway: Gateway, sent: _Sent) -> list[Issue]:
    """Everything that is wrong with one resource, named from its own root."""
    kind, name = gateway.registry.find(sent.type), sent.type
    try:
        if gateway.codec.peek_type(sent.body) != name:
            raise Problem("invalid", f"a {name} is expected here", name)
        resource = gateway.codec.decode(name, sent.body, calm=sent.call.calm)
    except Problem as problem:
        return list(problem.issues)
    issues = list(rule_issues(gateway, name, resource, [sent.profile] if sent.profile else ()))
    issues += reference_issues(gateway, resource, sent.named)
    # (what only this service writes need not say whose it is in the way of a client)
    owner = owner_issue(kind, resource) if kind is not None and kind.interactions & {"create", "update"} else None
    if owner is not None:
        issues.append(owner)
    if sent.call.id is not None and resource.id != sent.call.id:
        issues.append(Issue("invalid", "the id in the resource must be the one in the URL", f"{name}.id"))
    return issues + _profile_issues(gateway, name, resource, sent.profile)


def _profile_issues(gateway: Gateway, type_name: str, resource: Any, asked: str | None) -> list[Issue]:
    """Profiles that were not checked: one that is asked for is an error, one that the resource claims a warning."""
    known = {url for url, profile in gateway.registry.profiles.items() if profile.type == type_name}
    text = "this profile is not known here for this type, and was not checked"
    issues = [Issue("not-supported", text, "profile")] if asked is not None and asked not in known else []
    claimed = resource.meta.profile or () if resource.meta is not None else ()
    return issues + [
        Issue("not-supported", text, f"{type_name}.meta.profile[{n}]", severity="warning")
        for n, url in enumerate(claimed)
        if url not in known and url != asked
    ]


async def _bundle_issues(gateway: Gateway, sent: _Sent) -> list[Issue]:
    """Everything that is wrong with a Bundle: its envelope, what its entries ask for, and their resources."""
    try:
        if gateway.codec.peek_type(sent.body) != "Bundle":
            raise Problem("invalid", "a Bundle is expected here", "Bundle")
        bundle = gateway.codec.decode("Bundle", sent.body, calm=sent.call.calm)
    except Problem as problem:
        return list(problem.issues)
    require_few(bundle, gateway.limits.bundle_entries)
    is_carried_out = bundle.type in _CARRIED_OUT
    issues = [issue for problem in envelope_problems(bundle) for issue in problem.issues] if is_carried_out else []
    if sent.profile is not None:
        issues += _profile_issues(gateway, "Bundle", bundle, sent.profile)
    if not is_carried_out:
        text = "only Bundles of type batch and transaction are carried out here; what holds for this type was not checked"
        issues.append(Issue("not-supported", text, "Bundle.type", severity="warning"))
    if bundle.type == "batch":
        try:
            refuse_batch(gateway, bundle)
        except Problem as problem:
            issues += problem.issues
    held, found = _submission(gateway, bundle, sent.call) if bundle.type == "transaction" and not issues else ({}, [])
    issues += found
    broken = {issue.expression.split(".")[1] for issue in issues if issue.expression and ".entry[" in issue.expression}
    named = {entry.fullUrl for entry in bundle.entry or () if entry.fullUrl}
    for n, entry in enumerate(bundle.entry or ()):
        if len(issues) >= _LISTED:
            break
        is_asked = is_carried_out and f"entry[{n}]" not in broken
        one = _Sent(msgspec.structs.replace(sent.call, id=None), "", b"", held.get(n), named)
        issues += _entry_issues(gateway, entry, n, one, is_asked=is_asked)
        await asyncio.sleep(0)  # others wait
    return issues


def _submission(gateway: Gateway, bundle: Any, call: Call) -> tuple[dict[int, str], list[Issue]]:
    """What the entries of a submission are held to, by number, and why it is none. (What single entries ask is told there.)"""
    ways = Ways(call.origin, call.calm, None, lenient=False)
    try:
        asked = [read_entry_request(gateway, entry, n, ways) for n, entry in enumerate(bundle.entry or ())]
    except Problem:
        return {}, []
    try:
        held = hold_submission(gateway, bundle, asked)
    except Problem as problem:
        return {}, [issue for issue in problem.issues if ".resource" not in (issue.expression or "")]
    return {n: one.call.profiles[0] for n, one in enumerate(held) if one.call.profiles}, []


def _entry_issues(gateway: Gateway, entry: Any, n: int, sent: _Sent, *, is_asked: bool) -> list[Issue]:
    issues: list[Issue] = []
    call = sent.call
    expected: str | None = None
    if is_asked:
        try:
            asked = read_entry_request(gateway, entry, n, Ways(call.origin, call.calm, None, lenient=False)).call
            if asked.type:
                require_kind(gateway, asked)
            if asked.interaction == "patch" or asked.deposit is not None:
                return issues  # a patch, or a document that is kept as it is
            expected = asked.type or None
        except Problem as problem:
            issues += problem.issues
    if entry.resource is None:
        return issues
    place = f"Bundle.entry[{n}].resource"
    try:
        name = expected or gateway.codec.peek_type(entry.resource)
        found = _resource_issues(gateway, _Sent(call, name, entry.resource, sent.profile, sent.named))
        return [*issues, *Problem.of(found).within(place).issues] if found else issues
    except Problem as problem:
        return [*issues, *problem.within(place).issues]
