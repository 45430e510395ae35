"""A victim whose record holds one resource of every served type, and everybody who has no right to it."""

from base64 import b64encode
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from gateway.fhir.registry import Registry, ResourceType
from gateway.fhir.types import Element
from gateway.store.change import Change
from tests import world as people
from tests.world import Actor, World, unique

CANARY = "Zaphodine"  # stands in every text of the victim and nowhere else
SYSTEM = "https://victim.example/ids"


@dataclass(frozen=True, slots=True)
class Scene:
    """`ids`: of the victim's resources, by type; `identifiers`: the business identifier of each."""

    world: World
    victim: Actor
    ids: dict[str, str]
    identifiers: dict[str, str]

    def ghost(self, identifier: str) -> str:
        """An id that looks like this one and never existed."""
        return self.world.gateway.ids.new(identifier[:3])


def owned_types(registry: Registry) -> list[ResourceType]:
    """Every served type whose resources are somebody's."""
    return [kind for kind in registry.resource_types.values() if kind.in_compartment]


def minimal(registry: Registry, kind: ResourceType, owner: str, identifier: str) -> dict[str, Any]:
    """The smallest valid resource of a type, derived as the types are, with the canary wherever a text can stand."""
    found = _minimal_type(registry, kind.name, owner)
    if kind.patient_path:
        first = kind.patient_path.partition(".")[0]
        many = next(e.many for e in registry.types.elements(kind.name) if e.name == first)
        reference = {"reference": f"Patient/{owner}"}
        found[first] = [reference] if many else reference
    if any(e.name == "identifier" for e in registry.types.elements(kind.name)):
        found["identifier"] = [{"system": SYSTEM, "value": identifier}]
    if kind.is_raw:
        found |= {"contentType": "text/plain", "data": b64encode(CANARY.encode()).decode()}
    if kind.name == "Consent":
        found |= people.consent(Actor(None, "", "", owner), None, "access")  # type: ignore[arg-type]
        # What it permits, no Consent opens: it changes nothing for anybody.
        found["provision"]["class"] = [{"system": "http://hl7.org/fhir/resource-types", "code": "Provenance"}]
    return {"resourceType": kind.name, **found}


def _minimal_type(registry: Registry, name: str, owner: str) -> dict[str, Any]:
    elements = registry.types.elements(name)
    chosen: dict[str, Element] = {e.name: e for e in elements if e.required}
    for element in elements:
        if element.choice_required and element.choice and not any(e.choice == element.choice for e in chosen.values()):
            chosen[element.name] = element
    return {e.name: ([one] if e.many else one) for e in chosen.values() for one in [_value(registry, e, owner)]}


def _value(registry: Registry, element: Element, owner: str) -> Any:
    if element.codes:
        return element.codes[0]
    match element.type:
        case "CodeableConcept":
            return {"text": CANARY}
        case "Reference":
            return {"reference": f"Patient/{owner}"}
        case "string" | "markdown" | "code":
            return CANARY
        case "boolean":
            return True
        case "dateTime" | "instant":
            return "2026-11-20T08:00:00Z"
        case "date":
            return "2026-11-20"
        case "uri" | "url" | "canonical":
            return f"urn:x:{CANARY}"
        case "decimal" | "integer" | "positiveInt" | "unsignedInt":
            return 1
    found = _minimal_type(registry, element.type, owner)
    if not found:  # an object must not be empty: any text will do
        texts = (e for e in registry.types.elements(element.type) if e.type in ("string", "markdown") and e.name != "id")
        found = {next(texts).name: CANARY}
    return found


async def build_scene(world: World) -> Scene:
    """A victim with one resource of every type, by whatever way that type is written."""
    registry = world.gateway.registry
    number = unique("secret")
    victim = await world.patient(
        name=[{"family": CANARY}], identifier=[{"system": SYSTEM, "value": number}], birthDate="1971-03-05"
    )
    ids, identifiers = {"Patient": victim.patient or ""}, {"Patient": number}
    for kind in owned_types(registry):
        if kind.name in ids or kind.name == "AuditEvent":
            continue
        identifiers[kind.name] = unique("secret")
        resource = minimal(registry, kind, victim.patient or "", identifiers[kind.name])
        if kind.name == "DocumentReference":  # (content is there for somebody only where something attaches it)
            resource["content"] = [{"attachment": {"url": f"Binary/{ids['Binary']}"}}]
        writer = next((w for w in (victim, world.operator) if _may_write(world, w, kind)), None)
        if writer is not None:
            ids[kind.name] = (await writer.create(resource))["id"]
        else:
            ids[kind.name] = await plant(world, kind, victim.patient or "", resource)
    [event, *_] = await world.stored("AuditEvent", patient=victim.patient)
    ids["AuditEvent"], identifiers["AuditEvent"] = event["_id"], unique("none")
    return Scene(world, victim, ids, identifiers)


