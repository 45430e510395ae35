"""What an app that brings years of readings is told: how many at once, how fast, what it costs.

Knows: which limits and rates matter to it, and by which names they are told. Must not know: HTTP, MongoDB.
"""

from collections.abc import Mapping
from typing import Any

from gateway.settings import Limits, Rate


def submission_guidance(limits: Limits, rate: Rate | None) -> Mapping[str, tuple[str, Any]]:
    """By name an element `value[x]` and its value: `entries` to send in a Bundle, one Bundle `at-once`, and the most that is
    taken; `burst` readings without a pause, then so many `per-second`, of which one that is known counts as the part `known`.
    """
    told: dict[str, tuple[str, Any]] = {
        "entries": ("valuePositiveInt", limits.history_entries),
        "most-entries": ("valuePositiveInt", limits.bundle_entries),
        "most-bytes": ("valuePositiveInt", limits.body_bytes),
        "at-once": ("valuePositiveInt", 1),
    }
    if rate is not None:
        told["burst"] = ("valuePositiveInt", rate.burst)
        told["per-second"] = ("valueDecimal", rate.per_second)
        told["known"] = ("valueDecimal", rate.known)
    return told
