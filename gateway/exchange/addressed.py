"""Whose records a search is about, as it says itself.

Knows: every way to name a patient (https://hl7.org/fhir/R4/search.html), and who must name one: policy.toml and `requires` of
the type. Whether there is such a patient or resource makes no difference, neither to the answer nor to what is looked up.
Must not know: HTTP, MongoDB.
"""

import time
from collections.abc import AsyncIterator, Iterable

from gateway.access.access import Access
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import Pairs
from gateway.exchange.standing import extend_to, is_confined
from gateway.fhir.clause import All, Clause, Test
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.registry import ResourceType
from gateway.fhir.search import find_parameter, patient_identifiers, split_name
from gateway.problem import Problem
from gateway.store.owners import find_holding, find_owners, find_patient

_AT_ONCE = 1_000  # resources of one identifier that are looked at in a step, whosever they are
_now = time.monotonic


async def find_addressed(gateway: Gateway, token: str) -> str:
    """The id of the patient with this identifier (`system|value`).

    Who is not known gets an id that nobody has: what is asked about them is answered, and takes, as if they were somebody
    else's.
    """
    return await find_patient(gateway.mongo, token) or _nobody(gateway, token)


async def reach(
    gateway: Gateway, access: Access, kind: ResourceType, criteria: Pairs, clause: Clause
) -> tuple[Access, list[str]]:
    """The access over the records that a search is about as well, and their patients.

    Raises Problem 400 where it must name one and does not, or names too many.
    """
    asked = _patients_asked(kind, criteria)
    refuse_many(gateway, asked)
    named = await _patients_named(gateway, kind, clause)
    if not asked and kind.requires and access.caller.patient is None:
        access, holders = await _reach_holders(gateway, access, kind, clause)
        named = holders[: gateway.limits.or_values]
    if not named:
        _require_patient(gateway, access, kind, asked)
    return await extend_to(gateway, access, named), named


def require_named(kind: ResourceType, criteria: Pairs) -> None:
    """Refuse a search of a type that is never searched as a whole (`requires`), not even in one's own record."""
    if not kind.requires or ("patient" in kind.requires and _patients_asked(kind, criteria)):
        return
    if not any(name in kind.requires for name, _ in criteria):
        *others, last = kind.requires
        raise Problem("required", f"name what is searched for: {', '.join(others)} or {last} is needed", others[0], status=400)


def refuse_many(gateway: Gateway, patients: int) -> None:
    """Each record named is looked up, and learns of it in an audit event of its own."""
    if patients > gateway.limits.or_values:
        raise Problem("too-costly", f"a search names at most {gateway.limits.or_values} patients here", "patient", status=400)


async def _patients_named(gateway: Gateway, kind: ResourceType, clause: Clause) -> list[str]:
    """Whose records the search says it is about."""
    named = _values_fixed(clause, "patient")
    if kind.is_patient:
        named += _values_fixed(clause, "_id")
        named += [await find_addressed(gateway, token) for token in _values_fixed(clause, "identifier")]
    return list(dict.fromkeys(named))


async def _reach_holders(gateway: Gateway, access: Access, kind: ResourceType, clause: Clause) -> tuple[Access, list[str]]:
    """The access over the records that hold what is searched for by its own id or identifier alone, and their patients: first
    those whose records may be seen.

    However many records others have filled with the same identifier, those that may be seen are among them.
    """
    ids, tokens = _values_fixed(clause, "_id"), _values_fixed(clause, "identifier")
    if not (ids or tokens) or is_confined(access):
        return access, []
    known, open_to = dict[str, None](), list[str]()
    async for own, found in _holders(gateway, access, kind, ids, tokens):
        step = sorted(found - known.keys()) or ([] if known else [_nobody(gateway, (ids or tokens)[0])])
        wider = await extend_to(gateway, access, {*step, *own})
        # Only records that may be seen are too many: how many others there are is nobody's to know. (Not all of those learn of
        # it that it was asked.)
        opened = [one for one in step if one in wider.records and wider.reaches(kind, "search-type", one)]
        open_to += opened
        refuse_many(gateway, len(open_to))
        # In the others nothing can be found, and a search through a thousand records would take long.
        kept = {*opened, *own, *step[: gateway.limits.or_values]}
        there = {one for patient in kept for one in wider.ids_of(patient)} & wider.records.keys()
        access = access.over((wider.records[one] for one in there), absent=wider.absent)
        known |= dict.fromkeys(step)
    return access, list(dict.fromkeys([*open_to, *known]))


async def _holders(
    gateway: Gateway, access: Access, kind: ResourceType, ids: list[str], tokens: list[str]
) -> AsyncIterator[tuple[set[str], set[str]]]:
    """In whose records the caller deposited it, and in whose it is at all, step by step.

    Raises Problem where there is no end to it in the time of a search.
    """
    if ids:
        yield set(), await find_owners(gateway.mongo, kind.name, ids)
        return
    seconds = gateway.limits.search_seconds
    ends, after = _now() + seconds, ""
    while True:
        found = await find_holding(gateway.mongo, kind.name, tokens, after=after, limit=_AT_ONCE, seconds=seconds)
        held = [one for one in found if one.get("patient") is not None]
        mine = (one for one in held if one["source"] == access.caller.source or access.is_depositor(one))
        yield {one["patient"] for one in mine}, {one["patient"] for one in held}
        if len(found) < _AT_ONCE:
            return
        if _now() > ends:
            text = "what has this identifier takes too long to look through: say whose it is as well, by patient"
            raise Problem("too-costly", text, "identifier")
        after = found[-1]["_id"]


def _patients_asked(kind: ResourceType, criteria: Pairs) -> int:
    """How many patients a search names. Whether there are such patients must make no difference to what it is answered."""
    count = 0
    for name, value in criteria:
        base, modifier = split_name(name)
        parameter = find_parameter(kind, base)
        literally = parameter is not None and parameter.field == "patient" and modifier in (None, "Patient")
        itself = kind.is_patient and base in ("_id", "identifier") and modifier is None
        if literally or itself or patient_identifiers(kind, [(name, value)]):
            count += 1 + value.count(",")
    return count


def _values_fixed(clause: Clause, parameter: str) -> list[str]:
    found: list[str] = []
    for part in clause.of if isinstance(clause, All) else (clause,):
        tests: Iterable[Clause] = part.of if isinstance(part, AnyOf) else (part,)
        values = [t.value for t in tests if isinstance(t, Test) and t.parameter == parameter and t.op == "is"]
        found += values
    return found


def _require_patient(gateway: Gateway, access: Access, kind: ResourceType, asked: int) -> None:
    must = kind.in_compartment and access.caller.kind in gateway.policy.patient_required
    if must and not asked and access.caller.patient is None and (kind.is_patient or kind.patient_required):
        name, words = ("_id", "_id or identifier") if kind.is_patient else ("patient", "patient")
        raise Problem("required", f"say whose record is searched: {words} is needed", name, status=400)


def _nobody(gateway: Gateway, text: str) -> str:
    return gateway.ids.new(gateway.ids.bucket(text.encode()))
