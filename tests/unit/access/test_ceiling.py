"""The ceiling of a client: what it is granted is asked for, and allowed, and nothing else (SMART's v1 and v2 notation)."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.ceiling import READING, WRITING, Ceiling
from gateway.access.scope import Scope, parse_scopes
from gateway.fhir.registry import Registry
from gateway.fhir.search import Reading
from tests.conftest import packaged

CEILING = Ceiling(frozenset({"system"}), frozenset({"Observation", "Device"}), frozenset({"Observation"}))
TYPES = ("*", "Observation", "Device", "Patient")
PERMISSIONS = ("read", "write", "*", *("".join(p) for n in range(1, 6) for p in itertools.combinations("cruds", n)))


def parse(text: str, registry: Registry | None = None) -> tuple[Scope, ...]:
    reading = Reading(now=datetime.now(UTC), or_values=50, patients={})
    return parse_scopes(registry or packaged().registry, text, reading)


@pytest.mark.requirement("SEC-012")
@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("system/Observation.rs", "system/Observation.rs"),
        ("system/Observation.cruds", "system/Observation.cruds"),
        ("system/Device.cruds", "system/Device.rs"),
        ("system/Device.c", ""),
        ("system/Patient.$lookup system/Device.r", "system/Patient.$lookup system/Device.r"),
        ("user/Patient.$lookup", ""),
        ("system/Patient.r", ""),
        ("patient/Observation.rs user/Observation.rs", ""),
        ("system/*.rs", "system/Device.rs system/Observation.rs"),
        ("system/*.crs", "system/Device.rs system/Observation.crs"),
        ("system/*.read", "system/Device.read system/Observation.read"),
        ("system/*.*", "system/Device.read system/Observation.*"),
        ("system/*.write", "system/Observation.write"),
        ("system/Observation.read system/Observation.read", "system/Observation.read"),
        (
            "system/Observation.rs?category=http://x|laboratory system/Device.r",
            "system/Observation.rs?category=http://x|laboratory system/Device.r",
        ),
        ("openid launch/patient", ""),
    ],
)
def test_a_scope_is_cut_down_in_its_own_notation(registry: Registry, asked: str, granted: str) -> None:
    assert " ".join(CEILING.narrow(parse(asked, registry))) == granted


@pytest.mark.requirement("SEC-011")
@given(
    asked=st.lists(
        st.tuples(st.sampled_from(("patient", "user", "system")), st.sampled_from(TYPES), st.sampled_from(PERMISSIONS))
    ),
    levels=st.sets(st.sampled_from(("patient", "user", "system"))),
    read=st.sets(st.sampled_from(TYPES[1:])),
    write=st.sets(st.sampled_from(TYPES[1:])),
)
def test_granted_is_exactly_what_is_asked_for_and_allowed(
    asked: list[tuple[str, str, str]], levels: set[str], read: set[str], write: set[str]
) -> None:
    wanted = parse(" ".join(f"{level}/{name}.{permissions}" for level, name, permissions in asked))
    granted = parse(" ".join(Ceiling(frozenset(levels), frozenset(read), frozenset(write)).narrow(wanted)))
    for level, name, letter in itertools.product(("patient", "user", "system"), TYPES[1:], "cruds"):
        is_asked = any(s.level == level and s.type in ("*", name) and letter in s.permissions for s in wanted)
        is_allowed = level in levels and ((letter in READING and name in read) or (letter in WRITING and name in write))
        is_granted = any(s.level == level and s.type in ("*", name) and letter in s.permissions for s in granted)
        assert is_granted == (is_asked and is_allowed)
