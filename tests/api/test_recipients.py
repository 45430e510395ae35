"""Nobody opens their record to an insurer, an employer or a bank: such a Consent is refused when it is written."""

from typing import Any

import pytest

from tests.world import Actor, World, bundle, concept, consent, entry, expression, organization

TYPES = "http://terminology.hl7.org/CodeSystem/organization-type"
OURS = "urn:fhir-document-gateway:CodeSystem/recipient-category"
PLACE = "Consent.provision.actor[0].reference"


async def organization_of(world: World, *types: dict[str, Any]) -> Actor:
    body = organization(**({"type": list(types)} if types else {}))
    return Actor(world.http, "", f"Organization/{(await world.operator.create(body))['id']}")


@pytest.mark.parametrize(
    ("types", "is_refused"),
    [
        ([concept(TYPES, "ins")], True),
        ([concept(TYPES, "prov"), concept(TYPES, "pay")], True),
        ([concept(OURS, "employer")], True),
        ([concept(OURS, "bank")], True),
        ([concept(OURS, "pharmacy")], False),
        ([concept(TYPES, "prov")], False),
        ([], False),
    ],
)
async def test_a_recipient_is_what_the_directory_calls_it(world: World, types: list[dict[str, Any]], is_refused: bool) -> None:
    owner, recipient = await world.patient(), await organization_of(world, *types)
    before = await world.fingerprint()
    answer = await owner.post("Consent", consent(owner, recipient))
    if not is_refused:
        assert answer.status_code == 201, answer.text
        return
    assert (answer.status_code, expression(answer)) == (422, PLACE), answer.text
    assert answer.json()["issue"][0]["code"] == "business-rule"
    assert await world.fingerprint() == before
    assert (await owner.post("Consent", {**consent(owner, recipient), "status": "draft"})).status_code == 201
    denial = await owner.create(consent(owner, recipient, type="deny"))
    turned = {**denial, "provision": {**denial["provision"], "type": "permit"}}
    assert (await owner.put(f"Consent/{denial['id']}", turned)).status_code == 422
    assert (await owner.get(f"Consent/{denial['id']}")).json() == denial


@pytest.mark.parametrize("where", ["nested", "above", "in a transaction", "by a proxy", "by the rule", "a denial by the rule"])
async def test_wherever_it_is_named(world: World, where: str) -> None:
    owner, recipient = await world.patient(), await organization_of(world, concept(OURS, "bank"))
    body, place, sender = consent(owner, recipient), PLACE, owner
    actor = body["provision"]["actor"]
    if where == "nested":
        body["provision"] = {"type": "deny", "provision": [{"type": "permit", "actor": actor}]}
        place = "Consent.provision.provision[0].actor[0].reference"
    if where == "above":
        body["provision"] = {"type": "deny", "actor": actor, "provision": [{"type": "permit"}]}
    if where.endswith("by the rule"):
        rule = "OPTOUT" if where.startswith("a denial") else "OPTIN"
        body["policyRule"] = concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", rule)
        del body["provision"]["type"]
    if where == "by a proxy":
        sender = await world.proxy(owner)
        body["performer"] = [{"reference": sender.reference}]
    if where == "in a transaction":
        answer = await owner.post("", bundle("transaction", entry("POST", "Consent", body)))
        place = f"Bundle.entry[0].resource.{place.partition('.')[2]}"
    else:
        answer = await sender.post("Consent", body)
    if where == "a denial by the rule":
        assert answer.status_code == 201, answer.text
    else:
        assert (answer.status_code, expression(answer)) == (422, place), answer.text
