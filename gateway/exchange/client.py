"""What an operator says of an app or service in its file, and what that makes of it.

Knows: the keys of such a file, which of them go together, what each kind of client may do.
Must not know: where entries are kept, how a client shows that it is one.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from gateway.access.ceiling import Ceiling
from gateway.access.policy import Policy
from gateway.fhir.registry import Registry
from gateway.schemas import SchemaError, read_schema

ClientKind = Literal["app", "service", "portal", "software", "establishment", "feed"]
GrantType = Literal["authorization_code", "refresh_token", "client_credentials"]
Authentication = Literal["private_key_jwt", "client_secret_basic", "none"]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]

# The kind of actor (of policy.toml) that a token of a system is, where nobody logs in.
SYSTEMS: Mapping[str, str] = {"service": "service", "establishment": "professional", "feed": "feed"}
# Those for which somebody logs in: the app and the service act by what the patient agrees to, the others as that person.
_WITH_PEOPLE = ("app", "service", "portal", "software")
# Those whom a Consent names.
_WITH_ACTOR = ("app", "service", "software", "establishment")
_ACTOR = re.compile(r"(?:Device|Organization)/[A-Za-z0-9.-]{1,64}")
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,63}")
_LANGUAGE = re.compile(r"[a-z]{2}")
_PRIVATE_SCHEME = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9-]+)+")  # https://www.rfc-editor.org/rfc/rfc8252#section-7.1
_OID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]{0,17})){1,30}")
_CODE = re.compile(r"[^\s|]+\|[^\s|]+")


# Control and format characters, private ones and those of no script, ends of lines and paragraphs.
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


class Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A client of the catalogue.

    `purpose`: what it wants data for, in words, by language; `purpose_of_use`: the same as `system|code`; `controller`: who
    answers for what is done with the data; `actor`: the reference by which Consents name it; `read` and `write`: the types that
    it may ever ask for; `introspects`: whether it is a resource server that may ask about the tokens of others; `origins`: from
    which its pages call, besides those of its redirect URIs; `certificate_bound`: whether its tokens are good only with the
    certificate it showed when it asked for them (RFC 8705); `recipients` and `retention`: who else gets the data and how long
    it is kept, in words, by language, where that is not what a decision says anyway (nobody; as long as the purpose needs it);
    `staff`: the system of the numbers by which an establishment names professionals in its statements; `oid`: that of the
    solution, by which the partner face knows it, and `patients_oid`, that of its numbers of patients there, if another;
    `pushed`: whether it has to send its requests for authorization itself, before the person comes (RFC 9126).
    """

    client: str
    name: Text
    kind: ClientKind
    category: str
    purpose: Annotated[dict[str, Text], msgspec.Meta(min_length=1)]
    controller: Text
    contact: Text
    authentication: Authentication
    grants: list[GrantType] = msgspec.field(default_factory=list)
    actor: str | None = None
    purpose_of_use: str | None = None
    read: list[str] = msgspec.field(default_factory=list)
    write: list[str] = msgspec.field(default_factory=list)
    redirect_uris: list[str] = msgspec.field(default_factory=list)
    origins: list[str] = msgspec.field(default_factory=list)
    jwks_uri: str | None = None
    keys: list[dict[str, Any]] = msgspec.field(default_factory=list)
    introspects: bool = False
    certificate_bound: bool = False
    recipients: dict[str, Text] = msgspec.field(default_factory=dict)
    retention: dict[str, Text] = msgspec.field(default_factory=dict)
    staff: str | None = None
    oid: str | None = None
    patients_oid: str | None = None
    pushed: bool = False

    @property
    def is_public(self) -> bool:
        """Whether it keeps no secret."""
        return self.authentication == "none"

    def purpose_in(self, language: str) -> str:
        """What it wants data for, in this language or, where it does not say so, in one that it does."""
        return _in(self.purpose, language) or ""

    def recipients_in(self, language: str) -> str | None:
        """Who else gets the data, None where nobody does."""
        return _in(self.recipients, language)

    def retention_in(self, language: str) -> str | None:
        """How long it keeps the data, None where it says nothing of its own."""
        return _in(self.retention, language)

    def ceiling(self, levels: Iterable[str]) -> Ceiling:
        """The most it may be granted at these levels."""
        return Ceiling(frozenset(levels), frozenset(self.read), frozenset(self.write))

    def system_ceiling(self, *, reads: bool) -> Ceiling:
        """The most it may be granted where nobody logs in. `reads`: whether it may read at all, by the policy."""
        ceiling = self.ceiling(("system",))
        return ceiling if reads else replace(ceiling, read=frozenset())

    def terms(self) -> dict[str, Any]:
        """What patients are told and agree to: when any of it changes, they are asked again."""
        return {
            "purpose": self.purpose,
            "recipients": self.recipients,
            "retention": self.retention,
            "purpose_of_use": self.purpose_of_use,
            "controller": self.controller,
            "category": self.category,
            "actor": self.actor,
            "kind": self.kind,
            "read": sorted(self.read),
            "write": sorted(self.write),
        }


def read_client(file: Path, registry: Registry, policy: Policy) -> Client:
    """The client that a file describes. Raises SchemaError naming file and key."""
    client = read_schema(file, Client)
    for key, text in _mistakes(client, registry, policy):
        raise SchemaError(file, key, text)
    return msgspec.structs.replace(client, origins=sorted({*client.origins, *_origins_of(client.redirect_uris)}))


