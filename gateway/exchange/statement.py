"""Who stands behind the calls of an establishment: the statement that it signs, as IHE IUA shapes it.

Knows: what a statement must say (https://profiles.ihe.net/ITI/IUA/, extension `ihe_iua`), and whom here it means.
Must not know: HTTP, how it was signed and that it is used once (it comes in the assertion by which the client shows who it is).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from gateway.exchange.client import Client
from gateway.exchange.gateway import Gateway
from gateway.exchange.professions import find_professions
from gateway.fhir.values import token_values
from gateway.problem import Problem
from gateway.store.federation import find_people, find_roles, has_identifier

EXTENSION = "ihe_iua"
_MOST_ROLES = 10

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Coded(msgspec.Struct, frozen=True):
    """A code with its system."""

    system: Annotated[str, msgspec.Meta(pattern=r"^[^\s|]{1,200}$")]
    code: Annotated[str, msgspec.Meta(pattern=r"^[^\s|]{1,100}$")]

    def __str__(self) -> str:
        """As the rest of the gateway writes it."""
        return f"{self.system}|{self.code}"


class _Statement(msgspec.Struct, frozen=True):
    subject_name: Text
    national_provider_identifier: Text
    subject_role: Annotated[list[Coded], msgspec.Meta(min_length=1, max_length=_MOST_ROLES)]
    purpose_of_use: Annotated[list[Coded], msgspec.Meta(min_length=1, max_length=1)]
    subject_organization_id: Text | None = None


@dataclass(frozen=True, slots=True)
class Behind:
    """Who it is. `user`: the Practitioner; `actors`: all references by which a Consent may name them at this place; `roles`: as
    what they act, as `system|code`; `professions`: what they are; `organization`: where.
    """

    user: str
    actors: tuple[str, ...]
    roles: tuple[str, ...]
    professions: tuple[str, ...]
    organization: str
    purpose: str


async def read_statement(gateway: Gateway, client: Client, extensions: Any) -> Behind | None:
    """Who stands behind what this client does with the token that it asks for; None where it states nobody.

    Raises Problem naming the member where the statement does not say who, as what, where and why, or nobody here is that.
    """
    stated = extensions.get(EXTENSION) if isinstance(extensions, Mapping) else None
    if stated is None:
        return None
    if client.kind not in gateway.policy.statement_needed or client.staff is None or client.actor is None:
        raise Problem("invalid", "this client states for nobody (staff)", EXTENSION)
    try:
        statement = msgspec.convert(stated, _Statement)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
        raise Problem("invalid", text, f"{EXTENSION}{place.rstrip('`')}") from None
    purpose = str(statement.purpose_of_use[0])
    if purpose not in gateway.policy.statement_purposes:
        raise Problem("invalid", "is none of the purposes of policy.toml", f"{EXTENSION}.purpose_of_use")
    organization = statement.subject_organization_id
    if organization is not None and not await has_identifier(gateway.mongo, client.actor, token_values(None, organization)[-1]):
        raise Problem("invalid", "is not the organization of this client", f"{EXTENSION}.subject_organization_id")
    number = token_values(client.staff, statement.national_provider_identifier)[0]
    people = await find_people(gateway.mongo, "Practitioner", number)
    if len(people) != 1:
        raise Problem("invalid", "is nobody in the directory here", f"{EXTENSION}.national_provider_identifier")
    user = f"Practitioner/{people[0]}"
    roles = await find_roles(gateway.mongo, user, client.actor, None)
    actors = (user, *(f"PractitionerRole/{role}" for role in roles), client.actor)
    stated = tuple(map(str, statement.subject_role))
    return Behind(
        user=user,
        actors=actors,
        roles=stated,
        professions=await find_professions(gateway, "professional", actors, stated),
        organization=client.actor,
        purpose=purpose,
    )
