"""The issuers whose tokens hold here: one TOML file each, in a folder of the deployment.

Knows: the shape of these files and everything that makes one unusable. Must not know: tokens, HTTP.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from gateway.access.policy import RELATION_KINDS, Kind
from gateway.fhir.registry import Registry
from gateway.outbound import Network, may_be_called
from gateway.problem import Problem
from gateway.schemas import SchemaError, read_schema

ANY_AUDIENCE = "any"
NOT_CALLABLE = "is not an https URL (or http to a loopback address that GATEWAY_OUTBOUND_NETWORKS has)"

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_REFERENCE = re.compile(r"([A-Z][A-Za-z]+)/[A-Za-z0-9.-]{1,64}")
_BEARER = re.compile(r"[A-Za-z0-9._~+/=-]{0,32}")  # RFC 6750 §2.1
# Whom each kind of actor is: the types of resource that a token can name them by.
USERS = {
    "patient": ("Patient",),
    "proxy": ("RelatedPerson",),
    "professional": ("Practitioner", "PractitionerRole"),
    "app": ("Device",),
    "service": ("Organization", "Device"),
}

Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Words = Annotated[list[Text], msgspec.Meta(min_length=1)]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]


class PublishedKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys that an issuer publishes, and how long what was fetched of them holds."""

    keys: Text
    algorithms: Annotated[list[Algorithm], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["RS256", "PS256", "ES256"]
    )
    cache_seconds: Seconds = 600
    refetch_seconds: Seconds = 30
    outage_seconds: Seconds = 3_600


class Jwt(PublishedKeys, frozen=True):
    """Tokens that are signed (RFC 9068). `types`: what their header may say they are."""

    types: Words = msgspec.field(default_factory=lambda: ["at+jwt"])
    lifetime_seconds: Seconds = 3_900


class Introspection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens that their issuer is asked about (RFC 7662). `prefix`: how those begin that are no JWT; without it, none is."""

    endpoint: Text
    client: Text
    secret_file: Text
    prefix: str | None = None
    cache_seconds: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A claim that names a resource of this type: by reference or, with a `system`, by an identifier."""

    claim: Text
    type: Text
    system: Text | None = None


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who bears a token whose claims hold `when`, each one of the texts, and the claims that `user` and `patient` need."""

    kind: Kind
    when: dict[str, Words] = {}
    user: Named | None = None
    patient: Named | None = None
    actors: tuple[str, ...] = ()
    software: tuple[str, ...] = ()
    scopes: tuple[Text, ...] = ()
    source: Text | None = None
    purpose: Text | None = None


class Scopes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the words in these claims grant. `smart`: SMART scopes mean what they say; `become`: what other words stand for."""

    claims: Words = msgspec.field(default_factory=lambda: ["scope"])
    smart: bool = False
    become: dict[str, Words] = {}


