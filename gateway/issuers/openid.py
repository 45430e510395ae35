"""Asking an OpenID provider who somebody is: the authorization code flow of OpenID Connect Core 1.0 §3.1, with PKCE.

Knows: what a browser is sent to a provider with, and what makes an answer one to this very question. Authlib makes the requests
and weighs the claims of an id token; it never speaks HTTP. Must not know: browsers, stores, who is known here.
"""

import re
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote_plus

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError

from gateway.issuers.claims import Claims, Refused, holds, seconds
from gateway.issuers.logout import NOTICES, Notice, read_notice
from gateway.issuers.providers import Provider
from gateway.issuers.signed import Signatures, read_header
from gateway.outbound import Network, Outbound, Reply, Resolve, Unreachable, json_object

_MOST_BYTES = 65_536
_LONGEST_TOKEN = 16_384
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_LONGEST_SUBJECT = 255  # OpenID Connect Core §2
_OLDEST = 300  # seconds: an id token is made when its code is shown
_TYPES = frozenset({"", "jwt"})  # an access token (at+jwt) or a notice of logout (logout+jwt) is none


@dataclass(frozen=True, slots=True)
class Question:
    """What ties the answer of a provider to one browser and one moment. All three are guessed by nobody."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in, as the provider says. `id_token`: what it wants to be shown when they log out."""

    subject: str
    claims: Claims
    acr: str | None
    id_token: str


def new_question() -> Question:
    """A question that nobody has asked."""
    return Question(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))


class Providers:
    """The configured providers."""

    def __init__(self, providers: Iterable[Provider], networks: Iterable[Network] = (), resolve: Resolve | None = None) -> None:
        self._by_name = {provider.name: provider for provider in providers}
        called = [url for provider in self._by_name.values() for url in provider.called()]
        self._outbound = Outbound(called, networks, resolve)
        self._signatures = {p.name: Signatures(p.name, p.id_token, _TYPES, self._outbound) for p in self._by_name.values()}
        self._notices = {name: known.also(name, NOTICES, self._outbound) for name, known in self._signatures.items()}

    def __iter__(self) -> Iterator[Provider]:
        return iter(self._by_name.values())

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def find(self, name: str) -> Provider | None:
        """The provider of this name."""
        return self._by_name.get(name)

    def address(self, provider: Provider, question: Question, redirect_uri: str, language: str, *, afresh: bool = False) -> str:
        """Where the browser is sent. `afresh`: to log in even if they are logged in there."""
        found: str = prepare_grant_uri(
            provider.endpoints.authorization,
            provider.client,
            "code",
            redirect_uri,
            provider.scopes,
            question.state,
            nonce=question.nonce,
            code_challenge=create_s256_code_challenge(question.verifier),
            code_challenge_method="S256",
            acr_values=" ".join(provider.acr) or None,
            ui_locales=language,
            prompt="login" if afresh else None,
            max_age="0" if afresh else None,  # which makes it say when they did
        )
        return found

    async def identity(self, provider: Provider, code: str, question: Question, redirect_uri: str, now: datetime) -> Identity:
        """Who logged in, for a code that answers this question.

        Raises Refused where it does not, and Unreachable where the provider has to be asked and gives no usable answer.
        """
        answer = await self._exchange(provider, code, question, redirect_uri)
        token, access_token = answer.get("id_token"), answer.get("access_token")
        if not isinstance(token, str) or not 0 < len(token) <= _LONGEST_TOKEN or token.count(".") != 2:
            raise Refused("id_token")
        if not isinstance(access_token, str) or not _TOKEN.fullmatch(access_token):
            raise Refused("access_token")
        header = read_header(token)
        signatures = self._signatures[provider.name]
        claims = signatures.verify(token, header, await signatures.find_key(header, now))
        subject = _check_id_token(provider, claims, header, access_token, question.nonce, now)
        acr = claims.get("acr") if isinstance(claims.get("acr"), str) else None
        if provider.endpoints.userinfo is not None:
            # What is signed for this very login counts more than what is said of the account.
            claims = {**await self._userinfo(provider.endpoints.userinfo, access_token, subject), **claims}
        if not holds(claims, provider.require):
            raise Refused("required claims")
        return Identity(subject, claims, acr, token)

    async def notice(self, provider: Provider, token: str, now: datetime) -> Notice:
        """What a provider says of a logout there. Raises Refused, and Unreachable where its keys cannot be fetched."""
        if not 0 < len(token) <= _LONGEST_TOKEN or token.count(".") != 2:
            raise Refused("logout_token")
        header, signatures = read_header(token), self._notices[provider.name]
        claims = signatures.verify(token, header, await signatures.find_key(header, now))
        return read_notice(provider, claims, now)

    async def try_out(self, now: datetime) -> AsyncIterator[tuple[str, str, bool]]:
        """Ask every provider once: its name, what came of it, and whether its file says of it what it says of itself."""
        for provider in self:
            try:
                told = json_object(await self._ask("GET", provider.issuer.rstrip("/") + "/.well-known/openid-configuration"))
                wrong = _differences(provider, told)
                count = await self._signatures[provider.name].keys.count(now.timestamp())
                text = f"says otherwise: {', '.join(wrong)}" if wrong else f"{count} usable keys"
                yield provider.name, text, not wrong
            except Unreachable as error:
                yield provider.name, f"no usable answer: {error}", False

    async def close(self) -> None:
        """Give up what is under way and close all connections."""
        for signatures in self._signatures.values():
            await signatures.keys.close()
        await self._outbound.close()

    async def _exchange(self, provider: Provider, code: str, question: Question, redirect_uri: str) -> Mapping[str, Any]:
        body = prepare_token_request("authorization_code", "", redirect_uri, code=code, code_verifier=question.verifier)
        form, headers = dict(parse_qsl(body)), {"Accept": "application/json"}
        if provider.authentication == "client_secret_post":
            form |= {"client_id": provider.client, "client_secret": provider.secret}
        else:
            # (Authlib does not encode the two, as RFC 6749 §2.3.1 asks: a colon in the one would begin the other.)
            credentials = f"{quote_plus(provider.client)}:{quote_plus(provider.secret)}"
            headers["Authorization"] = f"Basic {b64encode(credentials.encode()).decode()}"
        reply = await self._ask("POST", provider.endpoints.token, form=form, headers=headers)
        if reply.status == 400 and json_object(reply).get("error") == "invalid_grant":
            raise Refused("code")
        return json_object(reply, 200)

    async def _userinfo(self, url: str, access_token: str, subject: str) -> Claims:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {access_token}"}
        found = json_object(await self._ask("GET", url, headers=headers), 200)
        if found.get("sub") != subject:  # OpenID Connect Core §5.3.4: or somebody else's may be slipped in
            raise Refused("sub of userinfo")
        return found

    async def _ask(self, method: str, url: str, **options: Any) -> Reply:
        return await self._outbound.ask(method, url, most_bytes=_MOST_BYTES, **options)


