"""The command line as a user runs it: what is wrong is said in one line, with status 1 and no trace."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from gateway.schemas import find_schemas
from tests.process import environment, free_port, refused, run, run_apart, serving


def test_check_finds_a_prepared_system_sound(prepared: dict[str, str]) -> None:
    ended = run("check", env=prepared)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.match(r"schemas: \d+ types, \d+ profiles\nsettings: sound\ntopology and indexes: sound\n", ended.stdout)


def test_check_without_a_database_says_what_it_did_not_check() -> None:
    ended = run("check", env=environment(None))
    assert ended.returncode == 0
    assert "not checked (GATEWAY_MONGO_URL is not set)" in ended.stdout


def test_check_reads_the_files_of_other_issuers(tmp_path: Path) -> None:
    for example in (find_schemas() / "issuers").glob("*.toml"):
        shutil.copy(example, tmp_path)
    env = environment(None, GATEWAY_ISSUERS=str(tmp_path))
    where = tmp_path / "pro-sante-connect.toml"
    said = "introspection.secret_file: there is no secret in this file, or it cannot be read"
    assert refused(run("check", env=env)) == f"{where}: {said}"
    (tmp_path / "pro-sante-connect.secret").write_text("s")
    assert "issuers: keycloak, pro-sante-connect, smart-app-launch\n" in run("check", env=env).stdout
    env["GATEWAY_OUTBOUND_NETWORKS"] = "everywhere"
    assert refused(run("check", env=env)).startswith("GATEWAY_OUTBOUND_NETWORKS: is not a list of IP addresses")


def test_check_names_what_is_missing_and_builds_it_when_asked(prepared: dict[str, str]) -> None:
    with MongoClient[dict[str, Any]](prepared["GATEWAY_MONGO_URL"]) as client:
        client[prepared["GATEWAY_MONGO_DATABASE"]]["Consent"].drop_index("patient,-date")
    ended = run("check", env=prepared)
    assert ended.returncode == 1
    lines = [
        "index 'patient,-date' of collection 'Consent' is missing",
        "build what is missing: gateway check --create-indexes",
    ]
    assert ended.stdout.splitlines()[-2:] == lines
    assert refused(run_apart("serve", "--port", str(free_port()), env=prepared)) == "; ".join(lines)
    ended = run("check", "--create-indexes", env=prepared)
    assert ended.returncode == 0
    assert "created index Consent.patient,-date" in ended.stdout
    assert "topology and indexes: sound" in ended.stdout


def test_check_of_an_empty_database_names_its_collections(mongo_url: str) -> None:
    ended = run("check", env=environment(mongo_url))
    assert ended.returncode == 1
    assert "collection 'Observation' is missing" in ended.stdout
    assert "--create-indexes" not in ended.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"GATEWAY_SECRET": ""}, "GATEWAY_SECRET: is not set"),
        ({"GATEWAY_SECRET": "short"}, "GATEWAY_SECRET: is shorter than 32 characters"),
        ({"GATEWAY_MONGO_DRIVER": "mysql"}, "GATEWAY_MONGO_DRIVER: is neither motor nor pymongo"),
        ({"GATEWAY_LOG_LEVEL": "loud"}, "GATEWAY_LOG_LEVEL: is none of"),
        ({"GATEWAY_BASE_URL": "gateway"}, "GATEWAY_BASE_URL: is not an absolute http or https URL"),
        ({"GATEWAY_MONGO_URL": "mysql://u:password@here"}, "GATEWAY_MONGO_URL: is not "),
        ({"GATEWAY_MONGO_URL": "mongodb://u:pass/word@here"}, "GATEWAY_MONGO_URL: is not "),
        pytest.param(
            {"GATEWAY_MONGO_URL": "mongodb://127.0.0.1:1"}, "the store cannot be reached at the moment", marks=pytest.mark.slow
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(prepared: dict[str, str], changes: dict[str, str], said: str) -> None:
    assert refused(run("check", env=prepared | changes)).startswith(said)


def test_another_secret_stops_the_start(prepared: dict[str, str]) -> None:
    ended = run_apart("serve", "--port", str(free_port()), env=prepared | {"GATEWAY_SECRET": "x" * 32})
    assert refused(ended) == "GATEWAY_SECRET is not the one this database was made with"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("resources/Observation.toml", 'patient = "subject"', 'patient = "nonsense"', "Observation.toml: patient"),
        ("resources/Observation.toml", 'type = "Observation"', "type = ", "Observation.toml: "),
        ("gateway.toml", "depth = 64", 'depth = "deep"', "gateway.toml: limits.depth"),
        ("policy.toml", 'direction = "read"', 'direction = "sideways"', "policy.toml: "),
        ("policy.toml", 'code = "lookup"', 'code = "meta"', "policy.toml: operation.code"),
    ],
)
def test_a_data_file_that_is_wrong_is_named_with_its_key(tmp_path: Path, file: str, old: str, new: str, said: str) -> None:
    folder = tmp_path / "schemas"
    shutil.copytree(find_schemas(), folder)
    text = (folder / file).read_text("utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), "utf-8")
    assert said in refused(run("check", env=environment(None, GATEWAY_SCHEMAS=str(folder))))


def test_a_port_that_is_taken_is_one_line(prepared: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in (["demo", "--port", port], ["serve", "--port", port], ["serve", "--port", port, "--workers", "2"]):
            assert refused(run(*command, env=prepared)) == (f"port {port} of 127.0.0.1 cannot be used: Address already in use")


def test_a_token_is_issued_used_and_revoked_and_the_audit_holds(prepared: dict[str, str], tmp_path: Path) -> None:
    asked = ["--client", "ops", "--kind", "operator", "--scope", "system/*.cruds"]
    ended = run("token", "issue", *asked, env=prepared)
    token = ended.stdout.strip()
    assert (ended.returncode, token[:5]) == (0, "gwat_")
    assert "patient in context" in refused(
        run("token", "issue", "--client", "x", "--kind", "patient", "--scope", "patient/*.rs", env=prepared)
    )
    assert "kind of actor" in refused(
        run("token", "issue", "--client", "x", "--kind", "king", "--scope", "system/*.rs", env=prepared)
    )
    port = free_port()
    with serving(prepared, port, "--workers", "2") as process:
        url, bearer = f"http://127.0.0.1:{port}/fhir/Organization", {"Authorization": f"Bearer {token}"}
        body = {"resourceType": "Organization", "name": "Clinic"}
        made = httpx.post(url, json=body, headers=bearer | {"Content-Type": "application/fhir+json"})
        assert made.status_code == 201, made.text
        assert made.headers["location"].startswith(f"{url.replace(str(port), '8000')}/")  # as GATEWAY_BASE_URL says
        assert {httpx.get(f"{url}/{made.json()['id']}", headers=bearer).status_code for _ in range(10)} == {200}
        assert run("token", "revoke", env=prepared, given=token).returncode == 0
        assert refused(run("token", "revoke", env=prepared, given=token)) == "this token is not known"
        assert {httpx.get(url, headers=bearer).status_code for _ in range(6)} == {401}
        process.terminate()
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0
    assert token not in log
    (tmp_path / "log").write_text(log)
    ended = run("audit", "verify", "--log", str(tmp_path / "log"), env=prepared)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"\d+ events, every link holds\n", ended.stdout)
    with MongoClient[dict[str, Any]](prepared["GATEWAY_MONGO_URL"]) as client:
        events = client[prepared["GATEWAY_MONGO_DATABASE"]]["AuditEvent"]
        former = events.find_one_and_update({"event.interaction": "create"}, {"$set": {"event.client": "nobody"}})
        assert former is not None
        assert re.search(r"seal \d+: event \d+ \(.*\) is not what was sealed", refused(run("audit", "verify", env=prepared)))
        events.update_one({"_id": former["_id"]}, {"$set": {"event.client": former["event"]["client"]}})


@pytest.mark.requirement("REL-009")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_on_sigterm_requests_under_way_are_answered(prepared: dict[str, str], workers: int) -> None:
    ended = run("token", "issue", "--client", "ops", "--kind", "operator", "--scope", "system/*.cruds", env=prepared)
    bearer = {"Authorization": f"Bearer {ended.stdout.strip()}", "Content-Type": "application/fhir+json"}
    port = free_port()
    with serving(prepared, port, "--workers", str(workers)) as process:
        body = b'{"resourceType": "Organization", "name": "Clinic"}'
        head = "".join(f"{name}: {value}\r\n" for name, value in bearer.items())
        with socket.create_connection(("127.0.0.1", port)) as slow:
            request = f"POST /fhir/Organization HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{head}\r\n"
            slow.sendall(request.encode() + body[:10])
            # The request has been taken up once another one, sent later, is answered.
            assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
            process.send_signal(signal.SIGTERM)
            wait_until_closed(port)
            slow.sendall(body[10:])
            assert slow.recv(65_536).startswith(b"HTTP/1.1 201")
        assert process.wait(30) == 0


def wait_until_closed(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}/livez", timeout=0.5)
        except httpx.TransportError:
            return
        time.sleep(0.02)
    raise AssertionError("still listening")


def test_the_version_and_help_are_told() -> None:
    told = [run(command, env=environment(None)).stdout for command in ("version", "--version")]
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", told[0])
    assert told[1] == told[0]
    ended = run("--help", env=environment(None))
    for command in ("serve", "demo", "check", "import", "token", "accounts", "audit"):
        assert command in ended.stdout


def test_the_command_needs_nothing_that_only_tests_and_the_kit_need() -> None:
    """`pip install -e '.[embedded]' && gateway demo`: without pytest and all that comes with the other extras."""
    extras = "filelock, pytest, xdist, hypothesis, respx, fhirclient, fhirpy, schemathesis, websockets, yaml"
    script = f"import sys\nsys.modules.update(dict.fromkeys({extras.split(', ')}))\nimport gateway.__main__"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
