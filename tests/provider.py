"""Another authorization server: a small OpenID provider that runs as a process of its own (`python -m tests.provider PORT`).

Knows: three kinds of issuer as they are met outside: `clinic` (RFC 9068), `realm` (shaped as Keycloak's tokens are) and `psc`
(opaque tokens, introspected, shaped as Pro Santé Connect's). Must not know: the gateway. Authlib speaks its OAuth.

Everybody's password is their name. Who they are, and what an issuer says of them, a test brings: `PUT /{issuer}/people/{name}`.
"""

import json
import os
import secrets
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Payload, OAuth2Request, grants
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from fastapi import FastAPI, Request, Response
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from tests.provider_login import add_login, register_login

LIFETIME = 300
PLACES = {
    "jwks_uri": "keys",
    "token_endpoint": "token",
    "introspection_endpoint": "introspect",
    "authorization_endpoint": "authorize",
    "userinfo_endpoint": "userinfo",
    "end_session_endpoint": "logout",
}


@dataclass
class Client(ClientMixin):
    """Everybody who asks: software and gateways. The secret is the name."""

    name: str

    def get_client_id(self) -> str:
        return self.name

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_client_secret(self, secret: str) -> bool:
        return secrets.compare_digest(secret, self.name)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in ("client_secret_basic", "client_secret_post")

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ("password", "client_credentials", "authorization_code")

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri.startswith(("http://127.0.0.1:", "http://localhost:"))


@dataclass
class User:
    """Somebody with an account. `says`: the claims the issuer adds for them."""

    name: str
    says: Mapping[str, Any] = field(default_factory=dict)

    def get_user_id(self) -> str:
        return f"account-{self.name}"


@dataclass
class Token:
    """A token as this server remembers it."""

    client: Client
    claims: dict[str, Any]
    revoked: bool = False

    def check_client(self, client: Client) -> bool:
        return client == self.client

    def is_expired(self) -> bool:
        return bool(self.claims["exp"] < time.time())

    def is_revoked(self) -> bool:
        return self.revoked


class _Payload(OAuth2Payload):
    def __init__(self, form: dict[str, str]) -> None:
        self.form = form

    @property
    def data(self) -> dict[str, str]:
        return self.form

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        return defaultdict(list, {name: [value] for name, value in self.form.items()})


class _Request(OAuth2Request):
    def __init__(self, request: Request, form: dict[str, str]) -> None:
        super().__init__(request.method, str(request.url), headers=request.headers)
        self.payload = _Payload(form)

    @property
    def form(self) -> dict[str, str]:
        return self.payload.form

    args = form


class _Server(AuthorizationServer):
    """Authlib's server, without a framework between."""

    def query_client(self, client_id: str) -> Client:
        return Client(client_id)

    def save_token(self, token: Mapping[str, Any], request: OAuth2Request) -> None:
        """Tokens are remembered where they are made."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> Response:
        return Response(json.dumps(body), status, dict(headers))


class Issuer:
    """One issuer: its accounts, keys, tokens, and what its access tokens look like."""

    def __init__(self, url: str, shape: "Shape") -> None:
        self.url, self.shape = url, shape
        self.people: dict[str, User] = {}
        self.tokens: dict[str, Token] = {}
        self.asked: Counter[str] = Counter()
        self.keys: list[RSAKey] = []
        self.rotate()
        self.server = _Server()
        self.server.register_grant(grants.ClientCredentialsGrant)
        self.server.register_grant(_password_grant(self))
        self.server.register_token_generator("default", shape(self))
        for endpoint in (_introspection(self), _revocation(self)):
            self.server.register_endpoint(endpoint)
        self.codes: dict[str, Any] = {}
        register_login(self)

    def rotate(self) -> None:
        """Sign with a new key from now on; the one before stays published."""
        key = RSAKey.generate_key(2_048, {"use": "sig", "alg": "RS256"})
        key.ensure_kid()
        self.keys = [*self.keys[-1:], key]

    def sign(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        return jwt.encode({"alg": "RS256", "kid": self.keys[-1].kid, **header}, dict(claims), self.keys[-1])

    def claims(self, client: Client, user: User | None, scope: str) -> dict[str, Any]:
        """What every token says."""
        now = int(time.time())
        subject = user.get_user_id() if user else f"service-account-{client.name}"
        said = {"iss": self.url, "sub": subject, "iat": now, "exp": now + LIFETIME, "jti": secrets.token_hex(8)}
        return said | {"azp": client.name, "scope": scope} | dict(user.says if user else {})


Shape = Callable[[Issuer], Callable[..., Mapping[str, Any]]]


class _Rfc9068(JWTBearerTokenGenerator):
    """Authlib's own access tokens."""

    def __init__(self, issuer: Issuer) -> None:
        super().__init__(issuer.url, expires_generator=lambda client, grant_type: LIFETIME)
        self._of = issuer

    def get_jwks(self) -> KeySet:
        return KeySet(self._of.keys[-1:])

    def get_audiences(self, client: Client, user: User | None, scope: str) -> list[str]:
        return ["https://other.example", str(user.says.get("aud")) if user else ""]

    def get_extra_claims(self, client: Client, grant_type: str, user: User | None, scope: str) -> dict[str, Any]:
        return {name: value for name, value in (user.says if user else {}).items() if name != "aud"}


