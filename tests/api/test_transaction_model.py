"""Transactions at random: whatever their entries do to each other, they are carried out as a whole or not at all."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.world import Actor, World, bundle, entry, observation

SYSTEM = "urn:oid:1.2.3.9"
STATUSES = ("preliminary", "final")

# An entry: what it does, under which of three identifiers, saying what.
STEP = st.tuples(
    st.sampled_from(["create", "create if none", "update", "delete", "read"]), st.integers(0, 2), st.sampled_from(STATUSES)
)
BUNDLES = st.lists(st.lists(STEP, min_size=1, max_size=4), min_size=1, max_size=4)


async def _stored(world: World, owner: Actor) -> dict[str, dict[str, Any]]:
    """The current documents of the record, by business identifier; there is at most one for each."""
    found = await world.stored("Observation", patient=owner.patient)
    by_token = {d["search"]["identifier"][0].rpartition("|")[2]: d for d in found}
    assert len(by_token) == len(found)
    return by_token


def _entry(owner: Actor, stored: dict[str, dict[str, Any]], step: tuple[str, int, str]) -> Any:
    action, number, status = step
    token = f"{owner.patient}-{number}"
    resource = observation(owner.patient, identifier=[{"system": SYSTEM, "value": token}], status=status)
    identifier = stored[token]["_id"] if token in stored else f"{owner.patient[:3]}-none"
    match action:
        case "create":
            return entry("POST", "Observation", resource)
        case "create if none":
            return entry("POST", "Observation", resource, ifNoneExist=f"identifier={SYSTEM}|{token}")
        case "update":
            return entry("PUT", f"Observation/{identifier}", resource | {"id": identifier})
        case "delete":
            return entry("DELETE", f"Observation/{identifier}")
        case _:
            return entry("GET", f"Observation?identifier={SYSTEM}|{token}")


@pytest.fixture
def here(world: World) -> Callable[[], World]:
    """The world, wrapped: a property that fails prints its arguments."""
    return lambda: world


@pytest.mark.requirement("BUN-01", "BUN-02", "BUN-06")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BUNDLES)
async def test_a_transaction_is_carried_out_as_a_whole_or_not_at_all(
    here: Callable[[], World], bundles: list[list[tuple[str, int, str]]]
) -> None:
    world = here()
    owner = await world.patient()
    for steps in bundles:
        before, print_before = await _stored(world, owner), await world.fingerprint()
        answer = await owner.post("", bundle("transaction", *(_entry(owner, before, step) for step in steps)))
        after = await _stored(world, owner)
        if answer.status_code != 200:
            assert 400 <= answer.status_code < 500, answer.text
            assert "Bundle.entry[" in answer.text
            assert await world.fingerprint() == print_before
            continue
        changed = {str(number) for action, number, _ in steps if action in ("update", "delete")}
        for (action, number, status), found in zip(steps, answer.json()["entry"], strict=True):
            token = f"{owner.patient}-{number}"
            old, new = before.get(token), after.get(token)
            code = found["response"]["status"][:3]
            if action in ("create", "create if none"):
                assert new is not None
                assert code == "200" if old is not None else code in ("200", "201")
                assert found["response"]["location"] == f"Observation/{new['_id']}/_history/{new['version']}"
                assert str(number) not in changed
            elif action == "update":
                assert (code, new and new["version"]) == ("200", old and old["version"] + 1)
                assert new is not None
                assert f'"status":"{status}"'.encode() in new["body"]
            elif action == "delete":
                assert code == "204"
                assert new is not None
                assert new["deleted"]
            else:
                is_there = new is not None and not new.get("deleted")
                assert found["resource"]["total"] == int(is_there)
        made = [found for found in answer.json()["entry"] if found["response"]["status"][:3] == "201"]
        assert len(made) == len(after.keys() - before.keys())
