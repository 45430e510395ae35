"""To whom no Consent may open anything: refused when it is written, not only found out when they ask for a token.

Knows: that a directory says what an Organization is by its type (`[recipients]` of policy.toml), a catalogue by its category.
Must not know: HTTP, MongoDB, what a Consent means.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from gateway.access.consent import parse_consent
from gateway.exchange.draft import Draft
from gateway.exchange.entries import Entry
from gateway.exchange.gateway import Gateway
from gateway.problem import Problem
from gateway.store.catalogue import find_closed

_ORGANIZATION = "Organization/"


async def check_recipients(gateway: Gateway, draft: Draft, fresh: Iterable[Entry]) -> None:
    """Refuse what permits something to an Organization of a category that nobody can open anything to."""
    asked = [
        (entry, reference, place)
        for entry in fresh
        if entry.kind.name == "Consent" and entry.refusal is None
        for reference, place in _permitted_by(gateway, entry.resource)
        if reference.startswith(_ORGANIZATION)
    ]
    if not asked:
        return
    policy = gateway.policy
    references = {reference for _, reference, _ in asked}
    closed = await find_closed(gateway.mongo, references, policy.never_types, policy.never_recipients)
    for entry, reference, place in asked:
        if reference in closed:
            text = "no Consent can open anything to a recipient of this category: nobody could refuse it freely"
            draft.refuse(entry, entry.locate(Problem("business-rule", text, place)))


def _permitted_by(gateway: Gateway, consent: Any) -> Iterator[tuple[str, str]]:
    """Whom a typed Consent that is in force may permit something to, with where they are named."""
    parsed = parse_consent(consent, gateway.registry)
    return iter(()) if parsed is None else _permitted(consent.provision, "Consent.provision", permits=parsed.permits)


def _permitted(provision: Any, place: str, *, permits: bool) -> Iterator[tuple[str, str]]:
    inner = [(one, f"{place}.provision[{n}]") for n, one in enumerate(provision.provision or ())]
    if permits or any(one.type == "permit" for one in _within(provision)):
        for n, actor in enumerate(provision.actor or ()):
            yield actor.reference.reference or "", f"{place}.actor[{n}].reference"
    for one, where in inner:
        yield from _permitted(one, where, permits=one.type == "permit")


def _within(provision: Any) -> Iterator[Any]:
    for one in provision.provision or ():
        yield one
        yield from _within(one)
