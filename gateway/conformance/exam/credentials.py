"""What a client is given for its exam: an access token that really expires when the exam says so, and a token to renew it with.

Knows: RFC 6749 §6, RFC 6750, and that a refresh token is used once (RFC 9700 §4.14). Must not know: how requests come and go.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from gateway.conformance.exam.sent import Sent

_LIFETIME = 300  # seconds: what a new token is said to be good for
_SCHEME = "bearer "


def _new() -> str:
    return f"exam-{secrets.token_urlsafe(16)}"


@dataclass
class Credentials:
    """One client's. `upstream`: the sandbox's own token, which stands behind all that the exam gives out."""

    upstream: str = field(repr=False)
    access_token: str = field(default_factory=_new, repr=False)
    refresh_token: str = field(default_factory=_new, repr=False)
    _given: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        """Know what was given."""
        self._given |= {self.access_token, self.refresh_token}

    def upstream_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers as the sandbox is to see them: with its own token where the exam's is shown."""
        shown = headers.get("authorization", "")
        if shown[: len(_SCHEME)].lower() != _SCHEME or shown[len(_SCHEME) :].strip() not in self._given:
            return headers
        return {**headers, "authorization": f"Bearer {self.upstream}"}

    def renew(self, sent: Sent) -> tuple[int, dict[str, Any]] | None:
        """The answer of the token endpoint; None where something else is asked for than to renew what the exam gave out."""
        form = {name: values[0] for name, values in parse_qs(sent.body.decode("utf-8", "replace")).items()}
        shown = form.get("refresh_token", "")
        if form.get("grant_type") != "refresh_token" or shown not in self._given:
            return None
        if shown != self.refresh_token:
            return 400, {"error": "invalid_grant", "error_description": "a refresh token is good once"}
        self.access_token, self.refresh_token = _new(), _new()
        self._given |= {self.access_token, self.refresh_token}
        told = {"access_token": self.access_token, "refresh_token": self.refresh_token}
        return 200, {**told, "token_type": "Bearer", "expires_in": _LIFETIME}


@dataclass
class Expiry:
    """Which tokens have expired in an exam, and how often each was shown since.

    `most`: so often one is refused. A client that has understood nothing by then never will: the exam goes on with what it has.
    """

    most: int = 5
    _shown: dict[str, int] = field(default_factory=dict)

    def expire(self, sent: Sent) -> None:
        """From now on the token of this request is good no more."""
        self._shown.setdefault(sent.token, 0)

    def refuses(self, sent: Sent) -> bool:
        """Whether a request is to be refused for its token."""
        if sent.token not in self._shown:
            return False
        self._shown[sent.token] += 1
        return self._shown[sent.token] <= self.most

    @property
    def is_spent(self) -> bool:
        """Whether a client showed an expired token more often than one is refused."""
        return any(times > self.most for times in self._shown.values())

    def shown(self, sent: Sent) -> int:
        """How often the token of this request was shown since it expired."""
        return self._shown.get(sent.token, 0)
