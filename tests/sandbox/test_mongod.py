"""Finding a mongod: PATH first, then the `embedded` extra, or a message that says what to install."""

import importlib.util
import shutil

import pytest

from gateway.sandbox.mongod import MongodError, find_mongod, running_mongod


def test_without_any_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MongodError, match=r"no mongod on PATH .* pip install 'fhir-document-gateway"):
        find_mongod()
    with pytest.raises(MongodError, match="no mongod on PATH"), running_mongod():
        raise AssertionError("never reached")