def _keycloak(issuer: Issuer) -> BearerTokenGenerator:
    """`typ` JWT in the header, and what kind of token it is among the claims; an id token beside it."""

    def make(client: Client, grant_type: str, user: User | None, scope: str) -> str:
        claims = issuer.claims(client, user, scope)
        return issuer.sign({"typ": "JWT"}, {"aud": ["account", "gateway"], **claims, "typ": "Bearer"})

    def refresh(client: Client, grant_type: str, user: User | None, scope: str) -> str:
        claims = issuer.claims(client, user, scope)
        return issuer.sign({"typ": "JWT"}, {**claims, "aud": [issuer.url, "gateway"], "typ": "Refresh"})

    def generate(**asked: Any) -> Mapping[str, Any]:
        token = BearerTokenGenerator(make, refresh, lambda client, grant_type: LIFETIME)(**asked)
        claims = issuer.claims(asked["client"], asked.get("user"), "openid")
        return {**token, "id_token": issuer.sign({"typ": "JWT"}, {**claims, "aud": ["medisoft", "gateway"], "typ": "ID"})}

    return generate  # type: ignore[return-value]


def _opaque(issuer: Issuer) -> BearerTokenGenerator:
    """Nothing to be read in the token; what is said of it names no audience."""

    def make(client: Client, grant_type: str, user: User | None, scope: str) -> str:
        token = f"psc_{secrets.token_urlsafe(24)}"
        issuer.tokens[token] = Token(client, {**issuer.claims(client, user, scope), "typ": "Bearer"})
        return token

    return BearerTokenGenerator(make, expires_generator=lambda client, grant_type: LIFETIME)


def _password_grant(issuer: Issuer) -> type[grants.ResourceOwnerPasswordCredentialsGrant]:
    class Password(grants.ResourceOwnerPasswordCredentialsGrant):
        def authenticate_user(self, username: str, password: str) -> User | None:
            return issuer.people.get(username) if username == password else None

    return Password


def _introspection(issuer: Issuer) -> type[IntrospectionEndpoint]:
    class Introspection(IntrospectionEndpoint):
        def query_token(self, token: str, hint: str | None) -> Token | None:
            return issuer.tokens.get(token)

        def check_permission(self, token: Token, client: Client, request: OAuth2Request) -> bool:
            return client.name == "gateway"

        def introspect_token(self, token: Token) -> dict[str, Any]:
            return {"active": True, **token.claims}

    return Introspection


def _revocation(issuer: Issuer) -> type[RevocationEndpoint]:
    class Revocation(RevocationEndpoint):
        def query_token(self, token: str, hint: str | None) -> Token | None:
            return issuer.tokens.get(token)

        def revoke_token(self, token: Token, request: OAuth2Request) -> None:
            token.revoked = True

    return Revocation


def create_provider(base: str) -> FastAPI:
    """The whole server at this address."""
    shapes: dict[str, Shape] = {"clinic": _Rfc9068, "realm": _keycloak, "psc": _opaque}
    issuers = {name: Issuer(f"{base}/{name}", shape) for name, shape in shapes.items()}
    app = FastAPI()

    @app.get("/readyz")
    def ready() -> None:
        """It listens."""

    @app.get("/{name}/.well-known/openid-configuration")
    def discover(name: str) -> dict[str, Any]:
        url = issuers[name].url
        return {"issuer": url, **{place: f"{url}/{path}" for place, path in PLACES.items()}}

    @app.get("/{name}/keys")
    def keys(name: str) -> dict[str, Any]:
        issuers[name].asked["keys"] += 1
        unusable = {"kty": "RSA", "kid": "for-encryption", "use": "enc", "n": "AQAB", "e": "AQAB"}
        return {"keys": [unusable, *(key.as_dict(private=False) for key in issuers[name].keys)]}

    @app.post("/{name}/token")
    async def token(name: str, request: Request) -> Response:
        return issuers[name].server.create_token_response(await _read(request))  # type: ignore[no-any-return]

    @app.post("/{name}/introspect")
    async def introspect(name: str, request: Request) -> Response:
        issuers[name].asked["introspect"] += 1
        return issuers[name].server.create_endpoint_response("introspection", await _read(request))  # type: ignore[no-any-return]

    @app.post("/{name}/revoke")
    async def revoke(name: str, request: Request) -> Response:
        return issuers[name].server.create_endpoint_response("revocation", await _read(request))  # type: ignore[no-any-return]

    add_login(app, issuers, _Request)

    @app.put("/{name}/people/{person}")
    async def bring(name: str, person: str, request: Request) -> None:
        issuers[name].people[person] = User(person, await request.json())

    @app.post("/{name}/notice")
    async def notice(name: str, request: Request) -> str:
        """The logout token that says this."""
        said = await request.json()
        return issuers[name].sign(said["header"], said["claims"])

    @app.post("/{name}/rotate")
    def rotate(name: str) -> None:
        issuers[name].rotate()

    @app.get("/{name}/asked")
    def asked(name: str) -> dict[str, int]:
        return dict(issuers[name].asked)

    return app


async def _read(request: Request) -> _Request:
    return _Request(request, dict(parse_qsl((await request.body()).decode())))


if __name__ == "__main__":
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "true"  # it listens on loopback only
    port = int(sys.argv[1])
    uvicorn.run(create_provider(f"http://127.0.0.1:{port}"), host="127.0.0.1", port=port, log_level="error")
