"""What the faults leave behind is cleared away where it was made."""

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _broken_connections() -> Iterator[None]:
    """PyMongo drops, unclosed, the socket of a connection that breaks while it is made; no later test shall be blamed."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
