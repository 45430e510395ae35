"""What the tests of access stand on: the policy of the packaged schemas."""

import pytest

from gateway.access.policy import Policy, read_policy
from gateway.fhir.registry import Registry
from gateway.schemas import find_schemas


@pytest.fixture(scope="session")
def policy(registry: Registry) -> Policy:
    """The policy as it is packaged."""
    return read_policy(find_schemas(), registry)