def _mistakes(client: Client, registry: Registry, policy: Policy) -> Iterable[tuple[str, str]]:
    """What cannot be, by key."""
    if not _CLIENT.fullmatch(client.client):
        yield "client", "is not 2 to 64 letters, digits, '.', '_' and '-'"
    if client.category in policy.never_recipients:
        yield "category", "is one that no Consent can open anything to (policy.toml: recipients.never)"
    elif client.category not in policy.recipients:
        yield "category", f"is none of {', '.join(sorted(policy.recipients))}"
    for key in ("purpose", "recipients", "retention"):
        if not all(map(_LANGUAGE.fullmatch, getattr(client, key))):
            yield key, "is not told by language (fr, en)"
        if any(map(_is_disguised, getattr(client, key).values())):
            yield key, "has characters that are not seen"
    for key in ("name", "controller", "contact"):
        if _is_disguised(getattr(client, key)):
            yield key, "has characters that are not seen"
    if client.purpose_of_use is not None and not _CODE.fullmatch(client.purpose_of_use):
        yield "purpose_of_use", "is not system|code"
    if client.actor is None and client.kind in _WITH_ACTOR:
        yield "actor", "is missing: no Consent could name this client"
    if client.actor is not None and not _ACTOR.fullmatch(client.actor):
        yield "actor", "is not Device/id or Organization/id"
    if client.staff is not None and not (
        client.kind in policy.statement_needed and str(client.actor).startswith("Organization/")
    ):
        yield "staff", "is for whoever reads by statements and is an Organization (policy.toml: statement.needed_to_read)"
    for key in ("oid", "patients_oid"):
        value = getattr(client, key)
        if value is not None and not (client.kind == "app" and _OID.fullmatch(value)):
            yield key, "is not an OID of an app, such as 1.2.250.1.999.1"
    yield from _wrong_types(client, registry, policy)
    yield from _wrong_grants(client)
    yield from _wrong_keys(client)
    yield from _wrong_addresses(client)


def _is_disguised(text: str) -> bool:
    """Whether a text could look like another: by characters that are not seen, or that turn others around."""
    return any(unicodedata.category(character) in _UNSEEN for character in text)


def _wrong_types(client: Client, registry: Registry, policy: Policy) -> Iterable[tuple[str, str]]:
    for key, types in (("read", client.read), ("write", client.write)):
        for name in types:
            if registry.find(name) is None:
                yield key, f"'{name}' is not a type that is served here"
            if name in policy.never_opened and client.kind != "portal":
                yield key, f"{name} is the patient's own (policy.toml: consent.never_opens)"


def _wrong_grants(client: Client) -> Iterable[tuple[str, str]]:
    if "client_credentials" in client.grants:
        if client.kind not in SYSTEMS:
            yield "grants", f"client_credentials are for {', '.join(SYSTEMS)}"
        if client.authentication != "private_key_jwt":
            yield "authentication", "is to be private_key_jwt where nobody logs in"
    if "authorization_code" in client.grants and client.kind not in _WITH_PEOPLE:
        yield "grants", f"authorization_code is for {', '.join(_WITH_PEOPLE)}"
    if client.pushed and "authorization_code" not in client.grants:
        yield "pushed", "goes with authorization_code"
    if "refresh_token" in client.grants and "authorization_code" not in client.grants:
        yield "grants", "refresh_token goes with authorization_code"
    if not client.grants and not client.introspects:
        yield "grants", "is missing"
    if client.is_public and (client.introspects or "authorization_code" not in client.grants):
        yield "authentication", "none is for clients for which somebody logs in"


def _wrong_keys(client: Client) -> Iterable[tuple[str, str]]:
    signs = client.authentication == "private_key_jwt"
    if signs and (client.jwks_uri is None) == (not client.keys):
        yield "jwks_uri", "or keys is to be given, one of them"
    if not signs and (client.jwks_uri or client.keys):
        yield "jwks_uri", "and keys are for private_key_jwt"
    if client.jwks_uri is not None and not _is_web(client.jwks_uri):
        yield "jwks_uri", "is not an https URL"


def _wrong_addresses(client: Client) -> Iterable[tuple[str, str]]:
    if bool(client.redirect_uris) != ("authorization_code" in client.grants):
        yield "redirect_uris", "go with authorization_code"
    for uri in client.redirect_uris:
        if not _is_redirect_uri(uri, native=client.is_public):
            yield "redirect_uris", f"'{uri}' is not an https URL without fragment (nor, of a public client, one of its own)"
    for origin in client.origins:
        if not _is_web(origin) or origin != _origin(origin):
            yield "origins", f"'{origin}' is not an origin, such as https://app.example"


def _is_redirect_uri(uri: str, *, native: bool) -> bool:
    """Whether a browser may be sent there: https, this machine or, of apps on a phone, a scheme of their own."""
    if not uri.isascii() or not uri.isprintable() or any(c in uri for c in ' "<>\\^`{|}#'):
        return False
    return _is_web(uri) or (native and bool(_PRIVATE_SCHEME.fullmatch(uri.partition(":")[0])))


def _is_web(url: str) -> bool:
    """Whether this is an https URL, or http to this machine."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or port == 0 or "@" in parts.netloc or any(c.isspace() for c in url):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _origins_of(uris: Iterable[str]) -> set[str]:
    return {_origin(uri) for uri in uris if _is_web(uri)}


def _origin(url: str) -> str:
    """Scheme, host and port as browsers write them in the header `Origin`."""
    parts = urlsplit(url)
    is_default = parts.port in (None, 443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if is_default else f":{parts.port}")


def _in(texts: Mapping[str, str], language: str) -> str | None:
    """A text in this language, or in another where there is none in it."""
    return texts.get(language) or texts.get("en") or next(iter(texts.values()), None)
