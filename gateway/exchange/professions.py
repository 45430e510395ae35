"""What a professional is: as the establishment states of them, or else as the directory says.

Knows: where professions stand (https://hl7.org/fhir/R4/practitioner.html: `qualification`, of a PractitionerRole `code`).
It is found out when a token is issued, which lives for minutes, and not for each request. Must not know: HTTP, MongoDB, what a
profession may read.
"""

from collections.abc import Iterable
from typing import Any

from gateway.exchange.gateway import Gateway
from gateway.fhir.dates import is_running
from gateway.fhir.values import token_values
from gateway.store.federation import find_carers

_CARERS = ("Practitioner/", "PractitionerRole/")


async def find_professions(gateway: Gateway, kind: str, actors: Iterable[str], roles: Iterable[str] = ()) -> tuple[str, ...]:
    """The professions of whoever is these, by their codes; none for who is no professional. `roles`: what is stated of them."""
    stated = gateway.policy.entitlements.professions_among(roles)
    carers = [actor for actor in actors if actor.startswith(_CARERS)]
    if stated or not carers or kind != "professional":
        return tuple(sorted(stated))
    places = [actor for actor in actors if actor.startswith("Organization/")]
    bodies = await find_carers(gateway.mongo, carers, places)
    return tuple(sorted({one for name, body in bodies for one in professions_in(gateway, name, body)}))


def professions_in(gateway: Gateway, type_name: str, body: bytes) -> frozenset[str]:
    """The professions that a Practitioner or PractitionerRole says somebody has now."""
    resource, now = gateway.codec.load(type_name, body), gateway.clock()
    if resource.active is False:
        return frozenset()
    if type_name == "PractitionerRole":
        concepts = [*(resource.code or ())] if is_running(resource.period, now) else []
    else:
        concepts = [one.code for one in resource.qualification or () if is_running(one.period, now)]
    return gateway.policy.entitlements.professions_among(_tokens(concepts))


def _tokens(concepts: Iterable[Any]) -> list[str]:
    codings = (coding for concept in concepts for coding in concept.coding or ())
    return [token for coding in codings for token in token_values(coding.system, coding.code)]