def _may_write(world: World, writer: Actor, kind: ResourceType) -> bool:
    actor = "patient" if writer.patient else "operator"
    return (actor, kind.name, "create") in world.gateway.policy.may_write and "create" in kind.interactions


async def plant(world: World, kind: ResourceType, owner: str, resource: dict[str, Any]) -> str:
    """Store what no client may write, by the store's own way."""
    gateway = world.gateway
    struct = gateway.registry.types.struct(kind.name)
    typed = gateway.codec.decode(kind.name, gateway.codec.encode(resource))
    assert isinstance(typed, struct)
    identifier = gateway.ids.new(owner[:3])
    typed.id, typed.meta = identifier, gateway.registry.types.struct("Meta")(versionId="1")
    document = Change(
        kind=kind,
        interaction="create",
        id=identifier,
        head=owner,
        patient=owner,
        source="server",
        resource=typed,
        values={"search": gateway.index.search_values(kind, typed)},
    ).document(1, gateway.clock().replace(microsecond=0), gateway.codec.encode)
    await gateway.mongo.insert(kind.name, [document])
    return identifier


# Everybody without a right to the victim's record.


async def other_patient(scene: Scene) -> Actor:
    return await scene.world.patient()


async def other_patient_with_wide_scopes(scene: Scene) -> Actor:
    return await scene.world.patient("user/*.cruds system/*.cruds")


async def proxy_of_another(scene: Scene) -> Actor:
    return await scene.world.proxy(await scene.world.patient(), "patient/*.cruds user/*.cruds")


async def app_of_another(scene: Scene) -> Actor:
    owner = await scene.world.patient()
    app = await scene.world.app(owner, "patient/*.cruds")
    await scene.world.consent(owner, app, "access")
    await scene.world.consent(owner, app, "collect")
    return app


async def app_with_wide_scopes(scene: Scene) -> Actor:
    return await scene.world.app(await scene.world.patient(), "user/*.cruds system/*.cruds")


async def app_without_consent(scene: Scene) -> Actor:
    return await scene.world.app(scene.victim, "patient/*.cruds")


async def professional_without_consent(scene: Scene) -> Actor:
    return await scene.world.professional()


async def professional_of_another(scene: Scene) -> Actor:
    professional = await scene.world.professional()
    await scene.world.consent(await scene.world.patient(), professional)
    return professional


async def professional_with_revoked_consent(scene: Scene) -> Actor:
    professional = await scene.world.professional()
    given = await scene.world.consent(scene.victim, professional)
    await scene.world.revoke(scene.victim, given)
    return professional


async def professional_with_deleted_consent(scene: Scene) -> Actor:
    professional = await scene.world.professional()
    given = await scene.world.consent(scene.victim, professional)
    assert (await scene.victim.delete(f"Consent/{given['id']}")).status_code == 204
    return professional


async def professional_with_expired_consent(scene: Scene) -> Actor:
    professional = await scene.world.professional()
    ended = (scene.world.clock() - timedelta(seconds=5)).isoformat(timespec="seconds")
    given = people.consent(scene.victim, professional, period={"start": "2020-01-01", "end": ended})
    await scene.victim.create(given)
    return professional


async def professional_with_future_consent(scene: Scene) -> Actor:
    professional = await scene.world.professional()
    await scene.victim.create(people.consent(scene.victim, professional, period={"start": "2099-01-01"}))
    return professional


async def service_without_consent(scene: Scene) -> Actor:
    return await scene.world.service("user/*.cruds system/*.cruds")


async def service_whose_consent_is_a_draft(scene: Scene) -> Actor:
    service = await scene.world.service()
    await scene.victim.create({**people.consent(scene.victim, service), "status": "draft"})
    return service


STRANGERS = (
    other_patient,
    other_patient_with_wide_scopes,
    proxy_of_another,
    app_of_another,
    app_with_wide_scopes,
    app_without_consent,
    professional_without_consent,
    professional_of_another,
    professional_with_revoked_consent,
    professional_with_deleted_consent,
    professional_with_expired_consent,
    professional_with_future_consent,
    service_without_consent,
    service_whose_consent_is_a_draft,
)

# Those who differ from another one only in why they have no right.
REASONS = (
    app_of_another,
    professional_of_another,
    professional_with_deleted_consent,
    professional_with_expired_consent,
    professional_with_future_consent,
    service_whose_consent_is_a_draft,
)
