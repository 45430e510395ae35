"""One demo for all tests that look at the same village: each file finds it as it was first."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.sandbox.test_demo import demo


@pytest.fixture(scope="session")
def shared_site() -> Iterator[str]:
    with demo() as running:
        found = re.search(r"http://127\.0\.0\.1:\d+", running.text)
        assert found is not None
        yield found[0]


@pytest.fixture(scope="module")
def site(shared_site: str) -> str:
    """The address of a demo that nobody has changed yet."""
    assert httpx.post(f"{shared_site}/sandbox/reset", timeout=60).status_code == 200
    return shared_site
