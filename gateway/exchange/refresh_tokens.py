"""What refresh tokens look like.

Knows: how one says of which approval it is and that it was made here, so that one that was spent is told from one that never
was, without a list of all that ever were. Must not know: which are still good.
"""

import base64
import hmac
import secrets
from hashlib import blake2b

PREFIX = "gwrt_"  # lets scanners for leaked secrets know one of ours
_ID, _NONCE, _MARK = 16, 16, 16  # bytes: of which approval, which one, that it is ours


class RefreshTokens:
    """Makes and reads refresh tokens, with a key derived from `secret`."""

    def __init__(self, secret: str) -> None:
        self._key = blake2b(secret.encode(), digest_size=32, person=b"gateway-refresh").digest()

    def make(self, approval: str) -> str:
        """A new one."""
        content = bytes.fromhex(approval) + secrets.token_bytes(_NONCE)
        return PREFIX + base64.urlsafe_b64encode(content + self._mark(content)).rstrip(b"=").decode()

    def read(self, token: str) -> str | None:
        """The approval of a token that was made here, None of any other."""
        if not token.startswith(PREFIX) or len(token) != len(PREFIX) + 64:
            return None
        try:
            data = base64.b64decode(token.removeprefix(PREFIX), altchars=b"-_", validate=True)
        except ValueError:
            return None
        content, mark = data[: _ID + _NONCE], data[_ID + _NONCE :]
        return content[:_ID].hex() if hmac.compare_digest(mark, self._mark(content)) else None

    def _mark(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")[:_MARK]
