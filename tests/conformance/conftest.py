"""The sandbox that the kit is tried on, as a process of its own."""

from collections.abc import Iterator

import pytest

from tests.process import environment, free_port, listening


@pytest.fixture(scope="package")
def site(mongo_url: str) -> Iterator[str]:
    """Address of a sandbox with a broken twin for each fault."""
    port = free_port()
    env = environment(
        mongo_url, GATEWAY_BASE_URL=f"http://127.0.0.1:{port}/fhir", GATEWAY_LOG_LEVEL="error", GATEWAY_RATES="off"
    )
    with listening(["tests.conformance.broken", str(port)], port, env, seconds=150):
        yield f"http://127.0.0.1:{port}"
