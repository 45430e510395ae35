"""`gateway accounts`: secrets are told once and stored as hashes, and whoever is locked out can be let in again."""

import re

import pytest
from pymongo import MongoClient

from tests.process import environment, refused, run


@pytest.fixture
def stored(prepared: dict[str, str]) -> MongoClient:  # type: ignore[type-arg]
    """The accounts as they lie in the database."""
    client = MongoClient(prepared["GATEWAY_MONGO_URL"])
    yield client[prepared["GATEWAY_MONGO_DATABASE"]]["accounts"]
    client.close()


def test_an_operator_is_added_locked_and_let_in_again(prepared: dict[str, str], stored: MongoClient) -> None:  # type: ignore[type-arg]
    ended = run("accounts", "add", "Olga", "--operator", "--generate", env=prepared)
    assert ended.returncode == 0, ended
    told = re.fullmatch(
        r"password: (\S{23})\none-time codes: ([A-Z2-7]{32})\n(otpauth://totp/127\.0\.0\.1%3AOlga\?secret=\2&\S+)\n",
        ended.stdout,
    )
    assert told is not None, ended.stdout
    [account] = stored.find({"_id": "olga"})
    assert account["password"].startswith("$argon2id$")
    assert told[1] not in str(account)
    assert run("accounts", "lock", "olga", env=prepared).returncode == 0
    assert run("accounts", "list", env=prepared).stdout == "olga  operator  locked\n"
    ended = run("accounts", "reset", "olga", "--second-factor", env=prepared, given="a long pass phrase\n")
    assert ended.stdout.startswith("one-time codes: ")
    assert run("accounts", "list", env=prepared).stdout == "olga  operator\n"
    [renewed] = stored.find({"_id": "olga"})
    assert renewed["password"] != account["password"]
    assert renewed["second_factor"] != account["second_factor"]


def test_what_cannot_be_done_is_said(prepared: dict[str, str]) -> None:
    for command in (["lock", "nobody"], ["reset", "nobody"]):
        assert (
            refused(run("accounts", *command, env=prepared, given="a long pass phrase\n"))
            == "there is no account of this login"
        )
    assert "known here" in refused(
        run("accounts", "add", "ghost", "--reference", "Patient/000-ghost", env=prepared, given="a long pass phrase\n")
    )
    assert "12 to 256" in refused(run("accounts", "add", "olivia", "--operator", env=prepared, given="short\n"))
    assert refused(run("accounts", "list", env=environment(None))).startswith("GATEWAY_MONGO_URL: ")
