"""Who logged in, as a client is told (https://openid.net/specs/openid-connect-core-1_0.html#IDToken).

Knows: the claims of an id_token, and that each client knows a person by another name (§8.1), so that nobody can put together
what two of them know. An app that measures is told a name of the patient, whoever paired it; others, one of who logged in.
Must not know: HTTP, how a key comes to be the one that signs.
"""

import base64
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError

from gateway.oauth.keys import ALGORITHM, SigningKey, SigningKeys
from gateway.settings import Settings

LASTS = timedelta(minutes=5)
_LONGEST = 8_192


class IdTokens:
    """Makes id_tokens."""

    def __init__(self, settings: Settings) -> None:
        self._site, self._base = settings.site, settings.base_url
        self._key = blake2b(settings.secret.encode(), digest_size=32, person=b"gateway-subject").digest()

    def make(self, key: SigningKey, approval: Mapping[str, Any], now: datetime, oid: str | None = None) -> str:
        """The id_token of an approval, signed. `oid`: that of the client, if it has one."""
        claims: dict[str, Any] = {
            "iss": self._site,
            "sub": self.subject(approval),
            "aud": approval["client"],
            "iat": int(now.timestamp()),
            "exp": int((now + LASTS).timestamp()),
            "auth_time": int(approval["logged_in"].timestamp()),
            "acr": approval["level"],
        }
        if approval["nonce"] is not None:
            claims["nonce"] = approval["nonce"]
        if oid is not None:
            claims["oid"] = oid
        return jwt.encode({"alg": ALGORITHM, "kid": key.id}, claims | self.about(approval), key.key, algorithms=[ALGORITHM])

    def subject(self, approval: Mapping[str, Any]) -> str:
        """The name by which this client knows this person."""
        whom = f"Patient/{approval['patient']}" if approval["kind"] == "app" else approval["user"]
        digest = hmac.digest(self._key, f"{approval['client']}\0{whom}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def about(self, approval: Mapping[str, Any]) -> dict[str, str]:
        """The resource that is this person, where the client asked for it."""
        return {"fhirUser": f"{self._base}/{approval['user']}"} if "fhirUser" in approval["plain"] else {}

    def read(self, token: str, key: SigningKey, client: str) -> Mapping[str, Any] | None:
        """What one of these tokens said to this client, None where this key did not sign that. Its time may be over."""
        try:
            claims = jwt.decode(token, key.key, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return claims if (claims.get("iss"), claims.get("aud")) == (self._site, client) else None


async def read_id_token(tokens: IdTokens, keys: SigningKeys, text: str, client: str) -> Mapping[str, Any] | None:
    """What one of our id_tokens says to this client, None where it is none. That its time is over is no matter: it says who
    somebody was when they logged in, and gives no right (as `id_token_hint` of OpenID Connect).
    """
    if len(text) > _LONGEST or text.count(".") != 2:
        return None
    try:
        name = jws.extract_compact(text.encode()).headers().get("kid")
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        return None
    key = await keys.find(name) if isinstance(name, str) else None
    return None if key is None else tokens.read(text, key, client)
