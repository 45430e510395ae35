"""Access tokens that their issuer is asked about (RFC 7662).

Knows: the question and which answers mean that a token holds. Must not know: what claims mean here.
"""

from base64 import b64encode
from collections import OrderedDict
from datetime import datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from urllib.parse import quote_plus

from gateway.issuers.claims import Claims, Refused, check_claims
from gateway.issuers.files import Introspection, Issuer
from gateway.outbound import Outbound, Unreachable, json_object

_MOST_BYTES = 65_536
_MOST_KEPT = 10_000


class IntrospectedTokens:
    """Asks one issuer about its tokens. What it says is kept for the seconds that its file allows, by default for none."""

    def __init__(self, issuer: Issuer, rules: Introspection, outbound: Outbound) -> None:
        self._issuer = issuer
        self._rules = rules
        self._outbound = outbound
        credentials = f"{quote_plus(rules.client)}:{quote_plus(issuer.secret)}"  # RFC 6749 §2.3.1
        self._headers = {
            "Accept": "application/json",
            "Authorization": f"Basic {b64encode(credentials.encode()).decode()}",
        }
        self._kept: OrderedDict[bytes, tuple[datetime, Claims]] = OrderedDict()

    async def claims(self, token: str, now: datetime) -> Claims:
        """The claims of a token that holds now. Raises Refused, and Unreachable where its issuer does not say."""
        claims = await self._answer(token) if not self._rules.cache_seconds else await self._answer_kept(token, now)
        # Only the value true is a yes: 1 and "true" are none.
        if claims.get("active") is not True:
            raise Refused("active")
        check_claims(self._issuer, claims, now)
        return claims

    async def try_out(self) -> None:
        """Ask about a token that nobody has. Raises Unreachable where the answer is not a plain no."""
        invented = f"{self._rules.prefix or ''}{token_urlsafe(32)}"
        if (await self._answer(invented)).get("active") is not False:
            raise Unreachable("an invented token is not refused")

    async def _answer_kept(self, token: str, now: datetime) -> Claims:
        key = sha256(token.encode()).digest()
        asked, claims = self._kept.get(key, (None, {}))
        if asked is None or not timedelta() <= now - asked < timedelta(seconds=self._rules.cache_seconds):
            claims = await self._answer(token)
            self._kept[key] = (now, claims)
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return claims

    async def _answer(self, token: str) -> Claims:
        form = {"token": token, "token_type_hint": "access_token"}
        endpoint = self._rules.endpoint
        reply = await self._outbound.ask("POST", endpoint, most_bytes=_MOST_BYTES, form=form, headers=self._headers)
        return json_object(reply, 200)
