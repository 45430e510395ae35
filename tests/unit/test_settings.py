"""Settings: every environment variable that cannot be used is named with what is wrong, and never with its value."""

import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.schemas import SchemaError, find_schemas
from gateway.settings import Settings, SettingsError, read_gateway_file, read_settings

SOUND = {"GATEWAY_MONGO_URL": "mongodb://127.0.0.1:27017/?replicaSet=rs0", "GATEWAY_SECRET": "0123456789abcdef0123456789abcdef"}


def test_what_is_not_set_has_a_default() -> None:
    settings = read_settings(SOUND)
    assert (settings.mongo_database, settings.mongo_driver, settings.log_level) == ("gateway", "motor", "info")
    assert settings.base_url == "http://127.0.0.1:8000/fhir"
    assert (settings.trusted_proxies, settings.issuers, settings.outbound_networks) == ("", None, "")
    assert settings.schemas == find_schemas()


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    names = [item.metadata["env"] for item in fields(Settings)]
    assert read_settings({**dict.fromkeys(names, ""), **SOUND}) == read_settings(SOUND)


@pytest.mark.parametrize(
    ("name", "value", "field", "read"),
    [
        ("GATEWAY_MONGO_URL", "mongodb+srv://user:pw@cluster.example/?tls=true", "mongo_url", None),
        ("GATEWAY_MONGO_DATABASE", "health_record-2", "mongo_database", None),
        ("GATEWAY_MONGO_DRIVER", "pymongo", "mongo_driver", None),
        ("GATEWAY_BASE_URL", "https://fhir.example/r4/", "base_url", "https://fhir.example/r4"),
        ("GATEWAY_BASE_URL", "http://[::1]:8080/fhir", "base_url", None),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.1, 192.168.0.0/16,::1", "trusted_proxies", None),
        ("GATEWAY_LOG_LEVEL", "debug", "log_level", None),
        ("GATEWAY_SCHEMAS", str(Path(__file__).parent), "schemas", Path(__file__).parent),
        ("GATEWAY_ISSUERS", str(Path(__file__).parent), "issuers", Path(__file__).parent),
        ("GATEWAY_OUTBOUND_NETWORKS", "10.0.0.0/8, ::1", "outbound_networks", None),
        ("GATEWAY_PROVIDERS", str(Path(__file__).parent), "providers", Path(__file__).parent),
        ("GATEWAY_LOCAL_LOGIN", "on", "local_login", None),
        ("GATEWAY_RATES", "off", "rates", None),
        ("GATEWAY_TEST_IDENTITIES", "off", "test_identities", None),
        ("GATEWAY_FORMER_MASTER_KEY", "x" * 32, "former_master_key", None),
        ("GATEWAY_CLAMD", "tcp://[::1]:3310", "clamd", None),
        ("GATEWAY_CLAMD", "unix:/run/clamav/clamd.ctl", "clamd", None),
        ("GATEWAY_METRICS", "[::1]:9100", "metrics", None),
    ],
)
def test_each_variable_is_read(name: str, value: str, field: str, read: object) -> None:
    assert getattr(read_settings({**SOUND, name: value}), field) == (read or value)


@pytest.mark.parametrize(
    ("name", "values", "what"),
    [
        ("GATEWAY_MONGO_URL", ["", "127.0.0.1:27017", "http://db.example", "mongodb://", "mongodb:/x", " mongodb://x"],
         "is not set|is not a mongodb:// or"),
        ("GATEWAY_MONGO_DATABASE", ["a b", "a.b", "a/b", "a$b", "é", "x" * 64, "a\n"], "is not a name of letters"),
        ("GATEWAY_MONGO_DRIVER", ["Motor", "asyncio", "motor "], "is neither motor nor pymongo"),
        ("GATEWAY_BASE_URL", ["fhir.example", "/fhir", "ftp://x/fhir", "https://", "https:///fhir", "https://x/fhir?a=b", "https://x/#a",
                              "https://x:port/fhir", "https://x:99999/fhir", "https://x:0/fhir", "https://u:p@x/fhir", "https://[::1/fhir",
                              "https://x y/fhir", "HTTPS//x"], "is not an absolute http or https URL"),
        ("GATEWAY_SECRET", ["", "short", "x" * 31], "is not set|is shorter than 32 characters"),
        ("GATEWAY_TRUSTED_PROXIES", ["*", "localhost", "10.0.0.1 10.0.0.2", "10.0.0.0/33", "10.0.0.1;::1"],
         "is not a list of IP addresses"),
        ("GATEWAY_LOG_LEVEL", ["INFO", "trace", "critical"], "is none of debug, info, warning, error"),
        ("GATEWAY_SCHEMAS", [__file__, "/nowhere/at/all"], "is not a folder"),
        ("GATEWAY_ISSUERS", [__file__, "/nowhere/at/all"], "is not a folder"),
        ("GATEWAY_PROVIDERS", [__file__, "/nowhere/at/all"], "is not a folder"),
        ("GATEWAY_CERTIFICATE_HEADER", ["Client-Cert"], "is believed of nobody without GATEWAY_TRUSTED_PROXIES"),
        ("GATEWAY_CERTIFICATE_HEADER", ["Client Cert", "é", "a:b"], "is not the name of a header"),
        ("GATEWAY_OUTBOUND_NETWORKS", ["localhost", "10.0.0.1/8", "*"], "is not a list of IP addresses"),
        ("GATEWAY_LOCAL_LOGIN", ["yes", "ON", "true"], "is none of auto, on, off"),
        ("GATEWAY_RATES", ["auto", "ON"], "is neither on nor off"),
        ("GATEWAY_TEST_IDENTITIES", ["yes", "ON"], "is none of auto, on, off"),
        ("GATEWAY_MASTER_KEY", ["x" * 31], "is shorter than 32"),
        ("GATEWAY_FORMER_MASTER_KEY", ["x" * 31], "is shorter than 32"),
        ("GATEWAY_CLAMD", ["clamd", "tcp://clamd", "tcp://clamd:0", "tcp://:3310", "unix:run/x", "http://clamd:3310"],
         "is neither tcp"),
    ],
)  # fmt: skip
def test_each_variable_that_is_wrong_is_named(name: str, values: list[str], what: str) -> None:
    for value in values:
        with pytest.raises(SettingsError) as refused:
            read_settings({**SOUND, name: value})
        said = str(refused.value)
        assert re.match(f"{name}: (?:{what})", said), (value, said)


