"""FHIR Consent as limits: one parser for storing and enforcing, one compiler to clauses.

Knows: the R4 `provision` (https://hl7.org/fhir/R4/consent.html), in the style of IHE PCF (the root has a type) and of R4 (the
root has none: `policyRule` decides). What cannot be honoured is refused when it is stored.
Must not know: the base policy, scopes, stores, the clock.

Within one element any entry suffices, between elements all must hold, an empty element means any. The deepest matching
provision wins; at one level a denial beats a permission. A test that a resource gives no answer to (no code, no date, an
unknown label) never permits and always denies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.access.scope import parse_scopes
from gateway.access.visibility import NOTHING_HIDDEN, Hidden
from gateway.fhir.clause import EVERYTHING, NOTHING, Clause, Test, every, negate, parameters_of, some
from gateway.fhir.dates import EARLIEST, LATEST, Span, read_span
from gateway.fhir.index import UNKNOWN_LABEL
from gateway.fhir.registry import Registry, ResourceType
from gateway.fhir.search import Reading
from gateway.fhir.values import token_values
from gateway.problem import Problem

RESOURCE_TYPES = "http://hl7.org/fhir/resource-types"
ACTIONS: Mapping[str, str] = {
    "access": "read",
    "use": "read",
    "disclose": "read",
    "collect": "write",
    "correct": "write",
}
_ACTION_SYSTEM = "http://terminology.hl7.org/CodeSystem/consentaction"
_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_POLICY_RULES: Mapping[str, str] = {"OPTIN": "permit", "OPTOUT": "deny"}
# No Patient: nobody's Consent stands between patients and their own record, and none opens it to another patient.
_ACTORS = ("Device", "Organization", "Practitioner", "PractitionerRole", "RelatedPerson")
# Roles of a recipient; another role (an author, a witness) would ask for a rule about something else.
_ROLES = frozenset({"IRCP", "PRCP", "CST", "DELEGATEE", "GUARD", "DPOWATT", "HPOWATT", "SPOWATT", "AGNT", "PROV", "CAREGIVER"})
_DEEPEST, _MOST = 5, 200
# Consent.provision.expression of R5, which says in R4 what no element says: that of a type only what a search finds is meant.
# Whoever does not know it would permit more, so it is a modifier.
EXPRESSION = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Consent.provision.expression"
FHIR_QUERY = "application/x-fhir-query"


@dataclass(frozen=True, slots=True)
class Provision:
    """One provision. Empty sets and None mean any. `parts`: of which types only what a search finds is meant (`Part`)."""

    permits: bool
    period: Span
    actors: frozenset[str]
    directions: frozenset[str]
    purposes: frozenset[str]
    types: frozenset[str]
    codes: tuple[str, ...]
    labels: tuple[str, ...]
    data_period: Span | None
    instances: frozenset[str]
    nested: tuple["Provision", ...]
    parts: tuple["Part", ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What is meant of a type: `text` is the search (`Type?name=value`), `clause` what it finds."""

    type: str
    text: str
    clause: Clause


_READING = Reading(now=EARLIEST, or_values=20, patients={})  # (no such search knows the present time, or patients)
# What stands for a stored Consent that cannot be read any more.
DENY_ALL = Provision(
    permits=False,
    period=Span(EARLIEST, LATEST),
    actors=frozenset(),
    directions=frozenset(),
    purposes=frozenset(),
    types=frozenset(),
    codes=(),
    labels=(),
    data_period=None,
    instances=frozenset(),
    nested=(),
)


@dataclass(frozen=True, slots=True)
class Consent:
    """A Consent as enforced, by its version. `actors`: whom its root names.

    `provision` None: it limits and allows nothing now (withdrawn, a draft, deleted). `is_outdated`: it was given before its
    actor wanted what it wants now, and permits nothing any more; what it denies stays denied. `updated`: when it last changed.
    """

    reference: str
    actors: frozenset[str]
    provision: Provision | None
    is_outdated: bool = False
    updated: datetime = EARLIEST


