"""What operators do at the machine is in the audit: who, what, to whom, never a secret."""

import re

import pytest

from tests.process import refused, run
from tests.world import unique


def listed(env: dict[str, str], who: str) -> list[str]:
    """What this operator did, as `gateway audit operators` lists it, without the times."""
    lines = run("audit", "operators", env=env).stdout.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  ", line) for line in lines)
    return [line.partition("  ")[2].removeprefix(f"{who}  ") for line in lines if f"  {who}  " in line]


@pytest.mark.requirement("AUD-001")
def test_every_command_that_changes_something_leaves_its_trace(prepared: dict[str, str]) -> None:
    who, login = unique("olga"), unique("login")
    by, operator = ["--by", who], ["--operator", who]
    password = run("accounts", "add", login, "--operator", "--generate", *by, env=prepared).stdout.split()[1]
    secret = run("accounts", "reset", login, "--second-factor", *by, env=prepared, given="a long pass phrase\n").stdout.split()[
        2
    ]
    assert run("accounts", "lock", login, *by, env=prepared).returncode == 0
    assert run("accounts", "log-out", "Patient/000-somebody", *by, env=prepared).stdout == "0 sessions ended\n"
    asked = ["--client", "ops", "--kind", "operator", "--scope", "system/*.cruds"]
    token = run("token", "issue", *asked, *operator, env=prepared).stdout.strip()
    assert run("token", "revoke", *operator, env=prepared, given=token).returncode == 0
    assert len(run("keys", "rotate", *operator, env=prepared).stdout.strip()) == 43

    found = listed(prepared, who)
    name = found[4].split()[2]
    assert found == [
        f"accounts  add {login} (operator)",
        f"accounts  reset {login} (second factor)",
        f"accounts  lock {login}",
        "accounts  log-out  Patient/000-somebody",
        f"token  issue {name} to ops as operator, for 15 minutes: system/*.cruds",
        f"token  revoke {name}",
        "keys  rotate",
    ]
    assert re.fullmatch(r"[0-9a-f]{16}", name)
    told = " ".join(found)
    assert not any(one in told for one in (password, secret, token, "pass phrase"))
    assert re.fullmatch(r"\d+ events, every link holds\n", run("audit", "verify", env=prepared).stdout)


def test_what_was_not_done_says_so(prepared: dict[str, str]) -> None:
    who = unique("olga")
    refused(run("accounts", "lock", "nobody", "--by", who, env=prepared))
    refused(run("token", "revoke", "--operator", who, env=prepared, given="gwat_x"))
    found = listed(prepared, who)
    assert [line.partition(": ")[2] for line in found] == [
        "",
        "not done: there is no account of this login",
        "",
        "not done: this token is not known",
    ]


def test_nobody_writes_a_line_about_somebody_else(prepared: dict[str, str]) -> None:
    who = f"{unique('olga')}\n2026-01-01T00:00:00Z  somebody  keys  rotate"
    assert run("keys", "rotate", "--operator", who, env=prepared).returncode == 0
    lines = run("audit", "operators", env=prepared).stdout.splitlines()
    assert not any(line.startswith("2026-01-01T00:00:00Z") for line in lines)


def test_without_a_name_it_is_the_user_of_the_machine(prepared: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-at-the-machine")
    assert run("keys", "rotate", env=prepared | {"LOGNAME": "somebody-at-the-machine"}).returncode == 0
    assert listed(prepared, "somebody-at-the-machine") == ["keys  rotate"]