@pytest.mark.parametrize("name", ["GATEWAY_MONGO_URL", "GATEWAY_SECRET", "GATEWAY_BASE_URL"])
def test_no_refusal_repeats_a_value(name: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({**SOUND, name: "user:hunter2@x"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("base_url", "said", "is_there"),
    [
        ("http://127.0.0.1:8000/fhir", "", True),
        ("http://[::1]:8000/fhir", "", True),
        ("http://localhost:8000/fhir", "off", False),
        ("https://fhir.example/fhir", "", False),
        ("https://fhir.example/fhir", "on", True),
        ("http://127.0.0.1.fhir.example/fhir", "", False),
    ],
)
def test_local_accounts_are_for_this_machine_unless_it_is_said(base_url: str, said: str, is_there: bool) -> None:
    settings = read_settings({**SOUND, "GATEWAY_BASE_URL": base_url, "GATEWAY_LOCAL_LOGIN": said})
    assert settings.has_local_login is is_there


def test_nobody_logs_in_in_the_clear() -> None:
    clear = {**SOUND, "GATEWAY_BASE_URL": "http://fhir.example/fhir"}
    with pytest.raises(SettingsError, match="GATEWAY_LOCAL_LOGIN: passwords are not sent over http"):
        read_settings({**clear, "GATEWAY_LOCAL_LOGIN": "on"})
    with pytest.raises(SettingsError, match="GATEWAY_PROVIDERS: nobody logs in over http"):
        read_settings({**clear, "GATEWAY_PROVIDERS": str(Path(__file__).parent)})


def test_certificates_come_from_a_proxy() -> None:
    settings = read_settings({**SOUND, "GATEWAY_TRUSTED_PROXIES": "10.0.0.1", "GATEWAY_CERTIFICATE_HEADER": "Client-Cert"})
    assert settings.certificate_header == "Client-Cert"


def test_every_variable_says_what_it_is_for() -> None:
    for item in fields(Settings):
        assert re.fullmatch(r"GATEWAY_[A-Z_]+", item.metadata["env"])
        assert len(item.metadata["purpose"]) > 10


def test_the_environment_is_what_the_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    with pytest.raises(SettingsError, match="GATEWAY_MONGO_URL: is not set"):
        read_settings()
    for name, value in SOUND.items():
        monkeypatch.setenv(name, value)
    assert read_settings() == read_settings(SOUND)


# gateway.toml


def changed(folder: Path, sound: str, mistake: str) -> Path:
    text = (find_schemas() / "gateway.toml").read_text("utf-8")
    assert sound in text
    (folder / "gateway.toml").write_text(text.replace(sound, mistake, 1), "utf-8")
    return folder


ACTION = '"AuditEvent.action" = ["C", "R", "U", "D", "E"]'


@pytest.mark.parametrize(
    ("sound", "mistake", "said"),
    [
        ("depth = 64", "depth = 0", r"limits\.depth: Expected `int` >= 1"),
        ("depth = 64", "depth = -1", r"limits\.depth: "),
        ("depth = 64", 'depth = "64"', r"limits\.depth: Expected `int`"),
        ("depth = 64", "", r"limits\.depth: is missing"),
        ("depth = 64", "depht = 64", r"limits\.dep(?:ht: is not a key here|th: is missing)"),
        ("search_seconds = 2", "search_seconds = 0", r"limits\.search_seconds: "),
        ("page_default = 50", "page_default = 500", r"limits\.page_default: is more than page_most"),
        ("[limits]", "[limit]", r"limits?: is (?:not a key here|missing)"),
        (ACTION, '"AuditEvent.action" = "C"', r"bindings\.AuditEvent\.action: Expected `array`"),
        (ACTION, '"AuditEvent.action" = []', r"bindings\.AuditEvent\.action: "),
        (ACTION, '"AuditEvent.action" = [1]', r"bindings\.AuditEvent\.action\[0\]: Expected `str`"),
        ("[limits]", "[limits", r"Expected"),
        ("per_second = 200", "per_second = 0", r"rates\.app\.per_second: "),
        ("known = 0.1", "known = 2", r"rates\.app\.known: "),
    ],
)  # fmt: skip
def test_a_mistake_in_the_gateway_file_is_named(tmp_path: Path, sound: str, mistake: str, said: str) -> None:
    with pytest.raises(SchemaError) as refused:
        read_gateway_file(changed(tmp_path, sound, mistake))
    assert re.match(re.escape(f"{tmp_path / 'gateway.toml'}: ") + said, str(refused.value)), str(refused.value)


def test_the_packaged_limits_allow_what_is_sent_every_day() -> None:
    file = read_gateway_file(find_schemas())
    limits, bindings = file.limits, file.bindings
    assert limits.body_bytes >= 300_000  # a day of readings
    assert limits.bundle_entries >= 288
    assert limits.page_most >= 100
    assert limits.page_default <= limits.page_most
    assert bindings["Observation.status"][0] == "registered"