@dataclass(frozen=True, slots=True)
class Situation:
    """Who acts, how and when, as a provision is tested against it.

    `principal`: references of whoever a permission must name; `everyone`: those and the software they use, which a denial
    may name. `purpose`: the token's purpose of use as `system|code`, None where it states none. `hidden`: what labels hide from
    them, by the labels: a permission opens it only where it names one.
    """

    principal: frozenset[str]
    everyone: frozenset[str]
    direction: str
    purpose: str | None
    now: datetime
    hidden: Hidden = NOTHING_HIDDEN


def parse_consent(resource: Any, registry: Registry) -> Provision | None:
    """The provision of a typed Consent, None where it is not active.

    Raises Problem (422, with the expression) for anything in it that could not be enforced as it reads.
    """
    if resource.implicitRules is not None:
        raise _refuse("not-supported", "rules that are told elsewhere cannot be honoured", "Consent.implicitRules")
    provisions = _provisions("Consent.provision", resource.provision)
    for name, struct in (("Consent", resource), *_parts(resource), *provisions):
        if struct.modifierExtension and not name.rpartition(".")[2].startswith("provision"):
            raise _refuse("extension", "an unknown modifierExtension cannot be honoured", f"{name}.modifierExtension")
    if not _has_code(resource.scope, "patient-privacy"):
        raise _refuse("business-rule", "only consents of scope patient-privacy are enforced here", "Consent.scope")
    if resource.provision is None:
        raise _refuse("required", "a Consent without provision says nothing that could be enforced", "Consent.provision")
    if len(provisions) > _MOST:
        text = f"a Consent has at most {_MOST} provisions, actors and data here, together"
        raise _refuse("too-costly", text, "Consent.provision")
    root_type = resource.provision.type or _root_type(resource)
    parsed = _parse(resource.provision, "Consent.provision", root_type, registry)
    return parsed if resource.status == "active" else None


def consent_clauses(provision: Provision, situation: Situation, kind: ResourceType) -> tuple[Clause, Clause]:
    """What the provision permits and what it denies of a type, to whoever is in this situation. Where both hold, it denies."""
    return _effects(provision, situation, kind, EVERYTHING, EVERYTHING)


def _effects(
    provision: Provision,
    situation: Situation,
    kind: ResourceType,
    surely: Clause,
    maybe: Clause,
    named: frozenset[str] = frozenset(),
) -> tuple[Clause, Clause]:
    """What it permits and denies, as above. `surely` and `maybe`: where the parents hold, read strictly and read widely;
    `named`: the labels that they name.
    """
    named = named.union(provision.labels) if provision.labels else named
    own_surely, own_maybe = _own_tests(provision, situation, kind)
    surely, maybe = every(surely, own_surely), every(maybe, own_maybe)
    if maybe == NOTHING:
        return NOTHING, NOTHING
    inner = [_effects(nested, situation, kind, surely, maybe, named) for nested in provision.nested]
    permitted = some(*(permit for permit, _ in inner))
    denied = some(*(deny for _, deny in inner))
    if provision.permits and surely != NOTHING:
        return some(every(surely, negate(situation.hidden.unless(named))), permitted), denied
    if provision.permits:
        return permitted, denied
    return permitted, some(every(maybe, negate(permitted)), denied)


def _own_tests(provision: Provision, situation: Situation, kind: ResourceType) -> tuple[Clause, Clause]:
    if not (
        provision.period.low <= situation.now < provision.period.high
        and (not provision.directions or situation.direction in provision.directions)
        and (not provision.types or kind.name in provision.types)
    ):
        return NOTHING, NOTHING
    surely: list[Clause] = []
    maybe: list[Clause] = []
    if provision.actors:
        surely.append(EVERYTHING if provision.actors & situation.principal else NOTHING)
        maybe.append(EVERYTHING if provision.actors & situation.everyone else NOTHING)
    if provision.purposes:
        surely.append(EVERYTHING if situation.purpose in provision.purposes else NOTHING)
        maybe.append(EVERYTHING if situation.purpose is None or situation.purpose in provision.purposes else NOTHING)
    if provision.instances:
        ids = [ref.partition("/")[2] for ref in sorted(provision.instances) if ref.startswith(f"{kind.name}/")]
        named = some(*(Test("_id", "is", identifier) for identifier in ids))
        surely.append(named)
        maybe.append(named)
    parts = [part.clause for part in provision.parts if part.type == kind.name]
    if parts:
        unknown_values = (Test(name, "missing", True) for part in parts for name in sorted(parameters_of(part)))
        surely.append(some(*parts))
        maybe.append(some(*parts, *unknown_values))
    if provision.codes:
        _add_code_tests(provision, kind, surely, maybe)
    if provision.data_period is not None:
        _add_date_tests(provision.data_period, kind, surely, maybe)
    if provision.labels:
        tests: list[Clause] = [Test("_security", "is", label) for label in provision.labels]
        if f"{_CONFIDENTIALITY}|N" in provision.labels:
            tests.append(Test("_security", "missing", True))  # what bears no label is of normal confidentiality
        unknown = Test("_security", "is", UNKNOWN_LABEL)
        surely.append(every(some(*tests), negate(unknown)))
        maybe.append(some(*tests, unknown))
    return every(*surely), every(*maybe)


