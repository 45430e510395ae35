"""What a caller may point at, and what a limit has to look at, without a store."""

from datetime import UTC, datetime

import pytest

from gateway.access.access import Access, Caller, Record
from gateway.access.policy import Policy
from gateway.access.scope import Scope
from gateway.fhir.clause import EVERYTHING, matches
from gateway.fhir.clause import Test as Compare
from gateway.fhir.registry import Registry

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINE, OTHER = "0a1-mine", "0b2-other"


def access(registry: Registry, policy: Policy, kind: str, patient: str | None, filters: Compare | None = None) -> Access:
    """A caller over the records of two patients."""
    scope = Scope("user", "*", frozenset("cruds"), filters or EVERYTHING, "")
    caller = Caller("c", "source", kind, frozenset({"Device/me"}), frozenset(), None, patient, (scope,), None, "")
    return Access(caller, registry, policy, NOW, [Record(MINE), Record(OTHER)])


@pytest.mark.parametrize(
    ("kind", "patient", "others"),
    [
        ("app", MINE, False),
        ("patient", MINE, False),
        ("proxy", MINE, False),
        ("professional", None, True),
        ("service", None, True),
    ],
)
def test_own_deposits_can_be_pointed_at_but_not_across_the_patients_of_one_app(
    registry: Registry, policy: Policy, kind: str, patient: str | None, others: bool
) -> None:
    clause = access(registry, policy, kind, patient).referable(registry["Device"])
    by_me = {"source": "source", "search": {}, **({"depositor": "Device/me"} if kind == "professional" else {})}
    deposits = {owner: {"_id": f"{owner}-d", "patient": owner, **by_me} for owner in (MINE, OTHER)}
    assert matches(clause, deposits[MINE])
    assert matches(clause, deposits[OTHER]) is others
    # A professional's are theirs in person, whatever software was used; others' are those of their service.
    foreign = {"depositor": "Practitioner/another"} if kind == "professional" else {"source": "another"}
    assert not matches(clause, deposits[OTHER] | foreign)


def test_a_limit_that_refuses_everything_still_says_what_its_refusal_looks_at(registry: Registry, policy: Policy) -> None:
    observation = registry["Observation"]
    limits = access(registry, policy, "app", MINE, Compare("category", "is", "laboratory"))
    assert not limits.admits(observation, "create", {"patient": MINE, "search": {"category": ["laboratory"]}})
    assert "category" in limits.parameters_weighed(observation, "create")
