"""What a trusted proxy says of a request: who sent it, over what, and with which client certificate.

Knows: which peers are believed, and how proxies write a certificate (RFC 9440, and the escaped PEM of nginx and others).
Must not know: tokens, what the certificate is good for. Whether it holds, the proxy has verified.
"""

import base64
import binascii
import functools
import ssl
from base64 import b64decode
from collections.abc import Sequence
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

_LONGEST = 16_384
_REMEMBERED = 1_000


class Proxied:
    """ASGI middleware outside all others, where there are proxies. Puts `certificate` into the request's state.

    That is the thumbprint (RFC 8705 §3.1) of the certificate in the header of this name, and is there only where a trusted
    peer sent it, once. Anybody else's header counts for nothing.
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[IPv4Network | IPv6Network], certificate_header: str) -> None:
        self._app = app
        self._forwarded = ProxyHeadersMiddleware(app, [str(network) for network in proxies])  # type: ignore[arg-type]
        self._proxies = tuple(proxies)
        self._header = certificate_header.lower().encode()
        self._thumbprint = functools.lru_cache(_REMEMBERED)(thumbprint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, as whoever sent it to the proxy."""
        if scope["type"] != "http" or not self._is_trusted(scope.get("client")):
            await self._app(scope, receive, send)
            return
        if self._header:
            found = [value for name, value in scope["headers"] if name == self._header]
            scope.setdefault("state", {})["certificate"] = self._thumbprint(found[0]) if len(found) == 1 else None
        await self._forwarded(scope, receive, send)  # type: ignore[arg-type]

    def _is_trusted(self, client: tuple[str, int] | None) -> bool:
        try:
            address = ip_address(client[0]) if client else None
        except ValueError:  # a socket of this machine, or a test
            return False
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        return address is not None and any(address in network for network in self._proxies)


def thumbprint(value: bytes) -> str | None:
    """`x5t#S256` of the certificate in a header: `:base64 of DER:` (RFC 9440 §2.1) or a PEM with its lines percent-encoded."""
    if len(value) > _LONGEST:
        return None
    text = value.decode("latin-1").strip()
    try:
        if text.startswith(":") and text.endswith(":"):
            der = b64decode(text[1:-1], validate=True)
        else:
            der = ssl.PEM_cert_to_DER_cert(unquote(text, errors="strict").strip())
    except (ValueError, binascii.Error):
        return None
    return base64.urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode() if der else None
