"""People who log in elsewhere: where they stand on their way, and which resources here they are.

Knows: how a login under way is stored (under the hash of its state, good once), and how a directory is asked for whom an
identifier means. Nothing of it is told to a caller before it is known that it is theirs.
Must not know: HTTP, providers, FHIR resources.
"""

from contextlib import suppress
from datetime import datetime
from hashlib import sha256

from gateway.store.filter import LIVE
from gateway.store.mongo import Document, Mongo, Part, Stale
from gateway.store.schema import ASSERTIONS, LOGINS

_MOST = 20  # people whom one identifier of a carer stands for, roles of one professional at one place
_ACTIVE: Document = {**LIVE, "search.active": {"$ne": "false"}}


async def put_login(mongo: Mongo, state: str, browser: str, fields: Document) -> None:
    """Remember that the browser with this cookie is on its way. `fields`: with `provider` and `expires`."""
    await mongo.insert(LOGINS, [{"_id": _hash(state), "browser": _hash(browser), **fields}])


async def take_login(mongo: Mongo, state: str, browser: str, provider: str, now: datetime) -> Document | None:
    """What was remembered of this browser's way to this provider, once; None where there is no such thing."""
    where = {"_id": _hash(state), "browser": _hash(browser), "provider": provider, "expires": {"$gt": now}}
    found = await mongo.find_one(LOGINS, where)
    # Of any number who come with it, one deletes it.
    return found if found is not None and await mongo.delete(LOGINS, {"_id": found["_id"]}) else None


async def has_come(mongo: Mongo, notice: bytes) -> bool:
    """Whether a provider's notice of this name has come, and done what it says."""
    return await mongo.find_one(ASSERTIONS, {"_id": notice}, {"_id": 1}) is not None


async def write_down(mongo: Mongo, notice: bytes, ends: datetime) -> None:
    """Write down that a provider's notice came. (Of two that come at once, both have done the same.)"""
    with suppress(Stale):
        await mongo.insert(ASSERTIONS, [{"_id": notice, "ends": ends}])


async def find_people(mongo: Mongo, type_name: str, token: str) -> list[str]:
    """The ids of those with this identifier (`system|value`) who are active: several may be one carer's."""
    found = await mongo.find(type_name, {"search.identifier": token, **_ACTIVE}, {"_id": 1}, limit=_MOST)
    return sorted(document["_id"] for document in found)


async def find_roles(mongo: Mongo, practitioner: str, organization: str, codes: list[str] | None) -> list[str]:
    """The ids of the active roles that a Practitioner has at an Organization, both by reference; `codes`: one of these."""
    where: Document = {"search.practitioner": practitioner, "search.organization": organization, **_ACTIVE}
    if codes is not None:
        where["search.role"] = {"$in": codes}
    return sorted(document["_id"] for document in await mongo.find("PractitionerRole", where, {"_id": 1}, limit=_MOST))


async def find_carers(mongo: Mongo, references: list[str], places: list[str]) -> list[tuple[str, bytes]]:
    """Type and body of these Practitioners and PractitionerRoles, and of the roles of the former, at these places if any."""
    parts: list[Part] = []
    people = [reference for reference in references if reference.startswith("Practitioner/")]
    for reference in references:
        type_name, _, name = reference.partition("/")
        parts.append(Part(type_name, {"_id": name, "bucket": name[:3], **LIVE}, type_name, {"body": 1}))
    if people:
        where: Document = {"search.practitioner": {"$in": people}, **_ACTIVE}
        if places:
            where["search.organization"] = {"$in": places}
        parts.append(Part("PractitionerRole", where, "PractitionerRole", {"body": 1}))
    return [(document["of"], bytes(document["body"])) for document in await mongo.find_all(parts)]


async def has_identifier(mongo: Mongo, reference: str, identifier: str) -> bool:
    """Whether the resource that a reference names has an identifier of this value, and is active."""
    type_name, _, name = reference.partition("/")
    where = {"_id": name, "bucket": name[:3], "search.identifier": identifier, **_ACTIVE}
    return await mongo.find_one(type_name, where, {"_id": 1}) is not None


def _hash(text: str) -> bytes:
    return sha256(text.encode()).digest()
