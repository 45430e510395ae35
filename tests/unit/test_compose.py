"""docker-compose.yml: what it starts, what it keeps to itself, and that it fits this gateway."""

import os
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import Settings, read_settings

FILE = Path(__file__).parents[2] / "docker-compose.yml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as a compose parser reads it, variables still in it."""
    return dict(yaml.safe_load(FILE.read_text("utf-8")))


def dockerfile(compose: dict[str, Any]) -> list[list[str]]:
    """The inline Dockerfile, a list of words for each instruction."""
    lines = compose["services"]["gateway"]["build"]["dockerfile_inline"].splitlines()
    return [line.split() for line in lines if line.strip()]


def test_there_are_a_gateway_and_a_mongodb_8(compose: dict[str, Any]) -> None:
    assert compose["services"].keys() == {"gateway", "mongo"}
    assert compose["services"]["mongo"]["image"] == "mongo:8"
    assert "image" not in compose["services"]["gateway"]


def test_mongodb_is_a_replica_set_that_makes_itself(compose: dict[str, Any]) -> None:
    mongo = compose["services"]["mongo"]
    assert mongo["command"][:3] == ["mongod", "--replSet", "rs0"]
    script = mongo["healthcheck"]["test"][-1]
    assert 'rs.initiate({_id: "rs0", members: [{_id: 0, host: "mongo:27017"}]})' in script
    assert "isWritablePrimary" in script
    assert "$" not in script  # compose would take it for a variable


def test_only_the_gateway_reaches_mongodb(compose: dict[str, Any]) -> None:
    assert "ports" not in compose["services"]["mongo"]
    assert compose["services"]["mongo"]["networks"] == ["store"]
    assert compose["networks"]["store"]["internal"] is True


def test_both_are_checked_for_health_and_start_in_order(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["healthcheck"]["test"][0] == "CMD"
        assert {"interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()
    assert compose["services"]["gateway"]["depends_on"] == {"mongo": {"condition": "service_healthy"}}
    assert "/readyz" in compose["services"]["gateway"]["healthcheck"]["test"][-1]


def test_the_secret_comes_from_the_environment_and_must_be_there(compose: dict[str, Any]) -> None:
    environment = compose["services"]["gateway"]["environment"]
    assert re.match(r"\$\{GATEWAY_SECRET:\?.+\}\Z", environment["GATEWAY_SECRET"])
    for value in environment.values():
        assert not re.search(r"password|[0-9a-f]{32}", value)


def test_every_variable_is_one_of_the_gateways(compose: dict[str, Any]) -> None:
    known = {item.metadata["env"] for item in fields(Settings)}
    environment = compose["services"]["gateway"]["environment"]
    assert environment.keys() <= known
    filled = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in environment.items()}
    settings = read_settings(filled | {"GATEWAY_SECRET": "x" * 32})
    assert settings.mongo_url == "mongodb://mongo:27017/?replicaSet=rs0"


def test_the_image_is_built_from_this_source_and_runs_as_nobody_special(compose: dict[str, Any]) -> None:
    found = dockerfile(compose)
    for instruction in found:
        if instruction[0] == "COPY":
            for source in instruction[1:-1]:
                assert (FILE.parent / source).exists(), source
    assert ["USER", "10001"] in found
    last = [word for word, *_ in found]
    assert last.index("USER") > max(n for n, word in enumerate(last) if word == "RUN")
    assert 'ENTRYPOINT ["gateway"]'.split() in found
    gateway = compose["services"]["gateway"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in gateway["ports"])


def test_the_volume_holds_the_data(compose: dict[str, Any]) -> None:
    assert compose["services"]["mongo"]["volumes"] == ["mongo-data:/data/db"]
    assert "mongo-data" in compose["volumes"]


def test_docker_accepts_it() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no docker compose here")
    command = [docker, "compose", "-f", str(FILE), "config", "--quiet"]
    without = {name: value for name, value in os.environ.items() if name != "GATEWAY_SECRET"}
    refused = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "GATEWAY_SECRET" in refused.stderr
    subprocess.run(command, env=without | {"GATEWAY_SECRET": "x" * 32}, check=True)
