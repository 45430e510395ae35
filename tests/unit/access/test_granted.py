"""What is granted is never more than what was asked for, what the client may ever have, and what was ticked."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.ceiling import Ceiling
from gateway.access.decision import Item, items_of, narrow
from gateway.access.scope import Scope, parse_scopes
from gateway.fhir.registry import Registry
from gateway.fhir.search import Reading
from tests.conftest import packaged

TYPES = ["Observation", "Device", "Patient", "DocumentReference"]
LETTERS = {"read": set("rs"), "write": set("cud")}

types = st.sampled_from([*TYPES, "*"])
permissions = st.sampled_from(["read", "write", "*", "rs", "r", "s", "c", "cud", "cruds", "cr"])
scope_texts = st.builds(lambda name, letters: f"patient/{name}.{letters}", types, permissions)
some_types = st.frozensets(st.sampled_from(TYPES))
items = st.frozensets(st.tuples(st.sampled_from(["read", "write"]), st.sampled_from(TYPES)))


def read(registry: Registry, text: str) -> tuple[Scope, ...]:
    return parse_scopes(registry, text, Reading(now=datetime(2026, 11, 25, tzinfo=UTC), or_values=10, patients={}))


def rights(scopes: tuple[Scope, ...]) -> set[tuple[str, str]]:
    """Type and letter of everything that these scopes give."""
    return {
        (name, letter)
        for scope in scopes
        for name in (TYPES if scope.type == "*" else [scope.type])
        for letter in scope.permissions
    }


@pytest.mark.requirement("SEC-011", "SEC-012")
@settings(deadline=None)
@given(st.lists(scope_texts, min_size=1, max_size=4), some_types, some_types, items)
def test_granted_is_within_asked_and_registered_and_ticked(
    asked: list[str], may_read: frozenset[str], may_write: frozenset[str], ticked: frozenset[Item]
) -> None:
    registry = packaged().registry
    requested = read(registry, " ".join(asked))
    levels = frozenset({"patient"})
    offered = read(registry, " ".join(Ceiling(levels, may_read, may_write).narrow(requested)))
    allowed = ticked & set(items_of(registry, offered))
    granted = rights(read(registry, " ".join(narrow(offered, levels, allowed))))
    registered = {(name, letter) for name in may_read for letter in "rs"} | {(n, letter) for n in may_write for letter in "cud"}
    approved = {(name, letter) for way, name in ticked for letter in LETTERS[way]}
    assert granted == rights(requested) & registered & approved
    assert "*" not in {scope.type for scope in offered}
