"""The grants of RFC 6749, decided by Authlib's server core: it gets what was looked up and leaves what is to be written.

Knows: Authlib, alone. Its core is synchronous and asks nothing itself, so it runs between looking up and writing, as a
function. Must not know: HTTP, stores.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from authlib.oauth2.rfc6749 import (
    AuthorizationCodeMixin,
    AuthorizationServer,
    ClientMixin,
    InvalidClientError,
    InvalidScopeError,
    OAuth2Error,
    OAuth2Request,
)
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import OAuth2Payload
from authlib.oauth2.rfc7636 import CodeChallenge

from gateway.access.ceiling import Ceiling
from gateway.access.scope import Scope
from gateway.exchange.catalogue import Entry
from gateway.exchange.client import SYSTEMS
from gateway.exchange.statement import Behind
from gateway.exchange.tokens import Grant, new_token
from gateway.problem import Problem

SYSTEM_LIFETIME = timedelta(seconds=300)
# Whether TLS is in use, settings and proxy decide; the core looks at nothing else in the address.
_ADDRESS = "https://gateway/oauth/token"

Scopes = Callable[[str], tuple[Scope, ...]]


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that is to be stored, and the grant it is of."""

    token: str
    grant: Grant


@dataclass(slots=True)
class Asked:
    """A request at the token endpoint with what was looked up for it.

    `certificate`: what the tokens are to be bound to; `reads`, `behind`: whether it may read, and for whom; `code`: that which
    it brings, as it is stored; `issued`: what is to be written, once it is decided.
    """

    form: Mapping[str, str]
    entry: Entry
    method: str
    grant_id: str
    now: datetime
    certificate: str | None = None
    reads: bool = True
    behind: Behind | None = None
    code: Mapping[str, Any] | None = None
    issued: list[Issued] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Decided:
    """What is answered."""

    status: int
    body: Mapping[str, Any]


class Core:
    """Decides what a client is granted."""

    def __init__(self, scopes: Scopes) -> None:
        self._server = _Server(scopes)
        self._server.register_grant(_ClientCredentials)
        self._server.register_grant(_AuthorizationCode, [_S256(required=True)])
        self._server.register_token_generator("default", lambda **_: {})

    def decide(self, asked: Asked) -> Decided:
        """The answer to a request at the token endpoint; what is to be written for it is left in `asked`."""
        return cast(Decided, self._server.create_token_response(_Request(asked)))

    def is_answer(self, asked: Asked) -> bool:
        """Whether `asked.code` is brought as it was given: to that address, with the secret behind the challenge."""
        try:
            self._server.get_token_grant(_Request(asked)).validate_token_request()
        except OAuth2Error:
            return False
        return True


class _Payload(OAuth2Payload):
    def __init__(self, form: Mapping[str, str]) -> None:
        self._form = dict(form)

    @property
    def data(self) -> dict[str, str]:
        return self._form

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        return defaultdict(list, {name: [value] for name, value in self._form.items()})


class _Request(OAuth2Request):
    def __init__(self, asked: Asked) -> None:
        super().__init__("POST", _ADDRESS)
        self.asked = asked
        self.payload = _Payload(asked.form)

    @property
    def args(self) -> dict[str, str]:
        return {}

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data


class _Client(ClientMixin):
    """A client of the catalogue as the core asks about it."""

    def __init__(self, entry: Entry, method: str) -> None:
        self.entry = entry
        self._method = method

    def get_client_id(self) -> str:
        return self.entry.client.client

    def get_default_redirect_uri(self) -> None:
        """None: it is always to be named."""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.entry.client.redirect_uris

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        return method == self._method

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.entry.client.grants


class _Server(AuthorizationServer):
    def __init__(self, scopes: Scopes) -> None:
        super().__init__()
        self.scopes = scopes

    def query_client(self, client_id: str) -> None:
        """Nobody is looked up here: who asks was authenticated before."""

    def authenticate_client(self, request: _Request, methods: Iterable[str], endpoint: str = "token") -> _Client:
        client = _Client(request.asked.entry, request.asked.method)
        if not any(client.check_endpoint_auth_method(method, endpoint) for method in methods):
            raise InvalidClientError("the client may not authenticate in this way here")
        return client

    def save_token(self, token: Mapping[str, Any], request: _Request) -> None:
        """Nothing: each grant leaves what is to be written."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def create_oauth2_request(self, request: _Request) -> _Request:
        return request

    def handle_response(self, status: int, body: Any, _headers: Any) -> Decided:
        told = dict(body)
        if "error" in told:
            told.setdefault("error_description", "this is not offered here")
        return Decided(status, told)


class _Code(AuthorizationCodeMixin):
    """A code as it is stored."""

    code_challenge_method = "S256"

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self._redirect_uri = stored["redirect_uri"]
        self.code_challenge = stored["challenge"]

    def get_redirect_uri(self) -> str:
        return str(self._redirect_uri)

    def get_scope(self) -> str:
        return ""


class _S256(CodeChallenge):
    """RFC 7636 with the one method that hides the secret, for every client."""

    DEFAULT_CODE_CHALLENGE_METHOD = "S256"
    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)


class _AuthorizationCode(AuthorizationCodeGrant):
    """RFC 6749 §4.1.3: whether a code is brought as it was given. What it is good for, the approval behind it says."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("private_key_jwt", "client_secret_basic", "none")

    def query_authorization_code(self, _code: str, client: _Client) -> _Code | None:
        stored = self.request.asked.code
        return _Code(stored) if stored is not None and stored["client"] == client.get_client_id() else None


class _ClientCredentials(ClientCredentialsGrant):
    """RFC 6749 §4.4 as SMART Backend Services narrow it: a signed assertion, a scope, five minutes, nothing to refresh."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("private_key_jwt",)

    def generate_token(self, scope: str | None = None, **_: Any) -> dict[str, Any]:
        asked, client = self.request.asked, self.request.client.entry.client
        behind = asked.behind
        granted = _narrow(self.server.scopes, scope, client.system_ceiling(reads=asked.reads))
        grant = Grant(
            client=client.client,
            kind=SYSTEMS[client.kind],
            scope=granted,
            actors=behind.actors if behind else (client.actor,) if client.actor else (),
            user=behind.user if behind else None,
            purpose=behind.purpose if behind else client.purpose_of_use,
            lifetime=SYSTEM_LIFETIME,
            id=asked.grant_id,
            terms_since=asked.entry.terms_since,
            certificate=asked.certificate,
            roles=behind.roles if behind else (),
            professions=behind.professions if behind else (),
            organization=behind.organization if behind else None,
        )
        token = new_token()
        asked.issued.append(Issued(token, grant))
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": int(SYSTEM_LIFETIME.total_seconds()),
            "scope": granted,
        }


def _narrow(scopes: Scopes, text: str | None, ceiling: Ceiling) -> str:
    """What is granted of the scopes asked for."""
    if not text:
        raise InvalidScopeError("a scope is needed")
    try:
        granted = ceiling.narrow(scopes(text))
    except Problem:
        raise InvalidScopeError("one of the scopes is not of the grammar of SMART, or not of a type that is served") from None
    if not granted:
        raise InvalidScopeError("the client may be granted none of these scopes")
    return " ".join(granted)
