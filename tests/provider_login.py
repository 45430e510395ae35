"""The part of the other server (`tests/provider.py`) where people log in: the authorization code flow of OpenID Connect.

Knows: a login form without a password's worth of security, and what an id token and userinfo say of whom. What a test wants
said otherwise stands in what it brings of a person: `id_token` and `userinfo` are put over the sound claims.
Must not know: the gateway. Authlib speaks its OAuth, PKCE and OpenID.
"""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from authlib.oauth2.rfc6749 import OAuth2Request, grants
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core.grants import OpenIDCode
from fastapi import FastAPI, Request, Response
from joserfc import jwt
from joserfc.jwk import KeySet

_AFTER: Mapping[str, Mapping[str, str]] = {"realm": {"typ": "ID"}, "psc": {"acr": "eidas1"}, "clinic": {}}


@dataclass
class Code:
    """A code on its way from the browser to the client."""

    code: str
    client: Any
    user: Any
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str | None
    code_challenge_method: str | None

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> None:
        return None

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


def register_login(issuer: Any) -> None:
    """Let the server of this issuer give codes to people, and tokens for codes."""

    class CodeGrant(grants.AuthorizationCodeGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

        def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
            asked = request.payload.data
            challenge = asked.get("code_challenge"), asked.get("code_challenge_method")
            issuer.codes[code] = Code(
                code, request.client, request.user, asked["redirect_uri"], asked["scope"], asked.get("nonce"), *challenge
            )

        def query_authorization_code(self, code: str, client: Any) -> Code | None:
            found: Code | None = issuer.codes.get(code)
            return found if found is not None and found.client == client else None

        def delete_authorization_code(self, authorization_code: Code) -> None:
            del issuer.codes[authorization_code.code]

        def authenticate_user(self, authorization_code: Code) -> Any:
            return authorization_code.user

    class Openid(OpenIDCode):
        def exists_nonce(self, nonce: str, request: OAuth2Request) -> bool:
            return any(code.nonce == nonce for code in issuer.codes.values())

        def encode_id_token(self, token: Mapping[str, Any], request: OAuth2Request) -> str:
            user, name = request.user, issuer.url.rpartition("/")[2]
            claims = {**issuer.claims(request.client, user, "openid"), "aud": request.client.name, **_AFTER[name]}
            claims["nonce"] = request.authorization_code.nonce
            claims |= user.says.get("id_token", {})
            for key in ("id_token", "userinfo", "scope", *(user.says if name == "psc" else ())):
                claims.pop(key, None)
            return str(issuer.sign({"typ": "JWT"}, claims))

    issuer.server.register_grant(CodeGrant, [CodeChallenge(required=True), Openid()])


def add_login(app: FastAPI, issuers: Mapping[str, Any], read: Callable[[Request, dict[str, str]], OAuth2Request]) -> None:
    """The addresses that browsers, and whoever knows an access token, ask."""

    @app.get("/{name}/authorize")
    def ask(name: str, request: Request) -> Response:
        """Asks who it is, and keeps in the form what the client wants."""
        asked = read(request, dict(request.query_params))
        issuers[name].server.get_consent_grant(asked)
        hidden = "".join(
            f'<input type="hidden" name="{key}" value="{html.escape(value)}">' for key, value in request.query_params.items()
        )
        fields = '<input id="username" name="username"><input id="password" name="password"><button>Log in</button>'
        form = f'<form method="post" action="/{name}/authorize">{hidden}{fields}</form>'
        return Response(f"<!doctype html><h1>{name}</h1>{form}", media_type="text/html")

    @app.post("/{name}/authorize")
    async def answer(name: str, request: Request) -> Response:
        """Sends the browser back: with a code, or with the word that nobody logged in."""
        form = dict(parse_qsl((await request.body()).decode()))
        user = issuers[name].people.get(form["username"]) if form["username"] == form["password"] else None
        asked = read(request, form)
        asked.user = user
        grant = issuers[name].server.get_consent_grant(asked)
        told: Response = issuers[name].server.create_authorization_response(asked, user, grant)
        told.headers["location"] += "&" + urlencode({"iss": issuers[name].url})  # RFC 9207
        return told

    @app.get("/{name}/userinfo")
    def userinfo(name: str, request: Request) -> Any:
        token = issuers[name].tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if token is None:
            return Response(status_code=401)
        claims = {key: value for key, value in token.claims.items() if key not in ("id_token", "userinfo")}
        return claims | token.claims.get("userinfo", {})

    @app.post("/{name}/logout")
    async def logout(name: str, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        keys = KeySet(list(issuers[name].keys))
        claims = jwt.decode(form["id_token_hint"], keys, algorithms=["RS256"]).claims
        issuers[name].asked[f"logout of {claims['sub']}"] += 1
        return Response(status_code=303, headers={"Location": form["post_logout_redirect_uri"]})
