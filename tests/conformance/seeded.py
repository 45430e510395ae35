"""All faults that are seeded: what `broken` shows and `test_kit` has caught."""

from tests.conformance import faults_measures, faults_rights
from tests.conformance.faults import FAULTS

__all__ = ["FAULTS", "faults_measures", "faults_rights"]
