"""No access without a trace: while events cannot be stored, nothing is served and nothing is written."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.world import Actor, World, bundle, consent, entry, issues, observation

Attempt = Callable[["Scene"], Awaitable[httpx.Response]]


class Scene:
    """A patient with a reading and a consent, and a second reading that is still to be written."""

    def __init__(self, camille: Actor, doctor: Actor, made: dict[str, Any], given: dict[str, Any]) -> None:
        self.camille, self.doctor, self.made, self.given = camille, doctor, made, given
        self.owner = camille.patient

    @classmethod
    async def make(cls, world: World) -> "Scene":
        camille, doctor = await world.patient(), await world.professional()
        made = await camille.create(observation(camille.patient))
        return cls(camille, doctor, made, await world.consent(camille, doctor, "access"))


@asynccontextmanager
async def no_audit(world: World) -> AsyncIterator[None]:
    """MongoDB refuses to store audit events."""
    database = world.gateway.mongo._database
    await database.command({"collMod": "AuditEvent", "validator": {"never": True}, "validationAction": "error"})
    try:
        yield
    finally:
        await database.command({"collMod": "AuditEvent", "validator": {}})


ATTEMPTS: dict[str, Attempt] = {
    "read": lambda s: s.camille.get(f"Observation/{s.made['id']}"),
    "vread": lambda s: s.camille.get(f"Observation/{s.made['id']}/_history/1"),
    "history": lambda s: s.camille.get(f"Observation/{s.made['id']}/_history"),
    "search": lambda s: s.doctor.get(f"Observation?patient={s.owner}"),
    "count": lambda s: s.doctor.get(f"Observation?patient={s.owner}&_summary=count"),
    "own log": lambda s: s.camille.get("AuditEvent"),
    "refused read": lambda s: s.doctor.get("Patient/abc-nothing"),
    "create": lambda s: s.camille.post("Observation", observation(s.owner)),
    "conditional create, matching": lambda s: s.camille.post(
        "Observation", observation(s.owner), If_None_Exist=f"_id={s.made['id']}"
    ),
    "known reading": lambda s: s.camille.post("Observation", {k: v for k, v in s.made.items() if k not in ("id", "meta")}),
    "update": lambda s: s.camille.put(f"Observation/{s.made['id']}", {**s.made, "status": "amended"}),
    "delete": lambda s: s.camille.delete(f"Observation/{s.made['id']}"),
    "consent": lambda s: s.camille.post("Consent", consent(s.camille, s.doctor)),
    "refused write": lambda s: s.doctor.post("Observation", observation("abc-nothing")),
    "transaction": lambda s: s.camille.post(
        "",
        bundle(
            "transaction",
            *(entry("POST", "Observation", observation(s.owner)) for _ in range(3)),
            entry("PUT", f"Observation/{s.made['id']}", {**s.made, "status": "amended"}),
            entry("GET", f"Observation/{s.made['id']}"),
        ),
    ),
    "batch of reads": lambda s: s.camille.post("", bundle("batch", entry("GET", f"Observation/{s.made['id']}"))),
}


@pytest.mark.requirement("AUD-08", "AUD-002")
@pytest.mark.parametrize("name", ATTEMPTS)
async def test_nothing_is_served_or_written(world: World, name: str) -> None:
    scene = await Scene.make(world)
    before = await everything_of(world, scene.owner)
    async with no_audit(world):
        answer = await ATTEMPTS[name](scene)
    assert answer.status_code == 503, answer.text
    [issue] = issues(answer)
    assert (issue["code"], issue["diagnostics"]) == ("transient", "the access cannot be recorded, so it is not given")
    assert answer.headers["retry-after"]
    assert await everything_of(world, scene.owner) == before


@pytest.mark.requirement("AUD-08")
async def test_in_a_batch_the_writes_fail_one_by_one_and_the_whole_is_not_answered(world: World) -> None:
    scene = await Scene.make(world)
    before = await everything_of(world, scene.owner)
    async with no_audit(world):
        answer = await scene.camille.post("", bundle("batch", entry("POST", "Observation", observation(scene.owner))))
    assert answer.status_code == 503
    assert await everything_of(world, scene.owner) == before


async def test_all_is_well_again_with_the_audit(world: World) -> None:
    scene = await Scene.make(world)
    async with no_audit(world):
        assert (await ATTEMPTS["create"](scene)).status_code == 503
    assert (await ATTEMPTS["create"](scene)).status_code == 201
    assert (await ATTEMPTS["read"](scene)).status_code == 200


async def everything_of(world: World, patient: str) -> dict[str, Any]:
    """Each document of the record, of whatever kind."""
    found = {name: await world.stored(name, patient=patient) for name in ("Observation", "Observation_history", "Consent")}
    return found | {
        "heads": await world.stored("heads", _id=patient),
        "AuditEvent": await world.stored("AuditEvent", patient=patient),
    }
