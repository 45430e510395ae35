"""What a resource must say beyond its type: profiles, and the rules of single types.

Knows: which rules hold for a resource whoever sends it, whatever is stored. Must not know: HTTP, MongoDB, who writes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gateway.access.consent import parse_consent
from gateway.access.relation import parse_care_team
from gateway.exchange.attachments import attachment_issues, contained_issues
from gateway.exchange.gateway import Gateway
from gateway.fhir.merging import link_issues
from gateway.problem import Issue, Problem

Rule = Callable[[Gateway, Any], None]


def rule_issues(gateway: Gateway, type_name: str, resource: Any, profiles: Iterable[str] = ()) -> Iterator[Issue]:
    """Everything that profiles and the type's own rules find wrong. `profiles`: to be held against it besides its own."""
    yield from profile_issues(gateway, type_name, resource, profiles)
    yield from contained_issues(gateway, resource)
    kind = gateway.registry.find(type_name)
    if kind is not None and (kind.attachments or kind.is_raw):
        yield from attachment_issues(gateway, kind, resource)
    if kind is not None and kind.group == "identity":
        for n, identifier in enumerate(resource.identifier or ()):
            yield from gateway.identifiers.issues(identifier, f"{type_name}.identifier[{n}]")
    rule = _RULES.get(type_name)
    if rule is not None:
        try:
            rule(gateway, resource)
        except Problem as problem:
            yield from problem.issues


def profile_issues(gateway: Gateway, type_name: str, resource: Any, profiles: Iterable[str] = ()) -> Iterator[Issue]:
    """What its profiles alone find wrong, its own and these."""
    own = resource.meta.profile or () if resource.meta is not None else ()
    for url in dict.fromkeys((*own, *profiles)) if own or profiles else ():
        profile = gateway.registry.profiles.get(url)
        if profile is not None and profile.type == type_name:
            yield from profile.check(resource)


def _is_enforceable(gateway: Gateway, resource: Any) -> None:
    """A Consent must be enforceable as it reads."""
    parse_consent(resource, gateway.registry)


def _is_a_relation(gateway: Gateway, resource: Any) -> None:
    """A CareTeam must be a relation of care that can be honoured as it reads."""
    parse_care_team(resource, gateway.policy.relations)


def _has_sound_links(_: Gateway, resource: Any) -> None:
    """A Patient says of other Patients what they are to each other so that it can be true."""
    issues = [*link_issues(resource)]
    if issues:
        raise Problem.of(issues, status=422)


def _can_be_measured(gateway: Gateway, resource: Any) -> None:
    """A reading is of a time that has come, and of what can be measured."""
    issues = [*gateway.plausible.issues(resource, gateway.clock())]
    if issues:
        raise Problem.of(issues, status=422)


_RULES: Mapping[str, Rule] = {
    "CareTeam": _is_a_relation,
    "Consent": _is_enforceable,
    "Observation": _can_be_measured,
    "Patient": _has_sound_links,
}
