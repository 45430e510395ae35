"""All faults that are seeded: what `broken` shows and `test_kit` has caught."""

from tests.conformance import faults_measures
from tests.conformance.faults import FAULTS

__all__ = ["FAULTS", "faults_measures"]
