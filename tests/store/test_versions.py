"""The versions of a type pass the caller's door: each by itself, and none without the present one."""

from datetime import datetime

import pytest

from gateway.access.access import Access
from gateway.exchange.standing import authenticate
from gateway.store.standing import About
from gateway.store.versions import Mark, find_versions
from tests.world import Actor, World, consent, label, related_person


async def seen(
    world: World, access: Access, *, since: datetime | None = None, after: Mark | None = None, limit: int = 50
) -> list[tuple[str, int | None]]:
    """The versions that were looked at: the resource's id, and the number where they may be seen."""
    kind = world.gateway.registry["RelatedPerson"]
    found = await find_versions(access, world.gateway.mongo, kind, since=since, after=after, limit=limit, seconds=2)
    return [(v.mark.id, v.document and v.document["version"]) for v in found]


async def access_of(world: World, actor: Actor, owner: Actor) -> Access:
    return await authenticate(world.gateway, actor.token, About(patient=owner.patient))


@pytest.mark.parametrize(("labelled", "visible"), [(1, [3, 2]), (2, [3, 1]), (3, [])])
async def test_a_hidden_version_is_not_shown_and_a_hidden_present_one_hides_all(
    world: World, labelled: int, visible: list[int]
) -> None:
    owner, stranger, service = await world.patient(), await world.patient(), await world.service()
    await owner.create(consent(owner, service, provision=[{"type": "deny", "securityLabel": [label("R")]}]))
    await world.operator.create(related_person(stranger.patient))
    made = await world.operator.create(related_person(owner.patient, **_meta(labelled == 1)))
    for version in (2, 3):
        sent = {**made, "gender": "female" if version == 2 else "male", **_meta(labelled == version)}
        answer = await world.operator.put(f"RelatedPerson/{made['id']}", sent)
        assert answer.status_code == 200, answer.text
    found = await seen(world, await access_of(world, service, owner))
    assert [number for _, number in found if number] == visible
    assert {identifier for identifier, _ in found} <= {made["id"]}
    # The patient sees every version of their own, and nobody else's.
    own = await seen(world, await access_of(world, owner, owner))
    assert own == [(made["id"], 3), (made["id"], 2), (made["id"], 1)]


def _meta(is_labelled: bool) -> dict[str, object]:
    return {"meta": {"security": [label("R")] if is_labelled else [label("N")]}}


async def test_a_page_begins_behind_a_mark(world: World) -> None:
    owner = await world.patient()
    made = [await world.operator.create(related_person(owner.patient)) for _ in range(3)]
    access = await access_of(world, owner, owner)
    moments = [one["updated"] for one in await world.stored("RelatedPerson", patient=owner.patient)]
    whole = await seen(world, access)
    assert whole == [(one["id"], 1) for one in reversed(made)]
    assert await seen(world, access, since=sorted(moments)[1]) == whole[:2]
    for n in range(3):
        behind = Mark(sorted(moments)[2 - n], whole[n][0])
        assert await seen(world, access, after=behind) == whole[n + 1 :]
    same = Mark(sorted(moments)[1], "000-before")
    assert await seen(world, access, after=same, limit=1) == whole[1:2]
