"""The configured issuers together: whose a token is, and who bears it.

Knows: how a token tells whose it is. Must not know: HTTP, stores, who is known here.
"""

import logging
import re
from collections.abc import AsyncIterator, Iterable
from datetime import datetime

from gateway.issuers.claims import Bearer, Refused, read_bearer
from gateway.issuers.files import Issuer
from gateway.issuers.introspected import IntrospectedTokens
from gateway.issuers.signed import SignedTokens, read_unverified_issuer
from gateway.outbound import Network, Outbound, Resolve, Unreachable
from gateway.telemetry import log

OWN_PREFIX = "gwat_"  # lets scanners for leaked secrets know one of ours, and us not to show it to anybody
_MOST_BYTES = 8_192
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1


class Issuers:
    """Says whose a token is, and who bears it."""

    def __init__(self, issuers: Iterable[Issuer], networks: Iterable[Network] = (), resolve: Resolve | None = None) -> None:
        self._by_url = {issuer.issuer: issuer for issuer in issuers}
        configured = self._by_url.values()
        self._by_prefix = [
            (i.introspection.prefix, i) for i in configured if i.introspection and i.introspection.prefix is not None
        ]
        self._outbound = Outbound([issuer.url for issuer in configured], networks, resolve)
        self._signed = {i.name: SignedTokens(i, i.jwt, self._outbound) for i in configured if i.jwt}
        self._introspected = {
            i.name: IntrospectedTokens(i, i.introspection, self._outbound) for i in configured if i.introspection
        }

    def find(self, token: str) -> Issuer | None:
        """Whose token this says it is, which is only to know whom to ask; None where it can only be ours."""
        if not self._by_url or token.startswith(OWN_PREFIX):
            return None
        if len(token) > _MOST_BYTES or not _BEARER.fullmatch(token):
            return None
        if token.startswith("ey") and token.count(".") == 2:
            # That of somebody unknown is shown to nobody.
            return self._by_url.get(read_unverified_issuer(token) or "")
        return next((issuer for prefix, issuer in self._by_prefix if token.startswith(prefix)), None)

    async def bearer(self, issuer: Issuer, token: str, now: datetime) -> Bearer | None:
        """Who bears a token that holds now, None where the issuer's table does not speak of such a bearer.

        Raises Refused where it does not hold, and Unreachable where its issuer would have to answer and does not.

        Why is logged, without anything of the token.
        """
        tokens = self._signed.get(issuer.name) or self._introspected[issuer.name]
        try:
            found = read_bearer(issuer, await tokens.claims(token, now))
        except Refused as refused:
            log("token.refused", detail=f"{issuer.name}: {refused}")
            raise
        except Unreachable as error:
            if issuer.introspection:  # failed fetches of keys are logged where they happen, not with every token
                log("issuer.unreachable", level=logging.WARNING, detail=f"{issuer.name}: {error}")
            raise
        if found is None:
            log("token.refused", detail=f"{issuer.name}: no rule for its claims")
        return found

    async def try_out(self, now: datetime) -> AsyncIterator[tuple[str, str, bool]]:
        """Ask every issuer once: its name, what came of it, and whether its tokens can be taken."""
        for issuer in self._by_url.values():
            try:
                if issuer.jwt:
                    yield issuer.name, f"{await self._signed[issuer.name].keys.count(now.timestamp())} usable keys", True
                else:
                    await self._introspected[issuer.name].try_out()
                    yield issuer.name, "answers", True
            except Unreachable as error:
                yield issuer.name, f"no usable answer: {error}", False

    async def close(self) -> None:
        """Give up what is under way and close all connections."""
        for tokens in self._signed.values():
            await tokens.keys.close()
        await self._outbound.close()
