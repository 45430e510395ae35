"""Where a Consent cannot be read, is not for the caller, or just ended, the answer is no."""

import asyncio

import msgspec
import pytest

from tests.world import Actor, World, concept, consent, observation


async def sees(actor: Actor, owner: Actor) -> int:
    """How many readings of the owner an actor finds."""
    return len(await actor.search(f"Observation?patient={owner.patient}"))


@pytest.fixture
async def owner(world: World) -> Actor:
    owner = await world.patient()
    await owner.create(observation(owner.patient or ""))
    return owner


@pytest.mark.parametrize(
    "spoilt", [b"{}", b"", b"\xff", b'{"resourceType":"Consent"}', b'{"resourceType":"Consent","status":"active"}']
)
@pytest.mark.parametrize("named", [True, False])
async def test_a_stored_consent_that_cannot_be_read_denies(world: World, owner: Actor, spoilt: bytes, named: bool) -> None:
    """To whom it names, or to everybody where it names nobody; the patient sees their record all the same."""
    professional = await world.professional()
    await world.consent(owner, professional)
    assert await sees(professional, owner) == 1
    given = await owner.create(consent(owner, professional if named else None, "access"))
    where = {"_id": given["id"]}
    await world.gateway.mongo.change("Consent", where, {"$set": {"body": spoilt + b" " * len(given["id"])}})
    assert await sees(professional, owner) == 0
    assert (await owner.get(f"Observation?patient={owner.patient}")).json()["total"] == 1


async def test_a_rule_that_was_never_understood_denies(world: World, owner: Actor) -> None:
    """As if it had been stored by a version that knew more."""
    professional = await world.professional()
    given = await world.consent(owner, professional)
    [document] = await world.stored("Consent", _id=given["id"])
    known = msgspec.json.decode(document["body"])
    known["provision"]["modifierExtension"] = [{"url": "urn:x:only-on-sundays", "valueBoolean": True}]
    await world.gateway.mongo.change("Consent", {"_id": given["id"]}, {"$set": {"body": msgspec.json.encode(known)}})
    assert await sees(professional, owner) == 0


@pytest.mark.parametrize("status", ["draft", "proposed", "rejected", "inactive", "entered-in-error"])
@pytest.mark.requirement("CON-004")
async def test_only_an_active_consent_permits(world: World, owner: Actor, status: str) -> None:
    professional = await world.professional()
    await owner.create(consent(owner, professional) | {"status": status})
    assert await sees(professional, owner) == 0


@pytest.mark.requirement("CON-003")
async def test_a_denial_for_all_stands_above_a_permission_for_one(world: World, owner: Actor) -> None:
    professional = await world.professional()
    await world.consent(owner, professional)
    await owner.create(consent(owner, None, "access", type="deny"))
    assert await sees(professional, owner) == 0


async def test_a_consent_is_nobody_elses(world: World, owner: Actor) -> None:
    """Neither of another of the same kind, nor of who only uses the same software, nor in another record."""
    named, other = await world.professional(), await world.professional(software=("Device/abc-software",))
    await world.consent(owner, named)
    assert await sees(other, owner) == 0
    another = await world.patient()
    await another.create(observation(another.patient or ""))
    assert await sees(named, another) == 0


async def test_the_software_in_use_is_no_permission(world: World, owner: Actor) -> None:
    software = await world.service()
    await world.consent(owner, software)
    professional = await world.professional(software=(software.reference,))
    assert await sees(professional, owner) == 0


@pytest.mark.requirement("CON-005", "ATK-T31")
async def test_every_read_after_a_revocation_is_empty(world: World, owner: Actor) -> None:
    """Many at the same time share their look-ups: none of them may share an answer from before."""
    professional = await world.professional()
    given = await world.consent(owner, professional)
    done = False

    async def read() -> list[tuple[bool, int]]:
        found = []
        for _ in range(15):
            late = done
            found.append((late, await sees(professional, owner)))
        return found

    readers = [asyncio.create_task(read()) for _ in range(8)]
    await asyncio.sleep(0)
    await world.revoke(owner, given)
    done = True
    found = [one for answers in await asyncio.gather(*readers) for one in answers]
    assert (True, 0) in found
    assert (True, 1) not in found


@pytest.mark.requirement("ATK-T08")
async def test_answers_that_share_a_call_are_not_shared(world: World) -> None:
    """Strangers, owners and bearers of nothing ask for the same resource at the same moment."""
    owner, stranger, professional = await world.patient(), await world.patient("user/*.cruds"), await world.professional()
    nobody = Actor(world.http, "gwat_nobody", "")
    stored = await owner.create(observation(owner.patient or ""))
    path = f"Observation/{stored['id']}"
    actors = [owner, stranger, professional, nobody] * 20
    answers = await asyncio.gather(*(actor.get(path) for actor in actors))
    assert [answer.status_code for answer in answers] == [200, 404, 404, 401] * 20


@pytest.mark.requirement("CON-003")
async def test_a_proxy_does_not_lift_what_limits_them(world: World, owner: Actor) -> None:
    """A Consent that speaks of the proxy, or of everybody, is the patient's alone to change."""
    proxy = await world.proxy(owner)
    limits = [
        await owner.create(consent(owner, proxy, "access", ["Observation"], type="deny")),
        await owner.create(consent(owner, None, "access", ["Observation"], type="deny", code=[concept("urn:x", "y")])),
    ]
    assert await sees(proxy, owner) == 0
    for given in limits:
        assert (await proxy.delete(f"Consent/{given['id']}")).status_code in (403, 404, 422)
        assert (await proxy.put(f"Consent/{given['id']}", given | {"status": "inactive"})).status_code in (403, 405, 422)
    assert (await proxy.post("Consent", consent(owner, proxy, "access", ["Observation"]))).status_code in (403, 422)
    assert await sees(proxy, owner) == 0
    app = await world.app(owner)
    assert (await proxy.post("Consent", consent(owner, app, "collect"))).status_code == 201
