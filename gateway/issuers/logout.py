"""What a provider says when somebody has logged out there: OpenID Connect Back-Channel Logout 1.0 §2.4 to §2.6.

Knows: what such a token must say, and what makes it none (an id token of the same provider is none).
Must not know: HTTP, stores, whose sessions there are.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from gateway.issuers.claims import Claims, Refused, seconds
from gateway.issuers.providers import Provider

NOTICES = frozenset({"logout+jwt", "jwt", ""})
_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_LONGEST = 255
_OLDEST = 300  # seconds: it is sent when it is made, and again where that failed


@dataclass(frozen=True, slots=True)
class Notice:
    """A logout: of all sessions of `subject`, or of this one `session`. `id`: a name that only this notice has, and until when
    it could come again.
    """

    subject: str | None
    session: str | None
    id: bytes
    ends: datetime


def read_notice(provider: Provider, claims: Claims, now: datetime) -> Notice:
    """The notice that these claims, which the provider has signed, are. Raises Refused."""
    audiences = claims.get("aud")
    if claims.get("iss") != provider.issuer:
        raise Refused("iss")
    if provider.client not in (audiences if isinstance(audiences, list) else [audiences]):
        raise Refused("aud")
    moment, issued, ends = now.timestamp(), seconds(claims, "iat"), seconds(claims, "exp")
    if not moment - _OLDEST - provider.skew <= issued <= moment + provider.skew:
        raise Refused("iat")
    if ends < moment - provider.skew:
        raise Refused("exp")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(_EVENT), dict):
        raise Refused("events")
    if "nonce" in claims:  # so that nobody can pass an id token off as one
        raise Refused("nonce")
    subject, session, name = (_text(claims, claim) for claim in ("sub", "sid", "jti"))
    if name is None:
        raise Refused("jti")
    if subject is None and session is None:
        raise Refused("sub")
    known = sha256(f"{provider.issuer}\x00{name}".encode()).digest()
    again = datetime.fromtimestamp(issued, UTC) + timedelta(seconds=_OLDEST + 2 * provider.skew)
    return Notice(subject, session, known, again)


def _text(claims: Claims, name: str) -> str | None:
    found = claims.get(name)
    if found is None:
        return None
    if not isinstance(found, str) or not 0 < len(found) <= _LONGEST:
        raise Refused(name)
    return found
