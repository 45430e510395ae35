"""The OpenID providers with which people log in here: one TOML file each, in a folder of the deployment.

Knows: the shape of these files and everything that makes one unusable. Must not know: HTTP, who is logging in.

They are not the files of issuers: that somebody may log in with a provider does not make its access tokens hold here, and the
other way round.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from gateway.fhir.registry import Registry
from gateway.issuers.files import (
    NAME,
    NOT_CALLABLE,
    USERS,
    Named,
    PublishedKeys,
    Text,
    Words,
    check_named,
    read_secret,
)
from gateway.outbound import Network, may_be_called
from gateway.schemas import SchemaError, read_schema

PersonKind = Literal["patient", "proxy", "professional", "operator"]


class Endpoints(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the provider is asked. Browsers are sent to `authorization` and `end_session`; the gateway calls the others."""

    authorization: Text
    token: Text
    userinfo: Text | None = None
    end_session: Text | None = None


class Coded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A claim that holds codes: of this `system` or, without one, written `code^oid` as Pro Santé Connect does."""

    claim: Text
    system: Text | None = None


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who it is whose claims hold `when`. Of a professional: `organization`, where they work, and `role`, as what."""

    kind: PersonKind
    when: dict[str, Words] = {}
    user: Named | None = None
    organization: Named | None = None
    role: Coded | None = None


class _ProviderFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    issuer: Text
    name: Text | Annotated[dict[str, Text], msgspec.Meta(min_length=1)]
    client: Text
    secret_file: Text
    endpoints: Endpoints
    id_token: PublishedKeys
    person: Annotated[list[Person], msgspec.Meta(min_length=1)]
    authentication: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    scopes: Words = msgspec.field(default_factory=lambda: ["openid"])
    acr: list[Text] = []
    require: dict[str, Words] = {}
    says_issuer: bool = False
    skew_seconds: Annotated[int, msgspec.Meta(ge=0, le=60)] = 30


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as configured. `name`: that of its file; `titles`: what pages call it, by language; `acr`: how people must
    have shown who they are, one of these; `says_issuer`: whether its answers always name it (RFC 9207); `own`: the address
    below which references to resources are ours.
    """

    name: str
    titles: Mapping[str, str]
    issuer: str
    client: str
    secret: str
    authentication: str
    scopes: list[str]
    acr: list[str]
    require: Mapping[str, list[str]]
    says_issuer: bool
    skew: int
    endpoints: Endpoints
    id_token: PublishedKeys
    own: str
    people: list[Person]

    def title(self, language: str) -> str:
        """What pages in this language call it."""
        return self.titles[language]

    def called(self) -> list[str]:
        """The addresses that the gateway itself calls."""
        userinfo = self.endpoints.userinfo
        return [self.endpoints.token, self.id_token.keys, self.issuer, *([userinfo] if userinfo else [])]


def read_providers(
    folder: Path | None, registry: Registry, networks: tuple[Network, ...], base_url: str, languages: Iterable[str]
) -> list[Provider]:
    """The providers in this folder; none without one. Raises SchemaError naming file and key."""
    if folder is None:
        return []
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise SchemaError(folder, "", "holds no file of a provider (*.toml)")
    spoken, found = sorted(languages), list[Provider]()
    for file in files:
        provider = _read_provider(file, registry, networks, base_url, spoken)
        same = next((other for other in found if other.issuer == provider.issuer and other.client == provider.client), None)
        if same is not None:
            raise SchemaError(file, "issuer", f"is that of {same.name} too, with the same client")
        found.append(provider)
    return found


def origin_of(url: str) -> str:
    """Scheme, host and port, as a Content-Security-Policy names them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _read_provider(
    file: Path, registry: Registry, networks: tuple[Network, ...], base_url: str, languages: list[str]
) -> Provider:
    raw = read_schema(file, _ProviderFile)
    if not NAME.fullmatch(file.stem):
        raise SchemaError(file, "", "its name is not of small letters, digits and -")
    places = {f"endpoints.{name}": getattr(raw.endpoints, name) for name in Endpoints.__struct_fields__}
    for key, url in {"issuer": raw.issuer, "id_token.keys": raw.id_token.keys, **places}.items():
        if url is not None and not may_be_called(url, networks):
            raise SchemaError(file, key, NOT_CALLABLE)
    if "openid" not in raw.scopes:
        raise SchemaError(file, "scopes", "openid is not among them: there would be no id token")
    titles = raw.name if isinstance(raw.name, dict) else dict.fromkeys(languages, raw.name)
    for language in languages:
        if language not in titles:
            raise SchemaError(file, f"name.{language}", "is missing")
    for n, rule in enumerate(raw.person):
        _check_person(file, f"person[{n}]", rule, raw.acr, registry)
    return Provider(
        name=file.stem,
        titles=titles,
        issuer=raw.issuer,
        client=raw.client,
        secret=read_secret(file, "secret_file", raw.secret_file),
        authentication=raw.authentication,
        scopes=raw.scopes,
        acr=raw.acr,
        require=raw.require,
        says_issuer=raw.says_issuer,
        skew=raw.skew_seconds,
        endpoints=raw.endpoints,
        id_token=raw.id_token,
        own=f"{base_url}/",
        people=raw.person,
    )


def _check_person(file: Path, key: str, rule: Person, acr: list[str], registry: Registry) -> None:
    if rule.kind == "operator":
        if not rule.when or not acr:
            missing = "acr" if rule.when else f"{key}.when"
            raise SchemaError(file, missing, "is missing: an operator has a role, and shows more than a password")
        if rule.user is not None:
            raise SchemaError(file, f"{key}.user", "an operator is nobody's record")
    elif rule.user is None:
        raise SchemaError(file, f"{key}.user", "is missing: who is it?")
    users = ("Practitioner",) if rule.kind == "professional" else USERS.get(rule.kind, ())
    check_named(file, f"{key}.user", rule.user, rule.kind, users, registry)
    if rule.kind != "professional" and (rule.organization or rule.role):
        raise SchemaError(file, f"{key}.organization", "and role are those of professionals")
    if rule.role is not None and rule.organization is None:
        raise SchemaError(file, f"{key}.role", "is a role at an organization, which is missing")
    check_named(file, f"{key}.organization", rule.organization, rule.kind, ("Organization",), registry)
