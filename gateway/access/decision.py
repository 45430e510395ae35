"""What a person decides about a client that asks for data, and the FHIR Consents that say it.

Knows: what there is to decide (each type, reading and writing apart; for how long; whether past data is included), and how
to say it in provisions that `consent.py` enforces as they were meant.
Must not know: pages, stores, the clock, who may be a client.

Consents only permit, one for reading and one for writing: what was not ticked is permitted by nobody. A denial in them would
also deny what the patient allows the same service elsewhere. What bears no date cannot be told past from future, so where past
data is left out, types without a date have a Consent of their own. Each of these parts has a fixed identifier: whoever decides
again changes the Consent that is there, and what they no longer allow is withdrawn.
"""

import calendar
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha1, sha256
from typing import Any, Literal

from gateway.access.ceiling import READING, WRITING, Ceiling
from gateway.access.consent import EXPRESSION, FHIR_QUERY, RESOURCE_TYPES
from gateway.access.policy import Direction
from gateway.access.scope import Scope
from gateway.fhir.registry import Registry, ResourceType

Duration = Literal["once", "months", "year", "unlimited"]
Item = tuple[Direction, str]  # reading or writing of one type, or of what a search finds of it: `Type?name=value`

PARTS = ("read", "read-undated", "write")
ONCE = timedelta(hours=1)  # one visit: no refresh token, and whatever was kept ends with it
_LETTERS: Mapping[Direction, frozenset[str]] = {"read": frozenset(READING), "write": frozenset(WRITING)}
_ACTIONS: Mapping[Direction, tuple[str, ...]] = {"read": ("access",), "write": ("collect", "correct")}
_MONTHS: Mapping[Duration, int] = {"months": 3, "year": 12}
_TERMS = "http://terminology.hl7.org/CodeSystem"


