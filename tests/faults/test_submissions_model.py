"""Whatever apps push, re-send, correct and hear no answer to, at two processes at once: what is stored is what a model says,
and every receipt is right.

The model of one reading is what its sender last said of it. A request whose answer is lost may have been done or not; it is
sent again, as apps do, and what it says is not changed afterwards in this run.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.app import attached
from gateway.settings import read_settings
from tests.process import ToPort, environment, free_port, serving
from tests.world import LOINC, UCUM, Actor, Clock, World, concept, entry, unique

RECEIPT = "urn:fhir-document-gateway:StructureDefinition/receipt"
START = datetime(2026, 11, 20, tzinfo=UTC)


@asynccontextmanager
async def two_processes(mongo_url: str) -> AsyncIterator[tuple[World, list[httpx.AsyncClient]]]:
    """People around two gateway processes on one database, and a way to each."""
    ports = [free_port(), free_port()]
    base_url = f"http://127.0.0.1:{ports[0]}/fhir"
    env = environment(mongo_url, GATEWAY_BASE_URL=base_url, GATEWAY_LOG_LEVEL="error", GATEWAY_RATES="off")
    with serving(env, ports[0]), serving(env, ports[1]):
        async with attached(read_settings(env)) as gateway:
            ways = [httpx.AsyncClient(transport=ToPort(port), timeout=60) for port in ports]
            try:
                yield await World(gateway, ways[0], Clock()).start(), ways
            finally:
                for way in ways:
                    await way.aclose()


@dataclass
class Sent:
    """What has become of a reading so far: its last value, how many versions it has, whether an answer about it was lost."""

    value: int
    versions: int = 1
    is_doubted: bool = False


@dataclass
class Phone:
    """One app on one phone. `named`: whether its readings have identifiers; `shared`: names that another phone pushes too."""

    actor: Actor
    ways: list[httpx.AsyncClient]
    owner: str
    sensor: str
    number: int
    named: bool
    shared: list[str]
    dice: random.Random
    model: dict[str, Sent] = field(default_factory=dict)
    bundles: list[list[tuple[str, int]]] = field(default_factory=list)
    created_shared: dict[str, int] = field(default_factory=dict)
    lost: int = 0

    def reading(self, name: str, value: int) -> dict[str, Any]:
        """The reading of this name. Without identifiers, the name is its minute."""
        number = int(name.rpartition("-")[2])
        moment = START + timedelta(minutes=number, seconds=self.number // 2 if name in self.shared else self.number)
        found: dict[str, Any] = {
            "resourceType": "Observation",
            "status": "final",
            "code": concept(LOINC, "99504-3"),
            "subject": {"reference": f"Patient/{self.owner}"},
            "effectiveDateTime": moment.isoformat(),
            "valueQuantity": {"value": value, "unit": "mg/dL", "system": UCUM, "code": "mg/dL"},
            "device": {"identifier": {"system": "urn:example:sensors", "value": self.sensor}},
        }
        is_named = self.named or name in self.shared
        return found | ({"identifier": [{"system": "urn:example:readings", "value": name}]} if is_named else {})

    async def post(self, what: list[tuple[str, int]], seconds: float | None = None) -> Any:
        """Push these to one of the processes; None where no answer was waited for."""
        actor = replace(self.actor, http=self.dice.choice(self.ways))
        body = {
            "resourceType": "Bundle",
            "type": "transaction",
            "timestamp": "2026-11-25T12:00:00Z",
            "entry": [entry("POST", "Observation", self.reading(*one)) for one in what],
        }
        try:
            async with asyncio.timeout(seconds):
                answer = await actor.post("$submit-cgm-bundle", body)
        except TimeoutError:
            return None
        assert answer.status_code == 200, answer.text
        return [one["response"] for one in answer.json()["entry"]]

    async def work(self, rounds: int) -> None:
        """Push, re-send, correct and lose answers; each receipt is compared with the model."""
        for _ in range(rounds):
            what = self._choose()
            seconds = self.dice.choice([None, None, None, self.dice.uniform(0.0, 0.06)])
            answers = await self.post(what, seconds)
            if answers is None:
                self.lost += 1
                self._doubt(what)
                answers = await self.post(what)
            self._compare(what, answers)
            self.bundles.append(what)

    def _choose(self) -> list[tuple[str, int]]:
        roll = self.dice.random()
        own = [name for name, sent in self.model.items() if not sent.is_doubted]
        if roll < 0.3 and self.bundles:
            return [(name, self._now(name, value)) for name, value in self.dice.choice(self.bundles)]  # all known
        if roll < 0.5 and own:
            return [(name, self.dice.randint(60, 300)) for name in self.dice.sample(own, min(len(own), 5))]
        new = [(f"r{self.number}-{len(self.model) + n}", self.dice.randint(60, 300)) for n in range(self.dice.randint(1, 12))]
        if self.shared and self.dice.random() < 0.5:
            new += [(name, 100) for name in self.dice.sample(self.shared, 3)]
        if self.dice.random() < 0.3:
            new.append(self.dice.choice(new))  # the same twice in one Bundle
        self.dice.shuffle(new)
        return new

    def _now(self, name: str, value: int) -> int:
        return value if name in self.shared else self.model[name].value

    def _doubt(self, what: list[tuple[str, int]]) -> None:
        for name, value in what:
            if name not in self.shared:
                sent = self.model.get(name)
                versions = -1 if sent is None or sent.value != value or sent.versions < 0 else sent.versions
                self.model[name] = Sent(value, versions, is_doubted=True)

    def _compare(self, what: list[tuple[str, int]], answers: list[Any]) -> None:
        assert len(answers) == len(what)
        for (name, value), response in zip(what, answers, strict=True):
            receipt = next(one["valueCode"] for one in response["extension"] if one["url"] == RECEIPT)
            assert response["status"][:3] == ("201" if receipt == "created" else "200")
            version = int(response["location"].rpartition("/")[2])
            if name in self.shared:
                self.created_shared[name] = self.created_shared.get(name, 0) + (receipt == "created")
                assert (version, receipt in ("created", "known")) == (1, True)
                continue
            sent = self.model.get(name)
            if sent is not None and sent.is_doubted:
                assert sent.value == value
                assert sent.versions in (-1, version)
                sent.versions = version
                continue
            expected = "created" if sent is None else "known" if sent.value == value else "corrected"
            assert receipt == expected, (name, value, sent)
            versions = 1 if sent is None else sent.versions + (receipt == "corrected")
            assert version == versions, (name, value, sent)
            self.model[name] = Sent(value, versions)


async def phones(world: World, ways: list[httpx.AsyncClient], owner: Actor, count: int, dice: random.Random) -> list[Phone]:
    """Apps of one patient, in pairs of one service each: two phones with the same account."""
    found: list[Phone] = []
    for number in range(count):
        pair, source = number // 2, f"service-{number // 2}"
        first = found[-1].actor if number % 2 else await world.app(owner, "patient/Observation.cu", source=source)
        other = await world.actor(
            "app", "patient/Observation.cu", unique("app"), first.reference, patient=owner.patient, source=source
        )
        if number % 2 == 0:
            await world.consent(owner, first, "collect", ["Observation"])
        shared = [f"s{pair}-{n}" for n in range(1_000, 1_012)]
        seeded = random.Random(dice.random())
        one = Phone(other, ways, owner.patient, unique("sensor"), number, number % 3 != 2, shared, seeded)
        found.append(one)
    for pair in range(0, count, 2):
        found[pair + 1].sensor = found[pair].sensor  # what both push is the same to the letter
    return found


async def run_model(mongo_url: str, seed: int, count: int, rounds: int) -> None:
    dice = random.Random(seed)
    async with two_processes(mongo_url) as (world, ways):
        owner = await world.patient()
        apps = await phones(world, ways, owner, count, dice)
        await asyncio.gather(*(app.work(rounds) for app in apps))
        stored = await world.stored("Observation", patient=owner.patient)
        by_name = {_name(world, one): one for one in stored}
        assert len(by_name) == len(stored)  # nothing twice
        expected: set[tuple[str, str]] = set()
        for app in apps:
            source = f"service-{app.number // 2}"
            for name, sent in app.model.items():
                key = (source, _key(app, name))
                expected.add(key)
                document = by_name[key]
                assert (_value(world, document), document["version"]) == (sent.value, sent.versions), (name, sent)
                formers = await world.stored("Observation_history", id=document["_id"])
                assert sorted(one["version"] for one in formers) == [*range(1, document["version"])]
            expected |= {(source, _key(app, name)) for name in app.created_shared}
        assert by_name.keys() == expected
        for one, other in zip(apps[::2], apps[1::2], strict=True):
            for name in {*one.created_shared, *other.created_shared}:
                created = one.created_shared.get(name, 0) + other.created_shared.get(name, 0)
                assert created <= 1
                assert created == 1 or one.lost + other.lost > 0
        assert sum(app.lost for app in apps) > 0


def _key(app: Phone, name: str) -> str:
    body = app.reading(name, 0)
    return body["identifier"][0]["value"] if "identifier" in body else str(body["effectiveDateTime"])


def _name(world: World, document: dict[str, Any]) -> tuple[str, str]:
    resource = world.gateway.codec.load("Observation", document["body"])
    return document["source"], resource.identifier[0].value if resource.identifier else resource.effectiveDateTime


def _value(world: World, document: dict[str, Any]) -> int:
    return int(world.gateway.codec.load("Observation", document["body"]).valueQuantity.value)


async def test_two_processes_and_eight_phones_agree_with_the_model(mongo_url: str) -> None:
    await run_model(mongo_url, seed=20_261_129, count=8, rounds=8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_long_runs_agree_with_the_model(mongo_url: str, seed: int) -> None:
    await run_model(mongo_url, seed=seed, count=8, rounds=60)
