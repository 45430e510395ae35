"""/livez and /readyz: open to everybody, and true."""

from typing import Any

import pytest

from gateway.problem import Problem
from tests.world import BASE, World


@pytest.mark.parametrize(("path", "body"), [("livez", {"status": "live"}), ("readyz", {"status": "ready"})])
async def test_health(world: World, path: str, body: dict[str, str]) -> None:
    url = BASE.removesuffix("fhir") + path
    answer = await world.http.get(url)
    assert (answer.status_code, answer.json()) == (200, body)
    assert (await world.http.head(url)).status_code == 200
    assert (await world.http.post(url)).status_code == 405


@pytest.mark.requirement("REL-016")
async def test_readiness_follows_the_store_and_liveness_does_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    root = BASE.removesuffix("fhir")

    async def down(_: object) -> None:
        raise Problem("transient", "the store cannot be reached at the moment")

    async def secondary(_: object) -> dict[str, Any]:
        return {"isWritablePrimary": False, "secondary": True}

    for state in (down, secondary):
        monkeypatch.setattr(type(world.gateway.mongo), "command", lambda _, command, state=state: state(command))
        answer = await world.http.get(f"{root}readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})
        assert (await world.http.get(f"{root}livez")).status_code == 200