def _add_code_tests(provision: Provision, kind: ResourceType, surely: list[Clause], maybe: list[Clause]) -> None:
    name = kind.consent_code
    if name is None:
        surely.append(NOTHING)
        return
    tests = [Test(name, "is", code) for code in provision.codes]
    surely.append(some(*tests))
    maybe.append(some(*tests, Test(name, "missing", True)))


def _add_date_tests(period: Span, kind: ResourceType, surely: list[Clause], maybe: list[Clause]) -> None:
    name = kind.consent_date
    if name is None:
        surely.append(NOTHING)
        return
    surely.append(Test(name, "eq", period))
    maybe.append(some(Test(name, "overlaps", period), Test(name, "missing", True)))


def _provisions(place: str, provision: Any, depth: int = 1) -> list[tuple[str, Any]]:
    """A provision and everything in it that may carry a modifierExtension, with their places."""
    if provision is None:
        return []
    if depth > _DEEPEST:
        raise _refuse("too-costly", f"provisions nest at most {_DEEPEST} deep here", place)
    found = [(place, provision)]
    found += [(f"{place}.actor[{n}]", actor) for n, actor in enumerate(provision.actor or ())]
    found += [(f"{place}.data[{n}]", data) for n, data in enumerate(provision.data or ())]
    for n, nested in enumerate(provision.provision or ()):
        found += _provisions(f"{place}.provision[{n}]", nested, depth + 1)
    return found


def _parts(resource: Any) -> list[tuple[str, Any]]:
    """What else of a Consent may carry a modifierExtension, with its place."""
    found = [(f"Consent.policy[{n}]", policy) for n, policy in enumerate(resource.policy or ())]
    return found + [(f"Consent.verification[{n}]", one) for n, one in enumerate(resource.verification or ())]


def _root_type(resource: Any) -> str:
    codes = [c.code for c in (resource.policyRule.coding or ())] if resource.policyRule else []
    found = {_POLICY_RULES[code] for code in codes if code in _POLICY_RULES}
    if len(found) != 1:
        raise _refuse("required", "neither the type nor a policyRule OPTIN or OPTOUT says what holds", "Consent.provision.type")
    return found.pop()


def _parse(raw: Any, place: str, effect: str | None, registry: Registry) -> Provision:
    if effect is None:
        raise _refuse("required", "a nested provision says whether it permits or denies", f"{place}.type")
    nested = (_parse(inner, f"{place}.provision[{n}]", inner.type, registry) for n, inner in enumerate(raw.provision or ()))
    types = frozenset(_class(c, f"{place}.class[{n}]", registry) for n, c in enumerate(raw.class_fhir or ()))
    parts = tuple(
        _part(extension, f"{place}.modifierExtension[{n}]", types, registry)
        for n, extension in enumerate(raw.modifierExtension or ())
    )
    return Provision(
        permits=effect == "permit",
        period=_period(raw.period, f"{place}.period") or Span(EARLIEST, LATEST),
        actors=frozenset(_actor(actor, f"{place}.actor[{n}]") for n, actor in enumerate(raw.actor or ())),
        directions=frozenset(_direction(a, f"{place}.action[{n}]") for n, a in enumerate(raw.action or ())),
        purposes=frozenset(_token(p, f"{place}.purpose[{n}]") for n, p in enumerate(raw.purpose or ())),
        types=types,
        codes=tuple(code for n, c in enumerate(raw.code or ()) for code in _codes(c, f"{place}.code[{n}]")),
        labels=tuple(_token(label, f"{place}.securityLabel[{n}]") for n, label in enumerate(raw.securityLabel or ())),
        data_period=_period(raw.dataPeriod, f"{place}.dataPeriod"),
        instances=frozenset(_instance(d, f"{place}.data[{n}]") for n, d in enumerate(raw.data or ())),
        nested=tuple(nested),
        parts=parts,
    )


