"""Settings: every environment variable with its purpose, and the limits that `schemas/gateway.toml` sets.

Knows: names, defaults and what makes a value unusable. Must not know: what is done with them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.schemas import find_schemas, read_schema


class SettingsError(Exception):
    """An environment variable that cannot be used: the message is `NAME: what is wrong`."""


def _env(name: str, purpose: str, default: str | None = None) -> Any:
    return field(metadata={"env": name, "purpose": purpose, "default": default})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment decides. Made once by `read_settings` and handed on."""

    mongo_url: str = _env("GATEWAY_MONGO_URL", "MongoDB connection string of a replica set or cluster")
    mongo_database: str = _env("GATEWAY_MONGO_DATABASE", "name of the database", "gateway")
    mongo_driver: str = _env("GATEWAY_MONGO_DRIVER", "motor, or pymongo for PyMongo's own async client", "motor")
    base_url: str = _env(
        "GATEWAY_BASE_URL", "public URL of the FHIR service, without trailing slash", "http://127.0.0.1:8000/fhir"
    )
    secret: str = _env("GATEWAY_SECRET", "at least 32 characters; hides identifiers in ids and seals paging cursors")
    trusted_proxies: str = _env("GATEWAY_TRUSTED_PROXIES", "addresses whose X-Forwarded-For and -Proto are believed", "")
    log_level: str = _env("GATEWAY_LOG_LEVEL", "debug, info, warning or error", "info")
    schemas: Path = _env("GATEWAY_SCHEMAS", "folder of data files, in place of the packaged ones", "")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one request may ask for; each value's reason stands beside it in `gateway.toml`."""

    body_bytes: int
    bundle_entries: int
    depth: int
    string_length: int
    url_bytes: int
    header_bytes: int
    form_bytes: int
    parameters: int
    or_values: int
    page_default: int
    page_most: int
    history_most: int
    explain_bytes: int
    request_seconds: float
    search_seconds: float


class _GatewayFile(msgspec.Struct, forbid_unknown_fields=True):
    limits: Limits
    bindings: dict[str, list[str]]


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this environment. Raises SettingsError naming the variable."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for item in fields(Settings):
        name, default = item.metadata["env"], item.metadata["default"]
        value = environ.get(name) or default
        if value is None:
            raise SettingsError(f"{name}: is not set ({item.metadata['purpose']})")
        values[item.name] = value
    values["schemas"] = Path(values["schemas"]) if values["schemas"] else find_schemas()
    values["base_url"] = values["base_url"].rstrip("/")
    _check(values)
    return Settings(**values)


def read_gateway_file(schemas: Path) -> tuple[Limits, Mapping[str, list[str]]]:
    """The limits and the required bindings of `gateway.toml`. Raises SchemaError naming the key."""
    raw = read_schema(schemas / "gateway.toml", _GatewayFile)
    return raw.limits, raw.bindings


def _check(values: Mapping[str, Any]) -> None:
    if values["mongo_driver"] not in ("motor", "pymongo"):
        raise SettingsError("GATEWAY_MONGO_DRIVER: is neither motor nor pymongo")
    if values["log_level"] not in ("debug", "info", "warning", "error"):
        raise SettingsError("GATEWAY_LOG_LEVEL: is none of debug, info, warning, error")
    if len(values["secret"]) < 32:
        raise SettingsError("GATEWAY_SECRET: is shorter than 32 characters")
    url = urlsplit(values["base_url"])
    if url.scheme not in ("http", "https") or not url.netloc or url.query or url.fragment:
        raise SettingsError("GATEWAY_BASE_URL: is not an absolute http or https URL")
    if not values["schemas"].is_dir():
        raise SettingsError("GATEWAY_SCHEMAS: is not a folder")
