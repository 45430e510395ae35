"""Settings: every environment variable with its purpose, and the limits that `schemas/gateway.toml` sets.

Knows: names, defaults and what makes a value unusable. Must not know: what is done with them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from gateway.schemas import SchemaError, convert, find_schemas, read_schema

_MONGO_URL = re.compile(r"mongodb(?:\+srv)?://[^/\s]")
_HOST_AND_PORT = r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):(?:[1-9][0-9]{0,3}|[1-5][0-9]{4})"
_ADDRESS = re.compile(_HOST_AND_PORT)
_CLAMD = re.compile(rf"tcp://{_HOST_AND_PORT}|unix:/[^\0?#]+")
_FOLDERS = ("issuers", "providers", "metrics_folder")  # that need not be there
_DATABASE = re.compile(r"[A-Za-z0-9_-]{1,63}")
_NO_NETWORKS = "is not a list of IP addresses or networks, separated by commas"
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_URL = re.compile(r"[a-z]+://[^\s@?#]+")


class SettingsError(Exception):
    """An environment variable that cannot be used: the message is `NAME: what is wrong`."""


def _env(name: str, purpose: str, default: str | None = None, *, otherwise: Any = MISSING) -> Any:
    """A variable. `otherwise`: what settings that are not read from an environment need not say."""
    return field(default=otherwise, metadata={"env": name, "purpose": purpose, "default": default})


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
    certificate_header: str = _env(
        "GATEWAY_CERTIFICATE_HEADER", "header in which those proxies pass on a client's verified certificate", "", otherwise=""
    )
    issuers: Path | None = _env("GATEWAY_ISSUERS", "folder of files of other issuers", "", otherwise=None)
    outbound_networks: str = _env(
        "GATEWAY_OUTBOUND_NETWORKS", "networks that may be called though they are no public ones", "", otherwise=""
    )
    providers: Path | None = _env("GATEWAY_PROVIDERS", "folder of files of OpenID providers to log in with", "", otherwise=None)
    master_key: str = _env(
        "GATEWAY_MASTER_KEY", "at least 32 characters; wraps the keys that contents are sealed with", "", otherwise=""
    )
    former_master_key: str = _env(
        "GATEWAY_FORMER_MASTER_KEY",
        "what the keys of patients were wrapped with before, until they are rewrapped",
        "",
        otherwise="",
    )
    clamd: str = _env("GATEWAY_CLAMD", "tcp://host:port or unix:/path of a clamd that examines contents", "", otherwise="")
    test_identities: str = _env(
        "GATEWAY_TEST_IDENTITIES",
        "on, off, or auto: identifiers of test persons hold on a loopback base URL only",
        "auto",
        otherwise="on",
    )
    rates: str = _env("GATEWAY_RATES", "on, or off where load is measured", "on", otherwise="off")
    local_login: str = _env(
        "GATEWAY_LOCAL_LOGIN",
        "on, off, or auto: local accounts log in on a loopback base URL only",
        "auto",
        otherwise="auto",
    )

    metrics: str = _env("GATEWAY_METRICS", "host:port at which `gateway serve` tells its metrics", "", otherwise="")
    metrics_folder: Path | None = _env(
        "GATEWAY_METRICS_FOLDER", "folder in which processes lay down their numbers: set by `gateway serve`", "", otherwise=None
    )

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where metrics are told."""
        host, _, port = self.metrics.rpartition(":")
        return (host.strip("[]"), int(port)) if self.metrics else None

    @property
    def wrapping_secret(self) -> str:
        """What the keys of patients are wrapped with."""
        return self.master_key or self.secret

    @property
    def site(self) -> str:
        """The address below which pages and OAuth endpoints lie: what stands before `/fhir` in the base URL."""
        url = urlsplit(self.base_url)
        return self.base_url.removesuffix("/fhir") if url.path.endswith("/fhir") else f"{url.scheme}://{url.netloc}"

    @property
    def has_local_login(self) -> bool:
        """Whether people log in with accounts of this gateway: in production only where that is said."""
        return self.local_login == "on" or (self.local_login == "auto" and _is_loopback(self.base_url))

    @property
    def has_test_identities(self) -> bool:
        """Whether identifiers of test persons are taken: in production only where that is said."""
        return self.test_identities == "on" or (self.test_identities == "auto" and _is_loopback(self.base_url))

    @property
    def has_people(self) -> bool:
        """Whether people log in here at all."""
        return self.has_local_login or self.providers is not None


Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Codes = Annotated[list[str], msgspec.Meta(min_length=1)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one request may ask for; each value's reason stands beside it in `gateway.toml`."""

    body_bytes: Count
    content_bytes: Count
    bundle_entries: Count
    history_entries: Count
    depth: Count
    string_length: Count
    url_bytes: Count
    header_bytes: Count
    form_bytes: Count
    answer_bytes: Count
    consents: Count
    consent_bytes: Count
    parameters: Count
    patch_operations: Count
    or_values: Count
    search_values: Count
    includes: Count
    include_rounds: Count
    included: Count
    chains: Count
    chain_types: Count
    chain_targets: Count
    system_types: Count
    page_default: Count
    page_most: Count
    history_most: Count
    explain_bytes: Count
    lane_bytes: Count
    lanes: Count
    request_seconds: Seconds
    transfer_seconds: Seconds
    search_seconds: Seconds
    settle_seconds: Seconds


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one caller may ask of a worker: requests and resources written, `known` being what one that is known counts."""

    per_second: Seconds
    burst: Count
    known: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Allowance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one visitor of the pages may ask of a worker."""

    per_second: Seconds
    burst: Count


class Visitors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By what is asked: pages, attempts to log in that fail, and requests of clients that do not show who they are."""

    pages: Allowance
    logins: Allowance
    clients: Allowance


class _GatewayFile(msgspec.Struct, forbid_unknown_fields=True):
    limits: Limits
    rates: dict[str, Any]
    visitors: Visitors
    bindings: dict[str, Any]


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
    for name in _FOLDERS:
        values[name] = Path(values[name]) if values[name] else None
    values["base_url"] = values["base_url"].rstrip("/")
    _check(values)
    return Settings(**values)


@dataclass(frozen=True, slots=True)
class GatewayFile:
    """What `gateway.toml` says: `rates` by client or kind of actor, `visitors` by what is asked, `bindings` by element."""

    limits: Limits
    rates: Mapping[str, Rate]
    visitors: Mapping[str, Allowance]
    bindings: Mapping[str, list[str]]


def read_gateway_file(schemas: Path) -> GatewayFile:
    """The limits, rates and required bindings of `gateway.toml`. Raises SchemaError naming the key."""
    file = schemas / "gateway.toml"
    raw = read_schema(file, _GatewayFile)
    if raw.limits.page_default > raw.limits.page_most:
        raise SchemaError(file, "limits.page_default", "is more than page_most")
    if raw.limits.history_entries > raw.limits.bundle_entries:
        raise SchemaError(file, "limits.history_entries", "is more than bundle_entries")
    bindings = {path: convert(file, f"bindings.{path}", codes, Codes) for path, codes in raw.bindings.items()}
    rates = {name: convert(file, f"rates.{name}", rate, Rate) for name, rate in raw.rates.items()}
    visitors = {name: getattr(raw.visitors, name) for name in raw.visitors.__struct_fields__}
    return GatewayFile(raw.limits, rates, visitors, bindings)


def _check(values: Mapping[str, Any]) -> None:
    if not _MONGO_URL.match(values["mongo_url"]):
        raise SettingsError("GATEWAY_MONGO_URL: is not a mongodb:// or mongodb+srv:// connection string")
    if not _DATABASE.fullmatch(values["mongo_database"]):
        raise SettingsError("GATEWAY_MONGO_DATABASE: is not a name of letters, digits, _ and - (63 at most)")
    if values["mongo_driver"] not in ("motor", "pymongo"):
        raise SettingsError("GATEWAY_MONGO_DRIVER: is neither motor nor pymongo")
    if not _is_service_url(values["base_url"]):
        raise SettingsError("GATEWAY_BASE_URL: is not an absolute http or https URL without user, query and fragment")
    if len(values["secret"]) < 32:
        raise SettingsError("GATEWAY_SECRET: is shorter than 32 characters")
    for name in ("master_key", "former_master_key"):
        if values[name] and len(values[name]) < 32:
            raise SettingsError(f"GATEWAY_{name.upper()}: is shorter than 32 characters")
    for name in ("trusted_proxies", "outbound_networks"):
        if not _is_list_of_networks(values[name]):
            raise SettingsError(f"GATEWAY_{name.upper()}: {_NO_NETWORKS}")
    if values["certificate_header"] and not _HEADER.fullmatch(values["certificate_header"]):
        raise SettingsError("GATEWAY_CERTIFICATE_HEADER: is not the name of a header")
    if values["certificate_header"] and not values["trusted_proxies"]:
        raise SettingsError("GATEWAY_CERTIFICATE_HEADER: is believed of nobody without GATEWAY_TRUSTED_PROXIES")
    if values["log_level"] not in ("debug", "info", "warning", "error"):
        raise SettingsError("GATEWAY_LOG_LEVEL: is none of debug, info, warning, error")
    if values["clamd"] and not _CLAMD.fullmatch(values["clamd"]):
        raise SettingsError("GATEWAY_CLAMD: is neither tcp://host:port nor unix:/path")
    if values["metrics"] and not _ADDRESS.fullmatch(values["metrics"]):
        raise SettingsError("GATEWAY_METRICS: is not host:port")
    if values["test_identities"] not in ("auto", "on", "off"):
        raise SettingsError("GATEWAY_TEST_IDENTITIES: is none of auto, on, off")
    if values["rates"] not in ("on", "off"):
        raise SettingsError("GATEWAY_RATES: is neither on nor off")
    if values["local_login"] not in ("auto", "on", "off"):
        raise SettingsError("GATEWAY_LOCAL_LOGIN: is none of auto, on, off")
    if values["local_login"] == "on" and values["base_url"].startswith("http:") and not _is_loopback(values["base_url"]):
        raise SettingsError("GATEWAY_LOCAL_LOGIN: passwords are not sent over http; GATEWAY_BASE_URL is to be an https URL")
    if values["providers"] is not None and values["base_url"].startswith("http:") and not _is_loopback(values["base_url"]):
        raise SettingsError("GATEWAY_PROVIDERS: nobody logs in over http; GATEWAY_BASE_URL is to be an https URL")
    if not values["schemas"].is_dir():
        raise SettingsError("GATEWAY_SCHEMAS: is not a folder")
    for name in _FOLDERS:
        if values[name] is not None and not values[name].is_dir():
            raise SettingsError(f"GATEWAY_{name.upper()}: is not a folder")


def _is_service_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        sound = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        return False
    return sound and _URL.fullmatch(text) is not None


def read_networks(text: str, name: str = "GATEWAY_OUTBOUND_NETWORKS") -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks in the setting of this name. Raises SettingsError."""
    if not _is_list_of_networks(text):
        raise SettingsError(f"{name}: {_NO_NETWORKS}")
    return tuple(ip_network(part.strip()) for part in text.split(",") if part)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_list_of_networks(text: str) -> bool:
    try:
        for part in filter(None, text.split(",")):
            ip_network(part.strip())
    except ValueError:
        return False
    return True