def _part(extension: Any, place: str, types: frozenset[str], registry: Registry) -> Part:
    """What a modifierExtension says of a part of a type: by the parameters that scopes are narrowed by, too."""
    expression = extension.valueExpression if extension.url == EXPRESSION else None
    if expression is None or expression.language != FHIR_QUERY or expression.reference is not None:
        raise _refuse("extension", "an unknown modifierExtension cannot be honoured", place)
    text = expression.expression or ""
    name, _, query = text.partition("?")
    if name not in types or not query:
        raise _refuse(
            "value", "an expression is 'Type?name=value', of a type that is among the classes", f"{place}.valueExpression"
        )
    try:
        [scope] = parse_scopes(registry, f"patient/{name}.r?{query}", _READING)
    except (Problem, ValueError):
        text = "the search is none that can be honoured: by what scopes of this type are narrowed by"
        raise _refuse("value", text, f"{place}.valueExpression.expression") from None
    return Part(name, expression.expression, scope.filters)


def _actor(actor: Any, place: str) -> str:
    if not any(coding.code in _ROLES for coding in actor.role.coding or ()):
        raise _refuse("code-invalid", "only recipients can be named here", f"{place}.role")
    reference = actor.reference.reference or ""
    if reference.partition("/")[0] not in _ACTORS or reference.count("/") != 1:
        allowed = ", ".join(_ACTORS)
        raise _refuse("value", f"an actor is a literal reference to one of {allowed}", f"{place}.reference")
    return str(reference)


def _direction(action: Any, place: str) -> str:
    for coding in action.coding or ():
        if coding.system in (None, _ACTION_SYSTEM) and coding.code in ACTIONS:
            return ACTIONS[coding.code]
    raise _refuse("code-invalid", f"an action is one of {', '.join(ACTIONS)}", place)


def _class(coding: Any, place: str, registry: Registry) -> str:
    if coding.system != RESOURCE_TYPES or coding.code not in registry.resource_types:
        raise _refuse("code-invalid", f"a class is a resource type served here, of system {RESOURCE_TYPES}", place)
    return str(coding.code)


def _codes(concept: Any, place: str) -> list[str]:
    if not concept.coding:
        raise _refuse("required", "a code without coding cannot be compared", f"{place}.coding")
    return [_token(coding, f"{place}.coding[{n}]") for n, coding in enumerate(concept.coding)]


def _token(coding: Any, place: str) -> str:
    values = token_values(coding.system, coding.code)
    if coding.system is None or not values:
        raise _refuse("required", "a coding needs a system and a code to be compared", place)
    return values[0]


def _instance(data: Any, place: str) -> str:
    if data.meaning != "instance":
        raise _refuse("not-supported", "only the meaning 'instance' can be honoured", f"{place}.meaning")
    reference = data.reference.reference or ""
    if reference.count("/") != 1 or reference.startswith("#"):
        raise _refuse("value", "an instance is a literal reference within the record", f"{place}.reference")
    return str(reference)


def _period(raw: Any, place: str) -> Span | None:
    if raw is None:
        return None
    for name in ("start", "end"):
        if getattr(raw, name) is None and getattr(raw, f"{name}__ext") is not None:
            raise _refuse("value", "an end of a period that is not told is no open end", f"{place}.{name}")
    return Span(read_span(raw.start).low if raw.start else EARLIEST, read_span(raw.end).high if raw.end else LATEST)


def _has_code(concept: Any, code: str) -> bool:
    return any(coding.code == code for coding in concept.coding or ())


def _refuse(code: str, text: str, expression: str) -> Problem:
    return Problem(code, text, expression, status=422)