@dataclass(frozen=True, slots=True)
class Asker:
    """The client that asks. `actor`: the reference by which Consents name it; `purpose`: of use, as `system|code`."""

    client: str
    name: str
    controller: str
    actor: str
    purpose: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided. `allowed`: the items that were ticked."""

    allowed: frozenset[Item]
    duration: Duration
    past: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """How it was decided: the exact text shown and its language; who decided, for whom, when, and how they had logged in.

    `site`: the address of this gateway, for identifiers of its own.
    """

    text: str
    language: str
    patient: str
    performer: str
    moment: datetime
    level: str
    site: str


def items_of(registry: Registry, scopes: Iterable[Scope]) -> list[Item]:
    """What there is to decide about these scopes, in the order of the types; `*` is every type there is.

    Of a type that is asked for in parts only, each part. Content is none: whoever may read what attaches it reads it too.
    """
    asked: set[Item] = set()
    for scope in scopes:
        types = [name for name, kind in registry.resource_types.items() if scope.type in ("*", name) and not kind.is_raw]
        for direction, letters in _LETTERS.items():
            if scope.permissions & letters:
                asked.update((direction, what_of(name, query_of(scope))) for name in types)
    return sorted((item for item in asked if not _is_within(item, asked)), key=lambda item: (item[1], item[0]))


def what_of(type_name: str, query: str) -> str:
    """A type, or the part of it that this query finds."""
    return f"{type_name}?{query}" if query else type_name


def query_of(scope: Scope) -> str:
    """The query of a scope, as it was written."""
    return scope.text.partition("?")[2]


def narrow(scopes: Iterable[Scope], levels: Iterable[str], allowed: frozenset[Item]) -> list[str]:
    """What is left of scopes where these items are allowed, in their own notation.

    Of a scope for a whole type of which only parts are allowed, one for each part.
    """
    found: dict[str, None] = {}
    held = frozenset(levels)
    for scope in scopes:
        name, query = scope.type, query_of(scope)
        of = {way: (way, name) in allowed or (way, what_of(name, query)) in allowed for way in _LETTERS}
        read, write = (frozenset((name,) if of[way] else ()) for way in ("read", "write"))
        found |= dict.fromkeys(Ceiling(held, read, write).narrow([scope]))
        parts = (
            []
            if query or of["read"]
            else sorted(what for way, what in allowed if way == "read" and what.startswith(f"{name}?"))
        )
        letters = "".join(letter for letter in READING if letter in scope.permissions)
        if letters and scope.level in held:
            found |= {f"{scope.level}/{name}.{letters}?{what.partition('?')[2]}": None for what in parts}
    return list(found)


def _is_within(item: Item, items: set[Item]) -> bool:
    """Whether it is a part of a type that is among the items as a whole."""
    direction, what = item
    return "?" in what and (direction, what.partition("?")[0]) in items


def end_of(duration: Duration, moment: datetime) -> datetime | None:
    """When a decision of this moment ends, None where it lasts until it is taken back."""
    if duration == "once":
        return moment + ONCE
    return _months_later(moment, _MONTHS[duration]) if duration in _MONTHS else None


def identifier_of(site: str, client: str, part: str) -> tuple[str, str]:
    """System and value of the identifier of one part of what a patient decided about a client."""
    return f"{site}/consent", f"{client}/{part}"


def client_of(site: str, identifier: str) -> str | None:
    """The client of such an identifier (`system|value`), None of any other."""
    system, bar, value = identifier.partition("|")
    client, slash, part = value.rpartition("/")
    return client if (system, bar, slash) == (f"{site}/consent", "|", "/") and part in PARTS else None


def build_consents(
    kinds: Mapping[str, ResourceType], asker: Asker, decision: Decision, evidence: Evidence
) -> dict[str, dict[str, Any]]:
    """The Consents of a decision, by part; a part that nothing is allowed of has none."""
    read = sorted(name for direction, name in decision.allowed if direction == "read")
    write = sorted(name for direction, name in decision.allowed if direction == "write")
    undated = [] if decision.past else [what for what in read if kinds[what.partition("?")[0]].consent_date is None]
    dated = [name for name in read if name not in undated]
    since = None if decision.past else evidence.moment
    parts: list[tuple[str, Direction, list[str], datetime | None]] = [
        ("read", "read", dated, since),
        ("read-undated", "read", undated, None),
        ("write", "write", write, None),
    ]
    return {
        part: _consent(asker, evidence, part, _provision(asker, decision, evidence, direction, types, from_when))
        for part, direction, types, from_when in parts
        if types
    }


def digest_of(text: str) -> str:
    """What the audit keeps of the text that was shown: enough to prove that a text is the one."""
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def _consent(asker: Asker, evidence: Evidence, part: str, provision: dict[str, Any]) -> dict[str, Any]:
    system, value = identifier_of(evidence.site, asker.client, part)
    moment = _write_moment(evidence.moment)
    text = evidence.text.encode()
    return {
        "resourceType": "Consent",
        "extension": [{"url": f"{evidence.site}/StructureDefinition/login-level", "valueCode": evidence.level}],
        "identifier": [{"system": system, "value": value}],
        "status": "active",
        "scope": _concept(f"{_TERMS}/consentscope", "patient-privacy"),
        "category": [_concept("http://loinc.org", "59284-0"), _concept(f"{_TERMS}/v3-ActCode", "IDSCL")],
        "patient": {"reference": f"Patient/{evidence.patient}"},
        "dateTime": moment,
        "performer": [{"reference": evidence.performer}],
        "organization": [{"display": asker.controller}],
        "sourceAttachment": {
            "contentType": "text/plain; charset=utf-8",
            "language": evidence.language,
            "data": b64encode(text).decode(),
            "size": len(text),
            "hash": b64encode(sha1(text, usedforsecurity=False).digest()).decode(),  # SHA-1 is what R4 says
            "title": asker.name,
            "creation": moment,
        },
        "policy": [{"uri": f"{evidence.site}/policies/consent-of-client/1"}],
        "provision": provision,
    }


def _provision(
    asker: Asker, decision: Decision, evidence: Evidence, direction: Direction, types: list[str], since: datetime | None
) -> dict[str, Any]:
    period = {"start": _write_moment(evidence.moment)}
    end = end_of(decision.duration, evidence.moment)
    if end is not None:
        period["end"] = _write_moment(end)
    provision: dict[str, Any] = {
        "type": "permit",
        "period": period,
        "actor": [
            {
                "role": _concept(f"{_TERMS}/v3-ParticipationType", "IRCP"),
                "reference": {"reference": asker.actor, "display": asker.name},
            }
        ],
        "action": [_concept(f"{_TERMS}/consentaction", action) for action in _ACTIONS[direction]],
        "class": [{"system": RESOURCE_TYPES, "code": name} for name in sorted({what.partition("?")[0] for what in types})],
    }
    parts = [what for what in types if "?" in what]
    if parts:
        expressions: list[dict[str, Any]] = [{"language": FHIR_QUERY, "expression": what} for what in parts]
        provision["modifierExtension"] = [{"url": EXPRESSION, "valueExpression": one} for one in expressions]
    if asker.purpose is not None:
        system, _, code = asker.purpose.rpartition("|")
        provision["purpose"] = [{"system": system, "code": code}]
    if since is not None:
        provision["dataPeriod"] = {"start": _write_moment(since)}
    return provision


def _months_later(moment: datetime, months: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)


def _write_moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}