def _check_id_token(
    provider: Provider, claims: Claims, header: Mapping[str, Any], access_token: str, nonce: str, now: datetime
) -> str:
    """Refuse an id token that is not the answer to this question (OpenID Connect Core §3.1.3.7); returns its subject."""
    options = {
        "iss": {"essential": True, "value": provider.issuer},
        "aud": {"essential": True, "value": provider.client},
        "sub": {"essential": True},
    }
    params = {"nonce": nonce, "client_id": provider.client, "access_token": access_token}
    moment = int(now.timestamp())
    try:
        CodeIDToken(claims, header, options, params).validate(moment, provider.skew)
    except JoseError as error:
        raise Refused(str(getattr(error, "claim", type(error).__name__))) from None
    except (ValueError, TypeError, AttributeError, KeyError):
        raise Refused("claims") from None
    if seconds(claims, "iat") < moment - _OLDEST - provider.skew:
        raise Refused("iat")
    if provider.acr and claims.get("acr") not in provider.acr:
        raise Refused("acr")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT:
        raise Refused("sub")
    return subject


def _differences(provider: Provider, told: Mapping[str, Any]) -> list[str]:
    """What the file of a provider and its own description (OpenID Connect Discovery 1.0 §3) say differently."""
    ours = {
        "issuer": provider.issuer,
        "authorization_endpoint": provider.endpoints.authorization,
        "token_endpoint": provider.endpoints.token,
        "jwks_uri": provider.id_token.keys,
        "userinfo_endpoint": provider.endpoints.userinfo,
        "end_session_endpoint": provider.endpoints.end_session,
    }
    wrong = [name for name, url in ours.items() if url is not None and told.get(name) != url]
    if told.get("authorization_response_iss_parameter_supported") is True and not provider.says_issuer:
        wrong.append("says_issuer")
    return wrong
