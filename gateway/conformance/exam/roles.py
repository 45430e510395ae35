"""Roles: which of a client's requests are its work, and what its exam is made of.

Knows: who does what at a gateway. Must not know: how requests come and go.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.conformance.exam.scenes import (
    CLOCK,
    CORRECTED,
    CORRECTS,
    EXPIRED,
    GONE,
    LOST,
    MAINTENANCE,
    MIXED,
    REVOKED,
    SLOW,
    TOO_OFTEN,
    TOO_OFTEN_BARE,
    TWICE,
    UNAVAILABLE,
    Scene,
)
from gateway.conformance.exam.sent import Sent


@dataclass(frozen=True, slots=True)
class Role:
    """What is examined. `is_work`: whether a request is what this client is there for. `token`: of which role the kit's
    description of a sandbox has a token for it.
    """

    name: str
    text: str
    token: str
    is_work: Callable[[Sent], bool]
    scenes: Sequence[Scene]


def _writes(*types: str) -> Callable[[Sent], bool]:
    address = re.compile(rf"/(?:{'|'.join(types)})?/?(?:\?.*)?$")
    base = re.compile(r"/fhir/?$|/base/?$|/r4/?$", re.IGNORECASE)

    def is_work(sent: Sent) -> bool:
        path = sent.target.split("?")[0]
        return sent.method == "POST" and (bool(base.search(path)) or "$submit" in path or bool(address.search(path)))

    return is_work


def _reads(sent: Sent) -> bool:
    return sent.method == "GET" and not sent.target.endswith(("/metadata", "/.well-known/smart-configuration"))


ROLES = {
    role.name: role
    for role in (
        Role(
            "pushing-app",
            "an app that pushes readings",
            "app",
            _writes("Observation"),
            [LOST, TOO_OFTEN, TOO_OFTEN_BARE, UNAVAILABLE, MAINTENANCE, CLOCK, EXPIRED, TWICE, CORRECTS, SLOW, REVOKED],
        ),
        Role(
            "document-producer",
            "software that deposits documents",
            "professional",
            _writes("DocumentReference", "Binary"),
            [LOST, UNAVAILABLE, MAINTENANCE, CLOCK, EXPIRED, TWICE, SLOW],
        ),
        Role(
            "document-consumer",
            "software that finds and fetches documents",
            "professional",
            _reads,
            [MIXED, TOO_OFTEN, UNAVAILABLE, MAINTENANCE, CLOCK, EXPIRED, SLOW, GONE],
        ),
        Role(
            "external-service",
            "a service that reads what a patient agreed to share",
            "professional",
            _reads,
            [MIXED, CORRECTED, TOO_OFTEN, TOO_OFTEN_BARE, UNAVAILABLE, CLOCK, EXPIRED, SLOW, GONE],
        ),
    )
}
