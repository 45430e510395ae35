"""Holds the compiler of Consents to what a provision means, told again, resource by resource, by a plain oracle."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.access.access import Access, Caller, Record
from gateway.access.consent import Consent, Provision
from gateway.access.policy import Policy
from gateway.access.scope import Scope
from gateway.fhir.clause import EVERYTHING, matches
from gateway.fhir.dates import EARLIEST, LATEST, Span
from gateway.fhir.index import UNKNOWN_LABEL
from gateway.fhir.registry import Registry

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ME, SOFTWARE, OTHER = "Practitioner/0a1-me", "Device/0a1-soft", "Practitioner/0a1-other"
TREAT, RESEARCH = "reason|TREAT", "reason|HRESCH"
NORMAL, RESTRICTED, HIV = (
    "http://terminology.hl7.org/CodeSystem/v3-Confidentiality|N",
    "http://terminology.hl7.org/CodeSystem/v3-Confidentiality|R",
    "http://terminology.hl7.org/CodeSystem/v3-ActCode|HIV",
)
ALWAYS = Span(EARLIEST, LATEST)
YES, MAYBE, NO = 2, 1, 0


def some_of(*values: str) -> st.SearchStrategy[frozenset[str]]:
    """At most two of these; none means any."""
    return st.frozensets(st.sampled_from(values), max_size=2)


spans = st.sampled_from(
    [None, None, Span(NOW - DAY, NOW + DAY), Span(NOW, NOW + DAY), Span(EARLIEST, NOW), Span(NOW - 9 * DAY, NOW - 5 * DAY)]
)


def provisions(nested: st.SearchStrategy[tuple[Provision, ...]]) -> st.SearchStrategy[Provision]:
    return st.builds(
        Provision,
        permits=st.booleans(),
        period=st.sampled_from([ALWAYS, ALWAYS, ALWAYS, Span(NOW, LATEST), Span(EARLIEST, NOW), Span(NOW + DAY, LATEST)]),
        actors=some_of(ME, SOFTWARE, OTHER),
        directions=some_of("read", "write"),
        purposes=some_of(TREAT, RESEARCH),
        types=st.sampled_from([frozenset(), frozenset(), frozenset({"Observation", "Patient"}), frozenset({"Device"})]),
        codes=st.sampled_from([(), (), ("s|a",), ("s|a", "s|b")]),
        labels=st.sampled_from([(), (), (NORMAL,), (RESTRICTED, HIV)]),
        data_period=spans,
        instances=some_of("Observation/0a1-x", "Observation/0a1-y", "DocumentReference/0a1-x"),
        nested=nested,
    )


trees = provisions(st.just(()))
for _ in range(4):
    trees = st.one_of(trees, provisions(st.lists(trees, max_size=2).map(tuple)))
resources = st.fixed_dictionaries(
    {"_id": st.sampled_from(["0a1-x", "0a1-y"]), "patient": st.just("0a1-p"), "source": st.just("s")},
    optional={"labels": st.lists(st.sampled_from([NORMAL, RESTRICTED, HIV, UNKNOWN_LABEL]), min_size=1, max_size=2)},
)
searches = st.fixed_dictionaries(
    {},
    optional={
        "code": st.sampled_from([["s|a"], ["s|b", "s|c"], ["s|c"]]),
        "date": spans.filter(bool).map(lambda span: {"low": span.low, "high": span.high}),
    },
)


def labelled(labels: tuple[str, ...], *, permits: bool) -> Provision:
    """What speaks of these labels and of nothing else."""
    nothing: frozenset[str] = frozenset()
    return Provision(permits, ALWAYS, nothing, nothing, nothing, nothing, (), labels, None, nothing, ())


def about_labels(provision: Provision, *labels: str) -> dict[str, Any]:
    """An example in which one Consent meets an Observation that bears these labels, seen by a stranger."""
    resource = {"_id": "0a1-x", "patient": "0a1-p", "source": "s", **({"labels": list(labels)} if labels else {})}
    case = {"type_name": "Observation", "direction": "read", "purpose": None, "of_care_team": not provision.permits}
    return {"consents": [provision], "resource": resource, "search": {}, **case}


def answer(is_so: bool) -> int:
    return YES if is_so else NO


def holds(p: Provision, resource: Any, type_name: str, direction: str, purpose: str | None) -> int:
    """Whether a provision speaks of this: YES, NO, or MAYBE where a test has no answer. The weakest of its tests decides."""
    found, labels = resource["search"], resource.get("labels", [NORMAL])
    answers = [answer(p.period.low <= NOW < p.period.high)]
    if p.actors:
        answers.append(YES if ME in p.actors else MAYBE if SOFTWARE in p.actors else NO)
    if p.directions:
        answers.append(answer(direction in p.directions))
    if p.purposes:
        answers.append(MAYBE if purpose is None else answer(purpose in p.purposes))
    if p.types:
        answers.append(answer(type_name in p.types))
    if p.instances:
        answers.append(answer(f"{type_name}/{resource['_id']}" in p.instances))
    if p.codes:
        answers.append(answer(bool(set(p.codes) & set(found["code"]))) if "code" in found else MAYBE)
    if p.labels:
        answers.append(MAYBE if UNKNOWN_LABEL in labels else answer(bool(set(p.labels) & set(labels))))
    if p.data_period is not None:
        date = found.get("date")
        if date is None:
            answers.append(MAYBE)
        elif p.data_period.low <= date["low"] and date["high"] <= p.data_period.high:
            answers.append(YES)
        else:
            answers.append(MAYBE if date["low"] < p.data_period.high and p.data_period.low < date["high"] else NO)
    return min(answers)


def verdict(p: Provision, surely: bool, *about: Any) -> str | None:
    """What the deepest matching provision says; at one level a denial wins. Only what surely matches permits."""
    match = holds(p, *about)
    if match == NO:
        return None
    surely = surely and match == YES
    inner = {verdict(nested, surely, *about) for nested in p.nested}
    if "deny" in inner or "permit" in inner:
        return "deny" if "deny" in inner else "permit"
    if not p.permits:
        return "deny"
    return "permit" if surely else None


def caller(kind: str, purpose: str | None) -> Caller:
    scope = Scope("user", "*", frozenset("cruds"), EVERYTHING, "user/*.cruds")
    me, software, doctor = frozenset({ME}), frozenset({SOFTWARE}), frozenset({"10"})
    return Caller("c", "s", kind, me, software, None, None, (scope,), purpose, "", professions=doctor)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(max_examples=400, deadline=None)
@example(**about_labels(labelled((NORMAL,), permits=True)))
@example(**about_labels(labelled((NORMAL,), permits=True), NORMAL, UNKNOWN_LABEL))
@example(**about_labels(labelled((RESTRICTED,), permits=False), UNKNOWN_LABEL))
@given(
    consents=st.lists(trees, min_size=1, max_size=2),
    resource=resources,
    search=searches,
    type_name=st.sampled_from(["Observation", "Observation", "DocumentReference"]),
    direction=st.sampled_from(["read", "write"]),
    purpose=st.sampled_from([None, TREAT, RESEARCH]),
    of_care_team=st.booleans(),
)
@pytest.mark.requirement("CON-002", "CON-003")
def test_a_consent_means_what_it_says(
    registry: Registry,
    policy: Policy,
    consents: list[Provision],
    resource: dict[str, Any],
    search: dict[str, Any],
    type_name: str,
    direction: str,
    purpose: str | None,
    of_care_team: bool,
) -> None:
    kind = registry[type_name]
    names = {"code": kind.consent_code or "", "date": kind.consent_date or ""}
    values = {**resource, "search": {names[name]: value for name, value in search.items()}}
    record = Record(
        patient="0a1-p",
        consents=tuple(Consent(f"Consent/{n}", p.actors, p) for n, p in enumerate(consents)),
        care_team=frozenset({ME} if of_care_team else ()),
    )
    access = Access(caller("professional", purpose), registry, policy, NOW, [record])
    verdicts = {verdict(p, True, {**resource, "search": search}, type_name, direction, purpose) for p in consents}
    base = direction == "write" or of_care_team
    expected = "deny" not in verdicts and (base or "permit" in verdicts)
    assert matches(access.rights(kind, direction), values) is expected