class _IssuerFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    issuer: Text
    caller: Annotated[list[Rule], msgspec.Meta(min_length=1)]
    audience: Text | None = None
    skew_seconds: Annotated[int, msgspec.Meta(ge=0, le=60)] = 30
    require: dict[str, Words] = {}
    jwt: Jwt | None = None
    introspection: Introspection | None = None
    scopes: Scopes = Scopes()


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer as configured. `name`: that of its file; `audience`: None for any; `secret`: ours at its
    introspection; `own`: the address below which references to resources are ours.
    """

    name: str
    issuer: str
    audience: str | None
    skew: int
    require: dict[str, list[str]]
    jwt: Jwt | None
    introspection: Introspection | None
    secret: str
    own: str
    scopes: Scopes
    rules: list[Rule]

    @property
    def url(self) -> str:
        """The one address of this issuer that is ever called."""
        return self.jwt.keys if self.jwt else self.introspection.endpoint if self.introspection else ""


@dataclass(frozen=True, slots=True)
class Checks:
    """What the files are checked against. `scopes`: parses scopes, or raises Problem."""

    registry: Registry
    scopes: Callable[[str], Any]
    networks: tuple[Network, ...]
    base_url: str


def read_issuers(folder: Path | None, checks: Checks) -> list[Issuer]:
    """The issuers in this folder; none without one. Raises SchemaError naming file and key."""
    if folder is None:
        return []
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise SchemaError(folder, "", "holds no file of an issuer (*.toml)")
    issuers = [_read_issuer(file, checks) for file in files]
    for n, (file, issuer) in enumerate(zip(files, issuers, strict=True)):
        _check_beside(file, issuer, issuers[:n])
    return issuers


def _read_issuer(file: Path, checks: Checks) -> Issuer:
    raw = read_schema(file, _IssuerFile)
    if not NAME.fullmatch(file.stem):
        raise SchemaError(file, "", "its name is not of small letters, digits and -")
    if (raw.jwt is None) == (raw.introspection is None):
        raise SchemaError(file, "jwt", "an issuer has either [jwt] or [introspection]")
    place = ("jwt.keys", raw.jwt.keys) if raw.jwt else ("introspection.endpoint", getattr(raw.introspection, "endpoint", ""))
    for key, url in (("issuer", raw.issuer), place):
        if not may_be_called(url, checks.networks):
            raise SchemaError(file, key, NOT_CALLABLE)
    _check_confusion(file, raw)
    _check_scopes(file, raw, checks)
    for n, rule in enumerate(raw.caller):
        _check_rule(file, f"caller[{n}]", rule, checks.registry)
    return Issuer(
        name=file.stem,
        issuer=raw.issuer,
        audience=None if raw.audience == ANY_AUDIENCE else raw.audience or checks.base_url,
        skew=raw.skew_seconds,
        require=raw.require,
        jwt=raw.jwt,
        introspection=raw.introspection,
        secret=read_secret(file, "introspection.secret_file", raw.introspection.secret_file) if raw.introspection else "",
        own=f"{checks.base_url}/",
        scopes=raw.scopes,
        rules=raw.caller,
    )


def _check_confusion(file: Path, raw: _IssuerFile) -> None:
    """Refuse rules by which a token that was made for something else could pass."""
    if raw.jwt and any(normal_type(name) != "at+jwt" for name in raw.jwt.types) and "typ" not in raw.require:
        raise SchemaError(file, "require.typ", "is missing: nothing else tells these types of token from an id token")
    if raw.audience == ANY_AUDIENCE and (raw.jwt or not {"azp", "client_id"} & raw.require.keys()):
        text = "'any' goes with [introspection] and a list of clients under require (azp or client_id) only"
        raise SchemaError(file, "audience", text)
    prefix = raw.introspection.prefix if raw.introspection else None
    if prefix is not None and not _BEARER.fullmatch(prefix):
        raise SchemaError(file, "introspection.prefix", "is no beginning of a bearer token")


def _check_scopes(file: Path, raw: _IssuerFile, checks: Checks) -> None:
    granted = [(f"scopes.become.{word}", scopes) for word, scopes in raw.scopes.become.items()]
    granted += [(f"caller[{n}].scopes", list(rule.scopes)) for n, rule in enumerate(raw.caller)]
    for key, scopes in granted:
        try:
            for scope in scopes:
                checks.scopes(scope)
        except Problem as problem:
            raise SchemaError(file, key, problem.issues[0].text) from None


def _check_rule(file: Path, key: str, rule: Rule, registry: Registry) -> None:
    if rule.kind in RELATION_KINDS:
        raise SchemaError(file, f"{key}.kind", "who is of a care team, the record says")
    if rule.kind in ("patient", "proxy", "professional", "app", "service") and not (rule.user or rule.actors):
        raise SchemaError(file, f"{key}.user", "is missing: no Consent could ever name this caller (or give its actors)")
    if rule.kind in ("operator", "feed") and not rule.when:
        raise SchemaError(file, f"{key}.when", f"is missing: every bearer of a token would be {rule.kind} here")
    if rule.kind in ("patient", "proxy") and rule.user is None:
        raise SchemaError(file, f"{key}.user", "is missing")
    if (rule.kind == "proxy" and rule.patient is None) or (rule.kind == "patient" and rule.patient is not None):
        raise SchemaError(file, f"{key}.patient", "is missing" if rule.kind == "proxy" else "is who the user is")
    for name, types in (("user", USERS.get(rule.kind, ())), ("patient", ("Patient",))):
        check_named(file, f"{key}.{name}", getattr(rule, name), rule.kind, types, registry)
    for name in ("actors", "software"):
        for reference in getattr(rule, name):
            found = _REFERENCE.fullmatch(reference)
            if found is None or registry.find(found[1]) is None:
                raise SchemaError(file, f"{key}.{name}", "is not a list of references like Device/…")


def check_named(file: Path, key: str, named: Named | None, kind: str, types: tuple[str, ...], registry: Registry) -> None:
    """Refuse a claim by which somebody could be taken for somebody else. `types`: those that such a claim may name."""
    if named is None:
        return
    if named.type not in types:
        raise SchemaError(file, f"{key}.type", f"a {kind} has {' or '.join(types) or 'none'} here")
    if named.system is not None and registry[named.type].group not in ("directory", "identity"):
        raise SchemaError(file, f"{key}.system", f"not only directories write {named.type}: its identifiers prove nothing")


def _check_beside(file: Path, issuer: Issuer, others: Iterable[Issuer]) -> None:
    for other in others:
        if issuer.issuer == other.issuer:
            raise SchemaError(file, "issuer", f"is that of {other.name} too")
        one, two = (i.introspection.prefix if i.introspection else None for i in (issuer, other))
        if one is not None and two is not None and (one.startswith(two) or two.startswith(one)):
            raise SchemaError(file, "introspection.prefix", f"cannot be told from that of {other.name}")


def read_secret(file: Path, key: str, name: str) -> str:
    """The secret in the file of this name beside `file`, or at this absolute path. Raises SchemaError naming the key."""
    try:
        secret = (file.parent / name).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        secret = ""
    if not secret:
        raise SchemaError(file, key, "there is no secret in this file, or it cannot be read")
    return secret


def normal_type(name: str) -> str:
    """A media type as the `typ` of a JOSE header, in one spelling (RFC 7515 §4.1.9)."""
    return name.lower().removeprefix("application/")
