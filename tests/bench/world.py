"""What the benchmarks run against: a mongod, a gateway process of its own, patients with readings, tokens."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.access.access import Access
from gateway.app import build_gateway, read_schemas, running
from gateway.exchange.call import Call, Origin
from gateway.exchange.gateway import Gateway
from gateway.exchange.perform import perform
from gateway.exchange.standing import authenticate
from gateway.exchange.tokens import Grant, issue_token
from gateway.sandbox.mongod import running_mongod
from gateway.sandbox.people import consent, operator_caller
from gateway.sandbox.series import day_of_readings
from gateway.schemas import find_schemas
from gateway.settings import Settings
from gateway.store.ids import Ids
from gateway.store.standing import About
from tests.bench.client import Connection, request

SECRET = "a benchmark holds no secrets of anybody"
_ORIGIN = Origin("bench", None)
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)  # far enough back that no day of a job is yet to come: that would be refused


@dataclass(slots=True)
class World:
    """Everything a job needs to know."""

    url: str
    port: int
    pid: int
    settings: Settings
    patients: list[str]
    sensors: dict[str, str]
    app_tokens: dict[str, str]
    professional: str
    depositor: str = ""
    days: dict[str, int] = field(default_factory=dict)

    def next_day(self, patient: str) -> bytes:
        """A Bundle of a day of readings that this patient does not have yet."""
        day = self.days.get(patient, 0)
        self.days[patient] = day + 1
        return bundle(patient, self.sensors[patient], day)


def bundle(patient: str, sensor: str, day: int) -> bytes:
    """The transaction Bundle of one day."""
    return json.dumps(day_of_readings(f"Patient/{patient}", f"Device/{sensor}", EPOCH + timedelta(days=day))).encode()


@contextmanager
def built_world(driver: str, patients: int, workers: int) -> Iterator[World]:
    """Start everything; stop it at the end."""
    port = _free_port()
    with running_mongod(cache_gb=2) as url:
        settings = Settings(url, "bench", driver, f"http://127.0.0.1:{port}/fhir", SECRET, "", "error", find_schemas())
        world = asyncio.run(_people(settings, port, patients))
        with serving(settings, port, workers) as world.pid:
            yield world


def _free_port() -> int:
    """A port that nobody has: two benchmarks at once shall not measure each other."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(settings: Settings, port: int, workers: int = 1) -> Iterator[int]:
    """A gateway on this port, ready; its process id."""
    environ = os.environ | {
        "GATEWAY_MONGO_URL": settings.mongo_url,
        "GATEWAY_MONGO_DATABASE": settings.mongo_database,
        "GATEWAY_MONGO_DRIVER": settings.mongo_driver,
        "GATEWAY_BASE_URL": settings.base_url,
        "GATEWAY_SECRET": settings.secret,
        "GATEWAY_RATES": "off",
        "GATEWAY_LOG_LEVEL": "error",
    }
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port), "--workers", str(workers)]
    process = subprocess.Popen(command, env=environ)
    try:
        _wait(port)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _wait(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError):
            if Connection(port).ask(request("GET", "/readyz", "-"))[0] == 200:
                return
        time.sleep(0.1)
    raise RuntimeError("the gateway does not answer")


async def _people(settings: Settings, port: int, count: int) -> World:
    async with running(build_gateway(settings, read_schemas(settings.schemas), Ids(settings.secret))) as gateway:
        operator = Access(operator_caller(gateway), gateway.registry, gateway.policy, gateway.clock())
        app = await _create(gateway, operator, _device("app"))
        doctor = await _create(gateway, operator, _doctor())
        world = World(settings.mongo_url, port, 0, settings, [], {}, {}, "")
        for n in range(count):
            patient = await _create(gateway, operator, _patient(n))
            world.patients.append(patient)
            owner = await _owner(gateway, patient)
            for one in (
                consent(patient, f"Device/{app}", "collect", ["Observation", "Device"]),
                consent(patient, f"Practitioner/{doctor}", "access", ["Observation", "Device", "Patient", "DocumentReference"]),
            ):
                await _create(gateway, owner, one)
            grant = Grant(
                "app",
                "app",
                "patient/Observation.crs patient/Device.crs",
                (f"Device/{app}",),
                patient=patient,
                lifetime=timedelta(days=1),
            )
            world.app_tokens[patient] = await issue_token(gateway, grant)
            pusher = await authenticate(gateway, world.app_tokens[patient], About())
            world.sensors[patient] = await _create(gateway, pusher, _device(f"sensor-{n}", patient))
        grant = Grant(
            "software",
            "professional",
            "user/*.rs",
            (f"Practitioner/{doctor}",),
            user=f"Practitioner/{doctor}",
            lifetime=timedelta(days=1),
        )
        world.professional = await issue_token(gateway, grant)
        world.depositor = await issue_token(gateway, replace(grant, scope="user/*.cruds"))
    return world


async def _owner(gateway: Gateway, patient: str) -> Access:
    grant = Grant("portal", "patient", "patient/*.cruds", (f"Patient/{patient}",), patient=patient)
    return await authenticate(gateway, await issue_token(gateway, grant), About())


async def _create(gateway: Gateway, access: Access, resource: dict[str, Any]) -> str:
    call = Call("create", resource["resourceType"], _ORIGIN, body=json.dumps(resource).encode())
    return (await perform(gateway, access, call)).id or ""


def _patient(n: int) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:1.2.250.1.213.1.4.10", "value": f"{n:013d}"}],
        "name": [{"family": f"Bench{n}", "given": ["Pat"]}],
    }


def _doctor() -> dict[str, Any]:
    identifier = [{"system": "https://rpps.esante.gouv.fr", "value": "10999000042"}]
    return {"resourceType": "Practitioner", "identifier": identifier, "name": [{"family": "Martin"}]}


def _device(name: str, patient: str | None = None) -> dict[str, Any]:
    device: dict[str, Any] = {"resourceType": "Device", "identifier": [{"system": "https://bench.example", "value": name}]}
    return device | ({"patient": {"reference": f"Patient/{patient}"}} if patient else {})
