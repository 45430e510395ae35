"""The log: JSON lines of fixed fields, and never a text that may carry a value."""

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from gateway.telemetry import FIELDS, log, set_up_logging

CANARY = "Durand 1234567890123"


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    """The loggers as they were before."""
    kept = {
        logger: (logger.handlers[:], logger.level, logger.propagate)
        for logger in (logging.getLogger(), logging.getLogger("gateway"))
    }
    yield
    for logger, (handlers, level, propagate) in kept.items():
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.requirement("OPS-03")
def test_an_event_is_one_json_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info")
    log("request", status=200, route="/fhir/{type}", request_id='a"b\n{"event":"forged"}')
    [line] = lines(capsys)
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "level": "info",
        "event": "request",
        "status": 200,
        "route": "/fhir/{type}",
        "request_id": 'a"b\n{"event":"forged"}',
    }


@pytest.mark.requirement("AUD-006", "OPS-04")
@pytest.mark.parametrize("name", ["body", "query", "token", "patient", "url", "path", "user", "text"])
def test_there_is_no_field_for_anything_else(name: str) -> None:
    assert name not in FIELDS
    with pytest.raises(ValueError, match=f"not to be logged: {name}"):
        log("request", **{name: CANARY})


@pytest.mark.requirement("AUD-006")
def test_of_an_error_its_type_and_places_are_told_but_not_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info")
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        log("request.failed", level=logging.ERROR, error=error, request_id="r1")
    [line] = lines(capsys)
    assert line["detail"].startswith("KeyError at ")
    assert "test_telemetry.py:" in line["detail"]
    assert CANARY not in json.dumps(line)


@pytest.mark.parametrize(("level", "heard"), [("debug", 3), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_says_what_is_heard(capsys: pytest.CaptureFixture[str], level: str, heard: int) -> None:
    set_up_logging(level)
    for number in (logging.INFO, logging.WARNING, logging.ERROR):
        log("event", level=number)
    assert len(lines(capsys)) == heard


@pytest.mark.requirement("AUD-006", "OPS-03")
def test_what_libraries_say_is_told_without_their_words(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers.clear()
    set_up_logging("info")
    try:
        raise RuntimeError(CANARY)
    except RuntimeError:
        logging.getLogger("asyncio").exception("never retrieved: %s", CANARY)
    logging.getLogger("pymongo").warning("command failed: %s", CANARY)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    found = lines(capsys)
    assert [line["event"] for line in found] == ["library"] * 3
    assert found[0]["detail"].startswith("asyncio: RuntimeError at ")
    assert [line["detail"] for line in found[1:]] == ["pymongo", "uvicorn.error: Invalid HTTP request received."]
    assert CANARY not in json.dumps(found)


def test_a_process_that_has_its_own_logging_keeps_it() -> None:
    mine = logging.NullHandler()
    logging.getLogger().handlers[:] = [mine]
    set_up_logging("info")
    assert logging.getLogger().handlers == [mine]


def test_what_authlib_tells_while_it_works_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("debug")
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger("authlib.oauth2.rfc6749.grants.client_credentials").debug("Issue token %r", CANARY)  # as it does
    assert CANARY not in capsys.readouterr().err
